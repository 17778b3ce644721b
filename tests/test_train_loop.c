/* The loop of training against one written down here from its documentation: the same batches, draws, rates, terms and parameters, bit for bit, and
 * the pooled terms of validation. Files, resuming and what may go wrong: test_train.c. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/preprocess.h"
#include "model/train_loop.h"
#include "tests/check.h"
#include "tests/folder.h"
#include "tests/models.h"

enum { TRAIN = 9, VALID = 5, IMAGES = TRAIN + VALID, BATCH = 4, STEPS = TRAIN / BATCH, EPOCHS = 3, MOST = 6 /* of latent */ };

static char folder[512], path[600], state[610], csv[610];
static uint8_t pixels[IMAGES * ISO_PIXELS];
static float codes[IMAGES * MOST];
static int64_t train[TRAIN], valid[VALID]; /* no row is where it stands */
static iso_error err;

typedef struct heard {
    int steps, epochs;
    double step[EPOCHS * STEPS][ISO_TERM_COUNT], valid[EPOCHS][ISO_TERM_COUNT];
} heard;

static void on_tick(void *ctx, const iso_tick *t)
{
    heard *h = ctx;
    assert_true(h->steps < EPOCHS * STEPS);
    memcpy(h->step[h->steps++], t->term, sizeof *h->step);
}

static void on_epoch(void *ctx, const iso_epoch *e)
{
    heard *h = ctx;
    assert_true(h->epochs < EPOCHS);
    memcpy(h->valid[h->epochs++], e->valid, sizeof *h->valid);
}

/* --- the same plainly */

typedef struct course {
    const iso_loop_spec *spec;
    int64_t batch; /* of validation */
    iso_vars *vars;
    iso_train_step *train, *valid, *rest;
    double probe; /* sum of |v|^2 of the last feeding */
} course;

static void feed(course *c, const iso_train_step *s, const int64_t *rows, bool training, uint64_t number)
{
    static float x[BATCH * ISO_PIXELS];
    const uint64_t seed = c->spec->run->seed;
    const int64_t dim = iso_shape_count(&s->x_shape) / s->batch, m = iso_model_net(c->spec->model)->latent;
    float normal[BATCH * MOST], delta[BATCH];
    int64_t perm[BATCH];
    for (int64_t b = 0; b < s->batch; b++) {
        if (c->spec->codes)
            memcpy(x + b * dim, codes + rows[b] * dim, (size_t)dim * sizeof *x);
        else
            iso_pixels_to_real(pixels + rows[b] * dim, dim, x + b * dim);
        if (training && c->spec->mirror && iso_draw_below((iso_draw){seed, ISO_DRAW_MIRROR, number}, (uint64_t)b, 2)) iso_mirror(x + b * dim);
    }
    OK(iso_plan_write(s->plan, s->x, x, s->batch * dim, &err));
    if (s->eps != ISO_NONE) {
        iso_draw_normal((iso_draw){seed, training ? ISO_DRAW_EPS : ISO_DRAW_VALID_EPS, number}, s->batch * m, normal);
        OK(iso_plan_write(s->plan, s->eps, normal, s->batch * m, &err));
    }
    iso_draw_normal((iso_draw){seed, training ? ISO_DRAW_PROBE : ISO_DRAW_VALID_PROBE, number}, s->batch * m, normal);
    OK(iso_plan_write(s->plan, s->v, normal, s->batch * m, &err));
    c->probe = 0;
    for (int64_t i = 0; i < s->batch * m; i++) c->probe += (double)normal[i] * normal[i];
    const double eta = c->spec->run->eta;
    iso_draw_uniform((iso_draw){seed, training ? ISO_DRAW_DELTA : ISO_DRAW_VALID_DELTA, number}, -eta, 1 + eta, s->batch, delta);
    OK(iso_plan_write(s->plan, s->delta, delta, s->batch, &err));
    iso_draw_permutation((iso_draw){seed, training ? ISO_DRAW_PERM : ISO_DRAW_VALID_PERM, number}, s->batch, perm);
    OK(iso_plan_write_index(s->plan, s->perm, perm, s->batch, &err));
}

static void read_terms(const iso_train_step *s, double term[ISO_TERM_COUNT])
{
    for (int t = 0; t < ISO_TERM_COUNT; t++) {
        term[t] = NAN;
        if (s->term[t] != ISO_NONE) OK(iso_plan_read_f64(s->plan, s->term[t], &term[t], 1, &err));
    }
}

static double rate_of(const iso_run *run, int64_t step) /* from 1 */
{
    double rate = run->lr;
    if (step < run->warmup) rate *= (double)step / (double)run->warmup;
    if (run->schedule == ISO_SCHEDULE_COSINE) rate *= (1 + cos(M_PI * (double)(step - 1) / (EPOCHS * STEPS))) / 2;
    return rate;
}

