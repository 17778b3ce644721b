/* chart_axis.c: from numbers to places in the picture, and the ticks between. */
#include "eval/chart_parts.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

bool iso_axis_takes(double value, bool log)
{
    return isfinite(value) && fabs(value) <= ISO_CHART_LARGEST && (!log || value >= 1 / ISO_CHART_LARGEST);
}

void iso_range_add(iso_range *r, double value, bool log)
{
    if (!iso_axis_takes(value, log)) return;
    if (!r->any || value < r->lo) r->lo = value;
    if (!r->any || value > r->hi) r->hi = value;
    r->any = true;
}

/* 1, 2 or 5 times a power of ten, such that `about` of them fill the span, roughly. */
static double nice_step(double span, int about)
{
    double raw = span / about, power = pow(10, floor(log10(raw))), f = raw / power;
    return (f <= 1.5 ? 1 : f <= 3 ? 2 : f <= 7 ? 5 : 10) * power;
}

/* "1.5e+07" as "1.5e7". */
static void tidy_exponent(char *text)
{
    char *e = strchr(text, 'e');
    if (!e) return;
    char *to = e + 1, *from = e + 1;
    if (*from == '-') to++;
    if (*from == '-' || *from == '+') from++;
    while (*from == '0' && from[1]) from++;
    memmove(to, from, strlen(from) + 1);
}

/* A number among others that differ from it by `step` and are at most `largest`. */
static void write_label(char *text, size_t size, double value, double step, double largest)
{
    int digits = (int)floor(log10(step) + 1e-9);
    if (value == 0)
        snprintf(text, size, "0");
    else if (largest >= 1e-4 && largest < 1e6)
        snprintf(text, size, "%.*f", digits < 0 ? -digits : 0, value);
    else {
        int places = (int)floor(log10(fabs(value)) + 1e-9) - digits;
        snprintf(text, size, "%.*e", places < 0 ? 0 : places > 12 ? 12 : places, value);
        tidy_exponent(text);
    }
}

static void add_tick(iso_axis *a, double value, double step, double largest)
{
    if (a->ticks == ISO_AXIS_TICKS) return;
    write_label(a->label[a->ticks], sizeof a->label[0], value, step, largest);
    a->tick[a->ticks++] = value;
}

static void linear_ticks(iso_axis *a, double lo, double hi, int about)
{
    double step = nice_step(hi - lo, about), first = ceil(lo / step - 1e-6), last = floor(hi / step + 1e-6);
    for (double i = first; i <= last && a->ticks < ISO_AXIS_TICKS; i++)
        add_tick(a, i == 0 ? 0 : i * step, step, fmax(fabs(lo), fabs(hi)));
}

/* Lines at 2 .. 9 times the powers of ten, or at powers between ticks that are several decades apart. */
static void grid_lines(iso_axis *a, int first, int last, int stride)
{
    const int most = (int)(sizeof a->line / sizeof a->line[0]);
    for (int e = first - 1; e <= last; e++)
        for (int m = stride == 1 ? 2 : 10; m <= (stride == 1 ? 9 : 10) && a->lines < most; m++) {
            double at = e + log10(m);
            if (at > a->lo && at < a->hi && last - first <= 60) a->line[a->lines++] = pow(10, at);
        }
}

static void log_ticks(iso_axis *a, int about)
{
    int first = (int)ceil(a->lo - 1e-9), last = (int)floor(a->hi + 1e-9), decades = last - first + 1;
    double fine = 3 * (a->hi - a->lo); /* ticks at 1, 2, 5 */
    if (decades >= 3 || (decades == 2 && fine > 1.6 * about)) {
        int stride = (decades + 2 * about - 1) / (2 * about); /* such labels are short */
        a->powers = first < -3 || last > 4;
        for (int e = (int)ceil((double)first / stride) * stride; e <= last && a->ticks < ISO_AXIS_TICKS; e += stride) {
            snprintf(a->label[a->ticks], sizeof a->label[0], a->powers ? "%.0f" : "%g", a->powers ? e : pow(10, e));
            a->tick[a->ticks++] = pow(10, e);
        }
        grid_lines(a, first, last, stride);
        return;
    }
    static const int digit[] = {1, 2, 5};
    for (int e = first - 1; e <= last; e++)
        for (int i = 0; i < 3; i++) {
            double at = e + log10(digit[i]), value = digit[i] * pow(10, e);
            if (at >= a->lo && at <= a->hi) add_tick(a, value, pow(10, e), value);
        }
    grid_lines(a, first, last, 1);
    if (a->ticks >= 3) return;
    a->ticks = a->lines = 0; /* well within a decade the axis is next to linear */
    linear_ticks(a, pow(10, a->lo), pow(10, a->hi), about);
}

static void widen(double *lo, double *hi, double share, double least)
{
    double size = fmax(fabs(*lo), fabs(*hi));
    if (*hi - *lo >= share * size && *hi - *lo >= 1e-290) return;
    double pad = size < 1e-290 ? least : 0.05 * size;
    *lo -= pad;
    *hi += pad;
}

static void fit_linear(iso_axis *a, iso_range r, bool whole, int about)
{
    a->lo = r.lo, a->hi = r.hi;
    if (whole && r.lo >= 0 && r.hi < 1e-290) a->lo = 0, a->hi = 1; /* bars of height 0 */
    widen(&a->lo, &a->hi, 1e-4, 1);
    double step = nice_step(a->hi - a->lo, about), pad = 0.06 * (a->hi - a->lo);
    a->lo = whole ? floor(a->lo / step + 1e-6) * step : a->lo - pad;
    a->hi = whole ? ceil(a->hi / step - 1e-6) * step : a->hi + pad;
    linear_ticks(a, a->lo, a->hi, about);
}

