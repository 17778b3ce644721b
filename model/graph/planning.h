/* planning.h: what a plan is while it is made: plan.c lays it out, plan_steps.c makes its steps. */
#ifndef ISO_PLANNING_H
#define ISO_PLANNING_H

#include "model/graph/plan_internal.h"

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
    int together;   /* the slot of such units' workspaces; -1: none */
    bool *once;     /* [units] computed by the first run alone (iso_plan_spec.frozen) */
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

/* A unit's products: operands and places in the order of its nodes. Before addresses are known, for its sizes. */
void iso_planning_products(const planning *w, int t, iso_products *of);
/* How many steps a unit becomes; after small units are known. */
int iso_planning_parts(const planning *w, int t);
/* The plan's steps, once everything has an address. */
iso_status iso_planning_steps(planning *w, iso_error *err);

#endif
