/* train_loop_feed.c: the batches of a training and of its validation, with what is drawn for them. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/net/net.h"
#include "model/philox.h"
#include "model/train_loop_parts.h"

iso_status iso_loop_feed_open(iso_loop_work *l, iso_error *err)
{
    size_t batch = (size_t)l->batch, latent = (size_t)l->net->latent;
    size_t dim = l->spec->codes ? latent : (size_t)l->data->dim;
    bool labels = l->objective->goal == ISO_GOAL_SUPERVISED;
    l->order = iso_calloc((size_t)l->data->train_count, sizeof *l->order);
    l->rows = iso_calloc(batch, sizeof *l->rows);
    l->x = iso_calloc(batch * dim, sizeof *l->x);
    l->normal = iso_calloc(batch * latent, sizeof *l->normal);
    l->delta = iso_calloc(batch, sizeof *l->delta);
    if (labels) l->labels = iso_calloc(batch * (size_t)l->data->classes, sizeof *l->labels);
    l->perm = iso_calloc(batch, sizeof *l->perm);
    l->mirrored = iso_calloc(batch, sizeof *l->mirrored);
    bool ok = l->order && l->rows && l->x && l->normal && l->delta && (l->labels || !labels) && l->perm && l->mirrored;
    return ok ? ISO_OK : iso_fail_memory(err);
}

void iso_loop_feed_close(iso_loop_work *l)
{
    iso_bytes_free(l->bytes);
    free(l->order);
    free(l->rows);
    free(l->x);
    free(l->normal);
    free(l->delta);
    free(l->labels);
    free(l->perm);
    free(l->mirrored);
}

iso_status iso_loop_feed_images(iso_loop_work *l, iso_error *err)
{
    int64_t rows = 0;
    if (!l->backend->device || l->spec->codes) return ISO_OK;
    for (int64_t i = 0; i < l->data->train_count; i++)
        if (l->data->train[i] >= rows) rows = l->data->train[i] + 1;
    for (int64_t i = 0; i < l->data->valid_count; i++)
        if (l->data->valid[i] >= rows) rows = l->data->valid[i] + 1;
    bool images = l->data->dim == ISO_PIXELS;
    iso_bytes_spec spec = {.host = l->data->pixels, .rows = rows, .dim = l->data->dim, .batch = l->batch, .fixed = true,
                           .width = images ? ISO_SIDE : l->data->dim, .depth = images ? 3 : 1};
    iso_status status = iso_bytes_create(l->backend, &spec, &l->bytes, err);
    if (status == ISO_OK)
        iso_watch_say(&l->run->watch, "computing on %s; the images %s", l->backend->name,
                      iso_bytes_resident(l->bytes) ? "are in its memory" : "do not fit into its memory and are sent by batches");
    return status;
}

static bool is_mirrored(const iso_loop_work *l, uint64_t step, int64_t b)
{
    return iso_draw_below((iso_draw){l->run->seed, ISO_DRAW_MIRROR, step}, (uint64_t)b, 2) != 0;
}

static void fill_x(iso_loop_work *l, const iso_train_step *s, bool mirror, uint64_t step)
{
    int64_t dim = l->spec->codes ? l->net->latent : l->data->dim;
    for (int64_t b = 0; b < s->batch; b++) {
        float *x = l->x + b * dim;
        if (l->spec->codes) {
            memcpy(x, l->spec->codes + l->rows[b] * dim, (size_t)dim * sizeof *x);
            continue;
        }
        iso_pixels_to_real(l->data->pixels + l->rows[b] * dim, dim, x);
        if (mirror && is_mirrored(l, step, b)) iso_mirror(x);
    }
}

/* The images whose rows are in l->rows: converted on the device where there is one. */
static iso_status feed_x(iso_loop_work *l, const iso_train_step *s, bool mirror, uint64_t step, iso_error *err)
{
    if (l->bytes) {
        for (int64_t b = 0; mirror && b < s->batch; b++) l->mirrored[b] = is_mirrored(l, step, b);
        return iso_plan_write_bytes(s->plan, s->x, l->bytes, l->rows, mirror ? l->mirrored : NULL, s->batch, err);
    }
    fill_x(l, s, mirror, step);
    return iso_plan_write(s->plan, s->x, l->x, iso_shape_count(&s->x_shape), err);
}

static iso_status feed_labels(iso_loop_work *l, const iso_train_step *s, iso_error *err)
{
    int64_t classes = l->data->classes;
    for (int64_t b = 0; b < s->batch; b++)
        for (int64_t c = 0; c < classes; c++) l->labels[b * classes + c] = l->data->labels[l->rows[b] * classes + c];
    return iso_plan_write(s->plan, s->labels, l->labels, s->batch * classes, err);
}

iso_status iso_loop_feed(iso_loop_work *l, const iso_train_step *s, bool train, uint64_t step, iso_error *err)
{
    uint64_t seed = l->run->seed;
    int64_t B = s->batch, m = l->net->latent;
    iso_status status;
    if ((status = feed_x(l, s, train && l->spec->mirror, step, err)) != ISO_OK) return status;
    if (s->labels != ISO_NONE) return feed_labels(l, s, err); /* supervised: nothing is drawn */
    if (s->eps != ISO_NONE) {
        iso_draw_normal((iso_draw){seed, train ? ISO_DRAW_EPS : ISO_DRAW_VALID_EPS, step}, B * m, l->normal);
        if ((status = iso_plan_write(s->plan, s->eps, l->normal, B * m, err)) != ISO_OK) return status;
    }
    iso_draw_normal((iso_draw){seed, train ? ISO_DRAW_PROBE : ISO_DRAW_VALID_PROBE, step}, B * m, l->normal);
    if ((status = iso_plan_write(s->plan, s->v, l->normal, B * m, err)) != ISO_OK) return status;
    iso_draw_uniform((iso_draw){seed, train ? ISO_DRAW_DELTA : ISO_DRAW_VALID_DELTA, step}, -l->run->eta, 1 + l->run->eta, B, l->delta);
    if ((status = iso_plan_write(s->plan, s->delta, l->delta, B, err)) != ISO_OK) return status;
    iso_draw_permutation((iso_draw){seed, train ? ISO_DRAW_PERM : ISO_DRAW_VALID_PERM, step}, B, l->perm);
    return iso_plan_write_index(s->plan, s->perm, l->perm, B, err);
}
