/* store_sums_amx.c: the sums of products with the tile unit of newer Intel processors (AMX), which multiplies bytes.
 *
 * A number k of at most 2^22 is d0 + 2^8 d1 + 2^16 d2 with signed bytes d, so a product of two is nine products of bytes, of
 * which symmetry leaves six. The unit adds 16,384 of these in one instruction to 32-bit integers, which 2^17 vectors could
 * not overflow; these are added to the 128-bit sums now and then. All is exact: the same bits as any other way. */
#include "indexer/store_sums.h"

#if defined(__x86_64__)
#include <float.h>
#include <immintrin.h>
#include <stdlib.h>
#include <string.h>

enum {
    TILE = 16,  /* rows of a tile, and 32-bit columns */
    DEPTH = 64, /* vectors that one instruction adds up */
    DEPTHS = ISO_SUMS_BLOCK / DEPTH,
    LARGER = 11, /* of two absolute values */
    FEW = 4,     /* vectors side by side in 32 bits */
    DIGITS = 3,
    DIM_MAX = 512,      /* the sums of bytes grow with the square of 3 dim */
    HELD_MAX = 1 << 15, /* vectors */
};
#define AMX __attribute__((target("amx-tile,amx-int8,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))

typedef int32_t tile[TILE * TILE];

/* Columns are numbered digit by digit, each as wide as the vectors, padded to tiles; tiles of columns come in pairs. */
typedef struct amx {
    int width, tiles, held; /* padded dim; tiles of columns, even; vectors in c */
    bool minus;
    tile *rows; /* [DEPTHS][2]: the left factors of a pair */
    tile *c;    /* [pair of tiles i <= pair j][2][2] */
} amx;

static size_t pairs_of(const amx *m) { return (size_t)(m->tiles / 2) * (size_t)(m->tiles / 2 + 1) / 2; }

static size_t pair_at(const amx *m, int i, int j)
{
    return (size_t)i * (size_t)(m->tiles / 2) - (size_t)i * (size_t)(i - 1) / 2 + (size_t)(j - i);
}

/* A block holds the right factors, tile [DEPTHS][tiles], and the k, int32 [FEW][width], of vectors that wait for others. */
static tile *columns_of(double *block)
{
    return (tile *)(((uintptr_t)block + sizeof(tile) - 1) & ~(uintptr_t)(sizeof(tile) - 1));
}

static int32_t *waiting(const amx *m, double *block) { return columns_of(block)[DEPTHS * m->tiles]; }

/* Numbers i ... i + 7; zeros behind the last one. */
AMX static inline __attribute__((always_inline)) __m512d eight(const float *v, int i, int dim)
{
    if (dim - i >= 8) return _mm512_cvtps_pd(_mm256_loadu_ps(v + i));
    return _mm512_cvtps_pd(_mm256_maskz_loadu_ps((__mmask8)(dim > i ? (1 << (dim - i)) - 1 : 0), v + i));
}

AMX static double norm_of(const iso_sums *s, const float *v)
{
    double square[ISO_SUMS_LANES];
    __m512d sum = _mm512_setzero_pd();
    for (int i = 0; i < s->dim; i += 8) {
        __m512d x = eight(v, i, s->dim);
        sum = _mm512_fmadd_pd(x, x, sum);
    }
    _mm512_storeu_pd(square, sum);
    return iso_sums_norm(square);
}

