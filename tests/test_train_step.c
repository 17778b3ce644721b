/* One step of training and of validation, on the reference backend: every reported term against a plain computation in double, every gradient
 * against central differences of the validation loss, and which way a learned sigma goes. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "model/train_step.h"
#include "tests/check.h"
#include "tests/models.h"

enum { M = 3, D = 8, MOST = 5 /* images */, LENGTH = 5, WIDE = 8 /* the longest layer */ };
#define GRID 0x1p-16 /* parameters are multiples of it, so that steps from them are exact in single precision */

static const uint64_t seed = 41;
static iso_error err;

/* What a step is given, in single precision as a loop does it. */
typedef struct batch {
    int64_t n, perm[MOST];
    float x[MOST * D], eps[MOST * M], v[MOST * M], delta[MOST];
} batch;

static batch draw_batch(int64_t n, bool codes)
{
    batch b = {.n = n};
    iso_draw_uniform((iso_draw){seed, 1, 0}, -1, 1, n * (codes ? M : D), b.x);
    iso_draw_normal((iso_draw){seed, 2, 0}, n * M, b.eps);
    iso_draw_normal((iso_draw){seed, 3, 0}, n * M, b.v);
    iso_draw_uniform((iso_draw){seed, 4, 0}, -0.2, 1.2, n, b.delta);
    for (int64_t i = 0; i < n; i++) b.perm[i] = (i + 2) % n;
    return b;
}

static iso_model *on_grid(const iso_net *net, float sigma)
{
    iso_model *m = fresh(net, seed);
    move_flow(m);
    *iso_model_data(m, iso_model_find(m, "sigma")) = sigma;
    for (int i = 0; i < iso_model_count(m); i++)
        for (int64_t k = 0; k < count_of(m, i); k++) iso_model_data(m, i)[k] = (float)(round(iso_model_data(m, i)[k] / GRID) * GRID);
    return m;
}

/* --- plainly */

static const float *data_of(const iso_model *m, const char *layer, const char *what)
{
    char name[64];
    snprintf(name, sizeof name, "%s.%s", layer, what);
    return iso_model_data_const(m, iso_model_find(m, name));
}

static void linear(const iso_model *m, const char *layer, int in, const double *x, int out, double *y)
{
    const float *w = data_of(m, layer, "weight"), *b = data_of(m, layer, "bias");
    for (int o = 0; o < out; o++) {
        y[o] = b[o];
        for (int i = 0; i < in; i++) y[o] += w[o * in + i] * x[i];
    }
}

/* linear, tanh, linear */
static void two_layers(const iso_model *m, const char *part, int in, const double *x, int out, double *y)
{
    char layer[32];
    double hidden[WIDE];
    const int width = iso_model_net(m)->size[1];
    snprintf(layer, sizeof layer, "%s.0", part);
    linear(m, layer, in, x, width, hidden);
    for (int i = 0; i < width; i++) hidden[i] = tanh(hidden[i]);
    snprintf(layer, sizeof layer, "%s.2", part);
    linear(m, layer, width, hidden, out, y);
}

static void subnet(const iso_model *m, char which, int k, int in, const double *a, int out, double *y)
{
    char layer[32];
    double hidden[LENGTH];
    snprintf(layer, sizeof layer, "flow.%c.%d.0", which, k);
    linear(m, layer, in, a, LENGTH, hidden);
    for (int i = 0; i < LENGTH; i++) hidden[i] = fmax(hidden[i], 0);
    snprintf(layer, sizeof layer, "flow.%c.%d.2", which, k);
    linear(m, layer, LENGTH, hidden, out, y);
}

static void flow(const iso_model *m, bool inverse, double z[M])
{
    const int depth = iso_model_net(m)->flow_depth, half = M / 2;
    for (int at = 0; at < depth; at++) {
        const int k = inverse ? depth - 1 - at : at, kept = k % 2 ? M - half : half;
        double *a = k % 2 ? z + half : z, *b = k % 2 ? z : z + half, s[M], t[M];
        subnet(m, 's', k, kept, a, M - kept, s);
        subnet(m, 't', k, kept, a, M - kept, t);
        for (int i = 0; i < M - kept; i++) b[i] = inverse ? (b[i] - t[i]) * exp(-tanh(s[i])) : b[i] * exp(tanh(s[i])) + t[i];
    }
}

static void decode(const iso_model *m, const double z[M], double x[D])
{
    double y[M];
    memcpy(y, z, sizeof y);
    flow(m, true, y);
    two_layers(m, "decoder", M, y, D, x);
}

