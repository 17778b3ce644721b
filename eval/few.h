/* few.h: retrieval with few examples, as people search: instead of all training images that have an attribute, n of them
 * drawn at random, again and again.
 *
 *     iso_few_options o;
 *     iso_few_parse("1,5,10", 20, 0, &o, err);
 *     iso_few *f;
 *     iso_evaluation_few(e, &o, &f, err);     (evaluate.h) */
#ifndef ISO_FEW_H
#define ISO_FEW_H

#include "base/progress.h"
#include "retriever/scorer.h"

enum {
    ISO_FEW_K = 10,        /* P@10 */
    ISO_FEW_SIZES = 16,    /* at most so many n */
    ISO_FEW_DRAWS = 10000  /* at most so many draws */
};

typedef struct iso_few_options {
    int sizes;
    int64_t size[ISO_FEW_SIZES]; /* n, each >= 1 and different from the others, in the order wanted */
    int draws;                   /* 1 .. ISO_FEW_DRAWS */
    uint64_t seed;
    iso_progress *progress; /* of the sets of examples that are asked with; NULL: none */
} iso_few_options;

/* One attribute, or a pair of them. NaN where it has fewer than n training images, or where some draw of n had no direction
 * under the scorer: so is left out for that n. */
typedef struct iso_few_row {
    int a, b;                 /* b = -1 for a single one */
    int64_t queries, relevant;/* training images that have it; test images that have it */
    double mean[ISO_FEW_SIZES];      /* P@10 averaged over the draws */
    double deviation[ISO_FEW_SIZES]; /* standard deviation of one draw; also NaN with one draw only */
    int lost[ISO_FEW_SIZES];         /* draws without direction */
} iso_few_row;

typedef struct iso_few_mean {
    int rows;     /* those averaged */
    double mean;  /* over draws and rows; NaN without rows */
    double error; /* its standard error over the draws, for these very rows; NaN without rows or with one draw only */
} iso_few_mean;

typedef struct iso_few {
    iso_few_options options;
    int singles, doubles;
    iso_few_row *single, *dbl; /* the same rows, in the same order, as iso_precision's */
    iso_few_mean single_mean[ISO_FEW_SIZES], double_mean[ISO_FEW_SIZES];
} iso_few;

/* "1,5,10": positive whole numbers with commas between them. ISO_E_ARGUMENT says which is wrong. */
ISO_CHECK iso_status iso_few_parse(const char *list, int draws, uint64_t seed, iso_few_options *out, iso_error *err);

/* Vectors, attributes, pairs that count, ties and errors as in precision.h. A draw is without replacement: its n examples
 * are the first n of a random order of the images that have the attributes, so a larger n adds to a smaller one's, and
 * which n are asked for changes nothing else. The order is a function of seed, attributes and number of the draw, and of
 * the training images' own order. With n = all of them every draw is the same, but for rounding. Does not depend on the number
 * of threads. The scorer as in precision.h; how much it shrinks depends on n. Free with iso_few_free. */
ISO_CHECK iso_status iso_few_precision(int dim, int64_t n, const float *const *train, const uint8_t *train_attributes, int64_t t,
                                       const float *const *test, const uint8_t *test_attributes, int count,
                                       const iso_scorer *scorer, const iso_few_options *options, iso_few **out, iso_error *err);
void iso_few_free(iso_few *f);

#endif
