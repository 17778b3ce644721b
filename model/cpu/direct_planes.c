#if defined(__x86_64__) && defined(__linux__)
#include "model/cpu/direct_planes.h"

#define TARGET ISO_AMX_TARGET
#define INLINE ISO_AMX_INLINE

enum { TILE = ISO_AMX_TILE, PARTS = ISO_AMX_PARTS };

/* Pixels of zeros. */
INLINE void put_zeros(const iso_planes *p, char *to, int64_t pixels)
{
    for (int s = 0; s < PARTS; s++) memset(to + s * p->part, 0, (size_t)(pixels * p->c * iso_planes_element(p)));
}

/* TILE channels of one pixel. */
INLINE void put_single(__m512 x, char *to, int64_t part)
{
    const iso_amx_parts parts = iso_amx_split(x);
    for (int s = 0; s < PARTS; s++)
        _mm256_storeu_si256((void *)(to + s * part), _mm512_cvtepi32_epi16(_mm512_srli_epi32(parts.part[s], 16)));
}

/* One row of a plane: n pixels of the image, `step` floats apart, between `before` and `after` zeros. */
TARGET static void put_row(const iso_planes *p, const float *x, int64_t step, int64_t before, int64_t n, int64_t after, char *to)
{
    const int64_t pixel = p->c * 2;
    if (before) put_zeros(p, to, before);
    to += before * pixel;
    for (int64_t j = 0; j < n; j++, x += step, to += pixel)
        for (int64_t c = 0; c < p->c; c += TILE) put_single(_mm512_loadu_ps(x + c), to + 2 * c, p->part);
    if (after) put_zeros(p, to, after);
}

/* The same in pairs; next: the pixel behind the row, NULL for zeros. */
TARGET static void put_row_pairs(const iso_planes *p, const float *x, int64_t step, int64_t before, int64_t n, int64_t after, const float *next,
                                 char *to)
{
    const int64_t pixel = p->c * 4, pixels = before + n + after;
    for (int64_t c = 0; c < p->c; c += TILE) {
        char *at = to + 4 * c;
        iso_amx_parts here = iso_amx_split(before ? _mm512_setzero_ps() : n ? _mm512_loadu_ps(x + c) : _mm512_setzero_ps());
        for (int64_t j = 0; j < pixels; j++, at += pixel) {
            const int64_t k = j + 1 - before; /* the pixel behind this one */
            __m512 v = _mm512_setzero_ps();
            if (k >= 0 && k < n) v = _mm512_loadu_ps(x + k * step + c);
            else if (j + 1 == pixels && next) v = _mm512_loadu_ps(next + c);
            const iso_amx_parts there = iso_amx_split(v);
            for (int s = 0; s < PARTS; s++) _mm512_storeu_si512((void *)(at + s * p->part), iso_amx_join(here.part[s], there.part[s]));
            here = there;
        }
    }
}

/* What of a phase's rows or columns lies inside an image of that size: first ... last-1. */
static void inside(int64_t size, int64_t phase, int64_t phases, int64_t pad, int64_t count, int64_t *first, int64_t *last)
{
    *first = iso_min64(phase < pad ? iso_ceil_div(pad - phase, phases) : 0, count);
    *last = iso_max64(*first, iso_min64(size + pad > phase ? iso_ceil_div(size + pad - phase, phases) : 0, count));
}

/* One plane of one image; last: there is no image behind it. */
TARGET static void put_plane(const iso_planes *p, const float *x, int64_t h, int64_t w, int64_t row_phase, int64_t column_phase, bool last,
                             char *to)
{
    const int64_t row_bytes = p->w * p->c * iso_planes_element(p), step = p->phases * p->c;
    int64_t top, bottom, left, right;
    inside(h, row_phase, p->phases, p->pad, p->h, &top, &bottom);
    inside(w, column_phase, p->phases, p->pad, p->w, &left, &right);
    for (int64_t i = 0; i < p->h; i++, to += row_bytes) {
        const bool empty = i < top || i >= bottom || left == right;
        const float *row = x + ((i * p->phases + row_phase - p->pad) * w + left * p->phases + column_phase - p->pad) * p->c;
        if (p->pairs) {
            /* the pixel behind a row is the first one of the next row, or of the next image */
            const float *next = NULL;
            if (left == 0 && right > 0 && i + 1 >= top && i + 1 < bottom) next = row + p->phases * w * p->c;
            if (left == 0 && right > 0 && i + 1 == p->h && top == 0 && bottom > 0 && !last) next = x + ((h + row_phase - p->pad) * w + column_phase - p->pad) * p->c;
            if (empty) put_row_pairs(p, NULL, step, p->w, 0, 0, next, to);
            else put_row_pairs(p, row, step, left, right - left, p->w - right, next, to);
        } else if (empty) {
            put_zeros(p, to, p->w);
        } else {
            put_row(p, row, step, left, right - left, p->w - right, to);
        }
    }
}

TARGET void iso_planes_fill(const iso_planes *p, const float *x, int64_t h, int64_t w, int64_t first, int64_t n, char *to)
{
    const int64_t plane = p->h * p->w;
    for (int64_t i = 0; i < p->phases * p->phases; i++) {
        char *at = to + iso_planes_at(p, i, 0);
        if (p->lead) put_zeros(p, to + iso_planes_at(p, i, -p->lead), p->lead);
        for (int64_t b = 0; b < n; b++)
            put_plane(p, x + (first + b) * h * w * p->c, h, w, i / p->phases, i % p->phases, b + 1 == n, at + b * plane * p->c * iso_planes_element(p));
        const int64_t filled = p->lead + n * plane;
        put_zeros(p, to + iso_planes_at(p, i, n * plane), p->pixels - filled);
    }
}
#else
typedef int iso_direct_planes_not_here; /* ISO C wants something in a file */
#endif
