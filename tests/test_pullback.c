/* test_pullback.c: metrics against a linear decoder's own and against central differences in double, the mixup, what is left
 * out, reconstructions, principal directions, and models that have no decoder. */
#include <math.h>
#include <omp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/memory.h"
#include "eval/pullback.h"
#include "tests/check.h"
#include "tests/models.h"

enum { COUNT = 11 }; /* no multiple of any batch */
static const uint64_t seed = 77;
static uint8_t *pixels; /* [COUNT, 64, 64, 3] */
static iso_error err;

static void *room(size_t n, size_t size)
{
    void *x = iso_calloc(n, size);
    assert_non_null(x);
    return x;
}

/* Smooth pictures: each another mixture of a few waves. */
static int make_images(void **state)
{
    (void)state;
    pixels = room(COUNT, ISO_PIXELS);
    for (int i = 0; i < COUNT; i++) {
        float a[6];
        iso_draw_uniform((iso_draw){seed, 3, (uint64_t)i}, -1, 1, 6, a);
        for (int p = 0; p < ISO_PIXELS; p++) {
            double x = (double)(p / 3 % 64) / 20, y = (double)(p / 192) / 20;
            double v = a[0] * sin(x + a[1] * y) + a[2] * cos(y * 2) + a[3 + p % 3];
            pixels[i * ISO_PIXELS + p] = (uint8_t)fmin(255, fmax(0, 128 + 60 * v));
        }
    }
    return 0;
}

static int clear(void **state)
{
    (void)state;
    free(pixels);
    return 0;
}

static iso_pullback measure(const iso_model *m, int64_t n, double eta, uint64_t from)
{
    iso_pullback p = {0};
    if (iso_pullback_measure(m, pixels, n, &(iso_pullback_spec){.eta = eta, .seed = from}, &p, &err))
        fail_msg("%s", err.message);
    return p;
}

static float *parameter(iso_model *m, const char *name)
{
    int i = iso_model_find(m, name);
    assert_true(i >= 0);
    return iso_model_data(m, i);
}

/* The largest difference of two matrices over the largest number of the second. */
static double apart(const double *a, const double *b, int n)
{
    double most = 0, scale = 0;
    for (int i = 0; i < n; i++) {
        most = fmax(most, fabs(a[i] - b[i]));
        scale = fmax(scale, fabs(b[i]));
    }
    for (int i = 0; i < n; i++)
        if (!isfinite(a[i]) || !isfinite(b[i])) return INFINITY;
    return most / scale;
}

/* --- a decoder whose Jacobian is its weight */

static void test_linear(void **unused)
{
    (void)unused;
    enum { M = 19 }; /* two runs of tangents, the second not full */
    iso_net net = {
        .arch = ISO_ARCH_MLP, .latent = M, .layers = 2, .size = {M, ISO_PIXELS}, .act = "relu", .out = "linear"};
    iso_model *m = fresh(&net, 5);
    const float *w = parameter(m, "decoder.0.weight"); /* [ISO_PIXELS, M] */
    double want[M * M] = {0}, trace = 0;
    for (int d = 0; d < ISO_PIXELS; d++)
        for (int i = 0; i < M; i++)
            for (int k = 0; k < M; k++) want[i * M + k] += (double)w[d * M + i] * w[d * M + k];
    for (int i = 0; i < M; i++) trace += want[i * M + i] / M;
    iso_pullback p = measure(m, COUNT, 0.2, 1);
    assert_int_equal(p.images, COUNT);
    assert_int_equal(p.metrics, COUNT);
    assert_int_equal(p.left_out, 0);
    assert_int_equal(p.m, M);
    for (int i = 0; i < COUNT; i++)
        if (!(apart(p.metric + i * M * M, want, M * M) < 1e-12))
            fail_msg("sample %d: %g", i, apart(p.metric + i * M * M, want, M * M));
    assert_true(fabs(p.trace / trace - 1) < 1e-12);
    double squares = 0;
    for (int i = 0; i < M * M; i++) squares += want[i] * want[i];
    assert_true(fabs(p.ratio / (squares / (M * M * trace * trace)) - 1) < 1e-12);
    assert_true(p.geometry.vor < 1e-12 && p.geometry.vpres < 1e-12 && p.geometry.mcn > 1);
    iso_geometry one;
    if (iso_geometry_metrics(1, M, want, &one, &err)) fail_msg("%s", err.message);
    assert_true(fabs(p.geometry.mcn / one.mcn - 1) < 1e-9);
    assert_true(fabs(p.magnification - one.log_det_median / 2 / log(10)) < 1e-9);
    assert_true(p.magnification_spread < 1e-9);
    /* Deliberately wrong, and must be seen: one weight another. */
    want[3] += 1e-9 * want[0];
    assert_false(apart(p.metric, want, M * M) < 1e-12);
    iso_pullback_free(&p);
    iso_pullback_free(&p); /* a zeroed one is fine */
    iso_model_free(m);
}