/* The same integers as round_vector of store_moments.c; see round_one of store_sums_tiles.h. */
AMX static bool round_one(const iso_sums *s, const float *v, int32_t *k)
{
    double norm = norm_of(s, v);
    if (!(norm > 0 && norm <= DBL_MAX)) return false;
    const __m512d scale = _mm512_set1_pd(1 << ISO_SUMS_SCALE);
    for (int p = 0; p < s->panels; p++) {
        __m512d y = _mm512_mul_pd(_mm512_div_pd(eight(v, p * 8, s->dim), _mm512_set1_pd(norm)), scale);
        y = _mm512_roundscale_pd(y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        _mm256_storeu_si256((__m256i *)(k + p * 8), _mm512_cvttpd_epi32(y));
    }
    return true;
}

/* One tile with rows for columns. The sums of its columns are added to `sum`. */
AMX static __m512i transpose(const int32_t *from, int32_t *to, __m512i sum)
{
    const __m512i ones = _mm512_set1_epi8(1);
    __m512i a[TILE], b[TILE];
    for (int i = 0; i < TILE; i++) {
        a[i] = _mm512_loadu_si512(from + i * TILE);
        sum = _mm512_dpbusd_epi32(sum, ones, a[i]);
    }
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
    return sum;
}

/* Bytes of four vectors side by side, as the unit wants its right factor; the left one is that transposed. */
AMX static inline void split(const amx *m, __m512i k[FEW], int32_t *to)
{
    const __m512i bias = _mm512_set1_epi32(0x808080), even = _mm512_set1_epi32(0x00ff00ff),
                  low = _mm512_set1_epi32(0xffff);
    __m512i s[2], d[2];
    for (int v = 0; v < FEW; v++) /* signed digits: bytes of k + bias, each less 128 */
        k[v] = _mm512_xor_si512(_mm512_add_epi32(k[v], bias), bias);
    for (int h = 0; h < 2; h++) {
        __m512i a = k[2 * h], b = k[2 * h + 1];
        s[h] = _mm512_or_si512(_mm512_and_si512(a, even), _mm512_slli_epi32(_mm512_and_si512(b, even), 8));
        d[h] = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi32(a, 8), even), _mm512_andnot_si512(even, b));
    }
    size_t digit = (size_t)(m->width / TILE) * TILE * TILE;
    _mm512_storeu_si512(to, _mm512_or_si512(_mm512_and_si512(s[0], low), _mm512_slli_epi32(s[1], 16)));
    _mm512_storeu_si512(to + digit, _mm512_or_si512(_mm512_and_si512(d[0], low), _mm512_slli_epi32(d[1], 16)));
    _mm512_storeu_si512(to + 2 * digit, _mm512_or_si512(_mm512_srli_epi32(s[0], 16), _mm512_andnot_si512(low, s[1])));
}

/* Where digit 0 of vectors at ... at + FEW - 1 begins. */
static int32_t *place(const amx *m, double *block, int at)
{
    return columns_of(block)[at / DEPTH * m->tiles] + at % DEPTH / FEW * TILE;
}

AMX static void split_waiting(const amx *m, double *block, int at)
{
    const int32_t *k = waiting(m, block);
    int32_t *to = place(m, block, at);
    for (int i = 0; i < m->width; i += TILE) {
        __m512i t[FEW];
        for (int v = 0; v < FEW; v++) t[v] = _mm512_loadu_si512(k + v * m->width + i);
        split(m, t, to + i * TILE);
    }
}

/* Rounds like store_sums_tiles.h, to where split wants it. False: one is unsound, or a number nearly half-way between two integers. */
AMX static bool round_few(const iso_sums *s, const float *v, double *block, int at)
{
    const amx *m = s->work;
    const __m512d integers = _mm512_set1_pd(ISO_SUMS_INTEGERS), sure = _mm512_set1_pd(0.5 - 0x1p-20);
    const __m512i evens = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    __m512d scale[FEW], far = _mm512_setzero_pd();
    int32_t *to = place(m, block, at);
    for (int r = 0; r < FEW; r++) {
        double norm = norm_of(s, v + (size_t)r * (size_t)s->dim);
        if (!(norm > 0 && norm <= DBL_MAX)) return false;
        scale[r] = _mm512_set1_pd((1 << ISO_SUMS_SCALE) / norm);
    }
    for (int i = 0; i < s->dim; i += TILE) {
        __m512i k[FEW];
        for (int r = 0; r < FEW; r++) {
            const float *row = v + (size_t)r * (size_t)s->dim;
            __m512d x = eight(row, i, s->dim), y = eight(row, i + 8, s->dim);
            __m512d kx = _mm512_fmadd_pd(x, scale[r], integers), ky = _mm512_fmadd_pd(y, scale[r], integers);
            far = _mm512_range_pd(far, _mm512_fmsub_pd(x, scale[r], _mm512_sub_pd(kx, integers)), LARGER);
            far = _mm512_range_pd(far, _mm512_fmsub_pd(y, scale[r], _mm512_sub_pd(ky, integers)), LARGER);
            k[r] = _mm512_permutex2var_epi32(_mm512_castpd_si512(kx), evens, _mm512_castpd_si512(ky));
        }
        split(m, k, to + i * TILE);
    }
    return !_mm512_cmp_pd_mask(far, sure, _CMP_GT_OQ);
}

static int round_amx(const iso_sums *s, const float *v, int n, double *block, int at)
{
    const amx *m = s->work;
    for (int i = 0; i < n;) {
        const float *x = v + (size_t)i * (size_t)s->dim;
        if ((at + i) % FEW == 0 && n - i >= FEW && round_few(s, x, block, at + i)) {
            i += FEW;
            continue;
        }
        int end = (at + i) / FEW * FEW + FEW - at;
        for (; i < n && i < end; i++, x += s->dim) {
            if (!round_one(s, x, waiting(m, block) + (at + i) % FEW * m->width)) return i;
            if ((at + i) % FEW == FEW - 1) split_waiting(m, block, at + i + 1 - FEW);
        }
    }
    return n;
}

