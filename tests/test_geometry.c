/* test_geometry.c: the geometry of a batch of metrics: known answers, closed forms in two dimensions, what must not change it,
 * near singular metrics, and those that are none. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "eval/geometry.h"
#include "tests/check.h"
#include "tests/random.h"

static iso_error err;

static double *numbers(int64_t n)
{
    double *x = iso_calloc((size_t)n, sizeof *x);
    assert_non_null(x);
    return x;
}

static iso_geometry measure(int64_t n, int m, const double *G)
{
    iso_geometry g;
    memset(&g, 0xff, sizeof g);
    if (iso_geometry_metrics(n, m, G, &g, &err)) fail_msg("%s", err.message);
    return g;
}

/* Relative to numbers of about 1 and more. */
static bool near(double got, double want, double tolerance) { return fabs(got - want) <= tolerance * fmax(1, fabs(want)); }

static void must_be_near(double got, double want, double tolerance, int line)
{
    if (!near(got, want, tolerance)) fail_msg("line %d: %.17g, not %.17g", line, got, want);
}
#define NEAR(got, want, tolerance) must_be_near(got, want, tolerance, __LINE__)

/* Jt J of random J, with something on the diagonal that keeps it away from singular. */
static void draw_metric(int m, double *G)
{
    double *J = numbers((int64_t)m * m);
    for (int i = 0; i < m * m; i++) J[i] = either();
    for (int i = 0; i < m; i++)
        for (int j = 0; j < m; j++) {
            double sum = i == j ? 0.1 : 0;
            for (int k = 0; k < m; k++) sum += J[k * m + i] * J[k * m + j];
            G[i * m + j] = sum;
        }
    free(J);
}

/* G := At G A */
static void change_coordinates(int m, const double *A, double *G)
{
    double *half = numbers((int64_t)m * m);
    for (int i = 0; i < m; i++)
        for (int j = 0; j < m; j++)
            for (int k = 0; k < m; k++) half[i * m + j] += G[i * m + k] * A[k * m + j];
    for (int i = 0; i < m; i++)
        for (int j = 0; j < m; j++) {
            G[i * m + j] = 0;
            for (int k = 0; k < m; k++) G[i * m + j] += A[k * m + i] * half[k * m + j];
        }
    free(half);
}

/* A reflection: orthogonal, and full. */
static void draw_reflection(int m, double *Q)
{
    double *u = numbers(m), square = 0;
    for (int i = 0; i < m; i++) u[i] = either(), square += u[i] * u[i];
    for (int i = 0; i < m; i++)
        for (int j = 0; j < m; j++) Q[i * m + j] = (i == j) - 2 * u[i] * u[j] / square;
    free(u);
}

static void set_diagonal(int m, const double *d, double *G)
{
    for (int i = 0; i < m; i++)
        for (int j = 0; j < m; j++) G[i * m + j] = i == j ? d[i] : 0;
}

/* --- known answers */

static void test_identity(void **unused)
{
    (void)unused;
    static const double scales[] = {1, 1e-9, 4e6};
    double d[7], G[3 * 49];
    for (int s = 0; s < 3; s++) {
        for (int i = 0; i < 7; i++) d[i] = scales[s];
        for (int k = 0; k < 3; k++) set_diagonal(7, d, G + k * 49);
        iso_geometry g = measure(3, 7, G);
        NEAR(g.vor, 0, 1e-14), NEAR(g.mcn, 1, 1e-14), NEAR(g.cn, 0, 1e-14), NEAR(g.vpres, 0, 1e-14), NEAR(g.iso, 0, 1e-14);
        NEAR(g.vor_median, 0, 1e-14), NEAR(g.mcn_median, 1, 1e-14), NEAR(g.cn_median, 0, 1e-14);
        assert_int_equal(g.eigenvalues, 21);
        assert_int_equal(g.tiny, 0);
    }
}

/* Two conformal metrics, I and c I. */
static void test_scaled(void **unused)
{
    (void)unused;
    enum { M = 5 };
    double c = 7, one[M], other[M], G[2 * M * M], l = log(c);
    for (int i = 0; i < M; i++) one[i] = 1, other[i] = c;
    set_diagonal(M, one, G), set_diagonal(M, other, G + M * M);
    iso_geometry g = measure(2, M, G);
    double a = log(2 / (1 + c)), b = log(2 * c / (1 + c)); /* against the mean (1 + c) / 2 */
    NEAR(g.vor, M * (a * a + b * b) / 2, 1e-13);
    NEAR(g.mcn, 1, 1e-14), NEAR(g.cn, 0, 1e-14);
    NEAR(g.vpres, M * M * l * l / 4, 1e-13), NEAR(g.iso, l * l / 4, 1e-13);
}

