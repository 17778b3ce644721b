/* test_net.c: architectures, initialisation, the flow's inverse, and the encoder. */
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "tests/check.h"
#include "tests/models.h"

static const uint64_t seed = 31;

static void bad_nets(void **state)
{
    (void)state;
    iso_error err = {0};
    iso_model *m = NULL;
    iso_net net[17];
    for (int i = 0; i < 17; i++) net[i] = i < 6 ? celeba : i < 12 ? mlp : supervised;
    net[0].width = 0;
    net[1].latent = 5000;
    net[2].flow_depth = -1;
    net[3].flow_length = 0;
    net[4].latent = 1;                    /* nothing to split */
    net[5].width = 4096, net[5].latent = 4096; /* each within range, together too much */
    net[6].layers = 1;
    net[7].layers = 17;
    net[8].size[1] = -4;
    net[9].latent = 4;
    memset(net[10].act, 'x', sizeof net[10].act); /* not even a string */
    strcpy(net[11].out, "softmax");
    net[12].classes = -1;
    net[13].classes = 4097;
    net[14].flow_depth = 2, net[14].flow_length = 4;
    net[15] = mlp, net[15].classes = 3;
    net[16].arch = ISO_ARCH_PCA;
    for (int i = 0; i < 17; i++) {
        if (iso_model_create(&net[i], &m, &err) != ISO_E_ARGUMENT) fail_msg("net %d was taken", i);
        assert_null(m);
    }
}

/* What the builders read is what iso_net_params lists, all of it, in the same shapes. */
static void check_states(const iso_net *net)
{
    iso_graph *g = iso_graph_create();
    iso_node x = iso_input(g, "x", net->arch == ISO_ARCH_CELEBA ? iso_shape4(2, 64, 64, 3) : iso_shape2(2, net->size[net->layers - 1]));
    iso_node z = iso_input(g, "z", iso_shape2(2, net->latent)), mu, log_sigma;
    iso_error err = {0};
    iso_net_encode(g, net, x, &mu, &log_sigma);
    iso_net_decode(g, net, z);
    if (net->flow_depth) iso_flow_inverse(g, net, iso_flow_forward(g, net, z));
    if (iso_graph_check(g, &err)) fail_msg("%s", err.message);
    iso_param param[128];
    int n = iso_net_params(net, 128, param), states = 0;
    for (int i = 0; i < iso_graph_size(g); i++) {
        if (iso_node_op(g, i) != ISO_OP_STATE) continue;
        iso_shape shape = iso_state_shape(g, i);
        int k = 0;
        while (k < n && strcmp(param[k].name, iso_node_name(g, i)) != 0) k++;
        assert_true(k < n && iso_shape_equal(&param[k].shape, &shape));
        states++;
    }
    assert_int_equal(states, n - 1); /* sigma belongs to the loss */
    iso_shape out = iso_node_shape(g, mu), want = iso_shape2(2, net->latent);
    assert_true(iso_shape_equal(&out, &want));
    iso_net_decode(g, net, x); /* deliberately wrong: a picture is no code */
    assert_int_equal(iso_graph_check(g, &err), ISO_E_ARGUMENT);
    iso_graph_free(g);
}

static void states(void **state)
{
    (void)state;
    iso_net odd = celeba, one = {.arch = ISO_ARCH_CELEBA, .width = 1, .latent = 1};
    odd.latent = 2;
    check_states(&celeba);
    check_states(&mlp);
    check_states(&odd);
    check_states(&one);
}

/* A supervised net's likewise: an encoder of m outputs and a classifier; no decoder, no sigma. */
static void supervised_states(void **state)
{
    (void)state;
    iso_graph *g = iso_graph_create();
    iso_error err = {0};
    iso_node x = iso_input(g, "x", iso_shape4(2, 64, 64, 3)), mu, log_sigma;
    iso_node logits = iso_net_classify(g, &supervised, iso_net_vector(g, &supervised, x));
    if (iso_graph_check(g, &err)) fail_msg("%s", err.message);
    iso_shape out = iso_node_shape(g, logits), want = iso_shape2(2, 3);
    assert_true(iso_shape_equal(&out, &want));
    iso_param param[64];
    int n = iso_net_params(&supervised, 64, param), states = 0;
    for (int i = 0; i < iso_graph_size(g); i++) {
        if (iso_node_op(g, i) != ISO_OP_STATE) continue;
        iso_shape shape = iso_state_shape(g, i);
        int k = 0;
        while (k < n && strcmp(param[k].name, iso_node_name(g, i)) != 0) k++;
        assert_true(k < n && iso_shape_equal(&param[k].shape, &shape));
        states++;
    }
    assert_int_equal(n, 12);
    assert_int_equal(states, n);
    assert_string_equal(param[8].name, "encoder.8.weight");
    assert_int_equal(param[8].shape.dim[0], 5);
    assert_string_equal(param[10].name, "classifier.weight");
    assert_int_equal(param[10].fan_in, 5);
    iso_graph_free(g);
    /* What such a net has not, and what other nets have not. */
    for (int i = 0; i < 4; i++) {
        g = iso_graph_create();
        x = iso_input(g, "x", iso_shape4(2, 64, 64, 3));
        if (i == 0) iso_net_decode(g, &supervised, iso_input(g, "z", iso_shape2(2, 5)));
        if (i == 1) iso_net_encode(g, &supervised, x, &mu, &log_sigma);
        if (i == 2) iso_net_unit(g, &celeba, x);
        if (i == 3) iso_net_classify(g, &celeba, iso_input(g, "z", iso_shape2(2, 5)));
        assert_int_equal(iso_graph_check(g, &err), ISO_E_ARGUMENT);
        iso_graph_free(g);
    }
}

