/* test_pca.c: whitened principal components against a full eigen-decomposition, the vectors' covariance, files, errors. */
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "model/pca.h"
#include "tests/check.h"
#include "tests/folder.h"
#include "tests/models.h"

enum { COUNT = 70, OTHERS = 5, SIDES = 40 }; /* training images, ones that do not train, directions in them */
static const uint64_t seed = 41;
static char folder[256], path[320];
static uint8_t *pixels;      /* [COUNT + OTHERS, 64, 64, 3] */
static int64_t rows[COUNT + OTHERS];
static iso_train_data data;
static iso_error err;

static void *numbers(size_t n, size_t size)
{
    void *x = iso_calloc(n, size);
    assert_non_null(x);
    return x;
}

/* Images that are mixtures of random pictures, the k-th with a standard deviation that falls with k, around one that is not grey;
 * every 15th row does not train and is far from the rest. */
static int make_images(void **state)
{
    (void)state;
    if (!make_folder(folder, sizeof folder, "pca")) return -1;
    snprintf(path, sizeof path, "%s/m.safetensors", folder);
    pixels = numbers(COUNT + OTHERS, ISO_PIXELS);
    float *picture = numbers(SIDES, ISO_PIXELS * sizeof *picture), mix[SIDES];
    double *sum = numbers(ISO_PIXELS, sizeof *sum);
    iso_draw_uniform((iso_draw){seed, 5, 0}, -1, 1, (int64_t)SIDES * ISO_PIXELS, picture);
    int64_t train = 0, other = COUNT;
    for (int64_t i = 0; i < COUNT + OTHERS; i++) {
        bool out = i % 15 == 7;
        iso_draw_normal((iso_draw){seed, 6, (uint64_t)i}, SIDES, mix);
        for (int p = 0; p < ISO_PIXELS; p++) sum[p] = out ? 250 : 100 + 40 * (p % 3) - p / 400.0;
        for (int k = 0; k < SIDES && !out; k++)
            for (int p = 0; p < ISO_PIXELS; p++) sum[p] += 25 * pow(0.9, k) * mix[k] * picture[k * ISO_PIXELS + p];
        for (int p = 0; p < ISO_PIXELS; p++) pixels[i * ISO_PIXELS + p] = (uint8_t)fmin(255, fmax(0, round(sum[p])));
        rows[out ? other++ : train++] = i;
    }
    free(picture);
    free(sum);
    data = (iso_train_data){.pixels = pixels, .dim = ISO_PIXELS, .train = rows, .valid = rows + COUNT,
                              .train_count = COUNT, .valid_count = OTHERS};
    return train == COUNT ? 0 : -1;
}

static int clear(void **state)
{
    (void)state;
    free(pixels);
    unlink(path);
    return rmdir(folder);
}

static iso_model *fit(int latent, uint64_t from)
{
    iso_model *m = NULL;
    iso_pca_spec spec = {.latent = latent, .seed = from};
    if (iso_pca_fit(&spec, &data, &m, &err)) fail_msg("%s", err.message);
    return m;
}

static float *encode(const iso_model *m, int batch)
{
    int dim = iso_model_dim(m);
    uint8_t *images = numbers(COUNT, ISO_PIXELS);
    float *vectors = numbers(COUNT, (size_t)dim * sizeof *vectors);
    iso_encoder *e = NULL;
    for (int i = 0; i < COUNT; i++) memcpy(images + (int64_t)i * ISO_PIXELS, pixels + rows[i] * ISO_PIXELS, ISO_PIXELS);
    if (iso_encoder_create(m, batch, &e, &err) || iso_encoder_run(e, images, COUNT, vectors, &err)) fail_msg("%s", err.message);
    iso_encoder_free(e);
    free(images);
    return vectors;
}

/* --- a full eigen-decomposition, the plain way: Jacobi's on the images' inner products */

static void rotate(double *A, double *V, int p, int q)
{
    double apq = A[p * COUNT + q];
    if (fabs(apq) < 1e-300) return;
    double theta = (A[q * COUNT + q] - A[p * COUNT + p]) / (2 * apq);
    double t = (theta < 0 ? -1 : 1) / (fabs(theta) + sqrt(theta * theta + 1)), c = 1 / sqrt(t * t + 1), s = t * c;
    for (int k = 0; k < COUNT; k++) {
        double x = A[k * COUNT + p], y = A[k * COUNT + q];
        A[k * COUNT + p] = c * x - s * y;
        A[k * COUNT + q] = s * x + c * y;
    }
    for (int k = 0; k < COUNT; k++) {
        double x = A[p * COUNT + k], y = A[q * COUNT + k];
        A[p * COUNT + k] = c * x - s * y;
        A[q * COUNT + k] = s * x + c * y;
        x = V[k * COUNT + p], y = V[k * COUNT + q];
        V[k * COUNT + p] = c * x - s * y;
        V[k * COUNT + q] = s * x + c * y;
    }
}

