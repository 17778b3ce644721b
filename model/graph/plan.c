/* plan.c: from units to steps with addresses: lifetimes, the arena, running. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <omp.h>

#include "base/memory.h"
#include "base/progress.h"
#include "model/graph/plan_internal.h"

typedef struct step {
    iso_op op;
    iso_kernel kernel; /* NULL: fused */
    iso_call call;
    iso_fused fused;
    double flops, seconds;
} step;

typedef struct copy { /* state <- value, after everything else */
    const void *from;
    void *to;
    size_t bytes;
} copy;

/* What the plan must still know of a node. */
typedef struct place {
    void *data;                /* NULL: the plan does not have it */
    int64_t count, rows_limit; /* rows_limit: indices must be smaller */
    iso_op op;
    iso_dtype dtype;
    bool output;
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
    void *arena;
    iso_plan_stats stats;
    int64_t runs;
    bool profile;
};

/* While planning. */
typedef struct planning {
    const iso_graph *g;
    const iso_plan_spec *spec;
    units u;
    iso_plan *p;
    int *last;      /* [nodes] the last unit that reads a root's bytes */
    bool *stored;   /* [nodes] roots that need bytes */
    bool *full;     /* [nodes] constants that a kernel reads as a tensor */
    int *slot_of;   /* [nodes] of a root; -1: none */
    void **outside; /* [nodes] bytes that are not in the arena: states */
    slot *slots;
    int slot_count;
    int *workspace; /* [units] slot or -1 */
    iso_fused_input *next_input;
    iso_fused_step *next_op;
} planning;

static const node *at(const planning *w, iso_node n) { return &w->g->at[n]; }
static size_t bytes_of(const planning *w, iso_node n)
{
    size_t each = at(w, n)->dtype == ISO_INDEX ? sizeof(int64_t) : w->p->backend->real_size;
    return (size_t)iso_shape_count(&at(w, n)->shape) * each;
}

/* The node whose bytes a unit reads for operand `in`: masks are computed in place, so what they read counts. */
static iso_node read_root(const planning *w, iso_node in)
{
    in = w->u.root[in];
    return w->u.inlined[in] ? w->u.root[at(w, in)->in[0]] : in;
}

/* --- lifetimes */

static void mark_uses(planning *w)
{
    const units *u = &w->u;
    int end = u->unit_count;
    for (int t = 0; t < u->unit_count; t++)
        for (int i = 0; i < u->unit[t].count; i++) {
            iso_node n = u->order[u->unit[t].first + i];
            if (!u->unit[t].fused) w->stored[n] = true;
            for (int k = 0; k < ISO_MAX_INPUTS; k++) {
                if (at(w, n)->in[k] == ISO_NONE) continue;
                iso_node r = read_root(w, at(w, n)->in[k]);
                if (u->of[r] != t || at(w, r)->op == ISO_OP_CONST) w->stored[r] = true;
                if (t > w->last[r]) w->last[r] = t;
                if (!(u->unit[t].fused && w->p->backend->fused) && at(w, r)->op == ISO_OP_CONST) w->full[r] = true;
            }
        }
    for (int i = 0; i < w->spec->output_count; i++) {
        iso_node r = u->root[w->spec->outputs[i]];
        w->stored[r] = w->full[r] = true;
        w->last[r] = end;
    }
    for (int i = 0; i < w->spec->assign_count; i++) {
        iso_node r = u->root[w->spec->assigns[i].value];
        w->stored[r] = w->full[r] = true;
        w->last[r] = end;
    }
}

static int add_slot(planning *w, size_t bytes, int from, int to)
{
    w->slots[w->slot_count] = (slot){.bytes = bytes, .from = from, .to = to};
    return w->slot_count++;
}

static iso_status place_sources(planning *w, iso_error *err)
{
    int end = w->u.unit_count;
    for (int n = 0; n < w->p->nodes; n++) {
        iso_op op = at(w, n)->op;
        if (!w->stored[n]) continue;
        if (op == ISO_OP_INPUT) w->slot_of[n] = add_slot(w, bytes_of(w, n), 0, end);
        if (op == ISO_OP_CONST)
            w->slot_of[n] = add_slot(w, w->full[n] ? bytes_of(w, n) : w->p->backend->real_size, 0, end);
        if (op != ISO_OP_STATE) continue;
        int v = iso_vars_find(w->spec->vars, at(w, n)->name);
        if (v < 0)
            return iso_fail(err, ISO_E_ARGUMENT, "the plan needs the state \"%s\", which the vars lack",
                            at(w, n)->name);
        if (!iso_shape_equal(&w->spec->vars->at[v].shape, &at(w, n)->shape))
            return iso_fail(err, ISO_E_ARGUMENT, "the state \"%s\" has another shape in the vars", at(w, n)->name);
        w->outside[n] = w->spec->vars->at[v].data;
    }
    return ISO_OK;
}

