/* conv.c: the three convolutions as products with patch matrices (patches.h).
 *
 * A convolution whose output is one pixel and whose kernel covers the image, and a 1 x 1 convolution of stride 1, have the
 * image itself as their patch matrix: then the plain packers serve. */
#include <math.h>

#include "model/cpu/conv.h"
#include "model/cpu/direct.h"
#include "model/cpu/patches.h"
#include "model/cpu/winograd.h"

/* Whether the patch matrix is x itself, as [rows, columns]. */
static bool patches_are_image(const iso_conv_sizes *s)
{
    if (s->pad != 0) return false;
    bool whole = s->oh == 1 && s->ow == 1 && s->kh == s->h && s->kw == s->w;
    return whole || (s->kh == 1 && s->kw == 1 && s->stride == 1);
}

static iso_patches patches_of(const iso_conv_sizes *s, const float *x)
{
    return (iso_patches){x, s->h, s->w, s->c, s->oh, s->ow, s->kh, s->kw, s->stride, s->pad, s->pad};
}

static void finish(const iso_call *call)
{
    if (call->tail) iso_cpu_fused(call->tail);
}

/* Whether a convolution's tail follows some images at a time: where all its results would be gone from the cache, and the
 * weights are so few that multiplying by them anew costs nothing. */
static int64_t images_at_once(const iso_conv_sizes *s, const iso_call *call)
{
    enum { BYTES = 2 << 20, FEW_WEIGHTS = 32 << 10 };
    const int64_t image = s->oh * s->ow * s->o * (int64_t)sizeof(float);
    if (!call->tail || s->o * s->kh * s->kw * s->c > FEW_WEIGHTS) return s->batch;
    return iso_min64(iso_max64(BYTES / iso_max64(image, 1), 1), s->batch);
}

/* What follows on pixels first ... last-1 of the result. */
static void follow(const iso_call *call, int64_t first, int64_t last)
{
    const int threads = call->threads < 1 ? 1 : call->threads;
    const int64_t o = call->out.shape.dim[3], n = last - first;
#pragma omp parallel for num_threads(threads) schedule(static, 1) if (threads > 1)
    for (int t = 0; t < threads; t++)
        iso_cpu_fused_part(call->tail, (first + n * t / threads) * o, (first + n * (t + 1) / threads) * o);
}

/* How a convolution is computed. */
typedef enum way { BY_FEW, BY_IMAGE, BY_WINOGRAD, BY_DIRECT, BY_PRODUCT } way;

static way cheapest(iso_op op, const iso_call *call, double product)
{
    const double direct = op == ISO_OP_CONV_W ? iso_direct_w_cost(call) : iso_direct_cost(op, call);
    if (iso_winograd_cost(op, call) < fmin(direct, product)) return BY_WINOGRAD;
    return direct < product ? BY_DIRECT : BY_PRODUCT;
}

/* What a product's packers read. */
typedef struct operands {
    iso_patches patches;
    iso_gemm_matrix image, other; /* other: the weights, or y */
} operands;

static iso_gemm conv_product(const iso_call *call, const iso_conv_sizes *s, operands *of)
{
    const int64_t depth = s->kh * s->kw * s->c;
    const bool plain = patches_are_image(s);
    *of = (operands){patches_of(s, call->in[0].data), {call->in[0].data, depth}, {call->in[1].data, depth}};
    return (iso_gemm){.m = s->batch * s->oh * s->ow, .n = s->o, .k = depth, .a_cost = plain ? 0.3 : 0.4, .b_cost = 0.9,
                      .a = plain ? (const void *)&of->image : &of->patches, .b = &of->other,
                      .pack_a = plain ? iso_gemm_pack_a_rows : iso_patches_pack_a, .pack_b = iso_gemm_pack_b_depth,
                      .find_a = plain ? iso_gemm_find_rows : iso_patches_find_a, .find_b = iso_gemm_find_rows, .b_by_columns = true,
                      .c = call->out.data, .c_pitch = s->o};
}

