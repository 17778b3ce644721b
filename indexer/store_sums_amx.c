/* store_sums_amx.c: the sums of products with the tile unit of newer Intel processors (AMX), which multiplies bytes.
 *
 * A number k of at most 2^22 is d0 + 2^8 d1 + 2^16 d2 with signed bytes d, so a product of two is nine products of bytes, of
 * which symmetry leaves six. The unit adds 16,384 of these in one instruction to 32-bit integers, which 2^17 vectors could
 * not overflow; these are added to the 128-bit sums now and then. All is exact: the same bits as any other way. */
#include "indexer/store_sums.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <float.h>
#include <immintrin.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/cpu/gemm_amx.h"

enum {
    TILE = 16,  /* rows of a tile, and 32-bit columns */
    DEPTH = 64, /* vectors that one instruction adds up */
    DEPTHS = ISO_SUMS_BLOCK / DEPTH,
    DIGITS = 3,
    DIM_MAX = 512,      /* the sums of bytes grow with the square of 3 dim */
    HELD_MAX = 1 << 15, /* vectors */
};
#define AMX __attribute__((target("amx-tile,amx-int8,avx512f,avx512bw,avx512dq,avx512vl")))

typedef int32_t tile[TILE * TILE];

/* Columns are numbered digit by digit, each as wide as the vectors, padded to tiles; tiles of columns come in pairs. */
typedef struct amx {
    int width, tiles, held; /* padded dim; tiles of columns, even; vectors in c */
    bool minus;
    tile *rows, *columns; /* [DEPTHS][tiles]: left and right factors */
    tile *c;              /* [pair of tiles i <= pair j][2][2] */
} amx;

static size_t pairs_of(const amx *m) { return (size_t)(m->tiles / 2) * (size_t)(m->tiles / 2 + 1) / 2; }

static size_t pair_at(const amx *m, int i, int j)
{
    return (size_t)i * (size_t)(m->tiles / 2) - (size_t)i * (size_t)(i - 1) / 2 + (size_t)(j - i);
}