/* A dying input of unit t whose slot the value n may take over: same size, read element by element only. */
static int dying_input(const planning *w, int t, iso_node n, const bool *taken)
{
    const units *u = &w->u;
    const unit *at_t = &u->unit[t];
    for (int i = 0; i < at_t->count; i++)
        for (int k = 0; k < ISO_MAX_INPUTS; k++) {
            iso_node in = at(w, u->order[at_t->first + i])->in[k];
            if (in == ISO_NONE) continue;
            iso_node r = read_root(w, in);
            int s = w->slot_of[r];
            if (s < 0 || taken[s] || u->of[r] == t || u->of[r] == -1 || w->slots[s].to != t ||
                w->slots[s].bytes != bytes_of(w, n))
                continue;
            bool dense = true;
            for (int j = 0; dense && j < at_t->count; j++)
                for (int l = 0; l < ISO_MAX_INPUTS; l++) {
                    iso_node q = at(w, u->order[at_t->first + j])->in[l];
                    if (q == ISO_NONE || read_root(w, q) != r) continue;
                    if (u->inlined[q]) q = at(w, q)->in[0];
                    dense = dense && iso_shape_equal(&at(w, q)->shape, &at(w, n)->shape);
                }
            if (dense) return s;
        }
    return -1;
}

static iso_status call_of(const planning *w, iso_node n, iso_call *c)
{
    *c = (iso_call){.attr = at(w, n)->attr, .out.shape = at(w, n)->shape, .threads = w->spec->threads};
    for (int k = 0; k < ISO_MAX_INPUTS; k++)
        if (at(w, n)->in[k] != ISO_NONE) c->in[k].shape = at(w, at(w, n)->in[k])->shape;
    return ISO_OK;
}

static iso_status place_values(planning *w, iso_error *err)
{
    const units *u = &w->u;
    bool *taken = iso_calloc((size_t)w->p->nodes + (size_t)u->unit_count * 2, sizeof *taken);
    if (!taken) return iso_fail_memory(err);
    for (int i = 0; i < w->spec->assign_count; i++)
        if (u->direct[i]) w->outside[w->spec->assigns[i].value] = w->outside[w->spec->assigns[i].state];
    for (int t = 0; t < u->unit_count; t++) {
        for (int i = 0; i < u->unit[t].count; i++) {
            iso_node n = u->order[u->unit[t].first + i];
            if (!w->stored[n] || w->outside[n]) continue;
            int last = w->last[n] > t ? w->last[n] : t;
            int s = u->unit[t].fused ? dying_input(w, t, n, taken) : -1;
            if (s >= 0) {
                taken[s] = true;
                w->slots[s].to = last;
            } else
                s = add_slot(w, bytes_of(w, n), t, last);
            w->slot_of[n] = s;
            taken[s] = taken[s] || last == t;
        }
        /* A slot that was taken over in this unit may be taken over again in a later one. */
        memset(taken, 0, (size_t)w->slot_count * sizeof *taken);
        if (u->unit[t].fused || !w->p->backend->workspace) continue;
        iso_node n = u->order[u->unit[t].first];
        iso_call c;
        (void)call_of(w, n, &c);
        size_t bytes = w->p->backend->workspace(at(w, n)->op, &c);
        if (bytes) w->workspace[t] = add_slot(w, bytes, t, t);
    }
    free(taken);
    return ISO_OK;
}

/* --- addresses */

static void *address(const planning *w, iso_node n)
{
    iso_node r = w->u.root[n];
    if (w->outside[r]) return w->outside[r];
    return w->slot_of[r] < 0 ? NULL : (char *)w->p->arena + w->slots[w->slot_of[r]].offset;
}

