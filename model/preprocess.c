/* preprocess.c: crop, exact area resampling, bytes to reals. */
#include "model/preprocess.h"

#include <stdbool.h>
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

static void resample_wide(const uint8_t *rgb, int64_t stride, axis ax, axis ay, int n, uint8_t *out)
{
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
            write_means(sums, columns * 3, ay.span, out + 3 * ((int64_t)j * n + i0));
        }
    }
}

/* --- The same in small numbers, for pictures up to NARROW_SIDE wide whose span, in lowest terms, is at most NARROW_SPAN:
 * a column's weighted sum is then below 2^16 and an output's below 2^24, which is exact in a float. Down the columns
 * first, eight bytes at a time; then along the rows, the colours of a pixel at a time. --- */

#define NARROW_SPAN 256
#define NARROW_SIDE 1024
#define NARROW_SURE 64 /* spans up to which a quotient in floats rounds right: its error stays below 2^-14, and a mean's
                        * distance from where it would round otherwise above 1 / (4 span^2) */

typedef uint8_t bytes8 __attribute__((vector_size(8)));
typedef uint16_t words8 __attribute__((vector_size(16)));
typedef float float4 __attribute__((vector_size(16)));
typedef float float8 __attribute__((vector_size(32)));
typedef int32_t int4 __attribute__((vector_size(16)));
typedef double double4 __attribute__((vector_size(32)));

/* What output i reads: from..to, counted from the first pixel of the square, with these weights; `inner` between. */
typedef struct tap {
    int from, to;
    uint16_t first, last;
} tap;

typedef struct taps {
    int64_t origin; /* the first source pixel */
    int pixels, inner;
    tap at[ISO_SIDE];
} taps;

static void taps_of(const axis *a, int n, taps *out)
{
    int64_t first, last;
    axis_reach(a, 0, &out->origin, &last);
    for (int i = 0; i < n; i++) {
        axis_reach(a, i, &first, &last);
        out->at[i] = (tap){(int)(first - out->origin), (int)(last - out->origin), (uint16_t)axis_weight(a, i, first),
                           last > first ? (uint16_t)axis_weight(a, i, last) : 0};
    }
    out->pixels = (int)(last - out->origin) + 1;
    out->inner = (int)a->pixel;
}

static words8 load8(const uint8_t *p)
{
    bytes8 b;
    memcpy(&b, p, sizeof b);
    return __builtin_convertvector(b, words8);
}

/* sums[i] = the i-th byte of rows from..to, weighted. count >= 8; the last eight overlap those before. */
static void sum_columns(const uint8_t *from, int64_t stride, const tap *t, int inner, int count, float *sums)
{
    const int rows = t->to - t->from;
    for (int i = 0;;) {
        const uint8_t *p = from + i;
        words8 sum = load8(p) * t->first;
        for (int r = 1; r < rows; r++) sum += load8(p + r * stride) * (uint16_t)inner;
        if (rows) sum += load8(p + rows * stride) * t->last;
        float8 f = __builtin_convertvector(sum, float8);
        memcpy(sums + i, &f, sizeof f);
        if (i + 8 == count) break;
        i = i + 16 <= count ? i + 8 : count - 8;
    }
}

static float4 load4(const float *p)
{
    float4 v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* One row of output. sums has one number more than pixels. */
static void mean_row(const float *sums, const taps *t, int n, int64_t span, uint8_t *out)
{
    const double area = (double)(span * span);
    const float half = (float)(area + 0.5) / 2, inverse = (float)(1 / area);
    for (int i = 0; i < n; i++) {
        const tap *k = &t->at[i];
        const float *p = sums + 3 * k->from, *end = sums + 3 * k->to;
        float4 sum = load4(p) * (float)k->first;
        if (end > p) {
            float4 between = {0};
            for (p += 3; p < end; p += 3) between += load4(p);
            sum += between * (float)t->inner + load4(end) * (float)k->last;
        }
        int4 mean;
        if (span <= NARROW_SURE) {
            mean = __builtin_convertvector((sum + half) * inverse, int4);
        } else { /* as write_means */
            double4 wide = __builtin_convertvector(sum, double4);
            mean = __builtin_convertvector((2 * wide + (area + 0.5)) * (1 / (2 * area)), int4);
        }
        for (int c = 0; c < 3; c++) out[3 * i + c] = (uint8_t)mean[c];
    }
}

static void resample_narrow(const uint8_t *rgb, int64_t stride, const axis *ax, const axis *ay, int n, uint8_t *out)
{
    float sums[3 * (NARROW_SIDE + 2) + 1];
    taps tx, ty;
    taps_of(ax, n, &tx);
    taps_of(ay, n, &ty);
    sums[3 * tx.pixels] = 0;
    for (int j = 0; j < n; j++) {
        const uint8_t *from = rgb + (ty.origin + ty.at[j].from) * stride + 3 * tx.origin;
        sum_columns(from, stride, &ty.at[j], ty.inner, 3 * tx.pixels, sums);
        mean_row(sums, &tx, n, ay->span, out + 3 * (int64_t)j * n);
    }
}

static int64_t common_divisor(int64_t a, int64_t b)
{
    while (b) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static void resample(const uint8_t *rgb, int64_t stride, int q, int64_t x, int64_t y, int64_t side, int n, uint8_t *out)
{
    axis ax = {x * n, side, (int64_t)q * n}, ay = {y * n, side, (int64_t)q * n};
    const int64_t unit = common_divisor(common_divisor(side, ax.pixel), common_divisor(ax.start, ay.start));
    ax = (axis){ax.start / unit, side / unit, ax.pixel / unit};
    ay = (axis){ay.start / unit, side / unit, ay.pixel / unit};
    const bool small = n <= ISO_SIDE && ax.span <= NARROW_SPAN && side <= (int64_t)q * NARROW_SIDE;
    if (small && side >= 3 * (int64_t)q && ax.pixel <= UINT16_MAX) resample_narrow(rgb, stride, &ax, &ay, n, out);
    else resample_wide(rgb, stride, ax, ay, n, out);
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
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        float8 x = __builtin_convertvector(load8(bytes + i), float8) / 127.5f - 1.0f;
        memcpy(out + i, &x, sizeof x);
    }
    for (; i < n; i++) out[i] = (float)bytes[i] / 127.5f - 1.0f;
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
