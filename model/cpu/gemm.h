/* gemm.h: C = A B in float, where A, B and the rows of C may be matrices that exist only as a rule.
 *
 * A convolution is a product with a matrix of patches. Instead of writing that
 * matrix to memory and calling a BLAS, the blocks that a product copies anyway
 * to have them dense in the cache are filled straight from the image, so the
 * patch matrix costs nothing extra and needs no memory.
 *
 * The loops are Goto's: blocks of B (KC x NC) and of A (MC x KC) are packed for
 * the second-level cache, and a micro-kernel keeps a small tile of C in
 * registers. Every element of C is added up in the same order whatever the
 * number of threads, so results do not depend on it.
 */
#ifndef ISO_CPU_GEMM_H
#define ISO_CPU_GEMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ISO_GEMM_KC 512                  /* depth of a block */
#define ISO_GEMM_LDA (ISO_GEMM_KC + 16)  /* row pitch of a packed block of A; not a power of two, for the cache's sets */
#define ISO_GEMM_MC 112                  /* rows of a block, about */
#define ISO_GEMM_NC 512                  /* columns of a block: a multiple of every kernel's tile width */
#define ISO_GEMM_MR_MAX 14
#define ISO_GEMM_NR_MAX 32
#define ISO_AMX_RATE 84.0                /* multiply-adds of floats a cycle on the tile unit (gemm_amx.h), as measured */
#define ISO_GEMM_PANEL 16                /* pitch of a tile of A stored depth first */
#define ISO_GEMM_LINE 64                 /* bytes of a line of the cache */

/* Fills a packed block with rows (of A) or columns (of B) i0 ... i0+ni-1 at depths k0 ... k0+nk-1.
 * A, by rows:  dst[i * ISO_GEMM_LDA + k].
 * A, by depth: dst[(i / tile) * ISO_GEMM_KC * ISO_GEMM_PANEL + k * ISO_GEMM_PANEL + i % tile].
 * B:           dst[(i / tile) * tile * nk + k * tile + i % tile], zeros behind column ni. */
typedef void (*iso_gemm_pack)(const void *operand, int64_t i0, int ni, int64_t k0, int nk, int tile, float *dst);

/* Where an operand's numbers lie as they are, so that they need not be copied first. Sets
 *   at[i], i < ni: row i0+i of A, from depth k0 on (A by rows); returns for how many depths, at most nk,
 *   at[k], k < nk: depth k0+k from row or column i0 on (A by depth, B); returns for how many rows or columns, at most ni.
 * NULL for zeros; by rows iso_gemm_mixed for a row that must be packed. Returns 0 where everything must be. */
typedef int (*iso_gemm_find)(const void *operand, int64_t i0, int ni, int64_t k0, int nk, const float **at);
extern const float iso_gemm_mixed[1];

/* A plain matrix. */
typedef struct iso_gemm_matrix {
    const float *data;
    int64_t pitch; /* elements from one row, as it lies in memory, to the next */
} iso_gemm_matrix;

/* Lines of the cache: columns of `rows` of them, `pitch` bytes apart. */
typedef struct iso_gemm_lines {
    const char *at;
    int64_t pitch, rows, columns;
} iso_gemm_lines;

typedef struct iso_gemm {
    int64_t m, n, k;
    const void *a, *b;         /* operands, for the packers */
    iso_gemm_pack pack_a, pack_b;
    iso_gemm_find find_a;
    iso_gemm_find find_b;      /* NULL where B does not lie so */
    const float *b_packed;     /* iso_gemm_pack_whole's; NULL */
    bool b_by_columns;         /* find_b finds columns i0 ... from depth k0 on, all nk depths of them */
    bool a_by_depth;           /* which of the two layouts pack_a writes, and how find_a finds */
    double a_cost, b_cost;     /* cycles to pack an element: for the choice of who computes what */
    /* Where rows i0 ... i0+ni-1 of C begin. NULL: at c + i * c_pitch. */
    void (*c_rows)(const void *context, int64_t i0, int ni, float **rows);
    const void *c_context;
    float *c;
    int64_t c_pitch;
    bool add;                  /* C += A B */
    bool turned;               /* C' = A B: columns j0 ... of the product are the rows of C; on the tile unit only (iso_gemm_isa.tiles),
                                * not with `wide` */
    int64_t part_of;           /* this is a part of a product of so many rows, and is to be computed as that would be; 0: is none */
    double *wide;              /* [m, n]: here the blocks of depth are added up in double; for long sums that nearly cancel,
                                * as gradients of small layers are. NULL: in C. Not together with `add`. */
    const iso_gemm_lines *ahead; /* what the caller reads next, [ahead_count]: asked for while multiplying */
    int ahead_count;
} iso_gemm;

