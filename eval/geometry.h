/* geometry.h: how far a decoder (or an encoder) is from an isometry, from its metrics at many points (methods.md, Geometry).
 *
 * A metric G is the pullback JtJ at one point, [m, m], symmetric and positive definite; lambda are eigenvalues.
 *
 *   VoR   = E sum_i log^2 lambda_i(Gbar^-1 G), Gbar = E G     0 where the metric is the same everywhere   (Lee 2022 5.1)
 *   MCN   = E lambda_max / lambda_min                         1 where it is conformal                     (Lee 2022 5.1)
 *   CN    = E |1 - lambda_min / lambda_max|                   0 where it is conformal                     (Nazari 2023 4)
 *   VPres = Var log det G                                     0 where volumes are kept up to a factor     (Nazari 2023 4)
 *   ISO   = Var log lambda, over all eigenvalues of all G     0 for a scaled isometry                     (Nazari 2023 4)
 *
 * None of them changes when all G are multiplied by one number. Variances are the population's. */
#ifndef ISO_GEOMETRY_H
#define ISO_GEOMETRY_H

#include <stdint.h>
#include "base/error.h"

#define ISO_GEOMETRY_TINY 1e-7

typedef struct iso_geometry {
    double vor, mcn, cn, vpres, iso;
    double vor_median, mcn_median, cn_median; /* over the metrics: one that is near singular moves a mean by any amount */
    double log_det_median;                    /* log det G; vpres is its variance */
    int64_t eigenvalues;                      /* n m */
    int64_t tiny;                             /* of them, below ISO_GEOMETRY_TINY times the largest of their metric */
} iso_geometry;

/* G [n, m, m] in row order. Double precision, with eigenvalues to high relative accuracy; metrics are shared out to OpenMP's
 * threads, and the result does not depend on their number. May be called by several threads at once.
 * ISO_E_ARGUMENT: no metrics. ISO_E_NUMERIC, with the index of the first such metric: not finite, not symmetric, or not
 * positive definite as far as double precision can tell. *out is set on success only. */
ISO_CHECK iso_status iso_geometry_metrics(int64_t n, int m, const double *G, iso_geometry *out, iso_error *err);

/* Whether one G [m, m] is a metric: ISO_E_NUMERIC says why not, as above. A little stricter, so that rounding does not undo it:
 * iso_geometry_metrics accepts any batch of such metrics. May be called by several threads at once. */
ISO_CHECK iso_status iso_geometry_check(int m, const double *G, iso_error *err);

#endif
