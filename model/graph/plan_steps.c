/* plan_steps.c: from units with addresses to the steps of a plan: kernels, fused chains, products and their parts. */
#include <string.h>

#include "base/memory.h"
#include "model/graph/planning.h"

static const node *at(const planning *w, iso_node n) { return planning_node(w, n); }

void iso_planning_products(const planning *w, int t, iso_products *of)
{
    const unit *un = &w->u.unit[t];
    *of = (iso_products){.sum = un->sum != ISO_NONE};
    for (int i = 0; i < un->count; i++) {
        iso_node n = w->u.order[un->first + i];
        if (!planning_is_product(w, n)) continue;
        of->transpose_a = at(w, n)->attr.i[0] != 0;
        of->transpose_b = at(w, n)->attr.i[1] != 0;
        of->shape = at(w, n)->shape;
        of->a[of->count].shape = at(w, at(w, n)->in[0])->shape;
        of->b[of->count].shape = at(w, at(w, n)->in[1])->shape;
        if (w->p->arena) {
            of->a[of->count].data = planning_address(w, at(w, n)->in[0]);
            of->b[of->count].data = planning_address(w, at(w, n)->in[1]);
            iso_node value = of->sum ? un->sum : n;
            if (!of->sum || of->count == 0) of->out[of->count] = planning_address(w, value);
        }
        of->count++;
    }
}

/* The number of operand `in` among a fused step's inputs; added when new. */
static int fused_input(planning *w, iso_fused *f, const iso_shape *shape, iso_node in, iso_node *known)
{
    for (int i = 0; i < f->inputs; i++)
        if (known[i] == in) return i;
    iso_fused_input *to = w->next_input++;
    *to = (iso_fused_input){.data = planning_address(w, in), .shape = at(w, in)->shape};
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
    if (un->sum != ISO_NONE) fused_input(w, f, &f->shape, un->sum, inputs);
    if (un->lead != ISO_NONE) fused_input(w, f, &f->shape, un->lead, inputs);
    for (int i = 0; i < un->count && un->sum == ISO_NONE; i++)
        if (un->products && planning_is_product(w, order[i])) fused_input(w, f, &f->shape, order[i], inputs);
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < un->count; i++) {
            const node *n = at(w, order[i]);
            if (order[i] == un->lead) continue;
            if (un->products && (planning_is_product(w, order[i]) || w->u.summand[order[i]] || order[i] == un->sum)) continue;
            int operand[ISO_MAX_INPUTS] = {-1, -1};
            for (int k = 0; k < ISO_MAX_INPUTS; k++) {
                iso_node in = n->in[k];
                if (in == ISO_NONE) continue;
                bool mask = w->u.inlined[in];
                iso_node from = mask ? at(w, in)->in[0] : in;
                /* A view of a value of this unit has as many elements as the unit: it is that value. */
                if (w->u.of[w->u.root[from]] == t) from = w->u.root[from];
                const bool made = w->u.of[from] == t && from != un->sum && from != un->lead && !(un->products && planning_is_product(w, from));
                int value = made ? -1 : fused_input(w, f, &f->shape, from, inputs);
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
                                             .out = w->stored[order[i]] ? planning_address(w, order[i]) : NULL};
        }
    s->op = at(w, order[un->count - 1])->op;
    s->flops = (double)f->count * f->steps;
}

static void build_products(planning *w, int t, step *s)
{
    iso_products *of = s->products = w->next_products++;
    iso_planning_products(w, t, of);
    of->tail = &s->fused;
    of->prepared = iso_planning_prepared(w, t);
    s->fused.threads = 1;
    of->workspace = w->workspace[t] < 0 ? NULL : (char *)w->p->arena + w->slots[w->workspace[t]].offset;
    for (int i = 0; i < of->count; i++) {
        const iso_call c = {.attr.i = {of->transpose_a, of->transpose_b}, .in = {of->a[i], of->b[i]}, .out.shape = of->shape};
        const double flops = iso_op_flops(ISO_OP_MATMUL, &c);
        s->flops += flops;
        w->p->stats.gemm_flops += flops;
    }
}

/* How many steps a unit becomes. Large ones may be cut into slices of images; what takes long for a small step is cut into parts of its rows, so
 * that no thread waits for another's; each row is computed as it would be in the whole. */
