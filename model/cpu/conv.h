/* conv.h: the sizes of convolutions, for the files that compute them. */
#ifndef ISO_CPU_CONV_H
#define ISO_CPU_CONV_H

#include <stdbool.h>

#include "model/cpu/cpu.h"

/* The sizes of a convolution, from whichever of its three tensors are there. batch: of the call, which may be a slice. */
typedef struct iso_conv_sizes {
    int64_t batch, h, w, c, oh, ow, o, kh, kw, stride, pad;
} iso_conv_sizes;

static inline iso_conv_sizes iso_conv_sizes_of(const iso_shape *x, const iso_shape *w, const iso_shape *y, const iso_attr *attr)
{
    return (iso_conv_sizes){x->dim[0], x->dim[1], x->dim[2], x->dim[3], y->dim[1],    y->dim[2],
                      y->dim[3], w->dim[1], w->dim[2], attr->i[0], attr->i[1]};
}

static inline iso_conv_sizes iso_conv_sizes_of_call(iso_op op, const iso_call *call)
{
    const iso_shape *in = &call->in[0].shape, *second = &call->in[1].shape, *out = &call->out.shape;
    if (op == ISO_OP_CONV) return iso_conv_sizes_of(in, second, out, &call->attr);
    return op == ISO_OP_CONV_X ? iso_conv_sizes_of(out, second, in, &call->attr) : iso_conv_sizes_of(in, out, second, &call->attr);
}

/* Images of a slice (iso_slicing): as many as fit, but at least so many; `numbers`: of an image. 0 where that gives too few slices for several
 * threads. */
enum { ISO_CPU_SLICE = 2 << 20 /* bytes */ };
static inline int64_t iso_cpu_slice_images(int64_t batch, int64_t least, int64_t numbers)
{
    enum { SLICES = 8 };
    int64_t n = 1;
    while (n < least || 2 * n * numbers * (int64_t)sizeof(float) <= ISO_CPU_SLICE) n *= 2;
    return batch >= SLICES * n ? n : 0;
}

/* Along one axis: the pixels h = first, first + stride, ... of x meet only the kernel elements k with
 * k = first + pad (mod stride). Those pixels are then a convolution of stride 1 over y: pixel number i meets
 * y[i - pad' ... i - pad' + taps-1] with kernel elements last, last - stride, ... */
typedef struct iso_axis_class {
    int64_t pixels, taps, last, pad;
} iso_axis_class;

static inline iso_axis_class iso_axis_class_of(int64_t size, int64_t kernel, int64_t stride, int64_t pad, int64_t first)
{
    const int64_t residue = (first + pad) % stride;
    iso_axis_class a = {.pixels = first < size ? iso_ceil_div(size - first, stride) : 0};
    a.taps = residue < kernel ? iso_ceil_div(kernel - residue, stride) : 0;
    a.last = residue + (a.taps - 1) * stride;
    a.pad = a.taps - 1 - (first + pad - residue) / stride;
    return a;
}

/* conv_few.c: 1 x 1 convolutions with an image of few channels. conv and conv_x do the call's tail. */
bool iso_few_fits(const iso_conv_sizes *s, const iso_call *call);
size_t iso_few_w_workspace(const iso_conv_sizes *s); /* bytes; the other two need none */
void iso_few_conv(const iso_conv_sizes *s, const iso_call *call);
void iso_few_conv_x(const iso_conv_sizes *s, const iso_call *call);
void iso_few_conv_w(const iso_conv_sizes *s, const iso_call *call);

/* conv_image.c: larger kernels over an image of few channels, without padding. conv does the call's tail. */
bool iso_image_fits(const iso_conv_sizes *s, const iso_call *call); /* conv and conv_w; conv_x is not there */
size_t iso_image_workspace(iso_op op, const iso_conv_sizes *s);     /* bytes */
void iso_image_conv(const iso_conv_sizes *s, const iso_call *call);
void iso_image_conv_w(const iso_conv_sizes *s, const iso_call *call);

#endif
