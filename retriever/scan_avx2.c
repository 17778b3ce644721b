/* scan_avx2.c: the kernels of scan.h for processors with AVX2, FMA and F16C. Each row has four partial sums of 8 lanes;
 * four rows are added up across lanes together. */
#include "retriever/scan_parts.h"

#if ISO_SCAN_X86
#include <string.h>
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma,f16c")))
#define INLINE static inline TARGET __attribute__((always_inline))

INLINE __m256 load_f32(const uint8_t *p) { return _mm256_loadu_ps((const float *)(const void *)p); }
INLINE __m256 load_f16(const uint8_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p)); }
INLINE __m256 load_u8(const uint8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}

/* [sum a, sum b, sum c, sum d]: each by the same additions. */
INLINE __m128 sum4(__m256 a, __m256 b, __m256 c, __m256 d)
{
    __m256 all = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    return _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
}

/* Four rows at a time: of rows one behind the other from four places, as a processor foresees four slow streams better than a fast
 * one, the better the longer they are, and without being asked; of scattered rows as they come, with the next ones asked for.
 *
 * dot_CODE: the 8 partial sums of a row, `ahead` (0: none) as in iso_scan_fetch; what is left of it at the end goes through memory of ours, as nothing behind a row
 * may be read. places_CODE, scores_CODE: the kernels. */
#define KERNEL(code, bytes) \
    INLINE __m256 dot_##code(const float *w, const uint8_t *row, int dim, size_t ahead) \
    { \
        __m256 s0 = _mm256_setzero_ps(), s1 = s0, s2 = s0, s3 = s0; \
        for (; dim >= 32; dim -= 32, w += 32, row += 32 * bytes) { \
            for (int line = 0; ahead && line < bytes; line += 2) iso_scan_fetch(row + 32 * line, ahead); \
            s0 = _mm256_fmadd_ps(_mm256_loadu_ps(w), load_##code(row), s0); \
            s1 = _mm256_fmadd_ps(_mm256_loadu_ps(w + 8), load_##code(row + 8 * bytes), s1); \
            s2 = _mm256_fmadd_ps(_mm256_loadu_ps(w + 16), load_##code(row + 16 * bytes), s2); \
            s3 = _mm256_fmadd_ps(_mm256_loadu_ps(w + 24), load_##code(row + 24 * bytes), s3); \
        } \
        for (; dim >= 8; dim -= 8, w += 8, row += 8 * bytes) { \
            if (ahead) iso_scan_fetch(row, ahead); \
            s0 = _mm256_fmadd_ps(_mm256_loadu_ps(w), load_##code(row), s0); \
        } \
        if (dim > 0) { \
            float weight[8] = {0}; \
            uint8_t codes[8 * bytes]; \
            memset(codes, 0, sizeof codes); \
            memcpy(weight, w, sizeof *w *(size_t)dim); \
            memcpy(codes, row, (size_t)dim *bytes); \
            if (ahead) iso_scan_fetch(row, ahead); \
            s1 = _mm256_fmadd_ps(_mm256_loadu_ps(weight), load_##code(codes), s1); \
        } \
        return _mm256_add_ps(_mm256_add_ps(s0, s1), _mm256_add_ps(s2, s3)); \
    } \
    ISO_SCAN_PLACES(code, bytes, __m256, 0) \
    TARGET static void scores_##code(const iso_scan_query *q, const uint8_t *rows, const int32_t *at, int64_t n, \
                                     float *scores) \
    { \
        const iso_scan_rows r = iso_scan_rows_of(q, rows, at, n); \
        const __m128 bias = _mm_set1_ps(q->bias); \
        const int64_t quarter = at ? 0 : n / 4; \
        places_##code(q, rows, quarter, quarter, scores); \
        iso_scan_begin(&r); \
        for (int64_t i = 4 * quarter; i < n; i += 4) { \
            __m256 a = dot_##code(q->weight, iso_scan_row(&r, i), q->dim, iso_scan_ahead(&r, i)); \
            __m256 b = dot_##code(q->weight, iso_scan_row(&r, i + 1), q->dim, iso_scan_ahead(&r, i + 1)); \
            __m256 c = dot_##code(q->weight, iso_scan_row(&r, i + 2), q->dim, iso_scan_ahead(&r, i + 2)); \
            __m256 d = dot_##code(q->weight, iso_scan_row(&r, i + 3), q->dim, iso_scan_ahead(&r, i + 3)); \
            float sum[4]; \
            _mm_storeu_ps(sum, _mm_add_ps(sum4(a, b, c, d), bias)); \
            memcpy(scores + i, sum, sizeof *sum * (size_t)(n - i < 4 ? n - i : 4)); \
        } \
    }

KERNEL(f32, 4)
KERNEL(f16, 2)
KERNEL(u8, 1)

TARGET static void half_store(int64_t n, const float *x, uint16_t *out)
{
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(void *)(out + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    for (; i < n; i++) out[i] = iso_half_from_float(x[i]);
}

TARGET static void half_load(int64_t n, const uint16_t *x, float *out)
{
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(out + i, load_f16((const uint8_t *)(x + i)));
    for (; i < n; i++) out[i] = iso_half_to_float(x[i]);
}

const iso_scan_kernels iso_scan_avx2 = {{scores_f32, scores_f16, scores_u8}, {places_f32, places_f16, places_u8}, half_store, half_load};
#endif