static void fill_constants(planning *w)
{
    const iso_backend *b = w->p->backend;
    for (int n = 0; n < w->p->nodes; n++) {
        if (at(w, n)->op != ISO_OP_CONST || w->slot_of[n] < 0) continue;
        int64_t count = w->full[n] ? iso_shape_count(&at(w, n)->shape) : 1;
        char *to = address(w, n);
        double d = at(w, n)->attr.f;
        float f = (float)d;
        const void *value = b->real_size == sizeof d ? (const void *)&d : &f;
        for (int64_t i = 0; i < count; i++, to += b->real_size) {
            if (b->put)
                b->put(to, value, b->real_size);
            else
                memcpy(to, value, b->real_size);
        }
    }
}

/* The number of operand `in` among a fused step's inputs; added when new. */
static int fused_input(planning *w, iso_fused *f, const iso_shape *shape, iso_node in, iso_node *known)
{
    for (int i = 0; i < f->inputs; i++)
        if (known[i] == in) return i;
    iso_fused_input *to = w->next_input++;
    *to = (iso_fused_input){.data = address(w, in), .shape = at(w, in)->shape};
    if (at(w, in)->op == ISO_OP_CONST) to->shape = iso_shape0();
    iso_shape_strides(&to->shape, shape, to->stride);
    to->dense = iso_shape_count(&to->shape) == iso_shape_count(shape);
    known[f->inputs] = in;
    return f->inputs++;
}

/* Values are numbered inputs first, so the inputs of the whole unit are collected before its ops. */
static void build_fused(planning *w, int t, step *s)
{
    const unit *un = &w->u.unit[t];
    const iso_node *order = w->u.order + un->first;
    iso_node inputs[ISO_FUSED_MAX_INPUTS * 2], values[ISO_FUSED_MAX_STEPS * 2];
    iso_fused *f = &s->fused;
    *f = (iso_fused){
        .shape = at(w, order[0])->shape, .input = w->next_input, .step = w->next_op, .threads = w->spec->threads};
    f->count = iso_shape_count(&f->shape);
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < un->count; i++) {
            const node *n = at(w, order[i]);
            int operand[ISO_MAX_INPUTS] = {-1, -1};
            for (int k = 0; k < ISO_MAX_INPUTS; k++) {
                iso_node in = n->in[k];
                if (in == ISO_NONE) continue;
                bool mask = w->u.inlined[in];
                iso_node from = mask ? at(w, in)->in[0] : in;
                /* A view of a value of this unit has as many elements as the unit: it is that value. */
                if (w->u.of[w->u.root[from]] == t) from = w->u.root[from];
                int value = w->u.of[from] == t ? -1 : fused_input(w, f, &f->shape, from, inputs);
                if (pass == 0) continue;
                for (int v = 0; v < f->steps; v++)
                    if (values[v] == from) value = f->inputs + v;
                if (mask) {
                    int found = -1;
                    for (int v = 0; v < f->steps; v++)
                        if (values[v] == in) found = f->inputs + v;
                    if (found < 0) {
                        values[f->steps] = in;
                        found = f->inputs + f->steps++;
                        *w->next_op++ = (iso_fused_step){.op = ISO_OP_STEP, .a = value, .b = -1};
                    }
                    value = found;
                }
                operand[k] = value;
            }
            if (pass == 0) continue;
            values[f->steps++] = order[i];
            *w->next_op++ = (iso_fused_step){.op = n->op,
                                             .a = operand[0],
                                             .b = operand[1],
                                             .f = n->attr.f,
                                             .out = w->stored[order[i]] ? address(w, order[i]) : NULL};
        }
    s->op = at(w, order[un->count - 1])->op;
    s->flops = (double)f->count * f->steps;
}

