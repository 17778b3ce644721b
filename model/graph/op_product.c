/* op_product.c: matmul and the three faces of convolution: builders, derivatives, FLOPs. All are bilinear. */
#include "model/graph/internal.h"

static bool zero(const iso_graph *g, iso_node n)
{
    double v;
    return iso_node_constant(g, n, &v) && v == 0;
}

static iso_node append(iso_graph *g, iso_op op, iso_node a, iso_node b, iso_shape out, iso_attr attr)
{
    if (g->at[a].dtype != ISO_REAL || g->at[b].dtype != ISO_REAL)
        return iso_graph_fail(g, "%s: an operand is an index", iso_op_name(op));
    if (zero(g, a) || zero(g, b)) return iso_const(g, 0, out);
    return iso_graph_intern(g, op, ISO_REAL, a, b, &out, &attr, NULL);
}

static iso_node no_fit(iso_graph *g, iso_op op, iso_node a, iso_node b)
{
    char ta[96], tb[96];
    return iso_graph_fail(g, "%s: shapes %s and %s do not fit", iso_op_name(op), iso_shape_text(&g->at[a].shape, ta),
                          iso_shape_text(&g->at[b].shape, tb));
}

static iso_node plus(iso_graph *g, iso_node a, iso_node b)
{
    if (a == ISO_NONE) return b;
    return b == ISO_NONE ? a : iso_add(g, a, b);
}

/* --- matmul */

iso_node iso_matmul(iso_graph *g, iso_node a, iso_node b, bool ta, bool tb)
{
    if (a == ISO_NONE || b == ISO_NONE) return ISO_NONE;
    iso_shape sa = g->at[a].shape, sb = g->at[b].shape, out = sa;
    int d = sa.ndim - 2; /* axes before the matrix */
    if (sa.ndim != sb.ndim || d < 0 || d > 1 || (d == 1 && sa.dim[0] != sb.dim[0]))
        return no_fit(g, ISO_OP_MATMUL, a, b);
    int64_t m = sa.dim[d + ta], ka = sa.dim[d + !ta], kb = sb.dim[d + tb], n = sb.dim[d + !tb];
    if (ka != kb) return no_fit(g, ISO_OP_MATMUL, a, b);
    out.dim[d] = m;
    out.dim[d + 1] = n;
    return append(g, ISO_OP_MATMUL, a, b, out, (iso_attr){.i = {ta, tb}});
}

iso_node iso_rule_jvp_MATMUL(iso_graph *g, iso_node n, const iso_node *t)
{
    node m = g->at[n];
    bool ta = m.attr.i[0], tb = m.attr.i[1];
    return plus(g, t[0] == ISO_NONE ? ISO_NONE : iso_matmul(g, t[0], m.in[1], ta, tb),
                t[1] == ISO_NONE ? ISO_NONE : iso_matmul(g, m.in[0], t[1], ta, tb));
}

iso_node iso_rule_vjp_MATMUL(iso_graph *g, iso_node n, int which, iso_node c)
{
    node m = g->at[n];
    bool ta = m.attr.i[0], tb = m.attr.i[1];
    if (which == 0) return ta ? iso_matmul(g, m.in[1], c, tb, true) : iso_matmul(g, c, m.in[1], false, !tb);
    return tb ? iso_matmul(g, c, m.in[0], true, ta) : iso_matmul(g, m.in[0], c, !ta, false);
}

double iso_rule_flops_MATMUL(const iso_call *call)
{
    const iso_shape *a = &call->in[0].shape;
    int64_t k = a->dim[a->ndim - 2 + !call->attr.i[0]];
    return 2.0 * (double)iso_shape_count(&call->out.shape) * (double)k;
}

/* --- convolution: T(x, w, y) = <conv(x, w), y>; x [B,H,W,C], w [O,KH,KW,C], y [B,OH,OW,O] */

/* Whether x, w, y belong to one T with this stride and padding. */
static bool conv_shapes(const iso_shape *x, const iso_shape *w, const iso_shape *y, int64_t stride, int64_t pad)
{
    if (x->ndim != 4 || w->ndim != 4 || y->ndim != 4 || stride < 1 || pad < 0) return false;
    if (x->dim[0] != y->dim[0] || x->dim[3] != w->dim[3] || w->dim[0] != y->dim[3]) return false;
    for (int d = 1; d <= 2; d++) {
        int64_t room = x->dim[d] + 2 * pad - w->dim[d];
        if (room < 0 || room / stride + 1 != y->dim[d] || pad >= w->dim[d]) return false;
    }
    return true;
}

static iso_node conv(iso_graph *g, iso_op op, iso_node a, iso_node b, const iso_shape *x, const iso_shape *w,
                     const iso_shape *y, iso_shape out, iso_attr attr)
{
    if (!conv_shapes(x, w, y, attr.i[0], attr.i[1])) return no_fit(g, op, a, b);
    return append(g, op, a, b, out, attr);
}

iso_node iso_conv(iso_graph *g, iso_node x, iso_node w, int stride, int pad)
{
    if (x == ISO_NONE || w == ISO_NONE) return ISO_NONE;
    iso_shape sx = g->at[x].shape, sw = g->at[w].shape, sy = sx;
    if (sx.ndim != 4 || sw.ndim != 4 || stride < 1) return no_fit(g, ISO_OP_CONV, x, w);
    for (int d = 1; d <= 2; d++)
        sy.dim[d] = sx.dim[d] + 2 * pad < sw.dim[d] ? 0 : (sx.dim[d] + 2 * pad - sw.dim[d]) / stride + 1;
    sy.dim[3] = sw.dim[0];
    return conv(g, ISO_OP_CONV, x, w, &sx, &sw, &sy, sy, (iso_attr){.i = {stride, pad}});
}

