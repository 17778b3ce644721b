/* test_plan.c: planning changes speed and memory, never values: random expressions planned with fusion, in-place writes and a
 * shared arena against the same expressions node by node; assignments; what planning refuses. */
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/graph/plan.h"
#include "model/philox.h"
#include "tests/check.h"

static const uint64_t seed = 77;

/* The reference backend with fused groups: every step of every element through the plain kernels. All of a "tile" (one
 * element here) is loaded before anything is stored, as backend.h promises. */
static void fused_plain(const iso_fused *f)
{
    const iso_backend *ref = iso_backend_reference();
    double value[ISO_FUSED_MAX_INPUTS * 2 + ISO_FUSED_MAX_STEPS * 2];
    for (int64_t i = 0; i < f->count; i++) {
        for (int k = 0; k < f->inputs; k++) {
            int64_t rest = i, at = 0;
            for (int d = f->shape.ndim - 1; d >= 0; d--) {
                at += rest % f->shape.dim[d] * f->input[k].stride[d];
                rest /= f->shape.dim[d];
            }
            value[k] = ((const double *)f->input[k].data)[f->input[k].dense ? i : at];
        }
        for (int s = 0; s < f->steps; s++) {
            const iso_fused_step *st = &f->step[s];
            iso_call c = {.attr.f = st->f,
                          .in = {{&value[st->a], {0}}, {st->b < 0 ? NULL : &value[st->b], {0}}},
                          .out = {&value[f->inputs + s], {0}}};
            ref->kernel[st->op](&c);
        }
        for (int s = 0; s < f->steps; s++)
            if (f->step[s].out) ((double *)f->step[s].out)[i] = value[f->inputs + s];
    }
}

static void products_plain(const iso_products *p)
{
    const int64_t m = p->shape.dim[0], n = p->shape.dim[1], k = p->a[0].shape.dim[p->transpose_a ? 0 : 1];
    const int results = p->sum ? 1 : p->count;
    double *room = p->workspace;
    assert_non_null(room);
    iso_fused_input input[ISO_FUSED_MAX_INPUTS];
    for (int r = 0; r < results; r++) {
        double *c = p->out[r] ? p->out[r] : room + r * m * n;
        memset(c, 0, (size_t)(m * n) * sizeof *c);
        for (int q = p->sum ? 0 : r; q < (p->sum ? p->count : r + 1); q++) {
            const double *a = p->a[q].data, *b = p->b[p->sum ? q : 0].data;
            for (int64_t i = 0; i < m * n * k; i++) {
                const int64_t row = i / (n * k), column = i / k % n, d = i % k;
                c[row * n + column] += a[p->transpose_a ? d * m + row : row * k + d] * b[p->transpose_b ? column * k + d : d * n + column];
            }
        }
        input[r].data = c;
    }
    for (int i = 0; i < p->tail->inputs; i++) {
        const void *data = i < results ? input[i].data : p->tail->input[i].data;
        input[i] = p->tail->input[i];
        input[i].data = data;
    }
    iso_fused tail = *p->tail;
    tail.input = input;
    if (tail.steps) fused_plain(&tail);
}

static size_t products_room(const iso_products *p) { return (size_t)p->count * (size_t)iso_shape_count(&p->shape) * sizeof(double); }

static iso_backend fused_backend(bool products)
{
    iso_backend b = *iso_backend_reference();
    b.name = "reference, fused";
    b.fused = fused_plain;
    b.products = products ? products_plain : NULL;
    b.products_workspace = products_room;
    return b;
}

#define NODES 90
#define KEPT 12