/* --- central differences in double */

typedef struct reference {
    iso_graph *g;
    iso_vars *vars;
    iso_plan *plan;
    iso_node z, x;
    int m;
} reference;

/* decoder o flow^-1 at 2m codes at once, on the reference backend */
static reference reference_create(const iso_model *model)
{
    const iso_net *net = iso_model_net(model);
    reference r = {.g = iso_graph_create(), .m = net->latent};
    r.z = iso_input(r.g, "z", iso_shape2(2 * r.m, r.m));
    r.x = iso_net_decode(r.g, net, net->flow_depth ? iso_flow_inverse(r.g, net, r.z) : r.z);
    if (iso_graph_check(r.g, &err) || iso_vars_create(iso_backend_reference(), &r.vars, &err) ||
        iso_vars_add_states(r.vars, r.g, 1, &r.x, &err) || iso_model_to_vars(model, r.vars, &err) ||
        iso_plan_create(r.g, &(iso_plan_spec){.vars = r.vars, .outputs = &r.x, .output_count = 1}, &r.plan, &err))
        fail_msg("%s", err.message);
    return r;
}

static void reference_free(reference *r) { iso_plan_free(r->plan), iso_vars_free(r->vars), iso_graph_free(r->g); }

static void reference_metric(reference *r, const float *code, double *G)
{
    const double h = 1e-7;
    int m = r->m;
    double *z = room((size_t)(2 * m * m), sizeof *z), *x = room((size_t)(2 * m) * ISO_PIXELS, sizeof *x);
    for (int k = 0; k < 2 * m; k++)
        for (int i = 0; i < m; i++) z[k * m + i] = (double)code[i] + (i == k / 2 ? (k % 2 ? -h : h) : 0);
    if (iso_plan_write_f64(r->plan, r->z, z, 2 * m * m, &err)) fail_msg("%s", err.message);
    iso_plan_run(r->plan);
    if (iso_plan_read_f64(r->plan, r->x, x, (int64_t)2 * m * ISO_PIXELS, &err)) fail_msg("%s", err.message);
    for (int k = 0; k < m; k++)
        for (int d = 0; d < ISO_PIXELS; d++)
            x[k * ISO_PIXELS + d] = (x[2 * k * ISO_PIXELS + d] - x[(2 * k + 1) * ISO_PIXELS + d]) / (2 * h);
    for (int i = 0; i < m; i++)
        for (int k = 0; k < m; k++) {
            G[i * m + k] = 0;
            for (int d = 0; d < ISO_PIXELS; d++) G[i * m + k] += x[i * ISO_PIXELS + d] * x[k * ISO_PIXELS + d];
        }
    free(z);
    free(x);
}

static void check_differences(const iso_net *net)
{
    iso_model *m = fresh(net, 9);
    move_flow(m);
    int dim = net->latent;
    iso_pullback p = measure(m, 5, 0.2, 2);
    reference r = reference_create(m);
    double *want = room((size_t)(dim * dim), sizeof *want);
    assert_int_equal(p.metrics, 5);
    for (int i = 0; i < 5; i++) {
        reference_metric(&r, p.mixed + i * dim, want);
        double off = apart(p.metric + i * dim * dim, want, dim * dim);
        if (!(off < 1e-4)) fail_msg("flow %d, sample %d: %g", net->flow_depth, i, off);
        /* Deliberately wrong, and must be seen: at another place. */
        float other[8];
        for (int k = 0; k < dim; k++) other[k] = p.mixed[i * dim + k] + 1;
        reference_metric(&r, other, want);
        assert_false(apart(p.metric + i * dim * dim, want, dim * dim) < 1e-4);
    }
    free(want);
    reference_free(&r);
    iso_pullback_free(&p);
    iso_model_free(m);
}

static void test_differences(void **unused)
{
    (void)unused;
    iso_net plain = celeba;
    plain.flow_depth = plain.flow_length = 0;
    check_differences(&plain);
    check_differences(&celeba);
}

