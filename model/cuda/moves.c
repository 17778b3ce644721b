/* moves.c: what only moves or sums: shapes to the kernels of kernels.h. */
#include "model/cuda/cuda.h"

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

/* A tensor as [outer, axis, inner]. */
typedef struct slab {
    int64_t outer, inner;
} slab;

static slab slab_of(const iso_shape *s, int64_t axis)
{
    slab b = {1, 1};
    for (int d = 0; d < s->ndim; d++) {
        if (d < axis) b.outer *= s->dim[d];
        if (d > axis) b.inner *= s->dim[d];
    }
    return b;
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
    const slab s = slab_of(&call->in[0].shape, axis);
    const int64_t pitch = call->in[0].shape.dim[axis] * s.inner, length = call->attr.i[2] * s.inner;
    move_rows((const float *)call->in[0].data + call->attr.i[1] * s.inner, pitch, call->out.data, length, s.outer, length);
}

void iso_cuda_pad_op(const iso_call *call)
{
    const int64_t axis = call->attr.i[0];
    const slab s = slab_of(&call->in[0].shape, axis);
    const iso_cuda_pad p = {.from = call->in[0].data, .to = call->out.data, .outer = s.outer, .total = call->attr.i[2] * s.inner,
                            .before = call->attr.i[1] * s.inner, .n = call->in[0].shape.dim[axis] * s.inner};
    (void)iso_cuda_ok(iso_cuda_pad_run(&p, iso_cuda_get()->stream), "padding");
}

void iso_cuda_concat(const iso_call *call)
{
    const int64_t axis = call->attr.i[0];
    const slab s = slab_of(&call->in[0].shape, axis);
    const int64_t a = call->in[0].shape.dim[axis] * s.inner, b = call->in[1].shape.dim[axis] * s.inner;
    move_rows(call->in[0].data, a, call->out.data, a + b, s.outer, a);
    move_rows(call->in[1].data, b, (float *)call->out.data + a, a + b, s.outer, b);
}

/* --- permute */

typedef struct moved {
    int axes;
    int64_t n[AXES], from[AXES], to[AXES]; /* output axes: size, strides in the input and in the output */
} moved;

/* The permutation with axes of one element left out, and axes that stay neighbours merged. */
static moved simplify(const iso_call *call)
{
    const iso_shape *in = &call->in[0].shape;
    int64_t stride[AXES], step = 1;
    for (int d = in->ndim - 1; d >= 0; d--) {
        stride[d] = step;
        step *= in->dim[d];
    }
    moved m = {0};
    for (int d = 0; d < in->ndim; d++) {
        const int64_t n = in->dim[call->attr.i[d]], from = stride[call->attr.i[d]];
        if (n == 1) continue;
        if (m.axes > 0 && m.from[m.axes - 1] == n * from) {
            m.n[m.axes - 1] *= n;
            m.from[m.axes - 1] = from;
        } else {
            m.n[m.axes] = n;
            m.from[m.axes++] = from;
        }
    }
    if (m.axes == 0) m = (moved){.axes = 1, .n = {1}, .from = {1}};
    step = 1;
    for (int d = m.axes - 1; d >= 0; d--) {
        m.to[d] = step;
        step *= m.n[d];
    }
    return m;
}

/* The last axis stays last. */
static void permute_rows(const iso_call *call, const moved *m)
{
    iso_cuda_move move_all = {.from = call->in[0].data, .to = call->out.data, .n = {1, 1, 1, 1}};
    for (int d = 0; d < m->axes; d++) {
        const int to = AXES - m->axes + d;
        move_all.n[to] = m->n[d];
        move_all.from_stride[to] = m->from[d];
        move_all.to_stride[to] = m->to[d];
    }
    move(&move_all);
}

