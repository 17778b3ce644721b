/* scorer_common.h: what the scorer's two test programs share: vectors, and mean, covariance and shrinkage worked out plainly. */
#ifndef ISO_TESTS_SCORER_COMMON_H
#define ISO_TESTS_SCORER_COMMON_H

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "retriever/scorer.h"
#include "tests/check.h"
#include "tests/random.h"

#define MOST 40 /* numbers in a vector */

static iso_error err;

static double real(void)
{
    double sum = 0;
    for (int i = 0; i < 6; i++) sum += (double)(draw() >> 11) / 9007199254740992.0 - 0.5;
    return sum * sqrt(2);
}

/* Around a common mean, the first numbers varying the most; of any length. */
static void random_vector(int dim, float *v)
{
    double length = exp(real());
    for (int j = 0; j < dim; j++) v[j] = (float)(length * (0.4 + real() / (1 + 0.3 * j)));
}

static inline float *random_vectors(int dim, int n)
{
    float *v = iso_calloc((size_t)n, (size_t)dim * sizeof *v);
    assert_non_null(v);
    for (int i = 0; i < n; i++) random_vector(dim, v + i * dim);
    return v;
}

/* ---- the plain computation ---- */

static void unit(int dim, const float *z, bool rounded, double *u)
{
    double square = 0;
    for (int j = 0; j < dim; j++) square += (double)z[j] * z[j];
    for (int j = 0; j < dim; j++) {
        u[j] = z[j] / sqrt(square);
        if (rounded) u[j] = nearbyint(u[j] * 4194304) / 4194304; /* as the moments do */
    }
}

static void mean_of(int dim, int n, const float *v, bool rounded, double *out)
{
    double u[MOST];
    for (int j = 0; j < dim; j++) out[j] = 0;
    for (int i = 0; i < n; i++) {
        unit(dim, v + i * dim, rounded, u);
        for (int j = 0; j < dim; j++) out[j] += u[j] / n;
    }
}

static void covariance_of(int dim, int n, const float *v, const double *m, double S[MOST][MOST])
{
    double u[MOST];
    for (int i = 0; i < dim; i++)
        for (int j = 0; j < dim; j++) S[i][j] = 0;
    for (int k = 0; k < n; k++) {
        unit(dim, v + k * dim, true, u);
        for (int i = 0; i < dim; i++)
            for (int j = 0; j < dim; j++) S[i][j] += (u[i] - m[i]) * (u[j] - m[j]) / n;
    }
}

static double shrinkage_of(int dim, int items, int examples, double S[MOST][MOST])
{
    double p = dim, n = items, trace = 0, of_square = 0;
    for (int i = 0; i < dim; i++) {
        trace += S[i][i];
        for (int j = 0; j < dim; j++) of_square += S[i][j] * S[j][i];
    }
    double above = (1 - 2 / p) * of_square + trace * trace, below = (n + 1 - 2 / p) * (of_square - trace * trace / p);
    double oas = dim == 1 || !(below > 0) ? 1 : fmin(1, above / below);
    return fmax(30.0 / (30.0 + examples), oas);
}

#endif
