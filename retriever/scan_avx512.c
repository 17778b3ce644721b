/* scan_avx512.c: the kernels of scan.h for processors with AVX-512 (F, BW, VL; those have F16C). Each row has four partial sums of 16
 * lanes; four rows are added up across lanes together. */
#include "retriever/scan_parts.h"

#if ISO_SCAN_X86
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx2,fma,f16c")))
#define INLINE static inline TARGET __attribute__((always_inline))

INLINE __m512 load_f32(const uint8_t *p) { return _mm512_loadu_ps((const float *)(const void *)p); }
INLINE __m512 load_f16(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
INLINE __m512 load_u8(const uint8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
}

INLINE __m512 part_f32(const uint8_t *p, __mmask16 m) { return _mm512_maskz_loadu_ps(m, p); }
INLINE __m512 part_f16(const uint8_t *p, __mmask16 m) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(m, p)); }
INLINE __m512 part_u8(const uint8_t *p, __mmask16 m)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(m, p)));
}

/* [sum a, sum b, sum c, sum d]: each by the same additions. */
INLINE __m128 sum4(__m512 a, __m512 b, __m512 c, __m512 d)
{
    __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    __m512d lo = _mm512_unpacklo_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
    __m512d hi = _mm512_unpackhi_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
    __m512 all = _mm512_add_ps(_mm512_castpd_ps(lo), _mm512_castpd_ps(hi));
    __m256 half =
        _mm256_add_ps(_mm512_castps512_ps256(all), _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(all), 1)));
    return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

/* dot_CODE: the 16 partial sums of a row, `ahead` as in iso_scan_fetch. places_CODE, scores_CODE: the kernels. */
#define KERNEL(code, bytes) \
    INLINE __m512 dot_##code(const float *w, const uint8_t *row, int dim, size_t ahead) \
    { \
        __m512 s0 = _mm512_setzero_ps(), s1 = s0, s2 = s0, s3 = s0; \
        for (; dim >= 64; dim -= 64, w += 64, row += 64 * bytes) { \
            for (int line = 0; line < bytes; line++) iso_scan_fetch(row + 64 * line, ahead); \
            s0 = _mm512_fmadd_ps(_mm512_loadu_ps(w), load_##code(row), s0); \
            s1 = _mm512_fmadd_ps(_mm512_loadu_ps(w + 16), load_##code(row + 16 * bytes), s1); \
            s2 = _mm512_fmadd_ps(_mm512_loadu_ps(w + 32), load_##code(row + 32 * bytes), s2); \
            s3 = _mm512_fmadd_ps(_mm512_loadu_ps(w + 48), load_##code(row + 48 * bytes), s3); \
        } \
        for (; dim >= 16; dim -= 16, w += 16, row += 16 * bytes) { \
            iso_scan_fetch(row, ahead); \
            s0 = _mm512_fmadd_ps(_mm512_loadu_ps(w), load_##code(row), s0); \
        } \
        if (dim > 0) { \
            __mmask16 m = (__mmask16)((1u << dim) - 1); \
            iso_scan_fetch(row, ahead); \
            s1 = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(m, w), part_##code(row, m), s1); \
        } \
        return _mm512_add_ps(_mm512_add_ps(s0, s1), _mm512_add_ps(s2, s3)); \
    } \
    ISO_SCAN_PLACES(code, bytes, __m512, ISO_SCAN_AHEAD_PLACES) \
    TARGET static void scores_##code(const iso_scan_query *q, const uint8_t *rows, const int32_t *at, int64_t n, \
                                     float *scores) \
    { \
        const iso_scan_rows r = iso_scan_rows_of(q, rows, at, n); \
        const __m128 bias = _mm_set1_ps(q->bias); \
        iso_scan_begin(&r); \
        for (int64_t i = 0; i < n; i += 4) { \
            __m512 a = dot_##code(q->weight, iso_scan_row(&r, i), q->dim, iso_scan_ahead(&r, i)); \
            __m512 b = dot_##code(q->weight, iso_scan_row(&r, i + 1), q->dim, iso_scan_ahead(&r, i + 1)); \
            __m512 c = dot_##code(q->weight, iso_scan_row(&r, i + 2), q->dim, iso_scan_ahead(&r, i + 2)); \
            __m512 d = dot_##code(q->weight, iso_scan_row(&r, i + 3), q->dim, iso_scan_ahead(&r, i + 3)); \
            __m128 sum = _mm_add_ps(sum4(a, b, c, d), bias); \
            if (i + 4 <= n) \
                _mm_storeu_ps(scores + i, sum); \
            else \
                _mm_mask_storeu_ps(scores + i, (__mmask8)((1u << (n - i)) - 1), sum); \
        } \
    }

KERNEL(f32, 4)
KERNEL(f16, 2)
KERNEL(u8, 1)

TARGET static void half_store(int64_t n, const float *x, uint16_t *out)
{
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 m = (__mmask16)(n - i >= 16 ? 0xffff : (1u << (n - i)) - 1);
        _mm256_mask_storeu_epi16(
            out + i, m,
            _mm512_cvtps_ph(_mm512_maskz_loadu_ps(m, x + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    }
}

TARGET static void half_load(int64_t n, const uint16_t *x, float *out)
{
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 m = (__mmask16)(n - i >= 16 ? 0xffff : (1u << (n - i)) - 1);
        _mm512_mask_storeu_ps(out + i, m, part_f16((const uint8_t *)(x + i), m));
    }
}

const iso_scan_kernels iso_scan_avx512 = {{scores_f32, scores_f16, scores_u8}, {NULL}, half_store, half_load};
const iso_scan_kernels iso_scan_avx512_amd = {{scores_f32, scores_f16, scores_u8}, {places_f32, places_f16, places_u8}, half_store, half_load};
#endif
