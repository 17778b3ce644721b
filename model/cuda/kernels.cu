/* kernels.cu: what moves, sums and converts. Each kernel takes one structure and reads like its definition in kernels.h.
 * Indices are 32 bits wide where the work allows: a division then costs a fraction. */
#include "model/cuda/kernels.h"

#include <math_constants.h>

namespace {

constexpr int BLOCK = ISO_CUDA_BLOCK, TILE = 32, TILE_ROWS = 8;
constexpr int64_t MOST_BLOCKS = 4096;

template <typename Args> cudaError_t launch(void (*kernel)(Args), int64_t blocks, dim3 block, const Args &args, cudaStream_t stream)
{
    void *parameter[] = {const_cast<Args *>(&args)};
    return cudaLaunchKernel(reinterpret_cast<const void *>(kernel), dim3((unsigned)blocks), block, parameter, 0, stream);
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Blocks for n elements of a loop that goes on with a stride of the grid. */
int64_t blocks_for(int64_t n)
{
    int64_t blocks = ceil_div(n, BLOCK);
    return blocks < 1 ? 1 : blocks > MOST_BLOCKS ? MOST_BLOCKS : blocks;
}

bool small(int64_t n) { return n < (int64_t)1 << 30; }

#define EACH(Index, i, n) \
    for (Index i = (Index)blockIdx.x * BLOCK + threadIdx.x, end_ = (Index)(n); i < end_; i += (Index)gridDim.x * BLOCK)

/* --- move */

template <typename Element, typename Index> __global__ void move_kernel(iso_cuda_move m)
{
    const Element *from = (const Element *)m.from;
    Element *to = (Element *)m.to;
    const Index n1 = (Index)m.n[1], n2 = (Index)m.n[2], n3 = (Index)m.n[3];
    EACH(Index, i, m.n[0] * m.n[1] * m.n[2] * m.n[3])
    {
        Index i3 = i % n3, rest = i / n3, i2 = rest % n2;
        rest /= n2;
        Index i1 = rest % n1, i0 = rest / n1;
        to[i0 * m.to_stride[0] + i1 * m.to_stride[1] + i2 * m.to_stride[2] + i3 * m.to_stride[3]] =
            from[i0 * m.from_stride[0] + i1 * m.from_stride[1] + i2 * m.from_stride[2] + i3 * m.from_stride[3]];
    }
}

/* Whether rows can be moved four elements at a time. */
bool by_four(const iso_cuda_move *m)
{
    if (m->n[3] % 4 || m->from_stride[3] != 1 || m->to_stride[3] != 1) return false;
    if ((uintptr_t)m->from % sizeof(float4) || (uintptr_t)m->to % sizeof(float4)) return false;
    for (int d = 0; d < 3; d++)
        if (m->n[d] > 1 && (m->from_stride[d] % 4 || m->to_stride[d] % 4)) return false;
    return true;
}

/* --- permute: planes transposed tile by tile */

__global__ void transpose_kernel(iso_cuda_transpose t)
{
    __shared__ float tile[TILE][TILE + 1];
    const int64_t tiles_i = (t.ni + TILE - 1) / TILE, tiles_j = (t.nj + TILE - 1) / TILE;
    const int64_t i0 = blockIdx.x % tiles_i * TILE, j0 = blockIdx.x / tiles_i % tiles_j * TILE;
    const int64_t plane = blockIdx.x / tiles_i / tiles_j, p0 = plane / t.planes[1], p1 = plane % t.planes[1];
    const float *from = t.from + p0 * t.from_plane[0] + p1 * t.from_plane[1];
    float *to = t.to + p0 * t.to_plane[0] + p1 * t.to_plane[1];
    for (int r = threadIdx.y; r < TILE; r += TILE_ROWS) {
        const int64_t i = i0 + r, j = j0 + threadIdx.x;
        if (i < t.ni && j < t.nj) tile[r][threadIdx.x] = from[i * t.from_pitch + j];
    }
    __syncthreads();
    for (int r = threadIdx.y; r < TILE; r += TILE_ROWS) {
        const int64_t i = i0 + threadIdx.x, j = j0 + r;
        if (i < t.ni && j < t.nj) to[j * t.to_pitch + i] = tile[threadIdx.x][r];
    }
}

/* --- pad, gather, scatter */

template <typename Index> __global__ void pad_kernel(iso_cuda_pad p)
{
    const Index total = (Index)p.total;
    EACH(Index, i, p.outer * p.total)
    {
        const int64_t row = i / total, at = (int64_t)(i % total) - p.before;
        p.to[i] = at >= 0 && at < p.n ? p.from[row * p.n + at] : 0.0f;
    }
}

template <typename Index> __global__ void gather_kernel(iso_cuda_rows r)
{
    const Index n = (Index)r.n;
    EACH(Index, i, r.rows * r.n)
    {
        const int64_t from = r.index[i / n];
        r.to[i] = from >= 0 && from < r.limit ? r.from[from * r.n + i % n] : CUDART_NAN_F;
    }
}

/* A block has BLOCK * COLUMNS columns of one row of `to`, so that the index is read once for many numbers. */
enum { COLUMNS = 8 };
__global__ void scatter_kernel(iso_cuda_rows r)
{
    const int64_t parts = (r.n + BLOCK * COLUMNS - 1) / (BLOCK * COLUMNS), row = blockIdx.x / parts;
    const int64_t column = blockIdx.x % parts * BLOCK * COLUMNS + threadIdx.x;
    float sum[COLUMNS] = {0};
    for (int64_t k = 0; k < r.rows; k++) {
        if (r.index[k] != row) continue;
#pragma unroll
        for (int j = 0; j < COLUMNS; j++)
            if (column + j * BLOCK < r.n) sum[j] += r.from[k * r.n + column + j * BLOCK];
    }
#pragma unroll
    for (int j = 0; j < COLUMNS; j++)
        if (column + j * BLOCK < r.n) r.to[row * r.n + column + j * BLOCK] = sum[j];
}

/* --- sum */

__device__ int64_t offset_of(const int64_t *n, const int64_t *stride, int64_t index)
{
    if (n[0] == 1 && n[1] == 1 && n[2] == 1) return index * stride[3];
    int64_t offset = 0;
    for (int d = ISO_CUDA_AXES - 1; d >= 0; d--) {
        offset += index % n[d] * stride[d];
        index /= n[d];
    }
    return offset;
}

__device__ void finish(const iso_cuda_sum &s, int64_t output, int64_t outputs, int chunk, double total)
{
    if (s.chunks == 1)
        s.to[output] = (float)total;
    else
        s.partial[chunk * outputs + output] = total;
}

/* Few numbers for each output: a thread does them all. */
__global__ void sum_few_kernel(iso_cuda_sum s)
{
    const int64_t inner = s.inner_kept ? s.inner : 1, along = s.inner_kept ? 1 : s.inner;
    EACH(int64_t, o, s.kept_count * inner)
    {
        const float *from = s.from + offset_of(s.kept_n, s.kept_stride, o / inner) + o % inner;
        double total = 0;
        for (int64_t r = 0; r < s.summed_count; r++) {
            const float *row = from + offset_of(s.summed_n, s.summed_stride, r);
            for (int64_t k = 0; k < along; k++) total += row[k];
        }
        s.to[o] = (float)total;
    }
}

/* Columns side by side: `width` of them (a power of two) in a block, the rest of its threads take other rows. */
__host__ __device__ int column_width(int64_t inner)
{
    int width = 1;
    while (width < 32 && width < inner) width *= 2;
    return width;
}

__global__ void sum_columns_kernel(iso_cuda_sum s)
{
    __shared__ double part[BLOCK];
    const int width = column_width(s.inner), lanes = BLOCK / width, x = threadIdx.x % width, y = threadIdx.x / width;
    const int64_t tiles = (s.inner + width - 1) / width, outputs = s.kept_count * s.inner;
    const int chunk = blockIdx.x % s.chunks;
    const int64_t tile = blockIdx.x / s.chunks % tiles, kept = blockIdx.x / s.chunks / tiles;
    const int64_t column = tile * width + x;
    const int64_t first = s.summed_count * chunk / s.chunks, last = s.summed_count * (chunk + 1) / s.chunks;
    double total = 0;
    if (column < s.inner) {
        const float *from = s.from + offset_of(s.kept_n, s.kept_stride, kept) + column;
#pragma unroll 4
        for (int64_t r = first + y; r < last; r += lanes) total += from[offset_of(s.summed_n, s.summed_stride, r)];
    }
    part[threadIdx.x] = total;
    __syncthreads();
    for (int half = lanes / 2; half > 0; half /= 2) {
        if (y < half) part[threadIdx.x] += part[threadIdx.x + half * width];
        __syncthreads();
    }
    if (y == 0 && column < s.inner) finish(s, kept * s.inner + column, outputs, chunk, part[x]);
}

/* One output: a block goes along its numbers. */
__global__ void sum_rows_kernel(iso_cuda_sum s)
{
    __shared__ double part[BLOCK];
    const int chunk = blockIdx.x % s.chunks;
    const int64_t kept = blockIdx.x / s.chunks, count = s.summed_count * s.inner;
    const int64_t first = count * chunk / s.chunks, last = count * (chunk + 1) / s.chunks;
    const float *from = s.from + offset_of(s.kept_n, s.kept_stride, kept);
    double total = 0;
    if (s.summed_count == 1) {
#pragma unroll 4
        for (int64_t i = first + threadIdx.x; i < last; i += BLOCK) total += from[i];
    } else {
        for (int64_t i = first + threadIdx.x; i < last; i += BLOCK)
            total += from[offset_of(s.summed_n, s.summed_stride, i / s.inner) + i % s.inner];
    }
    part[threadIdx.x] = total;
    __syncthreads();
    for (int half = BLOCK / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) finish(s, kept, s.kept_count, chunk, part[0]);
}

/* Puts chunks together: 32 threads for each of 8 outputs. */
__global__ void sum_chunks_kernel(iso_cuda_sum s)
{
    __shared__ double part[BLOCK];
    const int lane = threadIdx.x % 32;
    const int64_t outputs = s.kept_count * (s.inner_kept ? s.inner : 1), o = (int64_t)blockIdx.x * (BLOCK / 32) + threadIdx.x / 32;
    double total = 0;
    if (o < outputs)
        for (int c = lane; c < s.chunks; c += 32) total += s.partial[c * outputs + o];
    part[threadIdx.x] = total;
    __syncthreads();
    for (int half = 16; half > 0; half /= 2) {
        if (lane < half) part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    if (lane == 0 && o < outputs) s.to[o] = (float)part[threadIdx.x];
}

/* sum_columns_kernel, with several sums for each column. Their number is known to the compiler, so that several rows are under way at once. */
template <int FEWS> __global__ void outer_kernel(iso_cuda_outer o)
{
    __shared__ double part[BLOCK];
    const int width = column_width(o.columns), lanes = BLOCK / width, x = threadIdx.x % width, y = threadIdx.x / width;
    const int chunk = blockIdx.x % o.chunks;
    const int64_t column = (int64_t)(blockIdx.x / o.chunks) * width + x;
    const int64_t first = o.rows * chunk / o.chunks, last = o.rows * (chunk + 1) / o.chunks;
    double total[FEWS] = {0};
    if (column < o.columns)
#pragma unroll 4
        for (int64_t r = first + y; r < last; r += lanes) {
            const double factor = o.many[r * o.columns + column];
#pragma unroll
            for (int k = 0; k < FEWS; k++) total[k] += factor * o.few[r * FEWS + k];
        }
#pragma unroll
    for (int k = 0; k < FEWS; k++) {
        part[threadIdx.x] = total[k];
        __syncthreads();
        for (int half = lanes / 2; half > 0; half /= 2) {
            if (y < half) part[threadIdx.x] += part[threadIdx.x + half * width];
            __syncthreads();
        }
        if (y == 0 && column < o.columns) {
            const int64_t at = k * o.few_stride + column * o.many_stride;
            if (o.chunks == 1)
                o.to[at] = (float)part[x];
            else
                o.partial[chunk * FEWS * o.columns + at] = part[x];
        }
        __syncthreads(); /* part is used again */
    }
}

bool is_few(const iso_cuda_sum *s) { return s->inner_kept ? s->summed_count <= 16 : s->summed_count * s->inner <= 32; }

/* Blocks when nothing is cut. */
int64_t sum_blocks(const iso_cuda_sum *s)
{
    return s->kept_count * (s->inner_kept ? ceil_div(s->inner, column_width(s->inner)) : 1);
}

/* --- patches */

template <typename Index> __global__ void unfold_kernel(iso_cuda_patches p)
{
    const Index c = (Index)p.c, kw = (Index)p.kw, kh = (Index)p.kh, ow = (Index)p.ow, oh = (Index)p.oh;
    EACH(Index, i, p.n * p.oh * p.ow * p.kh * p.kw * p.c)
    {
        Index rest = i / c;
        const int64_t dx = rest % kw;
        rest /= kw;
        const int64_t dy = rest % kh;
        rest /= kh;
        const int64_t x = (int64_t)(rest % ow) * p.stride - p.pad + dx;
        rest /= ow;
        const int64_t y = (int64_t)(rest % oh) * p.stride - p.pad + dy, image = rest / oh;
        const bool inside = x >= 0 && x < p.w && y >= 0 && y < p.h;
        p.rows[i] = inside ? p.x[((image * p.h + y) * p.w + x) * p.c + i % c] : 0.0f;
    }
}

template <typename Index> __global__ void fold_kernel(iso_cuda_patches p)
{
    const Index c = (Index)p.c, w = (Index)p.w, h = (Index)p.h;
    EACH(Index, i, p.n * p.h * p.w * p.c)
    {
        Index rest = i / c;
        const int64_t x = rest % w + p.pad;
        rest /= w;
        const int64_t y = rest % h + p.pad, image = rest / h;
        float sum = 0.0f;
        for (int64_t dy = y % p.stride; dy < p.kh && dy <= y; dy += p.stride)
            for (int64_t dx = x % p.stride; dx < p.kw && dx <= x; dx += p.stride) {
                const int64_t oy = (y - dy) / p.stride, ox = (x - dx) / p.stride;
                if (oy >= p.oh || ox >= p.ow) continue;
                sum += p.rows[((((image * p.oh + oy) * p.ow + ox) * p.kh + dy) * p.kw + dx) * p.c + i % c];
            }
        p.x[i] = sum;
    }
}

/* --- bytes, publish */

template <typename Index> __global__ void bytes_kernel(iso_cuda_bytes b)
{
    const Index dim = (Index)b.dim, depth = (Index)b.depth, line = (Index)(b.width * b.depth);
    EACH(Index, i, b.n * b.dim)
    {
        const Index row = i / dim, k = i % dim;
        Index from = k;
        if (b.mirror && b.mirror[row]) {
            const Index in_line = k % line, element = in_line / depth;
            from = k - in_line + ((Index)b.width - 1 - element) * depth + in_line % depth;
        }
        b.to[i] = (float)b.from[b.rows[row] * b.dim + from] / 127.5f - 1.0f;
    }
}

__global__ void publish_kernel(iso_cuda_publish p)
{
    const int i = threadIdx.x / ISO_CUDA_PUBLISH_REALS, k = threadIdx.x % ISO_CUDA_PUBLISH_REALS;
    if (i < p.n && k < p.count[i]) p.to[p.at[i] + k] = p.from[i][k];
}

} // namespace

cudaError_t iso_cuda_move_run(const iso_cuda_move *m, cudaStream_t stream)
{
    iso_cuda_move by = *m;
    const bool four = by_four(m);
    if (four) {
        by.n[3] /= 4;
        for (int d = 0; d < 3; d++) {
            by.from_stride[d] /= 4;
            by.to_stride[d] /= 4;
        }
    }
    const int64_t count = by.n[0] * by.n[1] * by.n[2] * by.n[3];
    if (count == 0) return cudaSuccess;
    void (*kernel)(iso_cuda_move) = small(count) ? (four ? move_kernel<float4, uint32_t> : move_kernel<float, uint32_t>)
                                                 : (four ? move_kernel<float4, uint64_t> : move_kernel<float, uint64_t>);
    return launch(kernel, blocks_for(count), dim3(BLOCK), by, stream);
}

cudaError_t iso_cuda_transpose_run(const iso_cuda_transpose *t, cudaStream_t stream)
{
    const int64_t blocks = ceil_div(t->ni, TILE) * ceil_div(t->nj, TILE) * t->planes[0] * t->planes[1];
    if (blocks == 0) return cudaSuccess;
    return launch(transpose_kernel, blocks, dim3(TILE, TILE_ROWS), *t, stream);
}

cudaError_t iso_cuda_pad_run(const iso_cuda_pad *p, cudaStream_t stream)
{
    const int64_t count = p->outer * p->total;
    return launch(small(count) ? pad_kernel<uint32_t> : pad_kernel<uint64_t>, blocks_for(count), dim3(BLOCK), *p, stream);
}

cudaError_t iso_cuda_gather_run(const iso_cuda_rows *r, cudaStream_t stream)
{
    const int64_t count = r->rows * r->n;
    return launch(small(count) ? gather_kernel<uint32_t> : gather_kernel<uint64_t>, blocks_for(count), dim3(BLOCK), *r, stream);
}

cudaError_t iso_cuda_scatter_run(const iso_cuda_rows *r, cudaStream_t stream)
{
    return launch(scatter_kernel, r->limit * ceil_div(r->n, BLOCK * COLUMNS), dim3(BLOCK), *r, stream);
}

/* A sum is cut to fill a device, but not below some steps of a thread. */
static int chunks_for(int64_t blocks, int64_t steps)
{
    constexpr int64_t BLOCKS = 1024, STEPS = 16;
    int64_t chunks = ceil_div(BLOCKS, blocks);
    if (chunks > steps / STEPS) chunks = steps / STEPS;
    return chunks > 1 ? (int)chunks : 1;
}

/* How often the sum is cut depends on its shape alone: the same order of additions on every device. */
size_t iso_cuda_sum_plan(iso_cuda_sum *s)
{
    s->chunks = 1;
    if (is_few(s)) return 0;
    const int64_t work = s->inner_kept ? s->summed_count / (BLOCK / column_width(s->inner)) : s->summed_count * s->inner / BLOCK;
    s->chunks = chunks_for(sum_blocks(s), work);
    return s->chunks == 1 ? 0 : (size_t)(s->chunks * s->kept_count * (s->inner_kept ? s->inner : 1)) * sizeof(double);
}

cudaError_t iso_cuda_sum_run(const iso_cuda_sum *s, cudaStream_t stream)
{
    const int64_t outputs = s->kept_count * (s->inner_kept ? s->inner : 1);
    if (is_few(s)) return launch(sum_few_kernel, blocks_for(outputs), dim3(BLOCK), *s, stream);
    cudaError_t e = launch(s->inner_kept ? sum_columns_kernel : sum_rows_kernel, sum_blocks(s) * s->chunks, dim3(BLOCK), *s, stream);
    if (e != cudaSuccess || s->chunks == 1) return e;
    return launch(sum_chunks_kernel, ceil_div(outputs, BLOCK / 32), dim3(BLOCK), *s, stream);
}

size_t iso_cuda_outer_plan(iso_cuda_outer *o)
{
    const int width = column_width(o->columns);
    o->chunks = chunks_for(ceil_div(o->columns, width), o->rows / (BLOCK / width));
    return o->chunks == 1 ? 0 : (size_t)o->chunks * o->fews * o->columns * sizeof(double);
}

cudaError_t iso_cuda_outer_run(const iso_cuda_outer *o, cudaStream_t stream)
{
    static_assert(ISO_CUDA_FEW == 4, "a kernel for each");
    static void (*const kernel[])(iso_cuda_outer) = {outer_kernel<1>, outer_kernel<2>, outer_kernel<3>, outer_kernel<4>};
    cudaError_t e = launch(kernel[o->fews - 1], ceil_div(o->columns, column_width(o->columns)) * o->chunks, dim3(BLOCK), *o, stream);
    if (e != cudaSuccess || o->chunks == 1) return e;
    iso_cuda_sum s = {};
    s.to = o->to;
    s.partial = o->partial;
    s.kept_count = s.summed_count = s.inner_kept = 1;
    s.inner = o->fews * o->columns;
    s.chunks = o->chunks;
    return launch(sum_chunks_kernel, ceil_div(s.inner, BLOCK / 32), dim3(BLOCK), s, stream);
}

cudaError_t iso_cuda_unfold_run(const iso_cuda_patches *p, cudaStream_t stream)
{
    const int64_t count = p->n * p->oh * p->ow * p->kh * p->kw * p->c;
    return launch(small(count) ? unfold_kernel<uint32_t> : unfold_kernel<uint64_t>, blocks_for(count), dim3(BLOCK), *p, stream);
}

cudaError_t iso_cuda_fold_run(const iso_cuda_patches *p, cudaStream_t stream)
{
    const int64_t count = p->n * p->h * p->w * p->c;
    return launch(small(count) ? fold_kernel<uint32_t> : fold_kernel<uint64_t>, blocks_for(count), dim3(BLOCK), *p, stream);
}

cudaError_t iso_cuda_bytes_run(const iso_cuda_bytes *b, cudaStream_t stream)
{
    const int64_t count = b->n * b->dim;
    return launch(small(count) ? bytes_kernel<uint32_t> : bytes_kernel<uint64_t>, blocks_for(count), dim3(BLOCK), *b, stream);
}

cudaError_t iso_cuda_publish_run(const iso_cuda_publish *p, cudaStream_t stream)
{
    return launch(publish_kernel, 1, dim3(ISO_CUDA_PUBLISH * ISO_CUDA_PUBLISH_REALS), *p, stream);
}
