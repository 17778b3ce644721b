/* test_whiten.c: whitened vectors against a plain computation from the model's own, files and digests, what is refused. */
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "eval/pullback.h"
#include "model/pca.h"
#include "model/safetensors.h"
#include "model/whiten.h"
#include "tests/check.h"
#include "tests/folder.h"
#include "tests/models.h"

enum {
    COUNT = 60,
    OTHERS = 6,
    M = 5,
    SIDES = 20
}; /* training images, ones that do not train, numbers of a vector, pictures */
static const uint64_t seed = 53;
static char folder[256], path[320];
static uint8_t *pixels; /* [COUNT + OTHERS, 64, 64, 3] */
static int64_t rows[COUNT + OTHERS];
static iso_train_data data;
static iso_error err;

static void *numbers(size_t n, size_t size)
{
    void *x = iso_calloc(n, size);
    assert_non_null(x);
    return x;
}

/* Mixtures of random pictures; every 11th row does not train and is far from the rest. */
static int make_images(void **state)
{
    (void)state;
    if (!make_folder(folder, sizeof folder, "whiten")) return -1;
    snprintf(path, sizeof path, "%s/m.safetensors", folder);
    pixels = numbers(COUNT + OTHERS, ISO_PIXELS);
    float *picture = numbers(SIDES, ISO_PIXELS * sizeof *picture), mix[SIDES];
    iso_draw_uniform((iso_draw){seed, 1, 0}, -30, 30, (int64_t)SIDES * ISO_PIXELS, picture);
    int64_t train = 0, other = COUNT;
    for (int64_t i = 0; i < COUNT + OTHERS; i++) {
        bool out = i % 11 == 7;
        iso_draw_normal((iso_draw){seed, 2, (uint64_t)i}, SIDES, mix);
        for (int p = 0; p < ISO_PIXELS; p++) {
            double sum = out ? 255 : 110 + 30 * (p % 3);
            for (int k = 0; k < SIDES && !out; k++) sum += mix[k] * picture[k * ISO_PIXELS + p];
            pixels[i * ISO_PIXELS + p] = (uint8_t)fmin(255, fmax(0, round(sum)));
        }
        rows[out ? other++ : train++] = i;
    }
    free(picture);
    data = (iso_train_data){.pixels = pixels,
                            .dim = ISO_PIXELS,
                            .train = rows,
                            .valid = rows + COUNT,
                            .train_count = COUNT,
                            .valid_count = OTHERS};
    return train == COUNT ? 0 : -1;
}

static int clear(void **state)
{
    (void)state;
    free(pixels);
    unlink(path);
    return rmdir(folder);
}

/* --- models to whiten */

typedef enum kind { PLAIN, FLOW, SUPERVISED, PCA, PERCEPTRON, KINDS } kind;

static iso_model *make(kind k, int views)
{
    iso_net net = {.arch = ISO_ARCH_CELEBA, .width = 2, .latent = M, .views = views};
    iso_model *m = NULL;
    if (k == FLOW) net.flow_depth = 3, net.flow_length = 7;
    if (k == SUPERVISED) net.classes = 2;
    if (k == PERCEPTRON)
        net = (iso_net){.arch = ISO_ARCH_MLP,
                        .latent = M,
                        .layers = 3,
                        .size = {M, 6, ISO_PIXELS},
                        .act = "tanh",
                        .out = "tanh",
                        .views = views};
    if (k == PCA) {
        iso_pca_spec spec = {.latent = M, .views = views, .seed = 3};
        if (iso_pca_fit(&spec, &data, &m, &err)) fail_msg("%s", err.message);
        return m;
    }
    m = fresh(&net, seed);
    move_flow(m);
    if (k == SUPERVISED) assert_int_equal(iso_model_set_meta(m, "attributes", "a b", &err), ISO_OK);
    assert_int_equal(iso_model_set_meta(m, "method", "any", &err), ISO_OK);
    return m;
}

static iso_model *whiten(const iso_model *m, double shrinkage)
{
    iso_model *white = NULL;
    iso_whiten_spec spec = {.model = m, .shrinkage = shrinkage};
    if (iso_whiten_fit(&spec, &data, &white, &err)) fail_msg("%s", err.message);
    return white;
}

