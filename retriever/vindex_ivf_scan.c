/* vindex_ivf_scan.c: see vindex_ivf_scan.h. */
#include "retriever/vindex_ivf_scan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clones.h"
#include "base/isa.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define X86 1
#else
#define X86 0
#endif

enum {
    MOST_DIM = 1024, /* 255 * 8192 * dim stays below 2^31 */
    GROUP = 16       /* rows packed together */
};

static size_t padded(int dim) { return ((size_t)dim + 63) / 64 * 64; }

size_t iso_ivf_query_room(int dim) { return padded(dim) * (sizeof(float) + 2); }

ISO_CLONES static float largest(int dim, const float *x)
{
    float most = 0;
#pragma omp simd reduction(max : most)
    for (int j = 0; j < dim; j++) most = fabsf(x[j]) > most ? fabsf(x[j]) : most;
    return most;
}

ISO_CLONES static void split(int dim, const float *weight, float scale, int8_t *restrict high, int8_t *restrict low)
{
    for (int j = 0; j < dim; j++) {
        int whole = (int)(weight[j] / scale + 8192.5f) - 8192; /* rounded; -8128 to 8128 */
        int h = (whole + 8256) / 128 - 64;                     /* what is left is from -64 to 63 */
        high[j] = (int8_t)h;
        low[j] = (int8_t)(whole - 128 * h);
    }
}

iso_ivf_query iso_ivf_query_make(int dim, const float *w, const float *low, const float *step, void *room)
{
    iso_ivf_query q = {.plain = iso_scan_query_u8(dim, w, low, step, room)};
    if (!iso_isa_has(ISO_ISA_AVX2) || dim > MOST_DIM) return q;
    for (int j = 0; j < dim; j++)
        if (!isfinite(q.plain.weight[j])) return q;
    const float most = largest(dim, q.plain.weight);
    if (!(most > 1e-30f)) return q;
    q.high = (int8_t *)room + padded(dim) * sizeof(float);
    q.low = q.high + padded(dim);
    q.scale = most / 8128;
    memset(q.high, 0, 2 * padded(dim));
    split(dim, q.plain.weight, q.scale, q.high, q.low);
    return q;
}

#if X86
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")))

#define INLINE TARGET static inline __attribute__((always_inline))

/* 64 numbers of four rows: their products with the weights are added to high and low. Four rows share a load of weights. */
INLINE void multiply4(const __m512i row[4], __m512i weight_high, __m512i weight_low, __m512i high[4], __m512i low[4])
{
    for (int r = 0; r < 4; r++) {
        high[r] = _mm512_dpbusd_epi32(high[r], row[r], weight_high);
        low[r] = _mm512_dpbusd_epi32(low[r], row[r], weight_low);
    }
}

INLINE __m128i sum4(__m512i a, __m512i b, __m512i c, __m512i d)
{
    __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    __m512i all = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

/* Four rows, which are any four: [128 high + low] of each. */
INLINE __m128i dot4(const iso_ivf_query *q, const uint8_t *const row[4], int dim)
{
    __m512i high[4], low[4], codes[4];
    int j = 0;
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) high[r] = low[r] = _mm512_setzero_si512();
    for (; j + 64 <= dim; j += 64) {
#pragma GCC unroll 4
        for (int r = 0; r < 4; r++) codes[r] = _mm512_loadu_si512(row[r] + j);
        multiply4(codes, _mm512_loadu_si512(q->high + j), _mm512_loadu_si512(q->low + j), high, low);
    }
    if (j < dim) {
        const __mmask64 rest = (UINT64_C(1) << (dim - j)) - 1;
#pragma GCC unroll 4
        for (int r = 0; r < 4; r++) codes[r] = _mm512_maskz_loadu_epi8(rest, row[r] + j);
        multiply4(codes, _mm512_loadu_si512(q->high + j), _mm512_loadu_si512(q->low + j), high, low);
    }
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) high[r] = _mm512_add_epi32(_mm512_slli_epi32(high[r], 7), low[r]);
    return sum4(high[0], high[1], high[2], high[3]);
}

TARGET static void scores_vnni(const iso_ivf_query *q, float bias, const uint8_t *rows, int64_t n, float *scores,
                               const uint8_t *next)
{
    const int dim = q->plain.dim;
    const size_t stride = (size_t)dim;
    const __m128 scale = _mm_set1_ps(q->scale), add = _mm_set1_ps(bias);
    int64_t i = 0;
    for (; i + 4 <= n; i += 4, rows += 4 * stride) {
        const uint8_t *const row[4] = {rows, rows + stride, rows + 2 * stride, rows + 3 * stride};
        if (next) {
            for (size_t b = 0; b < 4 * stride; b += 64) __builtin_prefetch(next + b, 0, 2);
            next += 4 * stride;
        }
        _mm_storeu_ps(scores + i, _mm_fmadd_ps(_mm_cvtepi32_ps(dot4(q, row, dim)), scale, add));
    }
    if (i < n) { /* the last row again in place of those that are missing */
        const uint8_t *const last = rows + (size_t)(n - 1 - i) * stride;
        const uint8_t *const row[4] = {rows, n - i > 1 ? rows + stride : last, n - i > 2 ? rows + 2 * stride : last,
                                       last};
        _mm_mask_storeu_ps(scores + i, (__mmask8)((1u << (n - i)) - 1),
                           _mm_fmadd_ps(_mm_cvtepi32_ps(dot4(q, row, dim)), scale, add));
    }
}

