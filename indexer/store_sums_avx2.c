/* store_sums_avx2.c: the sums of products with AVX2, in double like those of store_moments.c, and the same bits. */
#include "indexer/store_sums.h"

#if defined(__x86_64__)
#include <float.h>
#include <immintrin.h>
#include <string.h>

#include "base/memory.h"

enum {
    QUAD = 4,    /* numbers in a register, and side by side in a block: [quad][vector][QUAD] */
    COLUMNS = 3, /* quads of a tile's columns; its rows are one */
    WIDTH = COLUMNS * QUAD,
    TILE = QUAD * WIDTH,
    VECTORS = 128,                /* of a block: what a tile reads of them stays in the nearest cache */
    STRIDE = (VECTORS + 2) * QUAD, /* from a quad to the next: no power of two, which caches suffer from */
};
#define AVX2 __attribute__((target("avx2,fma")))
#define UNROLLED _Pragma("GCC unroll 4")
#define INLINE static inline __attribute__((always_inline))

/* Columns come in groups of COLUMNS quads up to the last quad, so that the first group may begin before number 0. For each
 * group: sums of its numbers [WIDTH], then of products [quad up to its last one][QUAD][WIDTH]. */
typedef struct avx2 {
    bool minus;
    int held; /* vectors in c */
    double *c;
} avx2;

static int quads_of(const iso_sums *s) { return (s->dim + QUAD - 1) / QUAD; }
static int first_end(const iso_sums *s) { return (quads_of(s) + COLUMNS - 1) % COLUMNS + 1; } /* of the first group */
static size_t group_size(int end) { return WIDTH + (size_t)end * TILE; }

static size_t size_of(const iso_sums *s)
{
    size_t n = 0;
    for (int end = first_end(s); end <= quads_of(s); end += COLUMNS) n += group_size(end);
    return n * sizeof(double);
}

/* ---- rounding ---- */

typedef struct eight {
    __m256d low, high;
} eight;

/* Numbers i ... i + 7; zeros behind the last one. */
AVX2 INLINE eight eight_of(const float *v, int i, int dim)
{
    float few[2 * QUAD] = {0};
    if (dim - i < 2 * QUAD) v = memcpy(few, v + i, (size_t)(dim - i) * sizeof *v), i = 0;
    return (eight){_mm256_cvtps_pd(_mm_loadu_ps(v + i)), _mm256_cvtps_pd(_mm_loadu_ps(v + i + QUAD))};
}

AVX2 INLINE double norm_of(const iso_sums *s, const float *v)
{
    double square[ISO_SUMS_LANES];
    __m256d low = _mm256_setzero_pd(), high = low;
    for (int i = 0; i < s->dim; i += 2 * QUAD) {
        eight x = eight_of(v, i, s->dim);
        low = _mm256_fmadd_pd(x.low, x.low, low);
        high = _mm256_fmadd_pd(x.high, x.high, high);
    }
    _mm256_storeu_pd(square, low);
    _mm256_storeu_pd(square + QUAD, high);
    return iso_sums_norm(square);
}

/* By division, or by a product that is within 2^-29 of what it gives. False: a number is nearly half-way between two integers,
 * where division decides. */
AVX2 INLINE bool round_one(const iso_sums *s, const float *v, double norm, bool divide, double *to)
{
    const __m256d integers = _mm256_set1_pd(ISO_SUMS_INTEGERS), sure = _mm256_set1_pd(0.5 - 0x1p-20),
                  sign = _mm256_set1_pd(-0.0), size = _mm256_set1_pd(norm),
                  scale = _mm256_set1_pd(divide ? 1 << ISO_SUMS_SCALE : (1 << ISO_SUMS_SCALE) / norm);
    __m256d far = _mm256_setzero_pd();
    for (int i = 0; i < s->dim; i += 2 * QUAD, to += 2 * STRIDE) {
        eight x = eight_of(v, i, s->dim);
        if (divide) x = (eight){_mm256_div_pd(x.low, size), _mm256_div_pd(x.high, size)};
        __m256d low = _mm256_sub_pd(_mm256_fmadd_pd(x.low, scale, integers), integers),
                high = _mm256_sub_pd(_mm256_fmadd_pd(x.high, scale, integers), integers);
        _mm256_storeu_pd(to, low);
        _mm256_storeu_pd(to + STRIDE, high);
        low = _mm256_andnot_pd(sign, _mm256_fmsub_pd(x.low, scale, low));
        high = _mm256_andnot_pd(sign, _mm256_fmsub_pd(x.high, scale, high));
        far = _mm256_max_pd(far, _mm256_max_pd(low, high));
    }
    return divide || !_mm256_movemask_pd(_mm256_cmp_pd(far, sure, _CMP_GT_OQ));
}

AVX2 static int round_all(const iso_sums *s, const float *v, int n, double *block, int at)
{
    enum { FEW = 4 }; /* norms at once: each waits for itself only */
    double norm[FEW];
    for (int i = 0; i < n; i++, v += s->dim) {
        double *to = block + (size_t)(at + i) * QUAD, now;
        if (i % FEW == 0)
            for (int r = 0; r < FEW && i + r < n; r++) norm[r] = norm_of(s, v + (size_t)r * (size_t)s->dim);
        now = norm[i % FEW];
        if (!(now > 0 && now <= DBL_MAX)) return i;
        if (!round_one(s, v, now, false, to)) round_one(s, v, now, true, to);
    }
    return n;
}

