/* vars.c: named persistent tensors on one backend. */
#include <stdlib.h>
#include <string.h>

#include <omp.h>

#include "base/memory.h"
#include "model/graph/plan_internal.h"

iso_status iso_vars_create(const iso_backend *backend, iso_vars **out, iso_error *err)
{
    iso_vars *v = calloc(1, sizeof *v);
    if (!v) return iso_fail_memory(err);
    v->backend = backend;
    *out = v;
    return ISO_OK;
}

void iso_vars_free(iso_vars *v)
{
    if (!v) return;
    for (size_t i = 0; i < v->count; i++) free(v->at[i].name);
    for (size_t i = 0; i < v->block_count; i++) v->backend->release(v->block[i].data, v->block[i].bytes);
    free(v->block);
    free(v->at);
    free(v);
}

iso_status iso_fail_backend_memory(const iso_backend *b, iso_error *err)
{
    const iso_status st = b->device ? b->device->check(err) : ISO_OK;
    return st == ISO_OK ? iso_fail_memory(err) : st;
}

int iso_vars_count(const iso_vars *v) { return (int)v->count; }
const char *iso_vars_name(const iso_vars *v, int i) { return v->at[i].name; }
iso_shape iso_vars_shape(const iso_vars *v, int i) { return v->at[i].shape; }

int iso_vars_find(const iso_vars *v, const char *name)
{
    for (size_t i = 0; i < v->count; i++)
        if (!strcmp(v->at[i].name, name)) return (int)i;
    return -1;
}

size_t iso_vars_bytes(const iso_vars *v)
{
    size_t sum = 0;
    for (size_t i = 0; i < v->count; i++) sum += v->at[i].bytes;
    return sum;
}

/* Of a state that is kept permuted; NULL. */
static const iso_attr *axes_of(const iso_graph *g, iso_node state) { return iso_node_permuted(&g->at[state]) ? &g->at[state].attr : NULL; }

static bool kept_by(const iso_var *v, const iso_attr *axes)
{
    return v->permuted == (axes != NULL) && (!axes || !memcmp(v->axes.i, axes->i, sizeof axes->i));
}

bool iso_var_fits(const iso_var *v, const iso_graph *g, iso_node state)
{
    const iso_shape shape = iso_state_shape(g, state);
    return iso_shape_equal(&v->shape, &shape) && kept_by(v, axes_of(g, state));
}

static iso_block *add_block(iso_vars *v, size_t bytes)
{
    if (!iso_grow(&v->block, &v->block_capacity, v->block_count + 1, sizeof *v->block)) return NULL;
    iso_block *b = &v->block[v->block_count];
    *b = (iso_block){.data = v->backend->alloc(bytes), .bytes = bytes};
    if (!b->data) return NULL;
    v->block_count++;
    return b;
}

/* Zeros; NULL when memory is out. */
static void *take_bytes(iso_vars *v, size_t bytes)
{
    enum { TOGETHER = 2 << 20, SMALL = TOGETHER / 4, ALIGNMENT = 256 };
    const size_t size = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    iso_block *b = NULL;
    for (size_t i = v->block_count; i-- > 0 && !b && size <= SMALL;)
        if (v->block[i].bytes - v->block[i].used >= size) b = &v->block[i];
    if (!b && !(b = add_block(v, size <= SMALL ? TOGETHER : size))) return NULL;
    b->used += size;
    return b->data + b->used - size;
}

/* axes: NULL where it is kept as it is. */
static iso_status add(iso_vars *v, const char *name, iso_shape shape, const iso_attr *axes, iso_error *err)
{
    char a[96], b[96];
    int known = iso_vars_find(v, name);
    if (known >= 0) {
        const iso_var *was = &v->at[known];
        if (!iso_shape_equal(&was->shape, &shape))
            return iso_fail(err, ISO_E_ARGUMENT, "\"%s\" has shape %s already, not %s", name, iso_shape_text(&was->shape, a), iso_shape_text(&shape, b));
        return kept_by(was, axes) ? ISO_OK : iso_fail(err, ISO_E_ARGUMENT, "\"%s\" is kept with its axes in another order already", name);
    }
    if (!iso_grow(&v->at, &v->capacity, v->count + 1, sizeof *v->at)) return iso_fail_memory(err);
    size_t bytes = (size_t)iso_shape_count(&shape) * v->backend->real_size;
    iso_var *at = &v->at[v->count];
    *at = (iso_var){.name = strdup(name), .shape = shape, .permuted = axes != NULL, .data = take_bytes(v, bytes), .bytes = bytes};
    if (axes) at->axes = *axes;
    if (!at->name || !at->data) {
        free(at->name);
        return iso_fail_backend_memory(v->backend, err);
    }
    v->count++;
    return ISO_OK;
}

iso_status iso_vars_add(iso_vars *v, const char *name, iso_shape shape, iso_error *err)
{
    return add(v, name, shape, NULL, err);
}

iso_status iso_vars_add_states(iso_vars *v, const iso_graph *g, int count, const iso_node *outputs, iso_error *err)
{
    iso_status st = iso_graph_check(g, err);
    if (st != ISO_OK) return st;
    bool *needed = iso_calloc(g->count, 1);
    if (!needed) return iso_fail_memory(err);
    for (int i = 0; i < count; i++)
        if (outputs[i] != ISO_NONE) needed[outputs[i]] = true;
    for (size_t n = g->count; n-- > 0;)
        for (int k = 0; needed[n] && k < ISO_MAX_INPUTS; k++)
            if (g->at[n].in[k] != ISO_NONE) needed[g->at[n].in[k]] = true;
    for (size_t n = 0; st == ISO_OK && n < g->count; n++)
        if (needed[n] && g->at[n].op == ISO_OP_STATE)
            st = add(v, g->at[n].name, iso_state_shape(g, (iso_node)n), axes_of(g, (iso_node)n), err);
    free(needed);
    return st;
}

