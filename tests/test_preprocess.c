/* test_preprocess.c: crop and area resampling against plain doubles. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/preprocess.h"
#include "tests/check.h"
#include "tests/random.h"

static double overlap(double a0, double a1, double b0, double b1)
{
    double from = a0 > b0 ? a0 : b0, to = a1 < b1 ? a1 : b1;
    return to > from ? to - from : 0;
}

/* The mean over [x0, x1) x [y0, y1), pixel by pixel; of what rounding adds to an edge there may be no pixel. */
static double mean(const uint8_t *rgb, int64_t stride, int c, double x0, double x1, double y0, double y1)
{
    const double rounding = 1e-9;
    double sum = 0;
    for (int y = (int)y0; y < y1 - rounding; y++)
        for (int x = (int)x0; x < x1 - rounding; x++) sum += overlap(x, x + 1, x0, x1) * overlap(y, y + 1, y0, y1) * rgb[y * stride + 3 * x + c];
    return sum / ((x1 - x0) * (y1 - y0));
}

/* The largest distance of `out` from the mean of each output pixel's area. */
static double worst(const uint8_t *rgb, int64_t stride, double x, double y, double side, int n, const uint8_t *out)
{
    double d = 0, step = side / n;
    for (int j = 0; j < n; j++)
        for (int i = 0; i < n; i++)
            for (int c = 0; c < 3; c++) {
                double m = mean(rgb, stride, c, x + i * step, x + (i + 1) * step, y + j * step, y + (j + 1) * step);
                d = fmax(d, fabs(m - out[3 * (j * n + i) + c]));
            }
    return d;
}

static uint8_t *noise(int width, int height, int64_t stride)
{
    uint8_t *p = malloc((size_t)stride * (size_t)height);
    assert_non_null(p);
    (void)width;
    for (int64_t i = 0; i < stride * height; i++) p[i] = (uint8_t)draw();
    return p;
}

static void crop_is_centred(void **state)
{
    (void)state;
    static const int want[][5] = {{178, 218, 15, 35, 148}, {218, 178, 20, 0, 178}, {200, 200, 0, 0, 200}, {301, 208, 46, 0, 208},
                                  {1, 1, 0, 0, 1},         {1, 900, 0, 449, 1},    {179, 218, 0, 19, 179},
                                  {178, 217, 0, 19, 178}};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        int x, y, side;
        iso_crop(want[i][0], want[i][1], &x, &y, &side);
        assert_int_equal(x, want[i][2]);
        assert_int_equal(y, want[i][3]);
        assert_int_equal(side, want[i][4]);
    }
}

static void resampling_is_the_area_mean(void **state)
{
    (void)state;
    static const int sides[] = {1, 2, 3, 63, 64, 65, 100, 128, 148, 200, 257};
    uint8_t out[ISO_PIXELS];
    for (size_t i = 0; i < sizeof sides / sizeof *sides; i++) {
        int side = sides[i], x = (int)(draw() % 5), y = (int)(draw() % 5);
        int64_t stride = 3 * (side + 5) + 7; /* rows need not be packed */
        uint8_t *p = noise(side + 5, side + 5, stride);
        iso_resample_eighths(p, stride, 8 * x, 8 * y, 8 * side, ISO_SIDE, out);
        double d = worst(p, stride, x, y, side, ISO_SIDE, out);
        if (!(d <= 0.5 + 1e-9)) fail_msg("side %d: off by %g", side, d);
        iso_resample_eighths(p, stride, 8 * (x + 1), 8 * y, 8 * side, ISO_SIDE, out); /* deliberately another square */
        if (side > 1) assert_true(worst(p, stride, x, y, side, ISO_SIDE, out) > 1);
        free(p);
    }
}

/* Sums that a float holds, and their means not quite: those near a half are rounded right, too. */
static void means_are_rounded_right(void **state)
{
    (void)state;
    static const int sides[] = {131, 197, 251, 255};
    uint8_t out[ISO_PIXELS];
    for (int round = 0; round < 24; round++) {
        const int side = sides[round % 4];
        uint8_t *p = noise(side, side, 3 * side);
        iso_resample_eighths(p, 3 * side, 0, 0, 8 * side, ISO_SIDE, out);
        double d = worst(p, 3 * side, 0, 0, side, ISO_SIDE, out);
        if (!(d <= 0.5 + 1e-9)) fail_msg("side %d: off by %g", side, d);
        free(p);
    }
}