/* conv's product for some images at a time, each of them followed by its tail. */
static void conv_by_images(const iso_call *call, const iso_conv_sizes *s, int64_t images)
{
    const int64_t pixels = s->oh * s->ow;
    operands of;
    iso_gemm g = conv_product(call, s, &of);
    g.part_of = g.m;
    for (int64_t i = 0; i < s->batch; i += images) {
        const int64_t n = iso_min64(images, s->batch - i);
        of.image.data = of.patches.x = (const float *)call->in[0].data + i * s->h * s->w * s->c;
        g.m = n * pixels;
        g.c = (float *)call->out.data + i * pixels * s->o;
        iso_gemm_run(&g, call->threads, call->workspace);
        follow(call, i * pixels, (i + n) * pixels);
    }
}

static way conv_way(const iso_call *call, const iso_conv_sizes *s)
{
    operands of;
    if (iso_few_fits(s, call)) return BY_FEW;
    if (iso_image_fits(s, call)) return BY_IMAGE;
    if (call->part_of) return BY_WINOGRAD; /* or it would be whole */
    const iso_gemm g = conv_product(call, s, &of);
    return cheapest(ISO_OP_CONV, call, iso_gemm_cost(&g));
}

void iso_cpu_conv(const iso_call *call)
{
    const iso_conv_sizes s = iso_conv_sizes_of_call(ISO_OP_CONV, call);
    const way by = conv_way(call, &s);
    const int64_t images = images_at_once(&s, call);
    operands of;
    if (by == BY_FEW) {
        iso_few_conv(&s, call);
    } else if (by == BY_IMAGE) {
        iso_image_conv(&s, call);
    } else if (by == BY_WINOGRAD) {
        iso_winograd_run(ISO_OP_CONV, call);
    } else if (by == BY_PRODUCT && images < s.batch) {
        conv_by_images(call, &s, images);
    } else {
        const iso_gemm g = conv_product(call, &s, &of);
        if (by == BY_DIRECT) iso_direct_conv(call);
        else iso_gemm_run(&g, call->threads, call->workspace);
        finish(call);
    }
}

/* A small layer's weight gradient is a few sums over every pixel of the batch. They nearly cancel, and doubles for so few
 * cost nothing. */
static size_t wide_bytes(const iso_call *call)
{
    enum { FEW = 1 << 16 };
    const int64_t results = iso_shape_count(&call->out.shape);
    return results <= FEW ? (size_t)results * sizeof(double) : 0;
}

static size_t largest(size_t a, size_t b, size_t c)
{
    const size_t most = a > b ? a : b;
    return most > c ? most : c;
}

size_t iso_cpu_conv_w_workspace(const iso_call *call)
{
    const iso_conv_sizes s = iso_conv_sizes_of_call(ISO_OP_CONV_W, call);
    if (iso_few_fits(&s, call)) return iso_few_w_workspace(&s);
    if (iso_image_fits(&s, call)) return iso_image_workspace(ISO_OP_CONV_W, &s);
    const size_t product = iso_gemm_workspace(call->threads) + wide_bytes(call);
    return largest(product, iso_direct_w_workspace(call), iso_winograd_workspace(ISO_OP_CONV_W, call));
}

size_t iso_cpu_conv_workspace(iso_op op, const iso_call *call)
{
    const iso_conv_sizes s = iso_conv_sizes_of_call(op, call);
    if (op == ISO_OP_CONV && iso_image_fits(&s, call)) return iso_image_workspace(op, &s);
    return largest(iso_gemm_workspace(call->threads), iso_direct_workspace(op, call), iso_winograd_workspace(op, call));
}

