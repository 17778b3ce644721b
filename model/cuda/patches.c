/* patches.c: convolutions as matrix products over patches: the pixels under the filter at each place, written out as rows.
 *
 * y = patches(x) wT; x = fold(y w); w = yT patches(x). Some images at a time, so that the rows take little memory. cuDNN does the
 * same without writing the rows: this is for what it has no engine for. ISO_CUDA_PATCHES says how many
 * bytes the rows may take. */
#include <stdlib.h>

#include "model/cuda/cuda.h"


static size_t bytes_of_image(const iso_cuda_shapes *s)
{
    return (size_t)(s->y.dim[1] * s->y.dim[2] * s->w.dim[1] * s->w.dim[2] * s->w.dim[3]) * sizeof(float);
}

static int64_t images_at_once(const iso_cuda_shapes *s)
{
    const char *wish = getenv("ISO_CUDA_PATCHES");
    const size_t limit = wish && atoll(wish) > 0 ? (size_t)atoll(wish) : (size_t)256 << 20;
    const int64_t n = (int64_t)(limit / bytes_of_image(s));
    return n < 1 ? 1 : n > s->x.dim[0] ? s->x.dim[0] : n;
}

size_t iso_cuda_patches_workspace(const iso_cuda_shapes *s)
{
    return (size_t)images_at_once(s) * bytes_of_image(s);
}

iso_status iso_cuda_patches_check(const iso_cuda_shapes *s, iso_error *err)
{
    const iso_cuda_gemm g = {.batch = 1, .m = images_at_once(s) * s->y.dim[1] * s->y.dim[2], .n = s->y.dim[3],
                             .k = s->w.dim[1] * s->w.dim[2] * s->w.dim[3]};
    return iso_cuda_gemm_check(&g, err);
}

static void ask(cudaError_t (*run)(const iso_cuda_patches *, cudaStream_t), const iso_cuda_patches *p)
{
    (void)iso_cuda_ok(run(p, iso_cuda_get()->stream), "a convolution's patches");
}

void iso_cuda_patches_run(iso_op op, const iso_cuda_shapes *s, const iso_call *call, void *workspace, bool tf32)
{
    const int64_t images = s->x.dim[0], most = images_at_once(s), pixels = s->x.dim[1] * s->x.dim[2] * s->x.dim[3];
    const int64_t places = s->y.dim[1] * s->y.dim[2], outputs = s->y.dim[3], inputs = s->w.dim[1] * s->w.dim[2] * s->w.dim[3];
    float *x = op == ISO_OP_CONV_X ? call->out.data : call->in[0].data;
    float *w = op == ISO_OP_CONV_W ? call->out.data : call->in[1].data;
    float *y = op == ISO_OP_CONV ? call->out.data : op == ISO_OP_CONV_X ? call->in[0].data : call->in[1].data;
    for (int64_t at = 0; at < images; at += most) {
        const int64_t n = images - at < most ? images - at : most;
        const iso_cuda_patches p = {.x = x + at * pixels, .rows = workspace, .n = n, .h = s->x.dim[1], .w = s->x.dim[2], .c = s->x.dim[3],
                                    .oh = s->y.dim[1], .ow = s->y.dim[2], .kh = s->w.dim[1], .kw = s->w.dim[2], .stride = s->stride,
                                    .pad = s->pad};
        float *y_at = y + at * places * outputs;
        iso_cuda_gemm g = {.batch = 1};
        if (op != ISO_OP_CONV_X) ask(iso_cuda_unfold_run, &p);
        if (op == ISO_OP_CONV)
            g = (iso_cuda_gemm){.a = workspace, .b = w, .out = y_at, .batch = 1, .m = n * places, .n = outputs, .k = inputs,
                                .transpose_b = true};
        else if (op == ISO_OP_CONV_X)
            g = (iso_cuda_gemm){.a = y_at, .b = w, .out = workspace, .batch = 1, .m = n * places, .n = inputs, .k = outputs};
        else
            g = (iso_cuda_gemm){.a = y_at, .b = workspace, .out = w, .batch = 1, .m = outputs, .n = inputs, .k = n * places,
                                .transpose_a = true, .add = at > 0};
        iso_cuda_gemm_run(&g, tf32);
        if (op == ISO_OP_CONV_X) ask(iso_cuda_fold_run, &p);
    }
}
