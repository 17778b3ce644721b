/* internal.h: the graph's own structures; only model/graph includes it. */
#ifndef ISO_GRAPH_INTERNAL_H
#define ISO_GRAPH_INTERNAL_H

#include "model/graph/backend.h"

typedef struct node {
    iso_op op;
    iso_dtype dtype;
    iso_node in[ISO_MAX_INPUTS]; /* ISO_NONE where there is none; always smaller than the node's own handle */
    iso_shape shape;
    iso_attr attr;
    char *name;    /* of INPUT and STATE */
    iso_node next; /* in its hash bucket */
} node;

struct iso_graph {
    node *at;
    size_t count, capacity;
    iso_node *bucket; /* hash table of nodes, for finding an equal one */
    size_t buckets;
    iso_error error;
};

typedef enum op_kind { KIND_S, KIND_E, KIND_V, KIND_K } op_kind;

/* One row of the op table. */
typedef struct op_row {
    const char *name;
    int inputs;
    op_kind kind;
    /* The tangent of node n; t[i] is ISO_NONE where input i does not move. ISO_NONE: zero. */
    iso_node (*jvp)(iso_graph *g, iso_node n, const iso_node *t);
    /* The part of input `which`'s cotangent that comes through node n with cotangent c. ISO_NONE: zero. */
    iso_node (*vjp)(iso_graph *g, iso_node n, int which, iso_node c);
    double (*flops)(const iso_call *call);
} op_row;

extern const op_row iso_op_table[ISO_OP_COUNT];

#define ISO_OP(NAME, name, inputs, kind) \
    iso_node iso_rule_jvp_##NAME(iso_graph *g, iso_node n, const iso_node *t); \
    iso_node iso_rule_vjp_##NAME(iso_graph *g, iso_node n, int which, iso_node c); \
    double iso_rule_flops_##NAME(const iso_call *call);
#include "model/graph/ops.def"
#undef ISO_OP

/* Appends a node or finds an equal one. Inputs and shape are already checked. */
iso_node iso_graph_intern(iso_graph *g, iso_op op, iso_dtype dtype, iso_node a, iso_node b, const iso_shape *shape,
                          const iso_attr *attr, const char *name);

/* An input or state: a new one, or the one of that name, which must be the same. attr: of a permuted state the axes; NULL: none. */
iso_node iso_graph_source(iso_graph *g, iso_op op, iso_dtype dtype, const char *name, iso_shape shape, const iso_attr *attr);
/* Whether a state is kept permuted (iso_state_permuted): attr.i are its axes then. */
static inline bool iso_node_permuted(const node *n) { return n->op == ISO_OP_STATE && n->attr.i[0] + n->attr.i[1] != 0; }
/* The order that undoes one of so many axes. */
void iso_axes_inverse(const int64_t axis[ISO_MAX_DIMS], int ndim, int64_t inverse[ISO_MAX_DIMS]);

/* True, and *value set, for a constant. */
bool iso_node_constant(const iso_graph *g, iso_node n, double *value);
/* NumPy broadcasting of two shapes; false when they do not fit. */
bool iso_shape_broadcast(const iso_shape *a, const iso_shape *b, iso_shape *out);
/* Whether `from` broadcasts to `to`. */
bool iso_shape_fits(const iso_shape *from, const iso_shape *to);
/* Element strides of a tensor of shape `from` over the axes of `to`: 0 where broadcast. */
void iso_shape_strides(const iso_shape *from, const iso_shape *to, int64_t stride[ISO_MAX_DIMS]);

#endif
