/* chart_codes.c: two-dimensional codes and equidistance ellipses, with one scale for both axes. */
#include "eval/chart.h"
#include "eval/chart_parts.h"

#include <math.h>
#include <stdlib.h>

#include "base/memory.h"

enum { LONGEST_NAME = 220 }; /* of the legend, which stands beside the plot */
#define MEDIAN_SHARE 0.04 /* the median ellipse's larger half axis, of the plot's width */

/* {z : (z - c)T G (z - c) = 1}. */
typedef struct ellipse {
    double centre[2];
    double half[2];      /* the larger half axis first */
    double direction[2]; /* of the larger one */
} ellipse;

typedef struct layout {
    iso_axis x, y;
    double left, plot_height, title, note, legend_width, legend_height, width, height;
    double unit; /* points to 1 of the codes */
    ellipse *ellipse;
    int64_t ellipses;
    double median; /* of the ellipses' longer half axes, in codes; 0 without ellipses */
    double share; /* times an ellipse's half axis, in codes: what is drawn */
    iso_legend *item;
    int items;
} layout;

static int group_of(const iso_codes *s, int64_t i)
{
    return s->group && s->group[i] >= 0 && s->group[i] < s->groups ? s->group[i] : -1;
}

static bool drawable(const double z[2]) { return iso_axis_takes(z[0], false) && iso_axis_takes(z[1], false); }

/* ---- ellipses ---- */

/* False: not symmetric, or not positive definite as far as double precision can tell. */
static bool half_axes(const double g[4], ellipse *e)
{
    double size = fmax(fabs(g[0]), fabs(g[3]));
    if (!isfinite(g[0]) || !isfinite(g[1]) || !isfinite(g[2]) || !isfinite(g[3]) || !(g[0] > 0 && g[3] > 0))
        return false;
    double a = g[0] / size, b = (g[1] / size + g[2] / size) / 2, d = g[3] / size; /* no product overflows */
    if (!(fabs(g[1] / size - g[2] / size) <= 1e-6)) return false;
    double mean = (a + d) / 2, radius = hypot((a - d) / 2, b), large = mean + radius;
    double small = (a * d - b * b) / large; /* mean - radius, but exact when it is near 0 */
    if (!(small > 1e-15 * large)) return false;
    e->half[0] = 1 / sqrt(small) / sqrt(size);
    e->half[1] = 1 / sqrt(large) / sqrt(size);
    /* The eigenvector of the smaller eigenvalue is normal to that of the larger, which lies at half this angle. */
    double angle = 0.5 * atan2(2 * b, a - d) + M_PI / 2;
    e->direction[0] = cos(angle);
    e->direction[1] = sin(angle);
    return isfinite(e->half[0]) && e->half[1] > 0;
}

