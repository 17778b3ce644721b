/* graph.c: the list of nodes: shapes, interning, sources. The ops' builders and rules are in op_*.c. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/graph/internal.h"

const op_row iso_op_table[ISO_OP_COUNT] = {
#define ISO_OP(NAME, name, inputs, kind) \
    {#name, inputs, KIND_##kind, iso_rule_jvp_##NAME, iso_rule_vjp_##NAME, iso_rule_flops_##NAME},
#include "model/graph/ops.def"
#undef ISO_OP
};

iso_graph *iso_graph_create(void)
{
    iso_graph *g = calloc(1, sizeof *g);
    if (!g) return NULL;
    g->buckets = 1024;
    g->bucket = malloc(g->buckets * sizeof *g->bucket);
    if (!g->bucket) {
        free(g);
        return NULL;
    }
    for (size_t i = 0; i < g->buckets; i++) g->bucket[i] = ISO_NONE;
    return g;
}

void iso_graph_free(iso_graph *g)
{
    if (!g) return;
    for (size_t i = 0; i < g->count; i++) free(g->at[i].name);
    free(g->at);
    free(g->bucket);
    free(g);
}

iso_status iso_graph_check(const iso_graph *g, iso_error *err)
{
    if (g->error.status == ISO_OK) return ISO_OK;
    return iso_fail(err, g->error.status, "%s", g->error.message);
}

iso_node iso_graph_fail(iso_graph *g, const char *fmt, ...)
{
    if (g->error.status != ISO_OK) return ISO_NONE;
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    (void)iso_fail(&g->error, ISO_E_ARGUMENT, "%s", text);
    return ISO_NONE;
}

/* --- shapes */

static iso_shape shape_of(int ndim, int64_t a, int64_t b, int64_t c, int64_t d)
{
    return (iso_shape){.ndim = ndim, .dim = {a, b, c, d}};
}
iso_shape iso_shape0(void) { return shape_of(0, 0, 0, 0, 0); }
iso_shape iso_shape1(int64_t a) { return shape_of(1, a, 0, 0, 0); }
iso_shape iso_shape2(int64_t a, int64_t b) { return shape_of(2, a, b, 0, 0); }
iso_shape iso_shape3(int64_t a, int64_t b, int64_t c) { return shape_of(3, a, b, c, 0); }
iso_shape iso_shape4(int64_t a, int64_t b, int64_t c, int64_t d) { return shape_of(4, a, b, c, d); }

int64_t iso_shape_count(const iso_shape *s)
{
    int64_t n = 1;
    for (int i = 0; i < s->ndim; i++) n *= s->dim[i];
    return n;
}

bool iso_shape_equal(const iso_shape *a, const iso_shape *b)
{
    if (a->ndim != b->ndim) return false;
    for (int i = 0; i < a->ndim; i++)
        if (a->dim[i] != b->dim[i]) return false;
    return true;
}

const char *iso_shape_text(const iso_shape *s, char buf[96])
{
    int at = 0;
    buf[at++] = '[';
    for (int i = 0; i < s->ndim; i++) at += snprintf(buf + at, 96 - (size_t)at, "%s%" PRId64, i ? ", " : "", s->dim[i]);
    snprintf(buf + at, 96 - (size_t)at, "]");
    return buf;
}

bool iso_shape_fits(const iso_shape *from, const iso_shape *to)
{
    if (from->ndim > to->ndim) return false;
    for (int i = 1; i <= from->ndim; i++) {
        int64_t f = from->dim[from->ndim - i];
        if (f != 1 && f != to->dim[to->ndim - i]) return false;
    }
    return true;
}

bool iso_shape_broadcast(const iso_shape *a, const iso_shape *b, iso_shape *out)
{
    const iso_shape *l = a->ndim >= b->ndim ? a : b, *s = l == a ? b : a;
    *out = *l;
    for (int i = 1; i <= s->ndim; i++) {
        int64_t x = l->dim[l->ndim - i], y = s->dim[s->ndim - i];
        if (x != y && x != 1 && y != 1) return false;
        out->dim[l->ndim - i] = x == 1 ? y : x;
    }
    return true;
}