static void take_step(course *c, const int64_t *rows, int64_t done, double term[ISO_TERM_COUNT])
{
    double rate = iso_adam_rate(rate_of(c->spec->run, done + 1), done + 1), root = iso_adam_root(done + 1);
    feed(c, c->train, rows, true, (uint64_t)done);
    OK(iso_plan_write_f64(c->train->plan, c->train->adam.rate, &rate, 1, &err));
    OK(iso_plan_write_f64(c->train->plan, c->train->adam.root, &root, 1, &err));
    iso_plan_run(c->train->plan);
    read_terms(c->train, term);
}

/* Means over the images, and what is no mean made of these (train.h). */
static void pool(course *c, double term[ISO_TERM_COUNT])
{
    const iso_objective *o = c->spec->objective;
    const double m = iso_model_net(c->spec->model)->latent;
    const int64_t count = c->spec->data->valid_count;
    double of_batch[ISO_TERM_COUNT], probe = 0;
    memset(term, 0, ISO_TERM_COUNT * sizeof *term);
    for (int64_t at = 0; at < count; at += c->batch) {
        const iso_train_step *s = at + c->batch <= count ? c->valid : c->rest;
        feed(c, s, valid + at, false, (uint64_t)(at / c->batch));
        iso_plan_run(s->plan);
        read_terms(s, of_batch);
        for (int t = 0; t < ISO_TERM_COUNT; t++) term[t] += of_batch[t] * (double)s->batch / (double)count;
        probe += c->probe / (double)count;
    }
    const double trace = term[ISO_TERM_TRACE], trace2 = term[ISO_TERM_TRACE2], mean = trace / m;
    term[ISO_TERM_RATIO] = trace2 / (trace * trace);
    if (o->goal == ISO_GOAL_FLOW) {
        term[ISO_TERM_LOSS] = term[ISO_TERM_RATIO] + o->beta * term[ISO_TERM_NORM];
        return;
    }
    if (o->sigma == ISO_SIGMA_OPTIMAL) term[ISO_TERM_NLL] = 0.5 * (double)c->spec->data->dim * (log(2 * M_PI * term[ISO_TERM_MSE]) + 1);
    term[ISO_TERM_LOSS] = term[ISO_TERM_NLL] + o->kl_weight * term[ISO_TERM_KL];
    if (o->goal == ISO_GOAL_ISOMETRIC) term[ISO_TERM_LOSS] += o->alpha * term[ISO_TERM_RATIO];
    if (o->goal == ISO_GOAL_FLAT_MANIFOLD) term[ISO_TERM_LOSS] += o->alpha * (trace2 - 2 * mean * trace + mean * mean * probe);
    /* A single batch's is the graph's own, which squares each image's difference, in single precision. */
    if (!c->rest) assert_true(fabs(term[ISO_TERM_LOSS] / of_batch[ISO_TERM_LOSS] - 1) <= 1e-5);
}

static bool same(const double *a, const double *b, double tolerance)
{
    for (int t = 0; t < ISO_TERM_COUNT; t++) {
        if (isnan(a[t]) != isnan(b[t])) return false;
        if (!isnan(a[t]) && !(fabs(a[t] - b[t]) <= tolerance * fabs(b[t]))) return false;
    }
    return true;
}

/* What was trained, and its moments, are those that the state file has. */
static void check_state(const course *c)
{
    iso_st *f = NULL;
    OK(iso_st_load(state, &f, &err));
    assert_true(iso_st_count(f) > 0);
    for (int i = 0; i < iso_st_count(f); i++) {
        const iso_st_tensor *t = iso_st_at(f, i);
        float *mine = calloc((size_t)t->count, sizeof *mine);
        assert_non_null(mine);
        OK(iso_vars_read(c->vars, t->name, mine, t->count, &err));
        if (memcmp(mine, t->data, (size_t)t->count * sizeof *mine) != 0) fail_msg("%s differs", t->name);
        free(mine);
    }
    iso_st_free(f);
}

/* The model is the one to begin with. */
static void follow(const iso_loop_spec *spec, const heard *h)
{
    const iso_net *net = iso_model_net(spec->model);
    course c = {.spec = spec, .batch = BATCH < spec->data->valid_count ? BATCH : spec->data->valid_count};
    int64_t order[TRAIN], rows[BATCH], done = 0, rest = spec->data->valid_count % c.batch;
    double term[ISO_TERM_COUNT];
    OK(iso_vars_create(iso_backend_cpu(), &c.vars, &err));
    OK(iso_train_step_create(net, spec->objective, BATCH, true, c.vars, 1, &c.train, &err));
    OK(iso_train_step_create(net, spec->objective, c.batch, false, c.vars, 1, &c.valid, &err));
    if (rest) OK(iso_train_step_create(net, spec->objective, rest, false, c.vars, 1, &c.rest, &err));
    OK(iso_model_to_vars(spec->model, c.vars, &err));
    for (int epoch = 0; epoch < EPOCHS; epoch++) {
        iso_draw_permutation((iso_draw){spec->run->seed, ISO_DRAW_SHUFFLE, (uint64_t)epoch}, TRAIN, order);
        for (int at = 0; at < STEPS; at++, done++) {
            for (int b = 0; b < BATCH; b++) rows[b] = train[order[at * BATCH + b]];
            take_step(&c, rows, done, term);
            if (!same(term, h->step[done], 0)) fail_msg("goal %d: step %d is another", spec->objective->goal, (int)done + 1);
        }
        pool(&c, term);
        if (!same(term, h->valid[epoch], 1e-12)) fail_msg("goal %d: epoch %d validates as another", spec->objective->goal, epoch + 1);
    }
    check_state(&c);
    iso_train_step_free(c.train), iso_train_step_free(c.valid), iso_train_step_free(c.rest);
    iso_vars_free(c.vars);
}

