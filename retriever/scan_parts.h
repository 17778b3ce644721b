/* scan_parts.h: what scan.c and the kernels scan_avx*.c share; nobody else includes it. */
#ifndef ISO_SCAN_PARTS_H
#define ISO_SCAN_PARTS_H

#include <stddef.h>
#include "retriever/scan.h"

#if defined(__x86_64__)
#define ISO_SCAN_X86 1
#else
#define ISO_SCAN_X86 0
#endif

/* How far ahead of the row at hand memory is asked for, in bytes: a processor's own prefetching stops at each page, and
 * into the second cache more requests can be under way than into the first. */
enum { ISO_SCAN_AHEAD = 8192, ISO_SCAN_AHEAD_SCATTERED = 4096, ISO_SCAN_AHEAD_PLACES = 1024 };

/* scores[i] = <weight, row at[i] or i> + bias. */
typedef void iso_scan_kernel(const iso_scan_query *q, const uint8_t *rows, const int32_t *at, int64_t n, float *scores);

/* scores[k * n + i] of row k * apart + i, for k = 0 ... 3: rows of four places in turn. */
typedef void iso_scan_places(const iso_scan_query *q, const uint8_t *rows, int64_t apart, int64_t n, float *scores);

typedef struct iso_scan_kernels {
    iso_scan_kernel *scores[3]; /* by iso_code */
    iso_scan_places *places[3]; /* NULL: no faster than rows one behind the other */
    void (*half_store)(int64_t n, const float *x, uint16_t *out);
    void (*half_load)(int64_t n, const uint16_t *x, float *out);
} iso_scan_kernels;

/* AMD's processors foresee four slow streams better than a fast one; Intel's with AVX-512 read one as fast as memory gives it. */
extern const iso_scan_kernels iso_scan_portable, iso_scan_avx2, iso_scan_avx512, iso_scan_avx512_amd;

/* One number, for tails. */
uint16_t iso_half_from_float(float x);
float iso_half_to_float(uint16_t h);

/* The rows of one call: four at a time, the last one again where fewer are left, so that every row takes the same way. */
typedef struct iso_scan_rows {
    const uint8_t *rows;
    const int32_t *at;
    int64_t n, ahead; /* rows to fetch ahead, where they do not lie one behind the other */
    size_t stride;
} iso_scan_rows;

static inline iso_scan_rows iso_scan_rows_of(const iso_scan_query *q, const uint8_t *rows, const int32_t *at, int64_t n)
{
    size_t stride = (size_t)q->dim * (size_t)iso_code_bytes(q->code);
    return (iso_scan_rows){rows, at, n, (int64_t)(ISO_SCAN_AHEAD_SCATTERED / stride) + 1, stride};
}

static inline const uint8_t *iso_scan_row(const iso_scan_rows *r, int64_t i)
{
    if (i >= r->n) i = r->n - 1;
    return r->rows + (size_t)(r->at ? r->at[i] : i) * r->stride;
}

/* What is to be fetched while row i is worked on, as a distance from it. */
static inline size_t iso_scan_ahead(const iso_scan_rows *r, int64_t i)
{
    if (!r->at) return ISO_SCAN_AHEAD;
    return (size_t)((uintptr_t)iso_scan_row(r, i + r->ahead) - (uintptr_t)iso_scan_row(r, i));
}

/* The first rows of a scattered call, which no row before them has asked for. */
static inline void iso_scan_begin(const iso_scan_rows *r)
{
    if (!r->at) return;
    for (int64_t i = 0; i < r->ahead && i < r->n; i++)
        for (size_t b = 0; b < r->stride; b += 64) __builtin_prefetch(iso_scan_row(r, i) + b);
}

static inline void iso_scan_fetch(const uint8_t *row, size_t ahead)
{
    __builtin_prefetch((const void *)((uintptr_t)row + ahead), 0, 2);
}

/* places_CODE (iso_scan_places) of a file that has TARGET, dot_CODE, which gives a `vector` of partial sums, and sum4. */
#define ISO_SCAN_PLACES(code, bytes, vector, ahead) \
    TARGET static void places_##code(const iso_scan_query *q, const uint8_t *rows, int64_t apart, int64_t n, float *scores) \
    { \
        const size_t stride = (size_t)q->dim * bytes, next = (size_t)apart * stride; \
        const __m128 bias = _mm_set1_ps(q->bias); \
        for (int64_t i = 0; i < n; i++, rows += stride) { \
            vector a = dot_##code(q->weight, rows, q->dim, ahead), b = dot_##code(q->weight, rows + next, q->dim, ahead); \
            vector c = dot_##code(q->weight, rows + 2 * next, q->dim, ahead), d = dot_##code(q->weight, rows + 3 * next, q->dim, ahead); \
            float sum[4]; \
            _mm_storeu_ps(sum, _mm_add_ps(sum4(a, b, c, d), bias)); \
            for (int k = 0; k < 4; k++) scores[i + k * n] = sum[k]; \
        } \
    }

#endif
