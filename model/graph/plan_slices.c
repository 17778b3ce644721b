/* plan_slices.c: large steps cut into slices of images.
 *
 * A layer of a large image gives more than the caches hold, and the next one reads it from memory. Where the backend can (iso_slicing),
 * such steps become steps of some images each, done by one thread (plan_together.c), which takes a slice as far as it goes before the next one:
 * what a layer gives is still there for the next, and threads do not wait for each other after every layer. How steps are cut depends on shapes
 * alone, so results do not depend on the threads. */
#include "model/graph/planning.h"

enum {
    LOTS = 4,            /* of sums over images: so many slices may add at once */
    APART = 2,           /* so many of the last slices are not done along with others: threads have both to do */
    MOST_SUMS = 1 << 16
};

static const node *at(const planning *w, iso_node n) { return planning_node(w, n); }

static bool is_kernel(const planning *w, int t) { return !w->u.unit[t].fused || w->u.unit[t].lead != ISO_NONE; }

static bool sums_images(const planning *w, int t)
{
    const node *n = at(w, planning_lead(w, t));
    if (!is_kernel(w, t)) return false;
    if (n->op != ISO_OP_SUM) return n->op == ISO_OP_CONV_W;
    const iso_shape *in = &at(w, n->in[0])->shape;
    return n->shape.ndim < in->ndim || n->shape.dim[0] != in->dim[0];
}

/* The shape whose first axis is cut. */
static const iso_shape *cut_shape(const planning *w, int t)
{
    const node *n = at(w, planning_lead(w, t));
    return sums_images(w, t) ? &at(w, n->in[0])->shape : &n->shape;
}

/* The images that are left for the last slice; where all slices would be full ones, half of one, as the last two are then halves: a thread that finds
 * no more to do waits for what another one has begun. */
static int64_t last_images(const planning *w, int t)
{
    const int64_t n = w->images[t], rest = cut_shape(w, t)->dim[0] % n;
    return rest ? rest : n % 2 ? n : n / 2;
}

static int64_t slices_of(const planning *w, int t)
{
    const int64_t n = w->images[t], batch = cut_shape(w, t)->dim[0];
    return batch / n + (last_images(w, t) < n);
}

/* The first image of a slice, or behind the last one the batch. */
static int64_t slice_from(const planning *w, int t, int64_t slice)
{
    const int64_t slices = slices_of(w, t), batch = cut_shape(w, t)->dim[0];
    return slice == slices ? batch : slice == slices - 1 ? batch - last_images(w, t) : slice * w->images[t];
}

static int64_t lots_of(const planning *w, int t) { return slices_of(w, t) < LOTS ? slices_of(w, t) : LOTS; }

/* --- what is cut */

/* Rows of a slice of an elementwise chain or a sum; 0: better whole. */
static int64_t rows_of(const planning *w, int t)
{
    const node *n = at(w, planning_lead(w, t));
    if ((is_kernel(w, t) && n->op != ISO_OP_SUM) || w->u.unit[t].products || cut_shape(w, t)->ndim < 1) return 0;
    if (sums_images(w, t) && iso_shape_count(&n->shape) > MOST_SUMS) return 0;
    const int64_t rows = cut_shape(w, t)->dim[0], row = iso_shape_count(cut_shape(w, t)) / rows * (int64_t)w->p->backend->real_size;
    const int64_t fit = (int64_t)w->p->backend->slicing->bytes / row, each = fit < 1 ? 1 : fit;
    return 2 * each < rows ? each : 0;
}

/* Where most of the convolutions' work stays whole, slices of the rest would only wait for it. */
void iso_planning_mark_slices(planning *w)
{
    const iso_slicing *s = w->p->backend->slicing;
    double cut = 0, whole = 0;
    for (int t = 0; s && t < w->u.unit_count; t++) {
        const iso_node n = planning_lead(w, t);
        const iso_op op = at(w, n)->op;
        iso_call c;
        if (w->once[t] || !is_kernel(w, t) || w->u.unit[t].products) continue;
        planning_call(w, n, &c);
        w->images[t] = s->images(op, &c);
        if (w->images[t]) cut += iso_op_flops(op, &c);
        else if (op == ISO_OP_CONV || op == ISO_OP_CONV_X || op == ISO_OP_CONV_W) whole += iso_op_flops(op, &c);
    }
    w->sliced = cut > whole;
    for (int t = 0; t < w->u.unit_count && !w->sliced; t++) w->images[t] = 0;
}

void iso_planning_mark_others(planning *w)
{
    for (int t = 0; w->sliced && t < w->u.unit_count; t++) {
        if (!w->once[t] && !w->images[t]) w->images[t] = rows_of(w, t);
        w->small[t] = w->small[t] || w->images[t] > 0;
    }
}

/* --- calls */

/* Makes a whole call one of some images, but for its addresses. */
static void cut_shapes(const planning *w, int t, int64_t images, iso_call *c)
{
    c->part_of = cut_shape(w, t)->dim[0];
    c->wide = sums_images(w, t);
    c->in[0].shape.dim[0] = images;
    if (at(w, planning_lead(w, t))->op == ISO_OP_CONV_W) c->in[1].shape.dim[0] = images;
    if (!c->wide) c->out.shape.dim[0] = images;
}