/* The same integers as round_vector of store_moments.c, as int32 [ISO_SUMS_BLOCK][width]; see round_widest there. */
AMX static bool round_amx(const iso_sums *s, const float *v, double *block, int at)
{
    const amx *m = s->work;
    int32_t *k = (int32_t *)block + (size_t)at * (size_t)m->width;
    double square[ISO_SUMS_LANES];
    __m512d sum = _mm512_setzero_pd();
    const __mmask8 last = (__mmask8)(s->dim % 8 ? (1 << s->dim % 8) - 1 : 0xff);
    for (int p = 0; p < s->panels; p++) {
        __m512d x = _mm512_cvtps_pd(_mm256_maskz_loadu_ps(p + 1 < s->panels ? 0xff : last, v + p * 8));
        sum = _mm512_fmadd_pd(x, x, sum);
    }
    _mm512_storeu_pd(square, sum);
    double norm = iso_sums_norm(square);
    if (!(norm > 0 && norm <= DBL_MAX)) return false;
    const __m512d scale = _mm512_set1_pd((1 << ISO_SUMS_SCALE) / norm), sure = _mm512_set1_pd(0.5 - 0x1p-20);
    for (int p = 0; p < s->panels; p++) {
        __m512d x = _mm512_cvtps_pd(_mm256_maskz_loadu_ps(p + 1 < s->panels ? 0xff : last, v + p * 8)),
                y = _mm512_mul_pd(x, scale);
        __m512d whole = _mm512_roundscale_pd(y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        if (_mm512_cmp_pd_mask(_mm512_abs_pd(_mm512_sub_pd(y, whole)), sure, _CMP_GT_OQ)) {
            y = _mm512_mul_pd(_mm512_div_pd(x, _mm512_set1_pd(norm)), _mm512_set1_pd(1 << ISO_SUMS_SCALE));
            whole = _mm512_roundscale_pd(y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        }
        _mm256_storeu_si256((__m256i *)(k + p * 8), _mm512_cvttpd_epi32(whole));
    }
    return true;
}

/* One tile with rows for columns. */
AMX static void transpose(const int32_t *from, int32_t *to)
{
    __m512i a[TILE], b[TILE];
    for (int i = 0; i < TILE; i++) a[i] = _mm512_loadu_si512(from + i * TILE);
    for (int i = 0; i < TILE; i += 2) {
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
    for (int i = 0; i < TILE; i += 4)
        for (int j = 0; j < 2; j++) {
            a[i + 2 * j] = _mm512_unpacklo_epi64(b[i + j], b[i + 2 + j]);
            a[i + 2 * j + 1] = _mm512_unpackhi_epi64(b[i + j], b[i + 2 + j]);
        }
    /* a[4 q + r] has, in its 128-bit lane l, column 4 l + r of rows 4 q ... 4 q + 3 */
    for (int r = 0; r < 4; r++) {
        __m512i low = _mm512_shuffle_i32x4(a[r], a[4 + r], 0x88), high = _mm512_shuffle_i32x4(a[r], a[4 + r], 0xdd);
        __m512i low2 = _mm512_shuffle_i32x4(a[8 + r], a[12 + r], 0x88),
                high2 = _mm512_shuffle_i32x4(a[8 + r], a[12 + r], 0xdd);
        _mm512_storeu_si512(to + r * TILE, _mm512_shuffle_i32x4(low, low2, 0x88));
        _mm512_storeu_si512(to + (8 + r) * TILE, _mm512_shuffle_i32x4(low, low2, 0xdd));
        _mm512_storeu_si512(to + (4 + r) * TILE, _mm512_shuffle_i32x4(high, high2, 0x88));
        _mm512_storeu_si512(to + (12 + r) * TILE, _mm512_shuffle_i32x4(high, high2, 0xdd));
    }
}

/* Bytes of four vectors side by side, as the unit wants its right factor; the left one is that transposed. */
AMX static void split(amx *m, const int32_t *k, int depth)
{
    const __m512i bias = _mm512_set1_epi32(0x808080), even = _mm512_set1_epi32(0x00ff00ff),
                  low = _mm512_set1_epi32(0xffff);
    tile *columns = m->columns + depth * m->tiles;
    for (int row = 0; row < DEPTH; row += 4)
        for (int i = 0; i < m->width; i += TILE) {
            __m512i t[4], s[2], d[2];
            for (int v = 0; v < 4; v++) /* signed digits: bytes of k + bias, each less 128 */
                t[v] = _mm512_xor_si512(
                    _mm512_add_epi32(_mm512_loadu_si512(k + (size_t)(row + v) * (size_t)m->width + i), bias), bias);
            for (int h = 0; h < 2; h++) {
                __m512i a = t[2 * h], b = t[2 * h + 1];
                s[h] = _mm512_or_si512(_mm512_and_si512(a, even), _mm512_slli_epi32(_mm512_and_si512(b, even), 8));
                d[h] = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi32(a, 8), even), _mm512_andnot_si512(even, b));
            }
            int32_t *at = columns[i / TILE] + row / 4 * TILE;
            size_t digit = (size_t)(m->width / TILE) * TILE * TILE;
            _mm512_storeu_si512(at, _mm512_or_si512(_mm512_and_si512(s[0], low), _mm512_slli_epi32(s[1], 16)));
            _mm512_storeu_si512(at + digit, _mm512_or_si512(_mm512_and_si512(d[0], low), _mm512_slli_epi32(d[1], 16)));
            _mm512_storeu_si512(at + 2 * digit,
                                _mm512_or_si512(_mm512_srli_epi32(s[0], 16), _mm512_andnot_si512(low, s[1])));
        }
    for (int t = 0; t < DIGITS * m->width / TILE; t++) transpose(columns[t], m->rows[depth * m->tiles + t]);
}

AMX static void multiply(amx *m, int depths)
{
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } shape = {.palette = 1};
    for (int i = 0; i < 8; i++) shape.bytes[i] = 4 * TILE, shape.rows[i] = TILE;
    _tile_loadconfig(&shape);
    tile *c = m->c;
    for (int i = 0; i < m->tiles; i += 2)
        for (int j = i; j < m->tiles; j += 2, c += 4) {
            _tile_loadd(0, c[0], 64);
            _tile_loadd(1, c[1], 64);
            _tile_loadd(2, c[2], 64);
            _tile_loadd(3, c[3], 64);
            for (int d = 0; d < depths; d++) {
                _tile_loadd(4, m->rows[d * m->tiles + i], 64);
                _tile_loadd(6, m->columns[d * m->tiles + j], 64);
                _tile_loadd(7, m->columns[d * m->tiles + j + 1], 64);
                _tile_dpbssd(0, 4, 6);
                _tile_dpbssd(1, 4, 7);
                _tile_loadd(5, m->rows[d * m->tiles + i + 1], 64);
                _tile_dpbssd(2, 5, 6);
                _tile_dpbssd(3, 5, 7);
            }
            _tile_stored(0, c[0], 64);
            _tile_stored(1, c[1], 64);
            _tile_stored(2, c[2], 64);
            _tile_stored(3, c[3], 64);
        }
    _tile_release();
}

