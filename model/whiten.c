#include "model/whiten.h"

#include <cblas.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/blas.h"
#include "base/eigen.h"
#include "base/memory.h"
#include "base/text.h"
#include "model/output.h"
#include "model/train_loop.h"

enum { BLOCK = 256 };
/* Of the vectors' mean squared norm: a variance below this is none. Rounding to float leaves some 1e-14. */
#define NO_VARIANCE 1e-12

typedef struct whitening {
    int m;
    double *mean;     /* [m] */
    double *S;        /* [m, m] covariance, j >= i; then its eigenvectors as rows */
    double *variance; /* [m] eigenvalues, ascending */
    double *W;        /* [m, m] */
    double trace;     /* of S */
    double energy;    /* mean squared norm */
} whitening;

/* mean, S, trace and energy of codes [n, m]. */
static iso_status moments(whitening *w, const float *codes, int64_t n, iso_error *err)
{
    size_t m = (size_t)w->m;
    double *block = iso_calloc(BLOCK, m * sizeof *block);
    if (!block) return iso_fail_memory(err);
    for (int64_t i = 0; i < n; i++)
        for (size_t k = 0; k < m; k++) w->mean[k] += codes[(size_t)i * m + k];
    for (size_t k = 0; k < m; k++) w->mean[k] /= (double)n;
    for (int64_t from = 0; from < n; from += BLOCK) {
        int rows = n - from < BLOCK ? (int)(n - from) : BLOCK;
        for (size_t i = 0; i < (size_t)rows; i++)
            for (size_t k = 0; k < m; k++) block[i * m + k] = codes[((size_t)from + i) * m + k] - w->mean[k];
        cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, w->m, rows, 1 / (double)(n - 1), block, w->m, 1, w->S, w->m);
    }
    for (size_t k = 0; k < m; k++) {
        w->trace += w->S[k * m + k];
        w->energy += w->mean[k] * w->mean[k];
    }
    w->energy += w->trace;
    free(block);
    if (!(w->trace > NO_VARIANCE * w->energy))
        return iso_fail(err, ISO_E_ARGUMENT,
                        "the model gives all %" PRId64 " training images the same vector: there is nothing to whiten",
                        n);
    return ISO_OK;
}

/* Eigenvalues of the shrunk covariance into `variance`. */
static iso_status shrink(whitening *w, double a, iso_error *err)
{
    int flat = 0;
    for (int k = 0; k < w->m; k++) {
        w->variance[k] = (1 - a) * fmax(w->variance[k], 0) + a * w->trace / w->m;
        flat += !(w->variance[k] > NO_VARIANCE * w->energy);
    }
    if (!flat) return ISO_OK;
    return iso_fail(err, ISO_E_ARGUMENT,
                    "the covariance is singular: in %d of %d directions the training images' vectors do not vary, "
                    "and a shrinkage of %g leaves it so: take more, such as %g",
                    flat, w->m, a, ISO_WHITEN_SHRINKAGE);
}

/* W = V^T diag(variance^-1/2) V as a product of a matrix with its own transpose: symmetric to the last bit. */
static void symmetric_root(whitening *w)
{
    int m = w->m;
    for (int k = 0; k < m; k++) {
        double scale = pow(w->variance[k], -0.25);
        for (int i = 0; i < m; i++) w->S[(size_t)k * (size_t)m + (size_t)i] *= scale;
    }
    cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, m, m, 1, w->S, m, 0, w->W, m);
    for (size_t i = 0; i < (size_t)m; i++)
        for (size_t j = 0; j < i; j++) w->W[i * (size_t)m + j] = w->W[j * (size_t)m + i];
}

/* The bias is of the weight as it is stored: the mean's vector is then 0 but for the bias's own rounding. */
static iso_status write_layer(const whitening *w, iso_model *model, iso_error *err)
{
    size_t m = (size_t)w->m;
    float *weight = iso_model_data(model, iso_model_find(model, "whiten.weight"));
    float *bias = iso_model_data(model, iso_model_find(model, "whiten.bias"));
    for (size_t i = 0; i < m; i++) {
        double sum = 0;
        bool finite = true;
        for (size_t j = 0; j < m; j++) {
            weight[i * m + j] = (float)w->W[i * m + j];
            sum += (double)weight[i * m + j] * w->mean[j];
            finite = finite && isfinite(weight[i * m + j]);
        }
        bias[i] = (float)-sum;
        if (!finite || !isfinite(bias[i]))
            return iso_fail(err, ISO_E_NUMERIC,
                            "the training images' vectors vary too little to be whitened in single precision");
    }
    return ISO_OK;
}