/* A random expression over a few shapes; every builder's result may become an operand. */
static int random_graph(iso_graph *g, uint32_t number, iso_node *outputs)
{
    iso_draw d = {seed, number, 0};
    uint64_t at = 0;
    iso_node node[NODES];
    int count = 0;
    node[count++] = iso_input(g, "a", iso_shape2(6, 4));
    node[count++] = iso_input(g, "b", iso_shape2(6, 4));
    node[count++] = iso_state(g, "p", iso_shape2(6, 4));
    node[count++] = iso_input(g, "row", iso_shape1(4));
    node[count++] = iso_input(g, "column", iso_shape2(6, 1));
    node[count++] = iso_const(g, 0.75, iso_shape2(6, 4));
    while (count < NODES) {
        iso_node x = node[iso_draw_below(d, at++, (uint64_t)count)], y = node[iso_draw_below(d, at++, (uint64_t)count)],
                 n;
        iso_shape s = iso_node_shape(g, x);
        bool whole = s.ndim == 2 && s.dim[0] == 6 && s.dim[1] == 4;
        switch (iso_draw_below(d, at++, 16)) {
        case 0: n = iso_add(g, x, y); break;
        case 1: n = iso_sub(g, x, y); break;
        case 2: n = iso_mul(g, x, iso_tanh(g, y)); break;
        case 3: n = iso_div(g, x, iso_shift(g, iso_square(g, y), 1)); break;
        case 4: n = iso_tanh(g, x); break;
        case 5: n = iso_relu(g, x); break;
        case 6: n = iso_mul(g, iso_step(g, x), y); break;
        case 7: n = iso_step(g, x); break;
        case 8: n = iso_scale(g, x, 0.5); break;
        case 9: n = iso_sigmoid(g, iso_shift(g, x, 0.25)); break;
        case 10: n = whole ? iso_sum(g, x, iso_shape1(4)) : iso_softplus(g, x); break;
        case 11: n = whole ? iso_sum(g, x, iso_shape2(6, 1)) : iso_exp(g, iso_tanh(g, x)); break;
        case 12:
            n = whole ? iso_permute(g, iso_reshape(g, iso_permute(g, x, 1, 0, -1, -1), iso_shape2(4, 6)), 1, 0, -1, -1)
                      : iso_square(g, iso_tanh(g, x));
            break;
        case 13:
            n = whole ? iso_reshape(g, iso_tanh(g, iso_reshape(g, x, iso_shape3(2, 3, 4))), iso_shape2(6, 4))
                      : iso_neg(g, x);
            break;
        case 14:
            n = whole ? iso_matmul(g, iso_tanh(g, x), iso_const(g, 0.1, iso_shape2(4, 4)), false, false)
                      : iso_relu(g, x);
            break;
        default:
            n = whole ? iso_concat(g, iso_slice(g, x, 1, 2, 2), iso_slice(g, x, 1, 0, 2), 1)
                      : iso_sqrt(g, iso_shift(g, iso_square(g, x), 1));
            break;
        }
        node[count++] = n;
    }
    for (int i = 0; i < KEPT; i++) outputs[i] = node[count - 1 - (int)iso_draw_below(d, at++, NODES / 2)];
    return count;
}

typedef struct outcome {
    double value[KEPT][24], state[24];
    iso_plan_stats stats;
} outcome;

static void run_random(const iso_backend *backend, uint32_t number, outcome *out)
{
    iso_error err = {0};
    iso_graph *g = iso_graph_create();
    iso_node outputs[KEPT], p = iso_state(g, "p", iso_shape2(6, 4));
    random_graph(g, number, outputs);
    iso_assign assign = {p, ISO_NONE};
    for (int i = 0; i < KEPT; i++) { /* the state takes the first computed value of its shape */
        iso_node n = outputs[i];
        iso_shape s = iso_node_shape(g, n);
        iso_op op = iso_node_op(g, n);
        if (s.ndim == 2 && s.dim[0] == 6 && s.dim[1] == 4 && op > ISO_OP_CONST && op != ISO_OP_RESHAPE)
            assign.value = n;
    }
    /* The value that is assigned is not also an output in half of the runs: then it may be written in place. */
    int kept = 0;
    for (int i = 0; i < KEPT; i++)
        if (number % 2 || outputs[i] != assign.value) outputs[kept++] = outputs[i];
    iso_vars *vars = NULL;
    iso_plan *plan = NULL;
    assert_int_equal(iso_vars_create(backend, &vars, &err), ISO_OK);
    assert_int_equal(iso_vars_add(vars, "p", iso_shape2(6, 4), &err), ISO_OK);
    iso_plan_spec spec = {.vars = vars,
                          .output_count = kept,
                          .outputs = outputs,
                          .assign_count = assign.value != ISO_NONE,
                          .assigns = &assign,
                          .threads = 1};
    if (iso_plan_create(g, &spec, &plan, &err) != ISO_OK) fail_msg("graph %u: %s", number, err.message);
    float v[24];
    const char *names[] = {"a", "b", "row", "column"};
    int64_t counts[] = {24, 24, 4, 6};
    for (uint32_t i = 0; i < 4; i++) {
        iso_shape shapes[] = {iso_shape2(6, 4), iso_shape2(6, 4), iso_shape1(4), iso_shape2(6, 1)};
        iso_draw_normal((iso_draw){seed, 1000 + i, number}, counts[i], v);
        assert_int_equal(iso_plan_write(plan, iso_input(g, names[i], shapes[i]), v, counts[i], &err), ISO_OK);
    }
    iso_draw_normal((iso_draw){seed, 1004, number}, 24, v);
    assert_int_equal(iso_vars_write(vars, "p", v, 24, &err), ISO_OK);
    memset(out, 0, sizeof *out);
    for (int run = 0; run < 2; run++)
        iso_plan_run(plan); /* twice: inputs and constants outlive a run, the state moves on */
    for (int i = 0; i < kept; i++) {
        iso_shape s = iso_node_shape(g, outputs[i]);
        if (outputs[i] == p) continue;
        assert_int_equal(iso_plan_read_f64(plan, outputs[i], out->value[i], iso_shape_count(&s), &err), ISO_OK);
    }
    assert_int_equal(iso_vars_read(vars, "p", v, 24, &err), ISO_OK);
    for (int i = 0; i < 24; i++) out->state[i] = v[i];
    out->stats = iso_plan_describe(plan);
    iso_plan_free(plan);
    iso_vars_free(vars);
    iso_graph_free(g);
}

