/* test_philox.c: known answers, distributions, and that a draw is a function of its coordinates alone. */
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/philox.h"
#include "tests/check.h"

static const iso_draw draw = {20221, 7, 3};

/* The known answers that Random123 (the authors' library) is distributed with. */
static const struct { uint32_t counter[4], key[2], out[4]; } known[] = {
    {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
    {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
    {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
};

static void known_answers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        uint32_t out[4], key[2] = {known[i].key[0] ^ 1, known[i].key[1]};
        iso_philox(known[i].counter, known[i].key, out);
        assert_memory_equal(out, known[i].out, sizeof out);
        iso_philox(known[i].counter, key, out); /* one bit of the key: another answer */
        assert_memory_not_equal(out, known[i].out, sizeof out);
    }
}

#define N 200000

static void moments(const float *x, int64_t n, double *mean, double *variance, double *fourth)
{
    double m = 0, v = 0, f = 0;
    for (int64_t i = 0; i < n; i++) m += x[i];
    m /= (double)n;
    for (int64_t i = 0; i < n; i++) {
        double d = (x[i] - m) * (x[i] - m);
        v += d;
        f += d * d;
    }
    *mean = m;
    *variance = v / (double)n;
    *fourth = f / (double)n;
}

static void uniform(void **state)
{
    (void)state;
    float *x = malloc(N * sizeof *x);
    double mean, variance, fourth;
    int bins[20] = {0};
    iso_draw_uniform(draw, -0.2, 1.2, N, x);
    for (int i = 0; i < N; i++) {
        assert_true(x[i] >= -0.2 && x[i] < 1.2);
        bins[(int)((x[i] + 0.2) / 1.4 * 20)]++;
    }
    moments(x, N, &mean, &variance, &fourth);
    assert_true(fabs(mean - 0.5) < 5 * sqrt(1.96 / 12 / N));
    assert_true(fabs(variance - 1.96 / 12) < 0.003);
    for (int i = 0; i < 20; i++) assert_true(abs(bins[i] - N / 20) < 5 * sqrt(N / 20.0));
    /* Where rounding to float could reach an end: neither is stepped over. */
    iso_draw_uniform(draw, 16777216, 16777218, 1000, x);
    for (int i = 0; i < 1000; i++) assert_true(x[i] >= 16777216 && x[i] < 16777218);
    free(x);
}

static bool looks_normal(const float *x)
{
    double mean, variance, fourth;
    moments(x, N, &mean, &variance, &fourth);
    return fabs(mean) < 5 / sqrt(N) && fabs(variance - 1) < 5 * sqrt(2.0 / N) && fabs(fourth - 3) < 5 * sqrt(96.0 / N);
}

static void normal(void **state)
{
    (void)state;
    float *x = malloc(N * sizeof *x);
    double neighbours = 0;
    iso_draw_normal(draw, N, x);
    for (int i = 0; i < N; i++) assert_true(isfinite(x[i]));
    assert_true(looks_normal(x));
    for (int i = 0; i + 1 < N; i++) neighbours += x[i] * x[i + 1];
    assert_true(fabs(neighbours / N) < 5 / sqrt(N));
    /* Deliberately wrong: a uniform draw of mean 0 and variance 1 must be seen as no normal one. */
    iso_draw_uniform(draw, -sqrt(3), sqrt(3), N, x);
    assert_false(looks_normal(x));
    free(x);
}

/* The words at both ends. */
static void normal_words(void **state)
{
    (void)state;
    double x[2];
    iso_normal_pair((uint32_t[2]){0, 0}, x);
    assert_true(fabs(x[0] - sqrt(64 * log(2))) < 1e-12 && x[1] == 0);
    iso_normal_pair((uint32_t[2]){UINT32_MAX, 5}, x);
    assert_true(x[0] == 0 && x[1] == 0);
    iso_normal_pair((uint32_t[2]){UINT32_MAX / 2, 1u << 30}, x); /* a half, and a quarter of the circle */
    assert_true(fabs(x[0]) < 1e-12 && fabs(x[1] - sqrt(2 * log(2))) < 1e-12);
}

static bool is_permutation(const int64_t *p, int n)
{
    bool good = true;
    char *seen = calloc((size_t)n, 1);
    for (int i = 0; i < n; i++) {
        good = good && p[i] >= 0 && p[i] < n && !seen[p[i]];
        if (good) seen[p[i]] = 1;
    }
    free(seen);
    return good;
}

static void permutation(void **state)
{
    (void)state;
    int64_t p[100];
    int first[3][3] = {{0}};
    for (int n = 0; n <= 100; n++) {
        iso_draw_permutation(draw, n, p);
        assert_true(is_permutation(p, n));
    }
    p[3] = p[4]; /* deliberately wrong */
    assert_false(is_permutation(p, 100));
    for (uint64_t step = 0; step < 30000; step++) {
        iso_draw_permutation((iso_draw){1, 2, step}, 3, p);
        for (int i = 0; i < 3; i++) first[i][p[i]]++;
    }
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) assert_true(abs(first[i][j] - 10000) < 5 * sqrt(10000));
}

static void below(void **state)
{
    (void)state;
    int bins[7] = {0};
    for (uint64_t i = 0; i < 70000; i++) {
        uint64_t value = iso_draw_below(draw, i, 7);
        assert_true(value < 7);
        bins[value]++;
    }
    for (int i = 0; i < 7; i++) assert_true(abs(bins[i] - 10000) < 5 * sqrt(10000));
    assert_int_equal(iso_draw_below(draw, 12, 1), 0);
    uint64_t big = iso_draw_below(draw, UINT64_MAX, UINT64_MAX);
    assert_true(big < UINT64_MAX);
    assert_true(iso_draw_below(draw, 5, 1u << 30) != iso_draw_below(draw, 5 + (1ull << 32), 1u << 30));
}

static void coordinates(void **state)
{
    (void)state;
    float a[103], b[103];
    iso_draw_normal(draw, 103, a);
    for (int64_t n = 0; n < 103; n += 17) { /* a shorter draw is the beginning of a longer one */
        memset(b, 0, sizeof b);
        iso_draw_normal(draw, n, b);
        assert_memory_equal(a, b, (size_t)n * sizeof *a);
        assert_true(b[n] == 0);
    }
    const iso_draw others[] = {{20222, 7, 3}, {20221, 8, 3}, {20221, 7, 4}, {20221 + (1ull << 32), 7, 3}, {20221, 7, 3 + (1ull << 32)}};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        iso_draw_normal(others[i], 103, b);
        for (int k = 0; k < 103; k++) assert_true(a[k] != b[k]);
    }
}

int main(void)
{
    printf("seed %llu\n", (unsigned long long)draw.seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers), cmocka_unit_test(uniform),     cmocka_unit_test(normal),
        cmocka_unit_test(normal_words),  cmocka_unit_test(permutation), cmocka_unit_test(below),
        cmocka_unit_test(coordinates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
