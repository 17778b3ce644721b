/* store_sums_tiles.h: the sums of products in double like those of store_moments.c, and the same bits; written once over a vector type. A file that
 * includes it defines
 *   TARGET (function attribute), VEC, LANES, LOAD(p), STORE(p, v), SPLAT(x), ADD(x, y), SUB(x, y), DIV(x, y), MAX(x, y), ABS(x),
 *   MULADD(x, y, z) = x y + z, MULSUB(x, y, z) = x y - z, WIDEN(p): LANES floats, ANY_ABOVE(x, y): whether any lane of x is,
 *   COLUMNS: vectors of a tile's columns; it has LANES rows
 * and gets `arithmetic(s)`: that as iso_sums_arithmetic, or false (no memory). */
#include <float.h>
#include <string.h>

#include "base/memory.h"
#include "indexer/store_sums.h"

enum {
    PARTS = ISO_SUMS_LANES / LANES, /* registers for so many numbers */
    WIDTH = COLUMNS * LANES,
    TILE = LANES * WIDTH,
    VECTORS = 128,                   /* of a block: what a tile reads of them stays in the nearest cache */
    STRIDE = (VECTORS + 2) * LANES,  /* from LANES numbers of all vectors to the next: no power of two, which caches suffer from */
};
#define UNROLLED _Pragma("GCC unroll 8")
#define INLINE static inline __attribute__((always_inline)) TARGET

/* Numbers lie LANES side by side in a block: [slice][vector][LANES]. Columns come in groups of COLUMNS slices up to the last one, so that the first
 * group may begin before number 0. For each group: sums of its numbers [WIDTH], then of products [slice up to its last one][LANES][WIDTH]. */
typedef struct tiles {
    bool minus;
    int held; /* vectors in c */
    double *c;
} tiles;

static int slices_of(const iso_sums *s) { return (s->dim + LANES - 1) / LANES; }
static int first_end(const iso_sums *s) { return (slices_of(s) + COLUMNS - 1) % COLUMNS + 1; } /* of the first group */
static size_t group_size(int end) { return WIDTH + (size_t)end * TILE; }

static size_t size_of(const iso_sums *s)
{
    size_t n = 0;
    for (int end = first_end(s); end <= slices_of(s); end += COLUMNS) n += group_size(end);
    return n * sizeof(double);
}

/* ---- rounding ---- */

/* Numbers i ... i + ISO_SUMS_LANES - 1; zeros behind the last one. */
INLINE void numbers_of(const float *v, int i, int dim, VEC x[PARTS])
{
    float few[ISO_SUMS_LANES] = {0};
    if (dim - i < ISO_SUMS_LANES) v = memcpy(few, v + i, (size_t)(dim - i) * sizeof *v), i = 0;
    UNROLLED for (int p = 0; p < PARTS; p++) x[p] = WIDEN(v + i + p * LANES);
}

INLINE double norm_of(const iso_sums *s, const float *v)
{
    double square[ISO_SUMS_LANES];
    VEC sum[PARTS], x[PARTS];
    UNROLLED for (int p = 0; p < PARTS; p++) sum[p] = SPLAT(0);
    for (int i = 0; i < s->dim; i += ISO_SUMS_LANES) {
        numbers_of(v, i, s->dim, x);
        UNROLLED for (int p = 0; p < PARTS; p++) sum[p] = MULADD(x[p], x[p], sum[p]);
    }
    UNROLLED for (int p = 0; p < PARTS; p++) STORE(square + p * LANES, sum[p]);
    return iso_sums_norm(square);
}

/* By division, or by a product that is within 2^-29 of what it gives. False: a number is nearly half-way between two integers,
 * where division decides. */
INLINE bool round_one(const iso_sums *s, const float *v, double norm, bool divide, double *to)
{
    const VEC integers = SPLAT(ISO_SUMS_INTEGERS), size = SPLAT(norm), scale = SPLAT(divide ? 1 << ISO_SUMS_SCALE : (1 << ISO_SUMS_SCALE) / norm);
    VEC far = SPLAT(0), x[PARTS];
    for (int i = 0; i < s->dim; i += ISO_SUMS_LANES) {
        numbers_of(v, i, s->dim, x);
        UNROLLED for (int p = 0; p < PARTS; p++, to += STRIDE) {
            if (divide) x[p] = DIV(x[p], size);
            const VEC k = SUB(MULADD(x[p], scale, integers), integers);
            STORE(to, k);
            far = MAX(far, ABS(MULSUB(x[p], scale, k)));
        }
    }
    return divide || !ANY_ABOVE(far, SPLAT(0.5 - 0x1p-20));
}

