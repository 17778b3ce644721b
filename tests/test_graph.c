/* test_graph.c: every op's shape rule, JVP and VJP, first and second order, against central differences in double. */
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/graph/plan.h"
#include "model/philox.h"
#include "tests/check.h"

#define MAX_X 3
static const uint64_t seed = 20221;

/* A scalar-valued case: builds y (any shape) from inputs x[]. */
typedef struct test_case {
    const char *name;
    int inputs;
    iso_shape shape[MAX_X];
    iso_node (*build)(iso_graph *g, const iso_node *x);
    double low, high; /* range of the inputs */
} test_case;

static void draw(uint32_t stream, int64_t n, double low, double high, double *out)
{
    float *f = malloc((size_t)n * sizeof *f);
    assert_non_null(f);
    iso_draw_uniform((iso_draw){seed, stream, 0}, low, high, n, f);
    for (int64_t i = 0; i < n; i++) out[i] = f[i];
    free(f);
}

/* Plans `outputs` on the reference backend over named inputs and runs once. */
typedef struct runner {
    iso_graph *g;
    iso_vars *vars;
    iso_plan *plan;
} runner;

static runner prepare(iso_graph *g, int n, const iso_node *outputs)
{
    runner r = {.g = g};
    iso_error err = {0};
    if (iso_graph_check(g, &err) != ISO_OK) fail_msg("%s", err.message);
    assert_int_equal(iso_vars_create(iso_backend_reference(), &r.vars, &err), ISO_OK);
    iso_plan_spec spec = {.vars = r.vars, .output_count = n, .outputs = outputs};
    if (iso_plan_create(g, &spec, &r.plan, &err) != ISO_OK) fail_msg("%s", err.message);
    return r;
}

static void write_input(runner *r, iso_node n, const double *v)
{
    iso_shape s = iso_node_shape(r->g, n);
    assert_int_equal(iso_plan_write_f64(r->plan, n, v, iso_shape_count(&s), NULL), ISO_OK);
}

static void read_output(runner *r, iso_node n, double *v)
{
    iso_shape s = iso_node_shape(r->g, n);
    assert_int_equal(iso_plan_read_f64(r->plan, n, v, iso_shape_count(&s), NULL), ISO_OK);
}

static void finish(runner *r)
{
    iso_plan_free(r->plan);
    iso_vars_free(r->vars);
    iso_graph_free(r->g);
}

/* --- the cases: each op on odd and broadcast shapes */

#define CASE1(NAME, expression) \
    static iso_node build_##NAME(iso_graph *g, const iso_node *x) { return expression; }
