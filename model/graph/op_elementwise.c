/* op_elementwise.c: ops that act element by element: builders, derivatives, FLOPs.
 * A unary op's jvp and vjp are both a product with its derivative, so each names only that. */
#include "model/graph/internal.h"

static bool real_operand(iso_graph *g, iso_op op, iso_node x)
{
    if (x == ISO_NONE) return false;
    if (g->at[x].dtype == ISO_REAL) return true;
    iso_graph_fail(g, "%s: the operand is an index", iso_op_name(op));
    return false;
}

static iso_node unary(iso_graph *g, iso_op op, iso_node x, double f)
{
    if (!real_operand(g, op, x)) return ISO_NONE;
    iso_shape s = g->at[x].shape;
    return iso_graph_intern(g, op, ISO_REAL, x, ISO_NONE, &s, &(iso_attr){.f = f}, NULL);
}

/* An elementwise op broadcasts by itself, so an explicit broadcast before it is superfluous when the other operand has the whole shape. */
static iso_node without_broadcast(const iso_graph *g, iso_node x, iso_node other, const iso_shape *out)
{
    return g->at[x].op == ISO_OP_BROADCAST && iso_shape_equal(&g->at[other].shape, out) ? g->at[x].in[0] : x;
}

static iso_node binary(iso_graph *g, iso_op op, iso_node a, iso_node b)
{
    if (!real_operand(g, op, a) || !real_operand(g, op, b)) return ISO_NONE;
    iso_shape out;
    char ta[96], tb[96];
    if (!iso_shape_broadcast(&g->at[a].shape, &g->at[b].shape, &out))
        return iso_graph_fail(g, "%s: shapes %s and %s do not broadcast", iso_op_name(op),
                              iso_shape_text(&g->at[a].shape, ta), iso_shape_text(&g->at[b].shape, tb));
    a = without_broadcast(g, a, b, &out);
    b = without_broadcast(g, b, a, &out);
    bool commutes = op == ISO_OP_ADD || op == ISO_OP_MUL;
    if (commutes && b < a) {
        iso_node t = a;
        a = b;
        b = t;
    }
    return iso_graph_intern(g, op, ISO_REAL, a, b, &out, NULL, NULL);
}

/* x in the shape that a op b would have. */
static iso_node shaped(iso_graph *g, iso_node x, iso_node a, iso_node b)
{
    iso_shape out;
    char ta[96], tb[96];
    if (a == ISO_NONE || b == ISO_NONE || x == ISO_NONE) return ISO_NONE;
    if (!iso_shape_broadcast(&g->at[a].shape, &g->at[b].shape, &out))
        return iso_graph_fail(g, "shapes %s and %s do not broadcast", iso_shape_text(&g->at[a].shape, ta),
                              iso_shape_text(&g->at[b].shape, tb));
    return iso_broadcast(g, x, out);
}

iso_node iso_add(iso_graph *g, iso_node a, iso_node b)
{
    double va, vb;
    bool ca = iso_node_constant(g, a, &va), cb = iso_node_constant(g, b, &vb);
    if (cb) return shaped(g, iso_shift(g, a, vb), a, b);
    if (ca) return shaped(g, iso_shift(g, b, va), a, b);
    return binary(g, ISO_OP_ADD, a, b);
}

iso_node iso_sub(iso_graph *g, iso_node a, iso_node b)
{
    double va, vb;
    bool ca = iso_node_constant(g, a, &va), cb = iso_node_constant(g, b, &vb);
    if (cb) return shaped(g, iso_shift(g, a, -vb), a, b);
    if (ca && va == 0) return shaped(g, iso_neg(g, b), a, b);
    return binary(g, ISO_OP_SUB, a, b);
}

iso_node iso_mul(iso_graph *g, iso_node a, iso_node b)
{
    double va, vb;
    bool ca = iso_node_constant(g, a, &va), cb = iso_node_constant(g, b, &vb);
    if (cb) return shaped(g, iso_scale(g, a, vb), a, b);
    if (ca) return shaped(g, iso_scale(g, b, va), a, b);
    return binary(g, ISO_OP_MUL, a, b);
}

