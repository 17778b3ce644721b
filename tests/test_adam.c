/* Adam as a plan, on both backends, against a plain loop as PyTorch has it. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "model/train.h"
#include "tests/check.h"

enum { N = 5 };

/* Plain Adam on L = sum a p^2 / 2 + sum p^3 / 3, as PyTorch does it; inside: the wrong one, with eps under the root. */
static void plain_adam(int steps, double lr, bool inside, const double a[N], double p[N])
{
    double m[N] = {0}, v[N] = {0};
    for (int t = 1; t <= steps; t++)
        for (int i = 0; i < N; i++) {
            double g = a[i] * p[i] + p[i] * p[i];
            m[i] = 0.9 * m[i] + 0.1 * g;
            v[i] = 0.999 * v[i] + 0.001 * g * g;
            double mh = m[i] / (1 - pow(0.9, t)), vh = v[i] / (1 - pow(0.999, t));
            p[i] -= lr * mh / (inside ? sqrt(vh + 1e-8) : sqrt(vh) + 1e-8);
        }
}

/* The same as a plan. */
static void graph_adam(const iso_backend *backend, int steps, double lr, const double a[N], double p[N])
{
    iso_error err = {0};
    iso_graph *g = iso_graph_create();
    iso_vars *vars = NULL;
    iso_plan *plan = NULL;
    iso_assign assign[3];
    float start[N], end[N];
    assert_non_null(g);
    iso_node w = iso_state(g, "p", iso_shape1(N)), c = iso_input(g, "a", iso_shape1(N));
    iso_node square = iso_square(g, w);
    iso_node loss = iso_sum_all(g, iso_add(g, iso_scale(g, iso_mul(g, c, square), 0.5),
                                           iso_scale(g, iso_mul(g, square, w), 1.0 / 3)));
    iso_adam adam = iso_adam_inputs(g);
    iso_adam_update(g, adam, w, iso_vjp1(g, loss, w, iso_one(g)), assign);
    assert_int_equal(iso_graph_check(g, &err), ISO_OK);
    assert_int_equal(iso_vars_create(backend, &vars, &err), ISO_OK);
    iso_node need[6];
    for (int i = 0; i < 3; i++) need[2 * i] = assign[i].state, need[2 * i + 1] = assign[i].value;
    assert_int_equal(iso_vars_add_states(vars, g, 6, need, &err), ISO_OK);
    for (int i = 0; i < N; i++) start[i] = (float)p[i];
    assert_int_equal(iso_vars_write(vars, "p", start, N, &err), ISO_OK);
    iso_plan_spec spec = {.vars = vars, .outputs = &loss, .output_count = 1, .assigns = assign, .assign_count = 3, .threads = 1};
    if (iso_plan_create(g, &spec, &plan, &err) != ISO_OK) fail_msg("%s", err.message);
    assert_int_equal(iso_plan_write_f64(plan, c, a, N, &err), ISO_OK);
    for (int t = 1; t <= steps; t++) {
        double rate = iso_adam_rate(lr, t), root = iso_adam_root(t);
        assert_int_equal(iso_plan_write_f64(plan, adam.rate, &rate, 1, &err), ISO_OK);
        assert_int_equal(iso_plan_write_f64(plan, adam.root, &root, 1, &err), ISO_OK);
        iso_plan_run(plan);
    }
    assert_int_equal(iso_vars_read(vars, "p", end, N, &err), ISO_OK);
    for (int i = 0; i < N; i++) p[i] = end[i];
    iso_plan_free(plan);
    iso_vars_free(vars);
    iso_graph_free(g);
}

static double largest_difference(const double x[N], const double y[N])
{
    double worst = 0;
    for (int i = 0; i < N; i++)
        if (!(fabs(x[i] - y[i]) <= worst)) worst = fabs(x[i] - y[i]);
    return worst;
}

static void test_adam(void **unused)
{
    (void)unused;
    /* The last one's gradients are about 1e-4, where eps matters if it stands in the wrong place. */
    const double a[N] = {1, -2, 0.5, 30, 1e-3}, start[N] = {0.5, -1.25, 2, 0.125, 0.0625};
    double want[N], wrong[N], got[N];
    memcpy(want, start, sizeof want);
    memcpy(wrong, start, sizeof wrong);
    plain_adam(20, 0.003, false, a, want);
    plain_adam(20, 0.003, true, a, wrong);
    assert_true(largest_difference(want, start) > 0.01);
    for (int single = 0; single < 2; single++) {
        memcpy(got, start, sizeof got);
        graph_adam(single ? iso_backend_cpu() : iso_backend_reference(), 20, 0.003, a, got);
        assert_true(largest_difference(got, want) <= 1e-6); /* read back in single precision */
    }
    double tiny[N] = {1e-6, 2e-6, -3e-6, 1e-7, 1e-5}, tiny_want[N], tiny_wrong[N];
    memcpy(tiny_want, tiny, sizeof tiny);
    memcpy(tiny_wrong, tiny, sizeof tiny);
    plain_adam(3, 1e-3, false, a, tiny_want);
    plain_adam(3, 1e-3, true, a, tiny_wrong);
    graph_adam(iso_backend_reference(), 3, 1e-3, a, tiny);
    assert_true(largest_difference(tiny, tiny_want) <= 1e-6);
    assert_false(largest_difference(tiny, tiny_wrong) <= 1e-6); /* deliberately wrong: must be seen */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_adam)};
    return cmocka_run_group_tests_name("Adam", tests, NULL, NULL);
}
