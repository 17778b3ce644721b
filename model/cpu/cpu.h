/* cpu.h: what the files of the CPU backend share. Nothing outside model/cpu includes it. */
#ifndef ISO_CPU_H
#define ISO_CPU_H

#include <string.h>
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#include "base/clones.h"
#include "model/graph/backend.h"

/* Threads for work of that many bytes touched: small tensors are done before a second thread would have woken up. */
static inline int iso_cpu_threads(int threads, int64_t bytes)
{
    int64_t useful = bytes / (64 << 10) + 1;
    if (threads < 1) threads = 1;
    return useful < threads ? (int)useful : threads;
}

/* part(context, i) for each i < count, by so many threads. By one without a parallel region, which inside another one costs 0.8 us: as much as a small chain. */
void iso_cpu_each(int threads, int64_t count, void (*part)(void *context, int64_t i), void *context);

static inline int64_t iso_min64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t iso_max64(int64_t a, int64_t b) { return a > b ? a : b; }
/* a / b rounded up; a >= 0, b > 0. */
static inline int64_t iso_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Element i of a call whose results are sums. */
static inline void iso_cpu_put_sum(const iso_call *call, int64_t i, double sum)
{
    if (!call->wide) ((float *)call->out.data)[i] = (float)sum;
    else if (call->add) ((double *)call->out.data)[i] += sum;
    else ((double *)call->out.data)[i] = sum;
}

/* y[j * y_pitch + i] = x[i * x_pitch + j], i, j < 4. */
static inline __attribute__((always_inline)) void iso_transpose4(const float *x, int64_t x_pitch, float *y, int64_t y_pitch)
{
#if defined(__SSE__)
    __m128 r0 = _mm_loadu_ps(x), r1 = _mm_loadu_ps(x + x_pitch), r2 = _mm_loadu_ps(x + 2 * x_pitch),
           r3 = _mm_loadu_ps(x + 3 * x_pitch);
    _MM_TRANSPOSE4_PS(r0, r1, r2, r3);
    _mm_storeu_ps(y, r0);
    _mm_storeu_ps(y + y_pitch, r1);
    _mm_storeu_ps(y + 2 * y_pitch, r2);
    _mm_storeu_ps(y + 3 * y_pitch, r3);
#else
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) y[j * y_pitch + i] = x[i * x_pitch + j];
#endif
}

/* A row of a packed tile. The usual widths have lengths that the compiler knows, which makes them two moves. */
static inline __attribute__((always_inline)) void iso_copy_tile(float *to, const float *from, int width)
{
    switch (width) {
    case 32: memcpy(to, from, 32 * sizeof *to); return;
    case 16: memcpy(to, from, 16 * sizeof *to); return;
    default: memcpy(to, from, (size_t)width * sizeof *to);
    }
}

/* fused.c */
void iso_cpu_fused(const iso_fused *f);
void iso_cpu_fused_part(const iso_fused *f, int64_t first, int64_t last); /* these elements, by the calling thread */
void iso_cpu_elementwise(const iso_call *call, iso_op op);

/* matmul.c, conv.c */
void iso_cpu_matmul(const iso_call *call);
size_t iso_cpu_matmul_prepared(const iso_call *call); /* iso_backend.prepared, of MATMUL, for products */
void iso_cpu_matmul_prepare(const iso_call *call);
void iso_cpu_products(const iso_products *p);
size_t iso_cpu_products_workspace(const iso_products *p);
void iso_cpu_conv(const iso_call *call);
void iso_cpu_conv_x(const iso_call *call);
void iso_cpu_conv_w(const iso_call *call);
size_t iso_cpu_conv_prepared(iso_op op, const iso_call *call, int *form); /* iso_backend.prepared, of CONV and CONV_X */
int64_t iso_cpu_conv_images(iso_op op, const iso_call *call);             /* iso_slicing.images */
bool iso_cpu_conv_along(const iso_call *conv, const iso_call *conv_w);    /* iso_slicing.along */

/* reduce.c */
void iso_cpu_sum(const iso_call *call);
void iso_cpu_join(const iso_call *call); /* iso_slicing.join */
size_t iso_cpu_sum_workspace(const iso_call *call);
size_t iso_cpu_conv_workspace(iso_op op, const iso_call *call); /* of CONV and CONV_X */
size_t iso_cpu_conv_w_workspace(const iso_call *call);

/* move.c */
void iso_cpu_broadcast(const iso_call *call);
void iso_cpu_permute(const iso_call *call);
void iso_cpu_slice(const iso_call *call);
void iso_cpu_pad(const iso_call *call);
void iso_cpu_concat(const iso_call *call);
void iso_cpu_gather(const iso_call *call);
void iso_cpu_scatter(const iso_call *call);

#endif
