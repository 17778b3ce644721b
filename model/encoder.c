/* Images to vectors: one plan of a fixed batch; a shorter last batch is filled up, and the fill thrown away. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/device.h"
#include "model/model.h"
#include "model/net/net.h"

struct iso_encoder {
    int batch, dim;
    iso_graph *graph;
    iso_vars *vars;
    iso_plan *plan;
    iso_node x, vector;
    int views;      /* of iso_net */
    float *images;  /* [views * batch, ISO_PIXELS] the mirror images behind the images; NULL on a device */
    float *vectors; /* [batch, dim] */
    /* On a device, which converts and mirrors itself: */
    iso_bytes *bytes;
    uint8_t *pixels;   /* [batch, ISO_PIXELS] */
    int64_t *rows;     /* [views * batch] */
    uint8_t *mirrored; /* [views * batch] */
};

void iso_encoder_free(iso_encoder *e)
{
    if (!e) return;
    iso_plan_free(e->plan);
    iso_bytes_free(e->bytes);
    free(e->pixels);
    free(e->rows);
    free(e->mirrored);
    iso_vars_free(e->vars);
    iso_graph_free(e->graph);
    free(e->images);
    free(e->vectors);
    free(e);
}

static iso_status build_graph(const iso_model *m, int64_t rows, iso_graph **out, iso_node *x, iso_node *vector, iso_error *err)
{
    const iso_net *net = iso_model_net(m);
    bool images = net->arch != ISO_ARCH_MLP;
    if (!images && net->size[net->layers - 1] != ISO_PIXELS)
        return iso_fail(err, ISO_E_UNSUPPORTED, "this model takes %d numbers, not images of %d x %d", net->size[net->layers - 1],
                        ISO_SIDE, ISO_SIDE);
    iso_graph *g = iso_graph_create();
    if (!g) return iso_fail_memory(err);
    *out = g;
    *x = iso_input(g, "x", images ? iso_shape4(rows, ISO_SIDE, ISO_SIDE, 3) : iso_shape2(rows, ISO_PIXELS));
    *vector = iso_net_vector(g, net, *x);
    return iso_graph_check(g, err);
}

static iso_status build(iso_encoder *e, const iso_model *m, const iso_backend *backend, iso_error *err)
{
    iso_status s = build_graph(m, (int64_t)e->views * e->batch, &e->graph, &e->x, &e->vector, err);
    if (!s) s = iso_vars_create(backend, &e->vars, err);
    if (!s) s = iso_vars_add_states(e->vars, e->graph, 1, &e->vector, err);
    if (!s) s = iso_model_to_vars(m, e->vars, err);
    if (s) return s;
    iso_plan_spec spec = {.vars = e->vars, .outputs = &e->vector, .output_count = 1, .frozen = true};
    return iso_plan_create(e->graph, &spec, &e->plan, err);
}

static iso_status build_bytes(iso_encoder *e, const iso_backend *backend, iso_error *err)
{
    const size_t rows = (size_t)e->views * (size_t)e->batch;
    e->pixels = iso_calloc((size_t)e->batch, ISO_PIXELS);
    e->rows = iso_calloc(rows, sizeof *e->rows);
    e->mirrored = iso_calloc(rows, sizeof *e->mirrored);
    if (!e->pixels || !e->rows || !e->mirrored) return iso_fail_memory(err);
    for (size_t i = 0; i < rows; i++) {
        e->rows[i] = (int64_t)(i % (size_t)e->batch);
        e->mirrored[i] = i >= (size_t)e->batch;
    }
    iso_bytes_spec spec = {.host = e->pixels, .rows = e->batch, .dim = ISO_PIXELS, .batch = (int64_t)rows, .width = ISO_SIDE, .depth = 3};
    return iso_bytes_create(backend, &spec, &e->bytes, err);
}

typedef struct measured {
    const iso_model *m;
    const iso_backend *backend;
    int views;
} measured;

static iso_status measure(void *ctx, int64_t batch, size_t *bytes, iso_error *err)
{
    const measured *c = ctx;
    iso_graph *g = NULL;
    iso_vars *none = NULL;
    iso_node x, vector;
    iso_plan_stats stats = {0};
    iso_status s = build_graph(c->m, c->views * batch, &g, &x, &vector, err);
    if (!s) s = iso_vars_create(c->backend, &none, err);
    iso_plan_spec spec = {.vars = none, .outputs = &vector, .output_count = 1, .frozen = true};
    if (!s) s = iso_plan_measure(g, &spec, &stats, err);
    iso_vars_free(none);
    iso_graph_free(g);
    *bytes = stats.arena + stats.vars + (size_t)(c->views * batch) * ISO_PIXELS * (c->backend->device ? 1 : sizeof(float));
    return s;
}

