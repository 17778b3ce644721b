/* rank.c: the best test images for many queries.
 *
 * Scores are first taken in single precision, or in whole numbers of 16 bits where the processor multiplies these faster, by a product of queries and
 * test vectors that is looked at while it is in the cache and never stored. Such a score is within a known bound of the true one, so an image that is
 * more than twice the bound below the best ones so far can be forgotten. The few that are left are scored in double precision, all
 * in one order: equal vectors get equal scores, and the ranking is that of the definition. */
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/clones.h"
#include "base/isa.h"
#include "base/memory.h"
#include "eval/protocol.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

enum { PANEL = 32, TALL = 12, BLOCK = 1024, IN_CACHE = 32 }; /* items; queries of a tile; queries at once; panels in L2 */
enum { UNIT = 32767 }; /* 1 in 16 bits. Products of vectors of length 1 add up to no more than 31 bits, whatever the order. */

/* ---- kernels ---- */

/* score[r * PANEL + i] = <query r, item i>, r < TALL: query [depth, TALL], panel [depth, PANEL] words, each a float or two halves. */
typedef void multiply(int64_t depth, const void *query, const void *panel, float *score);
/* Bit i: score[i] >= least, i < PANEL. */
typedef uint32_t above(const float *score, float least);

typedef struct kernel {
    const char *name;
    bool halves; /* a word holds two neighbouring numbers, in UNITs */
    multiply *multiply;
    above *above;
} kernel;

struct iso_rank_panels {
    const kernel *kernel;
    size_t depth; /* words of a vector */
    void *words;  /* [panels, depth, PANEL] */
};

/* ROWS queries times 2 LANES items, all sums in registers: named variables, so that every compiler keeps them there. */
#define EACH_ROW(X, ...)                                                                                                  \
    X(0, __VA_ARGS__) X(1, __VA_ARGS__) X(2, __VA_ARGS__) X(3, __VA_ARGS__) X(4, __VA_ARGS__) X(5, __VA_ARGS__) X(6, __VA_ARGS__) \
    X(7, __VA_ARGS__) X(8, __VA_ARGS__) X(9, __VA_ARGS__) X(10, __VA_ARGS__) X(11, __VA_ARGS__)
#define DECLARE(r, VEC, ZERO) VEC p##r = ZERO, q##r = ZERO;
#define MULTIPLY(r, ROWS, SPLAT, MULADD)                        \
    if (r < ROWS) {                                             \
        p##r = MULADD(SPLAT(query[r]), b0, p##r);               \
        q##r = MULADD(SPLAT(query[r]), b1, q##r);               \
    }