/* --- the host's numbers and the backend's */

iso_status iso_real_put(const iso_backend *b, void *to, const void *host, bool host_double, int64_t count,
                        iso_error *err)
{
    size_t bytes = (size_t)count * b->real_size;
    void *staged = NULL;
    const void *from = host;
    if (host_double != (b->real_size == 8)) {
        staged = iso_calloc((size_t)count, b->real_size);
        if (!staged) return iso_fail_memory(err);
        for (int64_t i = 0; i < count; i++) {
            if (host_double)
                ((float *)staged)[i] = (float)((const double *)host)[i];
            else
                ((double *)staged)[i] = ((const float *)host)[i];
        }
        from = staged;
    }
    if (b->put)
        b->put(to, from, bytes);
    else
        memcpy(to, from, bytes);
    free(staged);
    return ISO_OK;
}

iso_status iso_real_get(const iso_backend *b, void *host, const void *from, bool host_double, int64_t count,
                        iso_error *err)
{
    size_t bytes = (size_t)count * b->real_size;
    bool same = host_double == (b->real_size == 8);
    void *staged = same ? NULL : iso_calloc((size_t)count, b->real_size), *to = same ? host : staged;
    if (!to) return iso_fail_memory(err);
    if (b->get)
        b->get(to, from, bytes);
    else
        memcpy(to, from, bytes);
    for (int64_t i = 0; !same && i < count; i++) {
        if (host_double)
            ((double *)host)[i] = ((float *)staged)[i];
        else
            ((float *)host)[i] = (float)((double *)staged)[i];
    }
    free(staged);
    return ISO_OK;
}

static iso_status find_var(const iso_vars *v, const char *name, int64_t count, const iso_var **out, iso_error *err)
{
    int i = iso_vars_find(v, name);
    if (i < 0) return iso_fail(err, ISO_E_NOT_FOUND, "no tensor \"%s\"", name);
    if (iso_shape_count(&v->at[i].shape) != count)
        return iso_fail(err, ISO_E_ARGUMENT, "\"%s\" has %lld elements, not %lld", name,
                        (long long)iso_shape_count(&v->at[i].shape), (long long)count);
    *out = &v->at[i];
    return ISO_OK;
}

/* --- permuted ones */

/* On the backend, by all threads: from and to lie in its memory. */
static void permute(const iso_backend *b, const void *from, const iso_shape *shape, const int64_t *axes, void *to)
{
    iso_call call = {.in[0] = {(void *)from, *shape}, .out = {to, *shape}, .threads = omp_get_max_threads()};
    for (int d = 0; d < ISO_MAX_DIMS; d++) call.attr.i[d] = axes[d];
    for (int d = 0; d < shape->ndim; d++) call.out.shape.dim[d] = shape->dim[axes[d]];
    b->kernel[ISO_OP_PERMUTE](&call);
    if (b->device) b->device->wait(NULL);
}

static bool is_host(const iso_backend *b) { return !b->put && b->real_size == sizeof(float); }

static iso_status write_permuted(const iso_backend *b, const iso_var *at, const float *data, iso_error *err)
{
    if (is_host(b)) {
        permute(b, data, &at->shape, at->axes.i, at->data);
        return ISO_OK;
    }
    void *staged = b->alloc(at->bytes);
    if (!staged) return iso_fail_backend_memory(b, err);
    const iso_status st = iso_real_put(b, staged, data, false, iso_shape_count(&at->shape), err);
    if (st == ISO_OK) permute(b, staged, &at->shape, at->axes.i, at->data);
    b->release(staged, at->bytes);
    return st;
}

static iso_status read_permuted(const iso_backend *b, const iso_var *at, float *data, iso_error *err)
{
    int64_t inverse[ISO_MAX_DIMS];
    iso_shape kept = at->shape;
    for (int d = 0; d < kept.ndim; d++) kept.dim[d] = at->shape.dim[at->axes.i[d]];
    iso_axes_inverse(at->axes.i, kept.ndim, inverse);
    if (is_host(b)) {
        permute(b, at->data, &kept, inverse, data);
        return ISO_OK;
    }
    void *staged = b->alloc(at->bytes);
    if (!staged) return iso_fail_backend_memory(b, err);
    permute(b, at->data, &kept, inverse, staged);
    const iso_status st = iso_real_get(b, data, staged, false, iso_shape_count(&kept), err);
    b->release(staged, at->bytes);
    return st;
}

iso_status iso_vars_write(iso_vars *v, const char *name, const float *data, int64_t count, iso_error *err)
{
    const iso_var *at = NULL;
    iso_status st = find_var(v, name, count, &at, err);
    if (st != ISO_OK) return st;
    return at->permuted ? write_permuted(v->backend, at, data, err) : iso_real_put(v->backend, at->data, data, false, count, err);
}

iso_status iso_vars_read(const iso_vars *v, const char *name, float *data, int64_t count, iso_error *err)
{
    const iso_var *at = NULL;
    iso_status st = find_var(v, name, count, &at, err);
    if (st != ISO_OK) return st;
    st = at->permuted ? read_permuted(v->backend, at, data, err) : iso_real_get(v->backend, data, at->data, false, count, err);
    return st == ISO_OK && v->backend->device ? v->backend->device->check(err) : st;
}