int iso_planning_parts(const planning *w, int t)
{
    enum { ROWS = 32 }; /* at least, of a part */
    static const double part_flops = 6.5e6, lone_flops = 3.2e6, part_ops = 17e3; /* of one product, of a chain */
    const unit *un = &w->u.unit[t];
    const iso_shape *shape = &at(w, planning_lead(w, t))->shape;
    double work = 0;
    if (w->images[t]) return iso_planning_slices(w, t);
    if (!w->small[t] || !un->fused || un->lead != ISO_NONE || shape->ndim < 1) return 1;
    if (un->products) {
        iso_products of;
        iso_planning_products(w, t, &of);
        if (of.transpose_a) return 1;
        const iso_call c = {.attr.i = {of.transpose_a, of.transpose_b}, .in = {of.a[0], of.b[0]}, .out.shape = of.shape};
        work = iso_op_flops(ISO_OP_MATMUL, &c) / (w->lone[t] ? lone_flops : part_flops);
    } else {
        work = (double)iso_shape_count(shape) * un->count / part_ops;
    }
    int64_t parts = (int64_t)work;
    if (parts > shape->dim[0] / ROWS) parts = shape->dim[0] / ROWS;
    if (parts > w->p->together_threads) parts = w->p->together_threads;
    return parts < 1 ? 1 : (int)parts;
}

void iso_planning_cut_fused(planning *w, iso_fused *f, int64_t from, int64_t to)
{
    f->input = memcpy(w->next_input, f->input, (size_t)f->inputs * sizeof *f->input);
    f->step = memcpy(w->next_op, f->step, (size_t)f->steps * sizeof *f->step);
    f->shape.dim[0] = to - from;
    f->count = iso_shape_count(&f->shape);
    const int64_t length = f->count / (to - from);
    for (int i = 0; i < f->inputs; i++, w->next_input++) {
        w->next_input->data = planning_row(w, w->next_input->data, from, w->next_input->stride[0]);
        if (w->next_input->stride[0]) w->next_input->shape.dim[0] = to - from;
    }
    for (int i = 0; i < f->steps; i++, w->next_op++) w->next_op->out = planning_row(w, w->next_op->out, from, length);
}

static void cut_products(planning *w, iso_products *of, int64_t from, int64_t to)
{
    of->part_of = of->shape.dim[0];
    of->shape.dim[0] = to - from;
    for (int i = 0; i < of->count; i++) {
        of->a[i].data = planning_row(w, of->a[i].data, from, of->a[i].shape.dim[1]);
        of->a[i].shape.dim[0] = to - from;
        of->out[i] = planning_row(w, of->out[i], from, of->shape.dim[1]);
    }
}

/* Rows from ... to-1 of a step of products or of a chain. */
static void cut_rows(planning *w, const step *whole, int64_t from, int64_t to, step *part)
{
    *part = *whole;
    part->flops = whole->flops * (double)(to - from) / (double)whole->fused.shape.dim[0];
    iso_planning_cut_fused(w, &part->fused, from, to);
    if (!whole->products) return;
    part->products = w->next_products++;
    *part->products = *whole->products;
    cut_products(w, part->products, from, to);
    part->products->tail = &part->fused;
}

/* Returns the steps it became. */
static int cut(planning *w, int parts, step *s)
{
    enum { ROUND = 4 };
    const step whole = *s;
    const int64_t rows = whole.fused.shape.dim[0], round = (int64_t)parts * ROUND, each = (rows + round - 1) / round * ROUND; /* at most `parts` of them */
    int count = 0;
    for (int64_t from = 0; from < rows; from += each)
        cut_rows(w, &whole, from, from + each < rows ? from + each : rows, &s[count++]);
    return count;
}

