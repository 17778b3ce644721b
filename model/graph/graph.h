/* graph.h: tensor expressions, closed under differentiation.
 *
 * A graph is a list of immutable nodes. A builder function appends a node (or
 * finds an equal one: equal expressions are one node) and returns its handle:
 *
 *     iso_graph *g = iso_graph_create();
 *     iso_node z  = iso_input(g, "z", iso_shape2(B, m));
 *     iso_node w  = iso_state(g, "w", iso_shape2(D, m));
 *     iso_node x  = iso_tanh(g, iso_matmul(g, z, w, false, true));   // [B, D]
 *     iso_node jv = iso_jvp1(g, x, z, v);                            // J v       [B, D]
 *     iso_node gv = iso_vjp1(g, x, z, jv);                           // Jt J v    [B, m]
 *     iso_node dw = iso_vjp1(g, iso_sum_all(g, iso_mul(g, gv, gv)), w, iso_one(g));
 *
 * jvp and vjp append nodes built from the same ops, so they compose in any order.
 *
 * Errors stick: a builder that is given a shape that does not fit records the
 * first error in the graph and returns ISO_NONE, which every builder passes on.
 * Check iso_graph_check once, before planning.
 *
 * Shapes have 0 to 4 axes, the last one contiguous. Images are [B, H, W, C]
 * (channels last). Elementwise binary ops broadcast like NumPy.
 * A node is real (float or double: the backend decides) or an index (int64).
 * A graph is used by one thread at a time.
 */
#ifndef ISO_GRAPH_H
#define ISO_GRAPH_H

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"

#define ISO_MAX_DIMS 4
#define ISO_MAX_INPUTS 2

typedef struct iso_shape {
    int ndim;
    int64_t dim[ISO_MAX_DIMS];
} iso_shape;

typedef enum iso_dtype { ISO_REAL, ISO_INDEX } iso_dtype;

typedef enum iso_op {
#define ISO_OP(NAME, name, inputs, kind) ISO_OP_##NAME,
#include "model/graph/ops.def"
#undef ISO_OP
    ISO_OP_COUNT
} iso_op;

typedef struct iso_attr {
    int64_t i[4];
    double f;
} iso_attr;

typedef struct iso_graph iso_graph;
typedef int32_t iso_node;
#define ISO_NONE ((iso_node)-1)

