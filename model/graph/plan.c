/* plan.c: from units to steps with addresses: lifetimes and the arena. */
#include <stdlib.h>
#include <string.h>

#include <omp.h>

#include "base/memory.h"
#include "model/graph/planning.h"

static const node *at(const planning *w, iso_node n) { return planning_node(w, n); }

/* The node whose bytes a unit reads for operand `in`: masks are computed in place, so what they read counts. */
static iso_node read_root(const planning *w, iso_node in)
{
    in = w->u.root[in];
    return w->u.inlined[in] ? w->u.root[at(w, in)->in[0]] : in;
}

/* --- lifetimes */

/* The units that read nothing but states that do not change: what they compute stays to the end. */
static iso_status mark_once(planning *w, iso_error *err)
{
    if (!w->spec->frozen) return ISO_OK;
    bool *fixed = w->fixed = iso_calloc((size_t)w->p->nodes, sizeof *fixed), *assigned = iso_calloc((size_t)w->p->nodes, sizeof *assigned);
    if (!fixed || !assigned) {
        free(assigned);
        return iso_fail_memory(err);
    }
    for (int i = 0; i < w->spec->assign_count; i++) assigned[w->spec->assigns[i].state] = true;
    for (int n = 0; n < w->p->nodes; n++) {
        fixed[n] = at(w, n)->op != ISO_OP_INPUT && !assigned[n];
        for (int k = 0; k < ISO_MAX_INPUTS; k++)
            if (at(w, n)->in[k] != ISO_NONE) fixed[n] = fixed[n] && fixed[at(w, n)->in[k]];
    }
    free(assigned);
    for (int t = 0; t < w->u.unit_count; t++) {
        const unit *un = &w->u.unit[t];
        w->once[t] = true;
        for (int i = 0; i < un->count; i++) w->once[t] = w->once[t] && fixed[w->u.order[un->first + i]];
        for (int i = 0; w->once[t] && i < un->count; i++) w->last[w->u.order[un->first + i]] = w->u.unit_count;
    }
    return ISO_OK;
}