static void resampling_takes_eighths(void **state)
{
    (void)state;
    for (int round = 0; round < 30; round++) {
        int n = 1 + (int)(draw() % 90), side8 = 1 + (int)(draw() % 900), x8 = (int)(draw() % 40), y8 = (int)(draw() % 40);
        int width = (x8 + side8 + 7) / 8, height = (y8 + side8 + 7) / 8;
        uint8_t *p = noise(width, height, 3 * width), *out = malloc((size_t)(3 * n * n));
        assert_non_null(out);
        iso_resample_eighths(p, 3 * width, x8, y8, side8, n, out);
        double d = worst(p, 3 * width, x8 / 8.0, y8 / 8.0, side8 / 8.0, n, out);
        if (!(d <= 0.5 + 1e-9)) fail_msg("%d eighths at %d, %d to %d: off by %g", side8, x8, y8, n, d);
        free(out);
        free(p);
    }
}

static void halves_are_rounded_up(void **state)
{
    (void)state;
    uint8_t p[128 * 128 * 3], out[ISO_PIXELS];
    for (int y = 0; y < 128; y++)
        for (int x = 0; x < 128 * 3; x++) p[y * 384 + x] = (uint8_t)(100 + (y & 1)); /* means of 100.5 */
    iso_resample_eighths(p, 384, 0, 0, 8 * 128, ISO_SIDE, out);
    for (int i = 0; i < ISO_PIXELS; i++) assert_int_equal(out[i], 101);
    memset(p, 255, sizeof p);
    iso_resample_eighths(p, 384, 0, 0, 8 * 127, ISO_SIDE, out);
    for (int i = 0; i < ISO_PIXELS; i++) assert_int_equal(out[i], 255);
}

static void large_squares_stay_exact(void **state)
{
    (void)state;
    int side = 9001;
    int64_t stride = 3 * side;
    uint8_t *p = malloc((size_t)stride * (size_t)side), out[ISO_PIXELS];
    assert_non_null(p);
    memset(p, 255, (size_t)stride * (size_t)side);
    iso_resample_eighths(p, stride, 0, 0, 8 * side, ISO_SIDE, out);
    for (int i = 0; i < ISO_PIXELS; i++) assert_int_equal(out[i], 255);
    iso_resample_eighths(p, stride, 1, 3, 8 * (int64_t)side - 5, ISO_SIDE, out);
    for (int i = 0; i < ISO_PIXELS; i++) assert_int_equal(out[i], 255);
    free(p);
}

static void bytes_become_reals(void **state)
{
    (void)state;
    uint8_t bytes[256];
    float real[256];
    for (int i = 0; i < 256; i++) bytes[i] = (uint8_t)i;
    iso_pixels_to_real(bytes, 253, real); /* no multiple of what is done at a time */
    iso_pixels_to_real(bytes + 253, 3, real + 253);
    assert_true(real[0] == -1.0f);
    assert_true(real[255] == 1.0f);
    for (int i = 0; i < 256; i++) assert_true(fabs(real[i] - (i / 127.5 - 1)) < 1e-7);
}

static void pictures_are_mirrored(void **state)
{
    (void)state;
    static float p[ISO_PIXELS];
    for (int i = 0; i < ISO_PIXELS; i++) p[i] = (float)i;
    iso_mirror(p);
    for (int y = 0; y < ISO_SIDE; y++)
        for (int x = 0; x < ISO_SIDE; x++)
            for (int c = 0; c < 3; c++) assert_true(p[(y * ISO_SIDE + x) * 3 + c] == (float)((y * ISO_SIDE + ISO_SIDE - 1 - x) * 3 + c));
}

int main(void)
{
    begin_random(20221);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crop_is_centred),        cmocka_unit_test(resampling_is_the_area_mean), cmocka_unit_test(resampling_takes_eighths),
        cmocka_unit_test(halves_are_rounded_up),  cmocka_unit_test(large_squares_stay_exact),    cmocka_unit_test(bytes_become_reals),
        cmocka_unit_test(means_are_rounded_right), cmocka_unit_test(pictures_are_mirrored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
