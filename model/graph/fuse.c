/* fuse.c: from needed nodes to units in running order.
 *
 * Elementwise nodes of one shape join their consumers' unit as long as no path leaves the unit and comes back: a unit
 * runs at once, so such a path would have to run in the middle of it. Going from the last node to the first puts cheap
 * ops next to their consumers, where they need no memory of their own. Masks (step) are computed anew in every unit that
 * reads them: they cost one comparison, and what they read is kept anyway.
 *
 * A convolution starts a unit that elementwise nodes may join behind it: they are done while its result is in the cache.
 *
 * Small products start units that elementwise nodes may join behind them, so that what a product gives is still in the
 * cache: two that multiply by the same matrix (a primal and its tangent) in one unit, and all those whose sum is the
 * gradient of a weight. What joins must not make a product wait for what it did not wait for before. */
#include <stdlib.h>

#include "base/memory.h"
#include "model/graph/plan_internal.h"

/* Work space while units form. A group is named by one of its nodes. */
typedef struct forming {
    const iso_graph *g;
    const iso_plan_spec *spec;
    int n;
    bool *needed, *inlined, *summand;
    iso_node *root;
    iso_node *lead;   /* of a group: the convolution that its other nodes follow, or ISO_NONE */
    int *products;    /* of a group: how many matmuls others may join */
    iso_node *sum;    /* of a group: the node that is their sum, or ISO_NONE */
    int *readers;     /* [nodes] reads of a node, by nodes, outputs and assignments */
    int *group;       /* of a node with a kernel; -1 for others */
    int *next, *tail; /* lists of a group's nodes */
    int *low, *high;  /* smallest and largest handle of a group */
    int *seen, stamp; /* for searches */
    int *stack;
    /* Extra edges from -> to between groups: readers of a state run before it is overwritten. */
    int (*edge)[2];
    size_t edges, edge_capacity;
} forming;

static op_kind kind_of(const forming *f, int n) { return iso_op_table[f->g->at[n].op].kind; }

/* The group whose kernel makes the bytes that `in` is read from; -1 for sources. */
static int producer(const forming *f, iso_node in)
{
    for (;;) {
        in = f->root[in];
        if (!f->inlined[in]) return f->group[in];
        in = f->g->at[in].in[0];
    }
}

/* Calls visit(context, group) for every group that `group` reads; stops early on true. */
static bool each_input(const forming *f, int group, bool (*visit)(void *, int), void *context)
{
    for (int n = group; n != -1; n = f->next[n])
        for (int k = 0; k < ISO_MAX_INPUTS; k++) {
            iso_node in = f->g->at[n].in[k];
            if (in == ISO_NONE) continue;
            int p = producer(f, in);
            if (p != -1 && p != group && visit(context, p)) return true;
        }
    for (size_t e = 0; e < f->edges; e++)
        if (f->edge[e][1] == group && visit(context, f->edge[e][0])) return true;
    return false;
}

typedef struct search {
    forming *f;
    int target, top;
    bool skip_target; /* a direct edge to the target does not count */
} search;

static bool push(void *context, int group)
{
    search *s = context;
    if (group == s->target) return !s->skip_target;
    if (s->f->seen[group] == s->f->stamp) return false;
    s->f->seen[group] = s->f->stamp;
    s->f->stack[s->top++] = group;
    return false;
}

/* Whether `from` depends on `target`; with `indirectly`, by a path through at least one other group. */
static bool depends(forming *f, int from, int target, bool indirectly)
{
    search s = {f, target, 0, indirectly};
    f->stamp++;
    if (each_input(f, from, push, &s)) return true;
    s.skip_target = false;
    while (s.top > 0)
        if (each_input(f, f->stack[--s.top], push, &s)) return true;
    return false;
}

static bool counts_input(const forming *f, int group, iso_node in)
{
    if (f->inlined[in]) in = f->g->at[in].in[0];
    return f->group[in] != group || f->group[in] == -1;
}