/* GROUPS of packed rows, whose lanes are rows: nothing to add up across them. */
INLINE void packed_groups(const iso_ivf_query *q, __m512 scale, __m512 add, const uint8_t *at, int64_t n, float *scores,
                          const int groups)
{
    const size_t steps = (size_t)(q->plain.dim + 3) / 4;
    __m512i high[4], low[4];
#pragma GCC unroll 4
    for (int g = 0; g < groups; g++) high[g] = low[g] = _mm512_setzero_si512();
    for (size_t j = 0; j < steps; j++) {
        int32_t four_high, four_low;
        memcpy(&four_high, q->high + 4 * j, 4);
        memcpy(&four_low, q->low + 4 * j, 4);
        const __m512i weight_high = _mm512_set1_epi32(four_high), weight_low = _mm512_set1_epi32(four_low);
#pragma GCC unroll 4
        for (int g = 0; g < groups; g++) {
            const __m512i codes = _mm512_load_si512(at + 64 * (steps * (size_t)g + j));
            high[g] = _mm512_dpbusd_epi32(high[g], codes, weight_high);
            low[g] = _mm512_dpbusd_epi32(low[g], codes, weight_low);
        }
    }
#pragma GCC unroll 4
    for (int g = 0; g < groups; g++) {
        const int64_t left = n - GROUP * g;
        const __m512i sum = _mm512_add_epi32(_mm512_slli_epi32(high[g], 7), low[g]);
        const __mmask16 some = left >= GROUP ? 0xffff : (__mmask16)((1u << left) - 1);
        _mm512_mask_storeu_ps(scores + GROUP * g, some, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, add));
    }
}

TARGET static void scores_packed(const iso_ivf_query *q, const uint8_t *packed, int64_t n, float *scores)
{
    const size_t bytes = (size_t)(q->plain.dim + 3) / 4 * 64; /* of a group */
    const __m512 scale = _mm512_set1_ps(q->scale), add = _mm512_set1_ps(q->plain.bias);
    int64_t i = 0;
    for (; i + 3 * GROUP < n; i += 4 * GROUP, packed += 4 * bytes)
        packed_groups(q, scale, add, packed, n - i, scores + i, 4);
    for (; i < n; i += GROUP, packed += bytes) packed_groups(q, scale, add, packed, n - i, scores + i, 1);
}

/* ---- the same without VNNI ---- */

#undef TARGET
#undef INLINE
#define TARGET __attribute__((target("avx2,fma")))
#define INLINE TARGET static inline __attribute__((always_inline))

/* sum += codes (128 high + low), four at a time: a pair's products sum to at most 2 * 255 * 64, which 16 bits hold. */
INLINE __m256i multiply32(__m256i sum, __m256i codes, __m256i high, __m256i low)
{
    const __m256i above = _mm256_madd_epi16(_mm256_maddubs_epi16(codes, high), _mm256_set1_epi16(128));
    const __m256i below = _mm256_madd_epi16(_mm256_maddubs_epi16(codes, low), _mm256_set1_epi16(1));
    return _mm256_add_epi32(sum, _mm256_add_epi32(above, below));
}

INLINE __m256i load32(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }

/* Four rows, which are any four. */
INLINE __m128i dot4_avx2(const iso_ivf_query *q, const uint8_t *const row[4], int dim)
{
    __m256i sum[4];
    int j = 0;
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) sum[r] = _mm256_setzero_si256();
    for (; j + 32 <= dim; j += 32) {
        const __m256i high = load32(q->high + j), low = load32(q->low + j);
#pragma GCC unroll 4
        for (int r = 0; r < 4; r++) sum[r] = multiply32(sum[r], load32(row[r] + j), high, low);
    }
    if (j < dim) { /* weights behind the last are zeros, but nothing behind a row may be read */
        const __m256i high = load32(q->high + j), low = load32(q->low + j);
        for (int r = 0; r < 4; r++) {
            uint8_t rest[32] = {0};
            memcpy(rest, row[r] + j, (size_t)(dim - j));
            sum[r] = multiply32(sum[r], load32(rest), high, low);
        }
    }
    const __m256i all = _mm256_hadd_epi32(_mm256_hadd_epi32(sum[0], sum[1]), _mm256_hadd_epi32(sum[2], sum[3]));
    return _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
}

