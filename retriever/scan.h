/* scan.h: inner products of one query with many stored rows, at the speed of memory: what every search in a database comes
 * down to. Kernels for AVX-512, AVX2 (with FMA and F16C) and a portable one; the processor chooses when the program runs.
 *
 * A row is `dim` numbers, rows lie one behind the other without gaps and need no alignment:
 *     ISO_CODE_F32   float
 *     ISO_CODE_F16   IEEE half precision, as uint16_t
 *     ISO_CODE_U8    one byte c a number, which stands for low[j] + c * step[j]
 * The score of a row depends on the row and the query only: not on its place, its neighbours or the number of threads.
 * (Between processors with other kernels it may differ by rounding: every sum is taken in float, see iso_scan_slack.)
 * Nothing here allocates but iso_scan_best; everything may be called from any number of threads at a time. */
#ifndef ISO_SCAN_H
#define ISO_SCAN_H

#include <stdbool.h>
#include "base/error.h"

typedef enum iso_code { ISO_CODE_F32, ISO_CODE_F16, ISO_CODE_U8 } iso_code;

/* Bytes of one number. */
int iso_code_bytes(iso_code code);

/* score = <weight, row> + bias. For f32 and f16 a literal does: {ISO_CODE_F16, dim, w, 0}. */
typedef struct iso_scan_query {
    iso_code code;
    int dim;             /* >= 1 */
    const float *weight; /* [dim], the caller's */
    float bias;
} iso_scan_query;

/* The query of codes u8 whose score is <w, low + c * step>; `weight` [dim] is where its weights go. */
iso_scan_query iso_scan_query_u8(int dim, const float *w, const float *low, const float *step, float *weight);

/* No score of q is farther than this from the exact inner product with the numbers that the row stands for, where those
 * have length `length` at most (u8: any length). */
double iso_scan_slack(const iso_scan_query *q, double length);

/* scores[i] of rows [n, dim], one thread. */
void iso_scan_scores(const iso_scan_query *q, const void *rows, int64_t n, float *scores);

/* scores[i] of the rows at[i] (from 0) of `rows`, one thread; the next ones are fetched ahead. */
void iso_scan_scores_at(const iso_scan_query *q, const void *rows, const int32_t *at, int64_t n, float *scores);

/* ---- the k best ---- */

typedef struct iso_ranked {
    float score;
    int64_t position;
} iso_ranked;

/* Keeps the k best of what is offered: higher score first, ties by lower position. A score that is not a number is never
 * kept. Zero it but for k and heap. */
typedef struct iso_best {
    int64_t k, count;
    iso_ranked *heap; /* [k], the caller's */
} iso_best;

/* Offers scores[i] for position first + i, or at[i] where `at` is not NULL. */
void iso_best_offer(iso_best *b, const float *scores, int64_t n, int64_t first, const int32_t *at);
/* The worst score that is kept; -INFINITY until k are there. Only what is above (or ties with a lower position) gets in. */
float iso_best_least(const iso_best *b);
/* Sorts heap [count] best first; then b takes no more offers. */
void iso_best_sort(iso_best *b);

/* The min(k, n) best of rows [n, dim], best first, by all threads of OpenMP: the same answer whatever their number.
 * out has room for k; *found is how many there are (fewer only where scores are not numbers). k >= 1. ISO_E_MEMORY. */
ISO_CHECK iso_status iso_scan_best(const iso_scan_query *q, const void *rows, int64_t n, int64_t k, iso_ranked *out,
                                   int64_t *found, iso_error *err);

/* ---- half precision ---- */

/* Rounded to the nearest, ties to even; too large becomes infinite. */
void iso_half_store(int64_t n, const float *x, uint16_t *out);
void iso_half_load(int64_t n, const uint16_t *x, float *out);

#endif