iso_status iso_encoder_create(const iso_model *m, int batch, iso_encoder **out, iso_error *err)
{
    return iso_encoder_create_on(m, batch, NULL, out, err);
}

iso_status iso_encoder_create_on(const iso_model *m, int batch, const iso_backend *backend, iso_encoder **out, iso_error *err)
{
    if (batch < 1 || batch > 1 << 16) return iso_fail(err, ISO_E_ARGUMENT, "a batch of %d images is out of range (1 to 65536)", batch);
    if (!backend) backend = iso_backend_cpu();
    iso_encoder *e = iso_calloc(1, sizeof *e);
    if (!e) return iso_fail_memory(err);
    e->batch = batch;
    e->dim = iso_model_dim(m);
    e->views = iso_model_net(m)->views > 1 ? 2 : 1;
    measured c = {.m = m, .backend = backend, .views = e->views};
    iso_status s = iso_device_check(backend, "encoding", measure, &c, batch, err);
    if (s) {
        iso_encoder_free(e);
        return s;
    }
    if (!backend->device) e->images = iso_calloc((size_t)batch, (size_t)e->views * ISO_PIXELS * sizeof *e->images);
    e->vectors = iso_calloc((size_t)batch, (size_t)e->dim * sizeof *e->vectors);
    s = (e->images || backend->device) && e->vectors ? build(e, m, backend, err) : iso_fail_memory(err);
    if (!s && backend->device) s = build_bytes(e, backend, err);
    if (s) {
        iso_encoder_free(e);
        return s == ISO_E_MEMORY ? iso_device_full(backend, "encoding", measure, &c, batch, err) : s;
    }
    *out = e;
    return ISO_OK;
}

double iso_encoder_flops(const iso_encoder *e)
{
    return iso_plan_describe(e->plan).flops / e->batch;
}

/* The images to the plan's input. */
static iso_status write_images(iso_encoder *e, const uint8_t *images, int n, iso_error *err)
{
    if (e->bytes) {
        memcpy(e->pixels, images, (size_t)n * ISO_PIXELS);
        memset(e->pixels + (size_t)n * ISO_PIXELS, 0, (size_t)(e->batch - n) * ISO_PIXELS);
        return iso_plan_write_bytes(e->plan, e->x, e->bytes, e->rows, e->views > 1 ? e->mirrored : NULL, (int64_t)e->views * e->batch, err);
    }
#pragma omp parallel for
    for (int i = 0; i < e->batch; i++) {
        float *image = e->images + (size_t)i * ISO_PIXELS, *mirror = image + (size_t)e->batch * ISO_PIXELS;
        if (i < n) iso_pixels_to_real(images + (size_t)i * ISO_PIXELS, ISO_PIXELS, image);
        else memset(image, 0, ISO_PIXELS * sizeof *image);
        if (e->views < 2) continue;
        memcpy(mirror, image, ISO_PIXELS * sizeof *image);
        iso_mirror(mirror);
    }
    return iso_plan_write(e->plan, e->x, e->images, (int64_t)e->views * e->batch * ISO_PIXELS, err);
}

static iso_status run_batch(iso_encoder *e, const uint8_t *images, int n, float *vectors, iso_error *err)
{
    iso_status s = write_images(e, images, n, err);
    if (s) return s;
    iso_plan_run(e->plan);
    s = iso_plan_read(e->plan, e->vector, e->vectors, (int64_t)e->batch * e->dim, err);
    if (s) return s;
    for (int64_t i = 0; i < (int64_t)n * e->dim; i++)
        if (!isfinite(e->vectors[i]))
            return iso_fail(err, ISO_E_NUMERIC, "the model gives an image a vector that is not finite; train it again");
    memcpy(vectors, e->vectors, (size_t)n * (size_t)e->dim * sizeof *vectors);
    return ISO_OK;
}

iso_status iso_encoder_run(iso_encoder *e, const uint8_t *images, int64_t n, float *vectors, iso_error *err)
{
    if (n < 0) return iso_fail(err, ISO_E_ARGUMENT, "a negative number of images");
    for (int64_t i = 0; i < n; i += e->batch) {
        int now = n - i < e->batch ? (int)(n - i) : e->batch;
        iso_status s = run_batch(e, images + i * ISO_PIXELS, now, vectors + i * e->dim, err);
        if (s) return s;
    }
    return ISO_OK;
}
