/* move.c: the ops that only move numbers. */
#include <math.h>
#include <string.h>

#include "model/cpu/cpu.h"
#include "model/cpu/elementwise.h"
#include "model/graph/axes.h"

/* Bytes moved in and out, for the choice of threads. */
static int threads_for(const iso_call *call, int64_t elements)
{
    return iso_cpu_threads(call->threads, elements * 2 * (int64_t)sizeof(float));
}

static void copy(float *to, const float *from, int64_t n)
{
    if (n > 0) memcpy(to, from, (size_t)n * sizeof(float));
}

static void zero(float *to, int64_t n)
{
    if (n > 0) memset(to, 0, (size_t)n * sizeof(float));
}

/* --- one axis of a shape: [outer, n, inner] */

void iso_cpu_slice(const iso_call *call)
{
    const iso_shape *in = &call->in[0].shape;
    const int axis = (int)call->attr.i[0];
    const iso_slab s = iso_slab_of(in, axis);
    const int64_t n = in->dim[axis] * s.inner, start = call->attr.i[1] * s.inner, length = call->attr.i[2] * s.inner;
    const float *x = call->in[0].data;
    float *y = call->out.data;
    const int threads = threads_for(call, s.outer * length);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t o = 0; o < s.outer; o++) copy(y + o * length, x + o * n + start, length);
}

void iso_cpu_pad(const iso_call *call)
{
    const iso_shape *in = &call->in[0].shape;
    const int axis = (int)call->attr.i[0];
    const iso_slab s = iso_slab_of(in, axis);
    const int64_t n = in->dim[axis] * s.inner, before = call->attr.i[1] * s.inner, total = call->attr.i[2] * s.inner;
    const float *x = call->in[0].data;
    float *y = call->out.data;
    const int threads = threads_for(call, s.outer * total);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t o = 0; o < s.outer; o++) {
        float *to = y + o * total;
        zero(to, before);
        copy(to + before, x + o * n, n);
        zero(to + before + n, total - before - n);
    }
}

void iso_cpu_concat(const iso_call *call)
{
    const int axis = (int)call->attr.i[0];
    const iso_slab s = iso_slab_of(&call->in[0].shape, axis);
    const int64_t na = call->in[0].shape.dim[axis] * s.inner, nb = call->in[1].shape.dim[axis] * s.inner;
    const float *a = call->in[0].data, *b = call->in[1].data;
    float *y = call->out.data;
    const int threads = threads_for(call, s.outer * (na + nb));
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t o = 0; o < s.outer; o++) {
        copy(y + o * (na + nb), a + o * na, na);
        copy(y + o * (na + nb) + na, b + o * nb, nb);
    }
}

void iso_cpu_broadcast(const iso_call *call)
{
    const iso_shape *in = &call->in[0].shape, *out = &call->out.shape;
    const float *x = call->in[0].data;
    float *y = call->out.data;
    int64_t n[ISO_MAX_DIMS], stride[ISO_MAX_DIMS], step = 1;
    for (int d = ISO_MAX_DIMS - 1; d >= 0; d--) { /* aligned at the right; missing axes are 1 */
        int o = d - (ISO_MAX_DIMS - out->ndim), i = d - (ISO_MAX_DIMS - in->ndim);
        n[d] = o >= 0 ? out->dim[o] : 1;
        stride[d] = i >= 0 && in->dim[i] != 1 ? step : 0;
        if (i >= 0) step *= in->dim[i];
    }
    const int64_t rows = n[0] * n[1] * n[2];
    const int threads = threads_for(call, rows * n[3]);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t r = 0; r < rows; r++) {
        const float *from = x + r / (n[1] * n[2]) * stride[0] + r / n[2] % n[1] * stride[1] + r % n[2] * stride[2];
        if (stride[3]) copy(y + r * n[3], from, n[3]);
        else iso_elementwise_fill(n[3], *from, y + r * n[3]);
    }
}

/* --- permute */

enum { TILE = 16 };

/* y[j * y_pitch + i] = x[i * x_pitch + j] for i < ni, j < nj. */
static void transpose_tile(const float *x, int64_t x_pitch, int ni, int nj, float *y, int64_t y_pitch)
{
    const int wi = ni / 4 * 4, wj = nj / 4 * 4;
    for (int j = 0; j < wj; j += 4)
        for (int i = 0; i < wi; i += 4) iso_transpose4(x + i * x_pitch + j, x_pitch, y + j * y_pitch + i, y_pitch);
    for (int j = 0; j < nj; j++)
        for (int i = j < wj ? wi : 0; i < ni; i++) y[j * y_pitch + i] = x[i * x_pitch + j];
}

