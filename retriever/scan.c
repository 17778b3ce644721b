/* scan.c: the portable kernels, the choice of kernels, and the k best. */
#include "retriever/scan_parts.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/isa.h"
#include "base/memory.h"

enum {
    BLOCK = 4096,            /* scores held at a time: they stay in the innermost cache */
    PIECE_LEAST = 512 << 10, /* bytes of rows that a thread takes at a time: a slower one takes fewer pieces */
    PIECE_MOST = 4 << 20,
    PIECES = 16,             /* of a thread, where that allows */
    LANES = 16               /* partial sums of a portable row; the others have more */
};

int iso_code_bytes(iso_code code) { return code == ISO_CODE_F32 ? 4 : code == ISO_CODE_F16 ? 2 : 1; }

/* ---- half precision ---- */

float iso_half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = h & 0x7fff, bits;
    float x;
    if (rest >= 0x7c00)
        bits = sign | 0x7f800000 | (rest & 0x3ff) << 13; /* infinite, or not a number */
    else if (rest >= 0x400)
        bits = sign | ((rest << 13) + ((127 - 15) << 23));
    else { /* below the normal numbers: a multiple of 2^-24 */
        x = (float)rest * 0x1p-24f;
        return sign ? -x : x;
    }
    memcpy(&x, &bits, sizeof x);
    return x;
}

uint16_t iso_half_from_float(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    uint32_t rest = bits & 0x7fffffff;
    if (rest > 0x7f800000) return (uint16_t)(sign | 0x7e00 | (rest >> 13 & 0x3ff));
    if (rest >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* 65520 and above round to infinity */
    if (rest < 0x38800000) { /* below 2^-14: adding 0.5 makes the sum's last place 2^-24, rounded to even */
        float small;
        memcpy(&small, &rest, sizeof small);
        small += 0.5f;
        memcpy(&rest, &small, sizeof rest);
        return (uint16_t)(sign | (rest - 0x3f000000));
    }
    rest += 0xfff + (rest >> 13 & 1); /* half of the last place kept, or a little less where that is even */
    return (uint16_t)(sign | ((rest - ((127 - 15) << 23)) >> 13));
}

static void portable_half_store(int64_t n, const float *x, uint16_t *out)
{
    for (int64_t i = 0; i < n; i++) out[i] = iso_half_from_float(x[i]);
}

static void portable_half_load(int64_t n, const uint16_t *x, float *out)
{
    for (int64_t i = 0; i < n; i++) out[i] = iso_half_to_float(x[i]);
}

/* ---- portable kernels ---- */

static inline float number_f32(const uint8_t *row, int j)
{
    float x;
    memcpy(&x, row + 4 * (size_t)j, sizeof x);
    return x;
}

static inline float number_f16(const uint8_t *row, int j)
{
    uint16_t h;
    memcpy(&h, row + 2 * (size_t)j, sizeof h);
    return iso_half_to_float(h);
}

static inline float number_u8(const uint8_t *row, int j) { return row[j]; }

#define KERNEL(code) \
    static void scores_##code(const iso_scan_query *q, const uint8_t *rows, const int32_t *at, int64_t n, \
                              float *scores) \
    { \
        const iso_scan_rows r = iso_scan_rows_of(q, rows, at, n); \
        for (int64_t i = 0; i < n; i++) { \
            const uint8_t *row = iso_scan_row(&r, i); \
            float sum[LANES] = {0}; \
            int j = 0; \
            for (; j + LANES <= q->dim; j += LANES) \
                for (int l = 0; l < LANES; l++) sum[l] += q->weight[j + l] * number_##code(row, j + l); \
            for (; j < q->dim; j++) sum[j % LANES] += q->weight[j] * number_##code(row, j); \
            for (int l = LANES / 2; l; l /= 2) \
                for (int m = 0; m < l; m++) sum[m] += sum[m + l]; \
            scores[i] = sum[0] + q->bias; \
        } \
    }

KERNEL(f32)
KERNEL(f16)
KERNEL(u8)