static void initialisation(void **state)
{
    (void)state;
    iso_net net = {.arch = ISO_ARCH_CELEBA, .width = 8, .latent = 6, .flow_depth = 2, .flow_length = 400};
    iso_param param[128];
    int n = iso_net_params(&net, 128, param);
    iso_model *m = fresh(&net, 1), *again = fresh(&net, 1), *other = fresh(&net, 2), *fewer, *flowed = NULL;
    assert_true(same_parameters(m, again));
    assert_false(same_parameters(m, other)); /* deliberately another seed */
    assert_int_equal(n, iso_model_count(m));
    for (int i = 0; i < n; i++) {
        const float *x = iso_model_data_const(m, i);
        int64_t count = count_of(m, i);
        double bound = 1 / sqrt((double)param[i].fan_in), square = 0;
        bool zero = strncmp(param[i].name, "flow.", 5) == 0 && strstr(param[i].name + 6, ".2.");
        if (strcmp(param[i].name, "sigma") == 0) {
            assert_true(x[0] == 1);
            continue;
        }
        for (int64_t k = 0; k < count; k++) {
            assert_true(fabsf(x[k]) <= (zero ? 0 : bound));
            square += x[k] * x[k];
        }
        if (!zero && count >= 1000) assert_true(fabs(square / (double)count / (bound * bound / 3) - 1) < 0.1);
    }
    /* Linear(kept, ...) counts its inputs, Conv2d in x k x k, ConvTranspose2d out x k x k. */
    assert_int_equal(param[0].fan_in, 3 * 25);
    assert_string_equal(param[10].name, "decoder.1.weight");
    assert_int_equal(param[10].fan_in, 8 * 8 * 64);
    assert_string_equal(param[21].name, "flow.s.0.0.weight");
    assert_int_equal(param[21].fan_in, 3);
    /* A flow that comes later moves nothing else, and is the one of that seed. */
    iso_error err = {0};
    net.flow_depth = 0;
    fewer = fresh(&net, 1);
    assert_int_equal(iso_flow_init(fewer, 1, &err), ISO_E_ARGUMENT);
    assert_int_equal(iso_model_set_meta(fewer, "method", "vae", &err), ISO_OK);
    assert_int_equal(iso_model_with_flow(fewer, 0, 400, &flowed, &err), ISO_E_ARGUMENT);
    assert_int_equal(iso_model_with_flow(fewer, 2, 400, &flowed, &err), ISO_OK);
    assert_int_equal(iso_flow_init(flowed, 1, &err), ISO_OK);
    assert_true(same_parameters(m, flowed));
    assert_string_equal(iso_model_digest(m), iso_model_digest(flowed));
    assert_string_equal(iso_model_meta(flowed, "method"), "vae");
    assert_string_not_equal(iso_model_digest(fewer), iso_model_digest(flowed));
    iso_model_free(m);
    iso_model_free(again);
    iso_model_free(other);
    iso_model_free(fewer);
    iso_model_free(flowed);
}

/* --- the flow, in double precision */

