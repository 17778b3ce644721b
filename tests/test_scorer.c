/* test_scorer.c: eigenvalues, the shrinkage, and the query vector from moments; through databases: test_contrast.c. */
#include "tests/scorer_common.h"

#include <dirent.h>
#include <omp.h>

#include "base/eigen.h"

static void test_eigen(void **s)
{
    (void)s;
    double A[7 * 7], E[7 * 7], value[7];
    for (int i = 0; i < 7; i++)
        for (int j = i; j < 7; j++) A[i * 7 + j] = A[j * 7 + i] = i == 6 || j == 6 ? 0 : real();
    memcpy(E, A, sizeof A);
    for (int i = 0; i < 7; i++)
        for (int j = 0; j < i; j++) E[i * 7 + j] = NAN; /* not read */
    OK(iso_eigen(7, E, value, &err));
    for (int i = 0; i < 7; i++) {
        assert_true(i == 0 || value[i] >= value[i - 1]);
        for (int j = 0; j < 7; j++) {
            double product = 0, dot = 0;
            for (int k = 0; k < 7; k++) {
                product += E[k * 7 + i] * value[k] * E[k * 7 + j];
                dot += E[i * 7 + k] * E[j * 7 + k];
            }
            assert_true(fabs(product - A[i * 7 + j]) <= 1e-13);
            assert_true(fabs(dot - (i == j)) <= 1e-13);
        }
    }
    A[3] = INFINITY;
    assert_int_equal(iso_eigen(7, A, value, &err), ISO_E_NUMERIC);
    A[0] = 5;
    OK(iso_eigen(1, A, value, &err));
    assert_true(value[0] == 5 && fabs(A[0]) == 1);
}

static int threads(void)
{
    DIR *d = opendir("/proc/self/task");
    int count = -2; /* . and .. */
    assert_non_null(d);
    while (readdir(d)) count++;
    closedir(d);
    return count;
}

/* The first test of all, before anything else begins threads. */
static void test_one_thread(void **s)
{
    (void)s;
    double A[4] = {2, 1, 1, 2}, value[2];
    const int before = threads();
    omp_set_num_threads(1);
    OK(iso_eigen(2, A, value, &err));
    assert_true(fabs(value[0] - 1) < 1e-12 && fabs(value[1] - 3) < 1e-12);
    assert_int_equal(threads(), before);
    omp_set_num_threads(omp_get_num_procs());
}

static void test_names(void **s)
{
    (void)s;
    assert_string_equal(iso_scorer_name(ISO_SUM), "sum");
    assert_string_equal(iso_scorer_name(ISO_CONTRAST), "contrast");
    assert_string_equal(iso_scorer_name(ISO_AUTO), "auto");
    assert_null(iso_scorer_name(3));
    assert_null(iso_scorer_name(-1));
    assert_int_equal(iso_scorer_by_name("contrast"), ISO_CONTRAST);
    assert_int_equal(iso_scorer_by_name("con"), -1);
    assert_int_equal(iso_scorer_by_name("auto"), ISO_AUTO);
    assert_int_equal((iso_query_options){.k = 1}.scorer, ISO_SUM);
}

/* Moments as a store would give them. */
static iso_moments moments_of(int dim, int n, const float *v)
{
    iso_moments m = {.dim = dim, .count = (uint64_t)n, .sum = iso_calloc((size_t)dim, sizeof(double)), .product = iso_calloc((size_t)(dim * dim), sizeof(double))};
    double u[MOST];
    assert_true(m.sum && m.product);
    for (int k = 0; k < n; k++) {
        unit(dim, v + k * dim, true, u);
        for (int i = 0; i < dim; i++) {
            m.sum[i] += u[i];
            for (int j = 0; j < dim; j++) m.product[i * dim + j] += u[i] * u[j];
        }
    }
    return m;
}

static void test_shrinkage(void **s)
{
    (void)s;
    static double S[MOST][MOST];
    static const int shape[][2] = {{1, 50}, {2, 3}, {20, 10}, {20, 2000}, {40, 41}};
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
        int dim = shape[i][0], items = shape[i][1];
        float *v = random_vectors(dim, items);
        double m[MOST];
        iso_moments moments = moments_of(dim, items, v);
        iso_scorer *scorer;
        OK(iso_scorer_create(&moments, &scorer, &err));
        mean_of(dim, items, v, true, m);
        covariance_of(dim, items, v, m, S);
        for (int n = 1; n <= 1000000; n *= 10) {
            double a = iso_scorer_shrinkage(scorer, n);
            assert_true(a > 0 && a <= 1 && a >= 30.0 / (30 + n));
            assert_true(fabs(a - shrinkage_of(dim, items, n, S)) <= 1e-9);
        }
        iso_scorer_free(scorer);
        iso_moments_free(&moments);
        free(v);
    }
}