/* Diagonal metrics, written down; three of them, so that the median is the one in the middle. */
static void test_diagonal(void **unused)
{
    (void)unused;
    static const double d[3][2] = {{1, 2}, {3, 12}, {5, 5e9}};
    double G[12], mean[2] = {3, (2 + 12 + 5e9) / 3}, vor[3], l[6], vpres = 0, iso = 0, det[3], m = 0, md = 0;
    for (int k = 0; k < 3; k++) {
        set_diagonal(2, d[k], G + 4 * k);
        vor[k] = 0;
        for (int i = 0; i < 2; i++) vor[k] += pow(log(d[k][i] / mean[i]), 2), l[2 * k + i] = log(d[k][i]), m += l[2 * k + i] / 6;
        det[k] = l[2 * k] + l[2 * k + 1], md += det[k] / 3;
    }
    for (int k = 0; k < 3; k++) vpres += pow(det[k] - md, 2) / 3;
    for (int i = 0; i < 6; i++) iso += pow(l[i] - m, 2) / 6;
    iso_geometry g = measure(3, 2, G);
    NEAR(g.vor, (vor[0] + vor[1] + vor[2]) / 3, 1e-13);
    NEAR(g.vor_median, vor[1], 1e-13); /* the third is near the mean, the first farthest from it */
    NEAR(g.mcn, (2 + 4 + 1e9) / 3, 1e-13), NEAR(g.mcn_median, 4, 1e-14);
    NEAR(g.cn, (0.5 + 0.75 + 1 - 1e-9) / 3, 1e-13), NEAR(g.cn_median, 0.75, 1e-14);
    NEAR(g.vpres, vpres, 1e-13), NEAR(g.iso, iso, 1e-13);
    assert_int_equal(g.tiny, 1);
    assert_int_equal(measure(2, 2, G).tiny, 0);
    NEAR(measure(2, 2, G).mcn_median, 3, 1e-14); /* of an even number: between the two */
}

/* The eigenvalues of a 2 x 2 matrix from its trace and determinant. */
static void two(double trace, double det, double out[2])
{
    double root = sqrt(trace * trace / 4 - det);
    out[0] = trace / 2 + root;
    out[1] = det / out[0];
}

static void test_closed_form(void **unused)
{
    (void)unused;
    enum { N = 40 };
    double *G = numbers(4 * N), B[4] = {0}, vor = 0, mcn = 0, e[2], x[2];
    for (int k = 0; k < N; k++) {
        draw_metric(2, G + 4 * k);
        for (int i = 0; i < 4; i++) B[i] += G[4 * k + i] / N;
    }
    double det = B[0] * B[3] - B[1] * B[1];
    for (int k = 0; k < N; k++) {
        const double *g = G + 4 * k;
        double own = g[0] * g[3] - g[1] * g[1];
        two(g[0] + g[3], own, e);
        two((B[3] * g[0] - 2 * B[1] * g[1] + B[0] * g[3]) / det, own / det, x); /* of B^-1 G */
        vor += (log(x[0]) * log(x[0]) + log(x[1]) * log(x[1])) / N;
        mcn += e[0] / e[1] / N;
    }
    iso_geometry g = measure(N, 2, G);
    NEAR(g.vor, vor, 1e-11), NEAR(g.mcn, mcn, 1e-11);
    /* Deliberately wrong, and must be seen: one element of one metric off by a thousandth. */
    G[4 * 17] *= 1.001;
    g = measure(N, 2, G);
    assert_false(near(g.vor, vor, 1e-11));
    assert_false(near(g.mcn, mcn, 1e-11));
    free(G);
}

/* --- what must not matter */

