#include "model/graph/axes.h"

static void push(iso_axes *a, int64_t n, int64_t stride)
{
    if (n == 1) return;
    iso_axis *last = a->count ? &a->at[a->count - 1] : NULL;
    if (last && last->stride == n * stride) *last = (iso_axis){last->n * n, stride};
    else a->at[a->count++] = (iso_axis){n, stride};
}

static void strides_of(const iso_shape *s, int64_t stride[ISO_MAX_DIMS])
{
    int64_t step = 1;
    for (int d = s->ndim - 1; d >= 0; d--) {
        stride[d] = step;
        step *= s->dim[d];
    }
}

int64_t iso_axes_count(const iso_axes *a)
{
    int64_t count = 1;
    for (int i = 0; i < a->count; i++) count *= a->at[i].n;
    return count;
}

iso_axes iso_axes_permuted(const iso_call *call)
{
    const iso_shape *in = &call->in[0].shape;
    int64_t stride[ISO_MAX_DIMS];
    iso_axes a = {0};
    strides_of(in, stride);
    for (int d = 0; d < in->ndim; d++) push(&a, in->dim[call->attr.i[d]], stride[call->attr.i[d]]);
    if (!a.count) a.at[a.count++] = (iso_axis){1, 1};
    return a;
}

iso_reduction iso_reduction_of(const iso_shape *in, const iso_shape *out)
{
    iso_reduction r = {.inner = 1, .inner_kept = true};
    int64_t stride[ISO_MAX_DIMS];
    strides_of(in, stride);
    for (int d = 0; d < in->ndim; d++) {
        const int o = d - (in->ndim - out->ndim);
        push(o >= 0 && out->dim[o] == in->dim[d] ? &r.kept : &r.summed, in->dim[d], stride[d]);
    }
    r.inner_kept = !(r.summed.count && r.summed.at[r.summed.count - 1].stride == 1);
    iso_axes *last = r.inner_kept ? &r.kept : &r.summed;
    if (last->count && last->at[last->count - 1].stride == 1) r.inner = last->at[--last->count].n;
    return r;
}

iso_slab iso_slab_of(const iso_shape *s, int64_t axis)
{
    iso_slab b = {1, 1};
    for (int d = 0; d < s->ndim; d++) {
        if (d < axis) b.outer *= s->dim[d];
        if (d > axis) b.inner *= s->dim[d];
    }
    return b;
}

int64_t iso_row_length(const iso_shape *s)
{
    int64_t n = 1;
    for (int d = 1; d < s->ndim; d++) n *= s->dim[d];
    return n;
}
