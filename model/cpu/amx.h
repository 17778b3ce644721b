/* amx.h: what the files share that use the tile unit: splitting floats into bfloat16s (gemm_amx.h says why), and its set-up. */
#ifndef ISO_CPU_AMX_H
#define ISO_CPU_AMX_H

#include <immintrin.h>
#include <stdint.h>

#define ISO_AMX_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,amx-tile,amx-bf16")))
#define ISO_AMX_INLINE static inline __attribute__((always_inline)) ISO_AMX_TARGET

#define ISO_AMX_TILE 16        /* rows of a tile, and floats in a row of a tile of C */
#define ISO_AMX_DEPTH 32       /* depths of a tile */
#define ISO_AMX_TILE_BYTES 1024
#define ISO_AMX_PARTS 3        /* of a float */

typedef struct iso_amx_parts {
    __m512i part[ISO_AMX_PARTS]; /* floats; the upper halves are the bfloat16s. The lower half of the last one is zero */
} iso_amx_parts;

ISO_AMX_INLINE iso_amx_parts iso_amx_split(__m512 x)
{
    const __m512i half = _mm512_set1_epi32(0x8000), upper = _mm512_set1_epi32((int)0xffff0000u);
    iso_amx_parts p;
    p.part[0] = _mm512_and_si512(_mm512_add_epi32(_mm512_castps_si512(x), half), upper);
    x = _mm512_sub_ps(x, _mm512_castsi512_ps(p.part[0])); /* exact, as the next one is */
    p.part[1] = _mm512_and_si512(_mm512_add_epi32(_mm512_castps_si512(x), half), upper);
    p.part[2] = _mm512_castps_si512(_mm512_sub_ps(x, _mm512_castsi512_ps(p.part[1])));
    return p;
}

/* The bfloat16s of two depths in words of 32 bits, as tiles want them. */
ISO_AMX_INLINE __m512i iso_amx_join(__m512i first, __m512i second)
{
    const __m512i upper = _mm512_set1_epi32((int)0xffff0000u);
    return _mm512_ternarylogic_epi32(second, _mm512_srli_epi32(first, 16), upper, 0xec); /* second & upper | first >> 16 */
}

/* One row of words: what a tile's row holds. */
ISO_AMX_INLINE void iso_amx_put_row(__m512 first, __m512 second, char *to)
{
    const iso_amx_parts p = iso_amx_split(first), q = iso_amx_split(second);
    for (int s = 0; s < ISO_AMX_PARTS; s++) _mm512_store_si512((void *)(to + s * ISO_AMX_TILE_BYTES), iso_amx_join(p.part[s], q.part[s]));
}

/* The first n of 16 floats, zeros behind. */
ISO_AMX_INLINE __m512 iso_amx_load(const float *from, int64_t n)
{
    if (n >= ISO_AMX_TILE) return _mm512_loadu_ps(from);
    if (n <= 0) return _mm512_setzero_ps();
    return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), from);
}

/* y = x transposed, 16 x 16 words; the rows of x are `pitch` bytes apart, those of y 64. */
ISO_AMX_INLINE void iso_amx_transpose(const char *x, int64_t pitch, char *y)
{
    __m512i r[16], t[16];
    for (int i = 0; i < 16; i++) r[i] = _mm512_load_si512((const void *)(x + pitch * i));
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            r[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + j + 2]);
            r[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + j + 2]);
        }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 2; j++) {
            t[8 * j + i] = _mm512_shuffle_i32x4(r[8 * j + i], r[8 * j + 4 + i], 0x88);
            t[8 * j + 4 + i] = _mm512_shuffle_i32x4(r[8 * j + i], r[8 * j + 4 + i], 0xdd);
        }
    for (int i = 0; i < 8; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
        r[8 + i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0xdd);
    }
    for (int i = 0; i < 16; i++) _mm512_store_si512((void *)(y + 64 * i), r[i]);
}

/* All eight tiles have 16 rows of 64 bytes from here on to _tile_release. */
ISO_AMX_INLINE void iso_amx_configure(void)
{
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.bytes[i] = 64;
        config.rows[i] = ISO_AMX_TILE;
    }
    _tile_loadconfig(&config);
}

/* The compiler does not know that tile loads read memory: before the first of them. */
#define ISO_AMX_FENCE __asm__ volatile("" ::: "memory")

#endif
