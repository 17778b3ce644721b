/* planning.h: what a plan is while it is made: plan.c lays it out, plan_steps.c makes its steps. */
#ifndef ISO_PLANNING_H
#define ISO_PLANNING_H

#include "model/graph/plan_internal.h"

/* Weights in the form that kernels multiply by (plan_weights.c). */
typedef struct prepared_weights {
    iso_node node, root; /* in[1] of a call, and whose bytes it has */
    iso_op op;
    iso_call call;       /* of the first unit, without addresses */
    int form;
    size_t bytes;
    int first, last;     /* units that multiply by them; first = -1: left as they are */
    int uses, slot;
    bool once;           /* made by the first run alone */
} prepared_weights;

typedef struct planning {
    const iso_graph *g;
    const iso_plan_spec *spec;
    units u;
    iso_plan *p;
    int *last;      /* [nodes] the last unit that reads a root's bytes */
    bool *stored;   /* [nodes] roots that need bytes */
    bool *full;     /* [nodes] constants that a kernel reads as a tensor */
    int *slot_of;   /* [nodes] of a root; -1: none */
    void **outside; /* [nodes] bytes that are not in the arena: states */
    slot *slots;
    int slot_count;
    int *workspace; /* [units] slot or -1 */
    bool *small;    /* [units] for one thread, beside others */
    bool *lone;     /* [units] of small products: on no other's way from the first step there are as many products, so nothing runs beside them */
    int together;   /* the slot of such units' workspaces; -1: none */
    bool *fixed;    /* [nodes] with iso_plan_spec.frozen: the same in every run; NULL without */
    bool *once;     /* [units] computed by the first run alone (iso_plan_spec.frozen) */
    prepared_weights *weights; /* [weights_count] */
    int weights_count;
    int *weights_of; /* [units] which a unit multiplies by; -1: as they are, or by none */
    bool sliced;     /* some units are cut into slices (plan_slices.c) */
    int64_t *images; /* [units] of a slice; 0: not cut */
    int *along;      /* [units] the unit of a conv_w that a conv's slices do along with theirs (iso_slicing.along), and of that one the conv's; -1 */
    iso_call *next_along;
    iso_fused_input *next_input;
    iso_fused_step *next_op;
    iso_products *next_products;
    bool measure;   /* only sizes are wanted */
} planning;

static inline const node *planning_node(const planning *w, iso_node n) { return &w->g->at[n]; }

static inline size_t planning_bytes(const planning *w, iso_node n)
{
    size_t each = planning_node(w, n)->dtype == ISO_INDEX ? sizeof(int64_t) : w->p->backend->real_size;
    return (size_t)iso_shape_count(&planning_node(w, n)->shape) * each;
}

/* A matmul in a fused unit. */
static inline bool planning_is_product(const planning *w, iso_node n) { return planning_node(w, n)->op == ISO_OP_MATMUL; }

/* A node of a fused unit whose result is there before the elementwise ones begin, which read it. */
static inline bool planning_comes_first(const planning *w, int t, iso_node n)
{
    return planning_is_product(w, n) || n == w->u.unit[t].lead;
}

/* The node whose kernel a unit runs that is not, or not only, elementwise; a unit of products has several. */
static inline iso_node planning_lead(const planning *w, int t)
{
    const unit *un = &w->u.unit[t];
    return un->lead != ISO_NONE ? un->lead : w->u.order[un->first];
}

/* A node's kernel call, without addresses. */
static inline void planning_call(const planning *w, iso_node n, iso_call *c)
{
    *c = (iso_call){.attr = planning_node(w, n)->attr, .out.shape = planning_node(w, n)->shape, .threads = w->spec->threads};
    for (int k = 0; k < ISO_MAX_INPUTS; k++)
        if (planning_node(w, n)->in[k] != ISO_NONE) c->in[k].shape = planning_node(w, planning_node(w, n)->in[k])->shape;
}

/* Where a node's bytes are; NULL where it has none. */
static inline void *planning_address(const planning *w, iso_node n)
{
    iso_node r = w->u.root[n];
    if (w->outside[r]) return w->outside[r];
    return w->slot_of[r] < 0 ? NULL : (char *)w->p->arena + w->slots[w->slot_of[r]].offset;
}

/* The same with addresses, once they are known. */
static inline void planning_placed_call(const planning *w, iso_node n, iso_call *c)
{
    planning_call(w, n, c);
    for (int k = 0; k < ISO_MAX_INPUTS; k++)
        if (planning_node(w, n)->in[k] != ISO_NONE) c->in[k].data = planning_address(w, planning_node(w, n)->in[k]);
    c->out.data = planning_address(w, n);
}

/* plan_weights.c: which weights are prepared, after small units are known; a unit's, without their address before they have one, ndim 0 where they
 * are as they are; the step that makes them. */
void iso_planning_find_weights(planning *w);
iso_tensor iso_planning_prepared(const planning *w, int t);
void iso_planning_prepare(const planning *w, const prepared_weights *of, step *s);

/* plan_slices.c: which units are cut as the backend wants it, then which others with them, and which are done along with others; a small unit's calls
 * without addresses, one for each size that its slices have, until false, with room for the one done along with it; bytes of a unit's sums over
 * images, and the first unit that adds to them. */
void iso_planning_mark_slices(planning *w);
void iso_planning_mark_others(planning *w);
void iso_planning_mark_along(planning *w);
bool iso_planning_small_call(const planning *w, int t, int which, iso_call *c, iso_call *along);
int iso_planning_sums_from(const planning *w, int t);
size_t iso_planning_sums_bytes(const planning *w, int t);
/* Steps that a unit becomes; makes them of its whole one, and returns how many. */
int iso_planning_slices(const planning *w, int t);
int iso_planning_cut(planning *w, int t, step *s);

/* Makes a copy of a chain for rows from ... to-1 of its first axis. */
void iso_planning_cut_fused(planning *w, iso_fused *f, int64_t from, int64_t to);
/* Where element i * length of a tensor of reals is; NULL of NULL. */
static inline void *planning_row(const planning *w, const void *data, int64_t i, int64_t length)
{
    return data ? (char *)data + (size_t)(i * length) * w->p->backend->real_size : NULL;
}

/* A unit's products: operands and places in the order of its nodes. Before addresses are known, for its sizes. */
void iso_planning_products(const planning *w, int t, iso_products *of);
/* How many steps a unit becomes; after small units are known. */
int iso_planning_parts(const planning *w, int t);
/* The plan's steps, once everything has an address. */
iso_status iso_planning_steps(planning *w, iso_error *err);

#endif
