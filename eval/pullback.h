/* pullback.h: the pullback metric of a model's decoder on held-out data, and what it says of the latent space.
 *
 * For images x: codes z, the database's vectors (mu(x), behind the flow where the model has one), mixed up with eta (method.h),
 * J = dx/dz of the decoder (of decoder o flow^-1) at the mixed-up codes, G = JtJ [m, m]. J is found column by column with
 * batched JVPs that share the passes through the decoder, in single precision on the CPU backend; G is summed in double. Only
 * the Jacobians of a small batch of samples are there at a time.
 * Memory: the metrics, 8 samples m^2 bytes (65 MB for 500 at m = 128), the Jacobians of a batch (50 MB) and the plan's.
 *
 * The mixup is drawn from `seed` alone: the same images, in the same order, give the same figures (bit by bit with the same
 * number of threads, up to the rounding of single precision else). One thread at a time for one model. */
#ifndef ISO_PULLBACK_H
#define ISO_PULLBACK_H

#include "base/progress.h"
#include "eval/geometry.h"
#include "model/model.h"

typedef struct iso_pullback_spec {
    double eta;          /* mixup, 0 or more; 0.2 in the papers */
    uint64_t seed;       /* of the mixup */
    int threads;         /* 0: all */
    iso_progress *progress; /* of the JVPs, one for every column of every metric; NULL: none */
} iso_pullback_spec;

typedef struct iso_pullback {
    int m;
    int64_t images, metrics;  /* given; metrics: positive definite, the others are left out of everything but `images` */
    int64_t left_out;         /* not finite, or not positive definite as far as double precision can tell */
    char left_out_reason[128]; /* of the first of them; "" where there is none */
    double mse;               /* per pixel and channel, data in [-1, 1], of x decoded from its own mu(x), through the flow and back */
    iso_geometry geometry;    /* of `metrics` metrics. What a single metric has not (vor, vpres and vor_median) is NaN then */
    double magnification, magnification_spread; /* sqrt det G in log10: median, standard deviation (Chen 2020) */
    double trace;             /* E Tr G / m: what a scaled isometry would have as its c */
    double ratio;             /* E Tr G^2 / (E Tr G)^2: R of Lee 2022 B.1 without its probes; 1/m for a scaled isometry */
    float *code, *mixed;      /* [images, m] */
    double *metric;           /* [images, m, m] at `mixed`; rows of one that is left out are NaN */
} iso_pullback;

/* pixels [n, 64, 64, 3], n >= 1. ISO_E_UNSUPPORTED: the model has no decoder (principal components, supervised).
 * ISO_E_INTERRUPTED when iso_interrupted. ISO_E_NUMERIC: not one metric is positive definite, or the model reconstructs images as NaN.
 * *out is set on ISO_OK, and also where not one metric is positive definite: with metrics = 0, the mse and the codes, and NaN for
 * all else. It is left alone by any other error. Free what it holds with iso_pullback_free. */
ISO_CHECK iso_status iso_pullback_measure(const iso_model *m, const uint8_t *pixels, int64_t n, const iso_pullback_spec *spec,
                                          iso_pullback *out, iso_error *err);
void iso_pullback_free(iso_pullback *p); /* what it holds; a zeroed one is fine */

/* Whether iso_pullback_measure can take the model: ISO_E_UNSUPPORTED as above. */
ISO_CHECK iso_status iso_pullback_supports(const iso_model *m, iso_error *err);

/* codes [n, m] in the space of the database's vectors (behind the flow, where there is one) to images [n, 64, 64, 3], values
 * rounded and clipped to 0 .. 255 (NaN: 0). */
ISO_CHECK iso_status iso_pullback_decode(const iso_model *m, const float *codes, int64_t n, uint8_t *pixels, iso_error *err);

/* Images [n, 64, 64, 3] encoded and decoded again, and the error of iso_pullback.mse. Either output may be NULL. */
ISO_CHECK iso_status iso_pullback_reconstruct(const iso_model *m, const uint8_t *pixels, int64_t n, uint8_t *decoded, double *mse,
                                              iso_error *err);

/* The principal directions of codes [n, m], n >= 1, strongest first: axis [m, m], one orthonormal direction a row, each with its
 * largest number positive; deviation [m], the codes' standard deviation along it; mean [m]. Pure. */
ISO_CHECK iso_status iso_pullback_axes(const float *codes, int64_t n, int m, double *mean, double *axis, double *deviation,
                                       iso_error *err);

#endif