static void test_invariances(void **unused)
{
    (void)unused;
    enum { N = 6, M = 9 };
    double *G = numbers(N * M * M), *H = numbers(N * M * M), A[M * M];
    for (int k = 0; k < N; k++) draw_metric(M, G + k * M * M);
    iso_geometry g = measure(N, M, G), h;

    for (int i = 0; i < N * M * M; i++) H[i] = 1e-5 * G[i];
    h = measure(N, M, H);
    NEAR(h.vor, g.vor, 1e-10), NEAR(h.mcn, g.mcn, 1e-10), NEAR(h.cn, g.cn, 1e-10), NEAR(h.vpres, g.vpres, 1e-10), NEAR(h.iso, g.iso, 1e-10);

    /* One change of coordinates for all leaves VoR and VPres alone, but not the rest. */
    for (int i = 0; i < M * M; i++) A[i] = either() + (i % (M + 1) == 0 ? 2 : 0);
    memcpy(H, G, N * M * M * sizeof *H);
    for (int k = 0; k < N; k++) change_coordinates(M, A, H + k * M * M);
    h = measure(N, M, H);
    NEAR(h.vor, g.vor, 1e-8), NEAR(h.vpres, g.vpres, 1e-8);
    assert_false(near(h.mcn, g.mcn, 1e-8));

    /* A rotation of each leaves what depends on its own eigenvalues, but not VoR. */
    memcpy(H, G, N * M * M * sizeof *H);
    for (int k = 0; k < N; k++) draw_reflection(M, A), change_coordinates(M, A, H + k * M * M);
    h = measure(N, M, H);
    NEAR(h.mcn, g.mcn, 1e-10), NEAR(h.cn, g.cn, 1e-10), NEAR(h.vpres, g.vpres, 1e-10), NEAR(h.iso, g.iso, 1e-10);
    NEAR(h.mcn_median, g.mcn_median, 1e-10), NEAR(h.cn_median, g.cn_median, 1e-10);
    assert_false(near(h.vor, g.vor, 1e-8));

    /* Threads. */
    int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    h = measure(N, M, G);
    omp_set_num_threads(3);
    g = measure(N, M, G);
    omp_set_num_threads(threads);
    assert_memory_equal(&g, &h, sizeof g);
    free(G), free(H);
}

/* A hundred and more dimensions, eigenvalues from 1 to 1e-9.99 in even steps of the logarithm. */
static void test_near_singular(void **unused)
{
    (void)unused;
    enum { M = 101 };
    double *G = numbers(2 * M * M), *Q = numbers(M * M), d[M], var = 0;
    for (int i = 0; i < M; i++) d[i] = pow(10, -0.0999 * i);
    for (int i = 0; i < M; i++) var += pow(log(d[i] / d[M / 2]), 2) / M;
    draw_reflection(M, Q);
    for (int k = 0; k < 2; k++) set_diagonal(M, d, G + k * M * M);
    iso_geometry g = measure(2, M, G);
    NEAR(g.mcn, pow(10, 9.99), 1e-12), NEAR(g.vor, 0, 1e-12); /* a diagonal is exact */
    set_diagonal(M, d, G + M * M);
    for (int k = 0; k < 2; k++) change_coordinates(M, Q, G + k * M * M);
    g = measure(2, M, G);
    NEAR(g.mcn, pow(10, 9.99), 1e-4); /* G's own rounding, 1e-16 of its largest, in its smallest eigenvalue */
    NEAR(g.iso, var, 1e-5), NEAR(g.vor, 0, 1e-8), NEAR(g.cn, 1 - pow(10, -9.99), 1e-12);
    assert_int_equal(g.tiny, 60); /* 10^-7.09 to 10^-9.99, of two */
    free(G), free(Q);
}

/* --- what is no metric */

static void refuse(int64_t n, int m, const double *G, iso_status status, const char *part)
{
    iso_geometry g, before;
    memset(&g, 0x5a, sizeof g);
    before = g;
    err = (iso_error){0};
    assert_int_equal(iso_geometry_metrics(n, m, G, &g, &err), status);
    if (!strstr(err.message, part)) fail_msg("\"%s\" does not say \"%s\"", err.message, part);
    assert_memory_equal(&g, &before, sizeof g);
    assert_int_not_equal(iso_geometry_metrics(n, m, G, &g, NULL), ISO_OK);
}

