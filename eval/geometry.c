/* geometry.c: metrics to figures. Eigenvalues come from a Cholesky factor by one-sided Jacobi rotations (Hestenes; Veselic and
 * Hari 1989): for positive definite matrices each one, also the smallest, is as accurate as the matrix determines it, where
 * a solver that goes through a tridiagonal matrix loses all below 1e-16 of the largest. VoR's generalised problem takes the
 * same way: lambda(Gbar^-1 G) are the squared singular values of Lbar^-1 L, where G = L Lt and Gbar = Lbar Lbart. */
#include "eval/geometry.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <omp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

#define ASYMMETRY 1e-3 /* of the largest element: single precision stays far below, a matrix that is no metric does not */
#define ROUNDING (16 * DBL_EPSILON) /* times m and the diagonal: a smaller pivot is not known to one digit */
#define SWEEPS 60      /* ten are common at m = 128 */

typedef enum fault { NO_FAULT, NOT_FINITE, NOT_SYMMETRIC, NOT_DEFINITE, NO_CONVERGENCE } fault;

static const char *const fault_text[] = {
    [NOT_FINITE] = "holds a NaN or an infinity, or numbers too large",
    [NOT_SYMMETRIC] = "is not symmetric",
    [NOT_DEFINITE] = "is not positive definite (in double precision): a direction has no length",
    [NO_CONVERGENCE] = "has eigenvalues that cannot be computed",
};

/* The upper factor, row by row: G = Ut U, so that row j of U is column j of L. rounding: what a pivot must be above. */
static fault cholesky(int m, double rounding, const double *G, double *U)
{
    double largest = 0;
    for (int i = 0; i < m * m; i++) {
        if (!isfinite(G[i])) return NOT_FINITE;
        largest = fmax(largest, fabs(G[i]));
    }
    for (int i = 0; i < m; i++)
        for (int j = 0; j < m; j++) {
            if (fabs(G[i * m + j] - G[j * m + i]) > ASYMMETRY * largest) return NOT_SYMMETRIC;
            U[i * m + j] = j < i ? 0 : 0.5 * G[i * m + j] + 0.5 * G[j * m + i];
        }
    for (int k = 0; k < m; k++) {
        double *row = U + k * m, pivot = row[k];
        if (!(pivot > rounding * m * G[k * m + k])) return NOT_DEFINITE;
        double scale = 1 / sqrt(pivot);
        for (int j = k; j < m; j++) row[j] *= scale;
        for (int i = k + 1; i < m; i++)
            for (int j = i; j < m; j++) U[i * m + j] -= row[i] * row[j];
    }
    return NO_FAULT;
}

/* x := Lbar^-1 x, with Lbar = Ubart. */
static void forward(int m, const double *Ubar, double *x)
{
    for (int k = 0; k < m; k++) {
        x[k] /= Ubar[k * m + k];
        for (int j = k + 1; j < m; j++) x[j] -= Ubar[k * m + j] * x[k];
    }
}

/* Turns rows p and q so that they are orthogonal. False: they were. */
static bool rotate(int m, double *p, double *q)
{
    double a = 0, b = 0, c = 0;
#pragma omp simd reduction(+ : a, b, c)
    for (int i = 0; i < m; i++) {
        a += p[i] * p[i];
        b += q[i] * q[i];
        c += p[i] * q[i];
    }
    if (!(fabs(c) > m * DBL_EPSILON * sqrt(a) * sqrt(b))) return false;
    double zeta = (b - a) / (2 * c), t = copysign(1, zeta) / (fabs(zeta) + hypot(1, zeta));
    double cosine = 1 / hypot(1, t), sine = cosine * t;
#pragma omp simd
    for (int i = 0; i < m; i++) {
        double x = p[i];
        p[i] = cosine * x - sine * q[i];
        q[i] = sine * x + cosine * q[i];
    }
    return true;
}

/* The squared singular values of M [m, m], which is overwritten. */
static fault squared_singular_values(int m, double *M, double *value)
{
    bool turned = true;
    for (int sweep = 0; turned; sweep++) {
        if (sweep == SWEEPS) return NO_CONVERGENCE;
        turned = false;
        for (int i = 0; i < m; i++)
            for (int j = i + 1; j < m; j++)
                if (rotate(m, M + i * m, M + j * m)) turned = true;
    }
    for (int i = 0; i < m; i++) {
        value[i] = 0;
        for (int j = 0; j < m; j++) value[i] += M[i * m + j] * M[i * m + j];
        if (!isfinite(value[i])) return NOT_FINITE;
        if (!(value[i] > 0)) return NOT_DEFINITE;
    }
    return NO_FAULT;
}

/* What one metric gives. */
typedef struct point {
    double vor, mcn, cn, log_det;
    int64_t tiny;
    fault fault;
} point;

