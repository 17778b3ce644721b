/* Two views: a vector is the mean over an image and its mirror image. And the schedule of the learning rate. */
#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "model/net/net.h"
#include "model/philox.h"
#include "model/train.h"
#include "tests/check.h"
#include "tests/folder.h"

enum { IMAGES = 14, LATENT = 5, BATCH = 4 };

static char folder[512];
static uint8_t pixels[IMAGES * ISO_PIXELS], mirrored[IMAGES * ISO_PIXELS];
static int64_t rows[IMAGES];

static void draw_images(void)
{
    for (int64_t i = 0; i < IMAGES * ISO_PIXELS; i++) pixels[i] = (uint8_t)iso_draw_below((iso_draw){3, 1, 0}, (uint64_t)i, 256);
    for (int64_t i = 0; i < IMAGES * ISO_SIDE; i++)
        for (int x = 0; x < ISO_SIDE; x++)
            memcpy(mirrored + (i * ISO_SIDE + x) * 3, pixels + (i * ISO_SIDE + ISO_SIDE - 1 - x) * 3, 3);
    for (int i = 0; i < IMAGES; i++) rows[i] = i;
}

/* The same parameters with one view or two; a flow that is not the identity. */
static iso_model *model(int views, bool flow)
{
    iso_net net = {.arch = ISO_ARCH_CELEBA, .width = 2, .latent = LATENT, .views = views};
    iso_model *m = NULL, *with = NULL;
    iso_error err;
    assert_int_equal(iso_model_create(&net, &m, &err), ISO_OK);
    assert_int_equal(iso_net_init(m, 7, &err), ISO_OK);
    if (!flow) return m;
    assert_int_equal(iso_model_with_flow(m, 3, 6, &with, &err), ISO_OK);
    iso_model_free(m);
    for (int i = 0; i < iso_model_count(with); i++) {
        iso_shape shape = iso_model_shape(with, i);
        if (strncmp(iso_model_name(with, i), "flow.", 5) == 0)
            iso_draw_uniform((iso_draw){9, (uint32_t)i, 0}, -0.7, 0.7, iso_shape_count(&shape), iso_model_data(with, i));
    }
    return with;
}

static void encode(const iso_model *m, const uint8_t *images, float *vectors)
{
    iso_encoder *e = NULL;
    iso_error err;
    assert_int_equal(iso_encoder_create(m, BATCH, &e, &err), ISO_OK); /* does not divide the images */
    assert_int_equal(iso_encoder_run(e, images, IMAGES, vectors, &err), ISO_OK);
    iso_encoder_free(e);
}

static double farthest(const float *a, const float *b)
{
    double most = 0;
    for (int i = 0; i < IMAGES * LATENT; i++) most = fmax(most, fabs((double)a[i] - b[i]));
    return most;
}

static void test_mean_of_both(void **state)
{
    (void)state;
    float one[IMAGES * LATENT], other[IMAGES * LATENT], both[IMAGES * LATENT];
    iso_model *single = model(1, false), *dual = model(2, false);
    encode(single, pixels, one);
    encode(single, mirrored, other);
    encode(dual, pixels, both);
    assert_true(farthest(one, both) > 1e-4); /* the wrong answer is seen as wrong */
    for (int i = 0; i < IMAGES * LATENT; i++) one[i] = (one[i] + other[i]) / 2;
    assert_true(farthest(one, both) < 1e-5);
    encode(dual, mirrored, other); /* a mirror image has its original's vector */
    assert_true(farthest(other, both) < 1e-6);
    iso_model_free(single);
    iso_model_free(dual);
}

