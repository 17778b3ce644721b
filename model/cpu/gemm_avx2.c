/* gemm_avx2.c: tiles of 6 x 16: 12 accumulators, two vectors of B and one of A of the 16 registers. */
#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma")))
#define VEC __m256
#define LANES 8
#define ZERO _mm256_setzero_ps()
#define LOAD(p) _mm256_loadu_ps(p)
#define STORE(p, v) _mm256_storeu_ps(p, v)
#define SPLAT(p) _mm256_set1_ps(*(p))
#define ADD(x, y) _mm256_add_ps(x, y)
#define MULADD(x, y, z) _mm256_fmadd_ps(x, y, z)
enum { UNROLL = 8, STRIDE = 8 };
#include "model/cpu/gemm_kernel.h"

KERNELS_6(0, 1)
KERNELS_6(0, 2)
KERNELS_6(1, 1)
KERNELS_6(1, 2)
KERNELS_6(2, 1)
KERNELS_6(2, 2)
KERNELS_6(3, 1)
KERNELS_6(3, 2)

const iso_gemm_isa iso_gemm_avx2 = {
    "avx2", 6, LANES, STRIDE, {{{NAMES_6(0, 1)}, {NAMES_6(0, 2)}}, {{NAMES_6(1, 1)}, {NAMES_6(1, 2)}}, {{NAMES_6(2, 1)}, {NAMES_6(2, 2)}}, {{NAMES_6(3, 1)}, {NAMES_6(3, 2)}}}, false};
#else
typedef int iso_gemm_avx2_not_here; /* ISO C wants something in a file */
#endif
