/* test_chart.c: the plots of the evaluator: axes against their definition, pictures read back and measured, hostile specs,
 * what is refused and that nothing is left behind. */
#include <dirent.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "eval/chart.h"
#include "eval/chart_parts.h"
#include "tests/check.h"
#include "tests/folder.h"
#include "tests/random.h"

static char base[512], file[600];
static iso_error err;

static int below(int n) { return (int)(draw() % (uint64_t)n); }

/* ---- a file, read back ---- */

typedef struct picture {
    cairo_surface_t *surface;
    int width, height, stride;
    const uint8_t *data;
} picture;

static picture load(void)
{
    picture p = {.surface = cairo_image_surface_create_from_png(file)};
    assert_int_equal(cairo_surface_status(p.surface), CAIRO_STATUS_SUCCESS);
    p.width = cairo_image_surface_get_width(p.surface), p.height = cairo_image_surface_get_height(p.surface);
    p.stride = cairo_image_surface_get_stride(p.surface), p.data = cairo_image_surface_get_data(p.surface);
    return p;
}

static uint32_t pixel(const picture *p, int x, int y)
{
    uint32_t v;
    memcpy(&v, p->data + (size_t)y * (size_t)p->stride + (size_t)x * 4, 4);
    return v & 0xffffff;
}

static uint32_t rgb(const double c[3])
{
    uint32_t v = 0;
    for (int i = 0; i < 3; i++) v = v << 8 | (uint32_t)(c[i] * 255 + 0.5);
    return v;
}

static uint32_t series_rgb(int series)
{
    double c[3];
    iso_series_color(series, c);
    return rgb(c);
}

static bool near_color(uint32_t a, uint32_t b)
{
    for (int shift = 0; shift < 24; shift += 8)
        if (abs((int)(a >> shift & 255) - (int)(b >> shift & 255)) > 2) return false;
    return true;
}

typedef struct extent {
    int count, x0, y0, x1, y1; /* inclusive */
} extent;

static extent find(const picture *p, uint32_t color, extent in)
{
    extent e = {0, 1 << 30, 1 << 30, -1, -1};
    for (int y = in.y0; y <= in.y1; y++)
        for (int x = in.x0; x <= in.x1; x++) {
            if (!near_color(pixel(p, x, y), color)) continue;
            e.count++;
            e.x0 = x < e.x0 ? x : e.x0, e.x1 = x > e.x1 ? x : e.x1;
            e.y0 = y < e.y0 ? y : e.y0, e.y1 = y > e.y1 ? y : e.y1;
        }
    return e;
}

static extent whole(const picture *p) { return (extent){0, 0, 0, p->width - 1, p->height - 1}; }

static void check_sane(void)
{
    picture p = load();
    IN_RANGE(p.width, 100, 32000);
    IN_RANGE(p.height, 100, 32000);
    assert_int_equal(p.width % ISO_CHART_SCALE + p.height % ISO_CHART_SCALE, 0);
    extent white = find(&p, 0xffffff, whole(&p));
    assert_true(white.count > 0 && white.count < p.width * p.height);
    /* Nothing touches the edge: the margin is white. */
    for (int x = 0; x < p.width; x++)
        assert_true(pixel(&p, x, 0) == 0xffffff && pixel(&p, x, p.height - 1) == 0xffffff);
    for (int y = 0; y < p.height; y++)
        assert_true(pixel(&p, 0, y) == 0xffffff && pixel(&p, p.width - 1, y) == 0xffffff);
    cairo_surface_destroy(p.surface);
}

static int entries(void)
{
    DIR *d = opendir(base);
    int n = 0;
    assert_non_null(d);
    while (readdir(d)) n++;
    closedir(d);
    return n - 2;
}

static void path_to(const char *name)
{
    snprintf(file, sizeof file, "%s/%s", base, name);
    unlink(file);
}

/* ---- axes ---- */