/* ---- sums ---- */

static const double *quad_of(const double *block, int q) { return block + (size_t)q * STRIDE; }

/* Adds the products of quad a with COLUMNS others; not with the first one of these where `all` is false. */
AVX2 INLINE void tile(const double *a, const double *const b[COLUMNS], int n, bool all, double c[TILE])
{
    __m256d k[QUAD][COLUMNS];
    UNROLLED for (int r = 0; r < QUAD; r++)
        UNROLLED for (int q = !all; q < COLUMNS; q++) k[r][q] = _mm256_loadu_pd(c + r * WIDTH + q * QUAD);
    for (int i = 0; i < n * QUAD; i += QUAD) {
        __m256d x[COLUMNS];
        UNROLLED for (int q = !all; q < COLUMNS; q++) x[q] = _mm256_loadu_pd(b[q] + i);
        UNROLLED for (int r = 0; r < QUAD; r++) {
            __m256d y = _mm256_broadcast_sd(a + i + r);
            UNROLLED for (int q = !all; q < COLUMNS; q++) k[r][q] = _mm256_fmadd_pd(y, x[q], k[r][q]);
        }
    }
    UNROLLED for (int r = 0; r < QUAD; r++)
        UNROLLED for (int q = !all; q < COLUMNS; q++) _mm256_storeu_pd(c + r * WIDTH + q * QUAD, k[r][q]);
}

AVX2 static void add_numbers(const double *const b[COLUMNS], int n, double c[WIDTH])
{
    __m256d k[COLUMNS];
    UNROLLED for (int q = 0; q < COLUMNS; q++) k[q] = _mm256_loadu_pd(c + q * QUAD);
    for (int i = 0; i < n * QUAD; i += QUAD)
        UNROLLED for (int q = 0; q < COLUMNS; q++) k[q] = _mm256_add_pd(k[q], _mm256_loadu_pd(b[q] + i));
    UNROLLED for (int q = 0; q < COLUMNS; q++) _mm256_storeu_pd(c + q * QUAD, k[q]);
}

/* Whether sums with n more vectors stay exact: no sum of products is larger than the largest sum of squares. */
static bool exact(const iso_sums *s, int n)
{
    const avx2 *m = s->work;
    const double *c = m->c;
    double most = 0;
    for (int end = first_end(s); end <= quads_of(s); c += group_size(end), end += COLUMNS)
        for (int i = end > COLUMNS ? (end - COLUMNS) * QUAD : 0; i < end * QUAD; i++) {
            double square = c[WIDTH + i * WIDTH + i - (end - COLUMNS) * QUAD];
            most = square > most ? square : most;
        }
    return most + n * (double)(INT64_C(1) << 2 * ISO_SUMS_SCALE) <= 0x1p53;
}

static void finish(iso_sums *s)
{
    avx2 *m = s->work;
    if (!m->held) return;
    const double *c = m->c;
    for (int end = first_end(s); end <= quads_of(s); c += group_size(end), end += COLUMNS) {
        int first = (end - COLUMNS) * QUAD, behind = end * QUAD < s->dim ? end * QUAD : s->dim;
        for (int j = first > 0 ? first : 0; j < behind; j++) iso_total_add(s->sum + j, (int64_t)c[j - first], m->minus);
        for (int i = 0; i < behind; i++) {
            iso_total *row = s->sum + iso_sums_row(s->dim, i) - i;
            const double *k = c + WIDTH + i * WIDTH - first;
            for (int j = first > i ? first : i; j < behind; j++) iso_total_add(row + j, (int64_t)k[j], m->minus);
        }
    }
    memset(m->c, 0, size_of(s));
    m->held = 0;
}

AVX2 static void add(iso_sums *s, bool minus, int n)
{
    avx2 *m = s->work;
    if (m->minus != minus || !exact(s, n)) finish(s);
    const double *block = s->block[minus], *b[COLUMNS];
    double *c = m->c;
    for (int end = first_end(s); end <= quads_of(s); c += group_size(end), end += COLUMNS) {
        int first = end - COLUMNS;
        for (int q = 0; q < COLUMNS; q++) b[q] = quad_of(block, first + q > 0 ? first + q : 0);
        add_numbers(b, n, c);
        for (int q = 0; q < end; q++) {
            double *products = c + WIDTH + (size_t)q * TILE;
            if (q > first) tile(quad_of(block, q), b, n, false, products);
            else tile(quad_of(block, q), b, n, true, products);
        }
    }
    m->held += n;
    m->minus = minus;
}

bool iso_sums_avx2(iso_sums *s)
{
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return false;
    avx2 *m = iso_calloc(sizeof *m + size_of(s), 1);
    if (!m) return false;
    m->c = (double *)(void *)(m + 1);
    s->work = m;
    s->by = (iso_sums_arithmetic){VECTORS, round_all, add, finish};
    return true;
}
#else
bool iso_sums_avx2(iso_sums *s) { return (void)s, false; }
#endif
