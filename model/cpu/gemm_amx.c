/* gemm_amx.c: see gemm_amx.h. */
#include "model/cpu/gemm_amx.h"

#if defined(__x86_64__) && defined(__linux__)
#include "model/cpu/amx.h"
#include "model/cpu/cpu.h"

#define TARGET ISO_AMX_TARGET
#define INLINE ISO_AMX_INLINE

enum {
    TILE = ISO_AMX_TILE,
    DEPTH = ISO_AMX_DEPTH,
    BLOCK = ISO_AMX_BLOCK,
    SPLITS = ISO_AMX_PARTS,
    TILE_BYTES = ISO_AMX_TILE_BYTES,
    STEP_BYTES = SPLITS * TILE_BYTES, /* a tile's three parts lie together, one depth of 32 after another */
    A_STEPS = ISO_AMX_KC / DEPTH
};

/* What one thread packs into. A block of B is as deep as its width allows. */
typedef struct buffers {
    _Alignas(64) char b[ISO_AMX_B / TILE / DEPTH * STEP_BYTES];
    _Alignas(64) char a[BLOCK / TILE * A_STEPS * STEP_BYTES];
    _Alignas(64) float stage_a[TILE * ISO_GEMM_LDA];   /* floats, as the packers write them */
    _Alignas(64) float stage_b[DEPTH * ISO_AMX_NC];
    _Alignas(64) float c[BLOCK * BLOCK];
    float *rows[BLOCK];
    const float *at[DEPTH];
} buffers;

size_t iso_amx_workspace(void)
{
    return sizeof(buffers);
}

/* One row of A at nk depths. Depths k and k + 16 share a word here, in tiles of A as of B: which two do is free. */
INLINE void split_row(const float *from, int nk, char *to)
{
    int k = 0;
    for (; k + DEPTH <= nk; k += DEPTH, to += STEP_BYTES) iso_amx_put_row(_mm512_loadu_ps(from + k), _mm512_loadu_ps(from + k + TILE), to);
    if (k < nk) iso_amx_put_row(iso_amx_load(from + k, nk - k), iso_amx_load(from + k + TILE, nk - k - TILE), to);
}

INLINE void zero_row(int nk, char *to)
{
    for (int k = 0; k < nk; k += DEPTH, to += STEP_BYTES)
        for (int s = 0; s < SPLITS; s++) _mm512_store_si512((void *)(to + s * TILE_BYTES), _mm512_setzero_si512());
}

/* The first n of TILE numbers at each of nk <= DEPTH depths, from at[k] + column (NULL: zeros). */
INLINE void split_step(const float *const *at, int64_t column, int64_t n, int nk, char *to)
{
    if (n > TILE) n = TILE;
    for (int k = 0; k < TILE; k++) {
        const float *first = k < nk ? at[k] : NULL, *second = k + TILE < nk ? at[k + TILE] : NULL;
        iso_amx_put_row(first ? iso_amx_load(first + column, n) : _mm512_setzero_ps(),
                second ? iso_amx_load(second + column, n) : _mm512_setzero_ps(), to + 64 * k);
    }
}

/* Rows of A that lie depth first. */
TARGET static void pack_a_depths(const iso_gemm *g, int64_t i0, int rows, int64_t k0, int nk, char *to, buffers *w)
{
    for (int k = 0; k < nk; k += DEPTH, to += STEP_BYTES) {
        (void)g->find_a(g->a, i0, rows, k0 + k, nk - k < DEPTH ? nk - k : DEPTH, w->at);
        split_step(w->at, 0, rows, nk - k, to);
        for (int s = 0; s < SPLITS; s++) iso_amx_transpose(to + s * TILE_BYTES, 64, to + s * TILE_BYTES);
    }
}

TARGET static void pack_a_rows(const iso_gemm *g, int64_t i0, int rows, int64_t k0, int nk, char *to, buffers *w)
{
    for (int k = 0, depth; k < nk; k += depth, to += (depth + DEPTH - 1) / DEPTH * STEP_BYTES) {
        depth = g->find_a(g->a, i0, rows, k0 + k, nk - k, w->at);
        bool found = depth == nk - k || depth % DEPTH == 0; /* a tile must not begin within one */
        if (!found) depth = nk - k < ISO_GEMM_KC ? nk - k : ISO_GEMM_KC;
        for (int i = 0; i < rows; i++) {
            if (found && !w->at[i]) {
                zero_row(depth, to + 64 * i);
            } else if (found && w->at[i] != iso_gemm_mixed) {
                split_row(w->at[i], depth, to + 64 * i);
            } else {
                for (int d = 0; d < depth; d += ISO_GEMM_KC) {
                    const int n = depth - d < ISO_GEMM_KC ? depth - d : ISO_GEMM_KC;
                    g->pack_a(g->a, i0 + i, 1, k0 + k + d, n, TILE, w->stage_a);
                    split_row(w->stage_a, n, to + d / DEPTH * STEP_BYTES + 64 * i);
                }
            }
        }
        for (int i = rows; i < TILE; i++) zero_row(depth, to + 64 * i);
    }
}

