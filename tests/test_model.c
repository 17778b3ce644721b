/* test_model.c: model files, digests, initialisation, the flow's inverse and the encoder. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "model/model.h"
#include "model/net/net.h"
#include "model/philox.h"
#include "model/safetensors.h"

static const uint64_t seed = 31;
static char folder[256], path[320];

static const iso_net celeba = {.arch = ISO_ARCH_CELEBA, .width = 2, .latent = 5, .flow_depth = 3, .flow_length = 7};
static const iso_net mlp = {.arch = ISO_ARCH_MLP, .latent = 3, .layers = 3, .size = {3, 6, 8}, .act = "tanh", .out = "linear"};

static int setup(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/isoface-model-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/a model.safetensors", folder);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

static iso_model *fresh(const iso_net *net, uint64_t from)
{
    iso_model *m = NULL;
    iso_error err = {0};
    if (iso_model_create(net, &m, &err) || iso_net_init(m, from, &err)) fail_msg("%s", err.message);
    return m;
}

static int64_t count_of(const iso_model *m, int i)
{
    iso_shape s = iso_model_shape(m, i);
    return iso_shape_count(&s);
}

/* Gives the flow's last layers numbers, so that it is no identity. */
static void move_flow(iso_model *m)
{
    for (int i = 0; i < iso_model_count(m); i++)
        if (strncmp(iso_model_name(m, i), "flow.", 5) == 0)
            iso_draw_uniform((iso_draw){seed, (uint32_t)i, 9}, -0.6, 0.6, count_of(m, i), iso_model_data(m, i));
}

static bool same_parameters(const iso_model *a, const iso_model *b)
{
    bool same = iso_model_count(a) == iso_model_count(b);
    for (int i = 0; same && i < iso_model_count(a); i++) {
        iso_shape sa = iso_model_shape(a, i), sb = iso_model_shape(b, i);
        same = strcmp(iso_model_name(a, i), iso_model_name(b, i)) == 0 && iso_shape_equal(&sa, &sb) &&
               memcmp(iso_model_data_const(a, i), iso_model_data_const(b, i), (size_t)iso_shape_count(&sa) * sizeof(float)) == 0;
    }
    return same;
}

/* --- files */

static void check_round_trip(const iso_net *net)
{
    iso_error err = {0};
    iso_model *m = fresh(net, seed), *back = NULL;
    assert_int_equal(iso_model_set_meta(m, "method", "isometric", &err), ISO_OK);
    assert_int_equal(iso_model_set_meta(m, "history", "1\t2\n3 \xc3\xa4", &err), ISO_OK);
    if (iso_model_save(m, path, &err)) fail_msg("%s", err.message);
    if (iso_model_load(path, &back, &err)) fail_msg("%s", err.message);
    assert_true(same_parameters(m, back));
    assert_string_equal(iso_model_digest(m), iso_model_digest(back));
    assert_int_equal(strlen(iso_model_digest(m)), 32);
    assert_int_equal(strspn(iso_model_digest(m), "0123456789abcdef"), 32);
    assert_memory_equal(iso_model_net(m), iso_model_net(back), sizeof *net);
    assert_int_equal(iso_model_dim(back), net->latent);
    assert_string_equal(iso_model_meta(back, "method"), "isometric");
    assert_string_equal(iso_model_meta(back, "history"), "1\t2\n3 \xc3\xa4");
    assert_string_equal(iso_model_meta(back, "format"), "isoface");
    assert_string_equal(iso_model_meta(back, "version"), ISO_VERSION);
    assert_null(iso_model_meta(back, "nothing"));
    iso_model_free(m);
    /* Saved over itself: nothing changes. */
    char *first, *second;
    size_t n, k;
    assert_int_equal(iso_file_read(path, 1 << 28, &first, &n, &err), ISO_OK);
    assert_int_equal(iso_model_save(back, path, &err), ISO_OK);
    assert_int_equal(iso_file_read(path, 1 << 28, &second, &k, &err), ISO_OK);
    assert_true(n == k && memcmp(first, second, n) == 0);
    free(first);
    free(second);
    iso_model_free(back);
}

static void round_trip(void **state)
{
    (void)state;
    check_round_trip(&celeba);
    check_round_trip(&mlp);
}

