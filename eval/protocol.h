/* protocol.h: what the retrieval protocols share: the sets of attributes that count, sums over them, and ranking the test
 * images for many queries at once. Internal to eval/. */
#ifndef ISO_PROTOCOL_H
#define ISO_PROTOCOL_H

#include <stdbool.h>
#include "retriever/scorer.h"

typedef struct iso_query_set {
    int a, b;                  /* attributes; b = -1 for a single one */
    int64_t queries, relevant; /* training images that have it; test images that have it */
} iso_query_set;

/* Which attribute which image has, one bit each: image i is bit i % 64 of word i / 64 of an attribute, and attribute a is bit
 * a % 64 of word a / 64 of an image. */
typedef struct iso_bits {
    int64_t images, words;     /* words of an attribute */
    int count, row_words;      /* attributes; words of an image */
    uint64_t *attribute;       /* [count, words] */
    uint64_t *image;           /* [images, row_words] */
} iso_bits;

typedef struct iso_protocol {
    int dim, count;      /* of the vectors; attributes */
    int64_t n, t;        /* training images, test images */
    const float *const *train, *const *test;           /* [n], [t] vectors, the caller's */
    const uint8_t *train_attributes, *test_attributes; /* [n, count], [t, count], the caller's */
    iso_bits has;        /* of the training images */
    int64_t *both;       /* [count, count] training images that have both a and b, a <= b */
    double *test_inverse; /* [t] 1 / length of the vectors */
    double *inverse;     /* [n] the same of the training vectors; NULL before iso_protocol_lengths */
    struct iso_rank_panels *panel; /* test vectors of length 1, as they are ranked (rank.c) */
    int singles, doubles;
    iso_query_set *set;  /* [singles + doubles] those that count, in the order of their numbers; pairs have a < b */
    int left_out, *left; /* single attributes no training or no test image has */
} iso_protocol;

/* What is asked: the sum of n unit examples, and which images it should find. */
typedef struct iso_asked {
    const double *sum;       /* [dim] */
    int64_t n;
    const iso_query_set *of;
} iso_asked;

/* Asks for some numbers of a vector: vectors lie in the database's pages, where the processor does not foresee the next one. */
enum { ISO_VECTORS_AHEAD = 12 }; /* so many vectors before it is read */
static inline __attribute__((always_inline)) void iso_vector_ahead(const float *x, int n)
{
    for (const char *at = (const char *)x, *end = (const char *)(x + n); at < end; at += 64) __builtin_prefetch(at);
}

/* Arguments, rules and errors as in precision.h. The inputs are kept by address, not copied. */
ISO_CHECK iso_status iso_protocol_create(int dim, int64_t n, const float *const *train, const uint8_t *train_attributes, int64_t t,
                                         const float *const *test, const uint8_t *test_attributes, int count, iso_protocol **out,
                                         iso_error *err);
void iso_protocol_free(iso_protocol *p);

/* 1 / length of a vector; 0 where it cannot be compared. */
double iso_vector_inverse(int dim, const float *x);
/* ISO_E_NUMERIC, which names a vector that cannot be compared and says why. */
iso_status iso_vector_fail(const char *what, int64_t number, int dim, const float *x, iso_error *err);

/* Finds the lengths of the training vectors; sums do not need them. ISO_E_NUMERIC: the first vector that has none. Once. */
ISO_CHECK iso_status iso_protocol_lengths(iso_protocol *p, iso_error *err);

/* sum [sets, dim]: of the unit training vectors of each of `sets` sets from number `first` on, in double precision. Does not
 * depend on the number of threads. ISO_E_NUMERIC: the first training vector that has no direction. */
ISO_CHECK iso_status iso_protocol_sums(const iso_protocol *p, int first, int sets, double *sum, iso_error *err);

/* Ranks the test images by the scorer (NULL: sum), best first, ties by the lower row, and counts: hits[i * top + r] of the
 * first r + 1 have what asked[i] is after. Any m; top >= 1; of hits only the first min(top, t) are set, to -1 where the
 * examples have no direction under this scorer. */
ISO_CHECK iso_status iso_protocol_rank(const iso_protocol *p, const iso_scorer *scorer, int m, const iso_asked *asked, int top, int *hits,
                                       iso_error *err);

/* The part of ranking that is not exact, by the best kernel that may be used here (base/isa.h). Its name, for tests. */
const char *iso_rank_kernel_name(void);
/* Test vectors of length 1 for it. NULL: out of memory. */
typedef struct iso_rank_panels iso_rank_panels;
iso_rank_panels *iso_rank_panels_create(int dim, int64_t t, const float *const *test, const double *inverse);
void iso_rank_panels_free(iso_rank_panels *p);

#endif