/* --- codes and their mixture */

/* The j whose code, with i's, comes nearest to mixed = delta z_i + (1 - delta) z_j; it must come very near. */
static int partner(const iso_pullback *p, int i, double eta, double *of)
{
    double least = INFINITY;
    int best = 0;
    for (int j = 0; j < p->images; j++) {
        double top = 0, bottom = 0, off = 0;
        for (int k = 0; k < p->m; k++) {
            double d = (double)p->code[i * p->m + k] - p->code[j * p->m + k];
            top += d * (p->mixed[i * p->m + k] - (double)p->code[j * p->m + k]);
            bottom += d * d;
        }
        double delta = i == j ? 0 : top / bottom;
        if (delta < -eta || delta > 1 + eta) continue;
        for (int k = 0; k < p->m; k++) {
            double mixed = delta * p->code[i * p->m + k] + (1 - delta) * p->code[j * p->m + k];
            off = fmax(off, fabs(mixed - p->mixed[i * p->m + k]));
        }
        if (off < least) least = off, best = j, *of = delta;
    }
    assert_true(least < 1e-6 * (1 + eta));
    return best;
}

static double log10_volume(int m, const double *G)
{
    double L[8][8] = {{0}}, sum = 0; /* Cholesky's */
    for (int i = 0; i < m; i++)
        for (int k = 0; k <= i; k++) {
            double left = G[i * m + k];
            for (int l = 0; l < k; l++) left -= L[i][l] * L[k][l];
            L[i][k] = k < i ? left / L[k][k] : sqrt(left);
            if (k == i) sum += log10(L[i][i]);
        }
    return sum;
}

/* Standard deviation of log10 sqrt det G. */
static double volume_spread(const iso_pullback *p)
{
    double mean = 0, square = 0;
    for (int i = 0; i < p->images; i++) mean += log10_volume(p->m, p->metric + i * p->m * p->m) / (double)p->images;
    for (int i = 0; i < p->images; i++) square += pow(log10_volume(p->m, p->metric + i * p->m * p->m) - mean, 2) / (double)p->images;
    return sqrt(square);
}

static void test_codes(void **unused)
{
    (void)unused;
    iso_model *m = fresh(&celeba, 9);
    move_flow(m);
    iso_encoder *e = NULL;
    float vectors[COUNT * 5];
    if (iso_encoder_create(m, 3, &e, &err) || iso_encoder_run(e, pixels, COUNT, vectors, &err))
        fail_msg("%s", err.message);
    iso_encoder_free(e);
    iso_pullback p = measure(m, COUNT, 0.2, 3);
    bool taken[COUNT] = {0};
    double delta = NAN, from[COUNT];
    assert_true(volume_spread(&p) > 1e-3 && fabs(p.magnification_spread / volume_spread(&p) - 1) < 1e-9);
    for (int i = 0; i < COUNT; i++) {
        for (int k = 0; k < 5; k++) assert_true(fabsf(p.code[i * 5 + k] - vectors[i * 5 + k]) < 1e-5f);
        int j = partner(&p, i, 0.2, &delta);
        assert_false(taken[j]); /* a permutation */
        taken[j] = true;
        from[i] = i == j ? NAN : (delta + 0.2) / 1.4; /* of what is drawn in [0, 1) */
    }
    /* Another eta: the same draw in another range. */
    static const double etas[] = {0, 3};
    for (int e = 0; e < 2; e++) {
        iso_pullback wide = measure(m, COUNT, etas[e], 3);
        double least = INFINITY, most = -INFINITY;
        for (int i = 0; i < COUNT; i++) {
            partner(&wide, i, etas[e], &delta);
            if (isnan(from[i])) continue;
            least = fmin(least, delta), most = fmax(most, delta);
            assert_true(fabs((delta + etas[e]) / (1 + 2 * etas[e]) - from[i]) < 1e-4);
        }
        assert_true(e == 0 || (least < -0.2 && most > 1.2));
        iso_pullback_free(&wide);
    }
    /* The same again, and with another seed another mixture of the same codes. */
    iso_pullback again = measure(m, COUNT, 0.2, 3), other = measure(m, COUNT, 0.2, 4);
    assert_memory_equal(p.metric, again.metric, COUNT * 25 * sizeof *p.metric);
    assert_memory_equal(&p.geometry, &again.geometry, sizeof p.geometry);
    assert_memory_equal(p.code, other.code, sizeof vectors);
    assert_memory_not_equal(p.mixed, other.mixed, sizeof vectors);
    assert_true(p.mse == other.mse);
    iso_pullback_free(&p), iso_pullback_free(&again), iso_pullback_free(&other);
    /* One image: mixed up with itself, and nothing to compare it with. */
    p = measure(m, 1, 0.2, 3);
    for (int k = 0; k < 5; k++) assert_true(fabsf(p.mixed[k] - p.code[k]) < 1e-6f);
    assert_true(isnan(p.geometry.vor) && isnan(p.geometry.vpres) && isnan(p.magnification_spread));
    assert_true(isfinite(p.geometry.mcn) && isfinite(p.geometry.iso) && isfinite(p.magnification));
    iso_pullback_free(&p);
    iso_model_free(m);
}