/* Of data's rows from..from + n, [n, M]. The batch is another than the one whitening takes. */
static void encode(const iso_model *m, int from, int n, float *vectors)
{
    iso_encoder *e = NULL;
    if (iso_encoder_create(m, 9, &e, &err)) fail_msg("%s", err.message);
    for (int i = 0; i < n; i++)
        if (iso_encoder_run(e, pixels + rows[from + i] * ISO_PIXELS, 1, vectors + (int64_t)i * M, &err))
            fail_msg("%s", err.message);
    iso_encoder_free(e);
}

static const float *parameter(const iso_model *m, const char *name)
{
    assert_true(iso_model_find(m, name) >= 0);
    return iso_model_data_const(m, iso_model_find(m, name));
}

/* --- the plain way */

static void statistics(const float *v, double mean[M], double S[M][M])
{
    for (int a = 0; a < M; a++) {
        mean[a] = 0;
        for (int i = 0; i < COUNT; i++) mean[a] += v[i * M + a] / (double)COUNT;
    }
    for (int a = 0; a < M; a++)
        for (int b = 0; b < M; b++) {
            S[a][b] = 0;
            for (int i = 0; i < COUNT; i++)
                S[a][b] += (v[i * M + a] - mean[a]) * (v[i * M + b] - mean[b]) / (COUNT - 1);
        }
}

static void shrink(double S[M][M], double a)
{
    double trace = 0;
    for (int i = 0; i < M; i++) trace += S[i][i];
    for (int i = 0; i < M; i++)
        for (int j = 0; j < M; j++) S[i][j] = (1 - a) * S[i][j] + (i == j ? a * trace / M : 0);
}

/* Whether a symmetric A is positive definite: Cholesky's factors exist. */
static bool is_positive(const float *A)
{
    double L[M][M] = {{0}};
    for (int i = 0; i < M; i++)
        for (int j = 0; j <= i; j++) {
            double x = A[i * M + j];
            for (int k = 0; k < j; k++) x -= L[i][k] * L[j][k];
            if (i == j && !(x > 0)) return false;
            L[i][j] = i == j ? sqrt(x) : x / L[j][j];
        }
    return true;
}

/* How far W S W is from the identity. The positive definite symmetric W with W S W = I is S's one inverse root. */
static double off_root(const float *W, double S[M][M])
{
    double worst = 0;
    for (int i = 0; i < M; i++)
        for (int j = 0; j < M; j++) {
            double sum = 0;
            for (int a = 0; a < M; a++)
                for (int b = 0; b < M; b++) sum += (double)W[i * M + a] * S[a][b] * W[b * M + j];
            worst = fmax(worst, fabs(sum - (i == j)));
        }
    return worst;
}

static double off_identity(double S[M][M])
{
    double worst = 0;
    for (int i = 0; i < M; i++)
        for (int j = 0; j < M; j++) worst = fmax(worst, fabs(S[i][j] - (i == j)));
    return worst;
}

static double largest(const double *x, int n)
{
    double worst = 0;
    for (int i = 0; i < n; i++) worst = fmax(worst, fabs(x[i]));
    return worst;
}

static void check_whitening(kind k, int views, double shrinkage)
{
    iso_model *m = make(k, views), *white = whiten(m, shrinkage);
    float c[(COUNT + OTHERS) * M], v[(COUNT + OTHERS) * M];
    double mean[M], S[M][M], white_mean[M], white_S[M][M];
    encode(m, 0, COUNT + OTHERS, c);
    encode(white, 0, COUNT + OTHERS, v);
    statistics(c, mean, S);
    shrink(S, shrinkage);
    const float *W = parameter(white, "whiten.weight");
    double off = off_root(W, S);
    if (!(off < 2e-4)) fail_msg("kind %d, %d views, shrinkage %g: W S W is off by %g", k, views, shrinkage, off);
    assert_true(is_positive(W));
    for (int i = 0; i < M; i++)
        for (int j = 0; j < i; j++) assert_true(W[i * M + j] == W[j * M + i]);
    /* The encoder gives W (c - mean), of images that whitening did not see, too. */
    for (int i = 0; i < COUNT + OTHERS; i++)
        for (int a = 0; a < M; a++) {
            double want = 0, size = 1;
            for (int b = 0; b < M; b++) {
                want += W[a * M + b] * (c[i * M + b] - mean[b]);
                size += fabs((double)W[a * M + b]) * (fabs((double)c[i * M + b]) + fabs(mean[b]));
            }
            if (!(fabs(want - v[i * M + a]) < 1e-6 * size)) fail_msg("kind %d: %g, expected %g", k, v[i * M + a], want);
        }
    statistics(v, white_mean, white_S);
    if (!(largest(white_mean, M) < 2e-3)) fail_msg("kind %d: the mean is %g", k, largest(white_mean, M));
    if (shrinkage == 0) {
        if (!(off_identity(white_S) < 2e-3)) fail_msg("kind %d: the covariance is off by %g", k, off_identity(white_S));
    } else if (k != PCA) { /* whose vectors were white before */
        assert_false(off_identity(white_S) < 2e-3);
    }
    /* Deliberately wrong: a covariance that is another by a thousandth. */
    S[1][1] *= 1.001;
    assert_false(off_root(W, S) < 2e-4);
    iso_model_free(m);
    iso_model_free(white);
}

