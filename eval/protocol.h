/* protocol.h: what the retrieval protocols share: the sets of attributes that count, and ranking the test images for
 * many queries at once. Internal to eval/. */
#ifndef ISO_PROTOCOL_H
#define ISO_PROTOCOL_H

#include "retriever/scorer.h"

enum { ISO_PROTOCOL_BLOCK = 64 }; /* queries scored by one matrix product */

typedef struct iso_query_set {
    int a, b;                  /* attributes; b = -1 for a single one */
    int64_t queries, relevant; /* training images that have it; test images that have it */
} iso_query_set;

typedef struct iso_protocol {
    int dim, count;      /* of the vectors; attributes */
    int64_t n, t;        /* training images, test images */
    const float *train;  /* [n, dim], the caller's */
    const uint8_t *train_attributes, *test_attributes; /* [n, count], [t, count], the caller's */
    double *inverse;     /* [n] 1 / length of the training vectors */
    double *unit;        /* [t, dim] test vectors of length 1 */
    int singles, doubles;
    iso_query_set *set;  /* [singles + doubles] those that count, in the order of their numbers; pairs have a < b */
    int left_out, *left; /* single attributes no training or no test image has */
    double *scores;      /* [ISO_PROTOCOL_BLOCK, t] */
    double *query;       /* [ISO_PROTOCOL_BLOCK, dim] */
} iso_protocol;

/* What is asked: the sum of n unit examples, and which images it should find. */
typedef struct iso_asked {
    const double *sum;       /* [dim] */
    int64_t n;
    const iso_query_set *of;
} iso_asked;

/* Arguments, rules and errors as in precision.h. The inputs are kept by address, not copied. */
ISO_CHECK iso_status iso_protocol_create(int dim, int64_t n, const float *train, const uint8_t *train_attributes, int64_t t,
                                         const float *test, const uint8_t *test_attributes, int count, iso_protocol **out,
                                         iso_error *err);
void iso_protocol_free(iso_protocol *p);

/* The attributes one image has, in order: their number, and which in has [count]. */
int iso_protocol_present(const uint8_t *attributes, int count, int *has);

/* Ranks the test images by the scorer (NULL: sum), best first, ties by the lower row, and counts: hits[i * top + r] of the
 * first r + 1 have what asked[i] is after. Any m; top >= 1; of hits only the first min(top, t) are set, to -1 where the
 * examples have no direction under this scorer. One call at a time on one protocol. */
ISO_CHECK iso_status iso_protocol_rank(iso_protocol *p, const iso_scorer *scorer, int m, const iso_asked *asked, int top, int *hits,
                                       iso_error *err);

#endif
