/* compare.h: the protocols' figures of one method summed up over its seeds, for tables that put methods beside one
 * another; and the images that several databases have in common, so that their rankings compare. */
#ifndef ISO_COMPARE_H
#define ISO_COMPARE_H

#include <stdbool.h>
#include "eval/evaluate.h"

enum { ISO_COMPARE_RESAMPLES = 100000 /* at most so many */ };

/* ---- figures ---- */

/* NaN for what there is not. */
typedef struct iso_figure {
    double mean;      /* over the runs and the sets */
    double deviation; /* standard deviation of a run's mean over the runs (n - 1); two runs or more */
    double low, high; /* bootstrap: between these lie 95 % of the resampled means; two sets or more */
} iso_figure;

/* Single attributes (SAR), or pairs (DAR). A set counts where every run has its figure. */
typedef struct iso_half {
    int sets;
    double chance; /* mean over the same sets */
    iso_figure at[ISO_KS];
    int few_sets[ISO_FEW_SIZES];
    double few_chance[ISO_FEW_SIZES]; /* mean over those sets, which are fewer where n is large */
    iso_figure few[ISO_FEW_SIZES]; /* P@10 with so few examples, in the order of the options */
} iso_half;

typedef struct iso_summary {
    int runs;
    iso_half single, dbl;
} iso_summary;

/* runs >= 1 protocols over the same images and attributes (ISO_E_MISMATCH otherwise); few NULL: without. The interval is
 * a percentile bootstrap over attributes: n of the n attributes are drawn with replacement, `resamples` times (0: no
 * interval; at most ISO_COMPARE_RESAMPLES), and a pair counts as often as the product of its two attributes says, for
 * pairs that share an attribute are not independent. So it says how much the mean hangs on which attributes were asked
 * for, not on which images or seeds. The draws are a function of seed and n alone: the rows of one table see the same
 * resamples. */
ISO_CHECK iso_status iso_compare_sum_up(int runs, const iso_precision *const *precision, const iso_few *const *few,
                                        int resamples, uint64_t seed, iso_summary *out, iso_error *err);
/* The mean over the runs of P@iso_precision_k[k] of row i of the singles or the pairs; NaN where a run has none. */
double iso_compare_at(int runs, const iso_precision *const *precision, bool pairs, int i, int k);
/* The same of P@10 with few examples, size s. */
double iso_compare_few_at(int runs, const iso_few *const *few, bool pairs, int i, int s);

/* ---- images ---- */

/* Rows of an attribute file, rising, each once. */
typedef struct iso_rows {
    int64_t count, *row;
} iso_rows;
ISO_CHECK iso_status iso_rows_of(const iso_split *s, iso_rows *out, iso_error *err); /* free with iso_rows_free */
void iso_rows_common(iso_rows *a, const iso_rows *b);                                /* a keeps what b has, too */
void iso_rows_free(iso_rows *r); /* what it holds; a zeroed one is fine */

#endif
