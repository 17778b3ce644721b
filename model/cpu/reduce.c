/* reduce.c: sums over axes, in double.
 *
 * The axes are merged into runs that are kept or summed. What is summed is cut into chunks whose number depends on the
 * shape alone; chunks are added up by any thread and put together in order, so the result is the same for any number
 * of threads. */
#include <string.h>

#include "model/cpu/cpu.h"
#include "model/graph/axes.h"

enum {
    COLUMNS = 256,     /* output elements that a task adds up side by side */
    PIECE = 4096,      /* a summed innermost run is cut into pieces of this length */
    CHUNK = 64 << 10,  /* elements of a chunk, at least */
    MAX_CHUNKS = 64
};

typedef struct layout {
    iso_reduction r;
    int64_t kept_count, summed_count;
    int64_t pieces;     /* of an inner run that is summed */
    int64_t chunks, columns;
    int64_t together;   /* short rows one behind the other that are added as one long row */
} layout;

static layout layout_of(const iso_shape *in, const iso_shape *out)
{
    layout l = {.r = iso_reduction_of(in, out), .together = 1};
    const iso_reduction *r = &l.r;
    l.kept_count = iso_axes_count(&r->kept);
    l.summed_count = iso_axes_count(&r->summed);
    l.pieces = r->inner_kept ? 1 : iso_ceil_div(r->inner, PIECE);
    l.columns = r->inner_kept ? iso_ceil_div(r->inner, COLUMNS) : 1;
    if (r->inner_kept && r->summed.count == 1 && r->summed.at[0].stride == r->inner) l.together = iso_max64(COLUMNS / r->inner, 1);
    const int64_t units = l.summed_count * l.pieces;
    const int64_t work = units * (r->inner_kept ? iso_min64(r->inner, COLUMNS) : iso_min64(r->inner, PIECE));
    l.chunks = iso_max64(1, iso_min64(iso_min64(work / CHUNK, MAX_CHUNKS), units));
    return l;
}

static int64_t offset_of(const iso_axes *a, int64_t index)
{
    int64_t offset = 0;
    for (int d = a->count - 1; d >= 0; d--) {
        offset += index % a->at[d].n * a->at[d].stride;
        index /= a->at[d].n;
    }
    return offset;
}

ISO_CLONES static void add_row(int64_t n, const float *row, double *total)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) total[i] += (double)row[i];
}

/* Sixteen sums side by side, then one. */
ISO_CLONES static double add_all(int64_t n, const float *row)
{
    double lane[16] = {0}, total = 0;
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
#pragma omp simd
        for (int j = 0; j < 16; j++) lane[j] += (double)row[i + j];
    }
    for (; i < n; i++) lane[i % 16] += (double)row[i];
    for (int j = 0; j < 16; j++) total += lane[j];
    return total;
}

/* One chunk for one kept index and one block of columns; `total` has as many entries as the block has columns. */
static void sum_chunk(const layout *l, const float *x, int64_t kept, int64_t column, int64_t width, int64_t chunk, double *total)
{
    const int64_t units = l->summed_count * l->pieces;
    const int64_t first = units * chunk / l->chunks, last = units * (chunk + 1) / l->chunks;
    const float *base = x + offset_of(&l->r.kept, kept);
    memset(total, 0, (size_t)width * sizeof *total);
    if (l->together > 1) {
        double wide[COLUMNS] = {0};
        for (int64_t u = first; u < last; u += l->together)
            add_row(iso_min64(l->together, last - u) * width, base + u * width, wide);
        for (int64_t i = 0; i < l->together * width; i++) total[i % width] += wide[i];
        return;
    }
    for (int64_t u = first; u < last; u++) {
        const float *row = base + offset_of(&l->r.summed, u / l->pieces);
        if (l->r.inner_kept) {
            add_row(width, row + column, total);
        } else {
            int64_t start = u % l->pieces * PIECE;
            total[0] += add_all(iso_min64(PIECE, l->r.inner - start), row + start);
        }
    }
}

size_t iso_cpu_sum_workspace(const iso_call *call)
{
    const layout l = layout_of(&call->in[0].shape, &call->out.shape);
    if (l.chunks == 1) return 0;
    return (size_t)(l.chunks * l.kept_count * (l.r.inner_kept ? l.r.inner : 1)) * sizeof(double);
}

typedef struct summing {
    const iso_call *call;
    layout l;
    int64_t inner, outputs;
} summing;

static void sum_task(void *context, int64_t t)
{
    const summing *s = context;
    const layout *l = &s->l;
    const int64_t chunk = t % l->chunks, column = t / l->chunks % l->columns * COLUMNS, kept = t / l->chunks / l->columns;
    const int64_t width = iso_min64(COLUMNS, s->inner - column), at = kept * s->inner + column;
    double total[COLUMNS], *partial = s->call->workspace;
    sum_chunk(l, s->call->in[0].data, kept, column, width, chunk, total);
    if (l->chunks == 1)
        for (int64_t i = 0; i < width; i++) iso_cpu_put_sum(s->call, at + i, total[i]);
    else
        memcpy(partial + chunk * s->outputs + at, total, (size_t)width * sizeof *total);
}

void iso_cpu_sum(const iso_call *call)
{
    summing s = {.call = call, .l = layout_of(&call->in[0].shape, &call->out.shape)};
    const layout *l = &s.l;
    const double *partial = call->workspace;
    s.inner = l->r.inner_kept ? l->r.inner : 1;
    s.outputs = l->kept_count * s.inner;
    iso_cpu_each(iso_cpu_threads(call->threads, iso_shape_count(&call->in[0].shape) * (int64_t)sizeof(float)), l->kept_count * l->columns * l->chunks,
                 sum_task, &s);
    if (l->chunks == 1) return;
    for (int64_t i = 0; i < s.outputs; i++) {
        double total = 0;
        for (int64_t c = 0; c < l->chunks; c++) total += partial[c * s.outputs + i];
        iso_cpu_put_sum(call, i, total);
    }
}

void iso_cpu_join(const iso_call *call)
{
    const double *lots = call->in[0].data;
    float *out = call->out.data;
    const int64_t n = iso_shape_count(&call->out.shape), count = call->in[0].shape.dim[0];
    for (int64_t i = 0; i < n; i++) {
        double total = 0;
        for (int64_t k = 0; k < count; k++) total += lots[k * n + i];
        out[i] = (float)total;
    }
}
