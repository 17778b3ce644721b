/* op_shape.c: ops that sum, spread, view and move: builders, derivatives, FLOPs.
 * They come in adjoint pairs: sum/broadcast, slice/pad, gather/scatter; reshape and permute are their own. */
#include "model/graph/internal.h"

static iso_node no_fit(iso_graph *g, const char *what, const iso_shape *from, const iso_shape *to)
{
    char a[96], b[96];
    return iso_graph_fail(g, "%s: shape %s does not fit %s", what, iso_shape_text(from, a), iso_shape_text(to, b));
}

static iso_node append(iso_graph *g, iso_op op, iso_node a, iso_node b, iso_shape out, iso_attr attr)
{
    if (g->at[a].dtype != ISO_REAL) return iso_graph_fail(g, "%s: the operand is an index", iso_op_name(op));
    return iso_graph_intern(g, op, ISO_REAL, a, b, &out, &attr, NULL);
}

/* --- sum and broadcast */

iso_node iso_sum(iso_graph *g, iso_node x, iso_shape to)
{
    double v;
    if (x == ISO_NONE) return ISO_NONE;
    iso_shape from = g->at[x].shape;
    if (iso_shape_equal(&from, &to)) return x;
    if (!iso_shape_fits(&to, &from)) return no_fit(g, "sum", &from, &to);
    double ratio = (double)iso_shape_count(&from) / (double)iso_shape_count(&to);
    if (iso_node_constant(g, x, &v)) return iso_const(g, v * ratio, to);
    if (ratio == 1) return iso_reshape(g, x, to);
    if (g->at[x].op == ISO_OP_SUM) return iso_sum(g, g->at[x].in[0], to);
    return append(g, ISO_OP_SUM, x, ISO_NONE, to, (iso_attr){0});
}

iso_node iso_sum_all(iso_graph *g, iso_node x) { return iso_sum(g, x, iso_shape0()); }

iso_node iso_sum_rows(iso_graph *g, iso_node x)
{
    if (x == ISO_NONE) return ISO_NONE;
    iso_shape s = g->at[x].shape;
    if (s.ndim < 1) return iso_graph_fail(g, "sum_rows: a scalar has no rows");
    int64_t rows = s.dim[0], rest = iso_shape_count(&s) / rows;
    return iso_sum(g, iso_reshape(g, x, iso_shape2(rows, rest)), iso_shape2(rows, 1));
}

iso_node iso_mean_all(iso_graph *g, iso_node x)
{
    if (x == ISO_NONE) return ISO_NONE;
    return iso_scale(g, iso_sum_all(g, x), 1.0 / (double)iso_shape_count(&g->at[x].shape));
}

iso_node iso_broadcast(iso_graph *g, iso_node x, iso_shape to)
{
    double v;
    if (x == ISO_NONE) return ISO_NONE;
    iso_shape from = g->at[x].shape;
    if (iso_shape_equal(&from, &to)) return x;
    if (!iso_shape_fits(&from, &to)) return no_fit(g, "broadcast", &from, &to);
    if (iso_node_constant(g, x, &v)) return iso_const(g, v, to);
    if (iso_shape_count(&from) == iso_shape_count(&to)) return iso_reshape(g, x, to);
    if (g->at[x].op == ISO_OP_BROADCAST) return iso_broadcast(g, g->at[x].in[0], to);
    return append(g, ISO_OP_BROADCAST, x, ISO_NONE, to, (iso_attr){0});
}

iso_node iso_rule_jvp_SUM(iso_graph *g, iso_node n, const iso_node *t) { return iso_sum(g, t[0], g->at[n].shape); }
iso_node iso_rule_vjp_SUM(iso_graph *g, iso_node n, int w, iso_node c)
{
    return iso_broadcast(g, c, g->at[g->at[n].in[w]].shape);
}
double iso_rule_flops_SUM(const iso_call *call) { return (double)iso_shape_count(&call->in[0].shape); }

iso_node iso_rule_jvp_BROADCAST(iso_graph *g, iso_node n, const iso_node *t)
{
    return iso_broadcast(g, t[0], g->at[n].shape);
}
iso_node iso_rule_vjp_BROADCAST(iso_graph *g, iso_node n, int w, iso_node c)
{
    return iso_sum(g, c, g->at[g->at[n].in[w]].shape);
}

/* --- views and moves */

