/* fused.c: a chain of elementwise ops, tile by tile.
 *
 * A tile is so short that all values of a chain stay in the cache: a chain of ten ops then costs one pass over memory.
 * Dense inputs are read where they lie; inputs that broadcast are spread out per tile, once per thread where every tile
 * sees the same. */
#include "model/cpu/fused.h"

#include <assert.h>
#include <string.h>

#include "model/cpu/cpu.h"
#include "model/cpu/elementwise.h"

enum { TILE = ISO_CHAIN_TILE, VALUES = ISO_CHAIN_VALUES };

/* Where a value comes from. */
enum source {
    DENSE,  /* an input in place */
    STEADY, /* a broadcast input that looks the same in every tile */
    SPREAD, /* any other broadcast input */
    PAIRED, /* a step that is done with the one step that reads it */
    DIRECT, /* a step computed where it is stored */
    BUFFER  /* a step computed in a buffer; `out` may want a copy */
};

static void input_strides(const iso_shape *to, const iso_shape *in, int64_t stride[ISO_MAX_DIMS])
{
    int64_t step = 1;
    memset(stride, 0, ISO_MAX_DIMS * sizeof *stride);
    for (int d = in->ndim - 1; d >= 0; d--) {
        stride[to->ndim - in->ndim + d] = in->dim[d] == 1 ? 0 : step;
        step *= in->dim[d];
    }
}

/* The length after which an input repeats: the product of the trailing axes it has in full, if it broadcasts over all
 * axes before them; 0 if it doesn't repeat like that. */
static int64_t period(const iso_shape *shape, const int64_t *stride)
{
    int64_t step = 1;
    int d = shape->ndim - 1;
    for (; d >= 0 && (stride[d] == step || shape->dim[d] == 1); d--) step *= shape->dim[d];
    for (; d >= 0; d--)
        if (stride[d] != 0 && shape->dim[d] != 1) return 0;
    return step;
}

static bool reads(const iso_fused *f, int s, int v) { return f->step[s].a == v || f->step[s].b == v; }

/* Writing a step's value to its place at once must not overwrite an input that a later step still reads. */
static bool may_write_at_once(const iso_chain *p, int step)
{
    const iso_fused *f = p->f;
    for (int i = 0; i < f->inputs; i++) {
        if (f->input[i].data != f->step[step].out) continue;
        for (int s = step + 1; s < f->steps; s++)
            if (reads(f, s, i) || (p->with[s] >= 0 && reads(f, p->with[s], i))) return false;
    }
    return true;
}

static int take_slot(bool *used, int *slots)
{
    int i = 0;
    while (used[i]) i++;
    used[i] = true;
    if (i >= *slots) *slots = i + 1;
    return i;
}

/* Slots by liveness: a value's buffer is free again after its last reader; one that is copied out lives to the end. */
static void assign_slots(iso_chain *p)
{
    const iso_fused *f = p->f;
    bool used[VALUES + 1] = {false};
    int last[VALUES];
    for (int v = 0; v < f->inputs + f->steps; v++) last[v] = v - f->inputs;
    for (int s = 0; s < f->steps; s++) {
        last[f->step[s].a] = s;
        if (f->step[s].b >= 0) last[f->step[s].b] = s;
        if (p->with[s] < 0) continue;
        last[f->step[p->with[s]].a] = s; /* read only now */
        if (f->step[p->with[s]].b >= 0) last[f->step[p->with[s]].b] = s;
    }
    for (int s = 0; s < f->steps; s++)
        if (f->step[s].out && p->from[f->inputs + s] == BUFFER) last[f->inputs + s] = f->steps;
    for (int v = 0; v < f->inputs; v++)
        if (p->from[v] != DENSE) p->slot[v] = take_slot(used, &p->slots);
    for (int s = 0; s < f->steps; s++) {
        /* the result may take the place of an operand that is read here for the last time */
        for (int v = 0; v < f->inputs + s; v++)
            if (last[v] == s && p->from[v] == BUFFER) used[p->slot[v]] = false;
        int v = f->inputs + s;
        if (p->from[v] == BUFFER) {
            p->slot[v] = take_slot(used, &p->slots);
            if (last[v] <= s) used[p->slot[v]] = false;
        }
    }
}

