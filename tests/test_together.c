/* test_together.c: small steps that run several at once change no bit: training steps of a flow and of a small VAE with 1, 2, 3 and 7
 * threads, run after run, and what they leave in every state. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "model/graph/plan_internal.h"
#include "model/net/net.h"
#include "model/philox.h"
#include "model/train_step.h"
#include "tests/check.h"

enum { BATCH = 9, LATENT = 6, RUNS = 4 };
static const uint64_t seed = 5;

/* What a few runs of a step compute. */
typedef struct outcome {
    double loss[RUNS];
    float *state; /* all of them, one behind the other */
    size_t count;
    int together; /* runs of small steps in the plan */
} outcome;

static const iso_net mlp = {
    .arch = ISO_ARCH_MLP, .latent = LATENT, .layers = 4, .size = {LATENT, 17, 20, 31}, .act = "tanh", .out = "sigmoid"};

static void write(iso_plan *p, iso_node n, uint32_t stream, int64_t count)
{
    float x[BATCH * 64];
    iso_draw_normal((iso_draw){seed, stream, 0}, count, x);
    if (n != ISO_NONE) assert_int_equal(iso_plan_write(p, n, x, count, NULL), ISO_OK);
}

static void fill_states(iso_vars *vars, uint64_t shift)
{
    for (int i = 0; i < iso_vars_count(vars); i++) {
        iso_shape shape = iso_vars_shape(vars, i);
        int64_t n = iso_shape_count(&shape);
        float *x = calloc((size_t)n, sizeof *x);
        bool moment = strncmp(iso_vars_name(vars, i), "adam.", 5) == 0;
        if (!moment) iso_draw_uniform((iso_draw){seed + shift, 40 + (uint32_t)i, 0}, -0.3, 0.3, n, x);
        assert_int_equal(iso_vars_write(vars, iso_vars_name(vars, i), x, n, NULL), ISO_OK);
        free(x);
    }
}

static outcome run(iso_goal goal, int threads, uint64_t shift)
{
    iso_net net = mlp;
    iso_objective objective = {.goal = goal, .kl_weight = 1, .alpha = 3, .beta = 2};
    iso_error err = {0};
    iso_vars *vars;
    iso_train_step *s;
    outcome o = {.count = 0};
    double rate = 1e-3, root = 1;
    int64_t perm[BATCH];
    if (goal == ISO_GOAL_FLOW) {
        net.flow_depth = 3;
        net.flow_length = 24;
    }
    assert_int_equal(iso_vars_create(iso_backend_cpu(), &vars, &err), ISO_OK);
    if (iso_train_step_create(&net, &objective, BATCH, true, vars, threads, &s, &err) != ISO_OK)
        fail_msg("%s", err.message);
    fill_states(vars, shift);
    write(s->plan, s->x, 1, iso_shape_count(&s->x_shape));
    write(s->plan, s->eps, 2, BATCH * LATENT);
    write(s->plan, s->v, 3, BATCH * LATENT);
    write(s->plan, s->delta, 4, BATCH);
    iso_draw_permutation((iso_draw){seed, 5, 0}, BATCH, perm);
    assert_int_equal(iso_plan_write_index(s->plan, s->perm, perm, BATCH, &err), ISO_OK);
    assert_int_equal(iso_plan_write_f64(s->plan, s->adam.rate, &rate, 1, &err), ISO_OK);
    assert_int_equal(iso_plan_write_f64(s->plan, s->adam.root, &root, 1, &err), ISO_OK);
    for (int i = 0; i < RUNS; i++) {
        iso_plan_run(s->plan);
        assert_int_equal(iso_plan_read_f64(s->plan, s->term[ISO_TERM_LOSS], &o.loss[i], 1, &err), ISO_OK);
    }
    o.state = malloc(iso_vars_bytes(vars));
    for (int i = 0; i < iso_vars_count(vars); i++) {
        iso_shape shape = iso_vars_shape(vars, i);
        int64_t n = iso_shape_count(&shape);
        assert_int_equal(iso_vars_read(vars, iso_vars_name(vars, i), o.state + o.count, n, &err), ISO_OK);
        o.count += (size_t)n;
    }
    o.together = s->plan->together_count;
    iso_train_step_free(s);
    iso_vars_free(vars);
    return o;
}

static bool same(const outcome *a, const outcome *b)
{
    return a->count == b->count && memcmp(a->loss, b->loss, sizeof a->loss) == 0 &&
           memcmp(a->state, b->state, a->count * sizeof *a->state) == 0;
}

static void threads_change_nothing(iso_goal goal)
{
    const int threads[] = {2, 3, 7};
    outcome one = run(goal, 1, 0);
    assert_int_equal(one.together, 0);
    assert_true(one.loss[0] == one.loss[0] && one.loss[0] != one.loss[RUNS - 1]); /* numbers, and it learns */
    for (int i = 0; i < 3; i++)
        for (int again = 0; again < 3; again++) {
            outcome many = run(goal, threads[i], 0);
            assert_true(many.together > 0);
            assert_true(same(&one, &many));
            free(many.state);
        }
    free(one.state);
}

static void test_flow(void **state)
{
    (void)state;
    threads_change_nothing(ISO_GOAL_FLOW);
}

static void test_vae(void **state)
{
    (void)state;
    threads_change_nothing(ISO_GOAL_ISOMETRIC);
}