static void metadata(void **state)
{
    (void)state;
    iso_error err = {0};
    iso_model *m = fresh(&mlp, seed);
    assert_int_equal(iso_model_set_meta(m, "arch", "celeba", &err), ISO_E_ARGUMENT);
    assert_int_equal(iso_model_set_meta(m, "a", "1", &err), ISO_OK);
    assert_int_equal(iso_model_set_meta(m, "b", "2", &err), ISO_OK);
    assert_int_equal(iso_model_set_meta(m, "a", "3", &err), ISO_OK);
    assert_string_equal(iso_model_meta(m, "a"), "3");
    assert_int_equal(iso_model_set_meta(m, "a", NULL, &err), ISO_OK);
    assert_int_equal(iso_model_set_meta(m, "a", NULL, &err), ISO_OK);
    assert_null(iso_model_meta(m, "a"));
    assert_string_equal(iso_model_meta(m, "b"), "2");
    assert_int_equal(iso_model_set_meta(m, "b", "\xff", &err), ISO_OK);
    assert_int_equal(iso_model_save(m, path, &err), ISO_E_ARGUMENT); /* not UTF-8 */
    assert_int_equal(iso_model_set_meta(m, "b", NULL, &err), ISO_OK);
    iso_model_data(m, 2)[0] = NAN;
    assert_int_equal(iso_model_save(m, path, &err), ISO_E_NUMERIC);
    iso_model_free(m);
}

static void digest(void **state)
{
    (void)state;
    iso_error err = {0};
    char before[33];
    iso_model *m = fresh(&celeba, seed), *other;
    for (int i = 0; i < iso_model_count(m); i++)
        for (int64_t k = 0; k < count_of(m, i); k++) iso_model_data(m, i)[k] = (float)((k + i) % 17) / 16;
    strcpy(before, iso_model_digest(m));
    assert_string_equal(before, "4f5c8cadd2c002dcfbcc7eccd2fd848a"); /* databases of other machines and times must keep theirs */
    assert_int_equal(iso_model_set_meta(m, "seed", "12", &err), ISO_OK);
    assert_string_equal(before, iso_model_digest(m));
    for (int i = 0; i < iso_model_count(m); i++) { /* the lowest bit of any tensor's last number counts */
        float *x = iso_model_data(m, i) + count_of(m, i) - 1, old = *x;
        *x = nextafterf(old, 2);
        assert_string_not_equal(before, iso_model_digest(m));
        *x = old;
        assert_string_equal(before, iso_model_digest(m));
    }
    iso_model_free(m);
    /* The same tensors mean something else under another activation. */
    iso_net relu = mlp;
    strcpy(relu.act, "relu");
    m = fresh(&mlp, seed);
    other = fresh(&relu, seed);
    assert_true(same_parameters(m, other));
    assert_string_not_equal(iso_model_digest(m), iso_model_digest(other));
    iso_model_free(m);
    iso_model_free(other);
}

/* Writes model m's file with one thing changed: metadata `key` set to `value` (NULL: left out), or tensor `tensor`
 * left out, or its shape replaced, or a number of it; or a tensor more. */
typedef struct change {
    const char *key, *value;
    const char *tensor;
    bool reshape, extra;
    float put;
    iso_status want;
} change;

static void save_changed(const iso_model *m, change c)
{
    static const char *const keys[] = {"format", "format_version", "preprocessing", "arch", "latent", "width",
                                       "sizes",  "act",            "out",           "flow_depth", "flow_length"};
    iso_st_meta_pair pair[16];
    iso_st_out tensor[64];
    float copy[4096], zero = 0;
    int pairs = 0, tensors = 0;
    iso_error err = {0};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *value = c.key && strcmp(c.key, keys[i]) == 0 ? c.value : iso_model_meta(m, keys[i]);
        if (value) pair[pairs++] = (iso_st_meta_pair){keys[i], value};
    }
    for (int i = 0; i < iso_model_count(m); i++) {
        iso_st_out t = {iso_model_name(m, i), iso_model_shape(m, i), iso_model_data_const(m, i)};
        if (c.tensor && strcmp(c.tensor, t.name) == 0) {
            int64_t n = iso_shape_count(&t.shape);
            if (!c.reshape && c.put == 0) continue;
            assert_true(n <= 4096);
            memcpy(copy, t.data, (size_t)n * sizeof *copy);
            if (c.reshape) t.shape = iso_shape1(n);
            else copy[n - 1] = c.put;
            t.data = copy;
        }
        tensor[tensors++] = t;
    }
    if (c.extra) tensor[tensors++] = (iso_st_out){"decoder.99.weight", iso_shape0(), &zero};
    if (iso_st_save(path, tensors, tensor, pairs, pair, &err)) fail_msg("%s", err.message);
}