const iso_scan_kernels iso_scan_portable = {
    {scores_f32, scores_f16, scores_u8}, {NULL}, portable_half_store, portable_half_load};

/* ---- the choice ---- */

static const iso_scan_kernels *kernels(void)
{
#if ISO_SCAN_X86
    if (iso_isa_has(ISO_ISA_AVX512)) return __builtin_cpu_is("amd") ? &iso_scan_avx512_amd : &iso_scan_avx512;
    if (iso_isa_has(ISO_ISA_AVX2)) return &iso_scan_avx2;
#endif
    return &iso_scan_portable;
}

void iso_half_store(int64_t n, const float *x, uint16_t *out) { kernels()->half_store(n, x, out); }
void iso_half_load(int64_t n, const uint16_t *x, float *out) { kernels()->half_load(n, x, out); }

/* ---- scores ---- */

iso_scan_query iso_scan_query_u8(int dim, const float *w, const float *low, const float *step, float *weight)
{
    double bias = 0;
    for (int j = 0; j < dim; j++) {
        bias += (double)w[j] * low[j];
        weight[j] = w[j] * step[j];
    }
    return (iso_scan_query){ISO_CODE_U8, dim, weight, (float)bias};
}

double iso_scan_slack(const iso_scan_query *q, double length)
{
    double sum = 0, square = 0;
    for (int j = 0; j < q->dim; j++) {
        sum += fabsf(q->weight[j]);
        square += (double)q->weight[j] * q->weight[j];
    }
    double size = q->code == ISO_CODE_U8 ? 255 * sum + fabsf(q->bias) : sqrt(square) * length + fabsf(q->bias);
    return size * 0x1p-24 * ((double)q->dim / LANES + 16) + q->dim * 0x1p-140; /* products below the normal numbers */
}

void iso_scan_scores(const iso_scan_query *q, const void *rows, int64_t n, float *scores)
{
    kernels()->scores[q->code](q, rows, NULL, n, scores);
}

void iso_scan_scores_at(const iso_scan_query *q, const void *rows, const int32_t *at, int64_t n, float *scores)
{
    kernels()->scores[q->code](q, rows, at, n, scores);
}

/* ---- the k best: a heap with the worst on top ---- */

static inline bool better(iso_ranked a, iso_ranked b)
{
    return a.score != b.score ? a.score > b.score : a.position < b.position;
}

float iso_best_least(const iso_best *b) { return b->count < b->k ? -INFINITY : b->heap[0].score; }

/* Puts x into the empty place at the top of heap [count] and moves it down. */
static void sink(iso_ranked *heap, int64_t count, iso_ranked x)
{
    int64_t i = 0;
    for (int64_t child; (child = 2 * i + 1) < count; i = child) {
        if (child + 1 < count && better(heap[child], heap[child + 1])) child++;
        if (!better(x, heap[child])) break;
        heap[i] = heap[child];
    }
    heap[i] = x;
}

static void keep(iso_best *b, iso_ranked x)
{
    if (b->count == b->k) {
        if (better(x, b->heap[0])) sink(b->heap, b->count, x);
        return;
    }
    int64_t i = b->count++;
    for (; i && better(b->heap[(i - 1) / 2], x); i = (i - 1) / 2) b->heap[i] = b->heap[(i - 1) / 2];
    b->heap[i] = x;
}

void iso_best_offer(iso_best *b, const float *scores, int64_t n, int64_t first, const int32_t *at)
{
    float least = iso_best_least(b);
    for (int64_t i = 0; i < n;) {
        int some = 0;
        if (i + 16 <= n) { /* most are too low: one test for 16 of them */
            const float *s = scores + i;
#pragma omp simd reduction(| : some)
            for (int l = 0; l < 16; l++) some |= s[l] >= least;
            if (!some) {
                i += 16;
                continue;
            }
        }
        for (int64_t end = i + 16 < n ? i + 16 : n; i < end; i++) {
            if (!(scores[i] >= least)) continue;
            keep(b, (iso_ranked){scores[i], at ? at[i] : first + i});
            least = iso_best_least(b);
        }
    }
}