static void pack_a(const iso_gemm *g, int64_t i0, int ni, int64_t k0, int nk, buffers *w)
{
    for (int i = 0; i < ni; i += TILE) {
        char *to = w->a + i / TILE * A_STEPS * STEP_BYTES;
        const int rows = ni - i < TILE ? ni - i : TILE;
        (g->a_by_depth ? pack_a_depths : pack_a_rows)(g, i0 + i, rows, k0, nk, to, w);
    }
}

/* A block of B whose columns lie along the depth: as rows of A, then transposed. */
TARGET static void pack_b_columns(const iso_gemm *g, int64_t j0, int nj, int64_t k0, int nk, size_t panel, buffers *w)
{
    for (int j = 0; j < nj; j += TILE) {
        const int columns = nj - j < TILE ? nj - j : TILE;
        char *to = w->b + (size_t)(j / TILE) * panel;
        (void)g->find_b(g->b, j0 + j, columns, k0, nk, w->at);
        for (int k = 0; k < nk; k += DEPTH, to += STEP_BYTES) {
            const int depth = nk - k < DEPTH ? nk - k : DEPTH;
            for (int i = 0; i < TILE; i++) {
                if (i < columns) split_row(w->at[i] + k, depth, w->a + 64 * i);
                else zero_row(depth, w->a + 64 * i);
            }
            for (int s = 0; s < SPLITS; s++) iso_amx_transpose(w->a + s * TILE_BYTES, 64, to + s * TILE_BYTES);
        }
    }
}

/* One step of B: nk <= DEPTH depths of all its columns. */
TARGET static void pack_b_step(const iso_gemm *g, int64_t j0, int nj, int64_t k0, int nk, size_t panel, char *to, buffers *w)
{
    for (int j = 0, n; j < nj; j += n) {
        n = g->find_b ? g->find_b(g->b, j0 + j, nj - j, k0, nk, w->at) : 0;
        if (n == 0 || (n < nj - j && n % TILE != 0)) break; /* the rest, packed: */
        for (int c = 0; c < n; c += TILE) split_step(w->at, c, n - c, nk, to + (size_t)((j + c) / TILE) * panel);
        if (j + n == nj) return;
    }
    g->pack_b(g->b, j0, nj, k0, nk, TILE, w->stage_b);
    for (int j = 0; j < nj; j += TILE) {
        for (int k = 0; k < nk; k++) w->at[k] = w->stage_b + (size_t)j * nk + k * TILE;
        split_step(w->at, 0, TILE, nk, to + (size_t)(j / TILE) * panel);
    }
}

/* --- the micro-kernel */

/* Registers: 0 to 3 hold C, 4 and 5 parts of A, 6 and 7 parts of B. */
#define LOAD_A(s)                                        \
    _tile_loadd(4, a + (s) * TILE_BYTES, 64);            \
    if (tall) _tile_loadd(5, a + A_STEPS * STEP_BYTES + (s) * TILE_BYTES, 64);
#define LOAD_B(s)                                        \
    _tile_loadd(6, b + (s) * TILE_BYTES, 64);            \
    if (broad) _tile_loadd(7, b + panel + (s) * TILE_BYTES, 64);
#define MULTIPLY                                         \
    _tile_dpbf16ps(0, 4, 6);                             \
    if (broad) _tile_dpbf16ps(1, 4, 7);                  \
    if (tall) _tile_dpbf16ps(2, 5, 6);                   \
    if (tall && broad) _tile_dpbf16ps(3, 5, 7);

/* c [BLOCK, BLOCK] = the products over all steps; panel: bytes from one tile of columns of B to the next. From one product to the next only A's part or B's part changes. */
INLINE void micro(const bool tall, const bool broad, int steps, const char *a, const char *b, size_t panel, float *c)
{
    ISO_AMX_FENCE;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (; steps > 0; steps--, a += STEP_BYTES, b += STEP_BYTES) {
        LOAD_A(2) LOAD_B(0) MULTIPLY
        LOAD_A(0) MULTIPLY
        LOAD_A(1) MULTIPLY
        LOAD_B(1) MULTIPLY
        LOAD_A(0) MULTIPLY
        LOAD_B(2) MULTIPLY
    }
    _tile_stored(0, c, 4 * BLOCK);
    if (broad) _tile_stored(1, c + TILE, 4 * BLOCK);
    if (tall) _tile_stored(2, c + TILE * BLOCK, 4 * BLOCK);
    if (tall && broad) _tile_stored(3, c + TILE * BLOCK + TILE, 4 * BLOCK);
    ISO_AMX_FENCE;
}