static void check_axis(const iso_axis *a, double lo, double hi, bool log)
{
    assert_true(a->lo < a->hi && isfinite(a->lo) && isfinite(a->hi));
    assert_true(iso_axis_at(a, lo) >= 100 - 1e-3 && iso_axis_at(a, hi) <= 500 + 1e-3);
    assert_true(iso_axis_at(a, hi) >= iso_axis_at(a, lo));
    IN_RANGE(a->ticks, 2, ISO_AXIS_TICKS);
    for (int i = 0; i < a->ticks; i++) {
        double x = iso_axis_at(a, a->tick[i]), said = a->powers ? pow(10, atof(a->label[i])) : atof(a->label[i]);
        assert_true(x >= 100 - 1e-3 && x <= 500 + 1e-3);
        assert_true(i == 0 || a->tick[i] > a->tick[i - 1]);
        assert_true(i == 0 || strcmp(a->label[i], a->label[i - 1]) != 0);
        /* A label says where its tick is. */
        assert_true(said == 0 ? a->tick[i] == 0 : fabs(iso_axis_at(a, said) - x) < 1);
    }
    if (log || a->ticks < 3) return;
    double step = a->tick[1] - a->tick[0], digit = step / pow(10, floor(log10(step) + 1e-6));
    for (int i = 2; i < a->ticks; i++) assert_true(fabs(a->tick[i] - a->tick[i - 1] - step) < 1e-6 * step);
    assert_true(fabs(digit - 1) < 1e-6 || fabs(digit - 2) < 1e-6 || fabs(digit - 5) < 1e-6);
}

static void fit(iso_axis *a, iso_range r, bool log, bool whole, int about, double from, double to)
{
    iso_axis_fit(a, r, log, whole, about);
    a->from = from, a->to = to;
}

static void test_axes(void **unused)
{
    (void)unused;
    for (int trial = 0; trial < 20000; trial++) {
        double middle = (uniform() < 0.5 ? -1 : 1) * pow(10, 40 * uniform() - 20), size = pow(10, 40 * uniform() - 20);
        bool log = trial & 1, full = trial & 2;
        iso_range r = {0};
        if (trial % 7 == 0) size = 0;
        if (trial % 11 == 0) middle = 0;
        iso_range_add(&r, log ? fabs(middle) : middle, log);
        iso_range_add(&r, log ? fabs(middle) * (1 + size) : middle + size, log);
        iso_axis a;
        fit(&a, r, log, full, 5 + trial % 4, 100, 500);
        if (r.any) check_axis(&a, r.lo, r.hi, log);
    }
    const double odd[] = {0,      1,   -1,       1e300,     -1e300, 1e-300, 5e-324, 1e308,
                          -1e308, NAN, INFINITY, -INFINITY, 100,    1e-5,   DBL_MAX};
    const int n = sizeof odd / sizeof odd[0];
    for (int i = 0; i < n * n * 4; i++) {
        iso_range r = {0};
        iso_axis a;
        bool log = i / n / n & 1;
        iso_range_add(&r, odd[i % n], log);
        iso_range_add(&r, odd[i / n % n], log);
        fit(&a, r, log, i / n / n & 2, 6, 100, 500);
        if (r.any) check_axis(&a, r.lo, r.hi, log);
    }
    iso_axis a;
    fit(&a, (iso_range){true, 0, 93}, false, true, 7, 0, 100);
    assert_int_equal(a.ticks, 11);
    assert_string_equal(a.label[10], "100");
    assert_true(iso_axis_at(&a, 25) == 25);
    fit(&a, (iso_range){true, 1, 1e8}, true, true, 5, 0, 80);
    assert_true(a.powers && a.ticks == 9 && fabs(iso_axis_at(&a, 1e3) - 30) < 1e-9);
    fit(&a, (iso_range){true, 1e299, 1e300}, false, false, 6, 0, 100);
    assert_string_equal(a.label[0], "2e299");
    assert_false(iso_axis_takes(0, true) || iso_axis_takes(NAN, false) || iso_axis_takes(1e308, false));
}

/* ---- bars ---- */

/* Whether the bar of `series` in this part of the picture is `height` pixels high, and stands on row `zero` or hangs from it. */
static bool bar_is(const picture *p, int series, int x0, int x1, double height, int zero, bool down)
{
    extent e = find(p, series_rgb(series), (extent){0, x0, 0, x1, p->height - 90});
    if (e.count == 0) return false;
    /* The zero line covers a pixel of the bar. */
    return fabs(e.y1 - e.y0 + 1 - height) <= 1.5 && abs((down ? e.y0 : e.y1) - zero) <= 2;
}