static double distance(const outcome *a, const outcome *b)
{
    double worst = 0;
    const double *x = &a->value[0][0], *y = &b->value[0][0];
    for (size_t i = 0; i < KEPT * 24; i++) worst = fmax(worst, fabs(x[i] - y[i]) / (1 + fabs(y[i])));
    for (int i = 0; i < 24; i++) worst = fmax(worst, fabs(a->state[i] - b->state[i]) / (1 + fabs(b->state[i])));
    return worst;
}

static void test_random_expressions(void **state)
{
    (void)state;
    const iso_backend fused = fused_backend(false), products = fused_backend(true);
    static outcome plain, planned, fast;
    int fewer = 0;
    for (uint32_t i = 0; i < 300; i++) {
        run_random(iso_backend_reference(), i, &plain);
        run_random(&fused, i, &planned);
        double apart = distance(&planned, &plain);
        if (!(apart <= 1e-12)) fail_msg("graph %u: fusing changes the values by %g", i, apart);
        run_random(&products, i, &fast);
        apart = distance(&fast, &plain);
        if (!(apart <= 1e-12)) fail_msg("graph %u: products in units change the values by %g", i, apart);
        fewer += planned.stats.steps < plain.stats.steps && planned.stats.arena <= plain.stats.arena;
        run_random(iso_backend_cpu(), i, &fast);
        apart = distance(&fast, &plain);
        if (!(apart <= 2e-4)) fail_msg("graph %u: the CPU backend is off by %g", i, apart);
    }
    assert_true(fewer > 250);
}

/* --- products: a net's values, tangents and the gradients of both, by which its weights then change. */

enum { LAYERS = 4, WEIGHTS = 2, TERMS = 2 };

typedef struct learned {
    double term[TERMS]; /* of the last run */
    double *weight;     /* all of them */
    size_t count;
    int steps;
} learned;

