/* vars.c: named persistent tensors on one backend. */
#include <stdlib.h>
#include <string.h>

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
    for (size_t i = 0; i < v->count; i++) {
        free(v->at[i].name);
        v->backend->release(v->at[i].data, v->at[i].bytes);
    }
    free(v->at);
    free(v);
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

iso_status iso_vars_add(iso_vars *v, const char *name, iso_shape shape, iso_error *err)
{
    char a[96], b[96];
    int known = iso_vars_find(v, name);
    if (known >= 0) {
        if (iso_shape_equal(&v->at[known].shape, &shape)) return ISO_OK;
        return iso_fail(err, ISO_E_ARGUMENT, "\"%s\" has shape %s already, not %s", name,
                        iso_shape_text(&v->at[known].shape, a), iso_shape_text(&shape, b));
    }
    if (!iso_grow(&v->at, &v->capacity, v->count + 1, sizeof *v->at)) return iso_fail_memory(err);
    size_t bytes = (size_t)iso_shape_count(&shape) * v->backend->real_size;
    iso_var *at = &v->at[v->count];
    *at = (iso_var){.name = strdup(name), .shape = shape, .data = v->backend->alloc(bytes), .bytes = bytes};
    if (!at->name || !at->data) {
        free(at->name);
        if (at->data) v->backend->release(at->data, bytes);
        return iso_fail_memory(err);
    }
    v->count++;
    return ISO_OK;
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
        if (needed[n] && g->at[n].op == ISO_OP_STATE) st = iso_vars_add(v, g->at[n].name, g->at[n].shape, err);
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

iso_status iso_vars_write(iso_vars *v, const char *name, const float *data, int64_t count, iso_error *err)
{
    const iso_var *at = NULL;
    iso_status st = find_var(v, name, count, &at, err);
    return st != ISO_OK ? st : iso_real_put(v->backend, at->data, data, false, count, err);
}

iso_status iso_vars_read(const iso_vars *v, const char *name, float *data, int64_t count, iso_error *err)
{
    const iso_var *at = NULL;
    iso_status st = find_var(v, name, count, &at, err);
    if (st == ISO_OK) st = iso_real_get(v->backend, data, at->data, false, count, err);
    return st == ISO_OK && v->backend->device ? v->backend->device->check(err) : st;
}