CASE1(add, iso_add(g, x[0], x[1]))
CASE1(sub, iso_sub(g, x[0], x[1]))
CASE1(mul, iso_mul(g, x[0], x[1]))
CASE1(div, iso_div(g, x[0], x[1]))
CASE1(square, iso_square(g, x[0]))
CASE1(scale, iso_mul(g, iso_scale(g, x[0], -1.75), x[0]))
CASE1(shift, iso_square(g, iso_shift(g, x[0], 0.3)))
CASE1(exp, iso_exp(g, x[0]))
CASE1(log, iso_log(g, x[0]))
CASE1(sqrt, iso_sqrt(g, x[0]))
CASE1(tanh, iso_tanh(g, x[0]))
CASE1(sigmoid, iso_sigmoid(g, x[0]))
CASE1(softplus, iso_softplus(g, x[0]))
CASE1(relu, iso_mul(g, iso_relu(g, x[0]), x[0]))
CASE1(step, iso_mul(g, iso_step(g, x[0]), iso_square(g, x[0])))
CASE1(sum_middle, iso_square(g, iso_sum(g, x[0], iso_shape3(3, 1, 5))))
CASE1(sum_lead, iso_square(g, iso_sum(g, x[0], iso_shape1(5))))
CASE1(sum_all, iso_square(g, iso_sum_all(g, x[0])))
CASE1(sum_rows, iso_square(g, iso_sum_rows(g, x[0])))
CASE1(mean, iso_exp(g, iso_mean_all(g, x[0])))
CASE1(broadcast, iso_square(g, iso_broadcast(g, iso_tanh(g, x[0]), iso_shape4(2, 3, 4, 5))))
CASE1(reshape, iso_mul(g, iso_reshape(g, iso_exp(g, x[0]), iso_shape2(4, 15)), x[1]))
CASE1(permute4, iso_square(g, iso_permute(g, iso_exp(g, x[0]), 2, 0, 3, 1)))
CASE1(permute2, iso_mul(g, iso_permute(g, x[0], 1, 0, -1, -1), x[1]))
CASE1(permute_twice, iso_square(g, iso_permute(g, iso_permute(g, x[0], 1, 2, 0, -1), 2, 1, 0, -1)))
CASE1(slice, iso_square(g, iso_slice(g, x[0], 1, 1, 2)))
CASE1(pad, iso_square(g, iso_pad(g, x[0], 2, 3, 11)))
CASE1(concat, iso_square(g, iso_concat(g, x[0], x[1], 1)))
CASE1(concat_half, iso_square(g, iso_concat(g, iso_square(g, x[0]), iso_const(g, 0.5, iso_shape3(3, 2, 5)), 1)))
CASE1(matmul_nn, iso_square(g, iso_matmul(g, x[0], x[1], false, false)))
CASE1(matmul_tn, iso_square(g, iso_matmul(g, x[0], x[1], true, false)))
CASE1(matmul_nt, iso_square(g, iso_matmul(g, x[0], x[1], false, true)))
CASE1(matmul_tt, iso_square(g, iso_matmul(g, x[0], x[1], true, true)))
CASE1(conv_s2, iso_square(g, iso_conv(g, x[0], x[1], 2, 0)))
CASE1(conv_s1p2, iso_square(g, iso_conv(g, x[0], x[1], 1, 2)))
CASE1(conv_s3p1, iso_square(g, iso_conv(g, x[0], x[1], 3, 1)))
CASE1(conv_x, iso_square(g, iso_conv_x(g, x[0], x[1], 2, 1, 6, 8)))
CASE1(conv_x_odd, iso_square(g, iso_conv_x(g, x[0], x[1], 2, 1, 5, 8)))
CASE1(conv_w, iso_square(g, iso_conv_w(g, x[0], x[1], 2, 1, 3, 4)))

/* gather and scatter need an index: rows 2, 0, 2, 1 (a row twice). */
static iso_node build_gather(iso_graph *g, const iso_node *x)
{
    return iso_square(g, iso_gather(g, x[0], iso_input_index(g, "rows", 4)));
}
static iso_node build_scatter(iso_graph *g, const iso_node *x)
{
    return iso_square(g, iso_scatter(g, x[0], iso_input_index(g, "rows", 4), 3));
}
static const int64_t rows_of_index[4] = {2, 0, 2, 1};

/* The shape of the real thing: a small network, its Jacobian products, and a ratio of them. */
static iso_node build_distortion(iso_graph *g, const iso_node *x)
{
    iso_node h = iso_softplus(g, iso_matmul(g, x[0], x[1], false, false));
    iso_node y = iso_tanh(g, iso_matmul(g, h, x[2], false, true));
    iso_node v = iso_const(g, 0.7, iso_shape2(3, 2));
    iso_node jv = iso_jvp1(g, y, x[0], v), jtjv = iso_vjp1(g, y, x[0], jv);
    return iso_div(g, iso_mean_all(g, iso_square(g, jtjv)), iso_square(g, iso_mean_all(g, iso_square(g, jv))));
}

#define S0 \
    { \
        0, { 0 } \
    }
#define S1(a) \
    { \
        1, { a } \
    }
#define S2(a, b) \
    { \
        2, { a, b } \
    }
