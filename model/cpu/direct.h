/* direct.h: convolutions with few channels on the tile unit (gemm_amx.h).
 *
 * Where a product is small, writing its patches down takes longer than multiplying. So an image is split into bfloat16s once,
 * and the tiles of the patch matrix are loaded from there as they lie:
 *
 * An image is kept as planes, one for each residue of its rows and columns to the stride, with zeros around. In them a
 * convolution has stride 1, and conv_x is one such convolution for each residue of its pixels. A plane's pixels are numbered row by
 * row, q = row * width + column, several images one behind the other; the kernel element (t, r) of output pixel q then is pixel
 * q + t * width + r, whatever q: sixteen neighbouring q are the rows of a tile, a constant distance apart. Those q that are no
 * output pixels, in the zeros around, are computed and thrown away. The weight gradient sums over q, where y has zeros for them. */
#ifndef ISO_CPU_DIRECT_H
#define ISO_CPU_DIRECT_H

#include "model/graph/backend.h"

/* Bytes that one of these needs on call->threads threads; 0 where the convolution is not one for these files (or the processor).
 * Shapes and attributes only. op: ISO_OP_CONV or ISO_OP_CONV_X. */
size_t iso_direct_workspace(iso_op op, const iso_call *call);
size_t iso_direct_w_workspace(const iso_call *call); /* of ISO_OP_CONV_W */
/* About how many cycles of one thread they take, for comparing with iso_gemm_cost; infinite where they cannot. */
double iso_direct_cost(iso_op op, const iso_call *call);
double iso_direct_w_cost(const iso_call *call);
/* Where that is finite: as the kernels of a backend. Results do not depend on the threads. */
void iso_direct_conv(const iso_call *call);
void iso_direct_conv_x(const iso_call *call);
void iso_direct_conv_w(const iso_call *call);

#endif