static void test_errors(void **unused)
{
    (void)unused;
    enum { N = 5, M = 3, SIZE = M * M };
    double G[N * SIZE], bad[N * SIZE];
    for (int k = 0; k < N; k++) draw_metric(M, G + k * SIZE);
    measure(N, M, G);
#define SPOIL(k, ...) (memcpy(bad, G, sizeof bad), memcpy(bad + (k) * SIZE, (double[]){__VA_ARGS__}, SIZE * sizeof *bad))
    refuse(0, M, G, ISO_E_ARGUMENT, "at least one");
    refuse(-1, M, G, ISO_E_ARGUMENT, "at least one");
    refuse(N, 0, G, ISO_E_ARGUMENT, "dimension 0");
    refuse(INT64_MAX / 8, M, G, ISO_E_ARGUMENT, "metrics");
    SPOIL(2, 1, 0, 0, 0, NAN, 0, 0, 0, 1), refuse(N, M, bad, ISO_E_NUMERIC, "metric 2 holds a NaN");
    SPOIL(4, 1, 0, 0, 0, INFINITY, 0, 0, 0, 1), refuse(N, M, bad, ISO_E_NUMERIC, "metric 4 holds");
    SPOIL(0, 1, 0, 0, 0, 1e-3, 0, 0, 0, -1e-12), refuse(N, M, bad, ISO_E_NUMERIC, "metric 0 is not positive definite");
    SPOIL(3, 1, 2, 0, 2, 1, 0, 0, 0, 1), refuse(N, M, bad, ISO_E_NUMERIC, "metric 3 is not positive definite");
    SPOIL(1, 1, 0.3, 0, 0, 1, 0, 0, 0, 1), refuse(N, M, bad, ISO_E_NUMERIC, "metric 1 is not symmetric");
    SPOIL(1, 0, 0, 0, 0, 0, 0, 0, 0, 0), refuse(N, M, bad, ISO_E_NUMERIC, "metric 1 is not positive definite");
    refuse(1, M, bad + SIZE, ISO_E_NUMERIC, "metric 0 is not positive definite"); /* the mean is as bad */
    bad[3 * SIZE] = -1; /* the first of two is named */
    refuse(N, M, bad, ISO_E_NUMERIC, "metric 1 is");
    /* Rank two, up to rounding: the last pivot is a rounding error of either sign. */
    for (int trial = 1; trial <= 20; trial++) {
        double u[3] = {1, 0.1 * trial, 0.7}, v[3] = {-0.3, 1.1, 0.9 / trial};
        memcpy(bad, G, sizeof bad);
        for (int i = 0; i < 3; i++)
            for (int j = 0; j < 3; j++) bad[3 * SIZE + i * 3 + j] = u[i] * u[j] + v[i] * v[j];
        refuse(N, M, bad, ISO_E_NUMERIC, "metric 3 is not positive definite");
    }
}

/* One metric at a time; whatever passes goes through as a batch, down to the edge of what double precision can tell. */
static void test_check(void **unused)
{
    (void)unused;
    enum { N = 400, M = 6, SIZE = M * M };
    double *G = numbers(N * SIZE), Q[SIZE], d[M], bad[SIZE];
    int64_t kept = 0, refused = 0;
    for (int k = 0; k < N; k++) {
        for (int i = 0; i < M; i++) d[i] = i ? 1 : pow(10, -14 - either() * 1.5); /* about 16 m epsilon = 2e-14 */
        draw_reflection(M, Q);
        set_diagonal(M, d, G + kept * SIZE);
        change_coordinates(M, Q, G + kept * SIZE);
        iso_status status = iso_geometry_check(M, G + kept * SIZE, &err);
        if (status == ISO_OK) kept++;
        else refused++;
        if (status) assert_int_equal(status, ISO_E_NUMERIC);
    }
    assert_true(kept > 10 && refused > 10);
    measure(kept, M, G);
    for (int64_t i = 0; i < kept; i++) measure(1, M, G + i * SIZE);
    draw_metric(M, bad);
    assert_int_equal(iso_geometry_check(M, bad, NULL), ISO_OK);
    bad[1] = NAN;
    assert_int_equal(iso_geometry_check(M, bad, &err), ISO_E_NUMERIC);
    assert_non_null(strstr(err.message, "the metric holds a NaN"));
    assert_int_equal(iso_geometry_check(0, bad, &err), ISO_E_ARGUMENT);
    free(G);
}

int main(void)
{
    begin_random(20221);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity),    cmocka_unit_test(test_scaled),        cmocka_unit_test(test_diagonal),
        cmocka_unit_test(test_closed_form), cmocka_unit_test(test_invariances),   cmocka_unit_test(test_near_singular),
        cmocka_unit_test(test_errors),      cmocka_unit_test(test_check),
    };
    return cmocka_run_group_tests_name("geometry", tests, NULL, NULL);
}