#define SAVE(r, ROWS, LANES, STORE)                             \
    if (r < ROWS) {                                             \
        STORE(score + r * PANEL, p##r);                         \
        STORE(score + r * PANEL + LANES, q##r);                 \
    }
#define TILE(NAME, TARGET, WORD, VEC, ROWS, LANES, ZERO, LOAD, STORE, SPLAT, MULADD)                                 \
    TARGET static inline __attribute__((always_inline)) void NAME(int64_t depth, const WORD *query, const WORD *panel, float *score) \
    {                                                                                                                \
        EACH_ROW(DECLARE, VEC, ZERO)                                                                                 \
        for (int64_t k = 0; k < depth; k++, query += TALL, panel += PANEL) {                                         \
            VEC b0 = LOAD(panel), b1 = LOAD(panel + LANES);                                                          \
            EACH_ROW(MULTIPLY, ROWS, SPLAT, MULADD)                                                                  \
        }                                                                                                            \
        EACH_ROW(SAVE, ROWS, LANES, STORE)                                                                           \
    }

static void multiply_portable(int64_t depth, const void *query_words, const void *panel_words, float *score)
{
    const float *query = query_words, *panel = panel_words;
    memset(score, 0, sizeof *score * TALL * PANEL);
    for (int64_t k = 0; k < depth; k++)
        for (int r = 0; r < TALL; r++)
            for (int i = 0; i < PANEL; i++) score[r * PANEL + i] += query[k * TALL + r] * panel[k * PANEL + i];
}

static uint32_t above_portable(const float *score, float least)
{
    uint32_t bits = 0;
    for (int i = 0; i < PANEL; i++) bits |= (uint32_t)(score[i] >= least) << i;
    return bits;
}

#ifdef __x86_64__
#define AVX2 __attribute__((target("avx2,fma")))
#define AVX512 __attribute__((target("avx512f")))
#define VNNI __attribute__((target("avx512f,avx512vnni")))
#define STORE_HALVES(to, x) _mm512_storeu_ps(to, _mm512_mul_ps(_mm512_cvtepi32_ps(x), _mm512_set1_ps(1.0f / ((float)UNIT * UNIT))))
/* gcc 12 keeps the sums of _mm512_dpwssd_epi32 on the stack. */
VNNI static inline __attribute__((always_inline)) __m512i muladd_halves(__m512i a, __m512i b, __m512i sum)
{
    __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
}
TILE(tile_vnni, VNNI, int32_t, __m512i, 12, 16, _mm512_setzero_si512(), _mm512_loadu_si512, STORE_HALVES, _mm512_set1_epi32, muladd_halves)
TILE(tile_avx2, AVX2, float, __m256, 6, 8, _mm256_setzero_ps(), _mm256_loadu_ps, _mm256_storeu_ps, _mm256_set1_ps, _mm256_fmadd_ps)
TILE(tile_avx512, AVX512, float, __m512, 12, 16, _mm512_setzero_ps(), _mm512_loadu_ps, _mm512_storeu_ps, _mm512_set1_ps, _mm512_fmadd_ps)

AVX2 static void multiply_avx2(int64_t depth, const void *query, const void *panel, float *score)
{
    for (int r = 0; r < TALL; r += 6)
        for (int i = 0; i < PANEL; i += 16) tile_avx2(depth, (const float *)query + r, (const float *)panel + i, score + r * PANEL + i);
}

AVX2 static uint32_t above_avx2(const float *score, float least)
{
    uint32_t bits = 0;
    for (int i = 0; i < PANEL; i += 8)
        bits |= (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(score + i), _mm256_set1_ps(least), _CMP_GE_OQ)) << i;
    return bits;
}

AVX512 static void multiply_avx512(int64_t depth, const void *query, const void *panel, float *score) { tile_avx512(depth, query, panel, score); }

VNNI static void multiply_vnni(int64_t depth, const void *query, const void *panel, float *score) { tile_vnni(depth, query, panel, score); }

AVX512 static uint32_t above_avx512(const float *score, float least)
{
    __m512 limit = _mm512_set1_ps(least);
    return (uint32_t)_mm512_cmp_ps_mask(_mm512_loadu_ps(score), limit, _CMP_GE_OQ) |
           (uint32_t)_mm512_cmp_ps_mask(_mm512_loadu_ps(score + 16), limit, _CMP_GE_OQ) << 16;
}
#endif

static const kernel portable = {"portable", false, multiply_portable, above_portable};
#ifdef __x86_64__
static const kernel avx2 = {"avx2", false, multiply_avx2, above_avx2}, avx512 = {"avx512", false, multiply_avx512, above_avx512},
                    vnni = {"avx512vnni", true, multiply_vnni, above_avx512};
#endif

static const kernel *best_kernel(void)
{
#ifdef __x86_64__
    if (iso_isa_has(ISO_ISA_AVX512VNNI)) return &vnni;
    if (iso_isa_has(ISO_ISA_AVX512F)) return &avx512;
    if (iso_isa_has(ISO_ISA_AVX2)) return &avx2;
#endif
    return &portable;
}

const char *iso_rank_kernel_name(void) { return best_kernel()->name; }

enum { PART = 64 }; /* numbers that are made words at once; even */

/* Numbers from, from + 1, ... of vector i among `side` that lie side by side; a zero behind an odd last one. */
static inline __attribute__((always_inline)) void put(bool halves, int from, int many, const float x[PART], void *words, int side, int i)
{
    int16_t half[PART];
    uint32_t word[PART], *to = (uint32_t *)words + (size_t)(halves ? from / 2 : from) * (size_t)side + (size_t)i;
    if (halves) {
#pragma omp simd
        for (int j = 0; j < many; j++) half[j] = (int16_t)(UNIT * x[j] + (x[j] < 0 ? -0.5f : 0.5f));
        if (many % 2) half[many++] = 0;
        memcpy(word, half, (size_t)many * sizeof *half);
        many /= 2;
    } else {
        memcpy(word, x, (size_t)many * sizeof *x);
    }
    for (int k = 0; k < many; k++) to[(size_t)k * (size_t)side] = word[k];
}

static inline __attribute__((always_inline)) void scale(int n, double factor, const float *x, float *y)
{
#pragma omp simd
    for (int j = 0; j < n; j++) y[j] = (float)(factor * x[j]);
}

/* Zeros behind the last item. */
ISO_CLONES static void fill_panel(bool halves, int dim, int64_t n, int64_t t, const float *const *test, const double *inverse, void *panel)
{
    for (int i = 0; i < PANEL; i++) {
        const int64_t item = n * PANEL + i;
        if (item + ISO_VECTORS_AHEAD < t) iso_vector_ahead(test[item + ISO_VECTORS_AHEAD], dim);
        for (int from = 0; from < dim; from += PART) {
            const int many = dim - from < PART ? dim - from : PART;
            float x[PART] = {0};
            if (item < t) scale(many, inverse[item], test[item] + from, x);
            put(halves, from, many, x, panel, PANEL, i);
        }
    }
}

iso_rank_panels *iso_rank_panels_create(int dim, int64_t t, const float *const *test, const double *inverse)
{
    iso_rank_panels *p = iso_calloc(1, sizeof *p);
    if (!p) return NULL;
    p->kernel = best_kernel();
    p->depth = p->kernel->halves ? (size_t)(dim + 1) / 2 : (size_t)dim;
    const int64_t panels = (t + PANEL - 1) / PANEL;
    const size_t size = p->depth * PANEL * sizeof(float), bytes = (size_t)panels < SIZE_MAX / size ? (size_t)panels * size : 0;
    p->words = bytes ? iso_wish_huge(aligned_alloc(64, bytes), bytes) : NULL;
    if (!p->words) {
        free(p);
        return NULL;
    }
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < panels; n++) fill_panel(p->kernel->halves, dim, n, t, test, inverse, (char *)p->words + (size_t)n * size);
    return p;
}

