/* vindex_ivf_scan.c: see vindex_ivf_scan.h. */
#include "retriever/vindex_ivf_scan.h"

#include <math.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#define X86 1
#else
#define X86 0
#endif

enum { MOST_DIM = 1024 /* 255 * 8192 * dim stays below 2^31 */ };

static size_t padded(int dim) { return ((size_t)dim + 63) / 64 * 64; }

size_t iso_ivf_query_room(int dim) { return padded(dim) * (sizeof(float) + 2); }

static bool can_multiply_bytes(void)
{
#if X86
    return iso_scan_isa_best() == ISO_SCAN_AVX512 && __builtin_cpu_supports("avx512vnni");
#else
    return false;
#endif
}

iso_ivf_query iso_ivf_query_make(int dim, const float *w, const float *low, const float *step, void *room)
{
    static _Atomic int known = -1; /* asking a virtual processor takes long */
    iso_ivf_query q = {.plain = iso_scan_query_u8(dim, w, low, step, room)};
    float most = 0;
    if (known < 0) known = can_multiply_bytes();
    for (int j = 0; j < dim; j++) most = fmaxf(most, fabsf(q.plain.weight[j]));
    if (!known || dim > MOST_DIM || !(most > 1e-30f) || !isfinite(most)) return q;
    q.high = (int8_t *)room + padded(dim) * sizeof(float);
    q.low = q.high + padded(dim);
    q.scale = most / 8128;
    memset(q.high, 0, 2 * padded(dim));
    for (int j = 0; j < dim; j++) {
        int weight = (int)(q.plain.weight[j] / q.scale + 8192.5f) - 8192; /* rounded; -8128 to 8128 */
        int high = (weight + 8256) / 128 - 64;                            /* low is from -64 to 63 */
        q.high[j] = (int8_t)high;
        q.low[j] = (int8_t)(weight - 128 * high);
    }
    return q;
}

#if X86
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma")))

/* 128 high + low of 16 lanes. */
TARGET static inline __attribute__((always_inline)) __m512i dot(const iso_ivf_query *q, const uint8_t *row, int dim)
{
    __m512i high = _mm512_setzero_si512(), low = high;
    int j = 0;
    for (; j + 64 <= dim; j += 64) {
        __m512i c = _mm512_loadu_si512(row + j);
        high = _mm512_dpbusd_epi32(high, c, _mm512_loadu_si512(q->high + j));
        low = _mm512_dpbusd_epi32(low, c, _mm512_loadu_si512(q->low + j));
    }
    if (j < dim) {
        __m512i c = _mm512_maskz_loadu_epi8((UINT64_C(1) << (dim - j)) - 1, row + j);
        high = _mm512_dpbusd_epi32(high, c, _mm512_loadu_si512(q->high + j));
        low = _mm512_dpbusd_epi32(low, c, _mm512_loadu_si512(q->low + j));
    }
    return _mm512_add_epi32(_mm512_slli_epi32(high, 7), low);
}

TARGET static inline __attribute__((always_inline)) __m128i sum4(__m512i a, __m512i b, __m512i c, __m512i d)
{
    __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    __m512i all = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

TARGET static void scores_vnni(const iso_ivf_query *q, float bias, const uint8_t *rows, int64_t n, float *scores)
{
    const int dim = q->plain.dim;
    const __m128 scale = _mm_set1_ps(q->scale), add = _mm_set1_ps(bias);
    for (int64_t i = 0; i < n; i += 4) {
        __m512i sum[4];
        for (int r = 0; r < 4; r++) sum[r] = dot(q, rows + (size_t)(i + r < n ? i + r : n - 1) * (size_t)dim, dim);
        __m128 score = _mm_fmadd_ps(_mm_cvtepi32_ps(sum4(sum[0], sum[1], sum[2], sum[3])), scale, add);
        if (i + 4 <= n)
            _mm_storeu_ps(scores + i, score);
        else
            _mm_mask_storeu_ps(scores + i, (__mmask8)((1u << (n - i)) - 1), score);
    }
}
#endif

void iso_ivf_scores(const iso_ivf_query *q, float bias, const uint8_t *rows, int64_t n, float *scores)
{
    bias += q->plain.bias;
#if X86
    if (q->high) {
        scores_vnni(q, bias, rows, n, scores);
        return;
    }
#endif
    iso_scan_query plain = q->plain;
    plain.bias = bias;
    iso_scan_scores(&plain, rows, n, scores);
}