/* Whether the slices of unit t, a convolution, can do those of unit `sums`: its operands are there, and the kernel does both. */
static bool goes_along(const planning *w, int t, int sums)
{
    const node *a = at(w, planning_lead(w, t)), *b = at(w, planning_lead(w, sums));
    const bool fits = is_kernel(w, t) && is_kernel(w, sums) && a->op == ISO_OP_CONV && b->op == ISO_OP_CONV_W && w->images[t] &&
                      w->images[t] == w->images[sums] && w->along[t] < 0 && w->u.root[a->in[0]] == w->u.root[b->in[0]] &&
                      w->u.of[w->u.root[b->in[1]]] < t;
    iso_call c, along;
    if (!fits || !iso_shape_equal(&at(w, a->in[0])->shape, &at(w, b->in[0])->shape)) return false;
    planning_call(w, planning_lead(w, t), &c);
    planning_call(w, planning_lead(w, sums), &along);
    cut_shapes(w, t, w->images[t], &c);
    cut_shapes(w, sums, w->images[t], &along);
    return w->p->backend->slicing->along(&c, &along);
}

void iso_planning_mark_along(planning *w)
{
    for (int sums = 0; w->sliced && w->p->backend->slicing->along && sums < w->u.unit_count; sums++)
        for (int t = 0; t < sums && w->along[sums] < 0; t++)
            if (goes_along(w, t, sums)) w->along[t] = sums, w->along[sums] = t;
}

/* The unit whose slices do those of unit t; -1. */
static int done_by(const planning *w, int t) { return sums_images(w, t) ? w->along[t] : -1; }

static int done_along(const planning *w, int t) { return sums_images(w, t) ? -1 : w->along[t]; }

bool iso_planning_small_call(const planning *w, int t, int which, iso_call *c, iso_call *along)
{
    planning_call(w, planning_lead(w, t), c);
    c->prepared = iso_planning_prepared(w, t);
    c->threads = 1;
    if (!w->images[t]) return which == 0;
    const int64_t images = which == 0 ? w->images[t] : last_images(w, t);
    cut_shapes(w, t, images, c);
    if (done_along(w, t) >= 0) {
        planning_call(w, planning_lead(w, done_along(w, t)), along);
        cut_shapes(w, done_along(w, t), images, along);
        along->threads = 1;
        c->along = along;
    }
    return which < 2;
}

size_t iso_planning_sums_bytes(const planning *w, int t)
{
    if (!w->images[t] || !sums_images(w, t)) return 0;
    return (size_t)(lots_of(w, t) * iso_shape_count(&at(w, planning_lead(w, t))->shape)) * sizeof(double);
}

int iso_planning_sums_from(const planning *w, int t) { return done_by(w, t) < 0 ? t : done_by(w, t); }

/* --- steps */

/* The first slice that is a step of its own: of those done along with others all but the last ones are none. */
static int64_t first_slice(const planning *w, int t)
{
    return done_by(w, t) >= 0 && slices_of(w, t) > APART ? slices_of(w, t) - APART : 0;
}

int iso_planning_slices(const planning *w, int t) { return (int)(slices_of(w, t) - first_slice(w, t)) + sums_images(w, t); }

static void move(const planning *w, iso_tensor *t, int64_t from)
{
    t->data = planning_row(w, t->data, from, iso_shape_count(&t->shape) / t->shape.dim[0]);
}

/* Makes a whole call one of images from ... to-1. */
static void cut_call(const planning *w, int t, int64_t slice, int64_t from, int64_t to, iso_call *c)
{
    move(w, &c->in[0], from);
    if (at(w, planning_lead(w, t))->op == ISO_OP_CONV_W) move(w, &c->in[1], from);
    if (!sums_images(w, t)) move(w, &c->out, from);
    cut_shapes(w, t, to - from, c);
    if (!c->wide) return;
    c->add = slice >= LOTS;
    c->out.data = (char *)w->p->arena + w->slots[w->workspace[t]].offset + (size_t)(slice % LOTS * iso_shape_count(&c->out.shape)) * sizeof(double);
}

/* The call of a slice that another unit's slice does along with its own. */
static const iso_call *call_along(planning *w, int t, int64_t slice, int64_t from, int64_t to)
{
    iso_call *c = w->next_along++;
    planning_placed_call(w, planning_lead(w, t), c);
    c->threads = 1;
    cut_call(w, t, slice, from, to, c);
    return c;
}

int iso_planning_cut(planning *w, int t, step *s)
{
    const step whole = *s;
    const int64_t batch = cut_shape(w, t)->dim[0], slices = slices_of(w, t), first = first_slice(w, t);
    const int along = done_along(w, t);
    for (int64_t i = first; i < slices; i++) {
        const int64_t from = slice_from(w, t, i), to = slice_from(w, t, i + 1);
        step *part = &s[i - first];
        *part = whole;
        part->position = (double)from / (double)batch;
        part->images = (double)(to - from) / (double)batch;
        part->flops = whole.flops * (double)(to - from) / (double)batch;
        if (part->kernel) cut_call(w, t, i, from, to, &part->call);
        if (along >= 0 && i < first_slice(w, along)) {
            part->call.along = call_along(w, along, i, from, to);
            part->flops += iso_op_flops(ISO_OP_CONV_W, part->call.along);
        }
        if (part->fused.steps) iso_planning_cut_fused(w, &part->fused, from, to);
        if (part->call.tail) part->call.tail = &part->fused;
    }
    if (!sums_images(w, t)) return (int)slices;
    step *join = &s[slices - first];
    *join = (step){.op = ISO_OP_SUM, .kernel = w->p->backend->slicing->join, .small = true, .joins = true};
    join->call.out = whole.call.out;
    join->call.in[0] = (iso_tensor){(char *)w->p->arena + w->slots[w->workspace[t]].offset,
                                    iso_shape2(lots_of(w, t), iso_shape_count(&whole.call.out.shape))};
    join->call.threads = 1;
    return (int)(slices - first) + 1;
}