TARGET static int round_all(const iso_sums *s, const float *v, int n, double *block, int at)
{
    enum { FEW = 4 }; /* norms at once: each waits for itself only */
    double norm[FEW];
    for (int i = 0; i < n; i++, v += s->dim) {
        double *to = block + (size_t)(at + i) * LANES, now;
        if (i % FEW == 0)
            for (int r = 0; r < FEW && i + r < n; r++) norm[r] = norm_of(s, v + (size_t)r * (size_t)s->dim);
        now = norm[i % FEW];
        if (!(now > 0 && now <= DBL_MAX)) return i;
        if (!round_one(s, v, now, false, to)) round_one(s, v, now, true, to);
    }
    return n;
}

/* ---- sums ---- */

static const double *slice_of(const double *block, int q) { return block + (size_t)q * STRIDE; }

/* Adds the products of slice a with COLUMNS others; not with the first one of these where `all` is false. */
INLINE void tile(const double *a, const double *const b[COLUMNS], int n, bool all, double c[TILE])
{
    VEC k[LANES][COLUMNS];
    UNROLLED for (int r = 0; r < LANES; r++)
        UNROLLED for (int q = !all; q < COLUMNS; q++) k[r][q] = LOAD(c + r * WIDTH + q * LANES);
    for (int i = 0; i < n * LANES; i += LANES) {
        VEC x[COLUMNS];
        UNROLLED for (int q = !all; q < COLUMNS; q++) x[q] = LOAD(b[q] + i);
        UNROLLED for (int r = 0; r < LANES; r++) {
            const VEC y = SPLAT(a[i + r]);
            UNROLLED for (int q = !all; q < COLUMNS; q++) k[r][q] = MULADD(y, x[q], k[r][q]);
        }
    }
    UNROLLED for (int r = 0; r < LANES; r++)
        UNROLLED for (int q = !all; q < COLUMNS; q++) STORE(c + r * WIDTH + q * LANES, k[r][q]);
}

TARGET static void add_numbers(const double *const b[COLUMNS], int n, double c[WIDTH])
{
    VEC k[COLUMNS];
    UNROLLED for (int q = 0; q < COLUMNS; q++) k[q] = LOAD(c + q * LANES);
    for (int i = 0; i < n * LANES; i += LANES)
        UNROLLED for (int q = 0; q < COLUMNS; q++) k[q] = ADD(k[q], LOAD(b[q] + i));
    UNROLLED for (int q = 0; q < COLUMNS; q++) STORE(c + q * LANES, k[q]);
}

/* Whether sums with n more vectors stay exact: no sum of products is larger than the largest sum of squares. */
static bool exact(const iso_sums *s, int n)
{
    const tiles *m = s->work;
    const double *c = m->c;
    double most = 0;
    for (int end = first_end(s); end <= slices_of(s); c += group_size(end), end += COLUMNS)
        for (int i = end > COLUMNS ? (end - COLUMNS) * LANES : 0; i < end * LANES; i++) {
            double square = c[WIDTH + i * WIDTH + i - (end - COLUMNS) * LANES];
            most = square > most ? square : most;
        }
    return most + n * (double)(INT64_C(1) << 2 * ISO_SUMS_SCALE) <= 0x1p53;
}

static void finish(iso_sums *s)
{
    tiles *m = s->work;
    if (!m->held) return;
    const double *c = m->c;
    for (int end = first_end(s); end <= slices_of(s); c += group_size(end), end += COLUMNS) {
        int first = (end - COLUMNS) * LANES, behind = end * LANES < s->dim ? end * LANES : s->dim;
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

TARGET static void add(iso_sums *s, bool minus, int n)
{
    tiles *m = s->work;
    if (m->minus != minus || !exact(s, n)) finish(s);
    const double *block = s->block[minus], *b[COLUMNS];
    double *c = m->c;
    for (int end = first_end(s); end <= slices_of(s); c += group_size(end), end += COLUMNS) {
        int first = end - COLUMNS;
        for (int q = 0; q < COLUMNS; q++) b[q] = slice_of(block, first + q > 0 ? first + q : 0);
        add_numbers(b, n, c);
        for (int q = 0; q < end; q++) {
            double *products = c + WIDTH + (size_t)q * TILE;
            if (q > first) tile(slice_of(block, q), b, n, false, products);
            else tile(slice_of(block, q), b, n, true, products);
        }
    }
    m->held += n;
    m->minus = minus;
}

static bool arithmetic(iso_sums *s)
{
    tiles *m = iso_calloc(sizeof *m + size_of(s), 1);
    if (!m) return false;
    m->c = (double *)(void *)(m + 1);
    s->work = m;
    s->by = (iso_sums_arithmetic){VECTORS, round_all, add, finish};
    return true;
}
