#include "model/cpu/gemm.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "base/isa.h"
#include "model/cpu/cpu.h"
#include "model/cpu/gemm_amx.h"

/* --- packing plain matrices */

void iso_gemm_pack_a_rows(const void *operand, int64_t i0, int ni, int64_t k0, int nk, int tile, float *dst)
{
    const iso_gemm_matrix *m = operand;
    (void)tile;
    for (int i = 0; i < ni; i++)
        memcpy(dst + (size_t)i * ISO_GEMM_LDA, m->data + (i0 + i) * m->pitch + k0, (size_t)nk * sizeof(float));
}

ISO_CLONES void iso_gemm_pack_a_depth(const void *operand, int64_t i0, int ni, int64_t k0, int nk, int tile, float *dst)
{
    enum { STEP = 32 }; /* depths at a time, so that a cache line that two tiles share is still there for the second */
    const iso_gemm_matrix *m = operand;
    for (int k = 0; k < nk; k += STEP) {
        const int depth = nk - k < STEP ? nk - k : STEP;
        for (int i = 0; i < ni; i += tile) {
            /* a whole panel row is two moves, and what it holds behind the tile is not used; but stay inside the matrix */
            int width = ni - i < tile ? ni - i : tile;
            if (i0 + i + ISO_GEMM_PANEL <= m->pitch) width = ISO_GEMM_PANEL;
            const float *src = m->data + (k0 + k) * m->pitch + i0 + i;
            float *to = dst + (i / tile * ISO_GEMM_KC + k) * ISO_GEMM_PANEL;
            for (int d = 0; d < depth; d++, src += m->pitch, to += ISO_GEMM_PANEL) iso_copy_tile(to, src, width);
        }
    }
}

/* Columns i0 ... of one row of B, spread over the tiles. */
static inline __attribute__((always_inline)) void spread_row(const float *src, int ni, int nk, int tile, float *to)
{
    int i = 0;
    for (; i + tile <= ni; i += tile, to += (size_t)tile * nk) iso_copy_tile(to, src + i, tile);
    if (i == ni) return;
    for (int j = 0; j < tile; j++, i++) to[j] = i < ni ? src[i] : 0;
}

ISO_CLONES void iso_gemm_spread_row(const float *src, int ni, int nk, int tile, float *to)
{
    spread_row(src, ni, nk, tile, to);
}

ISO_CLONES void iso_gemm_spread_rows(const iso_gemm_matrix *m, int64_t i0, int ni, int64_t k0, int some, int nk, int tile, float *to)
{
    if (ni == tile || ni == 2 * tile) { /* few of a row: a tile after the other */
        for (int i = 0; i < ni; i += tile)
            for (int k = 0; k < some; k++) iso_copy_tile(to + (size_t)i * nk + (size_t)k * tile, m->data + (k0 + k) * m->pitch + i0 + i, tile);
    } else {
        for (int k = 0; k < some; k++) spread_row(m->data + (k0 + k) * m->pitch + i0, ni, nk, tile, to + (size_t)k * tile);
    }
}

void iso_gemm_pack_b_rows(const void *operand, int64_t i0, int ni, int64_t k0, int nk, int tile, float *dst)
{
    iso_gemm_spread_rows(operand, i0, ni, k0, nk, nk, tile, dst);
}