/* The flow maps the mean code: flow((mu + mu') / 2), which two codes mapped one by one would not give. */
static void test_flow_after_mean(void **state)
{
    (void)state;
    float plain[IMAGES * LATENT], both[IMAGES * LATENT];
    iso_model *dual = model(2, false), *flowing = model(2, true);
    encode(dual, pixels, plain);
    encode(flowing, pixels, both);
    iso_graph *g = iso_graph_create();
    iso_error err;
    iso_vars *vars = NULL;
    iso_plan *plan = NULL;
    iso_node z = iso_input(g, "z", iso_shape2(IMAGES, LATENT)), y = iso_flow_forward(g, iso_model_net(flowing), z);
    assert_int_equal(iso_vars_create(iso_backend_reference(), &vars, &err), ISO_OK);
    assert_int_equal(iso_vars_add_states(vars, g, 1, &y, &err), ISO_OK);
    assert_int_equal(iso_model_to_vars(flowing, vars, &err), ISO_OK);
    iso_plan_spec spec = {.vars = vars, .outputs = &y, .output_count = 1};
    assert_int_equal(iso_plan_create(g, &spec, &plan, &err), ISO_OK);
    assert_int_equal(iso_plan_write(plan, z, plain, IMAGES * LATENT, &err), ISO_OK);
    iso_plan_run(plan);
    float mapped[IMAGES * LATENT];
    assert_int_equal(iso_plan_read(plan, y, mapped, IMAGES * LATENT, &err), ISO_OK);
    assert_true(farthest(mapped, both) < 1e-4);
    assert_true(farthest(plain, both) > 1e-3);
    iso_plan_free(plan);
    iso_vars_free(vars);
    iso_graph_free(g);
    iso_model_free(dual);
    iso_model_free(flowing);
}

/* Views affect vectors, so they are in the digest and in the file; what was written without them has one. */
static void test_file(void **state)
{
    (void)state;
    iso_error err;
    iso_model *single = model(1, false), *none = model(0, false), *dual = model(2, false), *back = NULL;
    char first[40];
    snprintf(first, sizeof first, "%s", iso_model_digest(single));
    assert_string_equal(first, iso_model_digest(none));
    assert_string_not_equal(first, iso_model_digest(dual));
    char *path = iso_path_join(folder, "views.safetensors");
    assert_int_equal(iso_model_save(dual, path, &err), ISO_OK);
    assert_int_equal(iso_model_load(path, &back, &err), ISO_OK);
    assert_int_equal(iso_model_net(back)->views, 2);
    assert_string_equal(iso_model_digest(back), iso_model_digest(dual));
    assert_int_equal(iso_model_set_meta(back, "views", "1", &err), ISO_E_ARGUMENT);
    iso_net three = {.arch = ISO_ARCH_CELEBA, .width = 2, .latent = LATENT, .views = 3};
    assert_int_equal(iso_net_check(&three, &err), ISO_E_ARGUMENT);
    free(path);
    iso_model_free(single);
    iso_model_free(none);
    iso_model_free(dual);
    iso_model_free(back);
}

/* --- the schedule */

typedef struct stopper { int ticks, at; } stopper;

static void on_tick(void *ctx, const iso_tick *t) { (void)t, ((stopper *)ctx)->ticks++; }
static bool on_stop(void *ctx) { return ((stopper *)ctx)->at && ((stopper *)ctx)->ticks >= ((stopper *)ctx)->at; }

static iso_status train_warm(const char *path, iso_schedule schedule, int64_t warmup, int epochs, bool resume, int stop_at, iso_error *err)
{
    stopper s = {0, stop_at};
    iso_train_data data = {.pixels = pixels, .dim = ISO_PIXELS, .train = rows, .valid = rows + 10, .train_count = 10, .valid_count = 4};
    iso_train_spec spec = {
        .net = {.arch = ISO_ARCH_CELEBA, .width = 2, .latent = LATENT, .views = 2}, .method = "vae", .kl_weight = 1,
        .run = {.path = path, .epochs = epochs, .batch = 5, .lr = 1e-2, .eta = 0.2, .seed = 4, .threads = 1, .schedule = schedule, .warmup = warmup, .resume = resume,
                .watch = {.ctx = &s, .tick = on_tick, .stop = on_stop}}};
    return iso_train(&spec, &data, err);
}

static iso_status train(const char *path, iso_schedule schedule, int epochs, bool resume, int stop_at, iso_error *err)
{
    return train_warm(path, schedule, 0, epochs, resume, stop_at, err);
}

