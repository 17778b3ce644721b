/* protocol.h: what the retrieval protocols share: the sets of attributes that count, and ranking the test images for
 * many queries at once. Internal to eval/. */
#ifndef ISO_PROTOCOL_H
#define ISO_PROTOCOL_H

#include <stdint.h>
#include "base/error.h"

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
} iso_protocol;

/* Arguments, rules and errors as in precision.h. The inputs are kept by address, not copied. */
ISO_CHECK iso_status iso_protocol_create(int dim, int64_t n, const float *train, const uint8_t *train_attributes, int64_t t,
                                         const float *test, const uint8_t *test_attributes, int count, iso_protocol **out,
                                         iso_error *err);
void iso_protocol_free(iso_protocol *p);

/* The attributes one image has, in order: their number, and which in has [count]. */
int iso_protocol_present(const uint8_t *attributes, int count, int *has);

/* Ranks the test images by <query i, unit vector>, best first, ties by the lower row, and counts: hits[i * top + r] of the
 * first r + 1 have what of[i] asks for. queries [m, dim], any m; top >= 1; of hits only the first min(top, t) are set.
 * One call at a time on one protocol. */
ISO_CHECK iso_status iso_protocol_rank(iso_protocol *p, int m, const double *queries, const iso_query_set *const *of, int top,
                                       int *hits, iso_error *err);

#endif