iso_node iso_reshape(iso_graph *g, iso_node x, iso_shape to)
{
    double v;
    if (x == ISO_NONE) return ISO_NONE;
    iso_shape from = g->at[x].shape;
    if (iso_shape_equal(&from, &to)) return x;
    if (iso_shape_count(&from) != iso_shape_count(&to)) return no_fit(g, "reshape", &from, &to);
    if (iso_node_constant(g, x, &v)) return iso_const(g, v, to);
    if (g->at[x].op == ISO_OP_RESHAPE) return iso_reshape(g, g->at[x].in[0], to);
    return append(g, ISO_OP_RESHAPE, x, ISO_NONE, to, (iso_attr){0});
}

iso_node iso_rule_jvp_RESHAPE(iso_graph *g, iso_node n, const iso_node *t)
{
    return iso_reshape(g, t[0], g->at[n].shape);
}
iso_node iso_rule_vjp_RESHAPE(iso_graph *g, iso_node n, int w, iso_node c)
{
    return iso_reshape(g, c, g->at[g->at[n].in[w]].shape);
}

void iso_axes_inverse(const int64_t axis[ISO_MAX_DIMS], int ndim, int64_t inverse[ISO_MAX_DIMS])
{
    for (int d = 0; d < ISO_MAX_DIMS; d++) inverse[d] = -1;
    for (int d = 0; d < ndim; d++) inverse[axis[d]] = d;
}

typedef struct permutation {
    iso_shape to;
    iso_attr attr;
    bool identity;
} permutation;

/* False, and the graph has the error, where the axes are none of the shape. */
static bool permutation_of(iso_graph *g, iso_shape from, const int64_t axis[ISO_MAX_DIMS], permutation *p)
{
    unsigned seen = 0;
    *p = (permutation){.to = from, .attr.i = {-1, -1, -1, -1}, .identity = true};
    for (int d = 0; d < ISO_MAX_DIMS; d++) {
        int64_t a = axis[d];
        bool inside = d < from.ndim;
        if (inside ? a < 0 || a >= from.ndim || (seen >> a & 1) : a != -1) {
            iso_graph_fail(g, "permute: the axes are not a permutation of %d", from.ndim);
            return false;
        }
        if (!inside) continue;
        seen |= 1u << a;
        p->to.dim[d] = from.dim[a];
        p->attr.i[d] = a;
        p->identity = p->identity && a == d;
    }
    return true;
}

static iso_node permute(iso_graph *g, iso_node x, const int64_t axis[ISO_MAX_DIMS])
{
    double v;
    permutation p;
    if (x == ISO_NONE) return ISO_NONE;
    const iso_shape from = g->at[x].shape;
    if (!permutation_of(g, from, axis, &p)) return ISO_NONE;
    if (p.identity) return x;
    const iso_shape to = p.to;
    const iso_attr attr = p.attr;
    if (iso_node_constant(g, x, &v)) return iso_const(g, v, to);
    if (g->at[x].op == ISO_OP_PERMUTE) { /* two in a row are one */
        int64_t both[ISO_MAX_DIMS] = {-1, -1, -1, -1};
        for (int d = 0; d < from.ndim; d++) both[d] = g->at[x].attr.i[attr.i[d]];
        return permute(g, g->at[x].in[0], both);
    }
    return append(g, ISO_OP_PERMUTE, x, ISO_NONE, to, attr);
}

iso_node iso_permute(iso_graph *g, iso_node x, int a, int b, int c, int d)
{
    return permute(g, x, (int64_t[ISO_MAX_DIMS]){a, b, c, d});
}

iso_node iso_rule_jvp_PERMUTE(iso_graph *g, iso_node n, const iso_node *t)
{
    iso_attr attr = g->at[n].attr;
    return permute(g, t[0], attr.i);
}
iso_node iso_rule_vjp_PERMUTE(iso_graph *g, iso_node n, int w, iso_node c)
{
    int64_t inverse[ISO_MAX_DIMS];
    (void)w;
    iso_axes_inverse(g->at[n].attr.i, g->at[n].shape.ndim, inverse);
    return permute(g, c, inverse);
}

/* --- states that are kept permuted */

iso_node iso_state_permuted(iso_graph *g, const char *name, iso_shape shape, int a, int b, int c, int d)
{
    permutation p;
    if (!permutation_of(g, shape, (int64_t[ISO_MAX_DIMS]){a, b, c, d}, &p)) return ISO_NONE;
    return iso_graph_source(g, ISO_OP_STATE, ISO_REAL, name, p.to, p.identity ? NULL : &p.attr);
}