#define S3(a, b, c) \
    { \
        3, { a, b, c } \
    }
#define S4(a, b, c, d) \
    { \
        4, { a, b, c, d } \
    }
static const test_case cases[] = {
    {"add", 2, {S3(3, 4, 5), S3(3, 4, 5)}, build_add, -1, 1},
    {"add broadcast", 2, {S3(3, 1, 5), S2(4, 1)}, build_add, -1, 1},
    {"sub broadcast", 2, {S1(5), S3(3, 4, 5)}, build_sub, -1, 1},
    {"mul", 2, {S2(3, 7), S2(3, 7)}, build_mul, -1, 1},
    {"mul broadcast", 2, {S4(2, 3, 1, 5), S3(3, 4, 1)}, build_mul, -1, 1},
    {"mul scalar", 2, {S0, S2(3, 2)}, build_mul, -1, 1},
    {"div", 2, {S2(3, 5), S2(3, 5)}, build_div, 0.5, 2},
    {"div broadcast", 2, {S2(3, 1), S1(5)}, build_div, 0.5, 2},
    {"square", 1, {S2(3, 5)}, build_square, -1, 1},
    {"scale", 1, {S1(7)}, build_scale, -1, 1},
    {"shift", 1, {S1(7)}, build_shift, -1, 1},
    {"exp", 1, {S2(3, 5)}, build_exp, -1, 1},
    {"log", 1, {S2(3, 5)}, build_log, 0.5, 2},
    {"sqrt", 1, {S2(3, 5)}, build_sqrt, 0.5, 2},
    {"tanh", 1, {S2(3, 5)}, build_tanh, -2, 2},
    {"sigmoid", 1, {S2(3, 5)}, build_sigmoid, -3, 3},
    {"softplus", 1, {S2(3, 5)}, build_softplus, -3, 3},
    {"relu", 1, {S2(5, 7)}, build_relu, -1, 1},
    {"step", 1, {S2(5, 7)}, build_step, -1, 1},
    {"sum of a middle axis", 1, {S3(3, 4, 5)}, build_sum_middle, -1, 1},
    {"sum of leading axes", 1, {S3(3, 4, 5)}, build_sum_lead, -1, 1},
    {"sum of all", 1, {S3(3, 4, 5)}, build_sum_all, -1, 1},
    {"sum of rows", 1, {S4(3, 2, 1, 5)}, build_sum_rows, -1, 1},
    {"mean", 1, {S2(3, 5)}, build_mean, -1, 1},
    {"broadcast", 1, {S3(3, 1, 5)}, build_broadcast, -1, 1},
    {"reshape", 2, {S3(3, 4, 5), S2(4, 15)}, build_reshape, -1, 1},
    {"permute of four", 1, {S4(2, 3, 4, 5)}, build_permute4, -1, 1},
    {"permute of two", 2, {S2(3, 5), S2(5, 3)}, build_permute2, -1, 1},
    {"permute twice", 1, {S3(3, 4, 5)}, build_permute_twice, -1, 1},
    {"slice", 1, {S3(3, 4, 5)}, build_slice, -1, 1},
    {"pad", 1, {S3(3, 4, 5)}, build_pad, -1, 1},
    {"concat", 2, {S3(3, 4, 5), S3(3, 2, 5)}, build_concat, -1, 1},
    {"concat with a constant", 1, {S3(3, 4, 5)}, build_concat_half, -1, 1},
    {"gather", 1, {S3(3, 2, 5)}, build_gather, -1, 1},
    {"scatter", 1, {S2(4, 5)}, build_scatter, -1, 1},
    {"matmul", 2, {S2(3, 4), S2(4, 5)}, build_matmul_nn, -1, 1},
    {"matmul At", 2, {S2(4, 3), S2(4, 5)}, build_matmul_tn, -1, 1},
    {"matmul Bt", 2, {S2(3, 4), S2(5, 4)}, build_matmul_nt, -1, 1},
    {"matmul At Bt", 2, {S2(4, 3), S2(5, 4)}, build_matmul_tt, -1, 1},
    {"matmul batched", 2, {S3(2, 3, 4), S3(2, 4, 5)}, build_matmul_nn, -1, 1},
    {"matmul batched At Bt", 2, {S3(2, 4, 3), S3(2, 5, 4)}, build_matmul_tt, -1, 1},
    {"conv stride 2", 2, {S4(2, 7, 6, 3), S4(4, 3, 2, 3)}, build_conv_s2, -1, 1},
    {"conv padding 2", 2, {S4(2, 4, 3, 2), S4(3, 3, 3, 2)}, build_conv_s1p2, -1, 1},
    {"conv stride 3", 2, {S4(1, 7, 8, 2), S4(3, 4, 3, 2)}, build_conv_s3p1, -1, 1},
    {"conv_x", 2, {S4(2, 3, 4, 3), S4(3, 4, 4, 2)}, build_conv_x, -1, 1},
    {"conv_x odd", 2, {S4(2, 3, 4, 3), S4(3, 3, 4, 2)}, build_conv_x_odd, -1, 1},
    {"conv_w", 2, {S4(2, 5, 6, 3), S4(2, 3, 3, 2)}, build_conv_w, -1, 1},
    {"relaxed distortion", 3, {S2(3, 2), S2(2, 4), S2(5, 4)}, build_distortion, -1, 1},
};

