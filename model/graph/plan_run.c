/* plan_run.c: running a plan, writing its inputs and reading its outputs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/progress.h"
#include "model/graph/plan_internal.h"

void iso_step_run(const iso_plan *p, const step *s, void *workspace, const iso_ahead *ahead)
{
    if (s->products) {
        iso_products of = *s->products;
        of.ahead = ahead;
        if (s->small) of.workspace = workspace;
        p->backend->products(&of);
    } else if (!s->kernel) {
        p->backend->fused(&s->fused);
    } else if (s->small) {
        iso_call call = s->call;
        call.workspace = workspace;
        s->kernel(&call);
    } else {
        s->kernel(&s->call);
    }
}

/* What is asked for next waits for the steps that it has to wait for; `step_count`: for all of them. */
static void after(const iso_plan *p, int step)
{
    if (p->before && !p->profile) p->backend->device->after(p->device_runs, step, p->before_at[step + 1] - p->before_at[step], p->before + p->before_at[step]);
}

/* Every kernel once. On a device this only asks for them; profiling waits for each. */
static void launch(void *plan)
{
    iso_plan *p = plan;
    const iso_device *device = p->backend->device;
    for (int i = 0; i < p->step_count; i++) {
        step *s = &p->step[i];
        if (s->once && p->runs) continue;
        double started = p->profile ? iso_now() : 0;
        int done = s->small && !p->profile ? iso_together_run(p, i) : 0;
        if (done) {
            i += done - 1;
            continue;
        }
        after(p, i);
        iso_step_run(p, s, p->together_workspace, NULL);
        if (p->profile && device) device->wait(NULL);
        if (p->profile) s->seconds += iso_now() - started;
    }
    if (p->copy_count || p->publish_count) after(p, p->step_count);
    for (int i = 0; i < p->copy_count; i++) {
        if (device)
            device->copy(p->copy[i].to, p->copy[i].from, p->copy[i].bytes);
        else
            memcpy(p->copy[i].to, p->copy[i].from, p->copy[i].bytes);
    }
    if (p->publish_count) device->publish(p->published, p->publish_count, p->publish_from, p->publish_reals);
}

void iso_plan_tell(const iso_plan *p, char *text, size_t size)
{
    const iso_device *device = p->backend->device;
    if (size) text[0] = '\0';
    if (device && device->tell) device->tell(p->device_runs, text, size);
}

