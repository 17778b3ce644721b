/* cpu.c: the table of the CPU backend. */
#include "model/cpu/cpu.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/cpu/conv.h"
#include "model/cpu/gemm.h"
#include "model/cpu/winograd.h"

enum { ALIGNMENT = 64 };

void iso_cpu_each(int threads, int64_t count, void (*part)(void *context, int64_t i), void *context)
{
    if (threads > 1) {
#pragma omp parallel for num_threads(threads) schedule(static)
        for (int64_t i = 0; i < count; i++) part(context, i);
    } else {
        for (int64_t i = 0; i < count; i++) part(context, i);
    }
}

/* Large tensors come from the system in whole huge pages: a product reads them with far fewer page-table walks. */
static void *cpu_alloc(size_t bytes)
{
    if (bytes >= ISO_HUGE_PAGE) return iso_huge_alloc(bytes);
    const size_t size = bytes ? (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT : ALIGNMENT;
    void *p = aligned_alloc(ALIGNMENT, size);
    if (p) memset(p, 0, size);
    return p;
}

static void cpu_release(void *p, size_t bytes)
{
    if (bytes < ISO_HUGE_PAGE) free(p);
    else iso_huge_free(p, bytes);
}

static size_t cpu_workspace(iso_op op, const iso_call *call)
{
    switch (op) {
    case ISO_OP_MATMUL: return iso_gemm_workspace(call->threads);
    case ISO_OP_CONV:
    case ISO_OP_CONV_X: return iso_cpu_conv_workspace(op, call);
    case ISO_OP_CONV_W: return iso_cpu_conv_w_workspace(call);
    case ISO_OP_SUM: return iso_cpu_sum_workspace(call);
    default: return 0;
    }
}

#define ELEMENTWISE(NAME, name) \
    static void cpu_##name(const iso_call *call) { iso_cpu_elementwise(call, ISO_OP_##NAME); }
ELEMENTWISE(ADD, add)
ELEMENTWISE(SUB, sub)
ELEMENTWISE(MUL, mul)
ELEMENTWISE(DIV, div)
ELEMENTWISE(SCALE, scale)
ELEMENTWISE(SHIFT, shift)
ELEMENTWISE(EXP, exp)
ELEMENTWISE(LOG, log)
ELEMENTWISE(SQRT, sqrt)
ELEMENTWISE(TANH, tanh)
ELEMENTWISE(SIGMOID, sigmoid)
ELEMENTWISE(SOFTPLUS, softplus)
ELEMENTWISE(RELU, relu)
ELEMENTWISE(STEP, step)

static size_t cpu_prepared(iso_op op, const iso_call *call, int *form)
{
    if (op == ISO_OP_CONV || op == ISO_OP_CONV_X) return iso_cpu_conv_prepared(op, call, form);
    *form = 0;
    return op == ISO_OP_MATMUL ? iso_cpu_matmul_prepared(call) : 0;
}

static void prepare_conv(const iso_call *call) { iso_winograd_prepare(ISO_OP_CONV, call); }
static void prepare_conv_x(const iso_call *call) { iso_winograd_prepare(ISO_OP_CONV_X, call); }

static int64_t cpu_images(iso_op op, const iso_call *call)
{
    return op == ISO_OP_CONV || op == ISO_OP_CONV_X || op == ISO_OP_CONV_W ? iso_cpu_conv_images(op, call) : 0;
}

static const iso_slicing slicing = {.images = cpu_images, .along = iso_cpu_conv_along, .join = iso_cpu_join,
                                    .bytes = ISO_CPU_SLICE / 2}; /* of the one tensor; convolutions count two */

static const iso_backend cpu = {
    .name = "cpu",
    .real_size = sizeof(float),
    .kernel = {[ISO_OP_ADD] = cpu_add, [ISO_OP_SUB] = cpu_sub, [ISO_OP_MUL] = cpu_mul, [ISO_OP_DIV] = cpu_div,
               [ISO_OP_SCALE] = cpu_scale, [ISO_OP_SHIFT] = cpu_shift, [ISO_OP_EXP] = cpu_exp, [ISO_OP_LOG] = cpu_log,
               [ISO_OP_SQRT] = cpu_sqrt, [ISO_OP_TANH] = cpu_tanh, [ISO_OP_SIGMOID] = cpu_sigmoid,
               [ISO_OP_SOFTPLUS] = cpu_softplus, [ISO_OP_RELU] = cpu_relu, [ISO_OP_STEP] = cpu_step,
               [ISO_OP_SUM] = iso_cpu_sum, [ISO_OP_BROADCAST] = iso_cpu_broadcast, [ISO_OP_PERMUTE] = iso_cpu_permute,
               [ISO_OP_SLICE] = iso_cpu_slice, [ISO_OP_PAD] = iso_cpu_pad, [ISO_OP_CONCAT] = iso_cpu_concat,
               [ISO_OP_GATHER] = iso_cpu_gather, [ISO_OP_SCATTER] = iso_cpu_scatter, [ISO_OP_MATMUL] = iso_cpu_matmul,
               [ISO_OP_CONV] = iso_cpu_conv, [ISO_OP_CONV_X] = iso_cpu_conv_x, [ISO_OP_CONV_W] = iso_cpu_conv_w},
    .workspace = cpu_workspace,
    .fused = iso_cpu_fused,
    .products = iso_cpu_products,
    .products_workspace = iso_cpu_products_workspace,
    .tails = true,
    .prepared = cpu_prepared,
    .prepare = {[ISO_OP_CONV] = prepare_conv, [ISO_OP_CONV_X] = prepare_conv_x, [ISO_OP_MATMUL] = iso_cpu_matmul_prepare},
    .slicing = &slicing,
    .alloc = cpu_alloc,
    .release = cpu_release,
};

const iso_backend *iso_backend_cpu(void)
{
    return &cpu;
}
