/* winograd.h: convolutions with two or three weights a residue, in fewer multiplications (Winograd 1980; Lavin & Gray 2016).
 *
 * A convolution is, for every residue (p, q) of x's rows and columns to the stride, one of stride 1 with a kernel of t x t,
 * t = kernel / stride rounded up: the decoders' 4 x 4 of stride 2 have t = 2, the encoders' 5 x 5 t = 3, with zeros where a residue has only
 * two. Along one axis, with n neighbouring pixels of y and the n+t-1 pixels of x that they meet,
 *     sum over i, k of y[i] w[k] x[i + k]  =  sum over n+t-1 points of (A y) (G w) (B x):
 * polynomials are multiplied by their values at n+t-1 points instead of by the n t products of their coefficients. In two dimensions
 * (n+t-1)^2 products take the place of n^2 t^2: 9 of 16 (n, t = 2, 2), 25 of 64 (4, 2), 25 of 81 (3, 3), 49 of 225 (5, 3). The form is linear in
 * each of the three, so
 *     conv    y = A' ((G w) (B x)),  sums over the residues and x's channels
 *     conv_x  x = B' ((G w) (A y)),  sums over y's channels; neighbouring tiles overlap in t-1 rows or columns
 *     conv_w  w = G' ((A y) (B x)),  sums over the tiles
 * are products of matrices, one for each point, between the same transforms and their transposes. A y and what it is multiplied
 * by serve all residues at once.
 *
 * The point at infinity serves y's last pixel alone: n-1 of them are made of the others. So 13 pixels are tiles of 5, 4 and 4, with 7 + 6 + 6 points,
 * instead of 5, 5 and 3.
 *
 * Points 0, 1 and infinity for n = 2, whose error is about that of the plain product; 1, -1, 1/2, -1/2 and infinity for n = 3 and 4, with
 * some four times that (at most some 2e-6 of the largest result of a sum of 256); for n = 5 also 2 and -2, and 3/8 in the place of 1/2, with some
 * twelve times (at most some 1.2e-5). Others have more: 0 or 2 among five, 1/2 among seven. */
#ifndef ISO_CPU_WINOGRAD_H
#define ISO_CPU_WINOGRAD_H

#include "model/graph/backend.h"

/* op: ISO_OP_CONV, ISO_OP_CONV_X or ISO_OP_CONV_W. */

/* Bytes that it needs on call->threads threads; 0 where the convolution is not one for this file, or the processor has tiles
 * (gemm_amx.h), which multiply faster than the transforms could be done. Shapes and attributes only. */
size_t iso_winograd_workspace(iso_op op, const iso_call *call);
/* About how many cycles of one thread it takes, for comparing with iso_gemm_cost; infinite where it cannot. */
double iso_winograd_cost(iso_op op, const iso_call *call);
/* Where that is finite: as the kernel of a backend, with the call's tail. Results do not depend on the threads. */
void iso_winograd_run(iso_op op, const iso_call *call);
/* For iso_backend.prepare: G w, of conv and conv_x. 0 bytes where Winograd's is not one for these weights, or *form is set and they are as well brought
 * to the points as they are multiplied. */
size_t iso_winograd_prepared(iso_op op, const iso_call *call, int *form);
void iso_winograd_prepare(iso_op op, const iso_call *call);
/* For iso_slicing.images: 0 where the weights are so many that threads better share them. */
int64_t iso_winograd_images(iso_op op, const iso_call *call);
/* For iso_slicing.along. */
bool iso_winograd_along(const iso_call *conv, const iso_call *conv_w);

#endif