static void damaged(void **state)
{
    (void)state;
    const change celeba_changes[] = {
        {.want = ISO_OK},
        {.key = "format", .want = ISO_E_FORMAT},
        {.key = "format", .value = "pt", .want = ISO_E_FORMAT},
        {.key = "format_version", .want = ISO_E_UNSUPPORTED},
        {.key = "format_version", .value = "2", .want = ISO_E_UNSUPPORTED},
        {.key = "preprocessing", .value = "crop=all", .want = ISO_E_UNSUPPORTED},
        {.key = "arch", .want = ISO_E_FORMAT},
        {.key = "arch", .value = "resnet", .want = ISO_E_FORMAT},
        {.key = "arch", .value = "mlp", .want = ISO_E_FORMAT},
        {.key = "width", .want = ISO_E_FORMAT},
        {.key = "width", .value = "", .want = ISO_E_FORMAT},
        {.key = "width", .value = "0", .want = ISO_E_FORMAT},
        {.key = "width", .value = "-2", .want = ISO_E_FORMAT},
        {.key = "width", .value = "3", .want = ISO_E_FORMAT},
        {.key = "width", .value = "2x", .want = ISO_E_FORMAT},
        {.key = "width", .value = " 2", .want = ISO_E_FORMAT},
        {.key = "width", .value = "4096", .want = ISO_E_FORMAT},
        {.key = "width", .value = "4294967298", .want = ISO_E_FORMAT},
        {.key = "latent", .want = ISO_E_FORMAT},
        {.key = "latent", .value = "6", .want = ISO_E_FORMAT},
        {.key = "latent", .value = "99999", .want = ISO_E_FORMAT},
        {.key = "flow_depth", .want = ISO_E_FORMAT},
        {.key = "flow_depth", .value = "2", .want = ISO_E_FORMAT},
        {.key = "flow_depth", .value = "4", .want = ISO_E_FORMAT},
        {.key = "flow_depth", .value = "65", .want = ISO_E_FORMAT},
        {.key = "flow_length", .want = ISO_E_FORMAT},
        {.key = "flow_length", .value = "8", .want = ISO_E_FORMAT},
        {.key = "flow_length", .value = "0", .want = ISO_E_FORMAT},
        {.tensor = "encoder.0.bias", .want = ISO_E_FORMAT},
        {.tensor = "sigma", .want = ISO_E_FORMAT},
        {.tensor = "flow.t.2.2.bias", .want = ISO_E_FORMAT},
        {.tensor = "encoder.0.weight", .reshape = true, .want = ISO_E_FORMAT},
        {.tensor = "decoder.9.bias", .put = NAN, .want = ISO_E_FORMAT},
        {.tensor = "decoder.9.bias", .put = INFINITY, .want = ISO_E_FORMAT},
        {.tensor = "decoder.9.bias", .put = 0.5f, .want = ISO_OK},
        {.extra = true, .want = ISO_E_FORMAT},
    };
    const change mlp_changes[] = {
        {.want = ISO_OK},
        {.key = "sizes", .want = ISO_E_FORMAT},
        {.key = "sizes", .value = "", .want = ISO_E_FORMAT},
        {.key = "sizes", .value = "3", .want = ISO_E_FORMAT},
        {.key = "sizes", .value = "3,6,8,", .want = ISO_E_FORMAT},
        {.key = "sizes", .value = "3,,8", .want = ISO_E_FORMAT},
        {.key = "sizes", .value = "3,6,9", .want = ISO_E_FORMAT},
        {.key = "sizes", .value = "3,0,8", .want = ISO_E_FORMAT},
        {.key = "sizes", .value = "3,999999999,8", .want = ISO_E_FORMAT},
        {.key = "sizes", .value = "3,1000000,1000000,8", .want = ISO_E_FORMAT},
        {.key = "sizes", .value = "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1", .want = ISO_E_FORMAT},
        {.key = "act", .want = ISO_E_FORMAT},
        {.key = "act", .value = "gelu", .want = ISO_E_FORMAT},
        {.key = "out", .value = "a name that is far too long for a field", .want = ISO_E_FORMAT},
        {.key = "latent", .value = "2", .want = ISO_E_FORMAT},
    };
    const struct { const iso_net *net; const change *list; size_t n; } sets[] = {
        {&celeba, celeba_changes, sizeof celeba_changes / sizeof *celeba_changes},
        {&mlp, mlp_changes, sizeof mlp_changes / sizeof *mlp_changes},
    };
    for (int k = 0; k < 2; k++) {
        iso_model *m = fresh(sets[k].net, seed);
        for (size_t i = 0; i < sets[k].n; i++) {
            iso_model *back = NULL;
            iso_error err = {0};
            save_changed(m, sets[k].list[i]);
            iso_status s = iso_model_load(path, &back, &err);
            if (s != sets[k].list[i].want) fail_msg("change %zu gave %d: %s", i, s, err.message);
            assert_true((s == ISO_OK) == (back != NULL));
            assert_true(s == ISO_OK || strstr(err.message, "a model.safetensors"));
            iso_model_free(back);
        }
        iso_model_free(m);
    }
}

static void write_bytes(const char *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_true(f && fwrite(bytes, 1, n, f) == n && fclose(f) == 0);
}