static void mark_uses(planning *w)
{
    const units *u = &w->u;
    int end = u->unit_count;
    for (int t = 0; t < u->unit_count; t++)
        for (int i = 0; i < u->unit[t].count; i++) {
            iso_node n = u->order[u->unit[t].first + i];
            if (!u->unit[t].fused || n == u->unit[t].lead) w->stored[n] = true;
            for (int k = 0; k < ISO_MAX_INPUTS; k++) {
                if (at(w, n)->in[k] == ISO_NONE) continue;
                iso_node r = read_root(w, at(w, n)->in[k]);
                if (u->of[r] != t || at(w, r)->op == ISO_OP_CONST) w->stored[r] = true;
                if (t > w->last[r]) w->last[r] = t;
                const bool whole = !u->unit[t].fused || !w->p->backend->fused || planning_comes_first(w, t, n);
                if (whole && at(w, r)->op == ISO_OP_CONST) w->full[r] = true;
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

/* A device's kernels want addresses rounder than the arena's 64 bytes: where all sizes are, all offsets are. */
static size_t slot_bytes(const planning *w, size_t bytes)
{
    enum { ROUND = 256 };
    return w->p->backend->device ? (bytes + ROUND - 1) / ROUND * ROUND : bytes;
}

static int add_slot(planning *w, size_t bytes, int from, int to)
{
    w->slots[w->slot_count] = (slot){.bytes = slot_bytes(w, bytes), .from = from, .to = to};
    return w->slot_count++;
}

static iso_status place_sources(planning *w, iso_error *err)
{
    int end = w->u.unit_count;
    for (int n = 0; n < w->p->nodes; n++) {
        iso_op op = at(w, n)->op;
        if (!w->stored[n]) continue;
        if (op == ISO_OP_INPUT) w->slot_of[n] = add_slot(w, planning_bytes(w, n), 0, end);
        if (op == ISO_OP_CONST)
            w->slot_of[n] = add_slot(w, w->full[n] ? planning_bytes(w, n) : w->p->backend->real_size, 0, end);
        if (op != ISO_OP_STATE) continue;
        int v = iso_vars_find(w->spec->vars, at(w, n)->name);
        if (w->measure) {
            w->outside[n] = w; /* any place: it is not in the arena */
            continue;
        }
        if (v < 0)
            return iso_fail(err, ISO_E_ARGUMENT, "the plan needs the state \"%s\", which the vars lack",
                            at(w, n)->name);
        if (!iso_var_fits(&w->spec->vars->at[v], w->g, n))
            return iso_fail(err, ISO_E_ARGUMENT, "the state \"%s\" has another shape in the vars, or its axes in another order", at(w, n)->name);
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
                w->slots[s].bytes != slot_bytes(w, planning_bytes(w, n)))
                continue;
            bool dense = true;
            for (int j = 0; dense && j < at_t->count; j++)
                for (int l = 0; l < ISO_MAX_INPUTS; l++) {
                    iso_node q = at(w, u->order[at_t->first + j])->in[l];
                    if (q == ISO_NONE || read_root(w, q) != r) continue;
                    if (u->inlined[q]) q = at(w, q)->in[0];
                    dense = dense && !planning_comes_first(w, t, u->order[at_t->first + j]) && iso_shape_equal(&at(w, q)->shape, &at(w, n)->shape);
                }
            if (dense) return s;
        }
    return -1;
}

/* Tensors that a chain reads or writes, at most. */
static int operands_of(const planning *w, int t)
{
    const unit *un = &w->u.unit[t];
    int count = 0;
    for (int i = 0; i < un->count; i++) {
        const iso_node n = w->u.order[un->first + i];
        count += w->stored[n];
        for (int k = 0; k < ISO_MAX_INPUTS; k++)
            if (at(w, n)->in[k] != ISO_NONE) count += w->u.of[read_root(w, at(w, n)->in[k])] != t;
    }
    return count;
}

/* Units that one thread will do. */
static void mark_small(planning *w)
{
    if (w->p->backend->device || (w->spec->threads < 2 && !w->sliced)) return;
    for (int t = 0; t < w->u.unit_count; t++) {
        const unit *un = &w->u.unit[t];
        iso_node n = planning_lead(w, t);
        iso_call c;
        if (w->once[t] || w->images[t]) continue;
        if (un->products) {
            w->small[t] = true;
            continue;
        }
        planning_call(w, n, &c);
        const bool chain = un->fused && un->lead == ISO_NONE && w->p->backend->fused;
        w->small[t] = chain ? iso_together_small_fused(iso_shape_count(&at(w, n)->shape), operands_of(w, t)) : iso_together_small(at(w, n)->op, &c);
    }
}

/* Products that are expected to have both, or all, threads for themselves. */
static iso_status mark_lone(planning *w, iso_error *err)
{
    int *before = iso_calloc((size_t)w->u.unit_count, sizeof *before), *count = iso_calloc((size_t)w->u.unit_count + 1, sizeof *count);
    for (int t = 0; before && count && t < w->u.unit_count; t++) {
        const unit *un = &w->u.unit[t];
        for (int i = 0; i < un->count; i++)
            for (int k = 0; k < ISO_MAX_INPUTS; k++) {
                const iso_node in = at(w, w->u.order[un->first + i])->in[k];
                const int of = in == ISO_NONE ? -1 : w->u.of[read_root(w, in)];
                if (of >= 0 && of != t && before[t] < before[of] + (w->u.unit[of].products > 0)) before[t] = before[of] + (w->u.unit[of].products > 0);
            }
        count[before[t]] += un->products > 0;
    }
    const bool ok = before && count;
    for (int t = 0; ok && t < w->u.unit_count; t++) w->lone[t] = w->u.unit[t].products && count[before[t]] == 1;
    free(before);
    free(count);
    return ok ? ISO_OK : iso_fail_memory(err);
}

static size_t workspace_bytes(const planning *w, int t, const iso_call *call)
{
    const iso_backend *b = w->p->backend;
    iso_products products;
    if (!w->u.unit[t].products) return b->workspace ? b->workspace(at(w, planning_lead(w, t))->op, call) : 0;
    iso_planning_products(w, t, &products);
    return b->products_workspace(&products);
}

/* How long to keep a small tensor that is read by unit `last` for the last time: bytes that are used again at once would make steps wait that could
 * run together. On a device steps of any size can. */
enum { SMALL_ON_DEVICE = 1 << 20 };
static int linger(const planning *w, int last)
{
    enum { LINGER = 24 };
    return last + LINGER < w->u.unit_count ? last + LINGER : last;
}

static iso_status place_values(planning *w, iso_error *err)
{
    const units *u = &w->u;
    bool *taken = iso_calloc((size_t)w->p->nodes + (size_t)u->unit_count * 2, sizeof *taken);
    if (!taken) return iso_fail_memory(err);
    for (int i = 0; i < w->spec->assign_count; i++)
        if (u->direct[i]) w->outside[w->spec->assigns[i].value] = w->outside[w->spec->assigns[i].state];
    for (int i = 0; i < w->weights_count; i++) {
        prepared_weights *of = &w->weights[i];
        if (of->first >= 0) of->slot = add_slot(w, of->bytes, of->once ? 0 : of->first, of->once ? u->unit_count : of->last);
    }
    for (int t = 0; t < u->unit_count; t++) {
        iso_node lead = u->unit[t].lead;
        const size_t sums = iso_planning_sums_bytes(w, t);
        for (int i = 0; i < u->unit[t].count; i++) {
            iso_node n = u->order[u->unit[t].first + i];
            if (!w->stored[n] || w->outside[n]) continue;
            int last = w->last[n] > t ? w->last[n] : t;
            if (w->small[t] && (!w->images[t] || sums)) last = linger(w, last);
            if (w->p->backend->device && w->p->backend->device->after && planning_bytes(w, n) <= SMALL_ON_DEVICE) last = linger(w, last);
            /* A product's result is there before the rest of its unit reads what it reads. */
            const bool early = n == lead || (u->unit[t].products && (planning_is_product(w, n) || n == u->unit[t].sum));
            int s = -1;
            if (lead != ISO_NONE && n > lead && w->last[lead] == t) { /* what only its unit reads is overwritten there */
                s = w->slot_of[lead];
                lead = ISO_NONE;
            } else if (u->unit[t].fused && !early)
                s = dying_input(w, t, n, taken);
            if (s >= 0) {
                taken[s] = true;
                w->slots[s].to = last;
            } else
                s = add_slot(w, planning_bytes(w, n), w->once[t] ? 0 : t, last);
            w->slot_of[n] = s;
            taken[s] = taken[s] || last == t;
        }
        /* A slot that was taken over in this unit may be taken over again in a later one. */
        memset(taken, 0, (size_t)w->slot_count * sizeof *taken);
        const iso_device *device = w->p->backend->device;
        iso_status st = ISO_OK;
        if (u->unit[t].fused && !u->unit[t].products && u->unit[t].lead == ISO_NONE) continue;
        iso_node n = planning_lead(w, t);
        iso_call c, along;
        if (w->small[t]) {
            for (int i = 0; iso_planning_small_call(w, t, i, &c, &along); i++) {
                const size_t each = slot_bytes(w, workspace_bytes(w, t, &c));
                if (each > w->p->together_workspace_each) w->p->together_workspace_each = each;
            }
            if (sums) w->workspace[t] = add_slot(w, sums, iso_planning_sums_from(w, t), linger(w, t));
            continue;
        }
        planning_call(w, n, &c);
        c.prepared = iso_planning_prepared(w, t);
        if (device && w->p->backend->kernel[at(w, n)->op]) st = device->prepare(at(w, n)->op, &c, err);
        if (st != ISO_OK) {
            free(taken);
            return st;
        }
        size_t bytes = workspace_bytes(w, t, &c);
        if (bytes) w->workspace[t] = add_slot(w, bytes, w->once[t] ? 0 : t, t); /* what is computed once comes first (plan_steps.c) */
    }
    free(taken);
    /* Threads' workspaces lie a page apart: none writes into a line of another's. */
    enum { PAGE = 4096, CROWD = 8, SLICERS = 32 };
    iso_plan *p = w->p;
    const int most = w->sliced ? SLICERS : CROWD;
    p->together_threads = w->spec->threads < most ? w->spec->threads : most;
    p->together_workspace_each = (p->together_workspace_each + PAGE - 1) / PAGE * PAGE;
    if (p->together_workspace_each)
        w->together = add_slot(w, (size_t)p->together_threads * p->together_workspace_each, 0, u->unit_count);
    return ISO_OK;
}

/* --- addresses */

static void fill_constants(planning *w)
{
    enum { BLOCK = 1024 };
    const iso_backend *b = w->p->backend;
    for (int n = 0; n < w->p->nodes; n++) {
        if (at(w, n)->op != ISO_OP_CONST || w->slot_of[n] < 0) continue;
        size_t count = w->full[n] ? (size_t)iso_shape_count(&at(w, n)->shape) : 1;
        char *to = planning_address(w, n);
        double d[BLOCK];
        float f[BLOCK];
        for (int i = 0; i < BLOCK; i++) f[i] = (float)(d[i] = at(w, n)->attr.f);
        const void *value = b->real_size == sizeof *d ? (const void *)d : f;
        for (size_t i = 0; i < count; i += BLOCK, to += BLOCK * b->real_size) {
            size_t bytes = (count - i < BLOCK ? count - i : BLOCK) * b->real_size;
            if (b->put)
                b->put(to, value, bytes);
            else
                memcpy(to, value, bytes);
        }
    }
}

/* What reading and writing need to know of each node after planning. */
static void remember(planning *w)
{
    for (int n = 0; n < w->p->nodes; n++) {
        place *to = &w->p->at[n];
        *to = (place){.count = iso_shape_count(&at(w, n)->shape),
                      .rows_limit = INT64_MAX,
                      .op = at(w, n)->op,
                      .dtype = at(w, n)->dtype,
                      .published = -1};
        to->data = planning_address(w, n);
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

/* What only a device needs: kernels that are made for this plan, and the place where small outputs appear. */
static iso_status prepare_device(planning *w, iso_error *err)
{
    iso_plan *p = w->p;
    const iso_device *device = p->backend->device;
    const iso_fused **fused = iso_calloc((size_t)p->step_count, sizeof *fused);
    if (!fused) return iso_fail_memory(err);
    int count = 0, reals = 0;
    for (int i = 0; i < p->step_count; i++)
        if (!p->step[i].kernel) fused[count++] = &p->step[i].fused;
    iso_status st = device->prepare_fused(count, fused, err);
    free(fused);
    for (int n = 0; n < p->nodes; n++) {
        place *of = &p->at[n];
        if (!of->output || of->dtype != ISO_REAL || of->count > ISO_PUBLISH_REALS || p->publish_count == ISO_PUBLISH_TENSORS)
            continue;
        p->publish_from[p->publish_count] = of->data;
        p->publish_reals[p->publish_count++] = of->count;
        of->published = reals;
        reals += (int)of->count;
    }
    if (st == ISO_OK && reals && !(p->published = device->host_alloc((size_t)reals * sizeof *p->published)))
        st = iso_fail_backend_memory(p->backend, err);
    return st == ISO_OK ? device->runs_create(&p->device_runs, err) : st;
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
        if (at(w, n)->op == ISO_OP_STATE && (w->outside[n])) sum += planning_bytes(w, n);
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
    w->slots = iso_calloc(n + 2 * t + 1, sizeof *w->slots);
    w->workspace = iso_calloc(t, sizeof *w->workspace);
    w->small = iso_calloc(t, sizeof *w->small);
    w->lone = iso_calloc(t, sizeof *w->lone);
    w->together = -1;
    w->once = iso_calloc(t, sizeof *w->once);
    w->images = iso_calloc(t, sizeof *w->images);
    w->along = iso_calloc(t, sizeof *w->along);
    w->weights = iso_calloc(t, sizeof *w->weights);
    w->weights_of = iso_calloc(t, sizeof *w->weights_of);
    p->at = iso_calloc(n, sizeof *p->at);
    p->copy = iso_calloc((size_t)w->spec->assign_count, sizeof *p->copy);
    bool ok = w->last && w->stored && w->full && w->slot_of && w->outside && w->slots && w->workspace && w->small && w->lone && w->once && w->images && w->along && w->weights &&
              w->weights_of && p->at && p->copy;
    if (!ok) return iso_fail_memory(err);
    for (size_t i = 0; i < n; i++) w->last[i] = w->slot_of[i] = -1;
    for (size_t i = 0; i < t; i++) w->workspace[i] = w->along[i] = -1;
    return ISO_OK;
}

static iso_status lay_out(planning *w, iso_error *err)
{
    iso_status st = allocate(w, err);
    if (st != ISO_OK) return st;
    mark_uses(w);
    if ((st = mark_once(w, err)) != ISO_OK) return st;
    iso_planning_mark_slices(w);
    mark_small(w);
    if ((st = mark_lone(w, err)) != ISO_OK) return st;
    iso_planning_mark_others(w);
    iso_planning_mark_along(w);
    iso_planning_find_weights(w);
    for (int i = 0; i < w->spec->assign_count; i++) w->stored[w->spec->assigns[i].state] = true;
    if ((st = place_sources(w, err)) != ISO_OK || (st = place_values(w, err)) != ISO_OK) return st;
    int *scratch = iso_calloc(2 * (size_t)w->slot_count, sizeof *scratch);
    if (!scratch) return iso_fail_memory(err);
    w->p->stats.arena = iso_slots_place(w->slot_count, w->slots, scratch);
    free(scratch);
    w->p->stats.vars = states_bytes(w);
    if (w->measure) return ISO_OK;
    w->p->arena = w->p->backend->alloc(w->p->stats.arena);
    if (!w->p->arena) {
        st = iso_fail_backend_memory(w->p->backend, err);
        return st != ISO_E_MEMORY ? st : iso_fail(err, st, "out of memory: the plan needs %.2f GiB", (double)w->p->stats.arena / (1 << 30));
    }
    fill_constants(w);
    if ((st = iso_planning_steps(w, err)) != ISO_OK || (st = iso_together_build(w->p, err)) != ISO_OK || (st = iso_order_build(w->p, err)) != ISO_OK) return st;
    remember(w);
    return w->p->backend->device ? prepare_device(w, err) : ISO_OK;
}

static iso_status make(const iso_graph *g, const iso_plan_spec *spec, bool measure, iso_plan **out, iso_error *err)
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
    planning w = {.g = g, .spec = &own, .p = p, .measure = measure};
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
    free(w.once);
    free(w.fixed);
    free(w.images);
    free(w.along);
    free(w.weights);
    free(w.weights_of);
    free(w.small);
    free(w.lone);
    if (st == ISO_OK)
        *out = p;
    else
        iso_plan_free(p);
    return st;
}

iso_status iso_plan_create(const iso_graph *g, const iso_plan_spec *spec, iso_plan **out, iso_error *err)
{
    return make(g, spec, false, out, err);
}

iso_status iso_plan_measure(const iso_graph *g, const iso_plan_spec *spec, iso_plan_stats *out, iso_error *err)
{
    iso_plan *p = NULL;
    iso_status st = make(g, spec, true, &p, err);
    if (st != ISO_OK) return st;
    *out = p->stats;
    iso_plan_free(p);
    return ISO_OK;
}

void iso_plan_free(iso_plan *p)
{
    if (!p) return;
    if (p->backend->device) {
        if (p->device_runs) p->backend->device->runs_free(p->device_runs);
        if (p->published) p->backend->device->host_release(p->published);
    }
    if (p->arena) p->backend->release(p->arena, p->stats.arena);
    iso_together_free(p);
    free(p->at);
    free(p->step);
    free(p->copy);
    free(p->inputs);
    free(p->ops);
    free(p->products);
    free(p->along);
    free(p->before);
    free(p->before_at);
    free(p);
}