/* forward(z) and inverse(forward(z)) */
static void run_flow(const iso_model *m, int64_t rows, const double *z, double *forward, double *back)
{
    const iso_net *net = iso_model_net(m);
    int64_t n = rows * net->latent;
    iso_graph *g = iso_graph_create();
    iso_node in = iso_input(g, "z", iso_shape2(rows, net->latent));
    iso_node out[2];
    out[0] = iso_flow_forward(g, net, in);
    out[1] = iso_flow_inverse(g, net, out[0]);
    iso_vars *vars = NULL;
    iso_plan *plan = NULL;
    iso_error err = {0};
    iso_plan_spec spec = {.outputs = out, .output_count = 2};
    if (iso_graph_check(g, &err) || iso_vars_create(iso_backend_reference(), &vars, &err) ||
        iso_vars_add_states(vars, g, 2, out, &err) || iso_model_to_vars(m, vars, &err))
        fail_msg("%s", err.message);
    spec.vars = vars;
    if (iso_plan_create(g, &spec, &plan, &err) || iso_plan_write_f64(plan, in, z, n, &err)) fail_msg("%s", err.message);
    iso_plan_run(plan);
    assert_int_equal(iso_plan_read_f64(plan, out[0], forward, n, &err), ISO_OK);
    assert_int_equal(iso_plan_read_f64(plan, out[1], back, n, &err), ISO_OK);
    iso_plan_free(plan);
    iso_vars_free(vars);
    iso_graph_free(g);
}

static double largest_difference(const double *a, const double *b, int n)
{
    double worst = 0;
    for (int i = 0; i < n; i++) worst = fabs(a[i] - b[i]) > worst ? fabs(a[i] - b[i]) : worst;
    return worst;
}

static void flow_inverse(void **state)
{
    (void)state;
    for (int latent = 2; latent <= 9; latent++) {
        iso_net net = mlp;
        net.latent = net.size[0] = latent;
        net.flow_depth = 8;
        net.flow_length = 11;
        enum { ROWS = 4 };
        float draw[ROWS * 9];
        double z[ROWS * 9], forward[ROWS * 9], back[ROWS * 9];
        iso_model *m = fresh(&net, seed);
        iso_draw_normal((iso_draw){seed, 5, (uint64_t)latent}, ROWS * latent, draw);
        for (int i = 0; i < ROWS * latent; i++) z[i] = draw[i];
        run_flow(m, ROWS, z, forward, back);
        assert_true(largest_difference(z, forward, ROWS * latent) == 0); /* starts as the identity */
        move_flow(m);
        run_flow(m, ROWS, z, forward, back);
        assert_true(largest_difference(z, back, ROWS * latent) < 1e-12);
        assert_true(largest_difference(z, forward, ROWS * latent) > 0.1);
        iso_model_free(m);
    }
}

/* --- the encoder */

#define IMAGES 10

static float *encode(const iso_model *m, int batch, const uint8_t *images, int n)
{
    iso_encoder *e = NULL;
    iso_error err = {0};
    float *v = iso_calloc((size_t)n * (size_t)iso_model_dim(m), sizeof *v);
    assert_non_null(v);
    if (iso_encoder_create(m, batch, &e, &err) || iso_encoder_run(e, images, n, v, &err)) fail_msg("%s", err.message);
    iso_encoder_free(e);
    return v;
}

static double difference(const float *a, const float *b, int n)
{
    double d = 0, size = 0;
    for (int i = 0; i < n; i++) {
        d += (a[i] - b[i]) * (a[i] - b[i]);
        size += a[i] * a[i];
    }
    return sqrt(d / size);
}

static void encoder(void **state)
{
    (void)state;
    iso_error err = {0};
    iso_net plain = celeba;
    plain.flow_depth = 0;
    uint8_t *images = malloc(IMAGES * ISO_PIXELS);
    for (int64_t i = 0; i < IMAGES * ISO_PIXELS; i++) images[i] = (uint8_t)((i * i / 7 + i / 3) % 256);
    iso_model *m = fresh(&celeba, seed), *without = fresh(&plain, seed), *small = fresh(&mlp, seed);
    int n = IMAGES * iso_model_dim(m);
    float *one = encode(m, 1, images, IMAGES), *seven = encode(m, 7, images, IMAGES), *all = encode(m, 16, images, IMAGES);
    assert_true(difference(one, seven, n) < 1e-5 && difference(one, all, n) < 1e-5);
    /* A fresh flow is the identity; a moved one is not; another image has another vector. */
    float *mu = encode(without, 7, images, IMAGES);
    assert_true(difference(one, mu, n) < 1e-5);
    move_flow(m);
    float *moved = encode(m, 7, images, IMAGES);
    assert_true(difference(mu, moved, n) > 1e-2);
    assert_true(difference(one, one + iso_model_dim(m), iso_model_dim(m)) > 1e-4);

    iso_encoder *e = NULL;
    assert_int_equal(iso_encoder_create(m, 0, &e, &err), ISO_E_ARGUMENT);
    assert_int_equal(iso_encoder_create(small, 4, &e, &err), ISO_E_UNSUPPORTED); /* takes 8 numbers, no images */
    assert_null(e);
    /* A model that overflows: an error, and no vector. */
    for (int i = 0; i < iso_model_count(without); i++)
        for (int64_t k = 0; k < count_of(without, i); k++) iso_model_data(without, i)[k] *= 1e30f;
    assert_int_equal(iso_encoder_create(without, 4, &e, &err), ISO_OK);
    float *untouched = calloc((size_t)n, sizeof *untouched);
    assert_int_equal(iso_encoder_run(e, images, 3, untouched, &err), ISO_E_NUMERIC);
    assert_int_equal(iso_encoder_run(e, images, 0, untouched, &err), ISO_OK);
    assert_int_equal(iso_encoder_run(e, images, -1, untouched, &err), ISO_E_ARGUMENT);
    for (int i = 0; i < n; i++) assert_true(untouched[i] == 0);
    iso_encoder_free(e);
    free(untouched);
    free(one);
    free(seven);
    free(all);
    free(mu);
    free(moved);
    free(images);
    iso_model_free(m);
    iso_model_free(without);
    iso_model_free(small);
}

