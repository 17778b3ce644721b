/* plan_weights.c: weights in the form that kernels multiply by (iso_backend.prepare), made once for all units of a plan that multiply by the same
 * ones: primals and tangents, a value and its gradients. Where they do not change (iso_plan_spec.frozen) only the first run makes them. */
#include "model/graph/planning.h"

enum { MOST = 4 << 20 /* bytes: more cost as much to write and to read again as to make anew */, MOST_ONCE = 256 << 20 /* in all runs */ };

static const node *at(const planning *w, iso_node n) { return planning_node(w, n); }

/* The node of a unit that multiplies by weights: a convolution, or the first of products that have the same ones. ISO_NONE. */
static iso_node multiplies(const planning *w, int t)
{
    const unit *un = &w->u.unit[t];
    const iso_op op = at(w, planning_lead(w, t))->op;
    if (!un->products) return op == ISO_OP_CONV || op == ISO_OP_CONV_X ? planning_lead(w, t) : ISO_NONE;
    for (int i = 0; i < un->count && un->sum == ISO_NONE; i++)
        if (planning_is_product(w, w->u.order[un->first + i])) return w->u.order[un->first + i];
    return ISO_NONE;
}

/* Whether weights are parameters: as they are, or with other axes first. */
static bool are_parameters(const planning *w, iso_node weights)
{
    iso_node from = w->u.root[weights];
    if (at(w, from)->op == ISO_OP_PERMUTE) from = w->u.root[at(w, from)->in[0]];
    return at(w, from)->op == ISO_OP_STATE;
}

static bool same(const prepared_weights *a, const prepared_weights *b)
{
    bool equal = a->root == b->root && a->op == b->op && a->form == b->form;
    for (int i = 0; i < ISO_MAX_DIMS; i++) equal = equal && a->call.attr.i[i] == b->call.attr.i[i];
    return equal;
}

/* Weights that are multiplied by once alone, or take more than they may, are left as they are; and those of small products that change: what one
 * thread brings into its form, another one reads. */
static void drop(planning *w)
{
    for (int i = 0; i < w->weights_count; i++) {
        prepared_weights *of = &w->weights[i];
        const bool worth = of->once ? of->bytes <= MOST_ONCE : of->bytes <= MOST && of->uses > 1 && of->op != ISO_OP_MATMUL;
        for (int t = 0; t < w->u.unit_count && !worth; t++)
            if (w->weights_of[t] == i) w->weights_of[t] = -1;
        of->first = worth ? of->first : -1;
    }
}

void iso_planning_find_weights(planning *w)
{
    const iso_backend *b = w->p->backend;
    for (int t = 0; t < w->u.unit_count; t++) {
        const iso_node n = multiplies(w, t);
        prepared_weights of = {.first = t, .slot = -1};
        w->weights_of[t] = -1;
        if (!b->prepared || n == ISO_NONE || !are_parameters(w, at(w, n)->in[1])) continue;
        planning_call(w, n, &of.call);
        of.op = at(w, n)->op;
        of.bytes = b->prepared(of.op, &of.call, &of.form);
        of.node = at(w, n)->in[1];
        of.root = w->u.root[of.node];
        of.once = w->fixed && w->fixed[of.root];
        if (!of.bytes) continue;
        int i = 0;
        while (i < w->weights_count && !same(&w->weights[i], &of)) i++;
        if (i == w->weights_count) w->weights[w->weights_count++] = of;
        w->weights[i].last = t;
        w->weights[i].uses += iso_planning_parts(w, t);
        w->weights_of[t] = i;
    }
    drop(w);
}

iso_tensor iso_planning_prepared(const planning *w, int t)
{
    const prepared_weights *of = w->weights_of[t] < 0 ? NULL : &w->weights[w->weights_of[t]];
    if (!of) return (iso_tensor){.data = NULL};
    return (iso_tensor){w->p->arena ? (char *)w->p->arena + w->slots[of->slot].offset : NULL, iso_shape1((int64_t)(of->bytes / w->p->backend->real_size))};
}

void iso_planning_prepare(const planning *w, const prepared_weights *of, step *s)
{
    *s = (step){.op = of->op, .kernel = w->p->backend->prepare[of->op], .call = of->call, .once = of->once, .prepares = true};
    s->call.in[1].data = planning_address(w, of->node);
    s->call.prepared = iso_planning_prepared(w, of->first);
    s->small = !of->once && w->small[of->first];
    if (s->small) s->call.threads = 1;
}