/* Nothing behind the n-th vector up to a whole tile. */
static void pad(const amx *m, double *block, int n)
{
    if (n % FEW) {
        memset(waiting(m, block) + n % FEW * m->width, 0, (size_t)(FEW - n % FEW) * (size_t)m->width * sizeof(int32_t));
        split_waiting(m, block, n / FEW * FEW);
    }
    int lines = (n % DEPTH + FEW - 1) / FEW;
    tile *last = columns_of(block) + n / DEPTH * m->tiles;
    for (int t = 0; n % DEPTH && t < m->tiles; t++)
        memset(last[t] + lines * TILE, 0, (size_t)(TILE - lines) * TILE * sizeof(int32_t));
}

/* The left factors of tiles i and i + 1 of columns; the columns' sums are the numbers' own. */
AMX static void turn(iso_sums *s, const amx *m, tile *columns, int depths, int i, bool minus)
{
    int32_t sum[TILE];
    for (int t = i; t < i + 2; t++) {
        __m512i x = _mm512_setzero_si512();
        for (int d = 0; d < depths; d++) x = transpose(columns[d * m->tiles + t], m->rows[2 * d + t - i], x);
        _mm512_storeu_si512(sum, x);
        int digit = t * TILE / m->width, first = t * TILE % m->width;
        for (int l = 0; digit < DIGITS && l < TILE && first + l < s->dim; l++)
            iso_total_add(s->sum + first + l, sum[l] * (INT64_C(1) << 8 * digit), minus);
    }
}

AMX static void multiply(iso_sums *s, amx *m, tile *columns, int depths, bool minus)
{
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } shape = {.palette = 1};
    for (int i = 0; i < 8; i++) shape.bytes[i] = 4 * TILE, shape.rows[i] = TILE;
    _tile_loadconfig(&shape);
    tile *c = m->c;
    for (int i = 0; i < m->tiles; i += 2) {
        turn(s, m, columns, depths, i, minus);
        for (int j = i; j < m->tiles; j += 2, c += 4) {
            _tile_loadd(0, c[0], 64);
            _tile_loadd(1, c[1], 64);
            _tile_loadd(2, c[2], 64);
            _tile_loadd(3, c[3], 64);
            for (int d = 0; d < depths; d++) {
                _tile_loadd(4, m->rows[2 * d], 64);
                _tile_loadd(6, columns[d * m->tiles + j], 64);
                _tile_loadd(7, columns[d * m->tiles + j + 1], 64);
                _tile_dpbssd(0, 4, 6);
                _tile_dpbssd(1, 4, 7);
                _tile_loadd(5, m->rows[2 * d + 1], 64);
                _tile_dpbssd(2, 5, 6);
                _tile_dpbssd(3, 5, 7);
            }
            _tile_stored(0, c[0], 64);
            _tile_stored(1, c[1], 64);
            _tile_stored(2, c[2], 64);
            _tile_stored(3, c[3], 64);
        }
    }
    _tile_release();
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
    if (m->held && (m->minus != minus || m->held + n > HELD_MAX)) finish(s);
    pad(m, s->block[minus], n);
    multiply(s, m, columns_of(s->block[minus]), (n + DEPTH - 1) / DEPTH, minus);
    m->held += n;
    m->minus = minus;
}

bool iso_sums_amx(iso_sums *s)
{
    if (s->dim > DIM_MAX || !iso_isa_has(ISO_ISA_AMX)) return false;
    amx m = {.width = (s->dim + TILE - 1) / TILE * TILE};
    m.tiles = (DIGITS * m.width / TILE + 1) / 2 * 2;
    size_t tiles = 2 * DEPTHS + 4 * pairs_of(&m);
    size_t bytes = sizeof(tile) * (tiles + 1);
    char *work = aligned_alloc(sizeof(tile), bytes);
    if (!work) return false;
    memset(work, 0, bytes);
    m.rows = (tile *)(void *)(work + sizeof(tile));
    m.c = m.rows + 2 * DEPTHS;
    memcpy(work, &m, sizeof m);
    s->work = work;
    s->by = (iso_sums_arithmetic){ISO_SUMS_BLOCK, round_amx, add, finish};
    return true;
}
#else
bool iso_sums_amx(iso_sums *s) { return (void)s, false; }
#endif