static void test_bars(void **unused)
{
    (void)unused;
    const char *group[] = {"a", "b", "c", "d"};
    const double value[] = {10, 20, -5, NAN, 0, 2.5, 7.5, 15}, level[] = {5, NAN, INFINITY, 2};
    iso_bars s = {.groups = 4, .series = 2, .group = group, .value = value};
    path_to("bars.png");
    OK(iso_chart_bars(&s, file, &err));
    check_sane();
    picture p = load();
    double soft[3] = {iso_soft[0], iso_soft[1], iso_soft[2]};
    /* The line at 0 tells where the plot is. Its range is -5 .. 20, and it is 280 points high. */
    int zero = -1, left = 0, right = 0;
    for (int y = 0; y < p.height && zero < 0; y++) {
        extent line = find(&p, rgb(soft), (extent){0, 0, y, p.width - 1, y});
        if (line.count > p.width / 2) zero = y, left = line.x0, right = line.x1 + 1;
    }
    assert_true(zero > 0);
    double unit = 280.0 * ISO_CHART_SCALE / 25;
    int wide = (right - left) / 4;
    assert_true(bar_is(&p, 0, left, left + wide - 1, 10 * unit, zero, false));
    assert_true(bar_is(&p, 0, left + wide, left + 2 * wide - 1, 20 * unit, zero, false));
    assert_true(bar_is(&p, 0, left + 2 * wide, left + 3 * wide - 1, 5 * unit, zero, true));
    assert_false(bar_is(&p, 0, left + 3 * wide, left + 4 * wide - 1, 1, zero, false));
    assert_true(bar_is(&p, 1, left + wide, left + 2 * wide - 1, 2.5 * unit, zero, false));
    assert_true(bar_is(&p, 1, left + 3 * wide, left + 4 * wide - 1, 15 * unit, zero, false));
    /* Deliberately wrong: another value's height is seen as wrong. */
    assert_false(bar_is(&p, 0, left, left + wide - 1, 10.2 * unit, zero, false));
    assert_false(bar_is(&p, 1, left, left + 4 * wide - 1, 10 * unit, zero, false));

    /* Error bars and levels are drawn where they are given, and only there. */
    double low[8], high[8];
    for (int i = 0; i < 8; i++) low[i] = high[i] = NAN;
    low[1] = 12.5, high[1] = 17.5;
    s.low = low, s.high = high, s.level = level;
    OK(iso_chart_bars(&s, file, &err));
    picture q = load();
    extent plot = {0, left + wide, 0, left + 2 * wide - 1, zero};
    extent bar = find(&q, rgb(iso_ink), plot), none = find(&p, rgb(iso_ink), plot);
    assert_int_equal(none.count, 0);
    assert_true(fabs(bar.y1 - bar.y0 + 1 - 5 * unit - 2) <= 2); /* its caps are 2 pixels thick */
    int y = zero - (int)(5 * unit);
    extent dashes = find(&q, rgb(iso_ink), (extent){0, left, y - 4, left + wide - 1, y + 4});
    assert_true(dashes.count > 30 && dashes.x1 - dashes.x0 > 60);
    cairo_surface_destroy(p.surface);
    cairo_surface_destroy(q.surface);
}

static void test_many_bars(void **unused)
{
    (void)unused;
    const char *name[40];
    double value[240];
    for (int i = 0; i < 40; i++) name[i] = i % 2 ? "Bright_Background" : "Male";
    for (int i = 0; i < 240; i++) value[i] = i % 7;
    iso_bars s = {.title = "title", .groups = 3, .series = 6, .group = name, .name = name, .value = value};
    path_to("many.png");
    OK(iso_chart_bars(&s, file, &err));
    picture few = load();
    s.groups = 40;
    OK(iso_chart_bars(&s, file, &err));
    check_sane();
    picture many = load();
    assert_true(many.width > few.width && many.width <= 2400 && many.height > 2 * few.height);
    cairo_surface_destroy(few.surface);
    cairo_surface_destroy(many.surface);
}

/* ---- curves ---- */

static void test_curves(void **unused)
{
    (void)unused;
    double x[] = {1, 10, 100, 0, 1000, -5}, y[] = {1, 2, 3, 4, NAN, 6}, z[] = {3, 2, 1, 1, 1, 1};
    const char *label[] = {"1", NULL, "", "0", "x", "\xff"};
    iso_curve curve[] = {{"one", 6, x, y, label, true}, {"two", 3, x, z, NULL, false}};
    iso_curves panel[] = {{.title = "t", .x_label = "x", .y_label = "y", .x_log = true, .count = 2, .curve = curve},
                          {.title = "empty", .count = 0},
                          {.x_log = true, .y_log = true, .note = "again", .count = 1, .curve = curve}};
    path_to("curves.png");
    OK(iso_chart_curves(3, panel, file, &err));
    check_sane();
    picture p = load();
    extent first = find(&p, series_rgb(0), (extent){0, 0, 0, p.width / 3, p.height - 90});
    extent last = find(&p, series_rgb(0), (extent){0, 2 * p.width / 3, 0, p.width - 1, p.height - 90});
    assert_true(first.count > 100 && last.count > 100); /* one name, one colour, in each panel */
    assert_int_equal(find(&p, series_rgb(2), whole(&p)).count, 0);
    cairo_surface_destroy(p.surface);

    /* On a log axis 1, 10, 100 are equally far apart: the middle one of three marks is in the middle. */
    curve[0].count = 3;
    curve[0].line = false;
    panel[0].count = 1;
    OK(iso_chart_curves(1, panel, file, &err));
    p = load();
    extent all = find(&p, series_rgb(0), (extent){0, 0, 0, p.width - 1, p.height - 90});
    extent left = find(&p, series_rgb(0), (extent){0, all.x0, 0, all.x0 + 16, p.height - 90});
    extent middle = find(&p, series_rgb(0), (extent){0, all.x0 + 17, 0, all.x1 - 17, p.height - 90});
    assert_true(middle.count > 50 && left.count > 50);
    assert_true(abs(middle.x0 + middle.x1 - all.x0 - all.x1) <= 2);
    assert_true(abs(middle.y0 + middle.y1 - all.y0 - all.y1) <= 2);
    cairo_surface_destroy(p.surface);
}