/* J v at z: a central difference of fourth order. */
static void along(const iso_model *m, const double z[M], const double v[M], double out[D])
{
    const double h = 1e-4, step[4] = {-2 * h, -h, h, 2 * h}, weight[4] = {1 / (12 * h), -8 / (12 * h), 8 / (12 * h), -1 / (12 * h)};
    memset(out, 0, D * sizeof *out);
    for (int s = 0; s < 4; s++) {
        double at[M], x[D];
        for (int i = 0; i < M; i++) at[i] = z[i] + step[s] * v[i];
        decode(m, at, x);
        for (int d = 0; d < D; d++) out[d] += weight[s] * x[d];
    }
}

/* R and the flat-manifold term at the codes z [n, M], mixed up. */
static double distortion(const iso_model *m, const batch *b, double z[][M], double term[ISO_TERM_COUNT])
{
    double jv[MOST][D], jtjv[MOST][M], trace = 0, trace2 = 0, flat = 0;
    for (int64_t n = 0; n < b->n; n++) {
        double mixed[M], v[M];
        for (int i = 0; i < M; i++) {
            mixed[i] = b->delta[n] * z[n][i] + (1 - (double)b->delta[n]) * z[b->perm[n]][i];
            v[i] = b->v[n * M + i];
        }
        along(m, mixed, v, jv[n]);
        for (int i = 0; i < M; i++) {
            double column[D], axis[M] = {0};
            axis[i] = 1, jtjv[n][i] = 0;
            along(m, mixed, axis, column);
            for (int d = 0; d < D; d++) jtjv[n][i] += column[d] * jv[n][d];
            trace2 += jtjv[n][i] * jtjv[n][i] / (double)b->n;
        }
        for (int d = 0; d < D; d++) trace += jv[n][d] * jv[n][d] / (double)b->n;
    }
    for (int64_t n = 0; n < b->n; n++)
        for (int i = 0; i < M; i++) flat += pow(jtjv[n][i] - trace / M * b->v[n * M + i], 2) / (double)b->n;
    term[ISO_TERM_TRACE] = trace, term[ISO_TERM_TRACE2] = trace2, term[ISO_TERM_RATIO] = trace2 / (trace * trace);
    return flat;
}

static void plain_flow(const iso_model *m, const iso_objective *o, const batch *b, double term[ISO_TERM_COUNT])
{
    double z[MOST][M];
    term[ISO_TERM_NORM] = 0;
    for (int64_t n = 0; n < b->n; n++) {
        for (int i = 0; i < M; i++) z[n][i] = b->x[n * M + i];
        flow(m, false, z[n]);
        for (int i = 0; i < M; i++) term[ISO_TERM_NORM] += z[n][i] * z[n][i] / (double)b->n;
    }
    distortion(m, b, z, term);
    term[ISO_TERM_LOSS] = term[ISO_TERM_RATIO] + o->beta * term[ISO_TERM_NORM];
}

/* without_noise: the mistake to probe at mu */
static void plain_vae(const iso_model *m, const iso_objective *o, const batch *b, bool without_noise, double term[ISO_TERM_COUNT])
{
    double z[MOST][M], mu[MOST][M], squares = 0, kl = 0;
    for (int64_t n = 0; n < b->n; n++) {
        double x[D], y[D], code[2 * M];
        for (int d = 0; d < D; d++) x[d] = b->x[n * D + d];
        two_layers(m, "encoder", D, x, 2 * M, code);
        for (int i = 0; i < M; i++) {
            mu[n][i] = code[i];
            z[n][i] = code[i] + exp(code[M + i]) * b->eps[n * M + i];
            kl += (0.5 * (code[i] * code[i] + exp(2 * code[M + i]) - 1) - code[M + i]) / (double)b->n;
        }
        decode(m, z[n], y);
        for (int d = 0; d < D; d++) squares += (x[d] - y[d]) * (x[d] - y[d]) / (double)b->n;
    }
    const double mse = squares / D, sigma = *iso_model_data_const(m, iso_model_find(m, "sigma"));
    const double variance = o->sigma == ISO_SIGMA_OPTIMAL ? mse : sigma * sigma;
    double flat = distortion(m, b, without_noise ? mu : z, term);
    term[ISO_TERM_MSE] = mse;
    term[ISO_TERM_KL] = kl;
    term[ISO_TERM_NLL] = D * log(2 * M_PI * variance) / 2 + squares / (2 * variance);
    term[ISO_TERM_LOSS] = term[ISO_TERM_NLL] + o->kl_weight * kl;
    if (o->goal == ISO_GOAL_ISOMETRIC) term[ISO_TERM_LOSS] += o->alpha * term[ISO_TERM_RATIO];
    if (o->goal == ISO_GOAL_FLAT_MANIFOLD) term[ISO_TERM_LOSS] += o->alpha * flat;
}

