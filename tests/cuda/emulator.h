/* emulator.h: what a kernel's source finds when a C++ compiler for the host compiles it: see emulator.c. */
#ifndef ISO_EMULATOR_H
#define ISO_EMULATOR_H

#include <math.h>
#include <string.h>
#include <vector_types.h>

#ifdef __cplusplus
extern "C" {
#endif
extern uint3 iso_emulated_thread, iso_emulated_block;
extern dim3 iso_emulated_grid;
void iso_emulated_barrier(void);
#ifdef __cplusplus
}

#define threadIdx iso_emulated_thread
#define blockIdx iso_emulated_block
#define gridDim iso_emulated_grid
#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __forceinline__
#undef __launch_bounds__
#define __global__
#define __device__
#define __host__
#define __shared__ static /* one block at a time */
#define __forceinline__ inline
#define __launch_bounds__(n)

static inline void __syncthreads()
{
    iso_emulated_barrier();
}
static inline float __int_as_float(unsigned bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
static inline float4 make_float4(float x, float y, float z, float w)
{
    float4 q;
    q.x = x, q.y = y, q.z = z, q.w = w;
    return q;
}
#endif

#endif