static iso_gemm conv_w_product(const iso_call *call, const iso_conv_sizes *s, operands *of)
{
    const int64_t columns = s->kh * s->kw * s->c;
    const bool plain = patches_are_image(s);
    *of = (operands){patches_of(s, call->in[0].data), {call->in[0].data, columns}, {call->in[1].data, s->o}};
    return (iso_gemm){.m = s->o, .n = columns, .k = s->batch * s->oh * s->ow, .a_cost = 0.5, .b_cost = plain ? 0.4 : 0.6,
                      .a = &of->other, .b = plain ? (const void *)&of->image : &of->patches,
                      .pack_a = iso_gemm_pack_a_depth, .a_by_depth = true,
                      .pack_b = plain ? iso_gemm_pack_b_rows : iso_patches_pack_b,
                      .find_a = iso_gemm_find_depth, .find_b = plain ? iso_gemm_find_depth : iso_patches_find_b,
                      .c = call->out.data, .c_pitch = columns};
}

static way conv_w_way(const iso_call *call, const iso_conv_sizes *s)
{
    operands of;
    if (iso_few_fits(s, call)) return BY_FEW;
    if (iso_image_fits(s, call)) return BY_IMAGE;
    if (call->part_of) return BY_WINOGRAD;
    const iso_gemm g = conv_w_product(call, s, &of);
    return cheapest(ISO_OP_CONV_W, call, iso_gemm_cost(&g));
}

void iso_cpu_conv_w(const iso_call *call)
{
    const iso_conv_sizes s = iso_conv_sizes_of_call(ISO_OP_CONV_W, call);
    const way by = conv_w_way(call, &s);
    operands of;
    if (by == BY_FEW) {
        iso_few_conv_w(&s, call);
    } else if (by == BY_IMAGE) {
        iso_image_conv_w(&s, call);
    } else if (by == BY_WINOGRAD) {
        iso_winograd_run(ISO_OP_CONV_W, call);
    } else if (by == BY_DIRECT) {
        iso_direct_conv_w(call);
    } else {
        iso_gemm g = conv_w_product(call, &s, &of);
        if (wide_bytes(call)) g.wide = (double *)((char *)call->workspace + iso_gemm_workspace(call->threads));
        iso_gemm_run(&g, call->threads, call->workspace);
    }
}

/* conv_x where the patch matrix would be x itself. */
static void conv_x_plain(const iso_call *call, const iso_conv_sizes *s)
{
    const int64_t columns = s->kh * s->kw * s->c;
    iso_gemm_matrix y = {call->in[0].data, s->o}, weights = {call->in[1].data, columns};
    iso_gemm g = {.m = s->batch * s->oh * s->ow, .n = columns, .k = s->o, .a_cost = 0.3, .b_cost = 0.4,
                  .a = &y, .b = &weights,
                  .pack_a = iso_gemm_pack_a_rows, .pack_b = iso_gemm_pack_b_rows,
                  .find_a = iso_gemm_find_rows, .find_b = iso_gemm_find_depth,
                  .c = call->out.data, .c_pitch = columns};
    iso_gemm_run(&g, call->threads, call->workspace);
}

/* One class of pixels of x, as a product and what its packers read. */
typedef struct pixel_class {
    iso_patches patches;
    iso_taps taps;
    iso_lattice lattice;
} pixel_class;

static iso_gemm class_of(const iso_call *call, const iso_conv_sizes *s, int64_t first_h, int64_t first_w, pixel_class *p)
{
    const iso_axis_class h = iso_axis_class_of(s->h, s->kh, s->stride, s->pad, first_h);
    const iso_axis_class w = iso_axis_class_of(s->w, s->kw, s->stride, s->pad, first_w);
    p->patches = (iso_patches){call->in[0].data, s->oh, s->ow, s->o, h.pixels, w.pixels, h.taps, w.taps, 1, h.pad, w.pad};
    p->taps = (iso_taps){call->in[1].data, s->o, s->kh, s->kw, s->c, w.taps, h.last, w.last, s->stride};
    p->lattice = (iso_lattice){call->out.data, s->h, s->w, s->c, h.pixels, w.pixels, first_h, first_w, s->stride};
    return (iso_gemm){.m = s->batch * h.pixels * w.pixels, .n = s->c, .k = h.taps * w.taps * s->o, .a_cost = 0.4, .b_cost = 0.5,
                      .a = &p->patches, .b = &p->taps, .pack_a = iso_patches_pack_a, .pack_b = iso_taps_pack_b,
                      .find_a = iso_patches_find_a, .find_b = iso_taps_find_b,
                      .c_rows = iso_lattice_rows, .c_context = &p->lattice};
}