static void not_a_model(void **state)
{
    (void)state;
    iso_model *m = NULL;
    iso_error err = {0};
    const char *const files[] = {"", "x", "\x89PNG\r\n\x1a\n and so on", "{\"json\": true, \"but\": \"no safetensors\"}",
                                 "\x02\0\0\0\0\0\0\0{}"};
    const size_t sizes[] = {0, 1, 18, 39, 10};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        write_bytes(files[i], sizes[i]);
        assert_int_equal(iso_model_load(path, &m, &err), ISO_E_FORMAT);
        assert_non_null(strstr(err.message, "not an Isoface model"));
    }
    assert_int_equal(iso_model_load(folder, &m, &err), ISO_E_IO);
    assert_int_equal(iso_model_load("/nonexistent/m", &m, &err), ISO_E_IO);
    assert_null(m);
}

static void fuzz(void **state)
{
    (void)state;
    iso_model *m = fresh(&mlp, seed);
    iso_error err = {0};
    char *bytes;
    size_t size;
    uint64_t header;
    assert_int_equal(iso_model_save(m, path, &err), ISO_OK);
    iso_model_free(m);
    assert_int_equal(iso_file_read(path, 1 << 24, &bytes, &size, &err), ISO_OK);
    memcpy(&header, bytes, 8);
    for (uint32_t round = 0; round < 3000; round++) {
        iso_draw d = {seed, 77, round};
        char *copy = malloc(size);
        memcpy(copy, bytes, size);
        for (uint64_t c = 0, n = 1 + iso_draw_below(d, 0, 3); c < n; c++) {
            size_t where = iso_draw_below(d, 2 * c + 1, 10) ? iso_draw_below(d, 2 * c + 2, 8 + header) : iso_draw_below(d, 2 * c + 2, size);
            copy[where] = (char)(iso_draw_below(d, 100 + c, 2) ? '0' + iso_draw_below(d, 200 + c, 10) : iso_draw_below(d, 200 + c, 256));
        }
        write_bytes(copy, size);
        m = NULL;
        iso_status s = iso_model_load(path, &m, &err);
        assert_true((s == ISO_OK) == (m != NULL));
        assert_true(s == ISO_OK || s == ISO_E_FORMAT || s == ISO_E_UNSUPPORTED);
        if (m) assert_int_equal(strlen(iso_model_digest(m)), 32);
        iso_model_free(m);
        free(copy);
    }
    free(bytes);
}

/* --- nets */

static void bad_nets(void **state)
{
    (void)state;
    iso_error err = {0};
    iso_model *m = NULL;
    iso_net net[12];
    for (int i = 0; i < 12; i++) net[i] = i < 6 ? celeba : mlp;
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
    for (int i = 0; i < 12; i++) {
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
        iso_shape shape = iso_node_shape(g, i);
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

/* --- vars */

static void vars_round_trip(void **state)
{
    (void)state;
    iso_error err = {0};
    iso_vars *vars = NULL;
    iso_model *m = fresh(&mlp, 1), *other = fresh(&mlp, 2);
    int last = iso_model_count(m) - 1;
    assert_string_equal(iso_model_name(m, last), "sigma");
    assert_int_equal(iso_vars_create(iso_backend_cpu(), &vars, &err), ISO_OK);
    for (int i = 0; i < last; i++) assert_int_equal(iso_vars_add(vars, iso_model_name(m, i), iso_model_shape(m, i), &err), ISO_OK);
    assert_int_equal(iso_vars_add(vars, "adam.m", iso_shape1(3), &err), ISO_OK); /* not of the model */
    iso_model_data(m, last)[0] = 5;
    assert_int_equal(iso_model_to_vars(m, vars, &err), ISO_OK);
    char before[33];
    strcpy(before, iso_model_digest(other));
    assert_int_equal(iso_model_from_vars(other, vars, &err), ISO_OK);
    assert_string_not_equal(before, iso_model_digest(other));
    assert_true(iso_model_data_const(other, last)[0] == 1); /* the vars have no sigma */
    iso_model_data(other, last)[0] = 5;
    assert_true(same_parameters(m, other));
    float bad[6] = {0, 0, NAN, 0, 0, 0};
    assert_int_equal(iso_vars_write(vars, "decoder.0.bias", bad, 6, &err), ISO_OK);
    assert_int_equal(iso_model_from_vars(other, vars, &err), ISO_E_NUMERIC);
    assert_true(same_parameters(m, other));
    iso_vars_free(vars);
    iso_model_free(m);
    iso_model_free(other);
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

int main(void)
{
    printf("seed %llu\n", (unsigned long long)seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),  cmocka_unit_test(metadata),       cmocka_unit_test(digest),
        cmocka_unit_test(damaged),     cmocka_unit_test(not_a_model),    cmocka_unit_test(fuzz),
        cmocka_unit_test(bad_nets),    cmocka_unit_test(states),         cmocka_unit_test(initialisation),
        cmocka_unit_test(flow_inverse), cmocka_unit_test(vars_round_trip), cmocka_unit_test(encoder),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