static learned learn(const iso_backend *backend, uint32_t number, int64_t rows, int64_t width, int threads)
{
    const iso_draw d = {seed, 5000 + number, 0};
    iso_error err = {0};
    iso_graph *g = iso_graph_create();
    const iso_shape shape = iso_shape2(rows, width), square = iso_shape2(width, width);
    iso_node x = iso_input(g, "x", shape), v = iso_input(g, "v", shape), h = x, w[WEIGHTS + 1], grad[WEIGHTS + 1], one = iso_one(g);
    w[0] = iso_state(g, "w0", square);
    w[1] = iso_state(g, "w1", square);
    w[WEIGHTS] = iso_state(g, "bias", iso_shape1(width));
    for (uint64_t l = 0; l < LAYERS; l++) {
        iso_node sum = iso_add(g, iso_matmul(g, h, w[l < WEIGHTS ? l : iso_draw_below(d, 3 * l, WEIGHTS)], false, iso_draw_below(d, 3 * l + 1, 2) == 1), w[WEIGHTS]);
        h = iso_draw_below(d, 3 * l + 2, 2) ? iso_tanh(g, sum) : iso_relu(g, sum);
    }
    iso_node tangent = iso_jvp1(g, h, x, v);
    iso_node outputs[TERMS] = {iso_mean_all(g, iso_square(g, tangent)), iso_mean_all(g, iso_mul(g, h, iso_exp(g, h)))};
    iso_node loss = iso_add(g, outputs[0], outputs[1]);
    iso_vjp(g, 1, &loss, &one, WEIGHTS + 1, w, grad);
    iso_assign assigns[WEIGHTS + 1];
    for (int i = 0; i <= WEIGHTS; i++) assigns[i] = (iso_assign){w[i], iso_sub(g, w[i], iso_scale(g, grad[i], 0.1))};

    iso_vars *vars = NULL;
    iso_plan *plan = NULL;
    const int64_t most = rows > width ? rows * width : width * width;
    float *numbers = malloc((size_t)most * sizeof *numbers);
    assert_non_null(numbers);
    assert_int_equal(iso_vars_create(backend, &vars, &err), ISO_OK);
    assert_int_equal(iso_vars_add_states(vars, g, 1, &loss, &err), ISO_OK);
    for (int i = 0; i < iso_vars_count(vars); i++) {
        const iso_shape s = iso_vars_shape(vars, i);
        iso_draw_uniform((iso_draw){seed, 6000 + (uint32_t)i, number}, -1 / sqrt((double)width), 1 / sqrt((double)width), iso_shape_count(&s), numbers);
        assert_int_equal(iso_vars_write(vars, iso_vars_name(vars, i), numbers, iso_shape_count(&s), &err), ISO_OK);
    }
    const iso_plan_spec spec = {.vars = vars, .output_count = TERMS, .outputs = outputs, .assign_count = WEIGHTS + 1, .assigns = assigns, .threads = threads};
    if (iso_plan_create(g, &spec, &plan, &err) != ISO_OK) fail_msg("%s", err.message);
    for (uint32_t i = 0; i < 2; i++) {
        iso_draw_normal((iso_draw){seed, 7000 + i, number}, rows * width, numbers);
        assert_int_equal(iso_plan_write(plan, i ? v : x, numbers, rows * width, &err), ISO_OK);
    }
    for (int i = 0; i < 3; i++) iso_plan_run(plan);
    learned l = {.steps = iso_plan_describe(plan).steps, .count = (size_t)(WEIGHTS * width * width + width)};
    l.weight = malloc(l.count * sizeof *l.weight);
    assert_non_null(l.weight);
    for (int i = 0; i < TERMS; i++) assert_int_equal(iso_plan_read_f64(plan, outputs[i], &l.term[i], 1, &err), ISO_OK);
    size_t at = 0;
    for (int i = 0; i < iso_vars_count(vars); i++) {
        const iso_shape s = iso_vars_shape(vars, i);
        const int64_t n = iso_shape_count(&s);
        assert_int_equal(iso_vars_read(vars, iso_vars_name(vars, i), numbers, n, &err), ISO_OK);
        for (int64_t k = 0; k < n; k++) l.weight[at++] = numbers[k];
    }
    assert_int_equal(at, l.count);
    free(numbers);
    iso_plan_free(plan);
    iso_vars_free(vars);
    iso_graph_free(g);
    return l;
}

static double apart(const learned *a, const learned *b)
{
    double worst = 0;
    for (int i = 0; i < TERMS; i++) worst = fmax(worst, fabs(a->term[i] - b->term[i]) / (1e-3 + fabs(b->term[i])));
    for (size_t i = 0; i < a->count; i++) worst = fmax(worst, fabs(a->weight[i] - b->weight[i]));
    return worst;
}

static void test_products(void **state)
{
    (void)state;
    const iso_backend products = fused_backend(true);
    for (uint32_t i = 0; i < 60; i++) {
        learned plain = learn(iso_backend_reference(), i, 6, 4, 1), joined = learn(&products, i, 6, 4, 1),
                fast = learn(iso_backend_cpu(), i, 6, 4, 1);
        double off = apart(&joined, &plain);
        if (!(off <= 1e-7)) fail_msg("net %u: products in units change the values by %g", i, off); /* states are read as floats */
        assert_true(joined.steps < plain.steps);
        off = apart(&fast, &plain);
        if (!(off <= 1e-4)) fail_msg("net %u: the CPU backend is off by %g", i, off);
        free(plain.weight);
        free(joined.weight);
        free(fast.weight);
    }
}