static void plain(const iso_model *m, const iso_objective *o, const batch *b, double term[ISO_TERM_COUNT])
{
    for (int t = 0; t < ISO_TERM_COUNT; t++) term[t] = NAN;
    if (o->goal == ISO_GOAL_FLOW)
        plain_flow(m, o, b, term);
    else
        plain_vae(m, o, b, false, term);
}

/* --- as plans */

typedef struct steps {
    iso_vars *vars[2];       /* of training, which updates moments, and of validation */
    iso_train_step *of[2];
} steps;

static void set_adam(steps *s, double rate, double root)
{
    OK(iso_plan_write_f64(s->of[0]->plan, s->of[0]->adam.rate, &rate, 1, &err));
    OK(iso_plan_write_f64(s->of[0]->plan, s->of[0]->adam.root, &root, 1, &err));
}

static steps create_steps(const iso_model *m, const iso_objective *o, const batch *b)
{
    steps s;
    for (int i = 0; i < 2; i++) {
        OK(iso_vars_create(iso_backend_reference(), &s.vars[i], &err));
        OK(iso_train_step_create(iso_model_net(m), o, b->n, i == 0, s.vars[i], 1, &s.of[i], &err));
        OK(iso_model_to_vars(m, s.vars[i], &err));
        const iso_train_step *of = s.of[i];
        OK(iso_plan_write(of->plan, of->x, b->x, iso_shape_count(&of->x_shape), &err));
        if (of->eps != ISO_NONE) OK(iso_plan_write(of->plan, of->eps, b->eps, b->n * M, &err));
        OK(iso_plan_write(of->plan, of->v, b->v, b->n * M, &err));
        OK(iso_plan_write(of->plan, of->delta, b->delta, b->n, &err));
        OK(iso_plan_write_index(of->plan, of->perm, b->perm, b->n, &err));
    }
    set_adam(&s, 0, 1); /* nothing moves */
    return s;
}

static void free_steps(steps *s)
{
    for (int i = 0; i < 2; i++) iso_train_step_free(s->of[i]), iso_vars_free(s->vars[i]);
}

static double term_of(const iso_train_step *s, int t)
{
    double x;
    OK(iso_plan_read_f64(s->plan, s->term[t], &x, 1, &err));
    return x;
}

static bool near(double x, double y, double tolerance) { return fabs(x - y) <= tolerance * fmax(fabs(y), 1e-3); }

static void check_terms(const iso_train_step *s, const iso_objective *o, const double want[ISO_TERM_COUNT], bool train)
{
    for (int t = 0; t < ISO_TERM_COUNT; t++) {
        const bool probed = t == ISO_TERM_RATIO || t == ISO_TERM_TRACE || t == ISO_TERM_TRACE2;
        const bool reported = !isnan(want[t]) && !(train && probed && o->goal == ISO_GOAL_VAE);
        assert_int_equal(s->term[t] != ISO_NONE, reported);
        if (reported && !near(term_of(s, t), want[t], 1e-8))
            fail_msg("goal %d, %d images, %s: %s is %.12g, not %.12g", o->goal, (int)s->batch, train ? "training" : "validation", iso_term_text((iso_term)t),
                     term_of(s, t), want[t]);
    }
}

/* dL/dp of one number of a parameter, p on the grid. */
static double difference(steps *s, const char *name, float *p, int64_t count, int64_t k)
{
    static const double h = 8 * GRID, step[4] = {-2, -1, 1, 2}, weight[4] = {1.0 / 12, -8.0 / 12, 8.0 / 12, -1.0 / 12};
    const float was = p[k];
    double sum = 0;
    for (int i = 0; i < 4; i++) {
        p[k] = (float)(was + step[i] * h);
        OK(iso_vars_write(s->vars[1], name, p, count, &err));
        iso_plan_run(s->of[1]->plan);
        sum += weight[i] / h * term_of(s->of[1], ISO_TERM_LOSS);
    }
    p[k] = was;
    OK(iso_vars_write(s->vars[1], name, p, count, &err));
    return sum;
}