/* ---- codes ---- */

/* The frame's corner, at the left and below. */
static void find_corner(const picture *p, int *x, int *y)
{
    *x = *y = -1;
    for (int i = 0; i < p->width && *x < 0; i++)
        if (find(p, rgb(iso_soft), (extent){0, i, 0, i, p->height - 1}).count > p->height / 2) *x = i;
    for (int i = p->height - 1; i >= 0 && *y < 0; i--)
        if (find(p, rgb(iso_soft), (extent){0, 0, i, p->width - 1, i}).count > p->width / 2) *y = i;
    assert_true(*x > 0 && *y > 0);
}

/* Of what is drawn in ink in the plot: ellipses. */
static extent find_ellipse(const iso_codes *s)
{
    int x, y;
    OK(iso_chart_codes(s, file, &err));
    picture p = load();
    find_corner(&p, &x, &y);
    extent e = find(&p, rgb(iso_ink), (extent){0, x + 4, 40, x + ISO_CHART_CODES * ISO_CHART_SCALE - 4, y - 4});
    cairo_surface_destroy(p.surface);
    return e;
}

static void test_ellipses(void **unused)
{
    (void)unused;
    const double z[] = {-10, 0, 10, 0, 0, 8, 0, -8};
    double centre[] = {0, 0, 0, 0, 0, 0, 3, 0}, metric[16] = {1, 0, 0, 4};
    const double half = 0.04 * ISO_CHART_CODES * ISO_CHART_SCALE;
    iso_codes s = {.count = 4, .z = z, .ellipses = 1, .centre = centre, .metric = metric};
    path_to("codes.png");
    /* Half axes are 1 / sqrt lambda: twice as wide as high. The line is 2 pixels wide, half of them outside. */
    extent e = find_ellipse(&s);
    assert_true(fabs(e.x1 - e.x0 + 1 - 2 * half) <= 4 && fabs(e.y1 - e.y0 + 1 - half) <= 4);
    memcpy(metric, (double[4]){4e200, 0, 0, 1e200}, 4 * sizeof *metric); /* k follows the metrics' scale */
    e = find_ellipse(&s);
    assert_true(fabs(e.x1 - e.x0 + 1 - half) <= 4 && fabs(e.y1 - e.y0 + 1 - 2 * half) <= 4);
    /* Turned by 30 degrees: the extent along an axis is 2 sqrt(k (G^-1)_ii). */
    double c = cos(M_PI / 6), sn = sin(M_PI / 6), a = 1, b = 9;
    memcpy(metric, (double[4]){a * c * c + b * sn * sn, (a - b) * c * sn, (a - b) * c * sn, a * sn * sn + b * c * c},
           4 * sizeof *metric);
    double det = metric[0] * metric[3] - metric[1] * metric[2];
    e = find_ellipse(&s);
    assert_true(fabs(e.x1 - e.x0 + 1 - 2 * half * sqrt(metric[3] / det)) <= 4);
    assert_true(fabs(e.y1 - e.y0 + 1 - 2 * half * sqrt(metric[0] / det)) <= 4);
    /* ... and it leans to the right: y grows upwards. */
    picture p = load();
    int mx = (e.x0 + e.x1) / 2, my = (e.y0 + e.y1) / 2, reach = (int)(half * 0.9);
    extent up = find(&p, rgb(iso_ink), (extent){0, mx + reach * 8 / 10, e.y0, e.x1, my - 4}),
           down = find(&p, rgb(iso_ink), (extent){0, mx + reach * 8 / 10, my + 4, e.x1, e.y1});
    assert_true(up.count > 20 && down.count == 0);
    cairo_surface_destroy(p.surface);

    /* One k for all: of half axes 1, 2, 4 the median is drawn at 4 %, so the largest at 8 %. What is no metric is left out. */
    s.ellipses = 3;
    for (int i = 0; i < 3; i++)
        memcpy(metric + 4 * i, (double[4]){1 / pow(4, i), 0, 0, 1 / pow(4, i)}, 4 * sizeof *metric);
    e = find_ellipse(&s);
    assert_true(fabs(e.x1 - e.x0 + 1 - 4 * half) <= 4 && fabs(e.y1 - e.y0 + 1 - 4 * half) <= 4);
    const double bad[][4] = {{1, 2, 2, 1},        {0, 0, 0, 0},      {-1, 0, 0, -1}, {NAN, 0, 0, 1},
                             {1, 0, 0, INFINITY}, {1, 0.5, -0.5, 1}, {1, 1, 1, 1}};
    s.ellipses = 4;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        memcpy(metric + 12, bad[i], sizeof bad[i]);
        extent f = find_ellipse(&s);
        assert_memory_equal(&e, &f, sizeof e);
    }
    memcpy(metric + 12, (double[4]){1, 0, 0, 1},
           4 * sizeof *metric); /* a good one is not: the check sees differences */
    extent f = find_ellipse(&s);
    assert_memory_not_equal(&e, &f, sizeof e);
}