/* An upper bound on the inputs and steps that the union of two groups would have. */
static bool union_small(const forming *f, int a, int b)
{
    int inputs = 0, steps = 0, groups[2] = {a, b};
    for (int i = 0; i < 2; i++)
        for (int n = groups[i]; n != -1; n = f->next[n]) {
            steps++;
            for (int k = 0; k < ISO_MAX_INPUTS; k++) {
                iso_node in = f->g->at[n].in[k];
                if (in == ISO_NONE) continue;
                steps += f->inlined[in];
                inputs += counts_input(f, a, in) && counts_input(f, b, in);
            }
        }
    return steps <= ISO_FUSED_MAX_STEPS && inputs <= ISO_FUSED_MAX_INPUTS;
}

static void merge(forming *f, int a, int b)
{
    for (int n = b; n != -1; n = f->next[n]) f->group[n] = a;
    f->products[a] += f->products[b];
    if (f->sum[a] == ISO_NONE) f->sum[a] = f->sum[b];
    if (f->lead[a] == ISO_NONE) f->lead[a] = f->lead[b];
    f->next[f->tail[a]] = b;
    f->tail[a] = f->tail[b];
    if (f->low[b] < f->low[a]) f->low[a] = f->low[b];
    if (f->high[b] > f->high[a]) f->high[a] = f->high[b];
}

static bool is_product(const forming *f, int n) { return f->g->at[n].op == ISO_OP_MATMUL; }

/* Whether a product or convolution in group a reads what group b computes. */
static bool product_reads(const forming *f, int a, int b)
{
    for (int n = a; n != -1; n = f->next[n])
        for (int k = 0; k < ISO_MAX_INPUTS && kind_of(f, n) == KIND_K; k++)
            if (producer(f, f->g->at[n].in[k]) == b) return true;
    return false;
}

/* Whether a group has a kernel that is not elementwise; it has one, or products that are joined. */
static bool has_kernel(const forming *f, int group) { return f->products[group] || f->lead[group] != ISO_NONE; }

/* Whether all that `group` reads, but for `product`, is there before `product` begins. */
typedef struct early {
    forming *f;
    int product, group;
} early;

static bool comes_late(void *context, int p)
{
    const early *e = context;
    return p != e->product && p != e->group && !depends(e->f, e->product, p, false);
}

static bool may_follow(forming *f, int product, int group)
{
    return !product_reads(f, product, group) && !each_input(f, group, comes_late, &(early){f, product, group});
}

/* Whether nothing outside of group a reads what group b computes: it would come later than it could. */
static bool only_read_by(const forming *f, int a, int b)
{
    for (int n = 0; n < f->n; n++)
        for (int k = 0; k < ISO_MAX_INPUTS && f->group[n] != -1 && f->group[n] != a && f->group[n] != b; k++)
            if (f->g->at[n].in[k] != ISO_NONE && producer(f, f->g->at[n].in[k]) == b) return false;
    return true;
}

/* Tries to take node `in` of n's inputs into n's group. */
static void try_merge(forming *f, int n, iso_node in)
{
    const node *at = f->g->at;
    if (in == ISO_NONE || f->inlined[in] || f->group[in] == -1 || !iso_shape_equal(&at[in].shape, &at[n].shape)) return;
    int a = f->group[n], b = f->group[in];
    if (a == b || (kind_of(f, in) != KIND_E && !has_kernel(f, b)) || (has_kernel(f, a) && has_kernel(f, b))) return;
    if (!union_small(f, a, b) || depends(f, a, b, true)) return;
    if (f->products[b] && !may_follow(f, b, a)) return;
    if (f->products[a] && (!may_follow(f, a, b) || !only_read_by(f, a, b))) return;
    if (f->lead[a] != ISO_NONE && product_reads(f, a, b)) return;
    merge(f, a, b);
}