/* Adam's first moment after one step is a tenth of the gradient. */
static void check_gradients(steps *s, iso_model *m, const iso_objective *o)
{
    for (int i = 0; i < iso_model_count(m); i++) {
        const char *name = iso_model_name(m, i);
        float moment[D * WIDE], *p = iso_model_data(m, i);
        char kept[64];
        int64_t count = count_of(m, i), stride = count > 12 ? 3 : 1;
        double worst = 0, largest = 0;
        snprintf(kept, sizeof kept, "adam.m.%s", name);
        assert_int_equal(iso_vars_find(s->vars[0], kept) >= 0, iso_objective_trains(o, name));
        if (!iso_objective_trains(o, name)) continue;
        assert_true(count <= D * WIDE);
        OK(iso_vars_read(s->vars[0], kept, moment, count, &err));
        for (int64_t k = 0; k < count; k += stride) {
            double want = difference(s, name, p, count, k);
            if (strcmp(name, "sigma") == 0) want *= *p; /* it moves by its logarithm */
            worst = fmax(worst, fabs(10 * (double)moment[k] - want));
            largest = fmax(largest, fabs(want));
        }
        if (!(worst <= 1e-6 * largest + 1e-8)) fail_msg("goal %d, %d images, %s: off by %g of %g", o->goal, (int)s->of[0]->batch, name, worst, largest);
    }
}

static const iso_objective objectives[] = {
    {.goal = ISO_GOAL_VAE, .sigma = ISO_SIGMA_OPTIMAL, .kl_weight = 0.7},
    {.goal = ISO_GOAL_VAE, .sigma = ISO_SIGMA_LEARNED, .sigma_ratio = 3, .kl_weight = 0.7},
    {.goal = ISO_GOAL_ISOMETRIC, .sigma = ISO_SIGMA_OPTIMAL, .kl_weight = 0.7, .alpha = 30},
    {.goal = ISO_GOAL_FLAT_MANIFOLD, .sigma = ISO_SIGMA_FIXED, .kl_weight = 0.7, .alpha = 30},
    {.goal = ISO_GOAL_FLOW, .beta = 0.3},
};

static void test_objectives(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < sizeof objectives / sizeof *objectives; i++)
        for (int64_t n = MOST; n >= 1; n -= MOST - 1) {
            const iso_objective *o = &objectives[i];
            iso_net net = mlp;
            if (o->goal == ISO_GOAL_FLOW) net.flow_depth = 3, net.flow_length = LENGTH;
            iso_model *m = on_grid(&net, 0.75f);
            batch b = draw_batch(n, o->goal == ISO_GOAL_FLOW);
            double want[ISO_TERM_COUNT];
            steps s = create_steps(m, o, &b);
            plain(m, o, &b, want);
            for (int k = 0; k < 2; k++) {
                iso_plan_run(s.of[k]->plan);
                check_terms(s.of[k], o, want, k == 0);
            }
            check_gradients(&s, m, o);
            free_steps(&s);
            iso_model_free(m);
        }
}

/* Deliberately wrong, and must be seen: R probed at mu. */
static void test_the_check_itself(void **unused)
{
    (void)unused;
    iso_model *m = on_grid(&mlp, 0.75f);
    batch b = draw_batch(MOST, false);
    double right[ISO_TERM_COUNT], wrong[ISO_TERM_COUNT];
    plain_vae(m, &objectives[2], &b, false, right);
    plain_vae(m, &objectives[2], &b, true, wrong);
    assert_true(near(right[ISO_TERM_NLL], wrong[ISO_TERM_NLL], 1e-12) && !near(right[ISO_TERM_RATIO], wrong[ISO_TERM_RATIO], 1e-4));
    iso_model_free(m);
}

/* Adam's first step is of length 1 whatever the gradient: sigma goes towards the root of the mean squared error by its own rate. */
static void test_learned_sigma(void **unused)
{
    (void)unused;
    static const float sigmas[] = {0.125f, 4};
    const double lr = 1e-3;
    for (int i = 0; i < 2; i++) {
        iso_model *m = on_grid(&mlp, sigmas[i]);
        batch b = draw_batch(MOST, false);
        const iso_objective *o = &objectives[1];
        steps s = create_steps(m, o, &b);
        float after;
        set_adam(&s, iso_adam_rate(lr, 1), iso_adam_root(1));
        iso_plan_run(s.of[0]->plan);
        OK(iso_vars_read(s.vars[0], "sigma", &after, 1, &err));
        double towards = log(sqrt(term_of(s.of[0], ISO_TERM_MSE)) / sigmas[i]);
        assert_true((towards > 0) == (i == 0));
        assert_true(near(log(after / sigmas[i]), copysign(o->sigma_ratio * lr, towards), 1e-3));
        free_steps(&s);
        iso_model_free(m);
    }
}

int main(void)
{
    printf("seed %d\n", (int)seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_check_itself), cmocka_unit_test(test_objectives), cmocka_unit_test(test_learned_sigma)};
    return cmocka_run_group_tests_name("train step", tests, NULL, NULL);
}