static iso_status build_steps(planning *w, iso_error *err)
{
    iso_plan *p = w->p;
    for (int t = 0; t < w->u.unit_count; t++) {
        step *s = &p->step[t];
        iso_node n = w->u.order[w->u.unit[t].first];
        if (w->u.unit[t].fused && p->backend->fused) {
            build_fused(w, t, s);
            p->stats.fused++;
        } else {
            (void)call_of(w, n, &s->call);
            s->op = at(w, n)->op;
            s->kernel = p->backend->kernel[s->op];
            if (!s->kernel)
                return iso_fail(err, ISO_E_UNSUPPORTED, "the %s backend has no %s", p->backend->name,
                                iso_op_name(s->op));
            for (int k = 0; k < ISO_MAX_INPUTS; k++)
                if (at(w, n)->in[k] != ISO_NONE) s->call.in[k].data = address(w, at(w, n)->in[k]);
            s->call.out.data = address(w, n);
            s->call.workspace = w->workspace[t] < 0 ? NULL : (char *)p->arena + w->slots[w->workspace[t]].offset;
            s->flops = iso_op_flops(s->op, &s->call);
            bool product =
                s->op == ISO_OP_MATMUL || s->op == ISO_OP_CONV || s->op == ISO_OP_CONV_X || s->op == ISO_OP_CONV_W;
            if (product) p->stats.gemm_flops += s->flops;
        }
        p->stats.flops += s->flops;
    }
    p->step_count = p->stats.steps = w->u.unit_count;
    for (int i = 0; i < w->spec->assign_count; i++) {
        const iso_assign *a = &w->spec->assigns[i];
        if (!w->u.direct[i])
            p->copy[p->copy_count++] = (copy){address(w, a->value), w->outside[a->state], bytes_of(w, a->state)};
    }
    return ISO_OK;
}

/* What reading and writing need to know of each node after planning. */
static void remember(planning *w)
{
    for (int n = 0; n < w->p->nodes; n++) {
        place *to = &w->p->at[n];
        *to = (place){.count = iso_shape_count(&at(w, n)->shape),
                      .rows_limit = INT64_MAX,
                      .op = at(w, n)->op,
                      .dtype = at(w, n)->dtype};
        to->data = address(w, n);
    }
    for (int n = 0; n < w->p->nodes; n++) {
        iso_op op = at(w, n)->op;
        if (!w->u.needed[n] || (op != ISO_OP_GATHER && op != ISO_OP_SCATTER)) continue;
        int64_t rows = op == ISO_OP_GATHER ? at(w, at(w, n)->in[0])->shape.dim[0] : at(w, n)->attr.i[0];
        place *index = &w->p->at[at(w, n)->in[1]];
        if (rows < index->rows_limit) index->rows_limit = rows;
    }
    for (int i = 0; i < w->spec->output_count; i++) w->p->at[w->spec->outputs[i]].output = true;
}

/* --- create */

static iso_status check_spec(const iso_graph *g, const iso_plan_spec *s, iso_error *err)
{
    iso_status st = iso_graph_check(g, err);
    if (st != ISO_OK) return st;
    for (int i = 0; i < s->output_count; i++)
        if (s->outputs[i] < 0 || s->outputs[i] >= (int)g->count)
            return iso_fail(err, ISO_E_ARGUMENT, "output %d of the plan is no node", i);
    for (int i = 0; i < s->assign_count; i++) {
        iso_node to = s->assigns[i].state, from = s->assigns[i].value;
        bool ok = to >= 0 && to < (int)g->count && from >= 0 && from < (int)g->count && g->at[to].op == ISO_OP_STATE &&
                  iso_shape_equal(&g->at[to].shape, &g->at[from].shape);
        if (!ok)
            return iso_fail(err, ISO_E_ARGUMENT, "assignment %d of the plan is not a value to a state of its shape", i);
        iso_op op = g->at[from].op;
        if (iso_op_table[op].kind == KIND_S || iso_op_table[op].kind == KIND_V)
            return iso_fail(err, ISO_E_ARGUMENT, "assignment %d of the plan wants a computed value, not a %s", i,
                            iso_op_name(op));
        for (int k = 0; k < i; k++)
            if (s->assigns[k].state == to)
                return iso_fail(err, ISO_E_ARGUMENT, "the state \"%s\" is assigned twice", g->at[to].name);
    }
    return ISO_OK;
}

static size_t states_bytes(const planning *w)
{
    size_t sum = 0;
    for (int n = 0; n < w->p->nodes; n++)
        if (at(w, n)->op == ISO_OP_STATE && (w->outside[n])) sum += bytes_of(w, n);
    return sum;
}