/* Products that are cut into rows give the same bits as whole ones. */
static void test_cut_products(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        learned plain = learn(iso_backend_reference(), i, 70, 300, 1), one = learn(iso_backend_cpu(), i, 70, 300, 1);
        double off = apart(&one, &plain);
        if (!(off <= 1e-4)) fail_msg("net %u: the CPU backend is off by %g", i, off);
        for (int threads = 2; threads <= 5; threads += 3) {
            learned more = learn(iso_backend_cpu(), i, 70, 300, threads);
            assert_true(more.steps > one.steps); /* some were cut */
            assert_memory_equal(one.term, more.term, sizeof one.term);
            assert_memory_equal(one.weight, more.weight, one.count * sizeof *one.weight);
            free(more.weight);
        }
        free(plain.weight);
        free(one.weight);
    }
}

/* The comparison must be able to fail. */
static void test_difference_is_seen(void **state)
{
    (void)state;
    static outcome a, b;
    run_random(iso_backend_reference(), 1, &a);
    run_random(iso_backend_reference(), 2, &b);
    assert_true(distance(&a, &b) > 1e-3);
    b = a;
    b.state[3] += 1e-6;
    assert_false(distance(&a, &b) <= 1e-12);
}

/* x <- x + 1, y <- x: both read the old x. */
static void test_assignments_read_old_values(void **state)
{
    (void)state;
    iso_backend backends[] = {*iso_backend_reference(), fused_backend(true), *iso_backend_cpu()};
    for (int b = 0; b < 3; b++) {
        iso_graph *g = iso_graph_create();
        iso_node x = iso_state(g, "x", iso_shape1(5)), y = iso_state(g, "y", iso_shape1(5));
        iso_assign assigns[] = {
            {x, iso_shift(g, x, 1)},
            {y, iso_add(g, iso_scale(g, x, 10), iso_broadcast(g, iso_sum_all(g, x), iso_shape1(5)))}};
        iso_vars *vars = NULL;
        iso_plan *plan = NULL;
        iso_error err;
        iso_node values[] = {assigns[0].value, assigns[1].value, y};
        assert_int_equal(iso_vars_create(&backends[b], &vars, &err), ISO_OK);
        assert_int_equal(iso_vars_add_states(vars, g, 3, values, &err), ISO_OK);
        iso_plan_spec spec = {.vars = vars, .assign_count = 2, .assigns = assigns};
        assert_int_equal(iso_plan_create(g, &spec, &plan, &err), ISO_OK);
        float v[5] = {0, 1, 2, 3, 4};
        assert_int_equal(iso_vars_write(vars, "x", v, 5, &err), ISO_OK);
        iso_plan_run(plan);
        assert_int_equal(iso_vars_read(vars, "x", v, 5, &err), ISO_OK);
        for (int i = 0; i < 5; i++) assert_true(v[i] == (float)i + 1);
        assert_int_equal(iso_vars_read(vars, "y", v, 5, &err), ISO_OK);
        for (int i = 0; i < 5; i++) assert_true(v[i] == 10 * (float)i + 10);
        iso_plan_free(plan);
        iso_vars_free(vars);
        iso_graph_free(g);
    }
}

/* Frozen: what depends on states alone is computed once and outlives every run; all else follows the inputs. That the
 * first is so shows when a state is changed after all. */