/* Columns of k; 256 of them fit an int32. */
AMX static void add_numbers(iso_sums *s, const amx *m, const int32_t *k, int n, bool minus)
{
    int32_t sum[TILE];
    for (int from = 0; from < n; from += 256)
        for (int i = 0; i < m->width; i += TILE) {
            __m512i x = _mm512_setzero_si512();
            for (int v = from; v < n && v < from + 256; v++)
                x = _mm512_add_epi32(x, _mm512_loadu_si512(k + (size_t)v * (size_t)m->width + i));
            _mm512_storeu_si512(sum, x);
            for (int l = 0; l < TILE && i + l < s->dim; l++) iso_total_add(s->sum + i + l, sum[l], minus);
        }
}

/* The product of digit a of number i and digit b of number j, a <= b, i <= j where these are equal. */
static int64_t product(const amx *m, int a, int i, int b, int j)
{
    int row = a * m->width + i, column = b * m->width + j, p = row / TILE, q = column / TILE;
    return m->c[pair_at(m, p / 2, q / 2) * 4 + (size_t)(p % 2 * 2 + q % 2)][row % TILE * TILE + column % TILE];
}

static void finish(iso_sums *s)
{
    amx *m = s->work;
    if (!m->held) return;
    for (int i = 0; i < s->dim; i++) {
        iso_total *row = s->sum + iso_sums_row(s->dim, i) - i;
        for (int j = i; j < s->dim; j++) {
            int64_t k = 0;
            for (int a = 0; a < DIGITS; a++) {
                k += product(m, a, i, a, j) * (INT64_C(1) << 16 * a);
                for (int b = a + 1; b < DIGITS; b++)
                    k += (product(m, a, i, b, j) + product(m, a, j, b, i)) * (INT64_C(1) << 8 * (a + b));
            }
            iso_total_add(row + j, k, m->minus);
        }
    }
    memset(m->c, 0, pairs_of(m) * 4 * sizeof *m->c);
    m->held = 0;
}

static void add(iso_sums *s, bool minus, int n)
{
    amx *m = s->work;
    int32_t *k = (int32_t *)s->block[minus];
    int depths = (n + DEPTH - 1) / DEPTH;
    if (m->held && (m->minus != minus || m->held + n > HELD_MAX)) finish(s);
    memset(k + (size_t)n * (size_t)m->width, 0, (size_t)(depths * DEPTH - n) * (size_t)m->width * sizeof *k);
    add_numbers(s, m, k, n, minus);
    for (int d = 0; d < depths; d++) split(m, k + (size_t)(d * DEPTH) * (size_t)m->width, d);
    multiply(m, depths);
    m->held += n;
    m->minus = minus;
}

static bool usable(void)
{
    enum { INT8 = 1 << 25 };
    unsigned a, b, c, d = 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & INT8) && iso_amx_usable() &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

bool iso_sums_amx(iso_sums *s)
{
    if (s->dim > DIM_MAX || !usable()) return false;
    amx m = {.width = (s->dim + TILE - 1) / TILE * TILE};
    m.tiles = (DIGITS * m.width / TILE + 1) / 2 * 2;
    size_t factor = (size_t)DEPTHS * (size_t)m.tiles, tiles = 2 * factor + 4 * pairs_of(&m);
    size_t bytes = sizeof(tile) * (tiles + 1);
    char *work = aligned_alloc(sizeof(tile), bytes);
    if (!work) return false;
    memset(work, 0, bytes);
    m.rows = (tile *)(void *)(work + sizeof(tile));
    m.columns = m.rows + factor;
    m.c = m.columns + factor;
    memcpy(work, &m, sizeof m);
    s->work = work;
    s->by = (iso_sums_arithmetic){round_amx, add, finish};
    return true;
}
#else
bool iso_sums_amx(iso_sums *s) { return (void)s, false; }
#endif