static iso_status allocate(planning *w, iso_error *err)
{
    iso_plan *p = w->p;
    size_t n = (size_t)p->nodes, t = (size_t)w->u.unit_count;
    w->last = iso_calloc(n, sizeof *w->last);
    w->stored = iso_calloc(n, sizeof *w->stored);
    w->full = iso_calloc(n, sizeof *w->full);
    w->slot_of = iso_calloc(n, sizeof *w->slot_of);
    w->outside = iso_calloc(n, sizeof *w->outside);
    w->slots = iso_calloc(n + t, sizeof *w->slots);
    w->workspace = iso_calloc(t, sizeof *w->workspace);
    p->at = iso_calloc(n, sizeof *p->at);
    p->step = iso_calloc(t, sizeof *p->step);
    p->copy = iso_calloc((size_t)w->spec->assign_count, sizeof *p->copy);
    p->inputs = w->next_input = iso_calloc(2 * n, sizeof *p->inputs); /* an operand each, at most */
    p->ops = w->next_op = iso_calloc(3 * n, sizeof *p->ops);          /* a node each, and its masks */
    bool ok = w->last && w->stored && w->full && w->slot_of && w->outside && w->slots && w->workspace && p->at &&
              p->step && p->copy && p->inputs && p->ops;
    if (!ok) return iso_fail_memory(err);
    for (size_t i = 0; i < n; i++) w->last[i] = w->slot_of[i] = -1;
    for (size_t i = 0; i < t; i++) w->workspace[i] = -1;
    return ISO_OK;
}

static iso_status lay_out(planning *w, iso_error *err)
{
    iso_status st = allocate(w, err);
    if (st != ISO_OK) return st;
    mark_uses(w);
    for (int i = 0; i < w->spec->assign_count; i++) w->stored[w->spec->assigns[i].state] = true;
    if ((st = place_sources(w, err)) != ISO_OK || (st = place_values(w, err)) != ISO_OK) return st;
    int *scratch = iso_calloc(2 * (size_t)w->slot_count, sizeof *scratch);
    if (!scratch) return iso_fail_memory(err);
    w->p->stats.arena = iso_slots_place(w->slot_count, w->slots, scratch);
    free(scratch);
    w->p->stats.vars = states_bytes(w);
    w->p->arena = w->p->backend->alloc(w->p->stats.arena);
    if (!w->p->arena)
        return iso_fail(err, ISO_E_MEMORY, "out of memory: the plan needs %.2f GiB",
                        (double)w->p->stats.arena / (1 << 30));
    fill_constants(w);
    if ((st = build_steps(w, err)) != ISO_OK) return st;
    remember(w);
    return ISO_OK;
}

iso_status iso_plan_create(const iso_graph *g, const iso_plan_spec *spec, iso_plan **out, iso_error *err)
{
    iso_status st = check_spec(g, spec, err);
    if (st != ISO_OK) return st;
    iso_plan_spec own = *spec;
    if (own.threads < 1) own.threads = omp_get_max_threads();
    iso_plan *p = calloc(1, sizeof *p);
    if (!p) return iso_fail_memory(err);
    p->vars = own.vars;
    p->backend = own.vars->backend;
    p->nodes = (int)g->count;
    p->profile = getenv("ISO_PLAN_PROFILE") != NULL;
    planning w = {.g = g, .spec = &own, .p = p};
    st = iso_units_build(g, &own, &w.u, err);
    if (st == ISO_OK) {
        for (int n = 0; n < p->nodes; n++) p->stats.nodes += w.u.needed[n];
        st = lay_out(&w, err);
    }
    iso_units_free(&w.u);
    free(w.last);
    free(w.stored);
    free(w.full);
    free(w.slot_of);
    free(w.outside);
    free(w.slots);
    free(w.workspace);
    if (st == ISO_OK)
        *out = p;
    else
        iso_plan_free(p);
    return st;
}

void iso_plan_free(iso_plan *p)
{
    if (!p) return;
    if (p->arena) p->backend->release(p->arena, p->stats.arena);
    free(p->at);
    free(p->step);
    free(p->copy);
    free(p->inputs);
    free(p->ops);
    free(p);
}

/* --- run, write, read */

void iso_plan_run(iso_plan *p)
{
    for (int i = 0; i < p->step_count; i++) {
        step *s = &p->step[i];
        double started = p->profile ? iso_now() : 0;
        if (s->kernel)
            s->kernel(&s->call);
        else
            p->backend->fused(&s->fused);
        if (p->profile) s->seconds += iso_now() - started;
    }
    for (int i = 0; i < p->copy_count; i++) memcpy(p->copy[i].to, p->copy[i].from, p->copy[i].bytes);
    p->runs++;
}

