/* kernels.h: the kernels that are compiled ahead, as functions that ask a stream for them. Sizes were checked by the caller. */
#ifndef ISO_CUDA_KERNELS_H
#define ISO_CUDA_KERNELS_H

#include <cuda_runtime_api.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { ISO_CUDA_AXES = 4, ISO_CUDA_BLOCK = 256 };

/* to[at . to_stride] = from[at . from_stride] for every `at` below n: broadcast, slice, concat, and permute where rows stay. */
typedef struct iso_cuda_move {
    const float *from;
    float *to;
    int64_t n[ISO_CUDA_AXES], from_stride[ISO_CUDA_AXES], to_stride[ISO_CUDA_AXES];
} iso_cuda_move;
cudaError_t iso_cuda_move_run(const iso_cuda_move *m, cudaStream_t stream);

/* to[plane . to_plane + j to_pitch + i] = from[plane . from_plane + i from_pitch + j], i < ni, j < nj: tiles through shared memory. */
typedef struct iso_cuda_transpose {
    const float *from;
    float *to;
    int64_t ni, nj, from_pitch, to_pitch;
    int64_t planes[2], from_plane[2], to_plane[2];
} iso_cuda_transpose;
cudaError_t iso_cuda_transpose_run(const iso_cuda_transpose *t, cudaStream_t stream);

/* to [outer, total] = zeros, but for from [outer, n] at position `before` of each row. */
typedef struct iso_cuda_pad {
    const float *from;
    float *to;
    int64_t outer, total, before, n;
} iso_cuda_pad;
cudaError_t iso_cuda_pad_run(const iso_cuda_pad *p, cudaStream_t stream);

/* Rows of n elements by index: to [rows, n] = from [limit, n]; NaN where an index is outside. */
typedef struct iso_cuda_rows {
    const float *from;
    float *to;
    const int64_t *index;
    int64_t rows, n, limit;
} iso_cuda_rows;
cudaError_t iso_cuda_gather_run(const iso_cuda_rows *r, cudaStream_t stream);
/* to [limit, n]: row k is the sum of the rows r of from [rows, n] with index[r] = k, in the order of r. */
cudaError_t iso_cuda_scatter_run(const iso_cuda_rows *r, cudaStream_t stream);

/* Sums in double. For each kept index, over each summed index: rows of `inner` neighbours, added up into one output each
 * (inner_kept) or all into one. The work on an output is cut into `chunks`, put together from `partial` [chunks, outputs]
 * in order, so that the result does not depend on what runs when. */
typedef struct iso_cuda_sum {
    const float *from;
    float *to;
    double *partial; /* NULL when chunks is 1 */
    int64_t kept_n[ISO_CUDA_AXES], kept_stride[ISO_CUDA_AXES], summed_n[ISO_CUDA_AXES], summed_stride[ISO_CUDA_AXES];
    int64_t kept_count, summed_count, inner;
    int inner_kept, chunks;
} iso_cuda_sum;
/* Fills `chunks` from the rest; returns the bytes of `partial`. */
size_t iso_cuda_sum_plan(iso_cuda_sum *s);
cudaError_t iso_cuda_sum_run(const iso_cuda_sum *s, cudaStream_t stream);

/* The same for products, few columns by many: to[k few_stride + j many_stride] = the sum over rows of few [rows, fews] at k and many [rows, columns] at j. */
enum { ISO_CUDA_FEW = 4 };
typedef struct iso_cuda_outer {
    const float *few, *many;
    float *to;
    double *partial; /* [chunks, fews * columns], as `to`; NULL when chunks is 1 */
    int64_t rows, columns, few_stride, many_stride;
    int fews, chunks;
} iso_cuda_outer;
size_t iso_cuda_outer_plan(iso_cuda_outer *o);
cudaError_t iso_cuda_outer_run(const iso_cuda_outer *o, cudaStream_t stream);

/* The pixels under a filter as rows, channels last: rows [n, oh, ow] [kh, kw, c] from x [n, h, w, c], zeros where a filter
 * reaches beyond the image. fold: x = the sum of what rows have for each pixel, in the order of the filter's pixels. */
typedef struct iso_cuda_patches {
    float *x, *rows;
    int64_t n, h, w, c, oh, ow, kh, kw;
    int stride, pad;
} iso_cuda_patches;
cudaError_t iso_cuda_unfold_run(const iso_cuda_patches *p, cudaStream_t stream);
cudaError_t iso_cuda_fold_run(const iso_cuda_patches *p, cudaStream_t stream);

/* iso_device.bytes */
typedef struct iso_cuda_bytes {
    float *to;
    const uint8_t *from, *mirror;
    const int64_t *rows;
    int64_t n, dim, width, depth;
} iso_cuda_bytes;
cudaError_t iso_cuda_bytes_run(const iso_cuda_bytes *b, cudaStream_t stream);

/* to[at[i] + k] = from[i][k], k < count[i] <= 16 */
enum { ISO_CUDA_PUBLISH = 32, ISO_CUDA_PUBLISH_REALS = 16 };
typedef struct iso_cuda_publish {
    float *to;
    int n;
    const float *from[ISO_CUDA_PUBLISH];
    int at[ISO_CUDA_PUBLISH], count[ISO_CUDA_PUBLISH];
} iso_cuda_publish;
cudaError_t iso_cuda_publish_run(const iso_cuda_publish *p, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
