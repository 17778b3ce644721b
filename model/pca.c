#include "model/pca.h"

#include <cblas.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/blas.h"
#include "base/eigen.h"
#include "base/memory.h"
#include "model/net/net.h"
#include "model/output.h"
#include "model/philox.h"
#include "model/train_loop.h"

enum { BLOCK = 256, MAX_PASSES = 60, STREAM_START = 1 };
#define SETTLED 1e-6   /* a pass that finds less variance than this share more is the last */
#define NO_VARIANCE 1e-10 /* of the total: what float products leave is below 1e-12, what rounding to bytes leaves above 1e-9 */

/* LAPACK, column-major; OpenBLAS brings it, and no header for it everywhere. */
void dgeqrf_(const blasint *m, const blasint *n, double *a, const blasint *lda, double *tau, double *work, const blasint *lwork,
             blasint *info);
void dorgqr_(const blasint *m, const blasint *n, const blasint *k, double *a, const blasint *lda, const double *tau, double *work,
             const blasint *lwork, blasint *info);

typedef struct fit {
    const iso_pca_spec *spec;
    const iso_train_data *data;
    int width;          /* of the subspace: the components and some more, which the iteration needs */
    float *mean;        /* [D], channels first like all that follows */
    double total;       /* variance */
    float *block;       /* [BLOCK, D] centred images */
    float *basis;       /* Q [width, D], orthonormal rows */
    float *next;        /* C Q [width, D] */
    float *codes;       /* [BLOCK, width] */
    double *wide;       /* [BLOCK, width] codes in double */
    double *inner;      /* [width, width]: Q C Qt, then its eigenvectors as rows, least first */
    double *variance;   /* [width] eigenvalues, least first */
    double *work;       /* [width, D] for the orthonormalisation */
} fit;

/* Where a pixel's number goes: the images are channels last, the model's file channels first. */
static int64_t planar(int64_t interleaved) { return interleaved % 3 * (ISO_SIDE * ISO_SIDE) + interleaved / 3; }

/* Mean and total variance, from whole numbers: exact up to the last division. */
static iso_status moments(fit *f, iso_error *err)
{
    int64_t n = f->data->train_count;
    uint64_t *sum = iso_calloc(ISO_PIXELS, 2 * sizeof *sum);
    if (!sum) return iso_fail_memory(err);
    uint64_t *squares = sum + ISO_PIXELS;
    for (int64_t i = 0; i < n; i++) {
        const uint8_t *x = f->data->pixels + f->data->train[i] * ISO_PIXELS;
        for (int64_t p = 0; p < ISO_PIXELS; p++) {
            sum[p] += x[p];
            squares[p] += (uint64_t)x[p] * x[p];
        }
    }
    f->total = 0;
    for (int64_t p = 0; p < ISO_PIXELS; p++) {
        double mean = (double)sum[p] / (double)n;
        f->mean[planar(p)] = (float)(mean / 127.5 - 1);
        f->total += ((double)squares[p] - mean * (double)sum[p]) / (127.5 * 127.5) / (double)(n - 1);
    }
    free(sum);
    return ISO_OK;
}

static void load_block(fit *f, int64_t from, int n)
{
#pragma omp parallel for
    for (int i = 0; i < n; i++) {
        const uint8_t *x = f->data->pixels + f->data->train[from + i] * ISO_PIXELS;
        float *out = f->block + (int64_t)i * ISO_PIXELS;
        for (int c = 0; c < 3; c++)
            for (int p = 0; p < ISO_SIDE * ISO_SIDE; p++) {
                int64_t to = (int64_t)c * ISO_SIDE * ISO_SIDE + p;
                out[to] = (float)x[3 * p + c] / 127.5f - 1.0f - f->mean[to];
            }
    }
}

/* One look at every image: next = C Q, and inner = Q C Qt in double. */
static iso_status pass(fit *f, iso_error *err)
{
    const iso_watch *watch = &f->spec->watch;
    int width = f->width;
    double scale = 1 / (double)(f->data->train_count - 1);
    memset(f->next, 0, (size_t)width * ISO_PIXELS * sizeof *f->next);
    memset(f->inner, 0, (size_t)width * (size_t)width * sizeof *f->inner);
    for (int64_t from = 0; from < f->data->train_count; from += BLOCK) {
        iso_watch_part(watch, "looking at", from, f->data->train_count);
        if (iso_watch_stop(watch)) return iso_fail(err, ISO_E_INTERRUPTED, "interrupted: nothing is lost, start again with the same command");
        int n = f->data->train_count - from < BLOCK ? (int)(f->data->train_count - from) : BLOCK;
        load_block(f, from, n);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, width, ISO_PIXELS, 1, f->block, ISO_PIXELS, f->basis, ISO_PIXELS, 0,
                    f->codes, width);
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, width, ISO_PIXELS, n, (float)scale, f->codes, width, f->block,
                    ISO_PIXELS, 1, f->next, ISO_PIXELS);
        for (int64_t i = 0; i < (int64_t)n * width; i++) f->wide[i] = f->codes[i];
        cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, width, n, scale, f->wide, width, 1, f->inner, width);
    }
    iso_watch_part(watch, "looking at", f->data->train_count, f->data->train_count);
    return ISO_OK;
}