static void check_loop(const iso_net *net, const iso_objective *o, iso_schedule schedule, int64_t warmup, int64_t valid_count)
{
    heard h = {0};
    const bool flow = o->goal == ISO_GOAL_FLOW, images = net->arch == ISO_ARCH_CELEBA;
    iso_model *m = fresh(net, 3), *first = fresh(net, 3);
    iso_run run = {.path = path, .epochs = EPOCHS, .batch = BATCH, .lr = 1e-2, .eta = 0.2, .schedule = schedule, .warmup = warmup, .seed = 17,
                   .threads = 1, .force = true, .watch = {.ctx = &h, .tick = on_tick, .epoch = on_epoch}};
    iso_train_data data = {.pixels = pixels, .dim = images ? ISO_PIXELS : net->size[net->layers - 1], .train = train, .valid = valid,
                           .train_count = TRAIN, .valid_count = valid_count};
    iso_options options = {.count = 0};
    iso_loop_spec spec = {.model = m, .objective = o, .run = &run, .data = &data, .codes = flow ? codes : NULL, .mirror = images, .options = &options};
    OK(iso_loop(&spec, &err));
    assert_int_equal(h.steps, EPOCHS * STEPS);
    assert_int_equal(h.epochs, EPOCHS);
    spec.model = first;
    follow(&spec, &h);
    iso_model_free(m), iso_model_free(first);
}

static void test_images(void **unused)
{
    (void)unused;
    iso_net net = celeba;
    net.flow_depth = net.flow_length = 0;
    check_loop(&net, &(iso_objective){.goal = ISO_GOAL_ISOMETRIC, .kl_weight = 0.7, .alpha = 1e4}, ISO_SCHEDULE_COSINE, 3, VALID);
}

static void test_goals(void **unused)
{
    (void)unused;
    iso_net net = mlp;
    check_loop(&net, &(iso_objective){.goal = ISO_GOAL_VAE, .sigma = ISO_SIGMA_LEARNED, .sigma_ratio = 3, .kl_weight = 0.7}, ISO_SCHEDULE_CONSTANT, 0, VALID);
    check_loop(&net, &(iso_objective){.goal = ISO_GOAL_ISOMETRIC, .kl_weight = 1, .alpha = 1e3}, ISO_SCHEDULE_CONSTANT, 4, BATCH);
    for (int64_t count = BATCH; count <= VALID; count++) /* one batch; a second, smaller one */
        check_loop(&net, &(iso_objective){.goal = ISO_GOAL_FLAT_MANIFOLD, .sigma = ISO_SIGMA_FIXED, .kl_weight = 1, .alpha = 1e3},
                   ISO_SCHEDULE_COSINE, 0, count);
    net.flow_depth = 3, net.flow_length = 5;
    check_loop(&net, &(iso_objective){.goal = ISO_GOAL_FLOW, .beta = 0.3}, ISO_SCHEDULE_CONSTANT, 0, VALID);
}

/* Deliberately wrong, and must be seen: a term that is another, and one that is missing. */
static void test_the_check_itself(void **unused)
{
    (void)unused;
    double a[ISO_TERM_COUNT] = {1, 2, 3}, b[ISO_TERM_COUNT] = {1, 2, 3};
    assert_true(same(a, b, 0));
    b[1] = nextafter(2, 3);
    assert_true(!same(a, b, 0) && same(a, b, 1e-12));
    b[1] = NAN;
    assert_false(same(a, b, 1));
}

static int set_up(void **unused)
{
    (void)unused;
    for (int i = 0; i < IMAGES * ISO_PIXELS; i++) pixels[i] = (uint8_t)iso_draw_below((iso_draw){5, 1, 0}, (uint64_t)i, 256);
    iso_draw_normal((iso_draw){5, 2, 0}, IMAGES * MOST, codes);
    for (int i = 0; i < TRAIN; i++) train[i] = IMAGES - 1 - i;
    for (int i = 0; i < VALID; i++) valid[i] = VALID - 1 - i;
    if (!make_folder(folder, sizeof folder, "loop")) return -1;
    snprintf(path, sizeof path, "%s/model", folder), snprintf(state, sizeof state, "%s.state", path), snprintf(csv, sizeof csv, "%s.csv", path);
    return 0;
}

static int tear_down(void **unused)
{
    (void)unused;
    unlink(path), unlink(state), unlink(csv);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_check_itself), cmocka_unit_test(test_images), cmocka_unit_test(test_goals)};
    return cmocka_run_group_tests_name("train loop", tests, set_up, tear_down);
}