static void test_threads(void **unused)
{
    (void)unused;
    iso_model *m = fresh(&celeba, 9);
    iso_pullback p[2] = {{0}};
    for (int t = 0; t < 2; t++) {
        iso_pullback_spec spec = {.eta = 0.2, .seed = 3, .threads = t + 1};
        if (iso_pullback_measure(m, pixels, COUNT, &spec, &p[t], &err)) fail_msg("%s", err.message);
    }
    assert_true(apart(p[0].metric, p[1].metric, COUNT * 25) < 1e-5);
    iso_pullback_free(&p[0]), iso_pullback_free(&p[1]);
    iso_model_free(m);
}

/* --- reconstructions */

static void test_reconstructions(void **unused)
{
    (void)unused;
    iso_net plain = celeba, twice = celeba;
    plain.flow_depth = plain.flow_length = 0;
    twice.views = 2;
    iso_model *m = fresh(&plain, 9), *flow = fresh(&celeba, 9), *views = fresh(&twice, 9);
    move_flow(flow);
    uint8_t *decoded = room(COUNT, ISO_PIXELS), *again = room(COUNT, ISO_PIXELS);
    iso_pullback p = measure(m, COUNT, 0.2, 3);
    double mse = -1, sum = 0;
    if (iso_pullback_reconstruct(m, pixels, COUNT, decoded, &mse, &err)) fail_msg("%s", err.message);
    assert_true(mse == p.mse);
    for (int i = 0; i < COUNT * ISO_PIXELS; i++)
        sum += pow((pixels[i] - (double)decoded[i]) / 127.5, 2) / (COUNT * ISO_PIXELS);
    assert_true(fabs(sum / mse - 1) < 1e-2); /* bytes round */
    if (iso_pullback_decode(m, p.code, COUNT, again, &err)) fail_msg("%s", err.message);
    for (int i = 0; i < COUNT * ISO_PIXELS; i++) assert_true(abs(again[i] - decoded[i]) <= 1);
    /* Through a flow and back, and of a model with two views, the error is the same. */
    double other;
    if (iso_pullback_reconstruct(flow, pixels, COUNT, NULL, &other, &err)) fail_msg("%s", err.message);
    assert_true(fabs(other / mse - 1) < 1e-4);
    if (iso_pullback_reconstruct(views, pixels, COUNT, again, &other, &err)) fail_msg("%s", err.message);
    assert_true(fabs(other / mse - 1) < 1e-4);
    iso_pullback q = measure(views, COUNT, 0.2, 3);
    assert_int_equal(q.metrics, COUNT);
    iso_pullback_free(&p), iso_pullback_free(&q);
    free(decoded), free(again);
    iso_model_free(m), iso_model_free(flow), iso_model_free(views);
}

/* --- what is left out */

/* Images of one brightness b in [-1, 1] have the code (b, 1), decoded by relu units: below 0 the first is dead. */
static iso_model *half_dead(void)
{
    iso_net net = {
        .arch = ISO_ARCH_MLP, .latent = 2, .layers = 3, .size = {2, 2, ISO_PIXELS}, .act = "relu", .out = "linear"};
    iso_model *m = NULL;
    if (iso_model_create(&net, &m, &err)) fail_msg("%s", err.message);
    float *w = parameter(m, "encoder.0.weight");
    for (int i = 0; i < ISO_PIXELS; i++) w[i] = 1.0f / ISO_PIXELS, w[ISO_PIXELS + i] = -1.0f / ISO_PIXELS;
    parameter(m, "encoder.2.weight")[0] = 1, parameter(m, "encoder.2.weight")[1] = -1;
    parameter(m, "encoder.2.bias")[1] = 1;
    parameter(m, "decoder.0.weight")[0] = parameter(m, "decoder.0.weight")[3] = 1;
    iso_draw_uniform((iso_draw){seed, 8, 0}, -0.01, 0.01, 2 * ISO_PIXELS, parameter(m, "decoder.2.weight"));
    return m;
}