void iso_shape_strides(const iso_shape *from, const iso_shape *to, int64_t stride[ISO_MAX_DIMS])
{
    int64_t step = 1;
    for (int i = 0; i < ISO_MAX_DIMS; i++) stride[i] = 0;
    for (int i = 1; i <= from->ndim; i++) {
        int64_t f = from->dim[from->ndim - i];
        if (f != 1) stride[to->ndim - i] = step;
        step *= f;
    }
}

/* --- nodes */

iso_shape iso_node_shape(const iso_graph *g, iso_node n) { return n == ISO_NONE ? iso_shape0() : g->at[n].shape; }
iso_op iso_node_op(const iso_graph *g, iso_node n) { return n == ISO_NONE ? ISO_OP_CONST : g->at[n].op; }
const char *iso_node_name(const iso_graph *g, iso_node n) { return n == ISO_NONE ? NULL : g->at[n].name; }
int iso_graph_size(const iso_graph *g) { return (int)g->count; }
const char *iso_op_name(iso_op op) { return iso_op_table[op].name; }
bool iso_op_elementwise(iso_op op) { return iso_op_table[op].kind == KIND_E; }
double iso_op_flops(iso_op op, const iso_call *call) { return iso_op_table[op].flops(call); }

bool iso_node_constant(const iso_graph *g, iso_node n, double *value)
{
    if (n == ISO_NONE || g->at[n].op != ISO_OP_CONST) return false;
    *value = g->at[n].attr.f;
    return true;
}

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9E3779B97F4A7C15ull;
    return h ^ (h >> 29);
}

static uint64_t hash_node(const node *n)
{
    uint64_t h = mix((uint64_t)n->op, (uint64_t)n->shape.ndim), f;
    memcpy(&f, &n->attr.f, sizeof f);
    for (int i = 0; i < n->shape.ndim; i++) h = mix(h, (uint64_t)n->shape.dim[i]);
    for (int i = 0; i < ISO_MAX_INPUTS; i++) h = mix(h, (uint64_t)(uint32_t)n->in[i]);
    for (int i = 0; i < 4; i++) h = mix(h, (uint64_t)n->attr.i[i]);
    h = mix(h, f);
    for (const char *c = n->name; c && *c; c++) h = mix(h, (unsigned char)*c);
    return h;
}

static bool same_node(const node *a, const node *b)
{
    return a->op == b->op && a->dtype == b->dtype && iso_shape_equal(&a->shape, &b->shape) &&
           !memcmp(a->in, b->in, sizeof a->in) && !memcmp(a->attr.i, b->attr.i, sizeof a->attr.i) &&
           !memcmp(&a->attr.f, &b->attr.f, sizeof a->attr.f) &&
           (a->name == b->name || (a->name && b->name && !strcmp(a->name, b->name)));
}

static void rehash(iso_graph *g)
{
    size_t more = g->buckets * 4;
    iso_node *bucket = malloc(more * sizeof *bucket);
    if (!bucket) return; /* longer chains, nothing worse */
    for (size_t i = 0; i < more; i++) bucket[i] = ISO_NONE;
    for (size_t i = 0; i < g->count; i++) {
        size_t b = hash_node(&g->at[i]) & (more - 1);
        g->at[i].next = bucket[b];
        bucket[b] = (iso_node)i;
    }
    free(g->bucket);
    g->bucket = bucket;
    g->buckets = more;
}

