/* gemm_avx512.c: tiles of 14 x 32: 28 accumulators, two vectors of B and one of A fill the 32 registers. */
#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f")))
#define VEC __m512
#define LANES 16
#define ZERO _mm512_setzero_ps()
#define LOAD(p) _mm512_loadu_ps(p)
#define STORE(p, v) _mm512_storeu_ps(p, v)
#define SPLAT(p) _mm512_set1_ps(*(p))
#define ADD(x, y) _mm512_add_ps(x, y)
#define MULADD(x, y, z) _mm512_fmadd_ps(x, y, z)
enum { UNROLL = 1, STRIDE = 2 };
#include "model/cpu/gemm_kernel.h"

KERNELS_14(0, 1)
KERNELS_14(0, 2)
KERNELS_14(1, 1)
KERNELS_14(1, 2)
KERNELS_14(2, 1)
KERNELS_14(2, 2)
KERNELS_14(3, 1)
KERNELS_14(3, 2)

#define KERNELS {{{NAMES_14(0, 1)}, {NAMES_14(0, 2)}}, {{NAMES_14(1, 1)}, {NAMES_14(1, 2)}}, {{NAMES_14(2, 1)}, {NAMES_14(2, 2)}}, {{NAMES_14(3, 1)}, {NAMES_14(3, 2)}}}
const iso_gemm_isa iso_gemm_avx512 = {"avx512", 14, LANES, STRIDE, KERNELS, false};
const iso_gemm_isa iso_gemm_amx = {"amx", 14, LANES, STRIDE, KERNELS, true}; /* for the products that do not fill its tiles */
#else
typedef int iso_gemm_avx512_not_here; /* ISO C wants something in a file */
#endif
