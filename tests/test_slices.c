/* test_slices.c: steps cut into slices of images: random expressions of convolutions, gradients and sums have the same bits for any number of threads,
 * run after run, and the values of the reference backend; those without sums have the bits that they have uncut. Weights are prepared for them. */
#include <math.h>
#include <stddef.h>
#include <stdio.h>

#include "base/isa.h"
#include "model/cpu/cpu.h"
#include "model/cpu/conv.h"
#include "model/cpu/gemm.h"
#include "model/cpu/winograd.h"
#include "tests/check.h"
#include "tests/random_layers.h"

static const uint64_t seed = 1129;

static int64_t per_slice; /* images */

/* As the CPU backend, but with slices as small as they may be. */
static int64_t small_slices(iso_op op, const iso_call *call)
{
    iso_call whole = *call;
    whole.part_of = 0;
    if (op != ISO_OP_CONV && op != ISO_OP_CONV_X && op != ISO_OP_CONV_W) return 0;
    const iso_conv_sizes s = iso_conv_sizes_of_call(op, call);
    return iso_few_fits(&s, &whole) || isfinite(iso_winograd_cost(op, &whole)) ? per_slice : 0;
}

static outcome run(const iso_backend *b, const layer *l, uint32_t number, bool sums, int threads, bool frozen)
{
    return run_expression(b, l, random_expression(l, seed, number, sums), seed, number, threads, frozen);
}

static void test_random_expressions(void **state)
{
    (void)state;
    static const layer layers[] = {
        {9, 8, 8, 16, 32, 4, 2, 1},  /* the decoders' */
        {5, 20, 12, 8, 16, 4, 2, 1}, /* cut tiles */
        {7, 4, 4, 24, 72, 4, 2, 1},
        {5, 20, 20, 3, 16, 1, 1, 0}, /* colours */
        {4, 15, 15, 16, 32, 5, 2, 0}, /* the encoders' */
        {3, 4, 710, 8, 8, 4, 2, 1},   /* a strip of them is more tiles than are wanted at a time */
        {6, 9, 9, 6, 10, 3, 1, 1}};  /* cannot be cut: the others are all the same */
    iso_slicing small = *iso_backend_cpu()->slicing;
    small.images = small_slices;
    iso_backend cut = *iso_backend_cpu(), plain = cut;
    cut.slicing = &small;
    plain.slicing = NULL;
    assert_true(iso_isa_use("avx2") || iso_isa_use("portable")); /* one without the tile unit */
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++)
        for (uint32_t number = 0; number < 8; number++) {
            const bool sums = number % 2 != 0, frozen = number % 4 >= 2;
            per_slice = 1 + number % 3;
            small.bytes = number % 2 ? 512 : 4096;
            outcome without = run(&plain, &layers[i], number, sums, 2, false), exact = run(iso_backend_reference(), &layers[i], number, sums, 1, false);
            outcome first = run(&cut, &layers[i], number, sums, 1, frozen);
            if (!(apart(&first, &exact) <= 1e-4)) fail_msg("layer %zu, expression %u is off by %g", i, number, apart(&first, &exact));
            const bool cuttable = i + 1 < sizeof layers / sizeof *layers;
            if (cuttable && first.stats.steps <= without.stats.steps) fail_msg("layer %zu, expression %u was not cut", i, number);
            if (!cuttable || (!sums && i != 2 && i != 4)) /* uncut, those two may be better as products */
                if (!same(&first, &without)) fail_msg("layer %zu, expression %u: slices change the values", i, number);
            for (int threads = 2; threads <= 5; threads++) {
                outcome other = run(&cut, &layers[i], number, sums, threads, frozen);
                if (!same(&other, &first)) fail_msg("layer %zu, expression %u: %d threads change the values", i, number, threads);
                release(&other);
            }
            release(&first);
            release(&without);
            release(&exact);
        }
    assert_true(iso_isa_use(NULL));
}