static iso_status allocate_steps(planning *w, iso_error *err)
{
    iso_plan *p = w->p;
    size_t steps = 0, products = 0, operands = 0, ops = 0, along = 0;
    for (int t = 0; t < w->u.unit_count; t++) {
        const unit *un = &w->u.unit[t];
        const size_t parts = (size_t)iso_planning_parts(w, t), written = parts > 1 ? parts + 1 : 1, nodes = (size_t)un->count;
        steps += parts + (w->weights_of[t] >= 0);
        products += un->products ? written : 0;
        along += w->along[t] >= 0 ? parts : 0;
        operands += written * nodes * ISO_MAX_INPUTS;
        ops += written * nodes * 3; /* a node, and the masks it reads */
    }
    p->step = iso_calloc(steps, sizeof *p->step);
    p->products = w->next_products = iso_calloc(products, sizeof *p->products);
    p->inputs = w->next_input = iso_calloc(operands, sizeof *p->inputs);
    p->ops = w->next_op = iso_calloc(ops, sizeof *p->ops);
    p->along = w->next_along = iso_calloc(along, sizeof *p->along);
    return p->step && p->products && p->inputs && p->ops && p->along ? ISO_OK : iso_fail_memory(err);
}

static iso_status build_call(planning *w, int t, step *s, iso_error *err)
{
    iso_plan *p = w->p;
    const iso_node n = planning_lead(w, t);
    const iso_fused *tail = s->call.tail;
    planning_placed_call(w, n, &s->call);
    s->call.tail = tail;
    s->call.prepared = iso_planning_prepared(w, t);
    s->op = at(w, n)->op;
    s->kernel = p->backend->kernel[s->op];
    if (!s->kernel) return iso_fail(err, ISO_E_UNSUPPORTED, "the %s backend has no %s", p->backend->name, iso_op_name(s->op));
    s->call.workspace = w->workspace[t] < 0 ? NULL : (char *)p->arena + w->slots[w->workspace[t]].offset;
    if (w->small[t]) s->call.threads = 1;
    const double flops = iso_op_flops(s->op, &s->call);
    if (s->op == ISO_OP_MATMUL || s->op == ISO_OP_CONV || s->op == ISO_OP_CONV_X || s->op == ISO_OP_CONV_W) p->stats.gemm_flops += flops;
    s->flops += flops;
    return ISO_OK;
}

static iso_status add_unit(planning *w, int t, iso_error *err)
{
    iso_plan *p = w->p;
    const prepared_weights *weights = w->weights_of[t] < 0 ? NULL : &w->weights[w->weights_of[t]];
    if (weights && weights->first == t && !weights->once) iso_planning_prepare(w, weights, &p->step[p->step_count++]);
    step *s = &p->step[p->step_count++];
    s->once = w->once[t];
    if (w->u.unit[t].fused && p->backend->fused) {
        build_fused(w, t, s);
        if (w->small[t]) s->fused.threads = 1;
        if (w->u.unit[t].products) build_products(w, t, s);
        p->stats.fused += s->fused.steps > 0;
        if (w->u.unit[t].lead != ISO_NONE) s->call.tail = &s->fused;
    }
    if (!w->u.unit[t].fused || !p->backend->fused || s->call.tail) {
        iso_status st = build_call(w, t, s, err);
        if (st != ISO_OK) return st;
    }
    p->stats.flops += s->flops;
    s->small = w->small[t];
    const int parts = iso_planning_parts(w, t);
    if (w->images[t]) p->step_count += iso_planning_cut(w, t, s) - 1;
    else if (parts > 1) p->step_count += cut(w, parts, s) - 1;
    return ISO_OK;
}

iso_status iso_planning_steps(planning *w, iso_error *err)
{
    iso_plan *p = w->p;
    iso_status st = allocate_steps(w, err);
    /* What the first run alone computes comes first: it would cut runs of small steps. */
    for (int t = 0; t < w->u.unit_count && st == ISO_OK; t++)
        if (w->once[t]) st = add_unit(w, t, err);
    for (int i = 0; i < w->weights_count && st == ISO_OK; i++)
        if (w->weights[i].once && w->weights[i].first >= 0) iso_planning_prepare(w, &w->weights[i], &p->step[p->step_count++]);
    for (int t = 0; t < w->u.unit_count && st == ISO_OK; t++)
        if (!w->once[t]) st = add_unit(w, t, err);
    if (st != ISO_OK) return st;
    p->stats.steps = p->step_count;
    if (w->together >= 0) p->together_workspace = (char *)p->arena + w->slots[w->together].offset;
    for (int i = 0; i < w->spec->assign_count; i++) {
        const iso_assign *a = &w->spec->assigns[i];
        if (!w->u.direct[i])
            p->copy[p->copy_count++] = (copy){planning_address(w, a->value), w->outside[a->state], planning_bytes(w, a->state)};
    }
    return ISO_OK;
}
