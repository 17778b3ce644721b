/* cpu.h: what the files of the CPU backend share. Nothing outside model/cpu includes it. */
#ifndef ISO_CPU_H
#define ISO_CPU_H

#include "model/graph/backend.h"

/* Plain loops are compiled three times and the processor picks one when the program starts. Not with the
 * sanitizers (their runtime is not ready when the choice is made) and not where the compiler lacks it. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(ISO_NO_CLONES)
#define ISO_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define ISO_CLONES
#endif

/* Threads for work of that many bytes touched: small tensors are done before a second thread would have woken up. */
static inline int iso_cpu_threads(int threads, int64_t bytes)
{
    int64_t useful = bytes / (64 << 10) + 1;
    if (threads < 1) threads = 1;
    return useful < threads ? (int)useful : threads;
}

static inline int64_t iso_min64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t iso_max64(int64_t a, int64_t b) { return a > b ? a : b; }
/* a / b rounded up; a >= 0, b > 0. */
static inline int64_t iso_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* fused.c */
void iso_cpu_fused(const iso_fused *f);
void iso_cpu_elementwise(const iso_call *call, iso_op op);

/* matmul.c, conv.c */
void iso_cpu_matmul(const iso_call *call);
void iso_cpu_conv(const iso_call *call);
void iso_cpu_conv_x(const iso_call *call);
void iso_cpu_conv_w(const iso_call *call);

/* reduce.c */
void iso_cpu_sum(const iso_call *call);
size_t iso_cpu_sum_workspace(const iso_call *call);

/* move.c */
void iso_cpu_broadcast(const iso_call *call);
void iso_cpu_permute(const iso_call *call);
void iso_cpu_slice(const iso_call *call);
void iso_cpu_pad(const iso_call *call);
void iso_cpu_concat(const iso_call *call);
void iso_cpu_gather(const iso_call *call);
void iso_cpu_scatter(const iso_call *call);

#endif