static void fuse(forming *f)
{
    for (int n = f->n - 1; n >= 0; n--) {
        if (f->group[n] == -1 || kind_of(f, n) != KIND_E) continue;
        for (int k = 0; k < ISO_MAX_INPUTS; k++) {
            iso_node in = f->g->at[n].in[k];
            if (in != ISO_NONE && f->inlined[in]) in = f->g->at[in].in[0];
            try_merge(f, n, in);
        }
    }
}

/* --- products in one unit */

static size_t real_bytes(const forming *f, iso_node n)
{
    return (size_t)iso_shape_count(&f->g->at[n].shape) * f->spec->vars->backend->real_size;
}

/* Whether `count` products like n are small enough for one thread. */
static bool small_products(const forming *f, int n, int count)
{
    const node *p = &f->g->at[n];
    iso_call c = {.attr = p->attr, .in = {{NULL, f->g->at[p->in[0]].shape}, {NULL, f->g->at[p->in[1]].shape}}, .out.shape = p->shape};
    return iso_together_small_size((size_t)count * (real_bytes(f, p->in[0]) + real_bytes(f, p->in[1]) + real_bytes(f, n)),
                                   count * iso_op_flops(p->op, &c));
}

/* A product that others may join: small, and of matrices. */
static bool joins(const forming *f, int n)
{
    return f->group[n] != -1 && is_product(f, n) && f->g->at[n].shape.ndim == 2 && small_products(f, n, 1);
}

static bool alike(const forming *f, int n, int other)
{
    const node *a = &f->g->at[n], *b = &f->g->at[other];
    bool same = a->attr.i[0] == b->attr.i[0] && a->attr.i[1] == b->attr.i[1];
    for (int k = 0; k < ISO_MAX_INPUTS; k++) same = same && iso_shape_equal(&f->g->at[a->in[k]].shape, &f->g->at[b->in[k]].shape);
    return same;
}

/* The products that the sum n is made of, into leaf; false where it is made of anything else. */
static bool collect(const forming *f, int n, bool top, int *leaf, int *count)
{
    if (!top && f->readers[n] != 1) return false;
    if (joins(f, n) && f->g->at[n].attr.i[0]) {
        if (*count == ISO_PRODUCTS_MAX || (*count && !alike(f, n, leaf[0]))) return false;
        leaf[(*count)++] = n;
        return true;
    }
    if (f->group[n] == -1 || f->g->at[n].op != ISO_OP_ADD) return false;
    return collect(f, f->g->at[n].in[0], false, leaf, count) && collect(f, f->g->at[n].in[1], false, leaf, count);
}

static void take_sum(forming *f, int n, int group)
{
    if (n != group) {
        merge(f, group, n);
        f->summand[n] = true;
    }
    for (int k = 0; k < ISO_MAX_INPUTS && !is_product(f, n); k++) take_sum(f, f->g->at[n].in[k], group);
}

/* Gradients of a weight are summed where they are multiplied. */
static void join_sums(forming *f)
{
    for (int n = f->n - 1; n >= 0; n--) {
        int leaf[ISO_PRODUCTS_MAX], count = 0;
        if (f->group[n] != n || f->summand[n] || f->g->at[n].op != ISO_OP_ADD) continue;
        if (!collect(f, n, true, leaf, &count) || !small_products(f, leaf[0], count)) continue;
        take_sum(f, n, n);
        f->sum[n] = n;
    }
}

/* Two products by the same matrix that do not wait for each other. */
static void join_pairs(forming *f)
{
    for (int n = 0; n < f->n; n++) {
        if (f->group[n] != n || f->products[n] != 1 || f->g->at[n].attr.i[0] || f->summand[n]) continue;
        for (int m = n - 1; m >= 0; m--) {
            if (f->group[m] != m || f->products[m] != 1 || !alike(f, n, m) || !small_products(f, n, 2)) continue;
            if (f->root[f->g->at[m].in[1]] != f->root[f->g->at[n].in[1]]) continue;
            if (depends(f, n, m, false) || depends(f, m, n, false)) continue;
            merge(f, n, m);
            break;
        }
    }
}