static void test_frozen(void **state)
{
    (void)state;
    iso_backend backends[] = {*iso_backend_reference(), fused_backend(true), *iso_backend_cpu()};
    for (int b = 0; b < 3; b++) {
        iso_error err = {0};
        iso_graph *g = iso_graph_create();
        iso_node x = iso_input(g, "x", iso_shape2(3, 4)), w = iso_state(g, "w", iso_shape2(4, 4));
        iso_node turned = iso_permute(g, iso_square(g, w), 1, 0, -1, -1);
        iso_node outputs[] = {iso_tanh(g, iso_matmul(g, iso_matmul(g, x, turned, false, false), turned, false, true)), iso_neg(g, turned)};
        iso_vars *vars = NULL;
        iso_plan *plan[2] = {NULL, NULL};
        assert_int_equal(iso_vars_create(&backends[b], &vars, &err), ISO_OK);
        assert_int_equal(iso_vars_add_states(vars, g, 2, outputs, &err), ISO_OK);
        iso_plan_spec spec = {.vars = vars, .output_count = 2, .outputs = outputs, .threads = 1};
        for (int k = 0; k < 2; k++, spec.frozen = true) assert_int_equal(iso_plan_create(g, &spec, &plan[k], &err), ISO_OK);
        float v[16], y[2][12], t[2][16];
        iso_draw_normal((iso_draw){seed, 1, 0}, 16, v);
        assert_int_equal(iso_vars_write(vars, "w", v, 16, &err), ISO_OK);
        for (uint32_t run = 0; run < 4; run++) {
            iso_draw_normal((iso_draw){seed, 2, run}, 12, v);
            for (int k = 0; k < 2; k++) {
                assert_int_equal(iso_plan_write(plan[k], x, v, 12, &err), ISO_OK);
                iso_plan_run(plan[k]);
                assert_int_equal(iso_plan_read(plan[k], outputs[0], y[k], 12, &err), ISO_OK);
                assert_int_equal(iso_plan_read(plan[k], outputs[1], t[k], 16, &err), ISO_OK);
            }
            assert_int_equal(memcmp(y[0], y[1], sizeof y[0]) == 0 && memcmp(t[0], t[1], sizeof t[0]) == 0, run < 3);
            if (run != 2) continue;
            iso_draw_normal((iso_draw){seed, 3, 0}, 16, v);
            assert_int_equal(iso_vars_write(vars, "w", v, 16, &err), ISO_OK);
        }
        for (int k = 0; k < 2; k++) iso_plan_free(plan[k]);
        iso_vars_free(vars);
        iso_graph_free(g);
    }
}

/* With a state that is assigned, and one that is not: what both give changes from run to run, frozen or not, and what the latter gives alone is computed
 * by the first run. */
static void test_frozen_with_assigns(void **state)
{
    (void)state;
    iso_backend backends[] = {*iso_backend_reference(), fused_backend(true), *iso_backend_cpu()};
    for (int b = 0; b < 3; b++) {
        iso_error err = {0};
        iso_graph *g = iso_graph_create();
        iso_node w = iso_state(g, "w", iso_shape2(4, 4)), u = iso_state(g, "u", iso_shape2(4, 4));
        iso_node turned = iso_permute(g, iso_square(g, w), 1, 0, -1, -1);
        iso_node outputs[] = {iso_matmul(g, u, turned, false, false), turned};
        const iso_assign assign = {u, iso_add(g, u, turned)};
        for (int frozen = 0; frozen < 2; frozen++) {
            iso_vars *vars = NULL;
            iso_plan *plan = NULL;
            float v[16], square[16], sum[16] = {0}, y[16], expected[16], t[16];
            assert_int_equal(iso_vars_create(&backends[b], &vars, &err), ISO_OK);
            assert_int_equal(iso_vars_add_states(vars, g, 2, outputs, &err), ISO_OK);
            const iso_plan_spec spec = {.vars = vars, .output_count = 2, .outputs = outputs, .assign_count = 1, .assigns = &assign, .threads = 1, .frozen = frozen != 0};
            assert_int_equal(iso_plan_create(g, &spec, &plan, &err), ISO_OK);
            iso_draw_normal((iso_draw){seed, 1, 0}, 16, v);
            assert_int_equal(iso_vars_write(vars, "w", v, 16, &err), ISO_OK);
            for (int i = 0; i < 16; i++) square[i % 4 * 4 + i / 4] = v[i] * v[i];
            for (uint32_t run = 0; run < 4; run++) {
                iso_plan_run(plan);
                assert_int_equal(iso_plan_read(plan, outputs[0], y, 16, &err), ISO_OK);
                assert_int_equal(iso_plan_read(plan, outputs[1], t, 16, &err), ISO_OK);
                for (int i = 0; i < 16; i++) {
                    expected[i] = 0;
                    for (int k = 0; k < 4; k++) expected[i] += sum[i / 4 * 4 + k] * square[k * 4 + i % 4];
                }
                for (int i = 0; i < 16; i++) {
                    assert_float_equal(y[i], expected[i], 1e-4 * (1 + fabs(expected[i])));
                    assert_float_equal(t[i], square[i], 1e-6);
                    sum[i] += square[i];
                }
                if (run != 2) continue;
                memset(v, 0, sizeof v); /* only those that are not frozen see it */
                assert_int_equal(iso_vars_write(vars, "w", v, 16, &err), ISO_OK);
                if (!frozen) memset(square, 0, sizeof square);
            }
            iso_plan_free(plan);
            iso_vars_free(vars);
        }
        iso_graph_free(g);
    }
}