/* LAPACK sees rows [width, D] as the columns of a D x width matrix, which is what it is to make orthonormal. Householder's
 * reflections give an orthonormal basis even where the images span less than it. */
static iso_status orthonormalise(const float *from, fit *f, iso_error *err)
{
    blasint rows = ISO_PIXELS, columns = f->width, info = 0, ask = -1, room;
    int64_t count = (int64_t)f->width * ISO_PIXELS;
    double best[2] = {0, 0}, *tau, *work;
    for (int64_t i = 0; i < count; i++) f->work[i] = from[i];
    dgeqrf_(&rows, &columns, f->work, &rows, NULL, &best[0], &ask, &info);
    if (!info) dorgqr_(&rows, &columns, &columns, f->work, &rows, NULL, &best[1], &ask, &info);
    if (info) return iso_fail(err, ISO_E_INTERNAL, "LAPACK refuses an orthonormalisation (%d)", (int)info);
    room = (blasint)fmax(best[0], best[1]);
    tau = iso_calloc((size_t)columns, sizeof *tau);
    work = iso_calloc((size_t)room, sizeof *work);
    iso_status status = tau && work ? ISO_OK : iso_fail_memory(err);
    if (!status) {
        dgeqrf_(&rows, &columns, f->work, &rows, tau, work, &room, &info);
        if (!info) dorgqr_(&rows, &columns, &columns, f->work, &rows, tau, work, &room, &info);
        if (info) status = iso_fail(err, ISO_E_NUMERIC, "the subspace could not be made orthonormal (LAPACK %d)", (int)info);
    }
    for (int64_t i = 0; !status && i < count; i++) f->basis[i] = (float)f->work[i];
    free(tau);
    free(work);
    return status;
}

/* inner's eigenvectors in its place, as rows, and the eigenvalues. */
static iso_status diagonalise(fit *f, iso_error *err)
{
    iso_status status = iso_eigen(f->width, f->inner, f->variance, err);
    return status ? iso_fail_prefix(err, status, "the components' variances") : ISO_OK;
}

/* Variance of the `latent` strongest directions of the subspace. */
static double captured(const fit *f)
{
    double sum = 0;
    for (int i = f->width - f->spec->latent; i < f->width; i++) sum += f->variance[i];
    return sum;
}

static iso_status iterate(fit *f, iso_error *err)
{
    iso_draw start = {f->spec->seed, STREAM_START, 0};
    iso_draw_normal(start, (int64_t)f->width * ISO_PIXELS, f->next);
    double before = 0;
    for (int i = 1;; i++) {
        iso_status status = orthonormalise(f->next, f, err);
        if (!status) status = pass(f, err);
        if (!status) status = diagonalise(f, err);
        if (status) return status;
        double now = captured(f);
        iso_watch_say(&f->spec->watch, "pass %d: %.4f %% of the variance", i, 100 * now / f->total);
        if (i == MAX_PASSES || now - before <= SETTLED * now) return ISO_OK;
        before = now;
    }
}

static iso_status fail_alike(int latent, iso_error *err)
{
    return iso_fail(err, ISO_E_ARGUMENT, "none of the %d components has any variance: the training images are all alike", latent);
}

static iso_status check_variances(const fit *f, iso_error *err)
{
    int latent = f->spec->latent, flat = 0;
    for (int i = f->width - latent; i < f->width; i++) flat += !(f->variance[i] > NO_VARIANCE * f->total);
    if (flat == 0) return ISO_OK;
    if (flat == latent)
        return fail_alike(latent, err);
    return iso_fail(err, ISO_E_ARGUMENT,
                    "%d of the %d components have (nearly) no variance: --latent %d is the most that these images give", flat, latent,
                    latent - flat);
}

/* Rows of W, the strongest first. The sign that eigenvectors leave open makes the largest entry positive. */
static void write_weights(fit *f, float *weight)
{
    int latent = f->spec->latent, width = f->width;
    float *mix = f->next; /* [latent, width], of no other use any more */
    for (int i = 0; i < latent; i++) {
        int from = width - 1 - i;
        for (int k = 0; k < width; k++)
            mix[(int64_t)i * width + k] = (float)(f->inner[(int64_t)from * width + k] / sqrt(f->variance[from]));
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, latent, ISO_PIXELS, width, 1, mix, width, f->basis, ISO_PIXELS, 0, weight,
                ISO_PIXELS);
    for (int i = 0; i < latent; i++) {
        float *row = weight + (int64_t)i * ISO_PIXELS;
        int64_t peak = 0;
        for (int64_t p = 1; p < ISO_PIXELS; p++)
            if (fabsf(row[p]) > fabsf(row[peak])) peak = p;
        for (int64_t p = 0; row[peak] < 0 && p < ISO_PIXELS; p++)
            if (p != peak) row[p] = -row[p];
        row[peak] = fabsf(row[peak]);
    }
}