iso_graph *iso_graph_create(void); /* NULL: out of memory */
void iso_graph_free(iso_graph *g);
/* The first error made while building, or ISO_OK. */
ISO_CHECK iso_status iso_graph_check(const iso_graph *g, iso_error *err);
/* Records an error from code that builds on top (the first one wins); returns ISO_NONE. */
iso_node iso_graph_fail(iso_graph *g, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

iso_shape iso_shape0(void); /* a scalar */
iso_shape iso_shape1(int64_t a);
iso_shape iso_shape2(int64_t a, int64_t b);
iso_shape iso_shape3(int64_t a, int64_t b, int64_t c);
iso_shape iso_shape4(int64_t a, int64_t b, int64_t c, int64_t d);
int64_t iso_shape_count(const iso_shape *s);
bool iso_shape_equal(const iso_shape *a, const iso_shape *b);
/* "[2, 3]" into buf. */
const char *iso_shape_text(const iso_shape *s, char buf[96]);

iso_shape iso_node_shape(const iso_graph *g, iso_node n);  /* scalar for ISO_NONE */
iso_op iso_node_op(const iso_graph *g, iso_node n);        /* a constant for ISO_NONE */
const char *iso_node_name(const iso_graph *g, iso_node n); /* of an input or state; NULL for others and ISO_NONE */
int iso_graph_size(const iso_graph *g);
const char *iso_op_name(iso_op op);

/* --- sources. A name is used once as input or state; asking again with the same shape gives the same node. */
iso_node iso_input(iso_graph *g, const char *name, iso_shape shape);
iso_node iso_input_index(iso_graph *g, const char *name, int64_t count);
iso_node iso_state(iso_graph *g, const char *name, iso_shape shape);
/* iso_permute of a state of `shape` that is kept so: no run moves it. Plans' vars take it and give it (iso_vars_write, iso_vars_read) in the order of
 * `shape`, under which they list it. */
iso_node iso_state_permuted(iso_graph *g, const char *name, iso_shape shape, int a, int b, int c, int d);
iso_node iso_state_like(iso_graph *g, const char *name, iso_node state);  /* another one, of the same shape and kept as this one is */
iso_shape iso_state_shape(const iso_graph *g, iso_node state);            /* as the vars list it */
iso_node iso_state_restored(iso_graph *g, iso_node state, iso_node x);    /* x, of the state node's shape, in the order in which the vars list it */
iso_node iso_const(iso_graph *g, double value, iso_shape shape);
iso_node iso_one(iso_graph *g); /* the scalar 1, the usual cotangent of a loss */

/* --- elementwise */
iso_node iso_add(iso_graph *g, iso_node a, iso_node b);
iso_node iso_sub(iso_graph *g, iso_node a, iso_node b);
iso_node iso_mul(iso_graph *g, iso_node a, iso_node b);
iso_node iso_div(iso_graph *g, iso_node a, iso_node b);
iso_node iso_scale(iso_graph *g, iso_node x, double c);
iso_node iso_shift(iso_graph *g, iso_node x, double c);
iso_node iso_neg(iso_graph *g, iso_node x);    /* scale by -1 */
iso_node iso_square(iso_graph *g, iso_node x); /* x * x */
iso_node iso_exp(iso_graph *g, iso_node x);
iso_node iso_log(iso_graph *g, iso_node x);
iso_node iso_sqrt(iso_graph *g, iso_node x);
iso_node iso_tanh(iso_graph *g, iso_node x);
iso_node iso_sigmoid(iso_graph *g, iso_node x);
iso_node iso_softplus(iso_graph *g, iso_node x);
iso_node iso_relu(iso_graph *g, iso_node x);
iso_node iso_step(iso_graph *g, iso_node x);

/* --- shape */
iso_node iso_sum(iso_graph *g, iso_node x, iso_shape to);   /* x's shape must be what `to` broadcasts to */
iso_node iso_sum_all(iso_graph *g, iso_node x);             /* to a scalar */
iso_node iso_sum_rows(iso_graph *g, iso_node x);            /* [B, ...] -> [B, 1]: everything but the first axis */
iso_node iso_mean_all(iso_graph *g, iso_node x);
iso_node iso_broadcast(iso_graph *g, iso_node x, iso_shape to);
iso_node iso_reshape(iso_graph *g, iso_node x, iso_shape to);
iso_node iso_permute(iso_graph *g, iso_node x, int a, int b, int c, int d); /* of 4 axes; for fewer, the rest -1 */
iso_node iso_slice(iso_graph *g, iso_node x, int axis, int64_t start, int64_t length);
iso_node iso_pad(iso_graph *g, iso_node x, int axis, int64_t before, int64_t total);
iso_node iso_concat(iso_graph *g, iso_node a, iso_node b, int axis);
iso_node iso_gather(iso_graph *g, iso_node x, iso_node index);
iso_node iso_scatter(iso_graph *g, iso_node y, iso_node index, int64_t rows);

/* --- products; shapes in ops.def */
iso_node iso_matmul(iso_graph *g, iso_node a, iso_node b, bool transpose_a, bool transpose_b);
iso_node iso_conv(iso_graph *g, iso_node x, iso_node w, int stride, int pad);
iso_node iso_conv_x(iso_graph *g, iso_node y, iso_node w, int stride, int pad, int64_t height, int64_t width);
iso_node iso_conv_w(iso_graph *g, iso_node x, iso_node y, int stride, int pad, int64_t kernel_h, int64_t kernel_w);

/* --- transforms.
 * jvp: ty[i] = sum_j (dy_i/dx_j) tx_j. vjp: gx[j] = sum_i (dy_i/dx_j)^T cy_i.
 * Tangents have the shapes of x, cotangents those of y; x may be any nodes, also interior ones, and everything
 * that is not x counts as a constant. A result that depends on nothing is a constant 0. */
void iso_jvp(iso_graph *g, int ny, const iso_node *y, int nx, const iso_node *x, const iso_node *tx, iso_node *ty);
void iso_vjp(iso_graph *g, int ny, const iso_node *y, const iso_node *cy, int nx, const iso_node *x, iso_node *gx);
iso_node iso_jvp1(iso_graph *g, iso_node y, iso_node x, iso_node tx);
iso_node iso_vjp1(iso_graph *g, iso_node y, iso_node x, iso_node cy);

#endif
