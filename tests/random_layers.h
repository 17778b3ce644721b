/* random_layers.h: random expressions of one layer's convolutions and what may follow them, and what they compute on a backend: for tests of how plans
 * cut and order their steps. */
#ifndef ISO_TESTS_RANDOM_LAYERS_H
#define ISO_TESTS_RANDOM_LAYERS_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/graph/plan.h"
#include "model/philox.h"
#include "tests/check.h"

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
    iso_node input[7]; /* x, y, a bias for each, one for each pixel of a picture, a number for each row of x */
    iso_node weights;  /* a state */
    iso_node output[KEPT];
} expression;

/* Without its outputs. */
static expression begin_expression(const layer *l)
{
    expression e = {.g = iso_graph_create()};
    iso_graph *g = e.g;
    e.input[0] = iso_input(g, "x", x_shape(l));
    e.input[1] = iso_input(g, "y", y_shape(l));
    e.input[2] = iso_input(g, "of x", iso_shape1(l->c));
    e.input[3] = iso_input(g, "of y", iso_shape1(l->o));
    for (int i = 0; i < 2; i++) {
        const iso_shape s = iso_node_shape(g, e.input[i]);
        e.input[4 + i] = iso_input(g, i ? "picture of y" : "picture of x", (iso_shape){3, {s.dim[1], s.dim[2], s.dim[3]}});
    }
    e.input[6] = iso_input(g, "rows", (iso_shape){3, {l->h, 1, 1}});
    e.weights = iso_state(g, "w", w_shape(l));
    return e;
}

/* sums: also with gradients of the weights and sums over images, some of which are read again. */
static expression random_expression(const layer *l, uint64_t seed, uint32_t number, bool sums)
{
    iso_draw d = {seed, number, 0};
    uint64_t at = 0;
    expression e = begin_expression(l);
    iso_graph *g = e.g;
    /* Values of x's shape are of one kind, of y's of the other. */
    iso_node kind[2][NODES] = {{e.input[0]}, {e.input[1]}}, last[NODES];
    int count[2] = {1, 1};
    for (int i = 0; i < NODES; i++) {
        const int of = (int)iso_draw_below(d, at++, 2);
        const iso_node a = kind[of][iso_draw_below(d, at++, (uint64_t)count[of])], b = kind[of][iso_draw_below(d, at++, (uint64_t)count[of])];
        const iso_node other = kind[!of][iso_draw_below(d, at++, (uint64_t)count[!of])];
        const iso_shape shape = iso_node_shape(g, a);
        iso_node n;
        int bias;
        switch (iso_draw_below(d, at++, sums ? 12 : 9)) {
        case 0: n = iso_add(g, a, b); break;
        case 1: n = iso_mul(g, iso_step(g, a), b); break;
        case 2: n = iso_relu(g, iso_add(g, a, e.input[2 + of])); break;
        case 3: n = iso_tanh(g, a); break;
        case 4: n = of ? iso_mul(g, a, iso_tanh(g, b)) : iso_mul(g, a, e.input[6]); break;
        case 9: n = iso_add(g, b, iso_tanh(g, iso_scale(g, iso_sum(g, a, iso_shape1(shape.dim[3])), 1e-3))); break;
        case 10: n = iso_mul(g, b, iso_tanh(g, iso_scale(g, iso_sum(g, a, (iso_shape){4, {shape.dim[0], 1, 1, 1}}), 1e-3))); break;
        case 11: n = iso_add(g, b, iso_scale(g, iso_sum_all(g, a), 1e-6)); break;
        default: /* more than half: a convolution, seldom alone */
            n = iso_scale(g, of ? iso_conv(g, other, e.weights, (int)l->stride, (int)l->pad)
                                : iso_conv_x(g, other, e.weights, (int)l->stride, (int)l->pad, l->h, l->w), 0.25);
            if ((bias = (int)iso_draw_below(d, at++, 3))) n = iso_relu(g, iso_add(g, n, e.input[2 * bias + of]));
            break;
        }
        kind[of][count[of]++] = last[i] = n;
    }
    for (int i = 0; i < KEPT; i++) e.output[i] = last[NODES - 1 - iso_draw_below(d, at++, NODES / 2)];
    for (int i = 0; sums && i < 2; i++) {
        const iso_node x = kind[0][iso_draw_below(d, at++, (uint64_t)count[0])], y = kind[1][iso_draw_below(d, at++, (uint64_t)count[1])];
        e.output[i] = iso_conv_w(g, x, y, (int)l->stride, (int)l->pad, l->kernel, l->kernel);
    }
    return e;
}

typedef struct outcome {
    float *value[KEPT];
    size_t bytes[KEPT];
    iso_plan_stats stats;
} outcome;

static float *normal(uint64_t seed, uint32_t stream, uint32_t number, int64_t n)
{
    float *v = malloc((size_t)n * sizeof *v);
    assert_non_null(v);
    iso_draw_normal((iso_draw){seed, stream, number}, n, v);
    return v;
}

/* Numbers for its inputs are drawn; the expression's graph is freed. */
static outcome run_expression(const iso_backend *backend, const layer *l, expression e, uint64_t seed, uint32_t number, int threads, bool frozen)
{
    iso_error err = {0};
    outcome o = {.stats = {0}};
    iso_vars *vars = NULL;
    iso_plan *plan = NULL;
    const int64_t weights = l->o * l->kernel * l->kernel * l->c;
    assert_int_equal(iso_vars_create(backend, &vars, &err), ISO_OK);
    assert_int_equal(iso_vars_add(vars, "w", w_shape(l), &err), ISO_OK);
    float *w = normal(seed, 1002, number, weights);
    for (int64_t k = 0; k < weights; k++) w[k] /= (float)l->kernel;
    assert_int_equal(iso_vars_write(vars, "w", w, weights, &err), ISO_OK);
    free(w);
    const iso_plan_spec spec = {.vars = vars, .output_count = KEPT, .outputs = e.output, .threads = threads, .frozen = frozen};
    if (iso_plan_create(e.g, &spec, &plan, &err) != ISO_OK) fail_msg("expression %u: %s", number, err.message);
    for (uint32_t i = 0; i < sizeof e.input / sizeof *e.input; i++) {
        const iso_shape s = iso_node_shape(e.g, e.input[i]);
        float *v = normal(seed, 2000 + i, number, iso_shape_count(&s));
        assert_int_equal(iso_plan_write(plan, e.input[i], v, iso_shape_count(&s), &err), ISO_OK);
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

#endif