/* The whitened components of the training images, [COUNT, COUNT] with one column a component, strongest first: sqrt(n - 1) times
 * the eigenvectors of X Xt. And the components' variances. */
static void reference(double *vectors, double variance[COUNT])
{
    double *x = numbers(COUNT * ISO_PIXELS, sizeof *x), *A = numbers(COUNT * COUNT, sizeof *A), *V = numbers(COUNT * COUNT, sizeof *V);
    for (int p = 0; p < ISO_PIXELS; p++) {
        double mean = 0;
        for (int i = 0; i < COUNT; i++) mean += pixels[rows[i] * ISO_PIXELS + p] / 127.5 / COUNT;
        for (int i = 0; i < COUNT; i++) x[i * ISO_PIXELS + p] = pixels[rows[i] * ISO_PIXELS + p] / 127.5 - mean;
    }
    for (int i = 0; i < COUNT; i++)
        for (int j = 0; j <= i; j++) {
            double dot = 0;
            for (int p = 0; p < ISO_PIXELS; p++) dot += x[i * ISO_PIXELS + p] * x[j * ISO_PIXELS + p];
            A[i * COUNT + j] = A[j * COUNT + i] = dot / (COUNT - 1);
        }
    for (int i = 0; i < COUNT; i++) V[i * COUNT + i] = 1;
    for (int sweep = 0; sweep < 15; sweep++)
        for (int p = 0; p < COUNT; p++)
            for (int q = p + 1; q < COUNT; q++) rotate(A, V, p, q);
    bool taken[COUNT] = {false};
    for (int k = 0; k < COUNT; k++) {
        int best = -1;
        for (int i = 0; i < COUNT; i++)
            if (!taken[i] && (best < 0 || A[i * COUNT + i] > A[best * COUNT + best])) best = i;
        taken[best] = true;
        variance[k] = A[best * COUNT + best];
        for (int i = 0; i < COUNT; i++) vectors[i * COUNT + k] = V[i * COUNT + best] * sqrt(COUNT - 1);
    }
    free(x);
    free(A);
    free(V);
}

/* The largest difference of column `k` of both, up to its sign. */
static double column_error(const float *got, int dim, const double *want, int k)
{
    double plus = 0, minus = 0;
    for (int i = 0; i < COUNT; i++) {
        plus = fmax(plus, fabs(got[i * dim + k] - want[i * COUNT + k]));
        minus = fmax(minus, fabs(got[i * dim + k] + want[i * COUNT + k]));
    }
    return fmin(plus, minus);
}

static void against_full(void **state)
{
    (void)state;
    double *want = numbers(COUNT * COUNT, sizeof *want), variance[COUNT], total = 0, part = 0;
    reference(want, variance);
    enum { LATENT = 8 };
    for (int k = 0; k < COUNT; k++) total += variance[k];
    for (int k = 0; k < LATENT; k++) part += variance[k];
    iso_model *m = fit(LATENT, 1);
    float *got = encode(m, 16);
    for (int k = 0; k < LATENT; k++)
        if (!(column_error(got, LATENT, want, k) < 0.02)) fail_msg("component %d is off by %g", k, column_error(got, LATENT, want, k));
    assert_true(column_error(got, LATENT, want, 3) < 1e-3); /* the strong ones settle first */
    double share = strtod(iso_model_meta(m, "explained_variance"), NULL);
    if (!(fabs(share - part / total) < 1e-5)) fail_msg("a share of %g, not %g", share, part / total);
    /* Deliberately wrong: another component's numbers are seen as such. */
    for (int i = 0; i < COUNT; i++) want[i * COUNT + 2] = want[i * COUNT + 20];
    assert_false(column_error(got, LATENT, want, 2) < 0.02);
    free(got);
    free(want);
    iso_model_free(m);
}