iso_node iso_div(iso_graph *g, iso_node a, iso_node b)
{
    double va, vb;
    if (iso_node_constant(g, b, &vb) && vb != 0) return shaped(g, iso_scale(g, a, 1 / vb), a, b);
    if (iso_node_constant(g, a, &va) && va == 0) return shaped(g, a, a, b);
    return binary(g, ISO_OP_DIV, a, b);
}

iso_node iso_scale(iso_graph *g, iso_node x, double c)
{
    double v;
    if (c == 1 || x == ISO_NONE) return x;
    if (iso_node_constant(g, x, &v)) return iso_const(g, v * c, g->at[x].shape);
    if (c == 0) return iso_const(g, 0, g->at[x].shape);
    if (g->at[x].op == ISO_OP_SCALE) return iso_scale(g, g->at[x].in[0], c * g->at[x].attr.f);
    return unary(g, ISO_OP_SCALE, x, c);
}

iso_node iso_shift(iso_graph *g, iso_node x, double c)
{
    double v;
    if (c == 0 || x == ISO_NONE) return x;
    if (iso_node_constant(g, x, &v)) return iso_const(g, v + c, g->at[x].shape);
    return unary(g, ISO_OP_SHIFT, x, c);
}

iso_node iso_neg(iso_graph *g, iso_node x) { return iso_scale(g, x, -1); }
iso_node iso_square(iso_graph *g, iso_node x) { return iso_mul(g, x, x); }
iso_node iso_exp(iso_graph *g, iso_node x) { return unary(g, ISO_OP_EXP, x, 0); }
iso_node iso_log(iso_graph *g, iso_node x) { return unary(g, ISO_OP_LOG, x, 0); }
iso_node iso_sqrt(iso_graph *g, iso_node x) { return unary(g, ISO_OP_SQRT, x, 0); }
iso_node iso_tanh(iso_graph *g, iso_node x) { return unary(g, ISO_OP_TANH, x, 0); }
iso_node iso_sigmoid(iso_graph *g, iso_node x) { return unary(g, ISO_OP_SIGMOID, x, 0); }
iso_node iso_softplus(iso_graph *g, iso_node x) { return unary(g, ISO_OP_SOFTPLUS, x, 0); }
iso_node iso_relu(iso_graph *g, iso_node x) { return unary(g, ISO_OP_RELU, x, 0); }
iso_node iso_step(iso_graph *g, iso_node x) { return unary(g, ISO_OP_STEP, x, 0); }

/* --- derivatives of the unary ops, as expressions of the node y and its input x */

static iso_node input_of(const iso_graph *g, iso_node n) { return g->at[n].in[0]; }

static iso_node d_EXP(iso_graph *g, iso_node n)
{
    (void)g;
    return n;
}
static iso_node d_LOG(iso_graph *g, iso_node n)
{
    iso_node x = input_of(g, n);
    return iso_div(g, iso_const(g, 1, g->at[x].shape), x);
}
static iso_node d_SQRT(iso_graph *g, iso_node n) { return iso_div(g, iso_const(g, 0.5, g->at[n].shape), n); }
static iso_node d_TANH(iso_graph *g, iso_node n) { return iso_shift(g, iso_neg(g, iso_square(g, n)), 1); }
static iso_node d_SIGMOID(iso_graph *g, iso_node n) { return iso_mul(g, n, iso_shift(g, iso_neg(g, n), 1)); }
static iso_node d_SOFTPLUS(iso_graph *g, iso_node n) { return iso_sigmoid(g, input_of(g, n)); }
/* From the output, so that the pre-activation need not be kept. */
static iso_node d_RELU(iso_graph *g, iso_node n) { return iso_step(g, n); }
static iso_node d_SCALE(iso_graph *g, iso_node n) { return iso_const(g, g->at[n].attr.f, g->at[n].shape); }
static iso_node d_SHIFT(iso_graph *g, iso_node n) { return iso_const(g, 1, g->at[n].shape); }
static iso_node d_STEP(iso_graph *g, iso_node n)
{
    (void)g, (void)n;
    return ISO_NONE;
}

static iso_node times(iso_graph *g, iso_node t, iso_node d)
{
    return t == ISO_NONE || d == ISO_NONE ? ISO_NONE : iso_mul(g, t, d);
}