static void test_left_out(void **unused)
{
    (void)unused;
    iso_model *m = half_dead();
    uint8_t *gray = room(COUNT, ISO_PIXELS);
    for (int i = 0; i < COUNT; i++) memset(gray + i * ISO_PIXELS, 20 * i + 20, ISO_PIXELS);
    iso_pullback p = {0};
    if (iso_pullback_measure(m, gray, COUNT, &(iso_pullback_spec){.seed = 5}, &p, &err)) fail_msg("%s", err.message);
    double good[COUNT * 4];
    int left = 0, kept = 0;
    for (int i = 0; i < COUNT; i++) {
        bool dead = p.mixed[2 * i] <= 0;
        assert_true(isnan(p.metric[4 * i]) == dead && isnan(p.metric[4 * i + 3]) == dead);
        if (dead)
            left++;
        else
            memcpy(good + 4 * kept++, p.metric + 4 * i, 4 * sizeof *good);
    }
    assert_true(left > 0 && kept > 1);
    assert_int_equal(p.left_out, left);
    assert_int_equal(p.metrics, kept);
    assert_non_null(strstr(p.left_out_reason, "not positive definite"));
    iso_geometry g;
    if (iso_geometry_metrics(kept, 2, good, &g, &err)) fail_msg("%s", err.message);
    assert_memory_equal(&g, &p.geometry, sizeof g);
    iso_pullback_free(&p);
    iso_model_free(m);
    free(gray);
}

static void test_dead(void **unused)
{
    (void)unused;
    iso_net plain = celeba;
    plain.flow_depth = plain.flow_length = 0;
    iso_model *m = NULL;
    if (iso_model_create(&plain, &m, &err)) fail_msg("%s", err.message);
    iso_pullback p = {0};
    double want = 0;
    for (int i = 0; i < COUNT * ISO_PIXELS; i++) want += pow(pixels[i] / 127.5 - 1, 2) / (COUNT * ISO_PIXELS);
    assert_int_equal(iso_pullback_measure(m, pixels, COUNT, &(iso_pullback_spec){.eta = 0.2}, &p, &err), ISO_E_NUMERIC);
    assert_non_null(strstr(err.message, "none of the 11 metrics"));
    assert_true(fabs(p.mse / want - 1) < 1e-6); /* decoded: gray */
    assert_int_equal(p.metrics, 0);
    assert_int_equal(p.left_out, COUNT);
    assert_true(isnan(p.geometry.vor) && isnan(p.geometry.mcn_median) && isnan(p.magnification) && isnan(p.trace) &&
                isnan(p.ratio));
    iso_pullback_free(&p);
    iso_model_free(m);
}

/* --- refusals */

static void stop_at_once(iso_progress *p) { iso_interrupt_set(p->done > 0); }

static int64_t seen;

static void count_progress(iso_progress *p)
{
    assert_true((p->done > seen || p->done == 0) && p->done <= p->total && p->total == COUNT * 5);
    seen = p->done;
}

static void refuse(const iso_model *m, int64_t n, const iso_pullback_spec *spec, iso_status status, const char *part)
{
    iso_pullback p, before;
    memset(&p, 0x5a, sizeof p);
    before = p;
    err = (iso_error){0};
    assert_int_equal(iso_pullback_measure(m, pixels, n, spec, &p, &err), status);
    if (!strstr(err.message, part)) fail_msg("\"%s\" does not say \"%s\"", err.message, part);
    assert_memory_equal(&p, &before, sizeof p);
}