/* A state that is kept permuted is the permutation of one that is not; vars take and give both in the same order; what is like it is kept as it is; and
 * a plan wants it as the vars have it. */
static void test_permuted_states(void **state)
{
    (void)state;
    enum { N = 2 * 3 * 4 * 5 };
    const iso_shape shape = iso_shape4(2, 3, 4, 5), kept = iso_shape4(2, 4, 5, 3);
    iso_backend backends[] = {*iso_backend_reference(), fused_backend(true), *iso_backend_cpu()};
    for (int b = 0; b < 3; b++) {
        iso_error err = {0};
        iso_graph *g = iso_graph_create();
        iso_node plain = iso_state(g, "plain", shape), w = iso_state_permuted(g, "w", shape, 0, 2, 3, 1), like = iso_state_like(g, "like", w);
        const iso_shape node = iso_node_shape(g, w), listed = iso_state_shape(g, w);
        assert_true(iso_shape_equal(&node, &kept) && iso_shape_equal(&listed, &shape));
        assert_int_equal(iso_state_permuted(g, "w", shape, 0, 2, 3, 1), w);
        assert_int_equal(iso_state_permuted(g, "plain", shape, 0, 1, 2, 3), plain);
        iso_node outputs[] = {iso_sub(g, w, iso_permute(g, plain, 0, 2, 3, 1)), iso_state_restored(g, w, w)};
        iso_assign assign = {like, iso_shift(g, iso_scale(g, w, 2), 1)};
        iso_node needed[] = {outputs[0], like};
        iso_vars *vars = NULL;
        iso_plan *plan = NULL;
        assert_int_equal(iso_vars_create(&backends[b], &vars, &err), ISO_OK);
        assert_int_equal(iso_vars_add_states(vars, g, 2, needed, &err), ISO_OK);
        for (int i = 0; i < iso_vars_count(vars); i++) {
            const iso_shape in_vars = iso_vars_shape(vars, i);
            assert_true(iso_shape_equal(&in_vars, &shape));
        }
        float v[N], got[N];
        iso_draw_normal((iso_draw){seed, 1, 0}, N, v);
        assert_int_equal(iso_vars_write(vars, "plain", v, N, &err), ISO_OK);
        assert_int_equal(iso_vars_write(vars, "w", v, N, &err), ISO_OK);
        iso_plan_spec spec = {.vars = vars, .output_count = 2, .outputs = outputs, .assign_count = 1, .assigns = &assign};
        assert_int_equal(iso_plan_create(g, &spec, &plan, &err), ISO_OK);
        iso_plan_run(plan);
        assert_int_equal(iso_plan_read(plan, outputs[0], got, N, &err), ISO_OK);
        for (int i = 0; i < N; i++) assert_true(got[i] == 0);
        assert_int_equal(iso_plan_read(plan, outputs[1], got, N, &err), ISO_OK);
        assert_memory_equal(got, v, sizeof v);
        assert_int_equal(iso_vars_read(vars, "w", got, N, &err), ISO_OK);
        assert_memory_equal(got, v, sizeof v);
        assert_int_equal(iso_vars_read(vars, "like", got, N, &err), ISO_OK);
        for (int i = 0; i < N; i++) assert_true(got[i] == (float)(2.0 * v[i] + 1.0) || got[i] == 2.0f * v[i] + 1.0f);
        iso_plan_free(plan);
        iso_vars_free(vars);
        /* as it is in the vars, permuted in the graph; and the other way round */
        assert_int_equal(iso_vars_create(&backends[b], &vars, &err), ISO_OK);
        assert_int_equal(iso_vars_add(vars, "w", shape, &err), ISO_OK);
        spec = (iso_plan_spec){.vars = vars, .output_count = 1, .outputs = &w};
        assert_int_equal(iso_plan_create(g, &spec, &plan, &err), ISO_E_ARGUMENT);
        assert_int_equal(iso_vars_add_states(vars, g, 1, &w, &err), ISO_E_ARGUMENT);
        iso_vars_free(vars);
        iso_state_permuted(g, "w", shape, 0, 3, 2, 1);
        assert_int_equal(iso_graph_check(g, &err), ISO_E_ARGUMENT);
        iso_graph_free(g);
    }
}