void iso_rank_panels_free(iso_rank_panels *p)
{
    if (!p) return;
    free(p->words);
    free(p);
}

/* ---- the best so far ---- */

typedef struct candidate {
    float score;
    int32_t row;
} candidate;

/* What one query has found: all rows whose score is `least` or above are in it. */
typedef struct found {
    float least;
    int have, room;
    candidate *row;
} found;

/* How much two scores of unit vectors may be off together: rounding of both vectors' numbers and of each addition. In halves every number is off by
 * half a UNIT and a hundredth of that, as it was a float before, and what is added is exact: with |x|_1 <= sqrt(dim) |x|_2 that is 1.01 sqrt(dim)
 * UNITs, products of two errors, and the conversion to float. */
static float slack_of(const kernel *k, int dim)
{
    const double d = dim, unit = 1.0 / UNIT;
    return k->halves ? (float)(2 * (1.01 * sqrt(d) * unit + d * unit * unit + 0x1p-22)) : 2.0f * (float)(dim + 8) * 0x1p-24f;
}

/* The first `top` scores, best first; their number. Most fail to enter at the first comparison. */
static int first_scores(const found *f, int top, float *best)
{
    int have = 0;
    for (int i = 0; i < f->have; i++) {
        float score = f->row[i].score;
        if (have == top && !(score > best[top - 1])) continue;
        int at = have < top ? have++ : top - 1;
        for (; at > 0 && score > best[at - 1]; at--) best[at] = best[at - 1];
        best[at] = score;
    }
    return have;
}

/* Forgets what cannot be among the first `top` any more. */
static void narrow(found *f, int top, float slack, float *best)
{
    if (first_scores(f, top, best) < top) return;
    int kept = 0;
    f->least = best[top - 1] - slack;
    for (int i = 0; i < f->have; i++)
        if (f->row[i].score >= f->least) f->row[kept++] = f->row[i];
    f->have = kept;
}

/* Makes room; false: out of memory. Many near ties (equal images) may need more of it. */
static bool make_room(found *f, int top, float slack, float *best)
{
    narrow(f, top, slack, best);
    if (f->have <= f->room / 2) return true;
    size_t room = (size_t)f->room;
    if (!iso_grow(&f->row, &room, 2 * room, sizeof *f->row)) return false;
    f->room = room > INT32_MAX ? INT32_MAX : (int)room;
    return true;
}

/* ---- exactly ---- */

typedef struct ranked {
    double score;
    int32_t row;
} ranked;

static int better(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    return x->score > y->score ? -1 : x->score < y->score ? 1 : x->row < y->row ? -1 : 1;
}