/* Steps that nothing but one other reads, with which they are done in one pass. */
static void find_pairs(iso_chain *p)
{
    const iso_fused *f = p->f;
    int readers[VALUES] = {0};
    for (int s = 0; s < f->steps; s++) {
        readers[f->step[s].a]++;
        if (f->step[s].b >= 0) readers[f->step[s].b]++;
    }
    for (int s = 0; s < f->steps; s++) {
        const int operand[2] = {f->step[s].a, f->step[s].b};
        p->with[s] = -1;
        for (int k = 0; k < 2 && p->with[s] < 0; k++) {
            const int first = operand[k] - f->inputs;
            if (first < 0 || readers[operand[k]] != 1 || f->step[first].out || p->with[first] >= 0) continue;
            if (!iso_elementwise_pairs(f->step[first].op, f->step[s].op, k)) continue;
            p->from[operand[k]] = PAIRED;
            p->with[s] = first;
        }
    }
}

/* For runs of elements that begin at multiples of `start`. */
static void prepare(iso_chain *p, const iso_fused *f, int64_t start)
{
    assert(f->inputs <= ISO_FUSED_MAX_INPUTS && f->steps <= ISO_FUSED_MAX_STEPS);
    memset(p, 0, offsetof(iso_chain, buffer));
    p->f = f;
    int64_t longest = 1;
    for (int i = 0; i < f->inputs; i++) {
        if (f->input[i].dense) continue;
        input_strides(&f->shape, &f->input[i].shape, p->stride[i]);
        int64_t n = period(&f->shape, p->stride[i]);
        if (n <= TILE) longest = iso_max64(longest, n);
    }
    find_pairs(p);
    p->tile = TILE / longest * longest;
    for (int i = 0; i < f->inputs; i++) {
        if (f->input[i].dense) continue;
        int64_t n = period(&f->shape, p->stride[i]);
        p->from[i] = n > 0 && p->tile % n == 0 && start % n == 0 ? STEADY : SPREAD;
    }
    for (int s = 0; s < f->steps; s++)
        if (p->from[f->inputs + s] != PAIRED) p->from[f->inputs + s] = f->step[s].out && may_write_at_once(p, s) ? DIRECT : BUFFER;
    assign_slots(p);
}

/* Elements start ... start+n-1 of the iteration shape, of an input that broadcasts. */
static void spread(const iso_shape *shape, const int64_t *stride, const float *data, int64_t start, int64_t n, float *out)
{
    int64_t at[ISO_MAX_DIMS] = {0}, offset = 0, rest = start;
    const int last = shape->ndim - 1;
    if (last < 0) {
        iso_elementwise_fill(n, data[0], out);
        return;
    }
    for (int d = last; d >= 0; d--) {
        at[d] = rest % shape->dim[d];
        rest /= shape->dim[d];
        offset += at[d] * stride[d];
    }
    for (int64_t done = 0; done < n;) {
        int64_t run = iso_min64(shape->dim[last] - at[last], n - done);
        if (stride[last] == 0) iso_elementwise_fill(run, data[offset], out + done);
        else iso_elementwise_copy(run, data + offset, out + done);
        done += run;
        offset -= at[last] * stride[last];
        at[last] = 0;
        for (int d = last - 1; d >= 0; d--) {
            offset += stride[d];
            if (++at[d] < shape->dim[d]) break;
            offset -= at[d] * stride[d];
            at[d] = 0;
        }
    }
}

/* Step s and the one it is done with. */
static void run_pair(const iso_chain *p, int s, int64_t n, const float *const *value, float *out)
{
    const iso_fused_step *second = &p->f->step[s], *first = &p->f->step[p->with[s]];
    const int k = second->a == p->f->inputs + p->with[s] ? 0 : 1, other = first->b >= 0 ? first->b : k == 0 ? second->b : second->a;
    const bool has = first->op == ISO_OP_SCALE || first->op == ISO_OP_SHIFT;
    iso_elementwise_run_pair(first->op, second->op, k, n, value[first->a], other >= 0 ? value[other] : NULL, (float)(has ? first : second)->f, out);
}