static iso_status describe(const iso_whiten_spec *spec, int64_t images, iso_model *m, iso_error *err)
{
    char shrinkage[ISO_TEXT_REAL], count[32];
    snprintf(count, sizeof count, "%" PRId64, images);
    iso_status status = iso_model_set_meta(m, "whiten.shrinkage", iso_text_real(spec->shrinkage, 1, shrinkage), err);
    return status ? status : iso_model_set_meta(m, "whiten.images", count, err);
}

static iso_status make(const iso_whiten_spec *spec, whitening *w, const float *codes, int64_t n, iso_model **out,
                       iso_error *err)
{
    iso_model *m = NULL;
    iso_status status = moments(w, codes, n, err);
    if (!status && (status = iso_eigen(w->m, w->S, w->variance, err)))
        status = iso_fail_prefix(err, status, "the vectors' covariance");
    if (status) return status;
    iso_watch_say(&spec->watch,
                  "%" PRId64
                  " vectors of %d numbers: standard deviations of %.3g to %.3g along their principal directions",
                  n, w->m, sqrt(fmax(w->variance[0], 0)), sqrt(fmax(w->variance[w->m - 1], 0)));
    if ((status = shrink(w, spec->shrinkage, err))) return status;
    symmetric_root(w);
    if ((status = iso_model_with_whitening(spec->model, &m, err))) return status;
    status = write_layer(w, m, err);
    if (!status) status = describe(spec, n, m, err);
    if (status) {
        iso_model_free(m);
        return status;
    }
    *out = m;
    return ISO_OK;
}

/* --- checks */

static iso_status check_spec(const iso_whiten_spec *spec, iso_error *err)
{
    if (iso_model_net(spec->model)->whitened)
        return iso_fail(err, ISO_E_ARGUMENT, "the model is whitened already: give the model it was made from");
    if (!(spec->shrinkage >= 0 && spec->shrinkage <= 1))
        return iso_fail(err, ISO_E_ARGUMENT, "--shrinkage must be 0 to 1");
    return ISO_OK;
}

static iso_status check_data(const iso_train_data *data, iso_error *err)
{
    if (data->dim != ISO_PIXELS)
        return iso_fail(err, ISO_E_ARGUMENT, "only vectors of images of %d x %d are whitened", ISO_SIDE, ISO_SIDE);
    if (data->labels) return iso_fail(err, ISO_E_ARGUMENT, "labels were given to whitening, which has no use for them");
    if (data->train_count < 2)
        return iso_fail(err, ISO_E_ARGUMENT, "whitening needs two training images or more, not %" PRId64,
                        data->train_count);
    return ISO_OK;
}

iso_status iso_whiten_check(const iso_whiten_spec *spec, iso_error *err)
{
    iso_status status = check_spec(spec, err);
    return status ? status : iso_output_check(spec->path, spec->force, err);
}

iso_status iso_whiten_fit(const iso_whiten_spec *spec, const iso_train_data *data, iso_model **out, iso_error *err)
{
    iso_status status = check_spec(spec, err);
    if (!status) status = check_data(data, err);
    if (status) return status;
    whitening w = {.m = iso_model_dim(spec->model)};
    size_t m = (size_t)w.m;
    float *codes = iso_calloc((size_t)data->train_count, m * sizeof *codes);
    w.mean = iso_calloc(m, sizeof *w.mean);
    w.S = iso_calloc(m, m * sizeof *w.S);
    w.variance = iso_calloc(m, sizeof *w.variance);
    w.W = iso_calloc(m, m * sizeof *w.W);
    if (!codes || !w.mean || !w.S || !w.variance || !w.W) {
        status = iso_fail_memory(err);
        goto done;
    }
    iso_watch_say(&spec->watch, "encoding %" PRId64 " images", data->train_count);
    status = iso_encode_rows(spec->model, data, data->train, data->train_count, &spec->watch, NULL, codes, err);
    if (status || (status = iso_blas_begin(1, err))) goto done;
    status = make(spec, &w, codes, data->train_count, out, err);
    iso_blas_end(1);
done:
    free(codes);
    free(w.mean);
    free(w.S);
    free(w.variance);
    free(w.W);
    return status;
}

iso_status iso_whiten(const iso_whiten_spec *spec, const iso_train_data *data, iso_error *err)
{
    iso_model *m = NULL;
    iso_status status = iso_whiten_check(spec, err);
    if (!status) status = iso_whiten_fit(spec, data, &m, err);
    if (!status) status = iso_output_save(m, spec->path, spec->force, err);
    iso_model_free(m);
    return status;
}