/* The input's last axis is output axis `fast`; with the output's last axis it makes planes, which the other axes count. */
static void permute_planes(const iso_call *call, const moved *m, int fast)
{
    const int last = m->axes - 1;
    iso_cuda_transpose t = {.from = call->in[0].data, .to = call->out.data, .ni = m->n[last], .nj = m->n[fast],
                            .from_pitch = m->from[last], .to_pitch = m->to[fast], .planes = {1, 1}};
    for (int d = 0, p = 0; d < last; d++) {
        if (d == fast) continue;
        t.planes[p] = m->n[d];
        t.from_plane[p] = m->from[d];
        t.to_plane[p++] = m->to[d];
    }
    (void)iso_cuda_ok(iso_cuda_transpose_run(&t, iso_cuda_get()->stream), "a permutation");
}

void iso_cuda_permute(const iso_call *call)
{
    const moved m = simplify(call);
    int fast = 0;
    while (m.from[fast] != 1) fast++;
    if (fast == m.axes - 1)
        permute_rows(call, &m);
    else
        permute_planes(call, &m, fast);
}

/* --- rows by index */

static int64_t row_length(const iso_shape *s)
{
    int64_t n = 1;
    for (int d = 1; d < s->ndim; d++) n *= s->dim[d];
    return n;
}

void iso_cuda_gather(const iso_call *call)
{
    const iso_cuda_rows r = {.from = call->in[0].data, .to = call->out.data, .index = call->in[1].data,
                             .rows = call->out.shape.dim[0], .n = row_length(&call->out.shape), .limit = call->in[0].shape.dim[0]};
    (void)iso_cuda_ok(iso_cuda_gather_run(&r, iso_cuda_get()->stream), "a gather");
}

void iso_cuda_scatter(const iso_call *call)
{
    const iso_cuda_rows r = {.from = call->in[0].data, .to = call->out.data, .index = call->in[1].data,
                             .rows = call->in[0].shape.dim[0], .n = row_length(&call->out.shape), .limit = call->out.shape.dim[0]};
    (void)iso_cuda_ok(iso_cuda_scatter_run(&r, iso_cuda_get()->stream), "a scatter");
}

/* --- sum */

typedef struct axis_list {
    int count;
    int64_t n[AXES], stride[AXES];
} axis_list;

static void push(axis_list *list, int64_t n, int64_t stride)
{
    if (n == 1) return;
    const int last = list->count - 1;
    if (last >= 0 && list->stride[last] == n * stride) { /* neighbours in memory: one axis */
        list->n[last] *= n;
        list->stride[last] = stride;
        return;
    }
    list->n[list->count] = n;
    list->stride[list->count++] = stride;
}

/* Aligned at the right, as the kernel wants it. */
static int64_t spread(const axis_list *list, int64_t n[AXES], int64_t stride[AXES])
{
    int64_t count = 1;
    for (int d = 0; d < AXES; d++) {
        const int from = d - (AXES - list->count);
        n[d] = from >= 0 ? list->n[from] : 1;
        stride[d] = from >= 0 ? list->stride[from] : 0;
        count *= n[d];
    }
    return count;
}

static iso_cuda_sum sum_of(const iso_call *call, size_t *bytes)
{
    const iso_shape *in = &call->in[0].shape, *out = &call->out.shape;
    iso_cuda_sum s = {.from = call->in[0].data, .to = call->out.data, .partial = call->workspace, .inner = 1, .inner_kept = 1};
    axis_list kept = {0}, summed = {0};
    int64_t stride[AXES], step = 1;
    for (int d = in->ndim - 1; d >= 0; d--) {
        stride[d] = step;
        step *= in->dim[d];
    }
    for (int d = 0; d < in->ndim; d++) {
        const int o = d - (in->ndim - out->ndim);
        push(o >= 0 && out->dim[o] == in->dim[d] ? &kept : &summed, in->dim[d], stride[d]);
    }
    if (summed.count > 0 && summed.stride[summed.count - 1] == 1) {
        s.inner_kept = 0;
        s.inner = summed.n[--summed.count];
    } else if (kept.count > 0 && kept.stride[kept.count - 1] == 1) {
        s.inner = kept.n[--kept.count];
    }
    s.kept_count = spread(&kept, s.kept_n, s.kept_stride);
    s.summed_count = spread(&summed, s.summed_n, s.summed_stride);
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
