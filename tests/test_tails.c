/* test_tails.c: elementwise ops done behind convolutions, part by part: random expressions of convolutions on the CPU backend,
 * with tails and without, have the same bits; and the values of the reference backend. */
#include <stddef.h>
#include <stdio.h>

#include "tests/random_layers.h"

static const uint64_t seed = 4711;

static outcome run(const iso_backend *backend, const layer *l, uint32_t number, int threads)
{
    return run_expression(backend, l, random_expression(l, seed, number, false), seed, number, threads, false);
}

static void test_random_expressions(void **state)
{
    (void)state;
    static const layer layers[] = {
        {5, 8, 8, 16, 32, 4, 2, 1},   /* Winograd, by images */
        {3, 40, 24, 8, 16, 4, 2, 1},  /* by strips */
        {9, 4, 4, 72, 264, 4, 2, 1},  /* all threads together, several images at a time */
        {2, 32, 20, 3, 16, 1, 1, 0},  /* colours */
        {3, 11, 9, 6, 10, 5, 2, 0},   /* products with patches */
        {7, 1, 1, 20, 12, 1, 1, 0},   /* small steps, several at once */
        {2, 24, 24, 16, 32, 5, 2, 2},
        {5, 64, 64, 3, 130, 3, 1, 1}}; /* some images at a time */
    iso_backend plain = *iso_backend_cpu();
    plain.tails = false;
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
        int fewer = 0;
        const uint32_t numbers = layers[i].h < 64 ? 8 : 2; /* the reference takes its time */
        for (uint32_t number = 0; number < numbers; number++) {
            outcome without = run(&plain, &layers[i], number, 2), exact = run(iso_backend_reference(), &layers[i], number, 1);
            for (int threads = 1; threads <= 3; threads++) {
                outcome with = run(iso_backend_cpu(), &layers[i], number, threads);
                if (!same(&with, &without)) fail_msg("layer %zu, expression %u: tails change the values", i, number);
                if (!(apart(&with, &exact) <= 1e-4)) fail_msg("layer %zu, expression %u is off by %g", i, number, apart(&with, &exact));
                fewer += threads == 2 && with.stats.steps < without.stats.steps;
                release(&with);
            }
            release(&without);
            release(&exact);
        }
        assert_true(2 * fewer > (int)numbers);
    }
}

/* The comparisons see one wrong number. */
static void test_wrong_is_seen(void **state)
{
    (void)state;
    const layer l = {2, 8, 8, 8, 8, 4, 2, 1};
    outcome a = run(iso_backend_cpu(), &l, 1, 1), b = run(iso_backend_cpu(), &l, 1, 1);
    assert_true(same(&a, &b) && apart(&a, &b) <= 1e-4);
    a.value[KEPT - 1][7] += 10;
    assert_false(same(&a, &b) || apart(&a, &b) <= 1e-4);
    release(&a);
    release(&b);
}

int main(void)
{
    printf("seed %llu\n", (unsigned long long)seed);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random_expressions), cmocka_unit_test(test_wrong_is_seen)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