static void test_planning_refuses(void **state)
{
    (void)state;
    iso_error err;
    iso_graph *g = iso_graph_create();
    iso_vars *vars = NULL;
    iso_plan *plan = NULL;
    iso_node x = iso_state(g, "x", iso_shape1(3)), a = iso_input(g, "a", iso_shape2(4, 2)),
             index = iso_input_index(g, "index", 5);
    iso_node sum = iso_add(g, x, iso_exp(g, x)), rows = iso_gather(g, a, index);
    assert_int_equal(iso_vars_create(iso_backend_reference(), &vars, &err), ISO_OK);
    iso_plan_spec spec = {.vars = vars, .output_count = 1, .outputs = &sum};
    assert_int_equal(iso_plan_create(g, &spec, &plan, &err), ISO_E_ARGUMENT); /* no such state */
    assert_non_null(strstr(err.message, "\"x\""));
    assert_int_equal(iso_vars_add(vars, "x", iso_shape1(4), &err), ISO_OK);
    assert_int_equal(iso_plan_create(g, &spec, &plan, &err), ISO_E_ARGUMENT); /* another shape */
    iso_backend poor = *iso_backend_reference();
    poor.kernel[ISO_OP_GATHER] = NULL;
    poor.name = "poor";
    iso_vars *few = NULL;
    assert_int_equal(iso_vars_create(&poor, &few, &err), ISO_OK);
    assert_int_equal(
        iso_plan_create(g, &(iso_plan_spec){.vars = few, .output_count = 1, .outputs = &rows}, &plan, &err),
        ISO_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "gather"));
    iso_vars_free(few);
    iso_assign twice[] = {{x, iso_exp(g, x)}, {x, iso_tanh(g, x)}}, wrong = {x, a}, view = {x, x};
    assert_int_equal(
        iso_plan_create(g, &(iso_plan_spec){.vars = vars, .assign_count = 2, .assigns = twice}, &plan, &err),
        ISO_E_ARGUMENT);
    assert_int_equal(
        iso_plan_create(g, &(iso_plan_spec){.vars = vars, .assign_count = 1, .assigns = &wrong}, &plan, &err),
        ISO_E_ARGUMENT);
    assert_int_equal(
        iso_plan_create(g, &(iso_plan_spec){.vars = vars, .assign_count = 1, .assigns = &view}, &plan, &err),
        ISO_E_ARGUMENT);
    assert_int_equal(
        iso_plan_create(g, &(iso_plan_spec){.vars = vars, .output_count = 1, .outputs = &rows}, &plan, &err), ISO_OK);
    int64_t good[] = {0, 3, 1, 2, 3}, bad[] = {0, 3, 1, 4, 0};
    assert_int_equal(iso_plan_write_index(plan, index, good, 5, &err), ISO_OK);
    assert_int_equal(iso_plan_write_index(plan, index, bad, 5, &err), ISO_E_ARGUMENT);
    assert_int_equal(iso_plan_write_index(plan, index, good, 4, &err), ISO_E_ARGUMENT);
    float v[8] = {0};
    assert_int_equal(iso_plan_write(plan, index, v, 5, &err), ISO_E_ARGUMENT);
    assert_int_equal(iso_plan_read(plan, sum, v, 3, &err), ISO_E_ARGUMENT); /* not an output */
    iso_plan_free(plan);
    iso_vars_free(vars);
    iso_graph_free(g);
}

int main(void)
{
    print_message("seed %llu\n", (unsigned long long)seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_expressions),
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_cut_products),
        cmocka_unit_test(test_difference_is_seen),
        cmocka_unit_test(test_assignments_read_old_values),
        cmocka_unit_test(test_frozen),
        cmocka_unit_test(test_frozen_with_assigns),
        cmocka_unit_test(test_permuted_states),
        cmocka_unit_test(test_planning_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