/* The products of classes first ... first+n-1. */
static void classes_of(const iso_call *call, const iso_conv_sizes *s, int64_t first, int n, pixel_class *part, iso_gemm *product)
{
    for (int i = 0; i < n; i++) product[i] = class_of(call, s, (first + i) / s->stride, (first + i) % s->stride, &part[i]);
}

enum { AT_ONCE = 16 }; /* classes */

static way conv_x_way(const iso_call *call, const iso_conv_sizes *s)
{
    pixel_class part[AT_ONCE];
    iso_gemm product[AT_ONCE];
    const int64_t classes = s->stride * s->stride;
    double cost = 0;
    if (iso_few_fits(s, call)) return BY_FEW;
    if (patches_are_image(s) || classes > AT_ONCE) return BY_PRODUCT;
    if (call->part_of) return BY_WINOGRAD;
    classes_of(call, s, 0, (int)classes, part, product);
    for (int i = 0; i < classes; i++) cost += iso_gemm_cost(&product[i]);
    return cheapest(ISO_OP_CONV_X, call, cost);
}

/* Splits x by its pixels' residues: stride * stride convolutions of stride 1, each writing a lattice of pixels once.
 * Nothing is scattered and no product with an inserted zero is made. */
static void conv_x_by_classes(const iso_call *call, const iso_conv_sizes *s)
{
    const int64_t classes = s->stride * s->stride;
    for (int64_t first = 0; first < classes; first += AT_ONCE) {
        pixel_class part[AT_ONCE];
        iso_gemm product[AT_ONCE];
        const int count = (int)iso_min64(AT_ONCE, classes - first);
        classes_of(call, s, first, count, part, product);
        iso_gemm_run_all(product, count, call->threads, call->workspace);
    }
}

void iso_cpu_conv_x(const iso_call *call)
{
    const iso_conv_sizes s = iso_conv_sizes_of_call(ISO_OP_CONV_X, call);
    const way by = conv_x_way(call, &s);
    if (by == BY_FEW) {
        iso_few_conv_x(&s, call);
    } else if (by == BY_WINOGRAD) {
        iso_winograd_run(ISO_OP_CONV_X, call);
    } else {
        if (by == BY_DIRECT) iso_direct_conv_x(call);
        else if (patches_are_image(&s)) conv_x_plain(call, &s);
        else conv_x_by_classes(call, &s);
        finish(call);
    }
}

/* --- weights and slices */

static way way_of(iso_op op, const iso_call *call)
{
    const iso_conv_sizes s = iso_conv_sizes_of_call(op, call);
    if (op == ISO_OP_CONV) return conv_way(call, &s);
    return op == ISO_OP_CONV_X ? conv_x_way(call, &s) : conv_w_way(call, &s);
}

size_t iso_cpu_conv_prepared(iso_op op, const iso_call *call, int *form)
{
    return way_of(op, call) == BY_WINOGRAD ? iso_winograd_prepared(op, call, form) : 0;
}

int64_t iso_cpu_conv_images(iso_op op, const iso_call *call)
{
    const iso_conv_sizes s = iso_conv_sizes_of_call(op, call);
    const way by = way_of(op, call);
    if (by == BY_WINOGRAD) return iso_winograd_images(op, call);
    return by == BY_FEW ? iso_cpu_slice_images(s.batch, 1, s.h * s.w * (s.c + s.o)) : 0;
}

bool iso_cpu_conv_along(const iso_call *conv, const iso_call *conv_w)
{
    return way_of(ISO_OP_CONV, conv) == BY_WINOGRAD && way_of(ISO_OP_CONV_W, conv_w) == BY_WINOGRAD && iso_winograd_along(conv, conv_w);
}
