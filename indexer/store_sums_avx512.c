/* store_sums_avx512.c: sums of products with AVX-512: tiles of 8 x 16, of which fewer numbers lie below the diagonal than of wider ones. */
#include "indexer/store_sums.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx512f")))
#define VEC __m512d
enum { LANES = 8, COLUMNS = 2 };
#define LOAD(p) _mm512_loadu_pd(p)
#define STORE(p, v) _mm512_storeu_pd(p, v)
#define SPLAT(x) _mm512_set1_pd(x)
#define ADD(x, y) _mm512_add_pd(x, y)
#define SUB(x, y) _mm512_sub_pd(x, y)
#define DIV(x, y) _mm512_div_pd(x, y)
#define MAX(x, y) _mm512_max_pd(x, y)
#define ABS(x) _mm512_abs_pd(x)
#define MULADD(x, y, z) _mm512_fmadd_pd(x, y, z)
#define MULSUB(x, y, z) _mm512_fmsub_pd(x, y, z)
#define WIDEN(p) _mm512_cvtps_pd(_mm256_loadu_ps(p))
#define ANY_ABOVE(x, y) (_mm512_cmp_pd_mask(x, y, _CMP_GT_OQ) != 0)
#include "indexer/store_sums_tiles.h"

bool iso_sums_avx512(iso_sums *s)
{
    return iso_isa_has(ISO_ISA_AVX512F) && arithmetic(s);
}
#else
bool iso_sums_avx512(iso_sums *s) { return (void)s, false; }
#endif