static void test_scatter(void **unused)
{
    (void)unused;
    enum { N = 3000 };
    const char *name[14] = {"a", "b", "c", NULL, "e"};
    static double z[2 * N];
    static int group[N];
    for (int i = 0; i < N; i++) {
        z[2 * i] = uniform() * 4, z[2 * i + 1] = uniform();
        group[i] = i % 20 - 2; /* -2 and 14 .. 17 are none, too */
    }
    iso_codes s = {.title = "codes", .note = "note", .count = N, .z = z, .group = group, .groups = 14, .name = name};
    path_to("scatter.png");
    OK(iso_chart_codes(&s, file, &err));
    check_sane();
    picture p = load();
    for (int g = -1; g < 14; g++) assert_true(find(&p, series_rgb(g), whole(&p)).count > 100);
    cairo_surface_destroy(p.surface);
    /* One scale: marks at (0, 0), (1, 0), (0, 1) are as far from one another along both axes. */
    const double three[] = {0, 0, 2, 0, 0, 1};
    const int one[] = {0, 1, 2};
    s = (iso_codes){.count = 3, .z = three, .group = one, .groups = 3};
    OK(iso_chart_codes(&s, file, &err));
    p = load();
    extent m[3];
    for (int i = 0; i < 3; i++) m[i] = find(&p, series_rgb(i), whole(&p));
    double across = (m[1].x0 + m[1].x1 - m[0].x0 - m[0].x1) / 2.0, up = (m[0].y0 + m[0].y1 - m[2].y0 - m[2].y1) / 2.0;
    assert_true(up > 100 && fabs(across - 2 * up) <= 4);
    cairo_surface_destroy(p.surface);
}

/* ---- mosaic ---- */

static void test_mosaic(void **unused)
{
    (void)unused;
    enum { R = 3, C = 7, T = 64 * 64 * 3 };
    static uint8_t pixels[R * C * T];
    uint8_t present[R * C];
    for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = (uint8_t)draw();
    memset(present, 1, sizeof present);
    present[1] = 0;
    iso_mosaic s = {.rows = R, .columns = C, .pixels = pixels, .present = present};
    path_to("mosaic.png");
    OK(iso_chart_mosaic(&s, file, &err));
    check_sane();
    picture p = load();
    assert_int_equal(p.width, 2 * (2 * ISO_CHART_MARGIN + C * 68 - 4));
    for (int t = 0; t < R * C; t++)
        for (int i = 0; i < 128 * 128; i++) {
            const uint8_t *want = pixels + (size_t)t * T + (size_t)(i / 128 / 2 * 64 + i % 128 / 2) * 3;
            int x = 2 * (ISO_CHART_MARGIN + t % C * 68) + i % 128, y = 2 * (ISO_CHART_MARGIN + t / C * 68) + i / 128;
            uint32_t rgb_want = t == 1 ? 0xffffff : (uint32_t)want[0] << 16 | (uint32_t)want[1] << 8 | want[2];
            if (pixel(&p, x, y) != rgb_want) fail_msg("tile %d, pixel %d: %06x", t, i, pixel(&p, x, y));
        }
    int width = p.width;
    cairo_surface_destroy(p.surface);
    const char *row[] = {"image", NULL, "a name that is long, and longer still, and does not end"},
               *column[C] = {"-1", "0", "a long name above a column"};
    s.row = row, s.column = column, s.title = "title";
    OK(iso_chart_mosaic(&s, file, &err));
    check_sane();
    p = load();
    assert_true(p.width > width + 40);
    cairo_surface_destroy(p.surface);
}