iso_node iso_state_like(iso_graph *g, const char *name, iso_node state)
{
    if (state == ISO_NONE) return ISO_NONE;
    if (g->at[state].op != ISO_OP_STATE) return iso_graph_fail(g, "\"%s\" is to be like a %s, which is no state", name, iso_op_name(g->at[state].op));
    const iso_attr attr = g->at[state].attr;
    return iso_graph_source(g, ISO_OP_STATE, ISO_REAL, name, g->at[state].shape, &attr);
}

iso_node iso_state_restored(iso_graph *g, iso_node state, iso_node x)
{
    int64_t inverse[ISO_MAX_DIMS];
    if (x == ISO_NONE || state == ISO_NONE || !iso_node_permuted(&g->at[state])) return x;
    iso_axes_inverse(g->at[state].attr.i, g->at[state].shape.ndim, inverse);
    return permute(g, x, inverse);
}

iso_shape iso_state_shape(const iso_graph *g, iso_node state)
{
    iso_shape shape = iso_node_shape(g, state);
    if (state == ISO_NONE || !iso_node_permuted(&g->at[state])) return shape;
    for (int d = 0; d < shape.ndim; d++) shape.dim[g->at[state].attr.i[d]] = g->at[state].shape.dim[d];
    return shape;
}

/* --- slice and pad */

iso_node iso_slice(iso_graph *g, iso_node x, int axis, int64_t start, int64_t length)
{
    double v;
    if (x == ISO_NONE) return ISO_NONE;
    iso_shape to = g->at[x].shape;
    if (axis < 0 || axis >= to.ndim || start < 0 || length < 1 || start > to.dim[axis] - length)
        return iso_graph_fail(g, "slice: [%lld, +%lld) of axis %d is outside", (long long)start, (long long)length,
                              axis);
    if (length == to.dim[axis]) return x;
    to.dim[axis] = length;
    if (iso_node_constant(g, x, &v)) return iso_const(g, v, to);
    return append(g, ISO_OP_SLICE, x, ISO_NONE, to, (iso_attr){.i = {axis, start, length}});
}

iso_node iso_pad(iso_graph *g, iso_node x, int axis, int64_t before, int64_t total)
{
    double v;
    if (x == ISO_NONE) return ISO_NONE;
    iso_shape to = g->at[x].shape;
    if (axis < 0 || axis >= to.ndim || before < 0 || to.dim[axis] > total - before)
        return iso_graph_fail(g, "pad: %lld before, %lld in all does not hold axis %d", (long long)before,
                              (long long)total, axis);
    if (total == to.dim[axis]) return x;
    to.dim[axis] = total;
    if (iso_node_constant(g, x, &v) && v == 0) return iso_const(g, 0, to);
    return append(g, ISO_OP_PAD, x, ISO_NONE, to, (iso_attr){.i = {axis, before, total}});
}

iso_node iso_rule_jvp_SLICE(iso_graph *g, iso_node n, const iso_node *t)
{
    iso_attr a = g->at[n].attr;
    return iso_slice(g, t[0], (int)a.i[0], a.i[1], a.i[2]);
}
iso_node iso_rule_vjp_SLICE(iso_graph *g, iso_node n, int w, iso_node c)
{
    iso_attr a = g->at[n].attr;
    return iso_pad(g, c, (int)a.i[0], a.i[1], g->at[g->at[n].in[w]].shape.dim[a.i[0]]);
}
iso_node iso_rule_jvp_PAD(iso_graph *g, iso_node n, const iso_node *t)
{
    iso_attr a = g->at[n].attr;
    return iso_pad(g, t[0], (int)a.i[0], a.i[1], a.i[2]);
}
iso_node iso_rule_vjp_PAD(iso_graph *g, iso_node n, int w, iso_node c)
{
    iso_attr a = g->at[n].attr;
    return iso_slice(g, c, (int)a.i[0], a.i[1], g->at[g->at[n].in[w]].shape.dim[a.i[0]]);
}

/* --- concat */

iso_node iso_concat(iso_graph *g, iso_node a, iso_node b, int axis)
{
    if (a == ISO_NONE || b == ISO_NONE) return ISO_NONE;
    iso_shape sa = g->at[a].shape, sb = g->at[b].shape, to = sa;
    bool fits = sa.ndim == sb.ndim && axis >= 0 && axis < sa.ndim;
    for (int d = 0; fits && d < sa.ndim; d++) fits = d == axis || sa.dim[d] == sb.dim[d];
    if (!fits) return no_fit(g, "concat", &sb, &sa);
    double va, vb;
    to.dim[axis] += sb.dim[axis];
    if (iso_node_constant(g, a, &va) && iso_node_constant(g, b, &vb) && va == vb) return iso_const(g, va, to);
    if (iso_node_constant(g, b, &vb) && vb == 0) return iso_pad(g, a, axis, 0, to.dim[axis]);
    if (iso_node_constant(g, a, &va) && va == 0) return iso_pad(g, b, axis, sa.dim[axis], to.dim[axis]);
    return append(g, ISO_OP_CONCAT, a, b, to, (iso_attr){.i = {axis}});
}

