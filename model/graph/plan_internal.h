/* plan_internal.h: what planning's parts share: units (fuse.c), memory (arena.c), the plan itself (plan.c). */
#ifndef ISO_PLAN_INTERNAL_H
#define ISO_PLAN_INTERNAL_H

#include "model/graph/internal.h"
#include "model/graph/plan.h"

typedef struct iso_var {
    char *name;
    iso_shape shape;
    void *data;
    size_t bytes;
} iso_var;

struct iso_vars {
    const iso_backend *backend;
    iso_var *at;
    size_t count, capacity;
};

iso_status iso_real_put(const iso_backend *b, void *to, const void *host, bool host_double, int64_t count,
                        iso_error *err);
iso_status iso_real_get(const iso_backend *b, void *host, const void *from, bool host_double, int64_t count,
                        iso_error *err);

/* A unit is what runs at once: one kernel, or a fused group of elementwise nodes. */
typedef struct unit {
    int first, count; /* its nodes: order[first ... first + count), rising handles */
    bool fused;
} unit;

typedef struct units {
    int unit_count;
    unit *unit;      /* in an order they can run in */
    iso_node *order; /* the nodes of all units */
    int *of;         /* [graph size] the unit of a node; -1: needs no kernel */
    bool *needed;    /* [graph size] */
    bool *inlined;   /* [graph size] masks that are computed anew in every unit that reads them */
    iso_node *root;  /* [graph size] the node whose bytes a node has: itself, or what it views */
    bool *direct;    /* [assign_count] the value may be written straight into the state */
} units;

/* Groups the needed nodes and orders the units so that every read of an assigned state comes before a direct write of it. */
iso_status iso_units_build(const iso_graph *g, const iso_plan_spec *spec, units *out, iso_error *err);
void iso_units_free(units *u);

/* --- memory: slots with lifetimes, laid out in one arena */
typedef struct slot {
    size_t bytes, offset;
    int from, to; /* units during which it is alive, both included */
} slot;
/* Chooses offsets; returns the arena's size. scratch has room for 2 count ints. */
size_t iso_slots_place(int count, slot *s, int *scratch);

#endif