static void join_products(forming *f)
{
    const iso_plan_spec *s = f->spec;
    for (int n = 0; n < f->n; n++)
        for (int k = 0; f->needed[n] && k < ISO_MAX_INPUTS; k++)
            if (f->g->at[n].in[k] != ISO_NONE) f->readers[f->g->at[n].in[k]]++;
    for (int i = 0; i < s->output_count; i++) f->readers[s->outputs[i]]++;
    for (int i = 0; i < s->assign_count; i++) f->readers[s->assigns[i].value]++;
    for (int n = 0; n < f->n; n++) f->products[n] = joins(f, n);
    join_sums(f);
    join_pairs(f);
}

/* --- which nodes need what */

static void mark_needed(forming *f)
{
    const iso_plan_spec *s = f->spec;
    for (int i = 0; i < s->output_count; i++) f->needed[s->outputs[i]] = true;
    for (int i = 0; i < s->assign_count; i++) f->needed[s->assigns[i].value] = true;
    for (int n = f->n - 1; n >= 0; n--)
        for (int k = 0; f->needed[n] && k < ISO_MAX_INPUTS; k++)
            if (f->g->at[n].in[k] != ISO_NONE) f->needed[f->g->at[n].in[k]] = true;
    for (int n = 0; n < f->n; n++) f->root[n] = f->g->at[n].op == ISO_OP_RESHAPE ? f->root[f->g->at[n].in[0]] : n;
}

/* A mask is inlined when only elementwise nodes of its shape read it. */
static void mark_inlined(forming *f)
{
    for (int n = 0; n < f->n; n++) f->inlined[n] = f->needed[n] && f->g->at[n].op == ISO_OP_STEP;
    for (int n = 0; n < f->n; n++)
        for (int k = 0; f->needed[n] && k < ISO_MAX_INPUTS; k++) {
            iso_node in = f->g->at[n].in[k];
            if (in == ISO_NONE || !f->inlined[in]) continue;
            bool same = kind_of(f, n) == KIND_E && iso_shape_equal(&f->g->at[in].shape, &f->g->at[n].shape);
            if (!same || f->g->at[n].op == ISO_OP_STEP) f->inlined[in] = false;
        }
    const iso_plan_spec *s = f->spec;
    for (int i = 0; i < s->output_count; i++) f->inlined[f->root[s->outputs[i]]] = false;
    for (int i = 0; i < s->assign_count; i++) f->inlined[f->root[s->assigns[i].value]] = false;
}

static void begin_groups(forming *f)
{
    for (int n = 0; n < f->n; n++) {
        op_kind kind = kind_of(f, n);
        bool kernel = f->needed[n] && !f->inlined[n] && (kind == KIND_E || kind == KIND_K);
        f->group[n] = kernel ? n : -1;
        f->next[n] = -1;
        f->tail[n] = f->low[n] = f->high[n] = n;
        f->seen[n] = 0;
        f->sum[n] = ISO_NONE;
        const bool leads = f->g->at[n].op == ISO_OP_CONV || f->g->at[n].op == ISO_OP_CONV_X;
        f->lead[n] = f->spec->vars->backend->tails && kernel && leads ? n : ISO_NONE;
    }
}

/* --- assignments that write straight into the state */

static bool add_edge(forming *f, int from, int to)
{
    if (!iso_grow(&f->edge, &f->edge_capacity, f->edges + 1, sizeof *f->edge)) return false;
    f->edge[f->edges][0] = from;
    f->edge[f->edges++][1] = to;
    return true;
}

/* Whether node n reads the bytes of `state`; *dense: element by element. */
static bool reads(const forming *f, int n, iso_node state, bool *dense)
{
    bool found = false;
    for (int k = 0; k < ISO_MAX_INPUTS; k++) {
        iso_node in = f->g->at[n].in[k];
        if (in == ISO_NONE) continue;
        if (f->inlined[in]) in = f->g->at[in].in[0];
        if (f->root[in] != state) continue;
        found = true;
        if (kind_of(f, n) == KIND_K || !iso_shape_equal(&f->g->at[in].shape, &f->g->at[n].shape)) *dense = false;
    }
    return found;
}

