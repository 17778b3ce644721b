/* train_common.h: what the tests of training share: images, a watcher of runs, trainings of a few steps, and their folder. */
#ifndef ISO_TESTS_TRAIN_COMMON_H
#define ISO_TESTS_TRAIN_COMMON_H

#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "model/checkpoint.h"
#include "model/philox.h"
#include "model/train.h"
#include "tests/check.h"
#include "tests/folder.h"

enum { IMAGES = 26, VALID = 5, MLP_DIM = 12 };

static char folder[512];
static uint8_t pixels[IMAGES * ISO_PIXELS];
static uint8_t values[IMAGES * MLP_DIM];
static int64_t rows[IMAGES];
static int64_t mlp_rows[IMAGES];

/* A disc of a random colour, place and size on a random ground. */
static inline void draw_images(void)
{
    for (int i = 0; i < IMAGES; i++) {
        float u[9];
        iso_draw_uniform((iso_draw){5, 1, (uint64_t)i}, 0, 1, 9, u);
        for (int y = 0; y < ISO_SIDE; y++)
            for (int x = 0; x < ISO_SIDE; x++) {
                float dx = (float)x / ISO_SIDE - u[0], dy = (float)y / ISO_SIDE - u[1];
                bool inside = dx * dx + dy * dy < 0.02f + 0.1f * u[2];
                for (int c = 0; c < 3; c++)
                    pixels[((i * ISO_SIDE + y) * ISO_SIDE + x) * 3 + c] = (uint8_t)(255 * u[(inside ? 3 : 6) + c]);
            }
        for (int k = 0; k < MLP_DIM; k++)
            values[i * MLP_DIM + k] = (uint8_t)(127.5 + 100 * sin(2 * M_PI * u[0] + k) * u[1]);
        rows[i] = mlp_rows[i] = i;
    }
}

static inline iso_train_data image_data(void)
{
    return (iso_train_data){.pixels = pixels, .dim = ISO_PIXELS, .train = rows, .valid = rows + IMAGES - VALID,
                            .train_count = IMAGES - VALID, .valid_count = VALID};
}

static inline iso_train_data mlp_data(void)
{
    return (iso_train_data){.pixels = values, .dim = MLP_DIM, .train = mlp_rows, .valid = mlp_rows + IMAGES - VALID,
                            .train_count = IMAGES - VALID, .valid_count = VALID};
}

/* --- watching */

typedef struct watcher {
    int ticks, stop_at; /* stop after that many steps; 0: never */
    int stop_validation, stop_epoch; /* in the middle of that validation, after that many epochs; 0: never */
    bool fills_disk;    /* after the first step */
    int epochs;
    int parts, validations;          /* begun */
    int64_t part_done, part_total, done, total;
    double seconds;                  /* these three: of the last step */
    iso_epoch row[64];
    char said[2048];
} watcher;

static inline void on_say(void *ctx, const char *line)
{
    watcher *w = ctx;
    size_t used = strlen(w->said);
    if (strncmp(line, "planned memory", 14) == 0) w->done = w->total = 0, w->seconds = 0; /* another run begins */
    snprintf(w->said + used, sizeof w->said - used, "%s\n", line);
}

/* From now on no file may become longer. */
static inline void limit_files(rlim_t bytes)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static inline void on_tick(void *ctx, const iso_tick *t)
{
    watcher *w = ctx;
    w->ticks++;
    if (w->fills_disk) limit_files(1000);
    assert_true(t->images_done <= t->images_total);
    assert_true(t->images_done > w->done && (!w->total || t->images_total == w->total) && t->seconds > w->seconds);
    w->done = t->images_done, w->total = t->images_total, w->seconds = t->seconds;
}

/* Images are told one batch after another, up to the last. */
static inline void on_part(void *ctx, const char *what, int64_t done, int64_t total)
{
    watcher *w = ctx;
    bool begins = done == 0;
    assert_true(begins ? w->part_done == w->part_total : done > w->part_done && done <= total && total == w->part_total);
    w->parts += begins;
    w->validations += begins && strcmp(what, "validating") == 0;
    w->part_done = done, w->part_total = total;
}