static void run_tile(iso_chain *p, int64_t start, int64_t n)
{
    const iso_fused *f = p->f;
    float (*buffer)[TILE] = p->buffer;
    const float *value[VALUES];
    for (int i = 0; i < f->inputs; i++) {
        if (p->from[i] == DENSE) {
            value[i] = (const float *)f->input[i].data + start;
            continue;
        }
        if (p->from[i] == SPREAD) spread(&f->shape, p->stride[i], f->input[i].data, start, n, buffer[p->slot[i]]);
        value[i] = buffer[p->slot[i]];
    }
    for (int s = 0; s < f->steps; s++) {
        const iso_fused_step *step = &f->step[s];
        const int v = f->inputs + s;
        if (p->from[v] == PAIRED) continue;
        float *out = p->from[v] == DIRECT ? (float *)step->out + start : buffer[p->slot[v]];
        if (p->with[s] < 0) iso_elementwise_run(step->op, n, value[step->a], step->b >= 0 ? value[step->b] : NULL, (float)step->f, out);
        else run_pair(p, s, n, value, out);
        value[v] = out;
    }
    for (int s = 0; s < f->steps; s++)
        if (f->step[s].out && p->from[f->inputs + s] == BUFFER)
            iso_elementwise_copy(n, value[f->inputs + s], (float *)f->step[s].out + start);
}

void iso_chain_begin(iso_chain *p, const iso_fused *f, int64_t start)
{
    p->f = NULL;
    if (!f || f->count <= 0) return;
    prepare(p, f, start);
    for (int i = 0; i < f->inputs; i++)
        if (p->from[i] == STEADY)
            spread(&f->shape, p->stride[i], f->input[i].data, 0, iso_min64(p->tile, f->count), p->buffer[p->slot[i]]);
}

void iso_chain_run(iso_chain *p, int64_t first, int64_t last)
{
    for (int64_t i = first; p->f && i < last; i += p->tile) run_tile(p, i, iso_min64(p->tile, last - i));
}

void iso_cpu_fused_part(const iso_fused *f, int64_t first, int64_t last)
{
    iso_chain p;
    if (first >= last) return;
    iso_chain_begin(&p, f, first);
    iso_chain_run(&p, first, last);
}

void iso_cpu_fused(const iso_fused *f)
{
    const int64_t tiles = iso_ceil_div(f->count, TILE);
    int threads = iso_cpu_threads(f->threads, f->count * (int64_t)sizeof(float) * (f->inputs + f->steps));
    if (threads > tiles) threads = (int)iso_max64(tiles, 1);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        iso_chain p;
        iso_chain_begin(&p, f, 0);
        const int64_t shares = p.f ? iso_ceil_div(f->count, p.tile) : 0, share = iso_ceil_div(shares, threads);
#pragma omp for schedule(static, 1)
        for (int t = 0; t < threads; t++) iso_chain_run(&p, t * share * p.tile, iso_min64((t + 1) * share * p.tile, f->count));
    }
}

/* One op by itself: a chain of one. */
void iso_cpu_elementwise(const iso_call *call, iso_op op)
{
    iso_fused_input input[ISO_MAX_INPUTS];
    const int64_t count = iso_shape_count(&call->out.shape);
    int inputs = 0;
    for (; inputs < ISO_MAX_INPUTS && call->in[inputs].data; inputs++)
        input[inputs] = (iso_fused_input){.data = call->in[inputs].data, .shape = call->in[inputs].shape,
                                          .dense = iso_shape_count(&call->in[inputs].shape) == count};
    iso_fused_step step = {.op = op, .a = 0, .b = inputs > 1 ? 1 : -1, .f = call->attr.f, .out = call->out.data};
    iso_cpu_fused(&(iso_fused){.shape = call->out.shape, .count = count, .inputs = inputs, .steps = 1, .input = input,
                               .step = &step, .threads = call->threads});
}