/* Makes every other reader of the state run first. False when that cannot be (or memory is out): then it is copied. */
static bool try_direct(forming *f, const iso_assign *a)
{
    int writer = f->group[a->value];
    if (writer == -1 || kind_of(f, a->value) != KIND_E) return false;
    for (int n = 0; n < f->n; n++) {
        bool dense = true;
        if (f->group[n] == -1 || !reads(f, n, a->state, &dense)) continue;
        if (f->group[n] == writer ? !dense : depends(f, f->group[n], writer, false)) return false;
    }
    for (int n = 0; n < f->n; n++) {
        bool dense = true;
        if (f->group[n] == -1 || f->group[n] == writer || !reads(f, n, a->state, &dense)) continue;
        if (!add_edge(f, f->group[n], writer)) return false;
    }
    return true;
}

static void mark_direct(forming *f, bool *direct)
{
    const iso_plan_spec *s = f->spec;
    for (int i = 0; i < s->assign_count; i++) {
        bool twice = false;
        for (int k = 0; k < s->assign_count; k++)
            twice = twice || (k != i && s->assigns[k].value == s->assigns[i].value);
        direct[i] = !twice && s->vars->backend->fused && try_direct(f, &s->assigns[i]);
    }
}

/* --- order */

/* reader[first[p]] to reader[first[p + 1] - 1] are the groups that read group p, each as often as it does. */
typedef struct readers {
    int *first, *reader;
    int *waits; /* how much a group reads */
    int by;     /* whose reads are looked at */
} readers;

static bool count_read(void *context, int p)
{
    readers *r = context;
    r->first[p]++;
    r->waits[r->by]++;
    return false;
}

static bool list_read(void *context, int p)
{
    readers *r = context;
    r->reader[--r->first[p]] = r->by;
    return false;
}

static void visit_readers(const forming *f, readers *r, bool (*visit)(void *, int))
{
    for (r->by = 0; r->by < f->n; r->by++)
        if (f->group[r->by] == r->by) each_input(f, r->by, visit, r);
}

static bool find_readers(const forming *f, readers *r)
{
    const size_t n = (size_t)f->n;
    r->first = iso_calloc(n + 1, sizeof *r->first);
    r->waits = iso_calloc(n, sizeof *r->waits);
    if (!r->first || !r->waits) return false;
    visit_readers(f, r, count_read);
    for (size_t p = 0; p < n; p++) r->first[p + 1] += r->first[p];
    r->reader = iso_calloc((size_t)r->first[n], sizeof *r->reader);
    if (!r->reader) return false;
    visit_readers(f, r, list_read);
    return true;
}

/* A conv_w comes right after a conv of the same x, whose slices may do it along with theirs (iso_slicing.along). Keys are twice the handles, so that one
 * fits between two. */
static int after_conv(const forming *f, int conv_w, int key)
{
    for (int n = 0; n < f->n; n++)
        if (f->group[n] != -1 && f->g->at[n].op == ISO_OP_CONV && f->root[f->g->at[n].in[0]] == f->root[f->g->at[conv_w].in[0]] &&
            key < 2 * f->high[f->group[n]])
            key = 2 * f->high[f->group[n]] + 1;
    return key;
}

/* Kahn's algorithm, smallest last handle first: the order in which the expression was written. Units that assign a state
 * run as soon as they can: that frees a gradient. */
