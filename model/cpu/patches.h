/* patches.h: convolutions as matrices that are never written down.
 *
 * The patch matrix of an image x [B, H, W, C] has a row per output pixel (b, i, j) and a column per kernel element
 * (u, v, c): the value x[b, i * stride - pad_h + u, j * stride - pad_w + v, c], 0 outside. A row consists of one
 * contiguous run of x per kernel row u. */
#ifndef ISO_CPU_PATCHES_H
#define ISO_CPU_PATCHES_H

#include "model/cpu/gemm.h"

typedef struct iso_patches {
    const float *x;
    int64_t h, w, c;      /* of the image */
    int64_t oh, ow;       /* output pixels */
    int64_t kh, kw;
    int64_t stride, pad_h, pad_w;
} iso_patches;

/* iso_gemm_pack of the patch matrix as A (by rows), and as B (pixels are the depth). */
void iso_patches_pack_a(const void *patches, int64_t i0, int ni, int64_t k0, int nk, int tile, float *dst);
void iso_patches_pack_b(const void *patches, int64_t i0, int ni, int64_t k0, int nk, int tile, float *dst);
/* iso_gemm_find of the same. */
int iso_patches_find_a(const void *patches, int64_t i0, int ni, int64_t k0, int nk, const float **at);
int iso_patches_find_b(const void *patches, int64_t i0, int ni, int64_t k0, int nk, const float **at);

/* The weights w [O, KH, KW, C] seen by one parity class of conv_x: a matrix [rows * columns * O, C] of the kernel elements
 * (kh_last - t * stride, kw_last - u * stride), t < rows, u < columns. */
typedef struct iso_taps {
    const float *w;
    int64_t o, kh, kw, c;
    int64_t columns;
    int64_t kh_last, kw_last, stride;
} iso_taps;
void iso_taps_pack_b(const void *taps, int64_t i0, int ni, int64_t k0, int nk, int tile, float *dst);
int iso_taps_find_b(const void *taps, int64_t i0, int ni, int64_t k0, int nk, const float **at);

/* Every stride-th pixel of an image x [B, H, W, C] in both directions, from (first_h, first_w): the rows of C for a class;
 * h, w: how many there are. */
typedef struct iso_lattice {
    float *x;
    int64_t image_h, image_w, c;
    int64_t h, w;
    int64_t first_h, first_w, stride;
} iso_lattice;
void iso_lattice_rows(const void *lattice, int64_t i0, int ni, float **rows);

#endif