/* f(x) = <c, y(x)> with a random fixed c, so that every element of y counts. */
typedef struct built {
    iso_graph *g;
    iso_node x[MAX_X], t[MAX_X], y, c;
} built;

static built build(const test_case *k)
{
    built b = {.g = iso_graph_create()};
    assert_non_null(b.g);
    for (int i = 0; i < k->inputs; i++) {
        char name[16];
        snprintf(name, sizeof name, "x%d", i);
        b.x[i] = iso_input(b.g, name, k->shape[i]);
        snprintf(name, sizeof name, "t%d", i);
        b.t[i] = iso_input(b.g, name, k->shape[i]);
    }
    b.y = k->build(b.g, b.x);
    b.c = iso_input(b.g, "c", iso_node_shape(b.g, b.y));
    return b;
}

/* Writes everything; the inputs moved by `shift` along the tangents. */
static void write_all(runner *r, const test_case *k, const built *b, double shift)
{
    double v[512], t[512];
    for (int i = 0; i < k->inputs; i++) {
        int64_t n = iso_shape_count(&k->shape[i]);
        assert_true(n <= 512);
        draw((uint32_t)i, n, k->low, k->high, v);
        draw((uint32_t)(10 + i), n, -1, 1, t);
        write_input(r, b->t[i], t);
        for (int64_t e = 0; e < n; e++) v[e] += shift * t[e];
        write_input(r, b->x[i], v);
    }
    iso_shape s = iso_node_shape(b->g, b->c);
    assert_true(iso_shape_count(&s) <= 512);
    draw(20, iso_shape_count(&s), -1, 1, v);
    write_input(r, b->c, v);
    iso_node rows = iso_input_index(b->g, "rows", 4);
    if (rows != ISO_NONE && rows < iso_graph_size(b->g))
        (void)!iso_plan_write_index(r->plan, rows, rows_of_index, 4, NULL);
}

static double scalar_at(const test_case *k, iso_node (*make)(built *, const test_case *), double shift)
{
    built b = build(k);
    iso_node out = make(&b, k);
    (void)iso_input_index(b.g, "rows", 4);
    runner r = prepare(b.g, 1, &out);
    write_all(&r, k, &b, shift);
    iso_plan_run(r.plan);
    double value;
    read_output(&r, out, &value);
    finish(&r);
    return value;
}