/* y = x transposed, 8 x 8. */
typedef float vec8 __attribute__((vector_size(32)));
static inline __attribute__((always_inline)) void transpose8(const float *x, int64_t x_pitch, float *y, int64_t y_pitch)
{
    vec8 r[8], t[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) memcpy(&r[i], x + i * x_pitch, sizeof r[i]);
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) { /* pairs of rows, in fours of columns */
        t[i] = __builtin_shufflevector(r[i], r[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        t[i + 1] = __builtin_shufflevector(r[i], r[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
#pragma GCC unroll 2
        for (int j = 0; j < 2; j++) {
            r[i + 2 * j] = __builtin_shufflevector(t[i + j], t[i + j + 2], 0, 1, 8, 9, 4, 5, 12, 13);
            r[i + 2 * j + 1] = __builtin_shufflevector(t[i + j], t[i + j + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        t[i] = __builtin_shufflevector(r[i], r[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        t[i + 4] = __builtin_shufflevector(r[i], r[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) memcpy(y + i * y_pitch, &t[i], sizeof t[i]);
}

/* One tile of a matrix stored columns first: a transposition, 16 depths at a time so that both sides stay in the cache. */
ISO_CLONES static void pack_tile_by_depth(const float *src, int64_t pitch, int width, int nk, int tile, float *dst)
{
    enum { STEP = 16 };
    if (width < tile) memset(dst, 0, (size_t)tile * nk * sizeof *dst);
    const int whole = width / 8 * 8;
    for (int k = 0; k < nk; k += STEP) {
        const int depth = nk - k < STEP ? nk - k : STEP, eights = depth / 8 * 8;
        for (int j = 0; j < width; j++) __builtin_prefetch(src + (j + tile) * pitch + k, 0, 2); /* the next tile's */
        for (int j = 0; j < whole; j += 8)
            for (int d = 0; d < eights; d += 8)
                transpose8(src + j * pitch + k + d, pitch, dst + (size_t)(k + d) * tile + j, tile);
        for (int j = 0; j < width; j++)
            for (int d = j < whole ? eights : 0; d < depth; d++) dst[(size_t)(k + d) * tile + j] = src[j * pitch + k + d];
    }
}

void iso_gemm_pack_b_depth(const void *operand, int64_t i0, int ni, int64_t k0, int nk, int tile, float *dst)
{
    const iso_gemm_matrix *m = operand;
    for (int i = 0; i < ni; i += tile)
        pack_tile_by_depth(m->data + (i0 + i) * m->pitch + k0, m->pitch, ni - i < tile ? ni - i : tile, nk, tile,
                           dst + (size_t)i * nk);
}

const float iso_gemm_mixed[1];

int iso_gemm_find_rows(const void *operand, int64_t i0, int ni, int64_t k0, int nk, const float **at)
{
    const iso_gemm_matrix *m = operand;
    for (int i = 0; i < ni; i++) at[i] = m->data + (i0 + i) * m->pitch + k0;
    return nk;
}

int iso_gemm_find_depth(const void *operand, int64_t i0, int ni, int64_t k0, int nk, const float **at)
{
    const iso_gemm_matrix *m = operand;
    for (int k = 0; k < nk; k++) at[k] = m->data + (k0 + k) * m->pitch + i0;
    return ni;
}

/* --- the processor */

const iso_gemm_isa *iso_gemm_isa_get(void)
{
#if defined(__x86_64__)
    if (iso_isa_has(ISO_ISA_AMX)) return &iso_gemm_amx;
    if (iso_isa_has(ISO_ISA_AVX512F)) return &iso_gemm_avx512;
    if (iso_isa_has(ISO_ISA_AVX2)) return &iso_gemm_avx2;
#endif
    return &iso_gemm_portable;
}

/* --- the product */

enum { MAX_LINES = 16 };

/* A block of A: its rows, NULL where they are packed, `together` at a time; tiles are so high. */
typedef struct block_a {
    const float *const *rows;
    int count, together, height;
} block_a;

/* A block of B: column j's first number is at[j * step], its next one pitch later. Packed, or as it lies. */
typedef struct block_b {
    const float *at;
    int64_t pitch, step;
} block_b;

/* What one thread packs into, and where it finds what it need not pack. */
typedef struct buffers {
    _Alignas(64) float a[ISO_GEMM_MC * ISO_GEMM_LDA];
    _Alignas(64) float b[ISO_GEMM_KC * ISO_GEMM_NC];
    float *rows[ISO_GEMM_MC];
    const float *a_rows[ISO_GEMM_MC], *b_rows[ISO_GEMM_KC];
    iso_gemm_lines lines[MAX_LINES];
} buffers;

/* Tiles of A that fit into the buffer. By depth they take ISO_GEMM_PANEL floats a step whatever their height. */
static int block_tiles(bool by_depth, int height)
{
    return by_depth ? ISO_GEMM_MC * ISO_GEMM_LDA / (ISO_GEMM_KC * ISO_GEMM_PANEL) : ISO_GEMM_MC / height;
}
_Static_assert(ISO_GEMM_MC * ISO_GEMM_LDA / (ISO_GEMM_KC * ISO_GEMM_PANEL) * ISO_GEMM_MR_MAX <= ISO_GEMM_MC, "the list of rows fits");
_Static_assert(ISO_GEMM_MR_MAX <= ISO_GEMM_PANEL && ISO_GEMM_MC >= ISO_GEMM_MR_MAX, "a tile fits");

/* Bytes of one thread's part of the workspace. */
static size_t part_bytes(void)
{
    const size_t tiles = iso_gemm_isa_get()->tiles ? iso_amx_workspace() : 0;
    return tiles > sizeof(buffers) ? tiles : sizeof(buffers);
}

size_t iso_gemm_workspace(int threads)
{
    return part_bytes() * (size_t)(threads < 1 ? 1 : threads);
}

typedef struct range {
    int64_t m0, m1, n0, n1;
} range;

/* Lines that are asked for while tiles are multiplied. */
typedef struct asking {
    const iso_gemm_lines *list, *end;
    int64_t row; /* of list[0]'s first column that is left */
    int64_t column;
} asking;

/* So many lines more: where the first one is, and how far they are apart. NULL: all have been asked for. */
static const char *ask(asking *q, int lines, int64_t *pitch)
{
    if (q->list == q->end) return NULL;
    const iso_gemm_lines *of = q->list;
    const char *at = of->at + q->row * of->pitch + q->column * ISO_GEMM_LINE;
    *pitch = of->pitch;
    q->row += lines;
    if (q->row >= of->rows) {
        q->row = 0;
        if (++q->column == of->columns) {
            q->column = 0;
            q->list++;
        }
    }
    return at;
}

/* The tiles of one block of C. Columns outside, so that a panel of B stays in the first-level cache; where there are few depths, C is most of what is
 * moved, and is written in rows as long as the block. */
static void multiply_block(const iso_gemm *g, const iso_gemm_isa *isa, const buffers *w, block_a a, block_b b, int64_t n0, int nj, int nk, bool add,
                           asking *own, asking *callers)
{
    enum { FEW = 64, NEAR_DEPTH = 256 };
    const int width = 2 * isa->lanes, run = nk <= FEW ? nj : width;
    const int most = g->a_by_depth ? (int)iso_ceil_div(nk, iso_ceil_div(nk, NEAR_DEPTH)) : nk;
    const int way = g->a_by_depth ? ISO_GEMM_BY_DEPTH : a.rows || b.step == 1 ? ISO_GEMM_AS_IT_LIES : ISO_GEMM_BY_ROWS;
    const int64_t panel = g->a_by_depth ? ISO_GEMM_KC * ISO_GEMM_PANEL : (int64_t)a.height * ISO_GEMM_LDA;
    for (int j0 = 0; j0 < nj; j0 += run)
        for (int k = 0, deep; k < nk; k += deep) {
            deep = nk - k < most ? nk - k : most;
            for (int p = 0; p < a.count; p += a.together) {
                const int end = a.count - p < a.together ? a.count : p + a.together;
                for (int i = p; i < end; i += a.height) {
                    const int h = end - i < a.height ? end - i : a.height;
                    const float *left = a.rows ? a.rows[i] : w->a + p / a.together * panel + (g->a_by_depth ? k * ISO_GEMM_PANEL : 0) + i - p;
                    const int64_t pitch = !a.rows ? ISO_GEMM_LDA : h > 1 ? a.rows[i + 1] - left : 0;
                    for (int j = j0; j < j0 + run && j < nj; j += width) {
                        const int n = nj - j < width ? nj - j : width;
                        int64_t apart = 0;
                        const char *ahead = ask(own, deep / isa->stride, &apart);
                        if (!ahead) ahead = ask(callers, deep / isa->stride, &apart);
                        isa->kernel[way][n > isa->lanes][h - 1](deep, left, b.at + j * b.step + k * b.pitch, w->rows + i, n0 + j, n, add || k > 0, pitch,
                                                                b.pitch, ahead, apart);
                    }
                }
            }
        }
}

void iso_gemm_rows(const iso_gemm *g, int64_t m0, int ni, float **rows)
{
    if (g->c_rows) {
        g->c_rows(g->c_context, m0, ni, rows);
        return;
    }
    for (int i = 0; i < ni; i++) rows[i] = g->c + (m0 + i) * g->c_pitch;
}

void iso_gemm_add_wide(const iso_gemm *g, int64_t m0, int ni, int64_t n0, int nj, float *const *rows, bool first, bool last)
{
    for (int i = 0; i < ni; i++) {
        float *c = rows[i] + n0;
        double *sum = g->wide + (m0 + i) * g->n + n0;
        for (int j = 0; j < nj; j++) sum[j] = first ? c[j] : sum[j] + c[j];
        for (int j = 0; last && j < nj; j++) c[j] = (float)sum[j];
    }
}

/* Rows 0 ... h-1 are equally far apart, and no farther than that. */
static bool evenly_apart(const float *const *rows, int h, int64_t most)
{
    for (int i = 1; i < h; i++) {
        const int64_t pitch = rows[i] - rows[i - 1];
        if (!rows[0] || pitch < 0 || pitch > most || pitch != rows[1] - rows[0]) return false;
    }
    return true;
}

/* Rows of A where they lie; those of a tile that are not evenly apart are copied. False: A must be packed. */
static bool find_a(const iso_gemm *g, int64_t m0, int ni, int64_t k0, int nk, int height, buffers *w)
{
    if (g->a_by_depth || g->find_a(g->a, m0, ni, k0, nk, w->a_rows) < nk) return false;
    for (int i = 0; i < ni; i++)
        if (!w->a_rows[i] || w->a_rows[i] == iso_gemm_mixed) return false;
    for (int i = 0; i < ni; i += height) {
        const int h = ni - i < height ? ni - i : height;
        if (evenly_apart(w->a_rows + i, h, ISO_GEMM_LDA)) continue;
        for (int k = i; k < i + h; k++)
            w->a_rows[k] = memcpy(w->a + (size_t)k * ISO_GEMM_LDA, w->a_rows[k], (size_t)nk * sizeof(float));
    }
    return true;
}

/* What lies at nk depths, numbers i ... i+n-1 of each, to be asked for. */
static int lines_of(iso_gemm_find find, const void *operand, int64_t i, int n, int nk, const float **rows, iso_gemm_lines *lines)
{
    int count = 0;
    if (n <= 0 || !find || find(operand, i, n, 0, nk, rows) < n) return 0;
    for (int k = 0; k < nk; k++)
        if (!rows[k]) return 0;
    for (int k = 0, same; k < nk && count < MAX_LINES; k += same) {
        const int64_t pitch = k + 1 < nk ? rows[k + 1] - rows[k] : 0;
        for (same = 1; k + same < nk && rows[k + same] - rows[k + same - 1] == pitch;) same++;
        lines[count++] = (iso_gemm_lines){(const char *)rows[k], pitch * (int64_t)sizeof(float), same, iso_ceil_div(n * (int64_t)sizeof(float), ISO_GEMM_LINE)};
    }
    return count;
}

/* Panels of a block of B that was packed as a whole, from the second on. */
static int lines_of_whole(const block_b *b, int panels, int64_t nk, iso_gemm_lines *lines)
{
    const int64_t panel = nk * b->pitch * (int64_t)sizeof(float), apart = b->step * b->pitch * (int64_t)sizeof(float);
    int count = 0;
    for (int i = 1; i < panels && count < MAX_LINES; i += apart == panel ? panels : 1)
        lines[count++] = (iso_gemm_lines){(const char *)b->at + i * apart, ISO_GEMM_LINE, (apart == panel ? panels - 1 : 1) * panel / ISO_GEMM_LINE, 1};
    return count;
}

/* The same so many numbers on. */
static asking asking_on(iso_gemm_lines *lines, int count, int64_t numbers)
{
    for (int i = 0; i < count; i++) lines[i].at += numbers * (int64_t)sizeof(float);
    return (asking){.list = lines, .end = lines + count};
}

/* Whether B is small and lies by rows that are near each other: then it is read where it lies. */
static bool b_lies(const iso_gemm *g, int width)
{
    enum { SMALL = 1 << 16, NEAR = 256 };
    const float *at[2] = {0};
    if (g->a_by_depth || !g->find_b || g->b_by_columns || g->n % width != 0 || g->n * g->k > SMALL) return false;
    return g->find_b(g->b, 0, (int)g->n, 0, g->k < 2 ? 1 : 2, at) == g->n && (g->k < 2 || evenly_apart(at, 2, NEAR));
}

static block_b place_b(const iso_gemm *g, int64_t n0, int nj, int64_t k0, int nk, int width, buffers *w)
{
    if (g->b_packed) return (block_b){g->b_packed + n0 * g->k + k0 * width, width, g->k};
    if (b_lies(g, width) && g->find_b(g->b, n0, nj, k0, nk, w->b_rows) == nj && evenly_apart(w->b_rows, nk, ISO_GEMM_LDA))
        return (block_b){w->b_rows[0], nk > 1 ? w->b_rows[1] - w->b_rows[0] : 0, 1};
    g->pack_b(g->b, n0, nj, k0, nk, width, w->b);
    return (block_b){w->b, width, nk};
}

int64_t iso_gemm_whole(const iso_gemm *g)
{
    const iso_gemm_isa *isa = iso_gemm_isa_get();
    const int width = 2 * isa->lanes;
    return isa->tiles || g->a_by_depth || b_lies(g, width) ? 0 : iso_ceil_div(g->n, width) * width * g->k;
}

void iso_gemm_pack_whole(const iso_gemm *g, float *dst)
{
    const int width = 2 * iso_gemm_isa_get()->lanes;
    for (int64_t n0 = 0; n0 < g->n; n0 += ISO_GEMM_NC)
        g->pack_b(g->b, n0, (int)iso_min64(ISO_GEMM_NC, g->n - n0), 0, (int)g->k, width, dst + n0 * g->k);
}

/* One thread's part of C. */
static void multiply_range(const iso_gemm *g, const iso_gemm_isa *isa, range r, buffers *w)
{
    enum { MANY = 128 /* depths, or columns */, FEW = 2 /* panels */ };
    const int width = 2 * isa->lanes;
    const int64_t rows = r.m1 - r.m0, columns = r.n1 - r.n0;
    if (rows <= 0 || columns <= 0) return;
    /* equal tiles instead of full ones and a sliver: 16 rows are 8 + 8, not 14 + 2 */
    int height = (int)iso_ceil_div(rows, iso_ceil_div(rows, isa->mr)), together = height;
    if (g->a_by_depth && isa->mr < ISO_GEMM_PANEL) { /* several tiles share what is copied of a row of A */
        together = ISO_GEMM_PANEL;
        height = (int)iso_ceil_div(together, iso_ceil_div(together, isa->mr));
    }
    int64_t block_m = (int64_t)block_tiles(g->a_by_depth, together) * together, most_n = ISO_GEMM_NC;
    /* The smaller operand is packed once and stays in the second-level cache; of the other one there are few panels at a time. */
    const bool whole = g->k > MANY && g->k <= ISO_GEMM_KC, a_stays = whole && rows <= block_m && rows <= columns;
    const bool b_stays = whole && !a_stays && g->a_by_depth && columns <= MANY;
    if (a_stays) most_n = width * FEW;
    if (b_stays) block_m = together * FEW;
    const int64_t block_n = iso_ceil_div(iso_ceil_div(columns, iso_ceil_div(columns, most_n)), width) * width;
    block_a a = {.together = together, .height = height};
    asking own = {0}, callers = {.list = g->ahead, .end = g->ahead + g->ahead_count};
    int lines = 0;
    if (a_stays && !g->b_by_columns && !g->b_packed && block_n < columns) lines = lines_of(g->find_b, g->b, r.n0, (int)block_n, (int)g->k, w->b_rows, w->lines);
    if (b_stays && block_m < rows) lines = lines_of(g->find_a, g->a, r.m0, (int)block_m, (int)g->k, w->b_rows, w->lines);
    for (int64_t n0 = r.n0; n0 < r.n1; n0 += block_n) {
        int nj = (int)iso_min64(block_n, r.n1 - n0);
        for (int64_t k0 = 0; k0 < g->k; k0 += ISO_GEMM_KC) {
            int nk = (int)iso_min64(ISO_GEMM_KC, g->k - k0);
            const block_b b = place_b(g, n0, nj, k0, nk, width, w);
            if (g->b_packed) own = (asking){.list = w->lines, .end = w->lines + lines_of_whole(&b, (int)iso_ceil_div(nj, width), nk, w->lines)};
            else if (a_stays) own = asking_on(w->lines, lines, block_n);
            for (int64_t m0 = r.m0; m0 < r.m1; m0 += block_m) {
                a.count = (int)iso_min64(block_m, r.m1 - m0);
                if (!a_stays || n0 == r.n0) {
                    a.rows = nk > MANY && find_a(g, m0, a.count, k0, nk, height, w) ? w->a_rows : NULL;
                    if (!a.rows) g->pack_a(g->a, m0, a.count, k0, nk, together, w->a);
                }
                if (b_stays) own = asking_on(w->lines, lines, block_m);
                iso_gemm_rows(g, m0, a.count, w->rows);
                multiply_block(g, isa, w, a, b, n0, nj, nk, g->add || (k0 > 0 && !g->wide), &own, &callers);
                if (g->wide) iso_gemm_add_wide(g, m0, a.count, n0, nj, w->rows, k0 == 0, k0 + nk == g->k);
            }
        }
    }
}

/* --- who computes what */

/* What a way of multiplying costs, in cycles. */
typedef struct engine {
    bool tiles;             /* gemm_amx.c */
    int rows, columns;      /* of C: a part is a multiple of them */
    int depth;              /* depths are padded to a multiple of it */
    int width;              /* columns of a block of B: so often an element of A is packed */
    double rate;            /* multiply-adds a cycle */
    double split_a, split_b;/* to split an element that was packed */
    double save;            /* to add to an element of C, once for each block of B */
} engine;

static engine vectors_of(const iso_gemm_isa *isa)
{
    return (engine){.rows = isa->mr, .columns = isa->lanes, .depth = 1, .width = ISO_GEMM_NC, .rate = 2.0 * isa->lanes, .save = 0.2};
}

static engine tiles_of(const iso_gemm *g, int width)
{
    return (engine){.tiles = true, .rows = ISO_AMX_BLOCK, .columns = ISO_AMX_BLOCK, .depth = ISO_AMX_STEP, .width = width, .rate = ISO_AMX_RATE,
                    .split_a = g->a_by_depth ? 0.6 : 0.3, .split_b = 0.3, .save = 0.4};
}

/* Of one of tm x tn parts. */
static double cost_of(const iso_gemm *g, const engine *e, int tm, int tn)
{
    const double rows = (double)(iso_ceil_div(iso_ceil_div(g->part_of ? g->part_of : g->m, tm), e->rows) * e->rows);
    const int64_t width = iso_ceil_div(iso_ceil_div(g->n, tn), e->columns) * e->columns;
    const double columns = (double)width, depth = (double)(iso_ceil_div(g->k, e->depth) * e->depth);
    return depth * (rows * columns / e->rate + rows * (g->a_cost + e->split_a) * (double)iso_ceil_div(width, e->width) +
                    columns * (g->b_cost + e->split_b)) +
           rows * columns * e->save * (double)iso_ceil_div(g->k, e->tiles ? iso_amx_depth(e->width) : ISO_GEMM_KC);
}

/* A product, by which means, and how it is cut into parts. */
typedef struct job {
    const iso_gemm *g;
    const iso_gemm_isa *isa;
    engine by;
    int tm, tn;
    char *workspace; /* of the first part, the others' behind it */
} job;

/* The means depend on the product only, not on the threads, so that neither do its results. */
static job job_of(const iso_gemm *g, void *workspace)
{
    job j = {.g = g, .isa = iso_gemm_isa_get(), .tm = 1, .tn = 1, .workspace = workspace};
    j.by = vectors_of(j.isa);
    double best = g->turned ? INFINITY : cost_of(g, &j.by, 1, 1);
    for (int width = ISO_AMX_NC / 4; j.isa->tiles && width <= ISO_AMX_NC; width *= 2) {
        const engine e = tiles_of(g, width);
        const double cost = cost_of(g, &e, 1, 1);
        if (cost >= best) continue;
        best = cost;
        j.by = e;
    }
    return j;
}

double iso_gemm_cost(const iso_gemm *g)
{
    const job j = job_of(g, NULL);
    return cost_of(g, &j.by, 1, 1);
}

/* Cuts C into tm x tn parts so that the slowest part is done soonest. */
static void choose_grid(job *j, int threads)
{
    const iso_gemm *g = j->g;
    double best = 0;
    if ((double)g->m * (double)g->n * (double)g->k < 1e5) return;
    for (int tm = 1; tm <= threads; tm++) {
        const int tn = threads / tm;
        const int64_t rows = iso_ceil_div(iso_ceil_div(g->m, tm), j->by.rows) * j->by.rows;
        if (rows * (tm - 1) >= g->m && tm > 1) continue;
        const double cost = cost_of(g, &j->by, tm, tn);
        if (best == 0 || cost < best) {
            best = cost;
            j->tm = tm;
            j->tn = tn;
        }
    }
}

static void clear(const iso_gemm *g)
{
    for (int64_t i = 0; i < g->m; i++) {
        float *row;
        iso_gemm_rows(g, i, 1, &row);
        memset(row, 0, (size_t)g->n * sizeof(float));
    }
}

static void run_part(void *context, int64_t part)
{
    const job *j = context;
    const iso_gemm *g = j->g;
    char *workspace = j->workspace + (size_t)part * part_bytes();
    const int64_t rows = iso_ceil_div(iso_ceil_div(g->m, j->tm), j->by.rows) * j->by.rows;
    const int64_t columns = iso_ceil_div(iso_ceil_div(g->n, j->tn), j->by.columns) * j->by.columns;
    const int64_t i = part / j->tn, k = part % j->tn;
    const range r = {i * rows, iso_min64((i + 1) * rows, g->m), k * columns, iso_min64((k + 1) * columns, g->n)};
    if (j->by.tiles) iso_amx_multiply(g, r.m0, r.m1, r.n0, r.n1, j->by.width, workspace);
    else multiply_range(g, j->isa, r, (buffers *)workspace);
}

void iso_gemm_run(const iso_gemm *g, int threads, void *workspace)
{
    if (g->k == 0 && !g->add) clear(g);
    if (g->m == 0 || g->n == 0 || g->k == 0) return;
    job j = job_of(g, workspace);
    choose_grid(&j, threads < 1 ? 1 : threads);
    iso_cpu_each(j.tm * j.tn, j.tm * j.tn, run_part, &j);
}

void iso_gemm_run_all(const iso_gemm *g, int count, int threads, void *workspace)
{
    if (threads < 2 || threads > count || count % threads != 0) {
        for (int i = 0; i < count; i++) iso_gemm_run(g + i, threads, workspace);
        return;
    }
    const size_t bytes = part_bytes();
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int i = 0; i < count; i++) {
        job j = job_of(g + i, (char *)workspace + (size_t)omp_get_thread_num() * bytes);
        if (g[i].k == 0 && !g[i].add) clear(g + i);
        else run_part(&j, 0);
    }
}