static iso_status order_units(forming *f, const bool *direct, units *u, iso_error *err)
{
    int groups = 0, *list = iso_calloc((size_t)f->n, sizeof *list), *key = iso_calloc((size_t)f->n, sizeof *key);
    readers r = {0};
    iso_status st = list && key && find_readers(f, &r) ? ISO_OK : iso_fail_memory(err);
    for (int n = 0; st == ISO_OK && n < f->n; n++) {
        if (f->group[n] != n) continue;
        list[groups++] = n;
        key[n] = 2 * f->high[n];
    }
    for (int n = 0; st == ISO_OK && n < f->n; n++)
        if (f->group[n] == n && f->g->at[n].op == ISO_OP_CONV_W && f->spec->vars->backend->slicing) key[n] = after_conv(f, n, key[n]);
    for (int i = 0; st == ISO_OK && i < f->spec->assign_count; i++)
        if (direct[i]) key[f->group[f->spec->assigns[i].value]] = -1;
    int placed = 0;
    for (u->unit_count = 0; st == ISO_OK && u->unit_count < groups;) {
        int best = -1;
        for (int i = 0; i < groups; i++)
            if (r.waits[list[i]] == 0 && (best == -1 || key[list[i]] < key[best])) best = list[i];
        if (best == -1) {
            st = iso_fail(err, ISO_E_INTERNAL, "the plan's units wait for each other");
            break;
        }
        r.waits[best] = -1;
        unit *at = &u->unit[u->unit_count];
        *at = (unit){.first = placed, .fused = kind_of(f, best) == KIND_E || f->next[best] != -1 || f->products[best], .sum = f->sum[best], .lead = ISO_NONE};
        if (at->fused) at->products = f->products[best];
        if (at->fused) at->lead = f->lead[best];
        for (int n = f->low[best]; n <= f->high[best]; n++)
            if (f->group[n] == best) {
                u->order[placed++] = n;
                u->of[n] = u->unit_count;
            }
        at->count = placed - at->first;
        u->unit_count++;
        for (int k = r.first[best]; k < r.first[best + 1]; k++) r.waits[r.reader[k]]--;
    }
    free(list);
    free(key);
    free(r.first);
    free(r.reader);
    free(r.waits);
    return st;
}

void iso_units_free(units *u)
{
    free(u->unit);
    free(u->order);
    free(u->of);
    free(u->needed);
    free(u->root);
    free(u->inlined);
    free(u->summand);
    free(u->direct);
    *u = (units){0};
}

iso_status iso_units_build(const iso_graph *g, const iso_plan_spec *spec, units *out, iso_error *err)
{
    size_t n = g->count;
    units u = {0};
    u.unit = iso_calloc(n, sizeof *u.unit);
    u.order = iso_calloc(n, sizeof *u.order);
    u.of = iso_calloc(n, sizeof *u.of);
    u.needed = iso_calloc(n, sizeof *u.needed);
    u.inlined = iso_calloc(n, sizeof *u.inlined);
    u.root = iso_calloc(n, sizeof *u.root);
    u.summand = iso_calloc(n, sizeof *u.summand);
    u.direct = iso_calloc((size_t)spec->assign_count, sizeof *u.direct);
    forming f = {.g = g, .spec = spec, .n = (int)n, .needed = u.needed, .inlined = u.inlined, .summand = u.summand, .root = u.root};
    int **work[] = {&f.group, &f.next, &f.tail, &f.low, &f.high, &f.seen, &f.stack, &f.products, &f.sum, &f.readers, &f.lead};
    bool ok = u.unit && u.order && u.of && u.needed && u.inlined && u.summand && u.root && u.direct;
    for (size_t i = 0; i < sizeof work / sizeof *work; i++) ok = (*work[i] = iso_calloc(n, sizeof(int))) && ok;
    iso_status st = ok ? ISO_OK : iso_fail_memory(err);
    if (st == ISO_OK) {
        for (size_t i = 0; i < n; i++) u.of[i] = -1;
        mark_needed(&f);
        if (spec->vars->backend->fused) mark_inlined(&f);
        begin_groups(&f);
        if (spec->vars->backend->products) join_products(&f);
        if (spec->vars->backend->fused) fuse(&f);
        mark_direct(&f, u.direct);
        st = order_units(&f, u.direct, &u, err);
    }
    for (size_t i = 0; i < sizeof work / sizeof *work; i++) free(*work[i]);
    free(f.edge);
    if (st == ISO_OK)
        *out = u;
    else
        iso_units_free(&u);
    return st;
}