static double norm_of(const float *v, int m)
{
    double sum = 0;
    for (int k = 0; k < m; k++) sum += (double)v[k] * v[k];
    return sqrt(sum);
}

/* A supervised net's vectors have norm 1, with two views as well; a zero stays zero, and what overflows is an error. */
static void supervised_encoder(void **state)
{
    (void)state;
    iso_error err = {0};
    iso_net two = supervised;
    two.views = 2;
    const int m = supervised.latent;
    uint8_t *images = malloc(2 * IMAGES * ISO_PIXELS);
    for (int64_t i = 0; i < IMAGES * ISO_PIXELS; i++) images[i] = (uint8_t)((i * i / 7 + i / 3) % 256);
    for (int64_t i = 0; i < IMAGES * ISO_SIDE; i++) /* the mirror images behind */
        for (int x = 0; x < ISO_SIDE; x++)
            memcpy(images + IMAGES * ISO_PIXELS + (i * ISO_SIDE + x) * 3, images + (i * ISO_SIDE + ISO_SIDE - 1 - x) * 3, 3);
    iso_model *one = fresh(&supervised, seed), *both = fresh(&two, seed);
    assert_true(same_parameters(one, both));
    assert_string_not_equal(iso_model_digest(one), iso_model_digest(both));
    float *alone = encode(one, 4, images, 2 * IMAGES), *mean = encode(both, 4, images, IMAGES);
    for (int i = 0; i < IMAGES; i++) {
        const float *a = alone + i * m, *b = alone + (IMAGES + i) * m;
        float want[8];
        for (int k = 0; k < m; k++) want[k] = a[k] + b[k];
        double norm = norm_of(want, m);
        for (int k = 0; k < m; k++) want[k] = (float)(want[k] / norm);
        assert_true(fabs(norm_of(a, m) - 1) < 1e-5 && fabs(norm_of(mean + i * m, m) - 1) < 1e-5);
        assert_true(difference(want, mean + i * m, m) < 1e-5);
        assert_false(difference(a, mean + i * m, m) < 1e-5); /* deliberately wrong: of one view */
    }
    iso_encoder *e = NULL;
    int weight = iso_model_find(one, "encoder.8.weight"), bias = iso_model_find(one, "encoder.8.bias");
    for (int i = 0; i < 3; i++) { /* outputs of about 1e-15, 0, and 1e25, whose square is no float */
        for (int64_t k = 0; k < count_of(one, weight); k++) iso_model_data(one, weight)[k] = 0;
        for (int k = 0; k < m; k++) iso_model_data(one, bias)[k] = i == 0 ? 1e-15f : i == 1 ? 0 : 1e25f;
        float v[8] = {7};
        assert_int_equal(iso_encoder_create(one, 1, &e, &err), ISO_OK);
        assert_int_equal(iso_encoder_run(e, images, 1, v, &err), i == 2 ? ISO_E_NUMERIC : ISO_OK);
        assert_true(i == 2 ? v[0] == 7 : norm_of(v, m) < 1e-4);
        iso_encoder_free(e);
    }
    free(images);
    free(alone);
    free(mean);
    iso_model_free(one);
    iso_model_free(both);
}

int main(void)
{
    printf("seed %llu\n", (unsigned long long)seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_nets),     cmocka_unit_test(states),  cmocka_unit_test(initialisation),
        cmocka_unit_test(supervised_states), cmocka_unit_test(supervised_encoder),
        cmocka_unit_test(flow_inverse), cmocka_unit_test(encoder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
