/* gemm_amx.h: float products on the tile unit of newer Intel processors (AMX), which multiplies bfloat16.
 *
 * A float has 24 significant bits and a bfloat16 has 8, so every float is exactly the sum of three: x = x1 + x2 + x3, each the
 * rest rounded. Of the nine products of two such sums the six largest,
 *     a3 b1 + a1 b1 + a2 b1 + a2 b2 + a1 b2 + a1 b3,
 * leave out less than 2^-24 |a b|: what a float's own rounding leaves out (Henry, Tang & Heinecke 2019). All are added up in
 * single precision. Six products of the tile unit cost about a third of one by fused multiply-adds.
 *
 * Numbers within 2^-8 of the largest float are taken for infinite, and a product with an infinity is a NaN; parts
 * below the smallest normal float are zero. */
#ifndef ISO_CPU_GEMM_AMX_H
#define ISO_CPU_GEMM_AMX_H

#include "model/cpu/gemm.h"

#define ISO_AMX_STEP 32        /* depths are padded to a multiple of it */
#define ISO_AMX_BLOCK 32       /* rows and columns of C that a micro-kernel keeps in registers: 2 x 2 tiles */
#define ISO_AMX_KC 1024        /* deepest and widest block of B */
#define ISO_AMX_NC 512
#define ISO_AMX_B (512 * 256)  /* elements of a block of B: its parts are to stay in the second-level cache */

/* Depths of a block of B that is `width` wide. */
static inline int iso_amx_depth(int width)
{
    const int depth = ISO_AMX_B / width / ISO_AMX_STEP * ISO_AMX_STEP;
    return depth < ISO_AMX_KC ? depth : ISO_AMX_KC;
}

/* Bytes that one thread packs into. */
size_t iso_amx_workspace(void);
/* Rows m0 ... m1-1 and columns n0 ... n1-1 of C, on this thread, in blocks of `width` columns: a multiple of ISO_AMX_BLOCK up
 * to ISO_AMX_NC. The product has find_a. workspace: 64-byte aligned. */
void iso_amx_multiply(const iso_gemm *g, int64_t m0, int64_t m1, int64_t n0, int64_t n1, int width, void *workspace);

#endif