TARGET static void micro_11(int steps, const char *a, const char *b, size_t panel, float *c) { micro(false, false, steps, a, b, panel, c); }
TARGET static void micro_12(int steps, const char *a, const char *b, size_t panel, float *c) { micro(false, true, steps, a, b, panel, c); }
TARGET static void micro_21(int steps, const char *a, const char *b, size_t panel, float *c) { micro(true, false, steps, a, b, panel, c); }
TARGET static void micro_22(int steps, const char *a, const char *b, size_t panel, float *c) { micro(true, true, steps, a, b, panel, c); }

/* From the micro-kernel's c into the matrix. */
TARGET static void save(const float *c, float *const *rows, int ni, int64_t column, int nj, bool add)
{
    for (int i = 0; i < ni; i++, c += BLOCK) {
        float *to = rows[i] + column;
        for (int j = 0; j < nj; j += TILE) {
            const __mmask16 mask = nj - j >= TILE ? 0xffff : (__mmask16)((1u << (nj - j)) - 1);
            __m512 v = _mm512_load_ps(c + j);
            if (add) v = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, to + j), v);
            _mm512_mask_storeu_ps(to + j, mask, v);
        }
    }
}

/* The same where the columns of c are rows of the matrix. */
TARGET static void save_turned(const float *c, float *const *rows, int ni, int64_t column, int nj, bool add)
{
    _Alignas(64) float turned[TILE * TILE];
    for (int j = 0; j < nj; j += TILE)
        for (int i = 0; i < ni; i += TILE) {
            const __mmask16 mask = ni - i >= TILE ? 0xffff : (__mmask16)((1u << (ni - i)) - 1);
            iso_amx_transpose((const char *)(c + i * BLOCK + j), 4 * BLOCK, (char *)turned);
            for (int r = 0; r < TILE && j + r < nj; r++) {
                float *to = rows[j + r] + column + i;
                __m512 v = _mm512_load_ps(turned + r * TILE);
                if (add) v = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, to), v);
                _mm512_mask_storeu_ps(to, mask, v);
            }
        }
}

static void multiply_block(const iso_gemm *g, buffers *w, int64_t m0, int ni, int64_t n0, int nj, int nk, size_t panel, bool add)
{
    static void (*const kernel[2][2])(int, const char *, const char *, size_t, float *) = {{micro_11, micro_12}, {micro_21, micro_22}};
    const int steps = (nk + DEPTH - 1) / DEPTH;
    for (int j = 0; j < nj; j += BLOCK) {
        const int n = nj - j < BLOCK ? nj - j : BLOCK;
        kernel[ni > TILE][n > TILE](steps, w->a, w->b + (size_t)(j / TILE) * panel, panel, w->c);
        if (g->turned) {
            iso_gemm_rows(g, n0 + j, n, w->rows);
            save_turned(w->c, w->rows, ni, m0, n, add);
        } else {
            save(w->c, w->rows, ni, n0 + j, n, add);
        }
    }
}

TARGET void iso_amx_multiply(const iso_gemm *g, int64_t m0, int64_t m1, int64_t n0, int64_t n1, int width, void *workspace)
{
    buffers *w = workspace;
    if (m1 <= m0 || n1 <= n0) return;
    const int depth = iso_amx_depth(width);
    iso_amx_configure();
    for (int64_t n = n0; n < n1; n += width) {
        const int nj = (int)iso_min64(width, n1 - n);
        for (int64_t k = 0; k < g->k; k += depth) {
            const int nk = (int)iso_min64(depth, g->k - k);
            const size_t panel = (size_t)((nk + DEPTH - 1) / DEPTH) * STEP_BYTES;
            if (g->b_by_columns) pack_b_columns(g, n, nj, k, nk, panel, w);
            for (int d = 0; !g->b_by_columns && d < nk; d += DEPTH)
                pack_b_step(g, n, nj, k + d, nk - d < DEPTH ? nk - d : DEPTH, panel, w->b + d / DEPTH * STEP_BYTES, w);
            for (int64_t m = m0; m < m1; m += BLOCK) {
                const int ni = (int)iso_min64(BLOCK, m1 - m);
                pack_a(g, m, ni, k, nk, w);
                if (!g->turned) iso_gemm_rows(g, m, ni, w->rows);
                multiply_block(g, w, m, ni, n, nj, nk, panel, g->add || (k > 0 && !g->wide));
                if (g->wide) iso_gemm_add_wide(g, m, ni, n, nj, w->rows, k == 0, k + nk == g->k);
            }
        }
    }
    _tile_release();
}
#else
size_t iso_amx_workspace(void) { return 0; }
void iso_amx_multiply(const iso_gemm *g, int64_t m0, int64_t m1, int64_t n0, int64_t n1, int width, void *workspace)
{
    (void)g, (void)m0, (void)m1, (void)n0, (void)n1, (void)width, (void)workspace;
}
#endif