static void against_plain(void **state)
{
    (void)state;
    static const double shrinkage[] = {0, 0.02, 1};
    for (int k = 0; k < KINDS; k++)
        for (int views = 1; views <= 2; views++) {
            if (k == PCA && views == 2)
                continue; /* mirror-symmetric parts are white no more, and not what this compares */
            for (int s = 0; s < 3; s++) check_whitening((kind)k, views, shrinkage[s]);
        }
}

/* --- files, digests */

static void check_file(kind k)
{
    iso_model *m = make(k, 2), *back = NULL;
    char before[33];
    strcpy(before, iso_model_digest(m));
    iso_whiten_spec spec = {.model = m, .shrinkage = 0.02, .path = path};
    if (iso_whiten(&spec, &data, &err) || iso_model_load(path, &back, &err)) fail_msg("%s", err.message);
    iso_model *white = whiten(m, 0.02), *less = whiten(m, 0.01);
    assert_true(same_parameters(white, back)); /* the same bits again */
    assert_false(same_parameters(less, back));
    assert_string_equal(iso_model_digest(white), iso_model_digest(back));
    assert_string_not_equal(iso_model_digest(less), iso_model_digest(back));
    assert_string_equal(iso_model_digest(m), before);
    assert_string_not_equal(iso_model_digest(back), before);
    assert_memory_equal(iso_model_net(white), iso_model_net(back), sizeof(iso_net));
    assert_int_equal(iso_model_net(back)->whitened, 1);
    assert_int_equal(iso_model_net(m)->whitened, 0);
    assert_string_equal(iso_model_meta(back, "whiten"), "1");
    assert_string_equal(iso_model_meta(back, "whiten.shrinkage"), "0.02");
    assert_string_equal(iso_model_meta(back, "whiten.images"), "60");
    assert_string_equal(iso_model_meta(back, "method"), k == PCA ? "pca" : "any");
    assert_int_equal(iso_model_set_meta(back, "whiten", "0", &err), ISO_E_ARGUMENT);
    /* All that was there is there still, and two parameters more. */
    int n = iso_model_count(m);
    assert_int_equal(iso_model_count(back), n + 2);
    assert_string_equal(iso_model_name(back, n), "whiten.weight");
    assert_string_equal(iso_model_name(back, n + 1), "whiten.bias");
    for (int i = 0; i < n; i++) {
        assert_string_equal(iso_model_name(m, i), iso_model_name(back, i));
        assert_memory_equal(iso_model_data_const(m, i), iso_model_data_const(back, i),
                            (size_t)count_of(m, i) * sizeof(float));
    }
    float a[COUNT * M], b[COUNT * M];
    encode(white, 0, COUNT, a);
    encode(back, 0, COUNT, b);
    assert_memory_equal(a, b, sizeof a);
    unlink(path);
    iso_model_free(m);
    iso_model_free(back);
    iso_model_free(white);
    iso_model_free(less);
}

static void files(void **state)
{
    (void)state;
    for (int k = 0; k < KINDS; k++) check_file((kind)k);
}