static double flops_each(const iso_call *call) { return (double)iso_shape_count(&call->out.shape); }

#define UNARY(NAME) \
    iso_node iso_rule_jvp_##NAME(iso_graph *g, iso_node n, const iso_node *t) \
    { \
        return times(g, t[0], d_##NAME(g, n)); \
    } \
    iso_node iso_rule_vjp_##NAME(iso_graph *g, iso_node n, int w, iso_node c) \
    { \
        (void)w; \
        return times(g, c, d_##NAME(g, n)); \
    } \
    double iso_rule_flops_##NAME(const iso_call *call) { return flops_each(call); }
UNARY(EXP)
UNARY(LOG)
UNARY(SQRT)
UNARY(TANH)
UNARY(SIGMOID)
UNARY(SOFTPLUS)
UNARY(RELU)
UNARY(STEP)
UNARY(SCALE)
UNARY(SHIFT)

/* --- binary ops: tangents are broadcast to the result's shape, cotangents summed to the operand's */

static iso_node spread(iso_graph *g, iso_node n, iso_node t)
{
    return t == ISO_NONE ? t : iso_broadcast(g, t, g->at[n].shape);
}

static iso_node gather_back(iso_graph *g, iso_node n, int which, iso_node c)
{
    return c == ISO_NONE ? c : iso_sum(g, c, g->at[g->at[n].in[which]].shape);
}

static iso_node plus(iso_graph *g, iso_node a, iso_node b)
{
    if (a == ISO_NONE) return b;
    return b == ISO_NONE ? a : iso_add(g, a, b);
}

iso_node iso_rule_jvp_ADD(iso_graph *g, iso_node n, const iso_node *t) { return spread(g, n, plus(g, t[0], t[1])); }
iso_node iso_rule_vjp_ADD(iso_graph *g, iso_node n, int w, iso_node c) { return gather_back(g, n, w, c); }

iso_node iso_rule_jvp_SUB(iso_graph *g, iso_node n, const iso_node *t)
{
    if (t[0] != ISO_NONE && t[1] != ISO_NONE) return spread(g, n, iso_sub(g, t[0], t[1]));
    return spread(g, n, t[0] != ISO_NONE ? t[0] : iso_neg(g, t[1]));
}
iso_node iso_rule_vjp_SUB(iso_graph *g, iso_node n, int w, iso_node c)
{
    c = gather_back(g, n, w, c);
    return w == 0 ? c : iso_neg(g, c);
}

iso_node iso_rule_jvp_MUL(iso_graph *g, iso_node n, const iso_node *t)
{
    iso_node a = g->at[n].in[0], b = g->at[n].in[1];
    if (a == b) return spread(g, n, iso_scale(g, iso_mul(g, a, t[0]), 2));
    return spread(g, n, plus(g, times(g, t[0], b), times(g, t[1], a)));
}
iso_node iso_rule_vjp_MUL(iso_graph *g, iso_node n, int w, iso_node c)
{
    return gather_back(g, n, w, iso_mul(g, c, g->at[n].in[1 - w]));
}

iso_node iso_rule_jvp_DIV(iso_graph *g, iso_node n, const iso_node *t)
{
    iso_node b = g->at[n].in[1];
    iso_node ta = t[0] == ISO_NONE ? ISO_NONE : iso_div(g, t[0], b);
    iso_node tb = t[1] == ISO_NONE ? ISO_NONE : iso_neg(g, iso_div(g, iso_mul(g, n, t[1]), b));
    return spread(g, n, plus(g, ta, tb));
}
iso_node iso_rule_vjp_DIV(iso_graph *g, iso_node n, int w, iso_node c)
{
    iso_node q = iso_div(g, c, g->at[n].in[1]);
    return gather_back(g, n, w, w == 0 ? q : iso_neg(g, iso_mul(g, q, n)));
}

#define BINARY_FLOPS(NAME) \
    double iso_rule_flops_##NAME(const iso_call *call) { return flops_each(call); }
BINARY_FLOPS(ADD)
BINARY_FLOPS(SUB)
BINARY_FLOPS(MUL)
BINARY_FLOPS(DIV)
