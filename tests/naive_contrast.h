/* naive_contrast.h: the contrast scorer for the tests of the protocols, from its formula in retriever/scorer.h:
 * covariance as it is defined, Gaussian elimination. */
#ifndef ISO_TESTS_NAIVE_CONTRAST_H
#define ISO_TESTS_NAIVE_CONTRAST_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "retriever/scorer.h"

typedef struct background {
    int dim;
    int64_t count;
    double *unit; /* [count, dim] */
    double *mean, *covariance;
    iso_scorer *scorer;
} background;

static inline void unit_of(int dim, const float *x, double *u)
{
    double square = 0;
    for (int j = 0; j < dim; j++) square += (double)x[j] * x[j];
    for (int j = 0; j < dim; j++) u[j] = x[j] / sqrt(square);
}

/* Of n and t vectors, and the program's own scorer of the same. */
static inline background background_of(int dim, int64_t n, const float *x, int64_t t, const float *y)
{
    background b = {.dim = dim, .count = n + t};
    size_t p = (size_t)dim;
    b.unit = iso_calloc((size_t)(n + t), p * sizeof(double)), b.mean = iso_calloc(p, sizeof(double)),
    b.covariance = iso_calloc(p, p * sizeof(double));
    iso_moments m = {.dim = dim,
                     .count = (uint64_t)(n + t),
                     .sum = iso_calloc(p, sizeof(double)),
                     .product = iso_calloc(p, p * sizeof(double))};
    iso_error err = {0};
    if (!b.unit || !b.mean || !b.covariance || !m.sum || !m.product) abort();
    for (int64_t i = 0; i < n + t; i++) unit_of(dim, i < n ? x + i * dim : y + (i - n) * dim, b.unit + i * dim);
    for (int64_t i = 0; i < n + t; i++)
        for (int j = 0; j < dim; j++)
            b.mean[j] += b.unit[i * dim + j] / (double)(n + t), m.sum[j] += b.unit[i * dim + j];
    for (int64_t i = 0; i < n + t; i++)
        for (int j = 0; j < dim; j++)
            for (int k = 0; k < dim; k++) {
                b.covariance[j * dim + k] +=
                    (b.unit[i * dim + j] - b.mean[j]) * (b.unit[i * dim + k] - b.mean[k]) / (double)(n + t);
                m.product[j * dim + k] += b.unit[i * dim + j] * b.unit[i * dim + k];
            }
    if (iso_scorer_create(&m, &b.scorer, &err)) abort();
    free(m.sum), free(m.product);
    return b;
}

static inline void background_free(background *b)
{
    free(b->unit), free(b->mean), free(b->covariance);
    iso_scorer_free(b->scorer);
}

/* w [dim] = S_a^-1 (mean of the n examples - m); examples by their numbers among the background. */
static inline void naive_query(const background *b, int64_t n, const int64_t *example, double *w)
{
    int p = b->dim;
    double *s = iso_calloc((size_t)p, (size_t)p * sizeof *s), trace = 0, a = iso_scorer_shrinkage(b->scorer, n);
    if (!s || a < ISO_CONTRAST_PRIOR / (ISO_CONTRAST_PRIOR + (double)n) || a > 1) abort();
    for (int j = 0; j < p; j++) trace += b->covariance[j * p + j];
    for (int j = 0; j < p; j++)
        for (int k = 0; k < p; k++) s[j * p + k] = (1 - a) * b->covariance[j * p + k] + (j == k ? a * trace / p : 0);
    for (int j = 0; j < p; j++) {
        w[j] = -b->mean[j];
        for (int64_t i = 0; i < n; i++) w[j] += b->unit[example[i] * p + j] / (double)n;
    }
    for (int j = 0; j < p; j++)
        for (int i = 0; i < p; i++) {
            if (i == j) continue;
            double factor = s[i * p + j] / s[j * p + j];
            for (int k = 0; k < p; k++) s[i * p + k] -= factor * s[j * p + k];
            w[i] -= factor * w[j];
        }
    for (int j = 0; j < p; j++) w[j] /= s[j * p + j];
    free(s);
}

static inline double naive_score(const background *b, const double *w, const float *x)
{
    double sum = 0, *u = iso_calloc((size_t)b->dim, sizeof *u);
    if (!u) abort();
    unit_of(b->dim, x, u);
    for (int j = 0; j < b->dim; j++) sum += w[j] * (u[j] - b->mean[j]);
    free(u);
    return sum;
}

#endif