static iso_status write_model(fit *f, iso_model **out, iso_error *err)
{
    iso_net net = {.arch = ISO_ARCH_PCA, .latent = f->spec->latent, .views = f->spec->views};
    iso_model *m = NULL;
    char seed[32], images[32], share[32];
    iso_status status = iso_model_create(&net, &m, err);
    if (status) return status;
    memcpy(iso_model_data(m, iso_model_find(m, "encoder.mean")), f->mean, ISO_PIXELS * sizeof *f->mean);
    write_weights(f, iso_model_data(m, iso_model_find(m, "encoder.weight")));
    snprintf(seed, sizeof seed, "%" PRIu64, f->spec->seed);
    snprintf(images, sizeof images, "%" PRId64, f->data->train_count);
    snprintf(share, sizeof share, "%.6f", fmin(1, captured(f) / f->total));
    status = iso_model_set_meta(m, "method", "pca", err);
    if (!status) status = iso_model_set_meta(m, "seed", seed, err);
    if (!status) status = iso_model_set_meta(m, "train_images", images, err);
    if (!status) status = iso_model_set_meta(m, "explained_variance", share, err);
    if (status) {
        iso_model_free(m);
        return status;
    }
    iso_watch_say(&f->spec->watch, "%d components explain %.2f %% of the variance of %s images", f->spec->latent,
                  100 * strtod(share, NULL), images);
    *out = m;
    return ISO_OK;
}

static iso_status check(const iso_pca_spec *spec, const iso_train_data *data, iso_error *err)
{
    iso_net net = {.arch = ISO_ARCH_PCA, .latent = spec->latent, .views = spec->views};
    iso_status status = iso_net_check(&net, err);
    if (status) return status;
    if (data->dim != ISO_PIXELS)
        return iso_fail(err, ISO_E_ARGUMENT, "method pca is for images of %d x %d", ISO_SIDE, ISO_SIDE);
    if (data->train_count < 2)
        return iso_fail(err, ISO_E_ARGUMENT, "principal components need two training images or more, not %" PRId64,
                        data->train_count);
    if (spec->latent > data->train_count - 1)
        return iso_fail(err, ISO_E_ARGUMENT,
                        "%" PRId64 " training images have at most %" PRId64 " principal components: --latent %d is too many",
                        data->train_count, data->train_count - 1, spec->latent);
    return ISO_OK;
}

static int subspace(int latent, int64_t images)
{
    int64_t width = latent + latent / 4 + 16;
    if (width > images) width = images;
    return (int)(width < ISO_PIXELS ? width : ISO_PIXELS);
}

iso_status iso_pca_fit(const iso_pca_spec *spec, const iso_train_data *data, iso_model **out, iso_error *err)
{
    iso_status status = check(spec, data, err);
    if (status) return status;
    fit f = {.spec = spec, .data = data, .width = subspace(spec->latent, data->train_count)};
    size_t width = (size_t)f.width;
    f.mean = iso_calloc(ISO_PIXELS, sizeof *f.mean);
    f.block = iso_calloc(BLOCK, ISO_PIXELS * sizeof *f.block);
    f.basis = iso_calloc(width, ISO_PIXELS * sizeof *f.basis);
    f.next = iso_calloc(width, ISO_PIXELS * sizeof *f.next);
    f.codes = iso_calloc(width, BLOCK * sizeof *f.codes);
    f.wide = iso_calloc(width, BLOCK * sizeof *f.wide);
    f.inner = iso_calloc(width, width * sizeof *f.inner);
    f.variance = iso_calloc(width, sizeof *f.variance);
    f.work = iso_calloc(width, ISO_PIXELS * sizeof *f.work);
    if (!f.mean || !f.block || !f.basis || !f.next || !f.codes || !f.wide || !f.inner || !f.variance || !f.work) {
        status = iso_fail_memory(err);
        goto done;
    }
    if ((status = moments(&f, err))) goto done;
    if (!(f.total > 0)) {
        status = fail_alike(spec->latent, err);
        goto done;
    }
    if ((status = iso_blas_begin(1, err))) goto done;
    status = iterate(&f, err);
    if (!status) status = check_variances(&f, err);
    if (!status) status = write_model(&f, out, err);
    iso_blas_end(1);
done:
    free(f.mean);
    free(f.block);
    free(f.basis);
    free(f.next);
    free(f.codes);
    free(f.wide);
    free(f.inner);
    free(f.variance);
    free(f.work);
    return status;
}

/* --- the file */

iso_status iso_pca_check(const iso_pca_spec *spec, iso_error *err)
{
    return iso_output_check(spec->path, spec->force, err);
}

iso_status iso_pca_train(const iso_pca_spec *spec, const iso_train_data *data, iso_error *err)
{
    iso_model *m = NULL;
    iso_status status = iso_pca_check(spec, err);
    if (!status) status = iso_pca_fit(spec, data, &m, err);
    if (!status) status = iso_output_save(m, spec->path, spec->force, err);
    iso_model_free(m);
    return status;
}
