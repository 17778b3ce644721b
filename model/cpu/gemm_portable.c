/* gemm_portable.c: the micro-kernel in the compilers' own vectors of four, for any other processor. */
#include <string.h>

typedef float vec4 __attribute__((vector_size(16)));

static inline __attribute__((always_inline)) vec4 load4(const float *p)
{
    vec4 v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline __attribute__((always_inline)) void store4(float *p, vec4 v) { memcpy(p, &v, sizeof v); }
static inline __attribute__((always_inline)) vec4 splat4(float x) { return (vec4){x, x, x, x}; }

#define TARGET
#define VEC vec4
#define LANES 4
#define ZERO ((vec4){0, 0, 0, 0})
#define LOAD(p) load4(p)
#define STORE(p, v) store4(p, v)
#define SPLAT(p) splat4(*(p))
#define ADD(x, y) ((x) + (y))
#define MULADD(x, y, z) ((x) * (y) + (z))
enum { UNROLL = 1, STRIDE = 8 };
#include "model/cpu/gemm_kernel.h"

KERNELS_6(0, 1)
KERNELS_6(0, 2)
KERNELS_6(1, 1)
KERNELS_6(1, 2)
KERNELS_6(2, 1)
KERNELS_6(2, 2)
KERNELS_6(3, 1)
KERNELS_6(3, 2)

const iso_gemm_isa iso_gemm_portable = {
    "portable", 6, LANES, STRIDE, {{{NAMES_6(0, 1)}, {NAMES_6(0, 2)}}, {{NAMES_6(1, 1)}, {NAMES_6(1, 2)}}, {{NAMES_6(2, 1)}, {NAMES_6(2, 2)}}, {{NAMES_6(3, 1)}, {NAMES_6(3, 2)}}}, false};