/* A gradient through a layer and the gradient of its weights, from the same x: y = conv(x), w' = conv_w(x, t), with x and t results of other steps. */
static outcome run_gradients(const iso_backend *b, const layer *l, int threads)
{
    expression e = begin_expression(l);
    iso_graph *g = e.g;
    iso_node x = iso_relu(g, iso_conv_x(g, e.input[1], e.weights, (int)l->stride, (int)l->pad, l->h, l->w)), t = iso_tanh(g, e.input[1]);
    const iso_node out[] = {iso_mul(g, iso_step(g, e.input[1]), iso_conv(g, x, e.weights, (int)l->stride, (int)l->pad)),
                            iso_scale(g, iso_conv_w(g, x, t, (int)l->stride, (int)l->pad, l->kernel, l->kernel), 0.5)};
    for (int i = 0; i < KEPT; i++) e.output[i] = out[i % 2];
    return run_expression(b, l, e, seed, 0, threads, false);
}

/* Their slices are done together: all but the last two of conv_w's are no steps. */
static void test_along(void **state)
{
    (void)state;
    static const layer layers[] = {{9, 16, 16, 16, 32, 4, 2, 1}, {16, 8, 16, 8, 16, 4, 2, 1}, {11, 16, 32, 24, 40, 4, 2, 1}};
    iso_slicing small = *iso_backend_cpu()->slicing, alone;
    small.images = small_slices;
    alone = small;
    alone.along = NULL;
    iso_backend cut = *iso_backend_cpu(), each = cut;
    cut.slicing = &small;
    each.slicing = &alone;
    assert_true(iso_isa_use("avx2") || iso_isa_use("portable"));
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++)
        for (per_slice = 1; per_slice <= 3; per_slice++) {
            outcome first = run_gradients(&cut, &layers[i], 1), without = run_gradients(&each, &layers[i], 1), exact = run_gradients(iso_backend_reference(), &layers[i], 1);
            if (first.stats.steps >= without.stats.steps) fail_msg("layer %zu: no slices are done along with others", i);
            if (!(apart(&first, &exact) <= 1e-4)) fail_msg("layer %zu is off by %g", i, apart(&first, &exact));
            assert_memory_equal(first.value[0], without.value[0], first.bytes[0]);
            assert_true(first.stats.flops == without.stats.flops && first.stats.gemm_flops == without.stats.gemm_flops);
            for (int threads = 2; threads <= 4; threads++) {
                outcome other = run_gradients(&cut, &layers[i], threads);
                if (!same(&other, &first)) fail_msg("layer %zu: %d threads change the values", i, threads);
                release(&other);
            }
            release(&first);
            release(&without);
            release(&exact);
        }
    assert_true(iso_isa_use(NULL));
}

/* A large layer is cut by the backend itself, into slices that leave threads enough, whatever their number; a small one is not. */
static void test_large_layers(void **state)
{
    (void)state;
    const layer large = {64, 64, 64, 8, 16, 4, 2, 1}, small = {64, 8, 8, 8, 16, 4, 2, 1};
    assert_true(iso_isa_use("avx2") || iso_isa_use("portable"));
    iso_call c = {.attr.i = {2, 1}, .in = {{NULL, x_shape(&large)}, {NULL, w_shape(&large)}}, .out.shape = y_shape(&large)};
    const int64_t images = iso_backend_cpu()->slicing->images(ISO_OP_CONV, &c);
    assert_true(images >= 1 && images <= large.b / 8);
    for (c.threads = 1; c.threads < 9; c.threads++) assert_int_equal(iso_backend_cpu()->slicing->images(ISO_OP_CONV, &c), images);
    c.in[0].shape = x_shape(&small);
    c.out.shape = y_shape(&small);
    assert_int_equal(iso_backend_cpu()->slicing->images(ISO_OP_CONV, &c), 0);
    assert_true(iso_isa_use(NULL));
}

/* The comparisons see one wrong number. */
static void test_wrong_is_seen(void **state)
{
    (void)state;
    const layer l = {2, 8, 8, 8, 8, 4, 2, 1};
    outcome a = run(iso_backend_cpu(), &l, 1, true, 1, false), b = run(iso_backend_cpu(), &l, 1, true, 1, false);
    assert_true(same(&a, &b) && apart(&a, &b) <= 1e-4);
    a.value[0][7] += 10;
    assert_false(same(&a, &b) || apart(&a, &b) <= 1e-4);
    release(&a);
    release(&b);
}

int main(void)
{
    printf("seed %llu\n", (unsigned long long)seed);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random_expressions), cmocka_unit_test(test_along), cmocka_unit_test(test_large_layers), cmocka_unit_test(test_wrong_is_seen)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