/* Databases of other machines and times must keep theirs: of models without whitening, and, from now on, with it. */
static void digests(void **state)
{
    (void)state;
    static const struct {
        const char *plain, *white;
    } known[] = {{"4f5c8cadd2c002dcfbcc7eccd2fd848a", "3cb61af37416e1ac8539922e3cb3d087"},
                 {"4406f9f186ce29f69e0f3954a603ccc4", "d0b82171537e2f8c5796d697cf5d5ebb"},
                 {"f14764359ad91595ec88072147fa2df6", "135edff0c330a2b0d83288376f2a3993"}};
    const iso_net nets[] = {celeba, mlp, {.arch = ISO_ARCH_PCA, .latent = 2}};
    for (int k = 0; k < 3; k++)
        for (int whitened = 0; whitened < 2; whitened++) {
            iso_net net = nets[k];
            net.whitened = whitened;
            iso_model *m = NULL;
            assert_int_equal(iso_model_create(&net, &m, &err), ISO_OK);
            for (int i = 0; i < iso_model_count(m); i++)
                for (int64_t j = 0; j < count_of(m, i); j++) iso_model_data(m, i)[j] = (float)((j + i) % 17) / 16;
            assert_string_equal(iso_model_digest(m), whitened ? known[k].white : known[k].plain);
            char text[ISO_NET_TEXT];
            iso_net_text(&net, text);
            assert_int_equal(strstr(text, "whiten") != NULL, whitened);
            iso_model_free(m);
        }
    iso_net odd = celeba;
    odd.whitened = 2;
    assert_int_equal(iso_net_check(&odd, &err), ISO_E_ARGUMENT);
    odd.whitened = -1;
    assert_int_equal(iso_net_check(&odd, &err), ISO_E_ARGUMENT);
}

/* A whitening that was drawn or made without images is the identity. */
static void identity(void **state)
{
    (void)state;
    iso_model *m = make(FLOW, 2), *white = NULL;
    assert_int_equal(iso_model_with_whitening(m, &white, &err), ISO_OK);
    float a[COUNT * M], b[COUNT * M];
    encode(m, 0, COUNT, a);
    encode(white, 0, COUNT, b);
    for (int i = 0; i < COUNT * M; i++) assert_true(fabsf(a[i] - b[i]) < 1e-6f);
    iso_model *drawn = fresh(iso_model_net(white), seed), *plain = fresh(iso_model_net(m), seed);
    for (int i = 0; i < iso_model_count(plain); i++)
        assert_memory_equal(iso_model_data_const(plain, i), iso_model_data_const(drawn, i),
                            (size_t)count_of(plain, i) * sizeof(float));
    for (int i = 0; i < M * M; i++) assert_true(parameter(drawn, "whiten.weight")[i] == (i % (M + 1) == 0));
    iso_model_free(m);
    iso_model_free(white);
    iso_model_free(drawn);
    iso_model_free(plain);
}

/* m's file with one thing changed: metadata `key` (value NULL: left out), or tensor `tensor` left out, reshaped, or a number of it. */
typedef struct change {
    const char *key, *value, *tensor;
    bool reshape;
    float put;
    iso_status want;
    const char *says;
} change;

static void save_changed(const iso_model *m, change c)
{
    static const char *const keys[] = {"format", "format_version", "preprocessing", "arch",
                                       "latent", "width",          "whiten"};
    iso_st_meta_pair pair[8];
    iso_st_out tensor[64];
    float copy[64];
    int pairs = 0, tensors = 0;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *value = c.key && strcmp(c.key, keys[i]) == 0 ? c.value : iso_model_meta(m, keys[i]);
        if (value) pair[pairs++] = (iso_st_meta_pair){keys[i], value};
    }
    for (int i = 0; i < iso_model_count(m); i++) {
        iso_st_out t = {iso_model_name(m, i), iso_model_shape(m, i), iso_model_data_const(m, i)};
        if (c.tensor && strcmp(c.tensor, t.name) == 0) {
            if (!c.reshape && c.put == 0) continue;
            memcpy(copy, t.data, (size_t)count_of(m, i) * sizeof *copy);
            if (c.reshape)
                t.shape = iso_shape1(count_of(m, i));
            else
                copy[1] = c.put;
            t.data = copy;
        }
        tensor[tensors++] = t;
    }
    assert_int_equal(iso_st_save(path, tensors, tensor, pairs, pair, &err), ISO_OK);
}