static void test_errors(void **unused)
{
    (void)unused;
    iso_pullback_spec spec = {.eta = 0.2}, bad = {.eta = NAN};
    iso_net pca = {.arch = ISO_ARCH_PCA, .latent = 3}, supervised = celeba;
    supervised.flow_depth = supervised.flow_length = 0, supervised.classes = 4;
    iso_model *m[] = {fresh(&celeba, 1), NULL, NULL, fresh(&mlp, 1)};
    if (iso_model_create(&pca, &m[1], &err) || iso_model_create(&supervised, &m[2], &err)) fail_msg("%s", err.message);
    refuse(m[0], 0, &spec, ISO_E_ARGUMENT, "no images");
    refuse(m[0], 3, &bad, ISO_E_ARGUMENT, "eta");
    refuse(m[1], 3, &spec, ISO_E_UNSUPPORTED, "decoder");
    refuse(m[2], 3, &spec, ISO_E_UNSUPPORTED, "decoder");
    refuse(m[3], 3, &spec, ISO_E_UNSUPPORTED, "8 numbers");
    spec.progress = &(iso_progress){.show = stop_at_once};
    refuse(m[0], COUNT, &spec, ISO_E_INTERRUPTED, "interrupted");
    iso_interrupt_set(false);
    uint8_t out[ISO_PIXELS];
    float code[8] = {0};
    assert_int_equal(iso_pullback_decode(m[1], code, 1, out, &err), ISO_E_UNSUPPORTED);
    assert_int_equal(iso_pullback_reconstruct(m[2], pixels, 1, out, NULL, &err), ISO_E_UNSUPPORTED);
    iso_pullback p = {0};
    spec = (iso_pullback_spec){.eta = 0.2, .progress = &(iso_progress){.show = count_progress}};
    if (iso_pullback_measure(m[0], pixels, COUNT, &spec, &p, &err)) fail_msg("%s", err.message);
    assert_int_equal(seen, COUNT * 5);
    iso_pullback_free(&p);
    for (int i = 0; i < 4; i++) iso_model_free(m[i]);
}

/* --- principal directions */

static void test_axes(void **unused)
{
    (void)unused;
    enum { N = 600, M = 3 }; /* more than a block */
    static const double direction[M][M] = {
        {2.0 / 3, 2.0 / 3, 1.0 / 3}, {-2.0 / 3, 1.0 / 3, 2.0 / 3}, {1.0 / 3, -2.0 / 3, 2.0 / 3}};
    static const double size[M] = {1, 7, 0.2};
    float codes[N * M], normal[N * M];
    double mean[M], axis[M * M], deviation[M];
    iso_draw_normal((iso_draw){seed, 4, 0}, N * M, normal);
    for (int i = 0; i < N; i++)
        for (int k = 0; k < M; k++) {
            codes[i * M + k] = 100;
            for (int d = 0; d < M; d++) codes[i * M + k] += (float)(size[d] * normal[i * M + d] * direction[d][k]);
        }
    if (iso_pullback_axes(codes, N, M, mean, axis, deviation, &err)) fail_msg("%s", err.message);
    assert_true(deviation[0] > deviation[1] && deviation[1] > deviation[2]);
    for (int a = 0; a < M; a++) {
        double center = 0, square = 0;
        for (int b = 0; b < M; b++) {
            double dot = 0;
            for (int k = 0; k < M; k++) dot += axis[a * M + k] * axis[b * M + k];
            assert_true(fabs(dot - (a == b)) < 1e-12);
        }
        for (int i = 0; i < N; i++) {
            double along = 0;
            for (int k = 0; k < M; k++) along += axis[a * M + k] * (codes[i * M + k] - mean[k]);
            center += along / N, square += along * along / N;
        }
        assert_true(fabs(center) < 1e-10 && fabs(sqrt(square) / deviation[a] - 1) < 1e-9);
    }
    double dot =
        0; /* the strongest is the second that was put in, with its largest number positive: -2/3 or 2/3, all but equal */
    for (int k = 0; k < M; k++) dot += axis[k] * direction[1][k];
    assert_true(fabs(dot) > 0.999);
    /* One code, and codes all alike: no spread, still directions. */
    if (iso_pullback_axes(codes, 1, M, mean, axis, deviation, &err)) fail_msg("%s", err.message);
    assert_true(deviation[0] == 0 && deviation[2] == 0);
    assert_int_equal(iso_pullback_axes(codes, 0, M, mean, axis, deviation, &err), ISO_E_ARGUMENT);
    codes[7] = NAN;
    assert_int_equal(iso_pullback_axes(codes, N, M, mean, axis, deviation, &err), ISO_E_NUMERIC);
}

int main(void)
{
    printf("seed %llu\n", (unsigned long long)seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear),  cmocka_unit_test(test_differences),     cmocka_unit_test(test_codes),
        cmocka_unit_test(test_threads), cmocka_unit_test(test_reconstructions), cmocka_unit_test(test_left_out),
        cmocka_unit_test(test_dead),    cmocka_unit_test(test_errors),          cmocka_unit_test(test_axes),
    };
    return cmocka_run_group_tests_name("pullback", tests, make_images, clear);
}