static inline void on_epoch(void *ctx, const iso_epoch *e)
{
    watcher *w = ctx;
    if (w->epochs < 64) w->row[w->epochs++] = *e;
}

static inline bool on_stop(void *ctx)
{
    const watcher *w = ctx;
    if (w->stop_validation && w->validations == w->stop_validation && w->part_done < w->part_total) return true;
    if (w->stop_epoch && w->epochs == w->stop_epoch) return true;
    return w->stop_at && w->ticks >= w->stop_at;
}

static inline iso_watch watch(watcher *w)
{
    *w = (watcher){0};
    return (iso_watch){.ctx = w, .say = on_say, .tick = on_tick, .part = on_part, .epoch = on_epoch, .stop = on_stop};
}

static inline char *place(const char *name)
{
    char *path = iso_path_join(folder, name);
    assert_non_null(path);
    return path;
}

static inline iso_train_spec image_spec(const char *path, watcher *w)
{
    return (iso_train_spec){
        .net = {.arch = ISO_ARCH_CELEBA, .width = 2, .latent = 3},
        .method = "isometric", .alpha = 10, .kl_weight = 1, .sigma_rule = ISO_SIGMA_OPTIMAL, .mirror = true,
        .run = {.path = path, .epochs = 4, .batch = 8, .lr = 1e-3, .eta = 0.2, .seed = 11, .threads = 1, .watch = watch(w)},
    };
}

static inline iso_train_spec mlp_spec(const char *path, watcher *w)
{
    iso_train_spec s = image_spec(path, w);
    s.net = (iso_net){.arch = ISO_ARCH_MLP, .latent = 3, .layers = 3, .size = {3, 8, MLP_DIM}, .act = "softplus", .out = "linear"};
    s.mirror = false;
    return s;
}

static inline void must_train(const iso_train_spec *spec, const iso_train_data *data)
{
    iso_error err = {0};
    if (iso_train(spec, data, &err) != ISO_OK) fail_msg("%s", err.message);
}

static inline void must_flow(const iso_flow_spec *spec, const iso_train_data *data)
{
    iso_error err = {0};
    if (iso_train_flow(spec, data, &err) != ISO_OK) fail_msg("%s", err.message);
}

/* Fails with this status and with `part` in its message. */
static inline void must_refuse(const iso_train_spec *spec, const iso_train_data *data, iso_status status, const char *part)
{
    iso_error err = {0};
    assert_int_equal(iso_train(spec, data, &err), status);
    if (!strstr(err.message, part)) fail_msg("\"%s\" does not say \"%s\"", err.message, part);
}

static inline void digest_of(const char *path, char out[33])
{
    iso_model *m = NULL;
    iso_error err = {0};
    if (iso_model_load(path, &m, &err) != ISO_OK) fail_msg("%s", err.message);
    snprintf(out, 33, "%s", iso_model_digest(m));
    iso_model_free(m);
}

static inline void must_agree(const char *a, const char *b)
{
    char da[33], db[33];
    digest_of(a, da);
    digest_of(b, db);
    assert_string_equal(da, db);
}

/* Every tensor of two files the same, bit for bit. */
static inline bool same_tensors(const char *a, const char *b)
{
    iso_st *fa = NULL, *fb = NULL;
    assert_int_equal(iso_st_load(a, &fa, NULL), ISO_OK);
    assert_int_equal(iso_st_load(b, &fb, NULL), ISO_OK);
    bool same = iso_st_count(fa) == iso_st_count(fb);
    for (int i = 0; same && i < iso_st_count(fa); i++) {
        const iso_st_tensor *ta = iso_st_at(fa, i), *tb = iso_st_find(fb, ta->name);
        same = tb && ta->count == tb->count && memcmp(ta->data, tb->data, (size_t)ta->count * sizeof(float)) == 0;
    }
    iso_st_free(fa);
    iso_st_free(fb);
    return same;
}

/* --- the folder */

static inline int set_up(void **unused)
{
    (void)unused;
    draw_images();
    return make_folder(folder, sizeof folder, "train") ? 0 : -1;
}

static inline int tear_down(void **unused)
{
    (void)unused;
    return remove_files(folder) ? 0 : -1;
}

#endif