/* ---- whatever may come ---- */

static char endless[5001];
static const char *const odd_text[] = {NULL,
                                       "",
                                       "ordinary",
                                       "\xff\xfe not UTF-8 \xc3",
                                       "line\nbreak\ttab\x01",
                                       "\xef\xbf\xbe\xf0\x9f\xbf\xbf\xef\xb7\x90",
                                       "naïve — Größe 猫 😀",
                                       endless,
                                       "a_name_with_many_parts_that_goes_on_and_on_and_on",
                                       "   ",
                                       "%s%n",
                                       "…"};
static const double odd_number[] = {0,      1,       -1,       0.5,    NAN,    INFINITY, -INFINITY, 1e300,
                                    -1e300, 1.7e308, -1.7e308, 5e-324, 1e-300, -0.0,     42,        42.0000001};
#define COUNT(a) ((int)(sizeof(a) / sizeof(a)[0]))

static const char *some_text(void) { return odd_text[below(COUNT(odd_text))]; }
static double some_number(int kind)
{
    return kind == 0 ? odd_number[below(COUNT(odd_number))] : kind == 1 ? 7 : uniform() * 100 - 20;
}

static const char **some_texts(int n)
{
    const char **list = iso_calloc((size_t)n, sizeof *list);
    assert_non_null(list);
    for (int i = 0; i < n; i++) list[i] = some_text();
    return list;
}

static double *some_numbers(int n, int kind)
{
    double *list = iso_calloc((size_t)n, sizeof *list);
    assert_non_null(list);
    for (int i = 0; i < n; i++) list[i] = some_number(kind);
    return list;
}

static void drawn_or_refused(iso_status st)
{
    if (st != ISO_OK && st != ISO_E_ARGUMENT) fail_msg("status %d: %s", st, err.message);
    if (st == ISO_OK)
        check_sane();
    else
        assert_true(strlen(err.message) > 10);
    assert_int_equal(entries(), st == ISO_OK);
    unlink(file);
}

static void hostile_bars(int trial)
{
    int groups = 1 + below(trial % 5 == 0 ? 60 : 5), series = 1 + below(trial % 7 == 0 ? 60 : 4), kind = below(3);
    const char **group = some_texts(groups), **name = some_texts(series);
    double *v[4];
    for (int i = 0; i < 4; i++) v[i] = some_numbers(groups * series, kind);
    iso_bars s = {.title = some_text(),
                  .y_label = some_text(),
                  .note = some_text(),
                  .groups = groups,
                  .series = series,
                  .group = below(4) ? group : NULL,
                  .name = below(4) ? name : NULL,
                  .value = v[0],
                  .low = below(2) ? v[1] : NULL,
                  .high = below(2) ? v[2] : NULL,
                  .level = below(2) ? v[3] : NULL};
    drawn_or_refused(iso_chart_bars(&s, file, &err));
    for (int i = 0; i < 4; i++) free(v[i]);
    free(group), free(name);
}

static void hostile_curves(int trial)
{
    enum { CURVES = 4, PANELS = 3 };
    iso_curve curve[CURVES];
    iso_curves panel[PANELS];
    for (int i = 0; i < CURVES; i++) {
        int n = below(4) ? below(12) : below(trial % 5 == 0 ? 1500 : 50), kind = below(3);
        curve[i] = (iso_curve){
            some_text(), n, some_numbers(n, kind), some_numbers(n, kind), below(2) ? some_texts(n) : NULL, below(2)};
    }
    for (int i = 0; i < PANELS; i++)
        panel[i] = (iso_curves){some_text(), some_text(), some_text(),       some_text(),
                                below(2),    below(2),    below(CURVES + 1), curve};
    drawn_or_refused(iso_chart_curves(1 + below(PANELS), panel, file, &err));
    for (int i = 0; i < CURVES; i++) free((void *)curve[i].x), free((void *)curve[i].y), free((void *)curve[i].label);
}

