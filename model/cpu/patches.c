#include "model/cpu/patches.h"

#include <string.h>
#include "model/cpu/cpu.h"

/* An output pixel, counted up row by row. */
typedef struct pixel {
    int64_t b, i, j;
} pixel;

static pixel pixel_at(int64_t index, int64_t h, int64_t w)
{
    return (pixel){index / (h * w), index / w % h, index % w};
}

static void pixel_next(pixel *p, int64_t h, int64_t w)
{
    if (++p->j < w) return;
    p->j = 0;
    if (++p->i < h) return;
    p->i = 0;
    p->b++;
}

/* Runs are short (kw * c floats): a call of memcpy for each would take longer than the copying. */
static inline __attribute__((always_inline)) void copy_run(float *to, const float *from, int64_t n)
{
    for (; n >= 16; n -= 16, to += 16, from += 16) memcpy(to, from, 16 * sizeof *to);
    for (; n >= 4; n -= 4, to += 4, from += 4) memcpy(to, from, 4 * sizeof *to);
    for (; n > 0; n--) *to++ = *from++;
}

/* nk elements of one row of the patch matrix, from element `start` of the run of kernel row u. */
static inline __attribute__((always_inline)) void copy_row(const iso_patches *p, pixel at, int64_t u, int64_t start, int64_t nk,
                                                           float *dst)
{
    const int64_t run = p->kw * p->c, left = at.j * p->stride - p->pad_w;
    /* what of a run lies inside the image; the same for every kernel row */
    const int64_t from = left < 0 ? iso_min64(-left * p->c, run) : 0;
    const int64_t to = iso_max64(iso_min64(run, (p->w - left) * p->c), from);
    int64_t y = at.i * p->stride - p->pad_h + u;
    int64_t offset = ((at.b * p->h + y) * p->w + left) * p->c; /* of the run in the image; outside where y is */
    for (; nk > 0; y++, offset += p->w * p->c, start = 0) {
        const int64_t end = iso_min64(run, start + nk), a = iso_max64(from, start), z = iso_min64(to, end);
        nk -= end - start;
        if (y < 0 || y >= p->h || a >= z) {
            memset(dst, 0, (size_t)(end - start) * sizeof *dst);
            dst += end - start;
            continue;
        }
        for (int64_t k = start; k < a; k++) *dst++ = 0;
        copy_run(dst, p->x + (offset + a), z - a);
        dst += z - a;
        for (int64_t k = z; k < end; k++) *dst++ = 0;
    }
}

ISO_CLONES void iso_patches_pack_a(const void *operand, int64_t i0, int ni, int64_t k0, int nk, int tile, float *dst)
{
    const iso_patches *p = operand;
    const int64_t u = k0 / (p->kw * p->c), start = k0 % (p->kw * p->c);
    (void)tile;
    pixel at = pixel_at(i0, p->oh, p->ow);
    for (int i = 0; i < ni; i++, pixel_next(&at, p->oh, p->ow)) copy_row(p, at, u, start, nk, dst + (size_t)i * ISO_GEMM_LDA);
}

/* Pixels j0 ... j0+n-1 of one row of output pixels: `tile` channels of each, or zeros outside the image. */
static inline __attribute__((always_inline)) void pack_pixels(const iso_patches *p, const float *row, int64_t shift, int64_t j0,
                                                              int64_t n, int tile, float *dst)
{
    /* inside: 0 <= (j0 + k) * stride + shift < w */
    int64_t first = shift < 0 ? iso_ceil_div(-shift, p->stride) - j0 : -j0;
    int64_t last = p->w - shift > 0 ? iso_ceil_div(p->w - shift, p->stride) - j0 : 0;
    first = iso_min64(iso_max64(row ? first : n, 0), n);
    last = iso_max64(iso_min64(last, n), first);
    memset(dst, 0, (size_t)(first * tile) * sizeof *dst);
    if (last > first) {
        const float *src = row + ((j0 + first) * p->stride + shift) * p->c;
        for (int64_t k = first; k < last; k++, src += p->stride * p->c) iso_copy_tile(dst + k * tile, src, tile);
    }
    memset(dst + last * tile, 0, (size_t)((n - last) * tile) * sizeof *dst);
}

