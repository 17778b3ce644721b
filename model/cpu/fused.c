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

enum { TILE = ISO_CHAIN_TILE, VALUES = ISO_CHAIN_VALUES, LINE = 16 /* numbers of a line of the cache */ };

/* Where a value comes from. */
enum source {
    DENSE,  /* an input in place */
    STEADY, /* a broadcast input that looks the same in every tile */
    SPREAD, /* any other broadcast input */
    INNER,  /* a step that is done with the one step that reads it */
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

static bool reads(const iso_chain *p, int s, int v)
{
    for (int k = 0; p->by[s] && k < p->by[s]->inputs; k++)
        if (p->operand[s][k] == v) return true;
    return false;
}

/* Writing a step's value to its place at once must not overwrite an input that a later step still reads. */
static bool may_write_at_once(const iso_chain *p, int step)
{
    const iso_fused *f = p->f;
    for (int i = 0; i < f->inputs; i++) {
        if (f->input[i].data != f->step[step].out) continue;
        for (int s = step + 1; s < f->steps; s++)
            if (reads(p, s, i)) return false;
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
    for (int s = 0; s < f->steps; s++)
        for (int k = 0; p->by[s] && k < p->by[s]->inputs; k++) last[p->operand[s][k]] = s;
    for (int s = 0; s < f->steps; s++)
        if (f->step[s].out && p->from[f->inputs + s] == BUFFER) last[f->inputs + s] = f->steps;
    for (int v = 0; v < f->inputs; v++)
        if (p->from[v] != DENSE) p->slot[v] = take_slot(used, &p->slots);
    for (int s = 0; s < f->steps; s++) {
        const int v = f->inputs + s;
        /* the result may take the place of an operand that is read here for the last time */
        for (int k = 0; p->by[s] && k < p->by[s]->inputs; k++) {
            const int x = p->operand[s][k];
            if (last[x] == s && p->from[x] == BUFFER) used[p->slot[x]] = false;
        }
        if (p->from[v] == BUFFER) {
            p->slot[v] = take_slot(used, &p->slots);
            if (last[v] <= s) used[p->slot[v]] = false;
        }
    }
}

/* A pass, and which steps of the chain its ops would be. */
typedef struct match {
    const iso_pass *by;
    int step[ISO_PASS_OPS], operand[ISO_PASS_INPUTS];
} match;

/* Whether value v of the chain can be number n of the pass. */
static bool fits(const iso_fused *f, const int *readers, int v, int n, match *m)
{
    const int op = n - m->by->inputs, s = v - f->inputs;
    if (op < 0) {
        m->operand[n] = v;
        return true;
    }
    if (s < 0 || f->step[s].op != m->by->op[op].op || (op + 1 < m->by->ops && (readers[v] != 1 || f->step[s].out))) return false;
    const int a = m->by->op[op].a, b = m->by->op[op].b;
    m->step[op] = s;
    if (fits(f, readers, f->step[s].a, a, m) && (b < 0 || fits(f, readers, f->step[s].b, b, m))) return true;
    return (f->step[s].op == ISO_OP_ADD || f->step[s].op == ISO_OP_MUL) && fits(f, readers, f->step[s].b, a, m) && fits(f, readers, f->step[s].a, b, m);
}

/* What does which steps, as many at once as there is a pass for. */
static void find_passes(iso_chain *p)
{
    const iso_fused *f = p->f;
    int readers[VALUES] = {0};
    for (int s = 0; s < f->steps; s++) {
        readers[f->step[s].a]++;
        if (f->step[s].b >= 0) readers[f->step[s].b]++;
    }
    for (int s = f->steps - 1; s >= 0; s--) {
        match m = {.by = iso_passes};
        if (p->from[f->inputs + s] == INNER) continue;
        while (!fits(f, readers, f->inputs + s, m.by->inputs + m.by->ops - 1, &m)) m.by++; /* at the latest that of its op alone does */
        p->by[s] = m.by;
        memcpy(p->operand[s], m.operand, sizeof m.operand);
        for (int k = 0; k < m.by->ops; k++) {
            p->number[s][k] = (float)f->step[m.step[k]].f;
            if (m.step[k] != s) p->from[f->inputs + m.step[k]] = INNER;
        }
    }
}

static float *buffer_of(iso_chain *p, int v) { return p->buffer + p->slot[v] * p->room; }

/* As many elements as all buffers have room for; whole periods of the inputs that repeat. Runs will begin at multiples of `start`. */
static void choose_tile(iso_chain *p, int64_t start)
{
    const iso_fused *f = p->f;
    int64_t repeats[ISO_FUSED_MAX_INPUTS], longest = 1;
    p->room = iso_min64(TILE, ISO_CHAIN_ROOM / iso_max64(p->slots, 1) / LINE * LINE);
    for (int i = 0; i < f->inputs; i++) {
        repeats[i] = p->from[i] == DENSE ? 0 : period(&f->shape, p->stride[i]);
        if (repeats[i] <= p->room) longest = iso_max64(longest, repeats[i]);
    }
    p->tile = p->room / longest * longest;
    for (int i = 0; i < f->inputs; i++)
        if (repeats[i] > 0 && p->tile % repeats[i] == 0 && start % repeats[i] == 0) p->from[i] = STEADY;
}

/* For runs of elements that begin at multiples of `start`. */
static void prepare(iso_chain *p, const iso_fused *f, int64_t start)
{
    assert(f->inputs <= ISO_FUSED_MAX_INPUTS && f->steps <= ISO_FUSED_MAX_STEPS);
    memset(p, 0, offsetof(iso_chain, buffer));
    p->f = f;
    for (int i = 0; i < f->inputs; i++) {
        if (f->input[i].dense) continue;
        input_strides(&f->shape, &f->input[i].shape, p->stride[i]);
        p->from[i] = SPREAD;
    }
    find_passes(p);
    for (int s = 0; s < f->steps; s++)
        if (p->from[f->inputs + s] != INNER) p->from[f->inputs + s] = f->step[s].out && may_write_at_once(p, s) ? DIRECT : BUFFER;
    assign_slots(p);
    choose_tile(p, start);
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

static void run_tile(iso_chain *p, int64_t start, int64_t n)
{
    const iso_fused *f = p->f;
    const float *value[VALUES];
    for (int i = 0; i < f->inputs; i++) {
        if (p->from[i] == DENSE) {
            value[i] = (const float *)f->input[i].data + start;
            continue;
        }
        if (p->from[i] == SPREAD) spread(&f->shape, p->stride[i], f->input[i].data, start, n, buffer_of(p, i));
        value[i] = buffer_of(p, i);
    }
    for (int s = 0; s < f->steps; s++) {
        const float *x[ISO_PASS_INPUTS] = {0};
        const int v = f->inputs + s;
        if (!p->by[s]) continue;
        for (int k = 0; k < p->by[s]->inputs; k++) x[k] = value[p->operand[s][k]];
        float *out = p->from[v] == DIRECT ? (float *)f->step[s].out + start : buffer_of(p, v);
        p->by[s]->run(n, x, p->number[s], out);
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
            spread(&f->shape, p->stride[i], f->input[i].data, 0, iso_min64(p->tile, f->count), buffer_of(p, i));
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

typedef struct shares {
    const iso_fused *f;
    int count;
} shares;

static void run_share(void *context, int64_t i)
{
    const shares *s = context;
    iso_chain p;
    iso_chain_begin(&p, s->f, 0);
    const int64_t tiles = p.f ? iso_ceil_div(s->f->count, p.tile) : 0, each = iso_ceil_div(tiles, s->count) * p.tile;
    iso_chain_run(&p, i * each, iso_min64((i + 1) * each, s->f->count));
}

void iso_cpu_fused(const iso_fused *f)
{
    const int threads = iso_cpu_threads(f->threads, f->count * (int64_t)sizeof(float) * (f->inputs + f->steps));
    shares s = {f, (int)iso_max64(iso_min64(threads, iso_ceil_div(f->count, TILE)), 1)};
    iso_cpu_each(s.count, s.count, run_share, &s);
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
