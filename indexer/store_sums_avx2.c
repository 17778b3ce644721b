/* store_sums_avx2.c: sums of products with AVX2: tiles of 4 x 12, whose 12 accumulators, three vectors and one number fill the 16 registers. */
#include "indexer/store_sums.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma")))
#define VEC __m256d
enum { LANES = 4, COLUMNS = 3 };
#define LOAD(p) _mm256_loadu_pd(p)
#define STORE(p, v) _mm256_storeu_pd(p, v)
#define SPLAT(x) _mm256_set1_pd(x)
#define ADD(x, y) _mm256_add_pd(x, y)
#define SUB(x, y) _mm256_sub_pd(x, y)
#define DIV(x, y) _mm256_div_pd(x, y)
#define MAX(x, y) _mm256_max_pd(x, y)
#define ABS(x) _mm256_andnot_pd(_mm256_set1_pd(-0.0), x)
#define MULADD(x, y, z) _mm256_fmadd_pd(x, y, z)
#define MULSUB(x, y, z) _mm256_fmsub_pd(x, y, z)
#define WIDEN(p) _mm256_cvtps_pd(_mm_loadu_ps(p))
#define ANY_ABOVE(x, y) (_mm256_movemask_pd(_mm256_cmp_pd(x, y, _CMP_GT_OQ)) != 0)
#include "indexer/store_sums_tiles.h"

bool iso_sums_avx2(iso_sums *s)
{
    return iso_isa_has(ISO_ISA_AVX2) && arithmetic(s);
}
#else
bool iso_sums_avx2(iso_sums *s) { return (void)s, false; }
#endif