/* <c, y> */
static iso_node make_value(built *b, const test_case *k)
{
    (void)k;
    return iso_sum_all(b->g, iso_mul(b->g, b->c, b->y));
}
/* <c, J t> by jvp */
static iso_node make_jvp(built *b, const test_case *k)
{
    iso_node ty;
    iso_jvp(b->g, 1, &b->y, k->inputs, b->x, b->t, &ty);
    return iso_sum_all(b->g, iso_mul(b->g, b->c, ty));
}
/* <Jt c, t> by vjp */
static iso_node make_vjp(built *b, const test_case *k)
{
    iso_node gx[MAX_X], sum = iso_const(b->g, 0, iso_shape0());
    iso_vjp(b->g, 1, &b->y, &b->c, k->inputs, b->x, gx);
    for (int i = 0; i < k->inputs; i++) sum = iso_add(b->g, sum, iso_sum_all(b->g, iso_mul(b->g, gx[i], b->t[i])));
    return sum;
}
/* The derivative of `first` along t, by jvp or by vjp. */
static iso_node along(built *b, const test_case *k, iso_node first, bool forward)
{
    built again = *b;
    again.y = first;
    again.c = iso_one(b->g);
    return forward ? make_jvp(&again, k) : make_vjp(&again, k);
}
static iso_node make_jvp_jvp(built *b, const test_case *k) { return along(b, k, make_jvp(b, k), true); }
static iso_node make_vjp_jvp(built *b, const test_case *k) { return along(b, k, make_jvp(b, k), false); }
static iso_node make_jvp_vjp(built *b, const test_case *k) { return along(b, k, make_vjp(b, k), true); }
static iso_node make_vjp_vjp(built *b, const test_case *k) { return along(b, k, make_vjp(b, k), false); }

/* Central differences of fourth order. */
static double difference(const test_case *k, iso_node (*make)(built *, const test_case *))
{
    const double h = 1e-3;
    return (8 * (scalar_at(k, make, h) - scalar_at(k, make, -h)) -
            (scalar_at(k, make, 2 * h) - scalar_at(k, make, -2 * h))) /
           (12 * h);
}

static bool close_to(double got, double want, double tolerance)
{
    return fabs(got - want) <= tolerance * (1 + fabs(want));
}

static void test_derivatives(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const test_case *k = &cases[i];
        double first = difference(k, make_value), jvp = scalar_at(k, make_jvp, 0), vjp = scalar_at(k, make_vjp, 0);
        if (!close_to(jvp, first, 1e-8)) fail_msg("%s: jvp %.12g, difference %.12g", k->name, jvp, first);
        if (!close_to(vjp, first, 1e-8)) fail_msg("%s: vjp %.12g, difference %.12g", k->name, vjp, first);
    }
}

static void test_second_derivatives(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        iso_node (*make)(built *, const test_case *);
        bool of_vjp;
    } orders[] = {{"jvp of jvp", make_jvp_jvp, false},
                  {"vjp of jvp", make_vjp_jvp, false},
                  {"jvp of vjp", make_jvp_vjp, true},
                  {"vjp of vjp", make_vjp_vjp, true}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double second[2] = {difference(&cases[i], make_jvp), difference(&cases[i], make_vjp)};
        for (size_t o = 0; o < 4; o++) {
            double got = scalar_at(&cases[i], orders[o].make, 0), want = second[orders[o].of_vjp];
            if (!close_to(got, want, 1e-8))
                fail_msg("%s: %s %.12g, difference %.12g", cases[i].name, orders[o].name, got, want);
        }
    }
}

/* The check itself must be able to fail: a wrong derivative is seen. */
static void test_wrong_derivative_is_seen(void **state)
{
    (void)state;
    const test_case *k = &cases[0];
    double right = scalar_at(k, make_jvp, 0);
    assert_true(close_to(right, difference(k, make_value), 1e-8));
    assert_false(close_to(right * 1.0001, difference(k, make_value), 1e-8));
    assert_false(close_to(NAN, difference(k, make_value), 1e-8));
}

