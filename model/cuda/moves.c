/* moves.c: what only moves or sums: shapes to the kernels of kernels.h. */
#include "model/cuda/cuda.h"
#include "model/graph/axes.h"

enum { AXES = ISO_MAX_DIMS };
_Static_assert((int)ISO_CUDA_AXES == (int)ISO_MAX_DIMS, "kernels.h has as many axes");

/* Strides of a tensor over four axes, aligned at the right; sizes where n is given. */
static void strides_of(const iso_shape *s, int64_t stride[AXES], int64_t n[AXES])
{
    int64_t step = 1;
    for (int d = AXES - 1; d >= 0; d--) {
        const int axis = d - (AXES - s->ndim);
        const int64_t size = axis >= 0 ? s->dim[axis] : 1;
        stride[d] = step;
        if (n) n[d] = size;
        step *= size;
    }
}

static void move(const iso_cuda_move *m)
{
    (void)iso_cuda_ok(iso_cuda_move_run(m, iso_cuda_get()->stream), "moving numbers");
}

/* Axes aligned at the right, as kernels want them. */
static void spread(const iso_axes *a, int64_t n[AXES], int64_t stride[AXES])
{
    for (int d = 0; d < AXES; d++) {
        const int from = d - (AXES - a->count);
        n[d] = from >= 0 ? a->at[from].n : 1;
        stride[d] = from >= 0 ? a->at[from].stride : 0;
    }
}

void iso_cuda_broadcast(const iso_call *call)
{
    iso_cuda_move m = {.from = call->in[0].data, .to = call->out.data};
    int64_t size[AXES];
    strides_of(&call->out.shape, m.to_stride, m.n);
    strides_of(&call->in[0].shape, m.from_stride, size);
    for (int d = 0; d < AXES; d++)
        if (size[d] == 1) m.from_stride[d] = 0;
    move(&m);
}

/* Rows of `length` from pitch to pitch. */
static void move_rows(const float *from, int64_t from_pitch, float *to, int64_t to_pitch, int64_t rows, int64_t length)
{
    const iso_cuda_move m = {.from = from, .to = to, .n = {1, 1, rows, length},
                             .from_stride = {0, 0, from_pitch, 1}, .to_stride = {0, 0, to_pitch, 1}};
    move(&m);
}

void iso_cuda_slice(const iso_call *call)
{
    const int64_t axis = call->attr.i[0];
    const iso_slab s = iso_slab_of(&call->in[0].shape, axis);
    const int64_t pitch = call->in[0].shape.dim[axis] * s.inner, length = call->attr.i[2] * s.inner;
    move_rows((const float *)call->in[0].data + call->attr.i[1] * s.inner, pitch, call->out.data, length, s.outer, length);
}

void iso_cuda_pad_op(const iso_call *call)
{
    const int64_t axis = call->attr.i[0];
    const iso_slab s = iso_slab_of(&call->in[0].shape, axis);
    const iso_cuda_pad p = {.from = call->in[0].data, .to = call->out.data, .outer = s.outer, .total = call->attr.i[2] * s.inner,
                            .before = call->attr.i[1] * s.inner, .n = call->in[0].shape.dim[axis] * s.inner};
    (void)iso_cuda_ok(iso_cuda_pad_run(&p, iso_cuda_get()->stream), "padding");
}

void iso_cuda_concat(const iso_call *call)
{
    const int64_t axis = call->attr.i[0];
    const iso_slab s = iso_slab_of(&call->in[0].shape, axis);
    const int64_t a = call->in[0].shape.dim[axis] * s.inner, b = call->in[1].shape.dim[axis] * s.inner;
    move_rows(call->in[0].data, a, call->out.data, a + b, s.outer, a);
    move_rows(call->in[1].data, b, (float *)call->out.data + a, a + b, s.outer, b);
}

/* --- permute */

/* Strides of the axes side by side, as an output of them has. */
static void pack(const iso_axes *a, int64_t stride[AXES])
{
    int64_t step = 1;
    for (int d = a->count - 1; d >= 0; d--) {
        stride[d] = step;
        step *= a->at[d].n;
    }
}

/* The last axis stays last. */
static void permute_rows(const iso_call *call, const iso_axes *a)
{
    iso_cuda_move m = {.from = call->in[0].data, .to = call->out.data};
    spread(a, m.n, m.from_stride);
    pack(a, m.to_stride + AXES - a->count);
    move(&m);
}

/* The input's last axis is output axis `fast`; with the output's last axis it makes planes, which the other axes count. */
static void permute_planes(const iso_call *call, const iso_axes *a, int fast)
{
    const int last = a->count - 1;
    int64_t to[AXES];
    pack(a, to);
    iso_cuda_transpose t = {.from = call->in[0].data, .to = call->out.data, .ni = a->at[last].n, .nj = a->at[fast].n,
                            .from_pitch = a->at[last].stride, .to_pitch = to[fast], .planes = {1, 1}};
    for (int d = 0, p = 0; d < last; d++) {
        if (d == fast) continue;
        t.planes[p] = a->at[d].n;
        t.from_plane[p] = a->at[d].stride;
        t.to_plane[p++] = to[d];
    }
    (void)iso_cuda_ok(iso_cuda_transpose_run(&t, iso_cuda_get()->stream), "a permutation");
}

void iso_cuda_permute(const iso_call *call)
{
    const iso_axes a = iso_axes_permuted(call);
    int fast = 0;
    while (a.at[fast].stride != 1) fast++;
    if (fast == a.count - 1)
        permute_rows(call, &a);
    else
        permute_planes(call, &a, fast);
}

/* --- rows by index */

void iso_cuda_gather(const iso_call *call)
{
    const iso_cuda_rows r = {.from = call->in[0].data, .to = call->out.data, .index = call->in[1].data,
                             .rows = call->out.shape.dim[0], .n = iso_row_length(&call->out.shape), .limit = call->in[0].shape.dim[0]};
    (void)iso_cuda_ok(iso_cuda_gather_run(&r, iso_cuda_get()->stream), "a gather");
}

void iso_cuda_scatter(const iso_call *call)
{
    const iso_cuda_rows r = {.from = call->in[0].data, .to = call->out.data, .index = call->in[1].data,
                             .rows = call->in[0].shape.dim[0], .n = iso_row_length(&call->out.shape), .limit = call->out.shape.dim[0]};
    (void)iso_cuda_ok(iso_cuda_scatter_run(&r, iso_cuda_get()->stream), "a scatter");
}

/* --- sum */

static iso_cuda_sum sum_of(const iso_call *call, size_t *bytes)
{
    const iso_reduction r = iso_reduction_of(&call->in[0].shape, &call->out.shape);
    iso_cuda_sum s = {.from = call->in[0].data, .to = call->out.data, .partial = call->workspace, .inner = r.inner, .inner_kept = r.inner_kept,
                      .kept_count = iso_axes_count(&r.kept), .summed_count = iso_axes_count(&r.summed)};
    spread(&r.kept, s.kept_n, s.kept_stride);
    spread(&r.summed, s.summed_n, s.summed_stride);
    *bytes = iso_cuda_sum_plan(&s);
    return s;
}

size_t iso_cuda_sum_workspace(const iso_call *call)
{
    size_t bytes;
    (void)sum_of(call, &bytes);
    return bytes;
}

void iso_cuda_sum_op(const iso_call *call)
{
    size_t bytes;
    const iso_cuda_sum s = sum_of(call, &bytes);
    (void)iso_cuda_ok(iso_cuda_sum_run(&s, iso_cuda_get()->stream), "a sum");
}