void iso_axis_fit(iso_axis *a, iso_range r, bool log, bool whole, int about)
{
    *a = (iso_axis){.log = log};
    if (!r.any) r = (iso_range){true, log ? 1 : 0, log ? 10 : 1};
    if (!log) {
        fit_linear(a, r, whole, about);
        return;
    }
    a->lo = log10(r.lo), a->hi = log10(r.hi);
    if (a->hi - a->lo < 1e-3) a->lo -= 0.3, a->hi += 0.3;
    double pad = whole ? 0 : 0.07 * (a->hi - a->lo);
    a->lo = fmax(whole ? floor(a->lo) : a->lo - pad, -301); /* no tick is 0 or infinite */
    a->hi = fmin(whole ? ceil(a->hi) : a->hi + pad, 301);
    log_ticks(a, about);
}

void iso_axis_set(iso_axis *a, double lo, double hi, int about)
{
    *a = (iso_axis){.lo = lo, .hi = hi};
    linear_ticks(a, lo, hi, about);
}

double iso_axis_at(const iso_axis *a, double value)
{
    double t = ((a->log ? log10(value) : value) - a->lo) / (a->hi - a->lo);
    t = fmin(fmax(t, -10), 10);
    return a->from + t * (a->to - a->from);
}

/* ---- drawing ---- */

/* A label whose right end or middle is at x; returns where it begins or, not drawn, its width. */
static double draw_label(iso_canvas *v, const iso_axis *a, int i, double x, double y, iso_align align, bool draw)
{
    if (!a->powers) {
        if (!draw) return iso_canvas_width(v, ISO_FONT_TICK, a->label[i], 200);
        return iso_canvas_text(v, ISO_FONT_TICK, x, y, align, a->label[i], 200);
    }
    double ten = iso_canvas_width(v, ISO_FONT_TICK, "10", 200),
           up = iso_canvas_width(v, ISO_FONT_SMALL, a->label[i], 200);
    double left = x - (align == ISO_RIGHT ? ten + up : (ten + up) / 2);
    if (!draw) return ten + up;
    iso_canvas_text(v, ISO_FONT_TICK, left, y, ISO_LEFT, "10", 200);
    iso_canvas_text(v, ISO_FONT_SMALL, left + ten, y - 4.5, ISO_LEFT, a->label[i], 200);
    return ten + up;
}

double iso_axis_width(iso_canvas *v, const iso_axis *a)
{
    double widest = 0;
    for (int i = 0; i < a->ticks; i++) widest = fmax(widest, draw_label(v, a, i, 0, 0, ISO_RIGHT, false));
    return widest;
}

static const double faint[3] = {0.945, 0.947, 0.95};

/* Grid lines on whole pixels are sharp. */
static double snap(double x) { return round(x * ISO_CHART_SCALE) / ISO_CHART_SCALE; }

/* Of how many labels on a horizontal axis one can be shown, so that none touches the next. */
static int label_stride(iso_canvas *v, const iso_axis *a)
{
    int stride = 1;
    for (int i = 0; i + stride < a->ticks; i += stride) {
        double half = draw_label(v, a, i, 0, 0, ISO_CENTRE, false) / 2;
        double next = draw_label(v, a, i + stride, 0, 0, ISO_CENTRE, false) / 2;
        if (iso_axis_at(a, a->tick[i + stride]) - iso_axis_at(a, a->tick[i]) >= half + next + 6) continue;
        stride++;
        i = -stride; /* again from the first */
    }
    return stride;
}

void iso_axis_draw_x(iso_canvas *v, const iso_axis *a, double top, double bottom)
{
    int stride = label_stride(v, a);
    for (int i = 0; i < a->lines; i++) {
        double x = snap(iso_axis_at(a, a->line[i]));
        iso_canvas_line(v, x, top, x, bottom, 0.5, faint);
    }
    for (int i = 0; i < a->ticks; i++) {
        double x = snap(iso_axis_at(a, a->tick[i]));
        iso_canvas_line(v, x, top, x, bottom, 1, iso_grid);
        if (i % stride != 0) continue;
        iso_canvas_line(v, x, bottom, x, bottom + 4, 1, iso_soft);
        draw_label(v, a, i, x, bottom + 16, ISO_CENTRE, true);
    }
}

void iso_axis_draw_y(iso_canvas *v, const iso_axis *a, double left, double right, bool frame)
{
    for (int i = 0; i < a->lines; i++) {
        double y = snap(iso_axis_at(a, a->line[i]));
        iso_canvas_line(v, left, y, right, y, 0.5, faint);
    }
    for (int i = 0; i < a->ticks; i++) {
        double y = snap(iso_axis_at(a, a->tick[i]));
        iso_canvas_line(v, left, y, right, y, 1, iso_grid);
        if (frame) iso_canvas_line(v, left - 4, y, left, y, 1, iso_soft);
        draw_label(v, a, i, left - 7, y + 4, ISO_RIGHT, true);
    }
    if (!frame) return;
    iso_canvas_line(v, left, a->from, left, a->to, 1, iso_soft);
    iso_canvas_line(v, left, a->from, right, a->from, 1, iso_soft);
}