/* Images without any structure, whose components are nearly as strong as one another: passes find little more each, and are not given up early. */
static void slow_to_settle(void **state)
{
    (void)state;
    enum { LATENT = 2 };
    double *vectors = numbers(COUNT * COUNT, sizeof *vectors), variance[COUNT], total = 0;
    uint8_t *kept = pixels;
    pixels = numbers(COUNT + OTHERS, ISO_PIXELS);
    for (int64_t i = 0; i < (int64_t)(COUNT + OTHERS) * ISO_PIXELS; i++) pixels[i] = (uint8_t)iso_draw_below((iso_draw){seed, 7, 0}, (uint64_t)i, 256);
    data.pixels = pixels;
    reference(vectors, variance);
    for (int k = 0; k < COUNT; k++) total += variance[k];
    iso_model *m = fit(LATENT, 1);
    double share = strtod(iso_model_meta(m, "explained_variance"), NULL), want = (variance[0] + variance[1]) / total;
    if (!(fabs(share / want - 1) < 2e-5)) fail_msg("a share of %g, not %g", share, want);
    iso_model_free(m);
    free(vectors), free(pixels);
    data.pixels = pixels = kept;
}

static double off_identity(const float *v, int dim)
{
    double worst = 0;
    for (int a = 0; a < dim; a++) {
        double mean = 0;
        for (int i = 0; i < COUNT; i++) mean += v[i * dim + a] / (double)COUNT;
        worst = fmax(worst, fabs(mean));
        for (int b = 0; b <= a; b++) {
            double sum = 0;
            for (int i = 0; i < COUNT; i++) sum += (double)v[i * dim + a] * v[i * dim + b];
            worst = fmax(worst, fabs(sum / (COUNT - 1) - (a == b)));
        }
    }
    return worst;
}

/* Of any number of components up to all there are: the subspace is then all that the images span. */
static void whitened(void **state)
{
    (void)state;
    static const int sizes[] = {1, 7, SIDES, COUNT - 1};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        iso_model *m = fit(sizes[i], 2);
        float *v = encode(m, 32);
        if (!(off_identity(v, sizes[i]) < 2e-3)) fail_msg("%d components: off by %g", sizes[i], off_identity(v, sizes[i]));
        v[0] += 3; /* deliberately wrong */
        assert_false(off_identity(v, sizes[i]) < 2e-3);
        if (sizes[i] == COUNT - 1) assert_true(strtod(iso_model_meta(m, "explained_variance"), NULL) > 0.99999);
        free(v);
        iso_model_free(m);
    }
}

/* As PyTorch would read the file: a Linear over pixels flattened channels first. */
static void layout(void **state)
{
    (void)state;
    iso_model *m = fit(4, 3);
    assert_int_equal(iso_model_count(m), 2);
    const float *mean = iso_model_data_const(m, iso_model_find(m, "encoder.mean"));
    const float *weight = iso_model_data_const(m, iso_model_find(m, "encoder.weight"));
    iso_shape shape = iso_model_shape(m, iso_model_find(m, "encoder.weight")), want = iso_shape2(4, ISO_PIXELS);
    assert_true(iso_shape_equal(&shape, &want));
    for (int k = 0; k < 4; k++) { /* the sign that is left open: as the number farthest from 0 */
        const float *row = weight + (size_t)k * ISO_PIXELS;
        float least = 0, most = 0;
        for (int i = 0; i < ISO_PIXELS; i++) least = fminf(least, row[i]), most = fmaxf(most, row[i]);
        assert_true(most >= -least);
    }
    float *v = encode(m, 1);
    for (int i = 0; i < COUNT; i += 13)
        for (int k = 0; k < 4; k++) {
            double sum = 0;
            for (int c = 0; c < 3; c++)
                for (int y = 0; y < 64; y++)
                    for (int x = 0; x < 64; x++) {
                        int at = (c * 64 + y) * 64 + x;
                        sum += weight[k * ISO_PIXELS + at] * (pixels[rows[i] * ISO_PIXELS + (y * 64 + x) * 3 + c] / 127.5 - 1 - mean[at]);
                    }
            assert_true(fabs(sum - v[i * 4 + k]) < 1e-4);
        }
    free(v);
    iso_model_free(m);
}

static void count_line(void *ctx, const char *line)
{
    (void)line;
    ++*(int *)ctx;
}

