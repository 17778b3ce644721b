/* transform.c: jvp and vjp, graph to graph. Handles are in topological order, so both are one sweep over them:
 * upwards with tangents, downwards with cotangents, over the nodes that lie between x and y. */
#include <stdlib.h>

#include "base/memory.h"
#include "model/graph/internal.h"

/* moves[n]: y may be reached from n, and n from some x. */
typedef struct sweep {
    int limit;       /* one past the largest y */
    iso_node *value; /* tangent or cotangent of each node; ISO_NONE: zero */
    bool *moves, *leaf;
} sweep;

static void sweep_free(sweep *s)
{
    free(s->value);
    free(s->moves);
    free(s->leaf);
}

static bool all_valid(iso_graph *g, int n, const iso_node *a)
{
    bool ok = g->error.status == ISO_OK;
    for (int i = 0; i < n; i++) ok = ok && a[i] != ISO_NONE;
    if (!ok && g->error.status == ISO_OK) iso_graph_fail(g, "jvp or vjp of a node that is none");
    return ok;
}

static bool same_shapes(iso_graph *g, const char *what, int n, const iso_node *a, const iso_node *b)
{
    char ta[96], tb[96];
    for (int i = 0; i < n; i++) {
        const iso_shape *sa = &g->at[a[i]].shape, *sb = &g->at[b[i]].shape;
        if (iso_shape_equal(sa, sb)) continue;
        iso_graph_fail(g, "%s: direction %d has shape %s, not %s", what, i, iso_shape_text(sb, tb),
                       iso_shape_text(sa, ta));
        return false;
    }
    return true;
}

static bool sweep_begin(iso_graph *g, sweep *s, int ny, const iso_node *y, int nx, const iso_node *x)
{
    *s = (sweep){0};
    for (int i = 0; i < ny; i++) s->limit = y[i] >= s->limit ? y[i] + 1 : s->limit;
    size_t n = (size_t)s->limit;
    s->value = malloc((n + 1) * sizeof *s->value);
    s->moves = iso_calloc(n + 1, 1);
    s->leaf = iso_calloc(n + 1, 1);
    bool *needed = iso_calloc(n + 1, 1);
    if (!s->value || !s->moves || !s->leaf || !needed) {
        free(needed);
        (void)iso_fail_memory(&g->error);
        return false;
    }
    for (int i = 0; i < s->limit; i++) s->value[i] = ISO_NONE;
    for (int i = 0; i < nx; i++)
        if (x[i] < s->limit) s->leaf[x[i]] = true;
    for (int i = 0; i < ny; i++) needed[y[i]] = true;
    for (int i = s->limit - 1; i >= 0; i--)
        for (int k = 0; needed[i] && !s->leaf[i] && k < ISO_MAX_INPUTS; k++)
            if (g->at[i].in[k] != ISO_NONE) needed[g->at[i].in[k]] = true;
    for (int i = 0; i < s->limit; i++) {
        bool moves = s->leaf[i];
        for (int k = 0; k < ISO_MAX_INPUTS; k++)
            moves = moves || (g->at[i].in[k] != ISO_NONE && s->moves[g->at[i].in[k]]);
        s->moves[i] = moves && needed[i];
    }
    free(needed);
    return true;
}

static iso_node or_zero(iso_graph *g, iso_node n, iso_node like)
{
    return n != ISO_NONE ? n : iso_const(g, 0, iso_node_shape(g, like));
}

void iso_jvp(iso_graph *g, int ny, const iso_node *y, int nx, const iso_node *x, const iso_node *tx, iso_node *ty)
{
    sweep s = {0};
    for (int i = 0; i < ny; i++) ty[i] = ISO_NONE;
    if (!all_valid(g, ny, y) || !all_valid(g, nx, x) || !all_valid(g, nx, tx) || !same_shapes(g, "jvp", nx, x, tx))
        return;
    if (sweep_begin(g, &s, ny, y, nx, x)) {
        for (int i = 0; i < nx; i++)
            if (x[i] < s.limit) s.value[x[i]] = tx[i];
        for (int n = 0; n < s.limit; n++) {
            if (!s.moves[n] || s.leaf[n]) continue;
            iso_node t[ISO_MAX_INPUTS];
            bool any = false;
            for (int k = 0; k < ISO_MAX_INPUTS; k++) {
                iso_node in = g->at[n].in[k];
                t[k] = in != ISO_NONE && s.moves[in] ? s.value[in] : ISO_NONE;
                any = any || t[k] != ISO_NONE;
            }
            if (any) s.value[n] = iso_op_table[g->at[n].op].jvp(g, n, t);
        }
        for (int i = 0; i < ny; i++) ty[i] = or_zero(g, s.value[y[i]], y[i]);
    }
    sweep_free(&s);
}

void iso_vjp(iso_graph *g, int ny, const iso_node *y, const iso_node *cy, int nx, const iso_node *x, iso_node *gx)
{
    sweep s = {0};
    for (int i = 0; i < nx; i++) gx[i] = ISO_NONE;
    if (!all_valid(g, ny, y) || !all_valid(g, nx, x) || !all_valid(g, ny, cy) || !same_shapes(g, "vjp", ny, y, cy))
        return;
    if (sweep_begin(g, &s, ny, y, nx, x)) {
        for (int i = 0; i < ny; i++)
            s.value[y[i]] = s.value[y[i]] == ISO_NONE ? cy[i] : iso_add(g, s.value[y[i]], cy[i]);
        for (int n = s.limit - 1; n >= 0; n--) {
            if (!s.moves[n] || s.leaf[n] || s.value[n] == ISO_NONE) continue;
            for (int k = 0; k < iso_op_table[g->at[n].op].inputs; k++) {
                iso_node in = g->at[n].in[k];
                if (!s.moves[in]) continue;
                iso_node c = iso_op_table[g->at[n].op].vjp(g, n, k, s.value[n]);
                if (c != ISO_NONE) s.value[in] = s.value[in] == ISO_NONE ? c : iso_add(g, s.value[in], c);
            }
        }
        for (int i = 0; i < nx; i++) gx[i] = or_zero(g, x[i] < s.limit ? s.value[x[i]] : ISO_NONE, x[i]);
    }
    sweep_free(&s);
}

iso_node iso_jvp1(iso_graph *g, iso_node y, iso_node x, iso_node tx)
{
    iso_node ty;
    iso_jvp(g, 1, &y, 1, &x, &tx, &ty);
    return ty;
}

iso_node iso_vjp1(iso_graph *g, iso_node y, iso_node x, iso_node cy)
{
    iso_node gx;
    iso_vjp(g, 1, &y, &cy, 1, &x, &gx);
    return gx;
}
