#include "model/cpu/cpu.h"
#include "model/cpu/gemm.h"

void iso_cpu_matmul(const iso_call *call)
{
    const iso_shape *a = &call->in[0].shape, *b = &call->in[1].shape, *c = &call->out.shape;
    const bool ta = call->attr.i[0] != 0, tb = call->attr.i[1] != 0;
    const int last = a->ndim - 1;
    const int64_t batch = a->ndim == 3 ? a->dim[0] : 1;
    const int64_t m = c->dim[last - 1], n = c->dim[last], k = ta ? a->dim[last - 1] : a->dim[last];
    for (int64_t p = 0; p < batch; p++) {
        iso_gemm_matrix ma = {(const float *)call->in[0].data + p * m * k, a->dim[last]};
        iso_gemm_matrix mb = {(const float *)call->in[1].data + p * k * n, b->dim[last]};
        iso_gemm g = {.m = m, .n = n, .k = k, .a = &ma, .b = &mb, .a_cost = ta ? 0.5 : 0.3, .b_cost = tb ? 0.9 : 0.4,
                      .pack_a = ta ? iso_gemm_pack_a_depth : iso_gemm_pack_a_rows, .a_by_depth = ta,
                      .pack_b = tb ? iso_gemm_pack_b_depth : iso_gemm_pack_b_rows,
                      .find_a = ta ? iso_gemm_find_depth : iso_gemm_find_rows, .find_b = tb ? iso_gemm_find_rows : iso_gemm_find_depth,
                      .b_by_columns = tb,
                      .c = (float *)call->out.data + p * m * n, .c_pitch = n};
        iso_gemm_run(&g, call->threads, call->workspace);
    }
}