/* The last axis stays last: rows. */
static void permute_rows(const iso_call *call, const iso_axes *a)
{
    const float *x = call->in[0].data;
    float *y = call->out.data;
    const int last = a->count - 1;
    const int64_t n = a->at[last].n, rows = iso_axes_count(a) / n;
    const int threads = threads_for(call, rows * n);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t r = 0; r < rows; r++) {
        int64_t offset = 0, rest = r;
        for (int d = last - 1; d >= 0; d--) {
            offset += rest % a->at[d].n * a->at[d].stride;
            rest /= a->at[d].n;
        }
        copy(y + r * n, x + offset, n);
    }
}

/* Transposes the plane of the input's last axis (output axis `fast`) and the output's last axis, tile by tile; the other
 * axes count the planes. */
static void permute_planes(const iso_call *call, const iso_axes *a, int fast)
{
    const float *x = call->in[0].data;
    float *y = call->out.data;
    const int last = a->count - 1;
    int64_t to[ISO_MAX_DIMS], planes = 1, step = 1;
    for (int d = last; d >= 0; d--) {
        to[d] = step;
        step *= a->at[d].n;
        if (d != last && d != fast) planes *= a->at[d].n;
    }
    const int64_t ni = a->at[last].n, nj = a->at[fast].n, tiles_i = iso_ceil_div(ni, TILE), tiles_j = iso_ceil_div(nj, TILE);
    const int threads = threads_for(call, step);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t t = 0; t < planes * tiles_j; t++) {
        int64_t from_offset = 0, to_offset = 0, rest = t / tiles_j;
        for (int d = last - 1; d >= 0; d--) {
            if (d == fast) continue;
            from_offset += rest % a->at[d].n * a->at[d].stride;
            to_offset += rest % a->at[d].n * to[d];
            rest /= a->at[d].n;
        }
        const int64_t j = t % tiles_j * TILE;
        for (int64_t i = 0; i < tiles_i * TILE; i += TILE)
            transpose_tile(x + from_offset + i * a->at[last].stride + j, a->at[last].stride, (int)iso_min64(TILE, ni - i),
                           (int)iso_min64(TILE, nj - j), y + to_offset + j * to[fast] + i, to[fast]);
    }
}

void iso_cpu_permute(const iso_call *call)
{
    if (iso_shape_count(&call->out.shape) == 0) return;
    const iso_axes a = iso_axes_permuted(call);
    int fast = 0;
    while (a.at[fast].stride != 1) fast++;
    if (fast == a.count - 1) permute_rows(call, &a);
    else permute_planes(call, &a, fast);
}

/* --- rows by index */

/* An index outside gives a row of NaN: a kernel cannot fail, and nothing wrong goes on unseen. */
void iso_cpu_gather(const iso_call *call)
{
    const int64_t rows = call->out.shape.dim[0], n = iso_row_length(&call->out.shape), limit = call->in[0].shape.dim[0];
    const float *x = call->in[0].data;
    const int64_t *index = call->in[1].data;
    float *y = call->out.data;
    const int threads = threads_for(call, rows * n);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (int64_t r = 0; r < rows; r++) {
        if (index[r] >= 0 && index[r] < limit) copy(y + r * n, x + index[r] * n, n);
        else iso_elementwise_fill(n, NAN, y + r * n);
    }
}

/* A thread owns some output rows and adds to them in the order of the index: the same sum for any number of threads. */
void iso_cpu_scatter(const iso_call *call)
{
    const int64_t rows = call->out.shape.dim[0], n = iso_row_length(&call->out.shape), m = call->in[0].shape.dim[0];
    const float *y = call->in[0].data;
    const int64_t *index = call->in[1].data;
    float *x = call->out.data;
    const int threads = threads_for(call, (rows + m) * n);
    const int64_t share = iso_ceil_div(rows, threads);
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
    for (int t = 0; t < threads; t++) {
        const int64_t first = t * share, last = iso_min64(first + share, rows);
        zero(x + first * n, (last - first) * n);
        for (int64_t r = 0; r < m; r++)
            if (index[r] >= first && index[r] < last)
                iso_elementwise_run(ISO_OP_ADD, n, x + index[r] * n, y + r * n, 0, x + index[r] * n);
    }
}