/* log_value [m]: the logarithms of G's eigenvalues; U [m, m], relative [m]: room. */
static point measure(int m, const double *G, const double *Ubar, double *U, double *relative, double *log_value)
{
    point p = {.fault = cholesky(m, ROUNDING, G, U)};
    if (p.fault) return p;
    /* U may be turned here and used below: G = Ut U = (V U)t (V U). */
    if ((p.fault = squared_singular_values(m, U, log_value)) != NO_FAULT) return p;
    double least = INFINITY, most = 0;
    for (int i = 0; i < m; i++) {
        least = fmin(least, log_value[i]);
        most = fmax(most, log_value[i]);
    }
    for (int i = 0; i < m; i++) {
        if (log_value[i] < ISO_GEOMETRY_TINY * most) p.tiny++;
        log_value[i] = log(log_value[i]);
        p.log_det += log_value[i];
    }
    p.mcn = most / least;
    p.cn = fabs(1 - least / most);
    for (int i = 0; i < m; i++) forward(m, Ubar, U + i * m);
    if ((p.fault = squared_singular_values(m, U, relative)) != NO_FAULT) return p;
    for (int i = 0; i < m; i++) p.vor += log(relative[i]) * log(relative[i]);
    return p;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(int64_t n, double *x)
{
    qsort(x, (size_t)n, sizeof *x, by_size);
    return n % 2 ? x[n / 2] : 0.5 * (x[n / 2 - 1] + x[n / 2]);
}

static double mean(int64_t n, const double *x)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i];
    return sum / (double)n;
}

static double variance(int64_t n, const double *x)
{
    double center = mean(n, x), sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (x[i] - center) * (x[i] - center);
    return sum / (double)n;
}

/* room [n] */
static iso_geometry summarise(int64_t n, int m, const point *p, const double *log_value, double *room)
{
    iso_geometry g = {.eigenvalues = n * m};
    for (int64_t i = 0; i < n; i++) room[i] = p[i].log_det;
    g.vpres = variance(n, room);
    g.log_det_median = median(n, room); /* sorts */
    g.iso = variance(n * m, log_value);
    const struct { size_t at; double *mean, *median; } figure[] = {
        {offsetof(point, vor), &g.vor, &g.vor_median},
        {offsetof(point, mcn), &g.mcn, &g.mcn_median},
        {offsetof(point, cn), &g.cn, &g.cn_median},
    };
    for (size_t k = 0; k < sizeof figure / sizeof figure[0]; k++) {
        for (int64_t i = 0; i < n; i++) memcpy(&room[i], (const char *)&p[i] + figure[k].at, sizeof *room);
        *figure[k].mean = mean(n, room);
        *figure[k].median = median(n, room);
    }
    for (int64_t i = 0; i < n; i++) g.tiny += p[i].tiny;
    return g;
}

/* The factor of the mean metric. The mean of positive definite metrics is one, so the first fault is a metric's own. */
static fault mean_factor(int64_t n, int m, const double *G, double *sum, double *Ubar)
{
    size_t size = (size_t)m * (size_t)m;
    for (int64_t i = 0; i < n; i++)
        for (size_t k = 0; k < size; k++) sum[k] += G[(size_t)i * size + k] / (double)n;
    return cholesky(m, ROUNDING, sum, Ubar);
}

iso_status iso_geometry_metrics(int64_t n, int m, const double *G, iso_geometry *out, iso_error *err)
{
    if (n < 1 || m < 1 || m > 1 << 14 || n > INT64_MAX / m / m / (int64_t)sizeof *G)
        return iso_fail(err, ISO_E_ARGUMENT, "%" PRId64 " metrics of dimension %d: at least one of dimension 1 to 16384 is needed", n, m);
    iso_status status = ISO_OK;
    int threads = omp_get_max_threads();
    size_t size = (size_t)m * (size_t)m;
    point *p = iso_calloc((size_t)n, sizeof *p);
    double *log_value = iso_calloc((size_t)n * (size_t)m, sizeof *log_value), *room = iso_calloc((size_t)n, sizeof *room);
    double *sum = iso_calloc(2 * size, sizeof *sum), *work = iso_calloc((size_t)threads, (size + (size_t)m) * sizeof *work);
    if (!p || !log_value || !room || !sum || !work) {
        status = iso_fail_memory(err);
        goto done;
    }
    double *Ubar = sum + size;
    fault of_mean = mean_factor(n, m, G, sum, Ubar);
    if (of_mean) { /* whose fault is it? */
        for (int64_t i = 0; i < n; i++)
            if ((p[i].fault = cholesky(m, ROUNDING, G + (size_t)i * size, work)) != NO_FAULT) break;
    } else {
#pragma omp parallel for schedule(dynamic) num_threads(threads)
        for (int64_t i = 0; i < n; i++) {
            double *U = work + (size_t)omp_get_thread_num() * (size + (size_t)m);
            p[i] = measure(m, G + (size_t)i * size, Ubar, U, U + size, log_value + i * m);
        }
    }
    for (int64_t i = 0; i < n && !status; i++)
        if (p[i].fault) status = iso_fail(err, ISO_E_NUMERIC, "metric %" PRId64 " %s", i, fault_text[p[i].fault]);
    if (!status && of_mean) status = iso_fail(err, ISO_E_NUMERIC, "the mean of the metrics %s", fault_text[of_mean]);
    if (!status) *out = summarise(n, m, p, log_value, room);
done:
    free(p);
    free(log_value);
    free(room);
    free(sum);
    free(work);
    return status;
}

iso_status iso_geometry_check(int m, const double *G, iso_error *err)
{
    if (m < 1 || m > 1 << 14) return iso_fail(err, ISO_E_ARGUMENT, "a metric of dimension %d: 1 to 16384 are possible", m);
    double *U = iso_calloc((size_t)m * (size_t)m, sizeof *U);
    if (!U) return iso_fail_memory(err);
    /* What iso_geometry_metrics factors is this metric and means of such: no pivot of a mean is below the mean of the pivots. */
    fault f = cholesky(m, 2 * ROUNDING, G, U);
    free(U);
    return f ? iso_fail(err, ISO_E_NUMERIC, "the metric %s", fault_text[f]) : ISO_OK;
}