static double distance(const char *a, const char *b)
{
    iso_model *x = NULL, *y = NULL;
    iso_error err;
    double sum = 0;
    assert_int_equal(iso_model_load(a, &x, &err), ISO_OK);
    assert_int_equal(iso_model_load(b, &y, &err), ISO_OK);
    for (int i = 0; i < iso_model_count(x); i++) {
        iso_shape shape = iso_model_shape(x, i);
        for (int64_t j = 0; j < iso_shape_count(&shape); j++) sum += fabs((double)iso_model_data(x, i)[j] - iso_model_data(y, i)[j]);
    }
    iso_model_free(x);
    iso_model_free(y);
    return sum;
}

static void test_schedule(void **state)
{
    (void)state;
    iso_error err;
    char *whole = iso_path_join(folder, "whole"), *parts = iso_path_join(folder, "parts"), *flat = iso_path_join(folder, "flat");
    assert_int_equal(train(whole, ISO_SCHEDULE_COSINE, 3, false, 0, &err), ISO_OK);
    assert_int_equal(train(flat, ISO_SCHEDULE_CONSTANT, 3, false, 0, &err), ISO_OK);
    assert_true(distance(whole, flat) > 1e-3);
    assert_int_equal(train(parts, ISO_SCHEDULE_COSINE, 3, false, 3, &err), ISO_E_INTERRUPTED);
    assert_int_equal(train(parts, ISO_SCHEDULE_COSINE, 4, true, 0, &err), ISO_E_ARGUMENT); /* its length is part of it */
    assert_non_null(strstr(err.message, "epochs"));
    assert_int_equal(train(parts, ISO_SCHEDULE_CONSTANT, 3, true, 0, &err), ISO_E_ARGUMENT);
    assert_int_equal(train(parts, ISO_SCHEDULE_COSINE, 3, true, 0, &err), ISO_OK);
    assert_true(distance(whole, parts) == 0); /* bit for bit */
    assert_int_equal(train(flat, ISO_SCHEDULE_CONSTANT, 4, true, 0, &err), ISO_OK);
    free(whole);
    free(parts);
    free(flat);
}

/* A rate that rises over the first steps: another model, resumed bit for bit, and only with the same number of them. */
static void test_warmup(void **state)
{
    (void)state;
    iso_error err;
    char *cold = iso_path_join(folder, "cold"), *warm = iso_path_join(folder, "warm"), *parts = iso_path_join(folder, "warm-parts");
    assert_int_equal(train(cold, ISO_SCHEDULE_CONSTANT, 3, false, 0, &err), ISO_OK);
    assert_int_equal(train_warm(warm, ISO_SCHEDULE_CONSTANT, 4, 3, false, 0, &err), ISO_OK);
    assert_true(distance(cold, warm) > 1e-3);
    assert_int_equal(train_warm(parts, ISO_SCHEDULE_CONSTANT, 4, 3, false, 3, &err), ISO_E_INTERRUPTED);
    assert_int_equal(train_warm(parts, ISO_SCHEDULE_CONSTANT, 0, 3, true, 0, &err), ISO_E_ARGUMENT);
    assert_int_equal(train_warm(parts, ISO_SCHEDULE_CONSTANT, 4, 3, true, 0, &err), ISO_OK);
    assert_true(distance(warm, parts) == 0);
    assert_int_equal(train_warm(warm, ISO_SCHEDULE_CONSTANT, -1, 3, false, 0, &err), ISO_E_ARGUMENT);
    assert_non_null(strstr(err.message, "--warmup"));
    free(cold);
    free(warm);
    free(parts);
}

static int set_up(void **state)
{
    (void)state;
    draw_images();
    return make_folder(folder, sizeof folder, "views") ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    return !remove_folder(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mean_of_both), cmocka_unit_test(test_flow_after_mean), cmocka_unit_test(test_file), cmocka_unit_test(test_schedule), cmocka_unit_test(test_warmup)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