static iso_status find_place(const iso_plan *p, iso_node n, int64_t count, bool input, iso_dtype dtype,
                             const place **out, iso_error *err)
{
    if (n < 0 || n >= p->nodes) return iso_fail(err, ISO_E_ARGUMENT, "node %d is not in the plan", n);
    const place *at_n = &p->at[n];
    if (input ? at_n->op != ISO_OP_INPUT : !at_n->output)
        return iso_fail(err, ISO_E_ARGUMENT, "node %d (%s) is no %s of the plan", n, iso_op_name(at_n->op),
                        input ? "input" : "output");
    if (at_n->dtype != dtype)
        return iso_fail(err, ISO_E_ARGUMENT, "node %d is %s index", n, dtype == ISO_INDEX ? "no" : "an");
    if (at_n->count != count)
        return iso_fail(err, ISO_E_ARGUMENT, "node %d has %lld elements, not %lld", n, (long long)at_n->count,
                        (long long)count);
    *out = at_n;
    return ISO_OK;
}

static iso_status write_real(iso_plan *p, iso_node n, const void *data, bool is_double, int64_t count, iso_error *err)
{
    const place *to = NULL;
    iso_status st = find_place(p, n, count, true, ISO_REAL, &to, err);
    if (st != ISO_OK || !to->data) return st;
    return iso_real_put(p->backend, to->data, data, is_double, count, err);
}

iso_status iso_plan_write(iso_plan *p, iso_node n, const float *data, int64_t count, iso_error *err)
{
    return write_real(p, n, data, false, count, err);
}
iso_status iso_plan_write_f64(iso_plan *p, iso_node n, const double *data, int64_t count, iso_error *err)
{
    return write_real(p, n, data, true, count, err);
}

iso_status iso_plan_write_index(iso_plan *p, iso_node n, const int64_t *data, int64_t count, iso_error *err)
{
    const place *to = NULL;
    iso_status st = find_place(p, n, count, true, ISO_INDEX, &to, err);
    if (st != ISO_OK || !to->data) return st;
    for (int64_t i = 0; i < count; i++)
        if (data[i] < 0 || data[i] >= to->rows_limit)
            return iso_fail(err, ISO_E_ARGUMENT, "index %lld is outside [0, %lld)", (long long)data[i],
                            (long long)to->rows_limit);
    if (p->backend->put)
        p->backend->put(to->data, data, (size_t)count * sizeof *data);
    else
        memcpy(to->data, data, (size_t)count * sizeof *data);
    return ISO_OK;
}

iso_status iso_plan_read(const iso_plan *p, iso_node n, float *data, int64_t count, iso_error *err)
{
    const place *from = NULL;
    iso_status st = find_place(p, n, count, false, ISO_REAL, &from, err);
    return st != ISO_OK ? st : iso_real_get(p->backend, data, from->data, false, count, err);
}
iso_status iso_plan_read_f64(const iso_plan *p, iso_node n, double *data, int64_t count, iso_error *err)
{
    const place *from = NULL;
    iso_status st = find_place(p, n, count, false, ISO_REAL, &from, err);
    return st != ISO_OK ? st : iso_real_get(p->backend, data, from->data, true, count, err);
}

iso_plan_stats iso_plan_describe(const iso_plan *p) { return p->stats; }

void iso_plan_profile(const iso_plan *p)
{
    double seconds[ISO_OP_COUNT + 1] = {0}, flops[ISO_OP_COUNT + 1] = {0}, sum = 0;
    int calls[ISO_OP_COUNT + 1] = {0};
    if (!p->profile || !p->runs) return;
    for (int i = 0; i < p->step_count; i++) {
        int row = p->step[i].kernel ? (int)p->step[i].op : ISO_OP_COUNT;
        seconds[row] += p->step[i].seconds;
        flops[row] += p->step[i].flops;
        calls[row]++;
        sum += p->step[i].seconds;
    }
    fprintf(stderr, "%-10s %6s %10s %6s %10s   (a run, of %lld)\n", "op", "calls", "seconds", "share", "GFLOP/s",
            (long long)p->runs);
    for (int i = 0; i <= ISO_OP_COUNT; i++) {
        double each = seconds[i] / (double)p->runs;
        if (calls[i])
            fprintf(stderr, "%-10s %6d %10.4f %5.1f%% %10.1f\n", i < ISO_OP_COUNT ? iso_op_name((iso_op)i) : "fused",
                    calls[i], each, 100 * seconds[i] / sum, flops[i] / each * 1e-9);
    }
}
