/* preprocess.c: crop, exact area resampling, bytes to reals. */
#include "model/preprocess.h"

#include <string.h>

#define CELEBA_WIDTH 178
#define CELEBA_HEIGHT 218
#define CELEBA_SIDE 148

void iso_crop(int width, int height, int *x, int *y, int *side)
{
    int s = width < height ? width : height;
    if (width == CELEBA_WIDTH && height == CELEBA_HEIGHT) s = CELEBA_SIDE;
    *x = (width - s) / 2;
    *y = (height - s) / 2;
    *side = s;
}

/* One axis of the resampling, in whole numbers. With the picture in units of 1 / (q n) of a pixel, a pixel is `pixel` =
 * q n units wide and an output pixel `span` = side q units, so every overlap is a whole number of units. */
typedef struct axis {
    int64_t start, span, pixel;
} axis;

/* Source pixels first ... last touch output i; each inner one with weight `pixel`. */
static void axis_reach(const axis *a, int i, int64_t *first, int64_t *last)
{
    int64_t from = a->start + i * a->span;
    *first = from / a->pixel;
    *last = (from + a->span - 1) / a->pixel;
}

static int64_t axis_weight(const axis *a, int i, int64_t source)
{
    int64_t from = a->start + i * a->span, to = from + a->span;
    int64_t left = source * a->pixel, right = left + a->pixel;
    return (to < right ? to : right) - (from > left ? from : left);
}

#define BLOCK 64 /* output columns done at a time */

/* sums[n * 3] = one source row, weighted along x, for output columns i0 ... i0 + n. */
static void row_sums(const uint8_t *row, const axis *a, int i0, int n, uint64_t *sums)
{
    for (int i = 0; i < n; i++) {
        int64_t first, last;
        axis_reach(a, i0 + i, &first, &last);
        uint64_t w = (uint64_t)axis_weight(a, i0 + i, first);
        const uint8_t *p = row + 3 * first;
        uint64_t r = w * p[0], g = w * p[1], b = w * p[2];
        if (last > first) {
            uint64_t ir = 0, ig = 0, ib = 0;
            const uint8_t *end = row + 3 * last;
            for (p += 3; p < end; p += 3) {
                ir += p[0];
                ig += p[1];
                ib += p[2];
            }
            w = (uint64_t)axis_weight(a, i0 + i, last);
            r += ir * (uint64_t)a->pixel + w * p[0];
            g += ig * (uint64_t)a->pixel + w * p[1];
            b += ib * (uint64_t)a->pixel + w * p[2];
        }
        sums[3 * i] = r;
        sums[3 * i + 1] = g;
        sums[3 * i + 2] = b;
    }
}

/* The sums are at most 255 span^2 < 2^46: exact in 64 bits and in a double. Half of the last place is added before the
 * multiplication by the reciprocal, so that its rounding cannot push a whole quotient below itself. */
static void write_means(const uint64_t *sums, int n, int64_t span, uint8_t *out)
{
    uint64_t area = (uint64_t)span * (uint64_t)span;
    double inverse = 1.0 / (2.0 * (double)area);
    for (int i = 0; i < n; i++) out[i] = (uint8_t)(((double)(int64_t)(2 * sums[i] + area) + 0.5) * inverse);
}

static void resample(const uint8_t *rgb, int64_t stride, int q, int64_t x, int64_t y, int64_t side, int n, uint8_t *out)
{
    axis ax = {x * n, side, (int64_t)q * n}, ay = {y * n, side, (int64_t)q * n};
    for (int i0 = 0; i0 < n; i0 += BLOCK) {
        uint64_t row[BLOCK * 3], sums[BLOCK * 3];
        int columns = n - i0 < BLOCK ? n - i0 : BLOCK;
        int64_t have = -1; /* the source row that `row` holds: neighbouring outputs share one */
        for (int j = 0; j < n; j++) {
            int64_t first, last;
            axis_reach(&ay, j, &first, &last);
            memset(sums, 0, sizeof sums);
            for (int64_t s = first; s <= last; s++) {
                if (s != have) row_sums(rgb + s * stride, &ax, i0, columns, row);
                have = s;
                uint64_t w = (uint64_t)axis_weight(&ay, j, s);
                for (int i = 0; i < columns * 3; i++) sums[i] += w * row[i];
            }
            write_means(sums, columns * 3, side, out + 3 * ((int64_t)j * n + i0));
        }
    }
}

void iso_resample(const uint8_t *rgb, int64_t stride, int x, int y, int side, uint8_t out[ISO_PIXELS])
{
    resample(rgb, stride, 1, x, y, side, ISO_SIDE, out);
}

void iso_resample_eighths(const uint8_t *rgb, int64_t stride, int64_t x8, int64_t y8, int64_t side8, int n, uint8_t *out)
{
    if ((x8 | y8 | side8) % 8 == 0)
        resample(rgb, stride, 1, x8 / 8, y8 / 8, side8 / 8, n, out);
    else
        resample(rgb, stride, 8, x8, y8, side8, n, out);
}

void iso_pixels_to_real(const uint8_t *bytes, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i++) out[i] = (float)bytes[i] / 127.5f - 1.0f;
}

void iso_mirror(float pixels[ISO_PIXELS])
{
    for (int y = 0; y < ISO_SIDE; y++)
        for (int x = 0; x < ISO_SIDE / 2; x++)
            for (int c = 0; c < 3; c++) {
                float *p = pixels + (y * ISO_SIDE + x) * 3 + c, *q = pixels + (y * ISO_SIDE + ISO_SIDE - 1 - x) * 3 + c;
                float t = *p;
                *p = *q;
                *q = t;
            }
}