/* Packers of plain matrices (operand: iso_gemm_matrix). */
void iso_gemm_pack_a_rows(const void *operand, int64_t i0, int ni, int64_t k0, int nk, int tile, float *dst);  /* [m, k] */
void iso_gemm_pack_a_depth(const void *operand, int64_t i0, int ni, int64_t k0, int nk, int tile, float *dst); /* [k, m] */
void iso_gemm_pack_b_rows(const void *operand, int64_t i0, int ni, int64_t k0, int nk, int tile, float *dst);  /* [k, n] */
void iso_gemm_pack_b_depth(const void *operand, int64_t i0, int ni, int64_t k0, int nk, int tile, float *dst); /* [n, k] */

int iso_gemm_find_rows(const void *operand, int64_t i0, int ni, int64_t k0, int nk, const float **at);  /* A [m, k] */
int iso_gemm_find_depth(const void *operand, int64_t i0, int ni, int64_t k0, int nk, const float **at); /* A [k, m], B [k, n] */

/* B as a whole, for products that have the same one (iso_gemm.b_packed): numbers that it takes; 0 where it is read as it lies, or
 * not by vectors. */
int64_t iso_gemm_whole(const iso_gemm *g);
void iso_gemm_pack_whole(const iso_gemm *g, float *dst);

/* For packers of B: columns of one depth, dense at src, spread over the tiles; `to` is that depth's row of the first tile. */
void iso_gemm_spread_row(const float *src, int ni, int nk, int tile, float *to);
/* The same for `some` depths of a plain matrix, from k0 on. */
void iso_gemm_spread_rows(const iso_gemm_matrix *m, int64_t i0, int ni, int64_t k0, int some, int nk, int tile, float *to);

/* For those that multiply: where rows i0 ... of C begin, and the double sums (wide): C's rows of this block are added to them,
 * and with the last block the sums go back into C. */
void iso_gemm_rows(const iso_gemm *g, int64_t i0, int ni, float **rows);
void iso_gemm_add_wide(const iso_gemm *g, int64_t i0, int ni, int64_t j0, int nj, float *const *rows, bool first, bool last);

size_t iso_gemm_workspace(int threads);
/* workspace: iso_gemm_workspace(threads) bytes, 64-byte aligned. k = 0 gives zeros. */
void iso_gemm_run(const iso_gemm *g, int threads, void *workspace);
double iso_gemm_cost(const iso_gemm *g); /* about how many cycles of one thread it takes */
/* Several products of similar size, whose results don't overlap: whole ones to each thread where that comes out even. */
void iso_gemm_run_all(const iso_gemm *g, int count, int threads, void *workspace);

/* How a micro-kernel reads a tile's operands. */
enum {
    ISO_GEMM_BY_ROWS,       /* A by rows, B packed: a(i, k) is a[i * ISO_GEMM_LDA + k], b(k, j) is b[k * 2 lanes + j] */
    ISO_GEMM_BY_DEPTH,      /* A by depth: a[k * ISO_GEMM_PANEL + i] */
    ISO_GEMM_BOTH_BY_DEPTH, /* the same, and rows of B ISO_GEMM_LDA apart */
    ISO_GEMM_AS_IT_LIES,    /* a[i * a_pitch + k], b[k * b_pitch + j] */
    ISO_GEMM_WAYS
};

/* A micro-kernel: c[i][column ... column+n) (+)= sum over k of a(i, k) b(k, j), for i < its height. Reads whole vectors of b. On the
 * way it asks for a line of the cache for every `stride` depths (iso_gemm_isa), into the second level, at `ahead` (NULL: none) and so many bytes apart from then
 * on: many at once would hold up the loads that the product waits for. */
typedef void (*iso_gemm_kernel)(int64_t depth, const float *a, const float *b, float *const *c, int64_t column, int n, bool add, int64_t a_pitch,
                                int64_t b_pitch, const char *ahead, int64_t ahead_pitch);
typedef struct iso_gemm_isa {
    const char *name;
    int mr, lanes; /* tile height; the tile is two vectors of `lanes` wide */
    int stride;    /* depths for a line that is asked for: some fifty cycles */
    iso_gemm_kernel kernel[ISO_GEMM_WAYS][2][ISO_GEMM_MR_MAX]; /* [..][vectors - 1][height - 1] */
    bool tiles;    /* products large enough go to gemm_amx.c */
} iso_gemm_isa;
extern const iso_gemm_isa iso_gemm_amx, iso_gemm_avx512, iso_gemm_avx2, iso_gemm_portable;
/* The best that may be used here (base/isa.h). */
const iso_gemm_isa *iso_gemm_isa_get(void);

#endif
