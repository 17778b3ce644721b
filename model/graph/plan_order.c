/* plan_order.c: which steps of a plan have to wait for which.
 *
 * They are found by memory: of two steps where one writes what the other reads or writes, the later one waits. So the arena's reuse of bytes is
 * honoured, and every step sees what it would have seen in order, however many are done at once: on the host by threads (plan_together.c), on a
 * device as branches of a graph (iso_device.after). */
#include <stdlib.h>

#include "base/memory.h"
#include "model/graph/plan_internal.h"

enum {
    WORD = 64,
    RANGES_MAX = ISO_FUSED_MAX_INPUTS + ISO_FUSED_MAX_STEPS + 3 * ISO_PRODUCTS_MAX + 2 /* of a step */
};

static uint64_t bit_of(int n) { return (uint64_t)1 << n % WORD; }

/* --- what steps touch */

static void add_range(range *list, int *n, const void *data, size_t bytes, bool write)
{
    if (data) list[(*n)++] = (range){(uintptr_t)data, (uintptr_t)data + bytes, write};
}

static bool is_index(iso_op op, int k) { return k == 1 && (op == ISO_OP_GATHER || op == ISO_OP_SCATTER); }

int iso_step_ranges(const iso_plan *p, const step *s, range *list)
{
    range few[RANGES_MAX];
    const size_t each = p->backend->real_size;
    int n = 0;
    if (!list) list = few;
    if (s->kernel) {
        add_range(list, &n, s->call.out.data, (size_t)iso_shape_count(&s->call.out.shape) * (s->call.wide ? sizeof(double) : each), true);
        if (s->call.prepared.data) add_range(list, &n, s->call.prepared.data, (size_t)iso_shape_count(&s->call.prepared.shape) * each, s->prepares);
        for (int k = 0; k < iso_op_table[s->op].inputs; k++)
            add_range(list, &n, s->call.in[k].data,
                      (size_t)iso_shape_count(&s->call.in[k].shape) * (s->joins ? sizeof(double) : is_index(s->op, k) ? sizeof(int64_t) : each), false);
    }
    if (s->kernel && p->backend->device && s->call.workspace) /* on the host small steps have their thread's */
        add_range(list, &n, s->call.workspace, p->backend->workspace(s->op, &s->call), true);
    if (s->call.along) { /* its in[0] is the call's */
        const iso_call *c = s->call.along;
        add_range(list, &n, c->in[1].data, (size_t)iso_shape_count(&c->in[1].shape) * each, false);
        add_range(list, &n, c->out.data, (size_t)iso_shape_count(&c->out.shape) * sizeof(double), true);
    }
    for (int i = 0; s->products && i < s->products->count; i++) {
        const iso_products *of = s->products;
        add_range(list, &n, of->a[i].data, (size_t)iso_shape_count(&of->a[i].shape) * each, false);
        const iso_tensor *b = of->prepared.data ? &of->prepared : &of->b[i];
        if (of->sum || i == 0) add_range(list, &n, b->data, (size_t)iso_shape_count(&b->shape) * each, false);
        add_range(list, &n, of->out[i], (size_t)iso_shape_count(&of->shape) * each, true);
    }
    for (int i = 0; i < s->fused.inputs; i++)
        add_range(list, &n, s->fused.input[i].data, (size_t)iso_shape_count(&s->fused.input[i].shape) * each, false);
    for (int i = 0; i < s->fused.steps; i++)
        add_range(list, &n, s->fused.step[i].out, (size_t)s->fused.count * each, true);
    return n;
}

bool iso_ranges_clash(const range *a, int na, const range *b, int nb)
{
    for (int i = 0; i < na; i++)
        for (int k = 0; k < nb; k++)
            if ((a[i].write || b[k].write) && a[i].from < b[k].to && b[k].from < a[i].to) return true;
    return false;
}

/* --- who waits for whom */

/* From the last step to the first, so that it is known who comes behind a follower: a step tells only those whom no other one will. */
bool iso_followers_find(int count, const range *list, const int *at, int *waits, int *next_at, int **next)
{
    const size_t words = (size_t)(count + WORD - 1) / WORD;
    uint64_t *behind = iso_calloc((size_t)count, words * sizeof *behind); /* [count, words] bits: steps behind a step, at any distance */
    size_t room = 0, n = 0;
    bool ok = behind != NULL;
    for (int i = count - 1; ok && i >= 0; i--) {
        uint64_t *mine = behind + (size_t)i * words;
        for (int k = i + 1; ok && k < count; k++) {
            if (mine[k / WORD] & bit_of(k) || !iso_ranges_clash(list + at[i], at[i + 1] - at[i], list + at[k], at[k + 1] - at[k])) continue;
            if (!(ok = iso_grow(next, &room, n + 1, sizeof **next))) break;
            (*next)[n++] = k;
            waits[k]++;
            mine[k / WORD] |= bit_of(k);
            for (size_t w = 0; w < words; w++) mine[w] |= behind[(size_t)k * words + w];
        }
        next_at[i] = (int)n;
    }
    free(behind);
    return ok;
}

/* --- on a device */

/* The steps before each, and those that nobody follows. */
static bool find_before(iso_plan *p, const int *waits, const int *next_at, const int *next)
{
    const int count = p->step_count;
    int total = 0, lasts = 0;
    for (int i = 0; i < count; i++) {
        total += waits[i];
        lasts += next_at[i] == next_at[i + 1];
    }
    p->before_at = iso_calloc((size_t)count + 2, sizeof *p->before_at);
    p->before = iso_calloc((size_t)(total + lasts), sizeof *p->before);
    int *filled = iso_calloc((size_t)count + 1, sizeof *filled);
    const bool ok = p->before_at && p->before && filled;
    for (int i = 0; ok && i < count; i++) p->before_at[i + 1] = p->before_at[i] + waits[i];
    for (int i = 0; ok && i < count; i++) {
        for (int k = next_at[i + 1]; k < next_at[i]; k++) p->before[p->before_at[next[k]] + filled[next[k]]++] = i;
        if (next_at[i] == next_at[i + 1]) p->before[p->before_at[count] + filled[count]++] = i;
    }
    if (ok) p->before_at[count + 1] = p->before_at[count] + lasts;
    free(filled);
    return ok;
}

iso_status iso_order_build(iso_plan *p, iso_error *err)
{
    const int count = p->step_count;
    int n = 0;
    if (!p->backend->device || !p->backend->device->after || !count) return ISO_OK;
    for (int i = 0; i < count; i++) n += iso_step_ranges(p, p->step + i, NULL);
    range *touched = iso_calloc((size_t)n, sizeof *touched);
    int *at = iso_calloc((size_t)count + 1, sizeof *at), *waits = iso_calloc((size_t)count, sizeof *waits);
    int *next_at = iso_calloc((size_t)count + 1, sizeof *next_at), *next = NULL;
    bool ok = touched && at && waits && next_at;
    for (int i = 0; ok && i < count; i++) at[i + 1] = at[i] + iso_step_ranges(p, p->step + i, touched + at[i]);
    ok = ok && iso_followers_find(count, touched, at, waits, next_at, &next) && find_before(p, waits, next_at, next);
    free(touched), free(at), free(waits), free(next_at), free(next);
    return ok ? ISO_OK : iso_fail_memory(err);
}