void iso_plan_run(iso_plan *p)
{
    if (p->backend->device && !p->profile)
        p->backend->device->run(p->device_runs, launch, p);
    else
        launch(p);
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

static iso_status read_real(const iso_plan *p, iso_node n, void *data, bool is_double, int64_t count, iso_error *err)
{
    const place *from = NULL;
    const iso_device *device = p->backend->device;
    iso_status st = find_place(p, n, count, false, ISO_REAL, &from, err);
    if (st != ISO_OK) return st;
    if (device && from->published >= 0 && p->runs) {
        device->wait(p->profile ? NULL : p->device_runs);
        for (int64_t i = 0; i < count; i++) {
            float value = p->published[from->published + i];
            if (is_double)
                ((double *)data)[i] = value;
            else
                ((float *)data)[i] = value;
        }
        return device->check(err);
    }
    st = iso_real_get(p->backend, data, from->data, is_double, count, err);
    return st == ISO_OK && device ? device->check(err) : st;
}
iso_status iso_plan_read(const iso_plan *p, iso_node n, float *data, int64_t count, iso_error *err)
{
    return read_real(p, n, data, false, count, err);
}
iso_status iso_plan_read_f64(const iso_plan *p, iso_node n, double *data, int64_t count, iso_error *err)
{
    return read_real(p, n, data, true, count, err);
}

/* --- bytes to an input */

struct iso_bytes {
    const iso_backend *backend;
    iso_bytes_spec of;
    bool resident;
    uint8_t *data;   /* on the device: all rows, or a batch of them */
    int64_t *number; /* on the device: the rows of a batch */
    uint8_t *flag;   /* on the device: which of them are mirrored */
    uint8_t *staged; /* on the host, where not resident: the batch's rows, one behind the other */
};

static size_t bytes_held(const iso_bytes *b) { return (size_t)(b->resident ? b->of.rows : b->of.batch) * (size_t)b->of.dim; }

void iso_bytes_free(iso_bytes *b)
{
    if (!b) return;
    b->backend->release(b->data, bytes_held(b));
    b->backend->release(b->number, (size_t)b->of.batch * sizeof *b->number);
    b->backend->release(b->flag, (size_t)b->of.batch);
    free(b->staged);
    free(b);
}

bool iso_bytes_resident(const iso_bytes *b) { return b->resident; }

iso_status iso_bytes_create(const iso_backend *backend, const iso_bytes_spec *spec, iso_bytes **out, iso_error *err)
{
    const size_t batch = (size_t)spec->batch;
    iso_bytes *b = iso_calloc(1, sizeof *b);
    if (!b) return iso_fail_memory(err);
    *b = (iso_bytes){.backend = backend, .of = *spec, .resident = spec->fixed};
    /* Half of what is free: the libraries take some, and another program may too. */
    if (b->resident && bytes_held(b) <= backend->device->free_memory() / 2) b->data = backend->alloc(bytes_held(b));
    if (b->data)
        backend->put(b->data, spec->host, bytes_held(b));
    else {
        b->resident = false;
        b->data = backend->alloc(bytes_held(b));
        b->staged = iso_calloc(batch, (size_t)spec->dim);
    }
    b->number = backend->alloc(batch * sizeof *b->number);
    b->flag = backend->alloc(batch);
    if (!b->data || !b->number || !b->flag || !(b->resident || b->staged)) {
        iso_bytes_free(b);
        return iso_fail_backend_memory(backend, err);
    }
    /* A batch that was sent as a whole lies in order. */
    for (int64_t i = 0; !b->resident && i < spec->batch; i++) backend->put(b->number + i, &i, sizeof i);
    *out = b;
    return ISO_OK;
}

iso_status iso_plan_write_bytes(iso_plan *p, iso_node input, iso_bytes *b, const int64_t *rows, const uint8_t *mirror,
                                int64_t n, iso_error *err)
{
    const iso_bytes_spec *of = &b->of;
    const place *to = NULL;
    iso_status st = find_place(p, input, n * of->dim, true, ISO_REAL, &to, err);
    if (st != ISO_OK || !to->data) return st;
    if (n > of->batch || b->backend->device != p->backend->device)
        return iso_fail(err, ISO_E_INTERNAL, "bytes of another batch or backend than the plan's");
    for (int64_t i = 0; i < n; i++)
        if (rows[i] < 0 || rows[i] >= of->rows)
            return iso_fail(err, ISO_E_ARGUMENT, "row %lld is outside [0, %lld)", (long long)rows[i], (long long)of->rows);
    if (b->resident)
        b->backend->put(b->number, rows, (size_t)n * sizeof *rows);
    else {
        for (int64_t i = 0; i < n; i++) memcpy(b->staged + i * of->dim, of->host + rows[i] * of->dim, (size_t)of->dim);
        b->backend->put(b->data, b->staged, (size_t)(n * of->dim));
    }
    if (mirror) b->backend->put(b->flag, mirror, (size_t)n);
    b->backend->device->bytes(to->data, b->data, b->number, mirror ? b->flag : NULL, n, of->dim, of->width, of->depth);
    return ISO_OK;
}

iso_plan_stats iso_plan_describe(const iso_plan *p) { return p->stats; }

/* What a step is told by in the table of sizes: its op and its tensors. */
static void size_text(const step *s, char *out, size_t room)
{
    char a[96], b[96], c[96];
    if (s->kernel)
        snprintf(out, room, "%s %s %s%s%s -> %s, %d ops", iso_op_name(s->op), iso_shape_text(&s->call.in[0].shape, a),
                 s->call.in[1].data ? iso_shape_text(&s->call.in[1].shape, b) : "", s->op == ISO_OP_MATMUL && s->call.attr.i[0] ? " ta" : "",
                 s->op == ISO_OP_MATMUL && s->call.attr.i[1] ? " tb" : "", iso_shape_text(&s->call.out.shape, c), s->fused.steps);
    else if (s->products)
        snprintf(out, room, "%d products%s %s%s %s%s -> %s, %d inputs, %d ops", s->products->count, s->products->sum ? " summed" : "",
                 iso_shape_text(&s->products->a[0].shape, a), s->products->transpose_a ? " ta" : "",
                 iso_shape_text(&s->products->b[0].shape, b), s->products->transpose_b ? " tb" : "",
                 iso_shape_text(&s->products->shape, c), s->fused.inputs, s->fused.steps);
    else
        snprintf(out, room, "fused %s, %d inputs, %d ops", iso_shape_text(&s->fused.shape, a), s->fused.inputs, s->fused.steps);
}

/* Steps of the same op and sizes in one line, at the first of them. */
static void profile_sizes(const iso_plan *p, double sum)
{
    fprintf(stderr, "%6s %10s %6s %10s   op and sizes\n", "calls", "seconds", "share", "GFLOP/s");
    for (int i = 0; i < p->step_count; i++) {
        char text[400], other[400];
        int calls = 0, first = i;
        double seconds = 0, flops = 0;
        size_text(&p->step[i], text, sizeof text);
        for (int k = 0; k < p->step_count && first == i; k++) {
            size_text(&p->step[k], other, sizeof other);
            if (strcmp(text, other) != 0) continue;
            if (k < i) first = k;
            calls++;
            seconds += p->step[k].seconds / (double)p->runs;
            flops += p->step[k].flops;
        }
        if (first == i)
            fprintf(stderr, "%6d %10.5f %5.1f%% %10.1f   %s\n", calls, seconds, 100 * seconds * (double)p->runs / sum, flops / seconds * 1e-9, text);
    }
}

void iso_plan_profile(const iso_plan *p)
{
    double seconds[ISO_OP_COUNT + 1] = {0}, flops[ISO_OP_COUNT + 1] = {0}, sum = 0;
    int calls[ISO_OP_COUNT + 1] = {0};
    if (!p->profile || !p->runs) return;
    for (int i = 0; i < p->step_count; i++) {
        int row = p->step[i].products ? ISO_OP_MATMUL : p->step[i].kernel ? (int)p->step[i].op : ISO_OP_COUNT;
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
    if (atoi(getenv("ISO_PLAN_PROFILE") ? getenv("ISO_PLAN_PROFILE") : "1") > 1) profile_sizes(p, sum);
}