static iso_status rank_exactly(const iso_protocol *p, const double *query, const found *f, int top, int32_t *best, iso_error *err)
{
    ranked *r = iso_calloc((size_t)f->have, sizeof *r);
    if (!r) return iso_fail_memory(err);
    for (int i = 0; i < f->have; i++) {
        int32_t row = f->row[i].row;
        const float *x = p->test[row];
        double sum = 0, inverse = p->test_inverse[row];
        for (int j = 0; j < p->dim; j++) sum += query[j] * (inverse * x[j]);
        r[i] = (ranked){sum, row};
    }
    qsort(r, (size_t)f->have, sizeof *r, better);
    for (int i = 0; i < top; i++) best[i] = r[i].row;
    free(r);
    return ISO_OK;
}

static void count_hits(const iso_protocol *p, const iso_query_set *set, const int32_t *best, int top, int *hits)
{
    for (int r = 0, sum = 0; r < top; r++) {
        const uint8_t *has = p->test_attributes + (int64_t)best[r] * p->count;
        sum += has[set->a] && (set->b < 0 || has[set->b]);
        hits[r] = sum;
    }
}

/* ---- a block of queries ---- */

typedef struct block {
    const iso_protocol *p;
    const kernel *kernel;
    int rows, top;
    double *query;      /* [rows, dim] */
    bool *directed;     /* [rows] whether there is one */
    uint32_t *tall;     /* [tiles, depth, TALL] words: the same, of length 1 */
    found *found;       /* [rows] */
} block;

/* The query vectors of some asked. The offset, the same for all images, ranks nothing. */
static iso_status make_query(const block *b, const iso_scorer *scorer, int i, const iso_asked *asked, iso_error *err)
{
    int dim = b->p->dim;
    double offset, *w = b->query + (size_t)i * (size_t)dim, *mean = iso_calloc((size_t)dim, sizeof *mean);
    if (!mean) return iso_fail_memory(err);
    for (int j = 0; j < dim; j++) mean[j] = asked->sum[j] / (double)asked->n;
    iso_status status = iso_scorer_query(scorer, dim, asked->n, mean, 0, NULL, 0, w, &offset, err);
    free(mean);
    b->directed[i] = !status;
    if (status) return status == ISO_E_NUMERIC ? ISO_OK : status;
    double largest = 0, squares = 0;
    for (int j = 0; j < dim; j++) largest = fmax(largest, fabs(w[j]));
    if (!(largest > 0)) return ISO_OK; /* all images score the same */
    for (int j = 0; j < dim; j++) squares += w[j] / largest * (w[j] / largest);
    uint32_t *to = b->tall + (size_t)(i / TALL) * b->p->panel->depth * TALL;
    for (int from = 0; from < dim; from += PART) {
        const int many = dim - from < PART ? dim - from : PART;
        float x[PART];
        for (int j = 0; j < many; j++) x[j] = (float)(w[from + j] / largest / sqrt(squares));
        put(b->kernel->halves, from, many, x, to, TALL, i % TALL);
    }
    return ISO_OK;
}

/* One tile's scores; false: out of memory. */
static bool take_tile(const block *b, int tile, int64_t panel, float slack, float *score, float *best)
{
    const iso_protocol *p = b->p;
    const size_t depth = p->panel->depth;
    int64_t from = panel * PANEL;
    uint32_t there = p->t - from < PANEL ? (UINT32_C(1) << (p->t - from)) - 1 : UINT32_MAX;
    b->kernel->multiply((int64_t)depth, b->tall + (size_t)tile * depth * TALL, (const uint32_t *)p->panel->words + (size_t)panel * depth * PANEL, score);
    for (int i = tile * TALL; i < (tile + 1) * TALL && i < b->rows; i++) {
        found *f = b->found + i;
        const float *row = score + i % TALL * PANEL;
        uint32_t bits = b->directed[i] ? b->kernel->above(row, f->least) & there : 0;
        if (bits && f->room - f->have < PANEL) {
            if (!make_room(f, b->top, slack, best)) return false;
            bits = b->kernel->above(row, f->least) & there;
        }
        for (; bits; bits &= bits - 1) {
            int at = __builtin_ctz(bits);
            f->row[f->have++] = (candidate){row[at], (int32_t)(from + at)};
        }
    }
    return true;
}

