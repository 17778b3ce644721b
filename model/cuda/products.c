/* products.c: matrix products by cuBLAS.
 *
 * cuBLAS counts columns first. A row-major [r, c] is its [c, r], so out = op(a) op(b) is asked for as
 * out^T = op(b)^T op(a)^T: the operands change places, and an operand is transposed exactly where it was before. */
#include <limits.h>

#include "model/cuda/cuda.h"

void iso_cuda_gemm_run(const iso_cuda_gemm *g, bool tf32)
{
    const float one = 1, keep = g->add ? 1 : 0;
    const int m = (int)g->m, n = (int)g->n, k = (int)g->k, ldb = g->transpose_b ? k : n, lda = g->transpose_a ? m : k;
    const cublasOperation_t tb = g->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N, ta = g->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasComputeType_t with = tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    iso_cuda *c = iso_cuda_get();
    static unsigned turn;
    const int memory = (int)(turn++ % ISO_CUDA_BLAS_MEMORIES);
    cublasHandle_t blas = c->blas;
    iso_cuda_shared_begin(memory);
    (void)iso_cuda_blas_ok(cublasSetWorkspace(blas, c->blas_memory[memory], ISO_CUDA_BLAS_BYTES), "a matrix product's memory");
    /* one product by the call for one: it may share a long depth among its blocks, where many have the grid's third axis for themselves */
    cublasStatus_t s =
        g->batch == 1 ? cublasGemmEx(blas, tb, ta, n, m, k, &one, g->b, CUDA_R_32F, ldb, g->a, CUDA_R_32F, lda, &keep, g->out, CUDA_R_32F, n, with,
                                     CUBLAS_GEMM_DEFAULT)
                      : cublasGemmStridedBatchedEx(blas, tb, ta, n, m, k, &one, g->b, CUDA_R_32F, ldb, g->n * g->k, g->a, CUDA_R_32F, lda, g->m * g->k,
                                                   &keep, g->out, CUDA_R_32F, n, g->m * g->n, (int)g->batch, with, CUBLAS_GEMM_DEFAULT);
    (void)iso_cuda_blas_ok(s, "a matrix product");
    iso_cuda_shared_end(memory);
}

iso_status iso_cuda_gemm_check(const iso_cuda_gemm *g, iso_error *err)
{
    if (g->m <= INT_MAX && g->n <= INT_MAX && g->k <= INT_MAX && g->batch <= INT_MAX) return ISO_OK;
    return iso_fail(err, ISO_E_UNSUPPORTED, "a matrix product of %lld x %lld x %lld is too large for cuBLAS",
                    (long long)g->m, (long long)g->k, (long long)g->n);
}

static iso_cuda_gemm gemm_of(const iso_call *call)
{
    const iso_shape *a = &call->in[0].shape, *out = &call->out.shape;
    const int d = out->ndim - 2;
    const bool ta = call->attr.i[0], tb = call->attr.i[1];
    return (iso_cuda_gemm){.a = call->in[0].data, .b = call->in[1].data, .out = call->out.data, .batch = d ? out->dim[0] : 1,
                           .m = out->dim[d], .n = out->dim[d + 1], .k = a->dim[d + !ta], .transpose_a = ta, .transpose_b = tb};
}

iso_status iso_cuda_matmul_prepare(const iso_call *call, iso_error *err)
{
    const iso_cuda_gemm g = gemm_of(call);
    return iso_cuda_gemm_check(&g, err);
}

void iso_cuda_matmul(const iso_call *call, bool tf32)
{
    const iso_cuda_gemm g = gemm_of(call);
    iso_cuda_gemm_run(&g, tf32);
}
