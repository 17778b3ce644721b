/* reduce.c: sums over axes, in double.
 *
 * The axes are merged into runs that are kept or summed. What is summed is cut into chunks whose number depends on the
 * shape alone; chunks are added up by any thread and put together in order, so the result is the same for any number
 * of threads. */
#include <string.h>

#include "model/cpu/cpu.h"

enum {
    COLUMNS = 256,     /* output elements that a task adds up side by side */
    PIECE = 4096,      /* a summed innermost run is cut into pieces of this length */
    CHUNK = 64 << 10,  /* elements of a chunk, at least */
    MAX_CHUNKS = 64
};

typedef struct axis {
    int64_t n, stride;
} axis;

/* The sum as: for each kept index, for each summed index: add up a row of `inner` neighbours, into one output element
 * each (inner_kept) or all into one. */
typedef struct layout {
    axis kept[ISO_MAX_DIMS], summed[ISO_MAX_DIMS];
    int kept_axes, summed_axes;
    int64_t kept_count, summed_count, inner;
    bool inner_kept;
    int64_t pieces;     /* of an inner run that is summed */
    int64_t chunks, columns;
    int64_t together;   /* short rows one behind the other that are added as one long row */
} layout;

static void push(axis *list, int *count, int64_t n, int64_t stride)
{
    if (n == 1) return;
    if (*count > 0 && list[*count - 1].stride == n * stride) { /* neighbours in memory: one axis */
        list[*count - 1] = (axis){list[*count - 1].n * n, stride};
        return;
    }
    list[(*count)++] = (axis){n, stride};
}

static layout layout_of(const iso_shape *in, const iso_shape *out)
{
    layout l = {.kept_count = 1, .summed_count = 1, .inner = 1, .inner_kept = true};
    int64_t stride[ISO_MAX_DIMS], step = 1;
    for (int d = in->ndim - 1; d >= 0; d--) {
        stride[d] = step;
        step *= in->dim[d];
    }
    for (int d = 0; d < in->ndim; d++) {
        int o = d - (in->ndim - out->ndim);
        if (o >= 0 && out->dim[o] == in->dim[d]) push(l.kept, &l.kept_axes, in->dim[d], stride[d]);
        else push(l.summed, &l.summed_axes, in->dim[d], stride[d]);
    }
    if (l.summed_axes > 0 && l.summed[l.summed_axes - 1].stride == 1) {
        l.inner_kept = false;
        l.inner = l.summed[--l.summed_axes].n;
    } else if (l.kept_axes > 0 && l.kept[l.kept_axes - 1].stride == 1) {
        l.inner = l.kept[--l.kept_axes].n;
    }
    for (int i = 0; i < l.kept_axes; i++) l.kept_count *= l.kept[i].n;
    for (int i = 0; i < l.summed_axes; i++) l.summed_count *= l.summed[i].n;
    l.pieces = l.inner_kept ? 1 : iso_ceil_div(l.inner, PIECE);
    l.columns = l.inner_kept ? iso_ceil_div(l.inner, COLUMNS) : 1;
    l.together = 1;
    if (l.inner_kept && l.summed_axes == 1 && l.summed[0].stride == l.inner) l.together = iso_max64(COLUMNS / l.inner, 1);
    const int64_t units = l.summed_count * l.pieces;
    const int64_t work = units * (l.inner_kept ? iso_min64(l.inner, COLUMNS) : iso_min64(l.inner, PIECE));
    l.chunks = iso_max64(1, iso_min64(iso_min64(work / CHUNK, MAX_CHUNKS), units));
    return l;
}

static int64_t offset_of(const axis *axes, int count, int64_t index)
{
    int64_t offset = 0;
    for (int d = count - 1; d >= 0; d--) {
        offset += index % axes[d].n * axes[d].stride;
        index /= axes[d].n;
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
    const float *base = x + offset_of(l->kept, l->kept_axes, kept);
    memset(total, 0, (size_t)width * sizeof *total);
    if (l->together > 1) {
        double wide[COLUMNS] = {0};
        for (int64_t u = first; u < last; u += l->together)
            add_row(iso_min64(l->together, last - u) * width, base + u * width, wide);
        for (int64_t i = 0; i < l->together * width; i++) total[i % width] += wide[i];
        return;
    }
    for (int64_t u = first; u < last; u++) {
        const float *row = base + offset_of(l->summed, l->summed_axes, u / l->pieces);
        if (l->inner_kept) {
            add_row(width, row + column, total);
        } else {
            int64_t start = u % l->pieces * PIECE;
            total[0] += add_all(iso_min64(PIECE, l->inner - start), row + start);
        }
    }
}

size_t iso_cpu_sum_workspace(const iso_call *call)
{
    const layout l = layout_of(&call->in[0].shape, &call->out.shape);
    if (l.chunks == 1) return 0;
    return (size_t)(l.chunks * l.kept_count * (l.inner_kept ? l.inner : 1)) * sizeof(double);
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
    s.inner = l->inner_kept ? l->inner : 1;
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
