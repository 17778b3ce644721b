#include "retriever/scorer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/eigen.h"
#include "base/memory.h"

#define QUANTUM 0x1p-22 /* to multiples of which the moments round: see indexer/store.h */
#define NOTHING 1e-6    /* a sum of unit vectors shorter than this points nowhere */

struct iso_scorer {
    int dim;
    double *mean;     /* [dim] m */
    double *variance; /* [dim] eigenvalues of S, ascending, none below 0 */
    double *axis;     /* [dim, dim] its eigenvectors as rows */
    double level;     /* Tr S / dim; 1 where S is zero */
    double oas;
};

static const char *const names[] = {[ISO_SUM] = "sum", [ISO_CONTRAST] = "contrast", [ISO_AUTO] = "auto"};
enum { NAMES = sizeof names / sizeof *names };

const char *iso_scorer_name(int scoring) { return scoring >= 0 && scoring < NAMES ? names[scoring] : NULL; }

int iso_scorer_by_name(const char *name)
{
    for (int i = 0; i < NAMES; i++)
        if (strcmp(names[i], name) == 0) return i;
    return -1;
}

/* ---- the background ---- */

/* Chen, Wiesel, Eldar & Hero 2010, equation 23, from n items. */
static double oas(int p, double n, double trace, double trace_of_square)
{
    double above = (1 - 2.0 / p) * trace_of_square + trace * trace;
    double below = (n + 1 - 2.0 / p) * (trace_of_square - trace * trace / p);
    return below > 0 && above < below ? above / below : 1; /* 0: one direction, or all alike */
}

/* The covariance into s->axis. */
static void covariance(const iso_moments *b, iso_scorer *s, double *trace, double *trace_of_square)
{
    size_t p = (size_t)s->dim;
    double n = b->count ? (double)b->count : 1;
    *trace = *trace_of_square = 0;
    for (size_t i = 0; i < p; i++) s->mean[i] = b->sum[i] / n;
    for (size_t i = 0; i < p; i++) {
        double square = 0;
        for (size_t j = 0; j < p; j++) {
            double x = b->product[i * p + j] / n - s->mean[i] * s->mean[j];
            s->axis[i * p + j] = x;
            square += x * x;
        }
        *trace += s->axis[i * p + i];
        *trace_of_square += square;
    }
}

static iso_status decompose(const iso_moments *b, iso_scorer *s, iso_error *err)
{
    size_t p = (size_t)s->dim;
    double trace, trace_of_square;
    covariance(b, s, &trace, &trace_of_square);
    if (!isfinite(trace) || !isfinite(trace_of_square))
        return iso_fail(err, ISO_E_NUMERIC,
                        "the mean and covariance of the database are not finite: see 'indexer verify'");
    if (!(trace > s->dim * (QUANTUM * QUANTUM))) {
        memset(s->axis, 0, p * p * sizeof *s->axis);
        for (size_t i = 0; i < p; i++) s->axis[i * p + i] = 1;
        s->level = s->oas = 1;
        return ISO_OK;
    }
    s->level = trace / s->dim;
    s->oas = oas(s->dim, (double)b->count, trace, trace_of_square);
    iso_status status = iso_eigen(s->dim, s->axis, s->variance, err);
    if (status) return iso_fail_prefix(err, status, "the covariance of the database");
    for (size_t i = 0; i < p && s->variance[i] < 0; i++) s->variance[i] = 0; /* rounding */
    return ISO_OK;
}

iso_status iso_scorer_create(const iso_moments *b, iso_scorer **out, iso_error *err)
{
    if (b->dim < 1 || b->dim > ISO_MOMENTS_DIM_MAX)
        return iso_fail(err, ISO_E_UNSUPPORTED,
                        "the scorer contrast takes vectors of 1 to %d numbers, and these have %d: use the scorer sum",
                        ISO_MOMENTS_DIM_MAX, b->dim);
    size_t p = (size_t)b->dim;
    iso_scorer *s = iso_calloc(1, sizeof *s);
    if (!s) return iso_fail_memory(err);
    s->dim = b->dim;
    s->mean = iso_calloc(p, sizeof *s->mean);
    s->variance = iso_calloc(p, sizeof *s->variance);
    s->axis = iso_calloc(p, p * sizeof *s->axis);
    iso_status status = s->mean && s->variance && s->axis ? decompose(b, s, err) : iso_fail_memory(err);
    if (!status)
        *out = s;
    else
        iso_scorer_free(s);
    return status;
}

iso_status iso_scorer_read(iso_txn *txn, iso_scorer **out, iso_error *err)
{
    iso_moments moments = {0};
    iso_status st = iso_store_moments(txn, &moments, err);
    if (st == ISO_OK) st = iso_scorer_create(&moments, out, err);
    iso_moments_free(&moments);
    return st;
}

