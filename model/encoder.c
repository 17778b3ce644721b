/* Images to vectors: one plan of a fixed batch; a shorter last batch is filled up, and the fill thrown away. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/model.h"
#include "model/net/net.h"

struct iso_encoder {
    int batch, dim;
    iso_graph *graph;
    iso_vars *vars;
    iso_plan *plan;
    iso_node x, vector;
    int views;      /* of iso_net */
    float *images;  /* [views * batch, ISO_PIXELS] the mirror images behind the images */
    float *vectors; /* [batch, dim] */
};

void iso_encoder_free(iso_encoder *e)
{
    if (!e) return;
    iso_plan_free(e->plan);
    iso_vars_free(e->vars);
    iso_graph_free(e->graph);
    free(e->images);
    free(e->vectors);
    free(e);
}

static iso_status build(iso_encoder *e, const iso_model *m, iso_error *err)
{
    const iso_net *net = iso_model_net(m);
    bool images = net->arch != ISO_ARCH_MLP;
    if (!images && net->size[net->layers - 1] != ISO_PIXELS)
        return iso_fail(err, ISO_E_UNSUPPORTED, "this model takes %d numbers, not images of %d x %d", net->size[net->layers - 1],
                        ISO_SIDE, ISO_SIDE);
    e->graph = iso_graph_create();
    if (!e->graph) return iso_fail_memory(err);
    int64_t rows = (int64_t)e->views * e->batch;
    e->x = iso_input(e->graph, "x", images ? iso_shape4(rows, ISO_SIDE, ISO_SIDE, 3) : iso_shape2(rows, ISO_PIXELS));
    e->vector = iso_net_vector(e->graph, net, e->x);
    iso_status s = iso_graph_check(e->graph, err);
    if (!s) s = iso_vars_create(iso_backend_cpu(), &e->vars, err);
    if (!s) s = iso_vars_add_states(e->vars, e->graph, 1, &e->vector, err);
    if (!s) s = iso_model_to_vars(m, e->vars, err);
    if (s) return s;
    iso_plan_spec spec = {.vars = e->vars, .outputs = &e->vector, .output_count = 1};
    return iso_plan_create(e->graph, &spec, &e->plan, err);
}

iso_status iso_encoder_create(const iso_model *m, int batch, iso_encoder **out, iso_error *err)
{
    if (batch < 1 || batch > 1 << 16) return iso_fail(err, ISO_E_ARGUMENT, "a batch of %d images is out of range (1 to 65536)", batch);
    iso_encoder *e = iso_calloc(1, sizeof *e);
    if (!e) return iso_fail_memory(err);
    e->batch = batch;
    e->dim = iso_model_dim(m);
    e->views = iso_model_net(m)->views > 1 ? 2 : 1;
    e->images = iso_calloc((size_t)batch, (size_t)e->views * ISO_PIXELS * sizeof *e->images);
    e->vectors = iso_calloc((size_t)batch, (size_t)e->dim * sizeof *e->vectors);
    iso_status s = e->images && e->vectors ? build(e, m, err) : iso_fail_memory(err);
    if (s) {
        iso_encoder_free(e);
        return s;
    }
    *out = e;
    return ISO_OK;
}

static iso_status run_batch(iso_encoder *e, const uint8_t *images, int n, float *vectors, iso_error *err)
{
    iso_pixels_to_real(images, (int64_t)n * ISO_PIXELS, e->images);
    memset(e->images + (size_t)n * ISO_PIXELS, 0, (size_t)(e->batch - n) * ISO_PIXELS * sizeof *e->images);
    for (int i = 0; e->views > 1 && i < e->batch; i++) {
        float *mirror = e->images + (size_t)(e->batch + i) * ISO_PIXELS;
        memcpy(mirror, e->images + (size_t)i * ISO_PIXELS, ISO_PIXELS * sizeof *mirror);
        iso_mirror(mirror);
    }
    iso_status s = iso_plan_write(e->plan, e->x, e->images, (int64_t)e->views * e->batch * ISO_PIXELS, err);
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