TARGET static void scores_avx2(const iso_ivf_query *q, float bias, const uint8_t *rows, int64_t n, float *scores, const uint8_t *next)
{
    const int dim = q->plain.dim;
    const size_t stride = (size_t)dim;
    const __m128 scale = _mm_set1_ps(q->scale), add = _mm_set1_ps(bias);
    for (int64_t i = 0; i < n; i += 4) {
        const uint8_t *row[4];
        for (int64_t r = 0; r < 4; r++) row[r] = rows + (size_t)(i + r < n ? i + r : n - 1) * stride;
        if (next) {
            for (size_t b = 0; b < 4 * stride; b += 64) __builtin_prefetch(next + b, 0, 2);
            next += 4 * stride;
        }
        float four[4];
        _mm_storeu_ps(four, _mm_fmadd_ps(_mm_cvtepi32_ps(dot4_avx2(q, row, dim)), scale, add));
        memcpy(scores + i, four, sizeof *four * (size_t)(n - i < 4 ? n - i : 4));
    }
}

/* GROUPS of packed rows: eight rows to a vector. */
INLINE void packed_groups_avx2(const iso_ivf_query *q, __m256 scale, __m256 add, const uint8_t *at, int64_t n, float *scores,
                               const int groups)
{
    const size_t steps = (size_t)(q->plain.dim + 3) / 4;
    __m256i sum[4];
#pragma GCC unroll 4
    for (int h = 0; h < 2 * groups; h++) sum[h] = _mm256_setzero_si256();
    for (size_t j = 0; j < steps; j++) {
        int32_t four_high, four_low;
        memcpy(&four_high, q->high + 4 * j, 4);
        memcpy(&four_low, q->low + 4 * j, 4);
        const __m256i high = _mm256_set1_epi32(four_high), low = _mm256_set1_epi32(four_low);
#pragma GCC unroll 4
        for (int h = 0; h < 2 * groups; h++)
            sum[h] = multiply32(sum[h], load32(at + 64 * (steps * (size_t)(h / 2) + j) + 32 * (h % 2)), high, low);
    }
#pragma GCC unroll 4
    for (int h = 0; h < 2 * groups; h++) {
        const int64_t left = n - GROUP / 2 * h;
        float eight[GROUP / 2];
        if (left <= 0) break;
        _mm256_storeu_ps(eight, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[h]), scale, add));
        memcpy(scores + GROUP / 2 * h, eight, sizeof *eight * (size_t)(left < GROUP / 2 ? left : GROUP / 2));
    }
}

TARGET static void scores_packed_avx2(const iso_ivf_query *q, const uint8_t *packed, int64_t n, float *scores)
{
    const size_t bytes = (size_t)(q->plain.dim + 3) / 4 * 64;
    const __m256 scale = _mm256_set1_ps(q->scale), add = _mm256_set1_ps(q->plain.bias);
    int64_t i = 0;
    for (; i + GROUP < n; i += 2 * GROUP, packed += 2 * bytes) packed_groups_avx2(q, scale, add, packed, n - i, scores + i, 2);
    for (; i < n; i += GROUP, packed += bytes) packed_groups_avx2(q, scale, add, packed, n - i, scores + i, 1);
}
#endif

void iso_ivf_scores(const iso_ivf_query *q, float times, float bias, const uint8_t *rows, int64_t n, float *scores,
                    const uint8_t *next)
{
#if X86
    if (q->high) {
        iso_ivf_query own = *q;
        own.scale *= times;
        bias += times * q->plain.bias;
        if (iso_isa_has(ISO_ISA_AVX512VNNI)) scores_vnni(&own, bias, rows, n, scores, next);
        else scores_avx2(&own, bias, rows, n, scores, next);
        return;
    }
#endif
    for (int i = 0; next && i < 16; i++) __builtin_prefetch(next + 64 * i); /* the processor finds the rest by itself */
    iso_scan_scores(&q->plain, rows, n, scores);
    for (int64_t i = 0; i < n; i++) scores[i] = scores[i] * times + bias;
}

uint8_t *iso_ivf_pack(const uint8_t *rows, int64_t n, int dim)
{
    const size_t steps = ((size_t)dim + 3) / 4, groups = ((size_t)n + GROUP - 1) / GROUP;
    if (!iso_isa_has(ISO_ISA_AVX2) || dim > MOST_DIM || n < 1) return NULL;
    uint8_t *packed = aligned_alloc(64, groups * steps * 64);
    if (!packed) return NULL;
    memset(packed, 0, groups * steps * 64);
    for (size_t i = 0; i < (size_t)n; i++) {
        uint8_t *to = packed + i / GROUP * steps * 64 + i % GROUP * 4;
        for (size_t j = 0; j < (size_t)dim; j++) to[j / 4 * 64 + j % 4] = rows[i * (size_t)dim + j];
    }
    return packed;
}

void iso_ivf_scores_packed(const iso_ivf_query *q, const uint8_t *packed, const uint8_t *rows, int64_t n, float *scores)
{
#if X86
    if (q->high && packed) {
        if (iso_isa_has(ISO_ISA_AVX512VNNI)) scores_packed(q, packed, n, scores);
        else scores_packed_avx2(q, packed, n, scores);
        return;
    }
#endif
    (void)packed;
    iso_ivf_scores(q, 1, 0, rows, n, scores, NULL);
}
