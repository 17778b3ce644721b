/* test_tails.c: elementwise ops done behind convolutions, part by part: random expressions of convolutions on the CPU backend,
 * with tails and without, have the same bits; and the values of the reference backend. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>

#include "model/graph/plan.h"
#include "model/philox.h"

static const uint64_t seed = 4711;

enum { NODES = 28, KEPT = 5 };

/* Images x and what a convolution makes of them, y; the rest follows. */
typedef struct layer {
    int64_t b, h, w, c, o, kernel, stride, pad;
} layer;

static iso_shape x_shape(const layer *l) { return (iso_shape){4, {l->b, l->h, l->w, l->c}}; }
static iso_shape w_shape(const layer *l) { return (iso_shape){4, {l->o, l->kernel, l->kernel, l->c}}; }
static iso_shape y_shape(const layer *l)
{
    return (iso_shape){4, {l->b, (l->h + 2 * l->pad - l->kernel) / l->stride + 1, (l->w + 2 * l->pad - l->kernel) / l->stride + 1, l->o}};
}

typedef struct expression {
    iso_graph *g;
    iso_node input[6]; /* x, y, weights, a bias for each, a number for each row of x */
    iso_node output[KEPT];
} expression;

static expression random_expression(const layer *l, uint32_t number)
{
    iso_draw d = {seed, number, 0};
    uint64_t at = 0;
    expression e = {.g = iso_graph_create()};
    iso_graph *g = e.g;
    e.input[0] = iso_input(g, "x", x_shape(l));
    e.input[1] = iso_input(g, "y", y_shape(l));
    e.input[2] = iso_input(g, "w", w_shape(l));
    e.input[3] = iso_input(g, "of x", iso_shape1(l->c));
    e.input[4] = iso_input(g, "of y", iso_shape1(l->o));
    e.input[5] = iso_input(g, "rows", (iso_shape){3, {l->h, 1, 1}});
    /* Values of x's shape are of one kind, of y's of the other. */
    iso_node kind[2][NODES] = {{e.input[0]}, {e.input[1]}}, last[NODES];
    int count[2] = {1, 1};
    for (int i = 0; i < NODES; i++) {
        const int of = (int)iso_draw_below(d, at++, 2);
        const iso_node a = kind[of][iso_draw_below(d, at++, (uint64_t)count[of])], b = kind[of][iso_draw_below(d, at++, (uint64_t)count[of])];
        const iso_node other = kind[!of][iso_draw_below(d, at++, (uint64_t)count[!of])];
        iso_node n;
        switch (iso_draw_below(d, at++, 9)) {
        case 0: n = iso_add(g, a, b); break;
        case 1: n = iso_mul(g, iso_step(g, a), b); break;
        case 2: n = iso_relu(g, iso_add(g, a, e.input[3 + of])); break;
        case 3: n = iso_tanh(g, a); break;
        case 4: n = of ? iso_mul(g, a, iso_tanh(g, b)) : iso_mul(g, a, e.input[5]); break;
        default: /* more than half: a convolution, seldom alone */
            n = iso_scale(g, of ? iso_conv(g, other, e.input[2], (int)l->stride, (int)l->pad)
                                : iso_conv_x(g, other, e.input[2], (int)l->stride, (int)l->pad, l->h, l->w), 0.25);
            if (iso_draw_below(d, at++, 3)) n = iso_relu(g, iso_add(g, n, e.input[3 + of]));
            break;
        }
        kind[of][count[of]++] = last[i] = n;
    }
    for (int i = 0; i < KEPT; i++) e.output[i] = last[NODES - 1 - iso_draw_below(d, at++, NODES / 2)];
    return e;
}

typedef struct outcome {
    float *value[KEPT];
    size_t bytes[KEPT];
    iso_plan_stats stats;
} outcome;

static outcome run(const iso_backend *backend, const layer *l, uint32_t number, int threads)
{
    iso_error err = {0};
    outcome o = {.stats = {0}};
    expression e = random_expression(l, number);
    iso_vars *vars = NULL;
    iso_plan *plan = NULL;
    assert_int_equal(iso_vars_create(backend, &vars, &err), ISO_OK);
    const iso_plan_spec spec = {.vars = vars, .output_count = KEPT, .outputs = e.output, .threads = threads};
    if (iso_plan_create(e.g, &spec, &plan, &err) != ISO_OK) fail_msg("expression %u: %s", number, err.message);
    for (uint32_t i = 0; i < 6; i++) {
        const iso_shape s = iso_node_shape(e.g, e.input[i]);
        const int64_t n = iso_shape_count(&s);
        float *v = malloc((size_t)n * sizeof *v);
        assert_non_null(v);
        iso_draw_normal((iso_draw){seed, 1000 + i, number}, n, v);
        for (int64_t k = 0; i == 2 && k < n; k++) v[k] /= (float)l->kernel;
        assert_int_equal(iso_plan_write(plan, e.input[i], v, n, &err), ISO_OK);
        free(v);
    }
    for (int twice = 0; twice < 2; twice++) iso_plan_run(plan);
    for (int i = 0; i < KEPT; i++) {
        const iso_shape s = iso_node_shape(e.g, e.output[i]);
        const int64_t n = iso_shape_count(&s);
        o.bytes[i] = (size_t)n * sizeof(float);
        o.value[i] = malloc(o.bytes[i]);
        assert_non_null(o.value[i]);
        assert_int_equal(iso_plan_read(plan, e.output[i], o.value[i], n, &err), ISO_OK);
    }
    o.stats = iso_plan_describe(plan);
    iso_plan_free(plan);
    iso_vars_free(vars);
    iso_graph_free(e.g);
    return o;
}

static void release(outcome *o)
{
    for (int i = 0; i < KEPT; i++) free(o->value[i]);
}

static bool same(const outcome *a, const outcome *b)
{
    for (int i = 0; i < KEPT; i++)
        if (a->bytes[i] != b->bytes[i] || memcmp(a->value[i], b->value[i], a->bytes[i]) != 0) return false;
    return true;
}

static double apart(const outcome *a, const outcome *b)
{
    double worst = 0;
    for (int i = 0; i < KEPT; i++) {
        double difference = 0, scale = 1e-3;
        for (size_t k = 0; k < a->bytes[i] / sizeof(float); k++) {
            difference += pow((double)a->value[i][k] - b->value[i][k], 2);
            scale += pow(b->value[i][k], 2);
        }
        worst = fmax(worst, sqrt(difference / scale));
    }
    return worst;
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
        for (uint32_t number = 0; number < 8; number++) {
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
        assert_true(fewer > 4);
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