static int compare_ranked(const void *a, const void *b)
{
    const iso_ranked *x = a, *y = b;
    return better(*x, *y) ? -1 : better(*y, *x);
}

void iso_best_sort(iso_best *b)
{
    if (b->count > 1) qsort(b->heap, (size_t)b->count, sizeof *b->heap, compare_ranked);
}

/* Threads for n rows: each with some pieces to take, and heaps that together hold no more than half of the rows. */
static int threads_for(int64_t n, size_t stride, int64_t k)
{
    int64_t threads = omp_get_max_threads(), pieces = (int64_t)((size_t)n * stride / (PIECE_LEAST / 2)) + 1;
    if (threads > pieces) threads = pieces;
    if (threads > n / (2 * k)) threads = n / (2 * k);
    return threads < 1 ? 1 : (int)threads;
}

static int64_t rows_of_piece(int64_t n, size_t stride, int threads)
{
    size_t bytes = (size_t)n * stride / (size_t)(PIECES * threads);
    if (bytes < PIECE_LEAST) bytes = PIECE_LEAST;
    return (int64_t)((bytes < PIECE_MOST ? bytes : PIECE_MOST) / stride) + 1;
}

static void scan_piece(const iso_scan_query *q, const uint8_t *rows, size_t stride, int64_t from, int64_t to, iso_best *best)
{
    enum { PLACES = 4, EACH = BLOCK / PLACES };
    float scores[BLOCK];
    iso_scan_places *places = kernels()->places[q->code];
    const int64_t apart = places ? (to - from) / PLACES : 0;
    for (int64_t i = 0; i < apart; i += EACH) {
        const int64_t n = apart - i < EACH ? apart - i : EACH;
        places(q, rows + (size_t)(from + i) * stride, apart, n, scores);
        for (int64_t k = 0; k < PLACES; k++) iso_best_offer(best, scores + k * n, n, from + k * apart + i, NULL);
    }
    for (int64_t i = from + PLACES * apart; i < to; i += BLOCK) {
        const int64_t n = to - i < BLOCK ? to - i : BLOCK;
        kernels()->scores[q->code](q, rows + (size_t)i * stride, NULL, n, scores);
        iso_best_offer(best, scores, n, i, NULL);
    }
}

iso_status iso_scan_best(const iso_scan_query *q, const void *rows, int64_t n, int64_t k, iso_ranked *out,
                         int64_t *found, iso_error *err)
{
    if (n <= 0) {
        *found = 0;
        return ISO_OK;
    }
    if (k > n) k = n;
    const size_t stride = (size_t)q->dim * (size_t)iso_code_bytes(q->code);
    const int threads = threads_for(n, stride, k);
    const int64_t piece = rows_of_piece(n, stride, threads), pieces = (n + piece - 1) / piece;
    iso_best all = {k, 0, out};
    iso_best *part = iso_calloc((size_t)threads, sizeof *part);
    iso_ranked *heaps = malloc(sizeof *heaps * (size_t)k * (size_t)(threads - 1) + 1);
    if (!part || !heaps) {
        free(part);
        free(heaps);
        return iso_fail_memory(err);
    }
    for (int t = 0; t < threads; t++) part[t] = (iso_best){k, 0, t ? heaps + (t - 1) * k : out};
#pragma omp parallel num_threads(threads)
    {
        iso_best mine = part[omp_get_thread_num()]; /* not in memory that the others write */
#pragma omp for schedule(dynamic) nowait
        for (int64_t p = 0; p < pieces; p++)
            scan_piece(q, rows, stride, p * piece, p + 1 < pieces ? (p + 1) * piece : n, &mine);
        part[omp_get_thread_num()] = mine;
    }
    all = part[0];
    for (int t = 1; t < threads; t++)
        for (int64_t i = 0; i < part[t].count; i++) keep(&all, part[t].heap[i]);
    iso_best_sort(&all);
    free(part);
    free(heaps);
    *found = all.count;
    return ISO_OK;
}
