/* precision.h: the retrieval protocol of Lee 2022 5.2: precision at K for single and double attributes. */
#ifndef ISO_PRECISION_H
#define ISO_PRECISION_H

#include "retriever/scorer.h"

#define ISO_KS 4
extern const int iso_precision_k[ISO_KS]; /* 1, 5, 10, 20 */

typedef struct iso_precision_row {
    int a, b;                 /* attributes; b = -1 for a single one */
    int64_t queries, relevant;/* training images that have it; test images that have it */
    double chance;            /* relevant / test images */
    double at[ISO_KS];        /* NaN where the examples have no direction under the scorer */
} iso_precision_row;

typedef struct iso_precision {
    int singles, doubles;
    iso_precision_row *single, *dbl;  /* only those that count, in the order of their numbers; pairs have a < b */
    int left_out;             /* single attributes no training or no test image has */
    int *left;                /* their numbers */
    int single_sets, double_sets; /* rows that have figures: the means are over these */
    double single_mean[ISO_KS], double_mean[ISO_KS], single_chance, double_chance; /* NaN where there are no such rows */
} iso_precision;

/* train [n], test [t] vectors of dim numbers wherever they lie (any length; normalised inside), attributes [.., count] bytes 0/1.
 * A pair counts when more than 1 % and less than 50 % of the test images have both, and a training image has both.
 * Sums and scores are in double precision, and do not depend on the number of threads. Equal vectors tie, and ties are
 * broken by the lower row; multiples of one vector are equal but for rounding. K larger than t is counted over t. A zero or non-finite vector is ISO_E_NUMERIC; no training or no test vectors
 * are ISO_E_ARGUMENT. Free with iso_precision_free.
 * scorer: of vectors of this dim (any others are a programmer's mistake), NULL: sum. A set of examples that has no direction under it (as
 * all images of the database under contrast) keeps its row, without figures, and is left out of the means. */
ISO_CHECK iso_status iso_precision_at_k(int dim, int64_t n, const float *const *train, const uint8_t *train_attributes,
                                        int64_t t, const float *const *test, const uint8_t *test_attributes, int count,
                                        const iso_scorer *scorer, iso_precision **out, iso_error *err);
void iso_precision_free(iso_precision *p);

/* The rows of a matrix x [n, dim], for the above: fresh memory, NULL when there is none. */
const float **iso_vector_rows(int dim, int64_t n, const float *x);

#endif