static void test_bad_moments(void **s)
{
    (void)s;
    float *v = random_vectors(4, 10);
    double like[4] = {1}, w[4] = {7}, offset = 7;
    iso_scorer *scorer = NULL;
    iso_moments m = moments_of(4, 10, v), huge = {.dim = ISO_MOMENTS_DIM_MAX + 1}, none = {.dim = 0};
    m.product[5] = NAN;
    assert_int_equal(iso_scorer_create(&m, &scorer, &err), ISO_E_NUMERIC);
    assert_int_equal(iso_scorer_create(&huge, &scorer, &err), ISO_E_UNSUPPORTED);
    assert_int_equal(iso_scorer_create(&none, &scorer, &err), ISO_E_UNSUPPORTED);
    assert_null(scorer);
    m.product[5] = 0;
    m.product[1 * 4 + 1] = 0;
    OK(iso_scorer_create(&m, &scorer, &err)); /* indefinite: clamped, and still an answer */
    OK(iso_scorer_query(scorer, 4, 1, like, 0, NULL, 0.5, w, &offset, &err));
    for (int j = 0; j < 4; j++) assert_true(isfinite(w[j]));
    w[0] = offset = 7;
    assert_int_equal(iso_scorer_query(scorer, 3, 1, like, 0, NULL, 0.5, w, &offset, &err), ISO_E_ARGUMENT);
    assert_int_equal(iso_scorer_query(scorer, 4, 0, like, 0, NULL, 0.5, w, &offset, &err), ISO_E_ARGUMENT);
    assert_int_equal(iso_scorer_query(scorer, 4, 1, like, 1, like, NAN, w, &offset, &err), ISO_E_ARGUMENT);
    assert_int_equal(iso_scorer_query(scorer, 4, 1, like, 1, (double[4]){0, 1}, 1e308, w, &offset, &err), ISO_E_NUMERIC);
    like[2] = NAN;
    assert_int_equal(iso_scorer_query(scorer, 4, 1, like, 0, NULL, 0.5, w, &offset, &err), ISO_E_NUMERIC);
    assert_int_equal(iso_scorer_query(NULL, 4, 1, like, 0, NULL, 0.5, w, &offset, &err), ISO_E_NUMERIC);
    assert_true(w[0] == 7 && offset == 7); /* set only on success */
    iso_scorer_free(scorer);
    iso_scorer_free(NULL);
    iso_moments_free(&m);
    free(v);
}

/* In the direction asked for the database does not vary at all: scores of nothing rather than magnified rounding. */
static void test_direction_without_variance(void **s)
{
    (void)s;
    enum { ITEMS = 40 };
    float *v = random_vectors(10, ITEMS);
    for (int i = 0; i < ITEMS; i++)
        for (int j = 5; j < 10; j++) v[i * 10 + j] = 0;
    double m[MOST];
    mean_of(10, ITEMS, v, true, m);
    iso_moments moments = moments_of(10, ITEMS, v);
    iso_scorer *scorer;
    OK(iso_scorer_create(&moments, &scorer, &err));
    double like[10], w[10], offset, u[10];
    for (int j = 0; j < 10; j++) like[j] = m[j] + (j == 7) * 0.5;
    OK(iso_scorer_query(scorer, 10, 1, like, 0, NULL, 0, w, &offset, &err));
    for (int i = 0; i < ITEMS; i++) {
        double score = -offset;
        unit(10, v + i * 10, false, u);
        for (int j = 0; j < 10; j++) score += w[j] * u[j];
        assert_true(fabs(score) <= 1e-9);
    }
    iso_scorer_free(scorer);
    iso_moments_free(&moments);
    free(v);
}

/* A variance that is none, as rounding leaves it, whitens nothing; nor does one below 0 count as one. */
static void test_variance_of_rounding(void **s)
{
    (void)s;
    static const double off[2][3] = {{1.6e-14, 4e-14, 1.5e-14}, {0.5, -0.4, 0.25}};
    const double items = 1e6;
    for (int k = 0; k < 2; k++) {
        double like[3] = {0.5, 1, 2}, w[3], offset;
        iso_moments m = {.dim = 3, .count = (uint64_t)items, .sum = iso_calloc(3, sizeof(double)), .product = iso_calloc(9, sizeof(double))};
        iso_scorer *scorer;
        assert_true(m.sum && m.product);
        for (int i = 0; i < 3; i++) m.product[4 * i] = items * off[k][i];
        OK(iso_scorer_create(&m, &scorer, &err));
        OK(iso_scorer_query(scorer, 3, 1000, like, 0, NULL, 0, w, &offset, &err));
        const double a = iso_scorer_shrinkage(scorer, 1000), level = (off[k][0] + off[k][1] + off[k][2]) / 3;
        for (int i = 0; i < 3; i++) {
            const double of_one = k ? 1 / ((1 - a) * fmax(off[k][i], 0) + a * level) : 1;
            const double of_first = k ? 1 / ((1 - a) * off[k][0] + a * level) : 1;
            assert_true(fabs(w[i] / w[0] - like[i] * of_one / (like[0] * of_first)) <= 1e-9);
        }
        iso_scorer_free(scorer);
        iso_moments_free(&m);
    }
}

/* Where what is left of unit vectors is short, but no rounding, it is a direction. */
static void test_nearly_cancelled(void **s)
{
    (void)s;
    double like[2] = {1, 2e-6}, unlike[2] = {1, 0}, w[2], offset;
    OK(iso_scorer_query(NULL, 2, 1, like, 1, unlike, 1, w, &offset, &err));
    assert_true(w[0] == 0 && w[1] == 2e-6);
    like[1] = 5e-7;
    FAILS(ISO_E_NUMERIC, iso_scorer_query(NULL, 2, 1, like, 1, unlike, 1, w, &offset, &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_thread),
        cmocka_unit_test(test_eigen),       cmocka_unit_test(test_names),
        cmocka_unit_test(test_shrinkage),   cmocka_unit_test(test_bad_moments),
        cmocka_unit_test(test_direction_without_variance),
        cmocka_unit_test(test_variance_of_rounding), cmocka_unit_test(test_nearly_cancelled),
    };
    begin_random(20223);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