/* Threads share the queries; each reads the test vectors once, some panels at a time for all of its queries. */
static iso_status take_all(const block *b, iso_error *err)
{
    const int tiles = (b->rows + TALL - 1) / TALL, threads = omp_get_max_threads(), shares = tiles < threads ? tiles : threads;
    const int64_t panels = (b->p->t + PANEL - 1) / PANEL;
    const float slack = slack_of(b->kernel, b->p->dim);
    bool failed = false;
#pragma omp parallel for schedule(static, 1) reduction(|| : failed)
    for (int share = 0; share < shares; share++) {
        const int first = tiles * share / shares, last = tiles * (share + 1) / shares;
        float score[TALL * PANEL] __attribute__((aligned(64))), *best = iso_calloc((size_t)b->top, sizeof *best);
        failed = failed || !best;
        for (int64_t from = 0; !failed && from < panels; from += IN_CACHE)
            for (int i = first; i < last; i++)
                for (int64_t n = from; n < panels && n < from + IN_CACHE; n++) failed = failed || !take_tile(b, i, n, slack, score, best);
        for (int i = first * TALL; !failed && i < last * TALL && i < b->rows; i++) narrow(b->found + i, b->top, slack, best);
        free(best);
    }
    return failed ? iso_fail_memory(err) : ISO_OK;
}

static iso_status block_begin(block *b, const iso_protocol *p, int rows, int top, iso_error *err)
{
    size_t dim = (size_t)p->dim, tiles = ((size_t)rows + TALL - 1) / TALL;
    int room = top < INT32_MAX / 2 - 2 * PANEL ? 2 * top + 2 * PANEL : INT32_MAX;
    *b = (block){.p = p, .kernel = p->panel->kernel, .rows = rows, .top = top};
    b->query = iso_calloc((size_t)rows, dim * sizeof *b->query);
    b->directed = iso_calloc((size_t)rows, sizeof *b->directed);
    b->tall = iso_calloc(tiles, p->panel->depth * TALL * sizeof *b->tall);
    b->found = iso_calloc((size_t)rows, sizeof *b->found);
    if (!b->query || !b->directed || !b->tall || !b->found) return iso_fail_memory(err);
    for (int i = 0; i < rows; i++) {
        found *f = b->found + i;
        size_t have = 0;
        if (!iso_grow(&f->row, &have, (size_t)room, sizeof *f->row)) return iso_fail_memory(err);
        f->room = room;
        f->least = -INFINITY;
    }
    return ISO_OK;
}

static void block_end(block *b)
{
    for (int i = 0; b->found && i < b->rows; i++) free(b->found[i].row);
    free(b->query), free(b->directed), free(b->tall), free(b->found);
}

/* Keeps the last of several threads' errors. */
static void keep(iso_status status, const iso_error *why, iso_status *failed, iso_error *err)
{
#pragma omp critical(iso_rank_failure)
    {
        *failed = status;
        if (err) *err = *why;
    }
}

static iso_status make_queries(const block *b, const iso_scorer *scorer, const iso_asked *asked, iso_error *err)
{
    iso_status failed = ISO_OK;
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < b->rows; i++) {
        iso_error why = {0};
        iso_status status = make_query(b, scorer, i, asked + i, &why);
        if (status) keep(status, &why, &failed, err);
    }
    return failed;
}

static iso_status count_all(const block *b, const iso_asked *asked, int stride, int *hits, iso_error *err)
{
    iso_status failed = ISO_OK;
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < b->rows; i++) {
        iso_error why = {0};
        int *row = hits + (size_t)i * stride;
        int32_t *best = iso_calloc((size_t)b->top, sizeof *best);
        iso_status status = best ? ISO_OK : iso_fail_memory(&why);
        for (int r = 0; r < b->top; r++) row[r] = -1;
        if (!status && b->directed[i]) status = rank_exactly(b->p, b->query + (size_t)i * (size_t)b->p->dim, b->found + i, b->top, best, &why);
        if (!status && b->directed[i]) count_hits(b->p, asked[i].of, best, b->top, row);
        if (status) keep(status, &why, &failed, err);
        free(best);
    }
    return failed;
}

iso_status iso_protocol_rank(const iso_protocol *p, const iso_scorer *scorer, int m, const iso_asked *asked, int top, int *hits, iso_error *err)
{
    iso_status status = ISO_OK;
    for (int from = 0; from < m && !status; from += BLOCK) {
        block b;
        status = block_begin(&b, p, m - from < BLOCK ? m - from : BLOCK, p->t < top ? (int)p->t : top, err);
        if (!status) status = make_queries(&b, scorer, asked + from, err);
        if (!status) status = take_all(&b, err);
        if (!status) status = count_all(&b, asked + from, top, hits + (size_t)from * top, err);
        block_end(&b);
    }
    return status;
}