static void hostile_codes(int trial)
{
    int n = below(trial % 5 == 0 ? 1000 : 6), e = below(6), groups = below(trial % 7 == 0 ? 200 : 5), kind = below(3);
    double *z = some_numbers(2 * n, kind), *centre = some_numbers(2 * e, kind), *metric = some_numbers(4 * e, below(3));
    int *group = iso_calloc((size_t)n, sizeof *group);
    const char **name = some_texts(groups);
    for (int i = 0; i < n; i++) group[i] = below(groups + 3) - 2;
    for (int i = 0; i < e; i++)
        if (below(2)) metric[4 * i + 1] = metric[4 * i + 2] = 0;
    iso_codes s = {some_text(), some_text(), n,     z, below(4) ? group : NULL, groups, below(4) ? name : NULL,
                   e,           centre,      metric};
    drawn_or_refused(iso_chart_codes(&s, file, &err));
    free(z), free(centre), free(metric), free(group), free(name);
}

static void hostile_mosaic(int trial)
{
    int rows = 1 + below(3), columns = 1 + below(trial % 9 == 0 ? 40 : 3);
    uint8_t *pixels = iso_calloc((size_t)(rows * columns), 64 * 64 * 3),
            *present = iso_calloc((size_t)(rows * columns), 1);
    const char **row = some_texts(rows), **column = some_texts(columns);
    for (int i = 0; i < rows * columns; i++) present[i] = (uint8_t)below(3);
    iso_mosaic s = {some_text(),
                    some_text(),
                    rows,
                    columns,
                    below(3) ? row : NULL,
                    below(3) ? column : NULL,
                    pixels,
                    below(2) ? present : NULL};
    drawn_or_refused(iso_chart_mosaic(&s, file, &err));
    free(pixels), free(present), free(row), free(column);
}

static void test_hostile(void **unused)
{
    (void)unused;
    memset(endless, 'M', sizeof endless - 1);
    path_to("mosaic.png"), path_to("codes.png"), path_to("scatter.png"), path_to("bars.png"), path_to("many.png"),
        path_to("curves.png");
    path_to("hostile.png");
    assert_int_equal(entries(), 0);
    for (int i = 0; i < 10; i++) hostile_bars(i), hostile_curves(i), hostile_codes(i), hostile_mosaic(i);
}

static void test_ten_thousand(void **unused)
{
    (void)unused;
    enum { N = 10000 };
    double *x = some_numbers(2 * N, 2);
    const char **label = some_texts(N);
    iso_curve curve = {"many", N, x, x + N, label, true};
    iso_curves panel = {.count = 1, .curve = &curve};
    path_to("large.png");
    drawn_or_refused(iso_chart_curves(1, &panel, file, &err));
    iso_codes codes = {.count = N, .z = x};
    drawn_or_refused(iso_chart_codes(&codes, file, &err));
    iso_bars bars = {.groups = 1, .series = N, .value = x, .name = label};
    drawn_or_refused(iso_chart_bars(&bars, file, &err));
    free(x), free(label);
}

/* ---- what is refused ---- */

static void refused(iso_status st, const char *word)
{
    assert_int_equal(st, ISO_E_ARGUMENT);
    if (!strstr(err.message, word)) fail_msg("'%s' does not say '%s'", err.message, word);
}

static void test_nothing(void **unused)
{
    (void)unused;
    double nan[4] = {NAN, NAN, INFINITY, -INFINITY};
    uint8_t tile[1], absent[1] = {0};
    iso_curve curve = {"c", 2, nan, nan, NULL, true};
    iso_curves panel = {.count = 1, .curve = &curve};
    path_to("nothing.png");
    refused(iso_chart_bars(&(iso_bars){.groups = 0}, file, &err), "nothing to draw");
    refused(iso_chart_bars(&(iso_bars){.groups = 2, .series = 2, .value = nan, .level = (double[]){1, 2}}, file, &err),
            "nothing to draw");
    refused(iso_chart_curves(0, NULL, file, &err), "nothing to draw");
    refused(iso_chart_curves(1, &panel, file, &err), "nothing to draw");
    refused(iso_chart_codes(&(iso_codes){.count = 0}, file, &err), "nothing to draw");
    refused(
        iso_chart_codes(&(iso_codes){.count = 2, .z = nan, .ellipses = 1, .centre = nan, .metric = nan}, file, &err),
        "nothing to draw");
    refused(iso_chart_mosaic(&(iso_mosaic){.rows = 0, .columns = 3}, file, &err), "nothing to draw");
    refused(iso_chart_mosaic(&(iso_mosaic){.rows = 1, .columns = 1, .pixels = tile, .present = absent}, file, &err),
            "nothing to draw");
    /* Log axes show nothing of what is not positive. */
    double minus[] = {-1, 0};
    curve.x = curve.y = minus;
    OK(iso_chart_curves(1, &panel, file, &err));
    unlink(file);
    panel.x_log = true;
    refused(iso_chart_curves(1, &panel, file, &err), "nothing to draw");
    /* Larger than a picture can be. */
    uint8_t *wide = iso_calloc(300, 64 * 64 * 3);
    assert_non_null(wide);
    refused(iso_chart_mosaic(&(iso_mosaic){.rows = 1, .columns = 300, .pixels = wide}, file, &err), "too much");
    double *tall = iso_calloc(4000, sizeof *tall);
    assert_non_null(tall);
    refused(iso_chart_bars(&(iso_bars){.groups = 4000, .series = 1, .value = tall}, file, &err), "too much");
    free(wide), free(tall);
    assert_int_equal(entries(), 0);
}

