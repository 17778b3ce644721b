/* scorer.h: how a set of examples becomes one query vector (methods.md, Retrieval).
 *
 *   sum       w = mean of unit positives - gamma mean of unit negatives; score = <w, u>, a mean cosine
 *   contrast  w = S_a^-1 ((m_Q - m) - gamma (m_N - m)); score = <w, u - m> / sqrt(wT S w)
 *             m, S mean and covariance of the database's unit vectors u, m_Q and m_N the means of the unit examples. What the
 *             examples share against the background: the direction of a linear discriminant with one class given. The
 *             score says by how many standard deviations of the database an item lies in that direction.
 *
 * S_a = (1 - a) S + a (Tr S / dim) I. The shrinkage a needs no labels:
 *   a = max(c / (c + n), a_OAS)     n positive examples, c = ISO_CONTRAST_PRIOR
 * Few examples leave the noise of their mean in every direction, and directions in which the database hardly varies would
 * magnify it, so whitening comes in as examples do; a_OAS (Chen, Wiesel, Eldar & Hero 2010) is what a database of few items needs
 * for S itself. a > 0 always, so S_a is regular whenever any two items differ; where none do, it is the identity.
 *
 * The moments round u to multiples of q = 2^-22. A variance below q^2 is taken for none: an S whose mean variance is below it
 * for a database without differences; and where the database varies by less in the direction w, the score is divided by |w|.
 *
 * Either way an item's score is linear in u: one inner-product search over the unit vectors. */
#ifndef ISO_SCORER_H
#define ISO_SCORER_H

#include "indexer/store.h"

#define ISO_CONTRAST_PRIOR 30.0

/* What contrast needs of the database, decomposed once: constant after creation, any number of threads may use it. */
typedef struct iso_scorer iso_scorer;
/* O(dim^3). No items at all give the scorer of m = 0, S_a = I. ISO_E_UNSUPPORTED: dim above ISO_MOMENTS_DIM_MAX;
 * ISO_E_NUMERIC: moments that are not finite. */
ISO_CHECK iso_status iso_scorer_create(const iso_moments *background, iso_scorer **out, iso_error *err);
/* That of a database, as the transaction sees it. */
ISO_CHECK iso_status iso_scorer_read(iso_txn *txn, iso_scorer **out, iso_error *err);
void iso_scorer_free(iso_scorer *s);

/* The names of the scorers, "sum", "contrast" and "auto", as in include/isoface.h's enum; NULL beyond. The other way round: -1
 * for a name that is none. */
const char *iso_scorer_name(int scoring);
int iso_scorer_by_name(const char *name);

/* mean [dim] of z/|z| over vectors [n, dim], n >= 1. A vector of zeros or with a number that is not finite is ISO_E_NUMERIC:
 * "<what> example <its number from 1> ...". */
ISO_CHECK iso_status iso_unit_mean(int dim, int64_t n, const float *vectors, const char *what, double *mean, iso_error *err);

/* The query vector w [dim] and what to subtract from <w, u>. like, unlike [dim]: means of unit vectors, of n >= 1 positives
 * and k >= 0 negatives (NULL where k = 0; gamma then weighs nothing). s = NULL: sum. O(dim^2).
 * ISO_E_ARGUMENT: no positives, a gamma that is not finite, another dim than the scorer's.
 * ISO_E_NUMERIC: no direction is left (examples that cancel one another out, or that are the whole database). */
ISO_CHECK iso_status iso_scorer_query(const iso_scorer *s, int dim, int64_t n, const double *like, int64_t k, const double *unlike,
                                      double gamma, double *w, double *offset, iso_error *err);
/* The shrinkage a that n examples get, in (0, 1]. */
double iso_scorer_shrinkage(const iso_scorer *s, int64_t n);

#endif
