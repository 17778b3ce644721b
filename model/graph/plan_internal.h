/* plan_internal.h: what planning's parts share: units (fuse.c), memory (arena.c), the plan itself (plan.c). */
#ifndef ISO_PLAN_INTERNAL_H
#define ISO_PLAN_INTERNAL_H

#include "model/graph/internal.h"
#include "model/graph/plan.h"

typedef struct iso_var {
    char *name;
    iso_shape shape;
    bool permuted;   /* kept as the permutation of `shape` by these axes, else as it is */
    iso_attr axes;
    void *data;
    size_t bytes;
} iso_var;

/* Whether a state is kept as the variable is. */
bool iso_var_fits(const iso_var *v, const iso_graph *g, iso_node state);

/* Memory of one large tensor, or of many small ones: these together take huge pages, too, where the backend has them. */
typedef struct iso_block {
    char *data;
    size_t bytes, used;
} iso_block;

struct iso_vars {
    const iso_backend *backend;
    iso_var *at;
    size_t count, capacity;
    iso_block *block;
    size_t block_count, block_capacity;
};

/* For memory that a backend did not give: it is out, or the device failed. */
iso_status iso_fail_backend_memory(const iso_backend *b, iso_error *err);
iso_status iso_real_put(const iso_backend *b, void *to, const void *host, bool host_double, int64_t count,
                        iso_error *err);
iso_status iso_real_get(const iso_backend *b, void *host, const void *from, bool host_double, int64_t count,
                        iso_error *err);

/* --- the plan itself: what plan.c makes and plan_run.c runs */
typedef struct step {
    iso_op op;
    iso_kernel kernel; /* NULL: fused; else `fused` is its tail, where that has steps */
    iso_call call;
    iso_fused fused;
    iso_products *products; /* of the plan; NULL: a kernel or a fused chain */
    double flops, seconds;
    bool once; /* only in the first run */
    bool small; /* done by one thread, beside others (plan_together.c); its workspace is the thread's */
    bool prepares, joins; /* writes call.prepared; reads doubles (iso_slicing.join) */
    double position, images; /* of a slice: where in the batch it begins, and how much of it it is; 0 ... 1. images = 0: is no slice */
} step;

typedef struct copy { /* state <- value, after everything else */
    const void *from;
    void *to;
    size_t bytes;
} copy;

typedef struct iso_together iso_together;

/* What the plan must still know of a node. */
typedef struct place {
    void *data;                /* NULL: the plan does not have it */
    int64_t count, rows_limit; /* rows_limit: indices must be smaller */
    iso_op op;
    iso_dtype dtype;
    bool output;
    int published; /* where its reals begin in iso_plan.published; -1: it must be fetched */
} place;

struct iso_plan {
    iso_vars *vars;
    const iso_backend *backend;
    int nodes;
    place *at; /* [nodes] */
    int step_count, copy_count;
    step *step;
    copy *copy;
    iso_fused_input *inputs; /* of all fused steps */
    iso_fused_step *ops;
    iso_products *products; /* of all steps that have them */
    iso_call *along; /* what calls of slices do along with theirs */
    void *arena;
    iso_plan_stats stats;
    int64_t runs;
    bool profile;
    iso_together *together; /* runs of small steps */
    int together_count, together_threads;
    void *together_workspace; /* [together_threads], each of so many bytes */
    size_t together_workspace_each;
    /* Only on a device: */
    void *device_runs;
    int *before, *before_at; /* step i waits for before[before_at[i]] ... before[before_at[i + 1] - 1]; behind the last: those that no step waits for */
    float *published; /* small outputs, written at the end of every run */
    int publish_count;
    const void *publish_from[ISO_PUBLISH_TENSORS];
    int64_t publish_reals[ISO_PUBLISH_TENSORS];
};

/* A unit is what runs at once: one kernel, a fused group of elementwise nodes, or a convolution or small products and such a
 * group behind them. */
typedef struct unit {
    int first, count; /* its nodes: order[first ... first + count), rising handles */
    bool fused;
    int products;       /* matmuls among the nodes of a fused unit */
    iso_node sum;       /* the node that is the sum of all of them; ISO_NONE: each has a result of its own */
    iso_node lead;      /* of a fused unit: the convolution that the other nodes follow; ISO_NONE */
} unit;

typedef struct units {
    int unit_count;
    unit *unit;      /* in an order they can run in */
    iso_node *order; /* the nodes of all units */
    int *of;         /* [graph size] the unit of a node; -1: needs no kernel */
    bool *needed;    /* [graph size] */
    bool *summand;   /* [graph size] products and sums that only exist within a unit's sum */
    bool *inlined;   /* [graph size] masks that are computed anew in every unit that reads them */
    iso_node *root;  /* [graph size] the node whose bytes a node has: itself, or what it views */
    bool *direct;    /* [assign_count] the value may be written straight into the state */
} units;

/* Groups the needed nodes and orders the units so that every read of an assigned state comes before a direct write of it. */
iso_status iso_units_build(const iso_graph *g, const iso_plan_spec *spec, units *out, iso_error *err);
void iso_units_free(units *u);

/* --- small steps: several at once (plan_together.c). On the host's memory only. */
/* Whether a step of these sizes is for one thread. */
bool iso_together_small(iso_op op, const iso_call *call);
bool iso_together_small_size(size_t bytes, double flops);
bool iso_together_small_fused(int64_t count, int operands);
/* Finds the runs of small steps of a plan that has its addresses. */
iso_status iso_together_build(iso_plan *p, iso_error *err);
void iso_together_free(iso_plan *p);
/* Steps of the longest chain in the plan's runs of small steps, of which each waits for the one before: for tests. -1: memory is out. */
int iso_together_longest(const iso_plan *p);
/* Does the run that begins at this step; returns its steps, 0 where none begins. */
int iso_together_run(iso_plan *p, int step);
/* Bytes that a step touches. */
typedef struct range {
    uintptr_t from, to;
    bool write;
} range;
/* What a step touches, and how many ranges that are; `list` may be NULL (plan_order.c). */
int iso_step_ranges(const iso_plan *p, const step *s, range *list);
bool iso_ranges_clash(const range *a, int na, const range *b, int nb); /* one writes what the other touches */
/* Which steps have to wait for which: step i touches list[at[i]] ... list[at[i + 1] - 1]. waits[i]: for how many, of those that do not wait for another
 * one of these anyway; those that wait for step i begin in *next at next_at[i + 1], and end at next_at[i]. [count] and [count + 1] zeros at
 * first, *next NULL. false: memory is out. */
bool iso_followers_find(int count, const range *list, const int *at, int *waits, int *next_at, int **next);
/* Fills before and before_at, where the plan's device wants them. */
iso_status iso_order_build(iso_plan *p, iso_error *err);
/* home[i], i < count: the thread that small step s[i] is at home with; -1: none. Step i touches list[at[i]] ... list[at[i + 1] - 1], and takes about so many
 * seconds. false: memory is out (plan_homes.c). */
bool iso_homes_find(int count, const step *s, const range *list, const int *at, const double *seconds, int threads, int *home);
/* One step; a small one with this workspace. ahead: iso_products.ahead. */
void iso_step_run(const iso_plan *p, const step *s, void *workspace, const iso_ahead *ahead);

/* --- memory: slots with lifetimes, laid out in one arena */
typedef struct slot {
    size_t bytes, offset;
    int from, to; /* units during which it is alive, both included */
} slot;
/* Chooses offsets; returns the arena's size. scratch has room for 2 count ints. */
size_t iso_slots_place(int count, slot *s, int *scratch);

#endif