void iso_scorer_free(iso_scorer *s)
{
    if (!s) return;
    free(s->mean);
    free(s->variance);
    free(s->axis);
    free(s);
}

double iso_scorer_shrinkage(const iso_scorer *s, int64_t n)
{
    return fmax(ISO_CONTRAST_PRIOR / (ISO_CONTRAST_PRIOR + (double)n), s->oas);
}

/* ---- the query ---- */

iso_status iso_unit_mean(int dim, int64_t n, const float *vectors, const char *what, double *mean, iso_error *err)
{
    memset(mean, 0, (size_t)dim * sizeof *mean);
    for (int64_t i = 0; i < n; i++) {
        const float *z = vectors + i * dim;
        double square = 0;
        for (int j = 0; j < dim; j++) square += (double)z[j] * z[j];
        if (!isfinite(square))
            return iso_fail(err, ISO_E_NUMERIC, "%s example %lld has a vector with a number that is not finite", what,
                            (long long)i + 1);
        if (!(square > 0))
            return iso_fail(err, ISO_E_NUMERIC, "%s example %lld has a vector of zeros, which points nowhere", what,
                            (long long)i + 1);
        double scale = 1 / (sqrt(square) * (double)n);
        for (int j = 0; j < dim; j++) mean[j] += scale * z[j];
    }
    return ISO_OK;
}

/* d := S_a^-1 d, scaled so that the database's variance in that direction is 1. y [dim]: room. */
static void whiten(const iso_scorer *s, double a, double *d, double *y)
{
    int p = s->dim;
    double square = 0, variance = 0;
    for (int i = 0; i < p; i++) {
        const double *axis = s->axis + (size_t)i * (size_t)p;
        double dot = 0;
        for (int j = 0; j < p; j++) dot += axis[j] * d[j];
        y[i] = dot / ((1 - a) * s->variance[i] + a * s->level);
        square += y[i] * y[i];
        variance += s->variance[i] * y[i] * y[i];
    }
    double scale = 1 / sqrt(variance > QUANTUM * QUANTUM * square ? variance : square);
    memset(d, 0, (size_t)p * sizeof *d);
    for (int i = 0; i < p; i++) {
        const double *axis = s->axis + (size_t)i * (size_t)p;
        for (int j = 0; j < p; j++) d[j] += scale * y[i] * axis[j];
    }
}

static iso_status no_direction(const iso_scorer *s, int64_t k, iso_error *err)
{
    if (!s)
        return iso_fail(
            err, ISO_E_NUMERIC,
            "the examples cancel one another out: there is no direction to search in; use other examples or another gamma, the weight of the counter-examples");
    if (k)
        return iso_fail(
            err, ISO_E_NUMERIC,
            "against the whole database the examples cancel one another out: there is no direction to search in; use other examples, another gamma, the weight of the counter-examples, or the scorer sum");
    return iso_fail(
        err, ISO_E_NUMERIC,
        "the examples are as the whole database: nothing sets them apart; use other examples or the scorer sum");
}

iso_status iso_scorer_query(const iso_scorer *s, int dim, int64_t n, const double *like, int64_t k,
                            const double *unlike, double gamma, double *w, double *offset, iso_error *err)
{
    if (dim < 1 || n < 1 || k < 0) return iso_fail(err, ISO_E_ARGUMENT, "a query needs at least one example");
    if (!isfinite(gamma)) return iso_fail(err, ISO_E_ARGUMENT, "gamma must be a finite number");
    if (s && s->dim != dim)
        return iso_fail(err, ISO_E_ARGUMENT, "examples of %d numbers for a database whose vectors have %d", dim,
                        s->dim);
    if (!k) gamma = 0;
    double *d = iso_calloc((size_t)dim, 2 * sizeof *d), square = 0, shift = 0;
    if (!d) return iso_fail_memory(err);
    for (int j = 0; j < dim; j++) {
        d[j] = like[j] - (k ? gamma * unlike[j] : 0) - (s ? (1 - gamma) * s->mean[j] : 0);
        square += d[j] * d[j];
    }
    /* m is off by the rounding of the moments: by half a quantum in each number, at most */
    double least = s ? fabs(1 - gamma) * sqrt(dim) * QUANTUM + 1e-9 : NOTHING;
    iso_status status = ISO_OK;
    if (square <= least * least) status = no_direction(s, k, err);
    if (!status && s) whiten(s, iso_scorer_shrinkage(s, n), d, d + dim);
    for (int j = 0; j < dim; j++) shift += s ? d[j] * s->mean[j] : 0;
    for (int j = 0; !status && j < dim; j++)
        if (!isfinite(d[j]) || !isfinite(shift))
            status =
                iso_fail(err, ISO_E_NUMERIC, "the query vector is not finite: use a smaller gamma, the weight of the counter-examples, or other examples");
    if (!status) {
        memcpy(w, d, (size_t)dim * sizeof *w);
        *offset = shift;
    }
    free(d);
    return status;
}