static int by_half(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static iso_status collect_ellipses(const iso_codes *s, layout *l, iso_error *err)
{
    if (s->ellipses < 1 || !s->centre || !s->metric) return ISO_OK;
    double *half = iso_calloc((size_t)s->ellipses, sizeof *half);
    l->ellipse = iso_calloc((size_t)s->ellipses, sizeof *l->ellipse);
    if (!half || !l->ellipse) {
        free(half);
        return iso_fail_memory(err);
    }
    for (int64_t i = 0; i < s->ellipses; i++) {
        ellipse *e = &l->ellipse[l->ellipses];
        if (!drawable(&s->centre[2 * i]) || !half_axes(&s->metric[4 * i], e)) continue;
        e->centre[0] = s->centre[2 * i], e->centre[1] = s->centre[2 * i + 1];
        half[l->ellipses++] = e->half[0];
    }
    int64_t n = l->ellipses;
    qsort(half, (size_t)n, sizeof *half, by_half);
    if (n > 0) l->median = half[(n - 1) / 2] / 2 + half[n / 2] / 2;
    free(half);
    return ISO_OK;
}

/* ---- layout ---- */

static iso_status plan_legend(const iso_codes *s, layout *l, iso_error *err)
{
    size_t groups = s->groups > 0 ? (size_t)s->groups : 0;
    bool *seen = iso_calloc(groups + 1, sizeof *seen); /* the last one: of no group */
    l->item = iso_calloc(groups + 2, sizeof *l->item);
    if (!seen || !l->item) {
        free(seen);
        return iso_fail_memory(err);
    }
    for (int64_t i = 0; i < s->count; i++)
        if (drawable(&s->z[2 * i])) seen[group_of(s, i) < 0 ? groups : (size_t)group_of(s, i)] = true;
    for (size_t g = 0; g < groups; g++)
        if (seen[g] && s->name && s->name[g]) l->item[l->items++] = (iso_legend){s->name[g], ISO_KEY_MARK, (int)g};
    if (seen[groups] && groups > 0) l->item[l->items++] = (iso_legend){"none of these", ISO_KEY_MARK, -1};
    if (l->ellipses > 0) l->item[l->items++] = (iso_legend){"equidistant", ISO_KEY_ELLIPSE, 0};
    free(seen);
    return ISO_OK;
}

static void widen(iso_range *r, double least)
{
    double pad = 0.05 * (r->hi - r->lo);
    if (r->hi - r->lo < least) pad = (least - (r->hi - r->lo)) / 2;
    r->lo -= pad;
    r->hi += pad;
}

/* The plot is as high as the codes ask for, within limits; the range that is too short for it is widened. */
static void plan_axes(layout *l, iso_range x, iso_range y)
{
    double size = fmax(fmax(fabs(x.lo), fabs(x.hi)), fmax(fabs(y.lo), fabs(y.hi)));
    double least = size < 1e-290 ? 2 : 1e-4 * size; /* of the longer range, which ticks can tell apart */
    if (fmax(x.hi - x.lo, y.hi - y.lo) < least) least = size < 1e-290 ? 2 : 0.1 * size;
    double longer = fmax(fmax(x.hi - x.lo, y.hi - y.lo), least);
    widen(&x, longer * 0.05);
    widen(&y, longer * 0.05);
    double ratio = fmin(fmax((y.hi - y.lo) / (x.hi - x.lo), 0.6), 1.1);
    l->plot_height = round(ISO_CHART_CODES * ratio);
    double per_point = fmax((x.hi - x.lo) / ISO_CHART_CODES, (y.hi - y.lo) / l->plot_height);
    widen(&x, per_point * ISO_CHART_CODES);
    widen(&y, per_point * l->plot_height);
    double cx = x.lo / 2 + x.hi / 2, cy = y.lo / 2 + y.hi / 2;
    l->unit = 1 / per_point;
    iso_axis_set(&l->x, cx - per_point * ISO_CHART_CODES / 2, cx + per_point * ISO_CHART_CODES / 2, 8);
    iso_axis_set(&l->y, cy - per_point * l->plot_height / 2, cy + per_point * l->plot_height / 2, (int)(l->plot_height / 65));
    l->share = l->median > 0 ? MEDIAN_SHARE * ISO_CHART_CODES * per_point / l->median : 0;
}

static void plan_sides(iso_canvas *v, const iso_codes *s, layout *l)
{
    double cell = 0;
    int rows = (int)(l->plot_height / 18), columns = l->items <= rows ? 1 : l->items <= 2 * rows ? 2 : 3;
    for (int i = 0; i < l->items; i++)
        cell = fmax(cell, ISO_CHART_KEY + iso_canvas_width(v, ISO_FONT_LABEL, l->item[i].name, LONGEST_NAME));
    l->legend_width = l->items > 0 ? ceil(columns * (cell + 20)) : 0;
    l->left = ceil(ISO_CHART_MARGIN + iso_axis_width(v, &l->y) + 10);
    l->width = l->left + ISO_CHART_CODES + (l->items > 0 ? 18 + l->legend_width - 20 : 6) + ISO_CHART_MARGIN;
    double room = l->width - 2 * ISO_CHART_MARGIN;
    l->title = iso_canvas_paragraph(v, ISO_FONT_TITLE, 0, 0, room, 2, ISO_LEFT, s->title, false);
    if (l->title > 0) l->title += 8;
    l->note = iso_canvas_paragraph(v, ISO_FONT_NOTE, 0, 0, room, 8, ISO_LEFT, s->note, false);
    l->height = 2 * ISO_CHART_MARGIN + l->title + l->plot_height + 20 + (l->note > 0 ? 8 + l->note : 0);
}

static iso_status plan(iso_canvas *v, const iso_codes *s, layout *l, iso_error *err)
{
    iso_range x = {0}, y = {0};
    iso_status st = collect_ellipses(s, l, err);
    if (st != ISO_OK) return st;
    for (int64_t i = 0; i < s->count; i++)
        if (drawable(&s->z[2 * i])) iso_range_add(&x, s->z[2 * i], false), iso_range_add(&y, s->z[2 * i + 1], false);
    for (int64_t i = 0; i < l->ellipses; i++)
        iso_range_add(&x, l->ellipse[i].centre[0], false), iso_range_add(&y, l->ellipse[i].centre[1], false);
    if (!x.any) return iso_fail(err, ISO_E_ARGUMENT, "nothing to draw: there is not one finite code");
    st = plan_legend(s, l, err);
    if (st != ISO_OK) return st;
    plan_axes(l, x, y);
    plan_sides(v, s, l);
    return ISO_OK;
}

/* ---- drawing ---- */

static void draw_ellipse(iso_canvas *v, const layout *l, const ellipse *e)
{
    enum { STEPS = 120 };
    double far = 20.0 * ISO_CHART_CODES, x = iso_axis_at(&l->x, e->centre[0]), y = iso_axis_at(&l->y, e->centre[1]);
    double a = fmin(e->half[0] * l->share * l->unit, far), b = fmin(e->half[1] * l->share * l->unit, far);
    if (!isfinite(a) || !isfinite(b)) return;
    cairo_new_path(v->c);
    for (int i = 0; i < STEPS; i++) {
        double t = 2 * M_PI * i / STEPS, p = a * cos(t), q = b * sin(t);
        cairo_line_to(v->c, x + p * e->direction[0] - q * e->direction[1],
                      y - p * e->direction[1] - q * e->direction[0]);
    }
    cairo_close_path(v->c);
    cairo_set_source_rgba(v->c, 1, 1, 1, 0.8); /* on codes of any colour it is seen by its white edge */
    cairo_set_line_width(v->c, 2.2);
    cairo_stroke_preserve(v->c);
    cairo_set_source_rgb(v->c, iso_ink[0], iso_ink[1], iso_ink[2]);
    cairo_set_line_width(v->c, 1);
    cairo_stroke(v->c);
}

static void draw(iso_canvas *v, const iso_codes *s, layout *l)
{
    double y = ISO_CHART_MARGIN, room = l->width - 2 * ISO_CHART_MARGIN, right = l->left + ISO_CHART_CODES;
    double r = s->count <= 300 ? 3.4 : s->count <= 5000 ? 2.3 : s->count <= 20000 ? 1.6 : 1.1;
    iso_canvas_paragraph(v, ISO_FONT_TITLE, ISO_CHART_MARGIN, y, room, 2, ISO_LEFT, s->title, true);
    y += l->title;
    double bottom = y + l->plot_height;
    l->x.from = l->left, l->x.to = right, l->y.from = bottom, l->y.to = y;
    iso_axis_draw_x(v, &l->x, y, bottom);
    iso_axis_draw_y(v, &l->y, l->left, right, true);
    cairo_save(v->c);
    cairo_rectangle(v->c, l->left, y, ISO_CHART_CODES, l->plot_height);
    cairo_clip(v->c);
    for (int of_none = 1; of_none >= 0; of_none--) /* gray ones first: they are the background */
        for (int64_t i = 0; i < s->count; i++)
            if ((group_of(s, i) < 0) == of_none && drawable(&s->z[2 * i]))
                iso_canvas_mark(v, group_of(s, i), iso_axis_at(&l->x, s->z[2 * i]), iso_axis_at(&l->y, s->z[2 * i + 1]),
                                r);
    for (int64_t i = 0; i < l->ellipses; i++) draw_ellipse(v, l, &l->ellipse[i]);
    cairo_restore(v->c);
    iso_canvas_legend(v, l->item, l->items, right + 18, y, l->legend_width, LONGEST_NAME, (int)(l->plot_height / 18), true);
    iso_canvas_paragraph(v, ISO_FONT_NOTE, ISO_CHART_MARGIN, bottom + 28, room, 8, ISO_LEFT, s->note, true);
}

iso_status iso_chart_codes(const iso_codes *s, const char *path, iso_error *err)
{
    iso_canvas v = {0};
    layout l = {0};
    iso_status st = iso_canvas_measure(&v, err);
    if (st == ISO_OK) st = plan(&v, s, &l, err);
    if (st == ISO_OK) st = iso_canvas_open(&v, l.width, l.height, err);
    if (st == ISO_OK) {
        draw(&v, s, &l);
        st = iso_canvas_write(&v, path, err);
    }
    free(l.ellipse);
    free(l.item);
    iso_canvas_close(&v);
    return st;
}