static void test_unwritable(void **unused)
{
    (void)unused;
    double one[] = {1, 2, 3, 4};
    static uint8_t tile[64 * 64 * 3];
    iso_bars bars = {.groups = 2, .series = 2, .value = one};
    iso_curve curve = {"c", 2, one, one, NULL, true};
    iso_curves panel = {.count = 1, .curve = &curve};
    iso_codes codes = {.count = 2, .z = one};
    iso_mosaic mosaic = {.rows = 1, .columns = 1, .pixels = tile};
    char missing[700];
    snprintf(missing, sizeof missing, "%s/no/such/folder.png", base);
    const char *path[] = {missing, base, "/proc/chart.png"};
    for (int i = 0; i < COUNT(path); i++) {
        assert_int_equal(iso_chart_bars(&bars, path[i], &err), ISO_E_IO);
        assert_non_null(strstr(err.message, path[i]));
        assert_int_equal(iso_chart_curves(1, &panel, path[i], &err), ISO_E_IO);
        assert_int_equal(iso_chart_codes(&codes, path[i], &err), ISO_E_IO);
        assert_int_equal(iso_chart_mosaic(&mosaic, path[i], NULL), ISO_E_IO);
    }
    assert_int_equal(entries(), 0);
    /* A full disk: what stood there before is not touched. */
    if (access("/dev/full", W_OK) == 0) assert_int_equal(iso_chart_bars(&bars, "/dev/full", &err), ISO_E_IO);
    /* A refused chart leaves the file of before alone; a good one replaces it. */
    path_to("before.png");
    FILE *f = fopen(file, "w");
    assert_non_null(f);
    fputs("before", f);
    fclose(f);
    assert_int_equal(iso_chart_bars(&(iso_bars){.groups = 1, .series = 1, .value = (double[]){NAN}}, file, &err),
                     ISO_E_ARGUMENT);
    char *text;
    size_t size;
    OK(iso_file_read(file, 100, &text, &size, &err));
    assert_string_equal(text, "before");
    free(text);
    OK(iso_chart_bars(&bars, file, &err));
    check_sane();
    assert_int_equal(entries(), 1);
    unlink(file);
}

static void test_threads(void **unused)
{
    (void)unused;
    double one[] = {1, 2, 3, 4};
    int failed = 0;
#pragma omp parallel for num_threads(4) reduction(+ : failed)
    for (int i = 0; i < 6; i++) {
        char path[600];
        iso_error e;
        snprintf(path, sizeof path, "%s/thread%d.png", base, i);
        iso_bars bars = {.title = "at once", .groups = 2, .series = 2, .value = one};
        failed += iso_chart_bars(&bars, path, &e) != ISO_OK;
    }
    assert_int_equal(failed, 0);
    char *first = NULL, *text = NULL;
    size_t size, n;
    for (int i = 0; i < 6; i++) {
        char name[32];
        snprintf(name, sizeof name, "thread%d.png", i);
        snprintf(file, sizeof file, "%s/%s", base, name);
        OK(iso_file_read(file, 1 << 20, &text, &n, &err));
        if (!first) first = text, size = n;
        assert_true(n == size && memcmp(first, text, n) == 0); /* the same spec gives the same file */
        if (text != first) free(text);
        unlink(file);
    }
    free(first);
}

int main(void)
{
    begin_random(20240);
    if (!make_folder(base, sizeof base, "chart")) return perror(base), 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_axes),    cmocka_unit_test(test_bars),       cmocka_unit_test(test_many_bars),
        cmocka_unit_test(test_curves),  cmocka_unit_test(test_ellipses),   cmocka_unit_test(test_scatter),
        cmocka_unit_test(test_mosaic),  cmocka_unit_test(test_hostile),    cmocka_unit_test(test_ten_thousand),
        cmocka_unit_test(test_nothing), cmocka_unit_test(test_unwritable), cmocka_unit_test(test_threads),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (rmdir(base) != 0) failed = failed ? failed : (perror(base), 1);
    return failed;
}