static void test_shapes_are_checked(void **state)
{
    (void)state;
    iso_error err;
    struct {
        const char *what;
        int which;
    } bad[] = {{"add", 0},    {"matmul", 1},  {"conv", 2}, {"slice", 3},   {"permute", 4}, {"sum", 5},   {"concat", 6},
               {"gather", 7}, {"reshape", 8}, {"name", 9}, {"conv_x", 10}, {"pad", 11},    {"empty", 12}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        iso_graph *g = iso_graph_create();
        iso_node a = iso_input(g, "a", iso_shape2(3, 4)), x = iso_input(g, "x", iso_shape4(2, 5, 5, 3)),
                 w = iso_input(g, "w", iso_shape4(4, 3, 3, 2)), n = ISO_NONE;
        switch (bad[i].which) {
        case 0: n = iso_add(g, a, iso_input(g, "b", iso_shape2(2, 4))); break;
        case 1: n = iso_matmul(g, a, a, false, false); break;
        case 2: n = iso_conv(g, x, w, 1, 0); break;
        case 3: n = iso_slice(g, a, 1, 3, 2); break;
        case 4: n = iso_permute(g, a, 0, 0, -1, -1); break;
        case 5: n = iso_sum(g, a, iso_shape2(3, 2)); break;
        case 6: n = iso_concat(g, a, x, 0); break;
        case 7: n = iso_gather(g, a, a); break;
        case 8: n = iso_reshape(g, a, iso_shape1(11)); break;
        case 9: n = iso_input(g, "a", iso_shape1(2)); break;
        case 10: n = iso_conv_x(g, x, w, 2, 1, 4, 4); break;
        case 11: n = iso_pad(g, a, 0, 2, 4); break;
        case 12: n = iso_input(g, "none", iso_shape2(0, 3)); break;
        }
        assert_int_equal(n, ISO_NONE);
        assert_int_equal(iso_exp(g, n), ISO_NONE); /* passed on */
        assert_int_equal(iso_graph_check(g, &err), ISO_E_ARGUMENT);
        assert_true(strlen(err.message) > 0);
        iso_graph_free(g);
    }
}

static void test_equal_expressions_are_one_node(void **state)
{
    (void)state;
    iso_graph *g = iso_graph_create();
    iso_node a = iso_input(g, "a", iso_shape2(3, 4)), b = iso_input(g, "b", iso_shape2(3, 4));
    assert_int_equal(iso_add(g, a, b), iso_add(g, b, a));
    assert_int_equal(iso_exp(g, iso_mul(g, a, b)), iso_exp(g, iso_mul(g, b, a)));
    assert_int_not_equal(iso_sub(g, a, b), iso_sub(g, b, a));
    assert_int_not_equal(iso_scale(g, a, 2), iso_scale(g, a, 3));
    assert_int_equal(iso_scale(g, iso_scale(g, a, 2), 3), iso_scale(g, a, 6));
    assert_int_equal(iso_reshape(g, iso_reshape(g, a, iso_shape1(12)), iso_shape2(3, 4)), a);
    assert_int_equal(iso_permute(g, iso_permute(g, a, 1, 0, -1, -1), 1, 0, -1, -1), a);
    assert_int_equal(iso_add(g, a, iso_const(g, 0, iso_shape0())), a);
    assert_int_equal(iso_node_op(g, iso_matmul(g, a, iso_const(g, 0, iso_shape2(4, 2)), false, false)), ISO_OP_CONST);
    iso_graph_free(g);
}

int main(void)
{
    print_message("seed %llu\n", (unsigned long long)seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_derivatives),
        cmocka_unit_test(test_second_derivatives),
        cmocka_unit_test(test_wrong_derivative_is_seen),
        cmocka_unit_test(test_shapes_are_checked),
        cmocka_unit_test(test_equal_expressions_are_one_node),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
