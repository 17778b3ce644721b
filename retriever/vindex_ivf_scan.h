/* vindex_ivf_scan.h: scores of one-byte codes in integers, where the processor multiplies bytes (AVX-512 VNNI, or AVX2 in more
 * steps; both give the same bits); else scan.h's kernel. The weights of a query are rounded to 14 bits for it, which moves a score
 * by much less than the codes' rounding does. */
#ifndef ISO_VINDEX_IVF_SCAN_H
#define ISO_VINDEX_IVF_SCAN_H

#include "retriever/scan.h"

typedef struct iso_ivf_query {
    iso_scan_query plain;
    int8_t *high, *low; /* [dim rounded up to 64] weight = scale * (128 high + low); NULL: as plain */
    float scale;
} iso_ivf_query;

/* Bytes of the memory that a query of so many numbers needs, a multiple of 64. */
size_t iso_ivf_query_room(int dim);
/* score = <w, low + c * step>; `room` is the caller's, as long as the query is used. */
iso_ivf_query iso_ivf_query_make(int dim, const float *w, const float *low, const float *step, void *room);
/* scores[i] of rows [n, dim], times `times`, plus `bias`. next (NULL: none): what will be read after these rows and is fetched meanwhile;
 * it need not be as long, nor be there. */
void iso_ivf_scores(const iso_ivf_query *q, float times, float bias, const uint8_t *rows, int64_t n, float *scores,
                    const uint8_t *next);

/* A copy of rows [n, dim], 16 of them side by side, four numbers of each at a time: for rows that every query reads, which are
 * then scored twice as fast. NULL where the processor gains nothing by it, or memory is out; free with free(). */
uint8_t *iso_ivf_pack(const uint8_t *rows, int64_t n, int dim);
/* The scores of rows [n, dim], the same to the last bit as without their packed copy, which may be NULL. */
void iso_ivf_scores_packed(const iso_ivf_query *q, const uint8_t *packed, const uint8_t *rows, int64_t n,
                           float *scores);

#endif