iso_node iso_graph_intern(iso_graph *g, iso_op op, iso_dtype dtype, iso_node a, iso_node b, const iso_shape *shape,
                          const iso_attr *attr, const char *name)
{
    if (g->error.status != ISO_OK) return ISO_NONE;
    node n = {.op = op, .dtype = dtype, .in = {a, b}, .shape = *shape, .name = (char *)name};
    if (attr) n.attr = *attr;
    size_t bucket = hash_node(&n) & (g->buckets - 1);
    for (iso_node i = g->bucket[bucket]; i != ISO_NONE; i = g->at[i].next)
        if (same_node(&g->at[i], &n)) return i;
    if (!iso_grow(&g->at, &g->capacity, g->count + 1, sizeof *g->at) || (name && !(n.name = strdup(name)))) {
        (void)iso_fail_memory(&g->error);
        return ISO_NONE;
    }
    n.next = g->bucket[bucket];
    g->at[g->count] = n;
    g->bucket[bucket] = (iso_node)g->count++;
    if (g->count > 2 * g->buckets) rehash(g);
    return (iso_node)g->count - 1;
}

/* --- sources */

iso_node iso_graph_source(iso_graph *g, iso_op op, iso_dtype dtype, const char *name, iso_shape shape, const iso_attr *attr)
{
    const iso_attr none = {.f = 0};
    char a[96], b[96];
    if (!attr) attr = &none;
    for (int i = 0; i < shape.ndim; i++)
        if (shape.dim[i] < 1)
            return iso_graph_fail(g, "%s \"%s\": shape %s has an empty axis", iso_op_name(op), name,
                                  iso_shape_text(&shape, a));
    for (size_t i = 0; i < g->count; i++) {
        const node *n = &g->at[i];
        if (!n->name || strcmp(n->name, name)) continue;
        if (n->op != op || n->dtype != dtype || !iso_shape_equal(&n->shape, &shape))
            return iso_graph_fail(g, "\"%s\" is a %s of shape %s already, not a %s of shape %s", name,
                                  iso_op_name(n->op), iso_shape_text(&n->shape, a), iso_op_name(op),
                                  iso_shape_text(&shape, b));
        if (memcmp(n->attr.i, attr->i, sizeof attr->i)) return iso_graph_fail(g, "\"%s\" is a state with its axes in another order already", name);
        return (iso_node)i;
    }
    return iso_graph_intern(g, op, dtype, ISO_NONE, ISO_NONE, &shape, attr, name);
}

iso_node iso_input(iso_graph *g, const char *name, iso_shape shape)
{
    return iso_graph_source(g, ISO_OP_INPUT, ISO_REAL, name, shape, NULL);
}
iso_node iso_state(iso_graph *g, const char *name, iso_shape shape)
{
    return iso_graph_source(g, ISO_OP_STATE, ISO_REAL, name, shape, NULL);
}
iso_node iso_input_index(iso_graph *g, const char *name, int64_t count)
{
    return iso_graph_source(g, ISO_OP_INPUT, ISO_INDEX, name, iso_shape1(count), NULL);
}

iso_node iso_const(iso_graph *g, double value, iso_shape shape)
{
    if (value == 0) value = 0; /* one zero, not two */
    return iso_graph_intern(g, ISO_OP_CONST, ISO_REAL, ISO_NONE, ISO_NONE, &shape, &(iso_attr){.f = value}, NULL);
}
iso_node iso_one(iso_graph *g) { return iso_const(g, 1, iso_shape0()); }

/* Nothing flows through a source. */
#define SOURCE(NAME) \
    iso_node iso_rule_jvp_##NAME(iso_graph *g, iso_node n, const iso_node *t) \
    { \
        (void)g, (void)n, (void)t; \
        return ISO_NONE; \
    } \
    iso_node iso_rule_vjp_##NAME(iso_graph *g, iso_node n, int w, iso_node c) \
    { \
        (void)g, (void)n, (void)w, (void)c; \
        return ISO_NONE; \
    } \
    double iso_rule_flops_##NAME(const iso_call *call) \
    { \
        (void)call; \
        return 0; \
    }
SOURCE(INPUT)
SOURCE(STATE)
SOURCE(CONST)