iso_node iso_rule_jvp_CONCAT(iso_graph *g, iso_node n, const iso_node *t)
{
    iso_node a = g->at[n].in[0], b = g->at[n].in[1];
    iso_node ta = t[0] != ISO_NONE ? t[0] : iso_const(g, 0, g->at[a].shape);
    iso_node tb = t[1] != ISO_NONE ? t[1] : iso_const(g, 0, g->at[b].shape);
    return iso_concat(g, ta, tb, (int)g->at[n].attr.i[0]);
}
iso_node iso_rule_vjp_CONCAT(iso_graph *g, iso_node n, int w, iso_node c)
{
    int axis = (int)g->at[n].attr.i[0];
    int64_t first = g->at[g->at[n].in[0]].shape.dim[axis];
    return iso_slice(g, c, axis, w ? first : 0, g->at[g->at[n].in[w]].shape.dim[axis]);
}

/* --- gather and scatter rows */

static bool index_fits(iso_graph *g, iso_op op, iso_node x, iso_node index, bool lengths)
{
    if (x == ISO_NONE || index == ISO_NONE) return false;
    const node *a = &g->at[x], *i = &g->at[index];
    if (i->dtype == ISO_INDEX && a->shape.ndim >= 1 && (!lengths || a->shape.dim[0] == i->shape.dim[0])) return true;
    iso_graph_fail(g, "%s: wants rows and an index%s", iso_op_name(op), lengths ? " of the same count" : "");
    return false;
}

/* Every index must be in [0, N): iso_plan_write_index checks it against the smallest N it meets. */
iso_node iso_gather(iso_graph *g, iso_node x, iso_node index)
{
    double v;
    if (!index_fits(g, ISO_OP_GATHER, x, index, false)) return ISO_NONE;
    iso_shape to = g->at[x].shape;
    to.dim[0] = g->at[index].shape.dim[0];
    if (iso_node_constant(g, x, &v)) return iso_const(g, v, to);
    return append(g, ISO_OP_GATHER, x, index, to, (iso_attr){0});
}

iso_node iso_scatter(iso_graph *g, iso_node y, iso_node index, int64_t rows)
{
    double v;
    if (!index_fits(g, ISO_OP_SCATTER, y, index, true)) return ISO_NONE;
    if (rows < 1) return iso_graph_fail(g, "scatter: no rows");
    iso_shape to = g->at[y].shape;
    to.dim[0] = rows;
    if (iso_node_constant(g, y, &v) && v == 0) return iso_const(g, 0, to);
    return append(g, ISO_OP_SCATTER, y, index, to, (iso_attr){.i = {rows}});
}

iso_node iso_rule_jvp_GATHER(iso_graph *g, iso_node n, const iso_node *t)
{
    return t[0] == ISO_NONE ? ISO_NONE : iso_gather(g, t[0], g->at[n].in[1]);
}
iso_node iso_rule_vjp_GATHER(iso_graph *g, iso_node n, int w, iso_node c)
{
    return w ? ISO_NONE : iso_scatter(g, c, g->at[n].in[1], g->at[g->at[n].in[0]].shape.dim[0]);
}
iso_node iso_rule_jvp_SCATTER(iso_graph *g, iso_node n, const iso_node *t)
{
    return t[0] == ISO_NONE ? ISO_NONE : iso_scatter(g, t[0], g->at[n].in[1], g->at[n].attr.i[0]);
}
iso_node iso_rule_vjp_SCATTER(iso_graph *g, iso_node n, int w, iso_node c)
{
    return w ? ISO_NONE : iso_gather(g, c, g->at[n].in[1]);
}
double iso_rule_flops_SCATTER(const iso_call *call) { return (double)iso_shape_count(&call->in[0].shape); }

#define NO_FLOPS(NAME) \
    double iso_rule_flops_##NAME(const iso_call *call) \
    { \
        (void)call; \
        return 0; \
    }
NO_FLOPS(BROADCAST)
NO_FLOPS(RESHAPE)
NO_FLOPS(PERMUTE)
NO_FLOPS(SLICE)
NO_FLOPS(PAD)
NO_FLOPS(CONCAT)
NO_FLOPS(GATHER)