static void damaged(void **state)
{
    (void)state;
    const change changes[] = {
        {.want = ISO_OK},
        {.key = "whiten", .want = ISO_E_FORMAT, .says = "tensors"},
        {.key = "whiten", .value = "0", .want = ISO_E_FORMAT, .says = "tensors"},
        {.key = "whiten", .value = "2", .want = ISO_E_FORMAT, .says = "whitening"},
        {.key = "whiten", .value = "yes", .want = ISO_E_FORMAT, .says = "not a number"},
        {.key = "latent", .value = "4", .want = ISO_E_FORMAT, .says = "shape"},
        {.tensor = "whiten.weight", .want = ISO_E_FORMAT, .says = "whiten.weight"},
        {.tensor = "whiten.bias", .want = ISO_E_FORMAT, .says = "whiten.bias"},
        {.tensor = "whiten.weight", .reshape = true, .want = ISO_E_FORMAT, .says = "[25]"},
        {.tensor = "whiten.weight", .put = NAN, .want = ISO_E_FORMAT, .says = "NaN"},
        {.tensor = "whiten.bias", .put = INFINITY, .want = ISO_E_FORMAT, .says = "NaN"},
        {.tensor = "whiten.bias", .put = 0.5f, .want = ISO_OK},
    };
    iso_model *m = make(PLAIN, 1), *white = whiten(m, 0.02);
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        iso_model *back = NULL;
        save_changed(white, changes[i]);
        assert_int_equal(iso_model_load(path, &back, &err), changes[i].want);
        if (changes[i].says) SAYS(changes[i].says);
        iso_model_free(back);
        unlink(path);
    }
    iso_model_free(m);
    iso_model_free(white);
}

/* --- what is refused */

static void write_over(void **state)
{
    (void)state;
    char state_path[400];
    iso_model *m = make(PLAIN, 1);
    iso_whiten_spec spec = {.model = m, .shrinkage = 0.02, .path = path};
    snprintf(state_path, sizeof state_path, "%s.state", path);
    assert_int_equal(iso_whiten(&spec, &data, &err), ISO_OK);
    assert_int_equal(iso_whiten_check(&spec, &err), ISO_E_ARGUMENT);
    SAYS("--force");
    FILE *f = fopen(state_path, "w");
    assert_non_null(f);
    fclose(f);
    unlink(path);
    assert_int_equal(iso_whiten(&spec, &data, &err), ISO_E_ARGUMENT);
    SAYS(".state exists");
    spec.force = true;
    assert_int_equal(iso_whiten(&spec, &data, &err), ISO_OK);
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(access(state_path, F_OK), -1);
    spec.path = "/nowhere at all/m";
    assert_int_equal(iso_whiten(&spec, &data, &err), ISO_E_IO);
    spec.path = "";
    assert_int_equal(iso_whiten(&spec, &data, &err), ISO_E_ARGUMENT);
    unlink(path);
    iso_model_free(m);
}

static void on_top(void **state)
{
    (void)state;
    iso_model *m = make(PLAIN, 2), *white = whiten(m, 0.1), *out = NULL;
    assert_int_equal(iso_model_with_whitening(white, &out, &err), ISO_E_ARGUMENT);
    iso_whiten_spec spec = {.model = white, .shrinkage = 0.02, .path = path};
    assert_int_equal(iso_whiten_check(&spec, &err), ISO_E_ARGUMENT);
    SAYS("whitened already");
    assert_int_equal(iso_whiten_fit(&spec, &data, &out, &err), ISO_E_ARGUMENT);
    assert_int_equal(iso_model_with_flow(white, 2, 8, &out, &err), ISO_E_ARGUMENT);
    SAYS("then whiten");
    assert_null(out);
    iso_flow_spec flow = {
        .model = white, .beta = 1, .depth = 2, .length = 8, .run = {.path = path, .epochs = 1, .batch = 4, .lr = 1e-4}};
    assert_int_equal(iso_train_flow(&flow, &data, &err), ISO_E_UNSUPPORTED);
    SAYS("the model that was whitened");
    iso_train_spec train = {.net = *iso_model_net(white),
                            .method = "vae",
                            .kl_weight = 1,
                            .run = {.path = path, .epochs = 1, .batch = 4, .lr = 1e-4}};
    assert_int_equal(iso_train(&train, &data, &err), ISO_E_ARGUMENT);
    SAYS("then whiten");
    assert_int_equal(iso_pullback_supports(m, &err), ISO_OK);
    assert_int_equal(iso_pullback_supports(white, &err), ISO_E_UNSUPPORTED);
    SAYS("the model that was whitened");
    assert_int_equal(access(path, F_OK), -1);
    iso_model_free(m);
    iso_model_free(white);
}