iso_node iso_conv_x(iso_graph *g, iso_node y, iso_node w, int stride, int pad, int64_t height, int64_t width)
{
    if (y == ISO_NONE || w == ISO_NONE) return ISO_NONE;
    iso_shape sy = g->at[y].shape, sw = g->at[w].shape;
    if (sy.ndim != 4 || sw.ndim != 4) return no_fit(g, ISO_OP_CONV_X, y, w);
    iso_shape sx = iso_shape4(sy.dim[0], height, width, sw.dim[3]);
    return conv(g, ISO_OP_CONV_X, y, w, &sx, &sw, &sy, sx, (iso_attr){.i = {stride, pad, height, width}});
}

iso_node iso_conv_w(iso_graph *g, iso_node x, iso_node y, int stride, int pad, int64_t kernel_h, int64_t kernel_w)
{
    if (x == ISO_NONE || y == ISO_NONE) return ISO_NONE;
    iso_shape sx = g->at[x].shape, sy = g->at[y].shape;
    if (sx.ndim != 4 || sy.ndim != 4) return no_fit(g, ISO_OP_CONV_W, x, y);
    iso_shape sw = iso_shape4(sy.dim[3], kernel_h, kernel_w, sx.dim[3]);
    return conv(g, ISO_OP_CONV_W, x, y, &sx, &sw, &sy, sw, (iso_attr){.i = {stride, pad, kernel_h, kernel_w}});
}

/* The op with one operand replaced: what a bilinear op's tangent is made of. */
static iso_node conv_again(iso_graph *g, const node *m, iso_node a, iso_node b)
{
    int s = (int)m->attr.i[0], p = (int)m->attr.i[1];
    if (a == ISO_NONE || b == ISO_NONE) return ISO_NONE;
    if (m->op == ISO_OP_CONV) return iso_conv(g, a, b, s, p);
    return m->op == ISO_OP_CONV_X ? iso_conv_x(g, a, b, s, p, m->attr.i[2], m->attr.i[3])
                                  : iso_conv_w(g, a, b, s, p, m->attr.i[2], m->attr.i[3]);
}

static iso_node conv_jvp(iso_graph *g, iso_node n, const iso_node *t)
{
    node m = g->at[n];
    return plus(g, conv_again(g, &m, t[0], m.in[1]), conv_again(g, &m, m.in[0], t[1]));
}
iso_node iso_rule_jvp_CONV(iso_graph *g, iso_node n, const iso_node *t) { return conv_jvp(g, n, t); }
iso_node iso_rule_jvp_CONV_X(iso_graph *g, iso_node n, const iso_node *t) { return conv_jvp(g, n, t); }
iso_node iso_rule_jvp_CONV_W(iso_graph *g, iso_node n, const iso_node *t) { return conv_jvp(g, n, t); }

/* The gradient of T in x, w or y; two of the three are given. */
static iso_node grad_x(iso_graph *g, const node *m, iso_node like, iso_node y, iso_node w)
{
    return iso_conv_x(g, y, w, (int)m->attr.i[0], (int)m->attr.i[1], g->at[like].shape.dim[1],
                      g->at[like].shape.dim[2]);
}
static iso_node grad_w(iso_graph *g, const node *m, iso_node like, iso_node x, iso_node y)
{
    return iso_conv_w(g, x, y, (int)m->attr.i[0], (int)m->attr.i[1], g->at[like].shape.dim[1],
                      g->at[like].shape.dim[2]);
}
static iso_node grad_y(iso_graph *g, const node *m, iso_node x, iso_node w)
{
    return iso_conv(g, x, w, (int)m->attr.i[0], (int)m->attr.i[1]);
}

iso_node iso_rule_vjp_CONV(iso_graph *g, iso_node n, int which, iso_node c)
{ /* (x, w), c like y */
    node m = g->at[n];
    return which == 0 ? grad_x(g, &m, m.in[0], c, m.in[1]) : grad_w(g, &m, m.in[1], m.in[0], c);
}
iso_node iso_rule_vjp_CONV_X(iso_graph *g, iso_node n, int which, iso_node c)
{ /* (y, w), c like x */
    node m = g->at[n];
    return which == 0 ? grad_y(g, &m, c, m.in[1]) : grad_w(g, &m, m.in[1], c, m.in[0]);
}
iso_node iso_rule_vjp_CONV_W(iso_graph *g, iso_node n, int which, iso_node c)
{ /* (x, y), c like w */
    node m = g->at[n];
    return which == 0 ? grad_x(g, &m, m.in[0], m.in[1], c) : grad_y(g, &m, m.in[0], c);
}

/* 2 B OH OW O KH KW C, padding included. */
static double conv_flops(const iso_shape *w, const iso_shape *y)
{
    return 2.0 * (double)iso_shape_count(y) * (double)(w->dim[1] * w->dim[2] * w->dim[3]);
}
double iso_rule_flops_CONV(const iso_call *call) { return conv_flops(&call->in[1].shape, &call->out.shape); }
double iso_rule_flops_CONV_X(const iso_call *call) { return conv_flops(&call->in[1].shape, &call->in[0].shape); }
double iso_rule_flops_CONV_W(const iso_call *call) { return conv_flops(&call->out.shape, &call->in[1].shape); }