/* A tile whose columns are neighbouring channels of one kernel element: a strided copy of whole vectors. */
ISO_CLONES static void pack_tile(const iso_patches *p, int64_t column, int64_t k0, int nk, int tile, float *dst)
{
    const int64_t u = column / (p->kw * p->c), v = column / p->c % p->kw, c = column % p->c;
    pixel at = pixel_at(k0, p->oh, p->ow);
    for (int64_t done = 0; done < nk;) {
        const int64_t n = iso_min64(p->ow - at.j, nk - done), y = at.i * p->stride - p->pad_h + u;
        const float *row = y < 0 || y >= p->h ? NULL : p->x + (at.b * p->h + y) * p->w * p->c + c;
        pack_pixels(p, row, v - p->pad_w, at.j, n, tile, dst + done * tile);
        done += n;
        at.j = p->ow - 1;
        pixel_next(&at, p->oh, p->ow);
    }
}

ISO_CLONES void iso_patches_pack_b(const void *operand, int64_t i0, int ni, int64_t k0, int nk, int tile, float *dst)
{
    const iso_patches *p = operand;
    if (p->c % tile == 0 && i0 % tile == 0 && ni % tile == 0) {
        for (int i = 0; i < ni; i += tile) pack_tile(p, i0 + i, k0, nk, tile, dst + (size_t)i * nk);
        return;
    }
    const int64_t u = i0 / (p->kw * p->c), start = i0 % (p->kw * p->c);
    pixel at = pixel_at(k0, p->oh, p->ow);
    for (int k = 0; k < nk; k++, pixel_next(&at, p->oh, p->ow)) {
        float row[ISO_GEMM_NC];
        copy_row(p, at, u, start, ni, row);
        iso_gemm_spread_row(row, ni, nk, tile, dst + (size_t)k * tile);
    }
}

int iso_patches_find_a(const void *operand, int64_t i0, int ni, int64_t k0, int nk, const float **at)
{
    const iso_patches *p = operand;
    const int64_t run = p->kw * p->c, u = k0 / run, start = k0 % run, end = iso_min64(run, start + nk);
    pixel o = pixel_at(i0, p->oh, p->ow);
    for (int i = 0; i < ni; i++, pixel_next(&o, p->oh, p->ow)) {
        const int64_t y = o.i * p->stride - p->pad_h + u, left = o.j * p->stride - p->pad_w;
        const int64_t first = left * p->c + start, last = left * p->c + end; /* in the image's row */
        if (y < 0 || y >= p->h || last <= 0 || first >= p->w * p->c) at[i] = NULL;
        else if (first < 0 || last > p->w * p->c) at[i] = iso_gemm_mixed;
        else at[i] = p->x + (o.b * p->h + y) * p->w * p->c + first;
    }
    return (int)(end - start);
}

int iso_patches_find_b(const void *operand, int64_t i0, int ni, int64_t k0, int nk, const float **at)
{
    const iso_patches *p = operand;
    const int64_t u = i0 / (p->kw * p->c), v = i0 / p->c % p->kw, c = i0 % p->c;
    pixel o = pixel_at(k0, p->oh, p->ow);
    for (int k = 0; k < nk; k++, pixel_next(&o, p->oh, p->ow)) {
        const int64_t y = o.i * p->stride - p->pad_h + u, x = o.j * p->stride - p->pad_w + v;
        at[k] = y < 0 || y >= p->h || x < 0 || x >= p->w ? NULL : p->x + ((o.b * p->h + y) * p->w + x) * p->c + c;
    }
    return (int)iso_min64(p->c - c, ni);
}

/* The row of C elements of kernel element and output channel k. */
static const float *tap_at(const iso_taps *t, int64_t k)
{
    const int64_t tap = k / t->o, o = k % t->o;
    const int64_t u = t->kh_last - tap / t->columns * t->stride, v = t->kw_last - tap % t->columns * t->stride;
    return t->w + ((o * t->kh + u) * t->kw + v) * t->c;
}

int iso_taps_find_b(const void *operand, int64_t i0, int ni, int64_t k0, int nk, const float **at)
{
    for (int k = 0; k < nk; k++) at[k] = tap_at(operand, k0 + k) + i0;
    return ni;
}

void iso_taps_pack_b(const void *operand, int64_t i0, int ni, int64_t k0, int nk, int tile, float *dst)
{
    for (int k = 0; k < nk; k++) iso_gemm_spread_row(tap_at(operand, k0 + k) + i0, ni, nk, tile, dst + (size_t)k * tile);
}

void iso_lattice_rows(const void *context, int64_t i0, int ni, float **rows)
{
    const iso_lattice *l = context;
    pixel at = pixel_at(i0, l->h, l->w);
    for (int i = 0; i < ni; i++, pixel_next(&at, l->h, l->w)) {
        int64_t y = l->first_h + at.i * l->stride, x = l->first_w + at.j * l->stride;
        rows[i] = l->x + ((at.b * l->image_h + y) * l->image_w + x) * l->c;
    }
}