static void refuse(const iso_model *m, double shrinkage, const iso_train_data *d, iso_status status, const char *says)
{
    iso_model *out = NULL;
    assert_int_equal(iso_whiten_fit(&(iso_whiten_spec){.model = m, .shrinkage = shrinkage}, d, &out, &err), status);
    SAYS(says);
    assert_null(out);
}

static bool halt(void *ctx) { return --*(int *)ctx < 0; }

static void errors(void **state)
{
    (void)state;
    iso_model *m = make(PLAIN, 1), *numbers_only = fresh(&mlp, seed), *out = NULL;
    static const double outside[] = {-0.01, 1.01, NAN, INFINITY};
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++)
        refuse(m, outside[i], &data, ISO_E_ARGUMENT, "0 to 1");
    refuse(numbers_only, 0.02, &data, ISO_E_UNSUPPORTED, "takes 8 numbers");
    iso_train_data some = data;
    some.train_count = 1;
    refuse(m, 0.02, &some, ISO_E_ARGUMENT, "two training images");
    some.train_count = 0;
    refuse(m, 0.02, &some, ISO_E_ARGUMENT, "two training images");
    some = data;
    some.dim = 8;
    refuse(m, 0.02, &some, ISO_E_ARGUMENT, "64 x 64");
    some = data;
    some.labels = pixels;
    refuse(m, 0.02, &some, ISO_E_ARGUMENT, "labels");
    /* Three images: two directions; shrinkage makes up for the others. */
    int64_t again[12];
    for (int i = 0; i < 12; i++) again[i] = rows[i % 3];
    some = (iso_train_data){.pixels = pixels, .dim = ISO_PIXELS, .train = again, .train_count = 12};
    refuse(m, 0, &some, ISO_E_ARGUMENT, "3 of 5 directions");
    some.train_count = 3;
    refuse(m, 0, &some, ISO_E_ARGUMENT, "3 of 5 directions");
    refuse(m, 1e-15, &some, ISO_E_ARGUMENT, "1e-15");
    assert_int_equal(iso_whiten_fit(&(iso_whiten_spec){.model = m, .shrinkage = 0.02}, &some, &out, &err), ISO_OK);
    iso_model_free(out);
    some.train_count = 12;
    for (int i = 0; i < 12; i++) again[i] = rows[0];
    refuse(m, 0.02, &some, ISO_E_ARGUMENT, "the same vector");
    refuse(m, 1, &some, ISO_E_ARGUMENT, "the same vector");
    iso_model *zero = NULL; /* all vectors 0 */
    assert_int_equal(iso_model_create(iso_model_net(m), &zero, &err), ISO_OK);
    refuse(zero, 0.02, &data, ISO_E_ARGUMENT, "the same vector");
    iso_model_data(m, iso_model_find(m, "encoder.8.bias"))[0] = NAN;
    refuse(m, 0.02, &data, ISO_E_NUMERIC, "not finite");
    int left = 0;
    iso_whiten_spec spec = {.model = zero, .shrinkage = 0.02, .watch = {.ctx = &left, .stop = halt}};
    assert_int_equal(iso_whiten_fit(&spec, &data, &out, &err), ISO_E_INTERRUPTED);
    SAYS("start again");
    iso_model_free(m);
    iso_model_free(zero);
    iso_model_free(numbers_only);
}

int main(void)
{
    printf("seed %d\n", (int)seed);
    const struct CMUnitTest tests[] = {cmocka_unit_test(against_plain), cmocka_unit_test(files),
                                       cmocka_unit_test(digests),       cmocka_unit_test(identity),
                                       cmocka_unit_test(damaged),       cmocka_unit_test(write_over),
                                       cmocka_unit_test(on_top),        cmocka_unit_test(errors)};
    return cmocka_run_group_tests(tests, make_images, clear);
}