/* Chains that have nothing in common don't wait for each other, however close they lie in memory. */
static void test_chains(void **state)
{
    (void)state;
    enum { LENGTH = 6, ROWS = 40, WIDTH = 24, CHAINS = 3 };
    int longest[CHAINS] = {0};
    for (int chains = 1; chains <= CHAINS; chains++) {
        iso_error err = {0};
        iso_vars *vars;
        iso_plan *plan;
        iso_graph *g = iso_graph_create();
        iso_node end[CHAINS];
        for (int c = 0; c < chains; c++) end[c] = iso_input(g, (char[]){(char)('a' + c), 0}, iso_shape2(ROWS, WIDTH));
        for (int i = 0; i < LENGTH; i++)
            for (int c = 0; c < chains; c++) end[c] = iso_permute(g, iso_tanh(g, end[c]), 1, 0, -1, -1);
        assert_int_equal(iso_vars_create(iso_backend_cpu(), &vars, &err), ISO_OK);
        const iso_plan_spec spec = {.vars = vars, .outputs = end, .output_count = chains, .threads = 2};
        if (iso_plan_create(g, &spec, &plan, &err) != ISO_OK) fail_msg("%s", err.message);
        longest[chains - 1] = iso_together_longest(plan);
        iso_plan_free(plan);
        iso_vars_free(vars);
        iso_graph_free(g);
    }
    assert_int_equal(longest[0], 2 * LENGTH);
    for (int c = 1; c < CHAINS; c++) assert_true(longest[c] <= longest[0] * 4 / 3); /* reused bytes make some wait */
}

/* Two chains of steps that hand large tensors on, by way of small ones: a home each, and other ones with as many threads. What writes bytes anew joins nobody,
 * nor does what is only read; slices are at home by their images; a chain that is all there is to do has no home. */
static void test_homes(void **state)
{
    (void)state;
    enum { STEPS = 8, LARGE = 64 << 10, SMALL = 4 << 10, EACH = 3, A = 1 << 20, B = 2 << 20, SHARED = 3 << 20, LITTLE = 4 << 20 };
    /* by turns a step of chain 0, in A, and of chain 1, in B; the last pair are slices. All read SHARED, and write LITTLE, which is small */
    range list[STEPS * EACH + STEPS];
    int at[STEPS + 1] = {0}, home[STEPS], n = 0;
    step s[STEPS] = {{.op = 0}};
    double seconds[STEPS];
    for (int i = 0; i < STEPS; i++) {
        const uintptr_t own = i % 2 ? B : A;
        list[n++] = (range){SHARED, SHARED + LARGE, false};
        list[n++] = (range){LITTLE, LITTLE + SMALL, i % 3 == 0};
        if (i >= 2 && i < 6) list[n++] = (range){own, own + LARGE, false};
        if (i < 6) list[n++] = (range){own, own + LARGE, true};
        at[i + 1] = n;
        seconds[i] = 1;
    }
    for (int i = 6; i < STEPS; i++) s[i].position = i == 6 ? 0 : 0.75, s[i].images = 0.25;
    assert_true(iso_homes_find(STEPS, s, list, at, seconds, 1, home));
    for (int i = 0; i < STEPS; i++) assert_int_equal(home[i], 0);
    seconds[6] = seconds[7] = 3; /* so that a chain is a quarter of all */
    assert_true(iso_homes_find(STEPS, s, list, at, seconds, 2, home));
    for (int i = 0; i < 6; i++) assert_int_equal(home[i], i % 2);
    assert_int_equal(home[6], 0);
    assert_int_equal(home[7], 1);
    assert_true(iso_homes_find(STEPS, s, list, at, seconds, 4, home)); /* half of what there is for a thread is less than a chain */
    for (int i = 0; i < 6; i++) assert_int_equal(home[i], -1);
    assert_int_equal(home[7], 3);
    list[at[2] + 2].write = true; /* chain 0's second step no longer reads what the first one wrote: a step, and a chain */
    assert_true(iso_homes_find(STEPS, s, list, at, seconds, 2, home));
    assert_int_equal(home[0], -1); /* a step by itself */
    assert_int_equal(home[2], home[4]);
    assert_int_not_equal(home[2], -1);
}

/* What is cut into rows becomes no more steps than there are threads, which is what there is room for, whatever number of rows is left over. */
static void test_parts(void **state)
{
    (void)state;
    const iso_net net = {.arch = ISO_ARCH_MLP, .latent = 64, .layers = 4, .size = {64, 512, 512, 31}, .act = "tanh", .out = "sigmoid"};
    const iso_objective objective = {.goal = ISO_GOAL_VAE, .kl_weight = 1};
    for (int threads = 2; threads <= 5; threads++)
        for (int64_t batch = 64; batch < 170; batch += 11) {
            iso_vars *vars;
            iso_train_step *s;
            int cut = 0, parts = 0;
            int64_t rows = 0;
            assert_int_equal(iso_vars_create(iso_backend_cpu(), &vars, NULL), ISO_OK);
            assert_int_equal(iso_train_step_create(&net, &objective, batch, true, vars, threads, &s, NULL), ISO_OK);
            for (int i = 0; i < s->plan->step_count; i++) {
                const iso_products *of = s->plan->step[i].products;
                if (!of || !of->part_of) continue;
                parts++, cut++;
                rows += of->shape.dim[0];
                assert_in_range(parts, 1, threads);
                assert_true(rows <= of->part_of);
                if (rows == of->part_of) parts = 0, rows = 0;
            }
            assert_true(cut > 0 && rows == 0);
            iso_train_step_free(s);
            iso_vars_free(vars);
        }
}

/* Other parameters must not pass as the same. */
static void test_difference_is_seen(void **state)
{
    (void)state;
    outcome a = run(ISO_GOAL_FLOW, 2, 0), b = run(ISO_GOAL_FLOW, 2, 1);
    assert_false(same(&a, &b));
    free(a.state);
    free(b.state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flow),
        cmocka_unit_test(test_vae),
        cmocka_unit_test(test_chains),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_homes),
        cmocka_unit_test(test_difference_is_seen),
    };
    return cmocka_run_group_tests_name("together", tests, NULL, NULL);
}