static void file(void **state)
{
    (void)state;
    int lines = 0;
    iso_pca_spec spec = {.latent = 6, .seed = 9, .path = path, .watch = {.ctx = &lines, .say = count_line}};
    iso_model *m = fit(6, 9), *back = NULL, *flowing = NULL, *other = fit(6, 10);
    if (iso_pca_train(&spec, &data, &err) || iso_model_load(path, &back, &err)) fail_msg("%s", err.message);
    assert_true(lines > 2);
    assert_true(same_parameters(m, back)); /* the same seed, the same bits */
    assert_string_equal(iso_model_digest(m), iso_model_digest(back));
    assert_false(same_parameters(other, back));
    assert_int_equal(iso_model_net(back)->arch, ISO_ARCH_PCA);
    assert_int_equal(iso_model_dim(back), 6);
    assert_string_equal(iso_model_meta(back, "arch"), "pca");
    assert_string_equal(iso_model_meta(back, "method"), "pca");
    assert_string_equal(iso_model_meta(back, "seed"), "9");
    assert_string_equal(iso_model_meta(back, "train_images"), "70");
    float *a = encode(m, 8), *b = encode(back, 8);
    assert_memory_equal(a, b, COUNT * 6 * sizeof *a);
    /* It stays unless --force says otherwise; then what belonged to the old one goes, too. */
    assert_int_equal(iso_pca_train(&spec, &data, &err), ISO_E_ARGUMENT);
    assert_non_null(strstr(err.message, "--force"));
    char state_path[400];
    snprintf(state_path, sizeof state_path, "%s.state", path);
    FILE *f = fopen(state_path, "w");
    assert_non_null(f);
    fclose(f);
    unlink(path);
    assert_int_equal(iso_pca_train(&spec, &data, &err), ISO_E_ARGUMENT);
    spec.force = true;
    assert_int_equal(iso_pca_train(&spec, &data, &err), ISO_OK);
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(access(state_path, F_OK), -1);
    spec.path = "/nowhere at all/m";
    assert_int_equal(iso_pca_train(&spec, &data, &err), ISO_E_IO);
    /* No decoder, no flow. */
    assert_int_equal(iso_model_with_flow(back, 2, 8, &flowing, &err), ISO_E_ARGUMENT);
    iso_flow_spec flow = {.model = back, .beta = 1, .depth = 2, .length = 8,
                          .run = {.path = path, .epochs = 1, .batch = 4, .lr = 1e-4, .force = true}};
    assert_int_equal(iso_train_flow(&flow, &data, &err), ISO_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "decoder"));
    free(a);
    free(b);
    iso_model_free(m);
    iso_model_free(back);
    iso_model_free(other);
}

static bool halt(void *ctx)
{
    return --*(int *)ctx < 0;
}

static void refuse(const iso_pca_spec *spec, const iso_train_data *d, iso_status status, const char *says)
{
    iso_model *m = NULL;
    assert_int_equal(iso_pca_fit(spec, d, &m, &err), status);
    if (!strstr(err.message, says)) fail_msg("\"%s\" does not say %s", err.message, says);
    assert_null(m);
}

static void errors(void **state)
{
    (void)state;
    iso_train_data some = data;
    refuse(&(iso_pca_spec){.latent = COUNT}, &data, ISO_E_ARGUMENT, "at most 69");
    refuse(&(iso_pca_spec){.latent = 0}, &data, ISO_E_ARGUMENT, "latent dimension 0");
    refuse(&(iso_pca_spec){.latent = 5000}, &data, ISO_E_ARGUMENT, "latent dimension 5000");
    some.train_count = 1;
    refuse(&(iso_pca_spec){.latent = 1}, &some, ISO_E_ARGUMENT, "two training images");
    some = data;
    some.dim = 8;
    refuse(&(iso_pca_spec){.latent = 2}, &some, ISO_E_ARGUMENT, "64 x 64");
    /* Each of four images five times: three directions. */
    int64_t again[20];
    for (int i = 0; i < 20; i++) again[i] = rows[i % 4];
    some = (iso_train_data){.pixels = pixels, .dim = ISO_PIXELS, .train = again, .train_count = 20};
    refuse(&(iso_pca_spec){.latent = 10}, &some, ISO_E_ARGUMENT, "7 of the 10 components");
    iso_model *m = NULL;
    assert_int_equal(iso_pca_fit(&(iso_pca_spec){.latent = 3}, &some, &m, &err), ISO_OK);
    iso_model_free(m);
    for (int i = 0; i < 20; i++) again[i] = rows[0];
    refuse(&(iso_pca_spec){.latent = 3}, &some, ISO_E_ARGUMENT, "all alike");
    int left = 2;
    refuse(&(iso_pca_spec){.latent = 3, .watch = {.ctx = &left, .stop = halt}}, &data, ISO_E_INTERRUPTED, "start again");
}

int main(void)
{
    printf("seed %d\n", (int)seed);
    const struct CMUnitTest tests[] = {cmocka_unit_test(against_full), cmocka_unit_test(slow_to_settle), cmocka_unit_test(whitened), cmocka_unit_test(layout),
                                       cmocka_unit_test(file), cmocka_unit_test(errors)};
    return cmocka_run_group_tests(tests, make_images, clear);
}
