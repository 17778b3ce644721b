/* gemm_kernel.h: the micro-kernel, written once over a vector type. A file that includes it defines
 *   TARGET (function attribute), VEC, LANES, ZERO, LOAD(p), STORE(p, v), SPLAT(p), ADD(x, y), MULADD(x, y, z) = x y + z,
 *   UNROLL: depths written out (1: one), STRIDE: depths for a line that is asked for
 * and gets kernels by KERNELS_6 or KERNELS_14, which NAMES_6 and NAMES_14 name. Accumulators are named variables, not an array, so that every
 * compiler keeps them in registers. */
#include "model/cpu/gemm.h"
#include <string.h>

#define INLINE static inline __attribute__((always_inline)) TARGET

INLINE void save(float *c, VEC v, bool add)
{
    if (add) v = ADD(LOAD(c), v);
    STORE(c, v);
}

/* The last columns of a matrix: fewer than a tile is wide. */
INLINE void save_part(float *c, VEC v0, VEC v1, int n, bool add)
{
    float row[2 * LANES];
    STORE(row, v0);
    STORE(row + LANES, v1);
    for (int j = 0; j < n; j++) c[j] = add ? c[j] + row[j] : row[j];
}

#define DECLARE(i) VEC p##i = ZERO, q##i = ZERO;
#define FETCH(i)                                                          \
    if (i < height) {                                                     \
        __builtin_prefetch(c[i] + column, 1);                             \
        if (vectors > 1) __builtin_prefetch(c[i] + column + LANES, 1);    \
    }
#define MUL(i)                                             \
    if (i < height) {                                      \
        VEC x = SPLAT(a + (by_depth ? i : i * a_rows));    \
        p##i = MULADD(x, b0, p##i);                        \
        if (vectors > 1) q##i = MULADD(x, b1, q##i);       \
    }
#define SAVE(i)                                                       \
    if (i < height) {                                                 \
        float *to = c[i] + column;                                    \
        if (whole) {                                                  \
            save(to, p##i, add);                                      \
            if (vectors > 1) save(to + LANES, q##i, add);             \
        } else {                                                      \
            save_part(to, p##i, q##i, n, add);                        \
        }                                                             \
    }
#define EACH_ROW(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13)

#define DEPTH                                                        \
    {                                                                \
        VEC b0 = LOAD(b), b1 = vectors > 1 ? LOAD(b + LANES) : ZERO; \
        EACH_ROW(MUL)                                                \
        a += by_depth ? ISO_GEMM_PANEL : 1;                          \
        b += b_rows;                                                 \
        (void)b1;                                                    \
    }

INLINE void micro(const int height, const int vectors, const int way, int64_t depth, const float *a, const float *b, float *const *c, int64_t column,
                  int n, bool add, int64_t a_pitch, int64_t b_pitch, const char *ahead, int64_t ahead_pitch)
{
    const bool whole = n == vectors * LANES, by_depth = way == ISO_GEMM_BY_DEPTH || way == ISO_GEMM_BOTH_BY_DEPTH;
    const int64_t a_rows = way == ISO_GEMM_AS_IT_LIES ? a_pitch : ISO_GEMM_LDA;
    const int64_t b_rows = way == ISO_GEMM_AS_IT_LIES ? b_pitch : way == ISO_GEMM_BOTH_BY_DEPTH ? ISO_GEMM_LDA : 2 * LANES;
    EACH_ROW(DECLARE)
    if (add) { /* rows that are only written wait for nothing */
        EACH_ROW(FETCH)
    }
    for (; ahead && depth >= STRIDE; depth -= STRIDE, ahead += ahead_pitch) {
        __builtin_prefetch(ahead, 0, 2);
#pragma GCC unroll 8
        for (int k = 0; k < STRIDE; k++) DEPTH
    }
#pragma GCC unroll UNROLL
    for (int64_t k = 0; k < depth; k++) DEPTH
    EACH_ROW(SAVE)
}

#define KERNEL(way, vectors, height)                                                                                                          \
    static TARGET void micro_##way##_##vectors##_##height(int64_t depth, const float *a, const float *b, float *const *c, int64_t column,     \
                                                          int n, bool add, int64_t a_pitch, int64_t b_pitch, const char *ahead,               \
                                                          int64_t ahead_pitch)                                                                \
    {                                                                                                                                         \
        micro(height, vectors, way, depth, a, b, c, column, n, add, a_pitch, b_pitch, ahead, ahead_pitch);                                    \
    }
#define KERNELS_6(d, v) KERNEL(d, v, 1) KERNEL(d, v, 2) KERNEL(d, v, 3) KERNEL(d, v, 4) KERNEL(d, v, 5) KERNEL(d, v, 6)
#define KERNELS_14(d, v)                                                                                            \
    KERNELS_6(d, v) KERNEL(d, v, 7) KERNEL(d, v, 8) KERNEL(d, v, 9) KERNEL(d, v, 10) KERNEL(d, v, 11) KERNEL(d, v, 12) \
    KERNEL(d, v, 13) KERNEL(d, v, 14)
#define NAMES_6(d, v) micro_##d##_##v##_1, micro_##d##_##v##_2, micro_##d##_##v##_3, micro_##d##_##v##_4, micro_##d##_##v##_5, \
    micro_##d##_##v##_6
#define NAMES_14(d, v) NAMES_6(d, v), micro_##d##_##v##_7, micro_##d##_##v##_8, micro_##d##_##v##_9, micro_##d##_##v##_10, \
    micro_##d##_##v##_11, micro_##d##_##v##_12, micro_##d##_##v##_13, micro_##d##_##v##_14
