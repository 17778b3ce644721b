/* chart_curves.c: panels of curves and points. A name has one colour and one shape in all panels, and stands once in the
 * legend below them. */
#include "eval/chart.h"
#include "eval/chart_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

enum { GAP = 26, LABELS = 400, LABEL_ROOM = 120 }; /* LABELS: in a panel; more of them could not be read */

typedef struct panel {
    const iso_curves *spec;
    iso_axis x, y;
    double left, width;        /* of the plot */
    double outer, outer_width; /* with the labels of the vertical axis */
    int *style;                /* [spec->count] */
} panel;

typedef struct layout {
    int panels;
    panel *panel;
    double plot_width, plot_height, title, y_label, x_label, note, legend, width, height;
    iso_legend *item;
    int items;
} layout;

static bool drawable(const iso_curves *s, const iso_curve *c, int i)
{
    return iso_axis_takes(c->x[i], s->x_log) && iso_axis_takes(c->y[i], s->y_log);
}

static bool find_ranges(const iso_curves *s, iso_range *x, iso_range *y)
{
    for (int k = 0; k < s->count; k++)
        for (int i = 0; i < s->curve[k].count; i++) {
            if (!drawable(s, &s->curve[k], i)) continue;
            iso_range_add(x, s->curve[k].x[i], s->x_log);
            iso_range_add(y, s->curve[k].y[i], s->y_log);
        }
    return x->any;
}

/* ---- layout ---- */

/* The place of a name in the legend; a new one is added. A curve without a name gets a style, but no place. */
static int style_of(layout *l, const iso_curve *c, int *styles)
{
    bool named = c->name && *c->name;
    for (int i = 0; i < l->items && named; i++)
        if (strcmp(l->item[i].name, c->name) == 0) {
            if (c->line) l->item[i].key = ISO_KEY_LINE;
            return l->item[i].series;
        }
    if (named) l->item[l->items++] = (iso_legend){c->name, c->line ? ISO_KEY_LINE : ISO_KEY_MARK, *styles};
    return (*styles)++;
}

static iso_status plan_styles(layout *l, iso_error *err)
{
    size_t curves = 0;
    int styles = 0;
    for (int p = 0; p < l->panels; p++) curves += l->panel[p].spec->count > 0 ? (size_t)l->panel[p].spec->count : 0;
    l->item = iso_calloc(curves, sizeof *l->item);
    if (!l->item) return iso_fail_memory(err);
    for (int p = 0; p < l->panels; p++) {
        const iso_curves *s = l->panel[p].spec;
        l->panel[p].style = iso_calloc(s->count > 0 ? (size_t)s->count : 0, sizeof(int));
        if (!l->panel[p].style) return iso_fail_memory(err);
        for (int k = 0; k < s->count; k++) l->panel[p].style[k] = style_of(l, &s->curve[k], &styles);
    }
    return ISO_OK;
}

static void plan_panels(iso_canvas *v, layout *l)
{
    double x = ISO_CHART_MARGIN;
    for (int i = 0; i < l->panels; i++) {
        panel *p = &l->panel[i];
        iso_range rx = {0}, ry = {0};
        find_ranges(p->spec, &rx, &ry);
        iso_axis_fit(&p->x, rx, p->spec->x_log, false, (int)(l->plot_width / 65));
        iso_axis_fit(&p->y, ry, p->spec->y_log, false, (int)(l->plot_height / 42));
        p->outer = x;
        p->left = ceil(x + iso_axis_width(v, &p->y) + 10);
        p->width = l->plot_width;
        p->outer_width = p->left + p->width - p->outer;
        x = p->left + p->width + GAP;
        p->x.from = p->left, p->x.to = p->left + p->width;
        double room = p->outer_width;
        l->title =
            fmax(l->title, iso_canvas_paragraph(v, ISO_FONT_HEADING, 0, 0, room, 2, ISO_LEFT, p->spec->title, false));
        l->y_label =
            fmax(l->y_label, iso_canvas_paragraph(v, ISO_FONT_LABEL, 0, 0, room, 1, ISO_LEFT, p->spec->y_label, false));
        l->x_label =
            fmax(l->x_label, iso_canvas_paragraph(v, ISO_FONT_LABEL, 0, 0, room, 1, ISO_LEFT, p->spec->x_label, false));
        l->note = fmax(l->note, iso_canvas_paragraph(v, ISO_FONT_NOTE, 0, 0, room, 8, ISO_LEFT, p->spec->note, false));
    }
    l->width = x - GAP + ISO_CHART_MARGIN;
    if (l->title > 0) l->title += 6;
}

static iso_status plan(iso_canvas *v, layout *l, iso_error *err)
{
    iso_range x = {0}, y = {0};
    bool any = false;
    for (int p = 0; p < l->panels; p++) any = find_ranges(l->panel[p].spec, &x, &y) || any;
    if (!any)
        return iso_fail(err, ISO_E_ARGUMENT, "nothing to draw: the curves have not one point that their axes can show");
    iso_status st = plan_styles(l, err);
    if (st != ISO_OK) return st;
    l->plot_width = l->panels == 1 ? 480 : l->panels == 2 ? 360 : 310;
    l->plot_height = l->panels == 1 ? 340 : 270;
    plan_panels(v, l);
    l->legend = iso_canvas_legend(v, l->item, l->items, 0, 0, l->width - 2 * ISO_CHART_MARGIN, l->width, 12, false);
    l->height = 2 * ISO_CHART_MARGIN + l->title + l->y_label + 8 + l->plot_height + 22 +
                (l->x_label > 0 ? l->x_label + 2 : 0) + (l->note > 0 ? 4 + l->note : 0) +
                (l->legend > 0 ? 8 + l->legend : 0);
    return ISO_OK;
}

/* ---- labels beside points, none over another or over a mark ---- */

typedef struct box {
    double x0, y0, x1, y1;
} box;

typedef struct crowd {
    box *mark, *label;
    int marks, labels;
    double (*line)[4]; /* joined points */
    int lines;
} crowd;

static bool overlap(const box *a, const box *b)
{
    return a->x0 < b->x1 && b->x0 < a->x1 && a->y0 < b->y1 && b->y0 < a->y1;
}

/* Whether a line from (l[0], l[1]) to (l[2], l[3]) meets the box (Liang and Barsky). */
static bool crosses(const double l[4], const box *b)
{
    double t0 = 0, t1 = 1, dx = l[2] - l[0], dy = l[3] - l[1];
    const double p[4] = {-dx, dx, -dy, dy}, q[4] = {l[0] - b->x0, b->x1 - l[0], l[1] - b->y0, b->y1 - l[1]};
    for (int i = 0; i < 4; i++) {
        if (p[i] == 0 && q[i] < 0) return false;
        if (p[i] < 0) t0 = fmax(t0, q[i] / p[i]);
        if (p[i] > 0) t1 = fmin(t1, q[i] / p[i]);
    }
    return t0 <= t1;
}

static int count_crossed(const crowd *c, const box *b)
{
    int n = 0;
    for (int i = 0; i < c->lines && n < 4; i++) n += crosses(c->line[i], b);
    return n;
}

static bool is_free(const crowd *c, const box *b)
{
    for (int i = 0; i < c->labels; i++)
        if (overlap(&c->label[i], b)) return false;
    for (int i = 0; i < c->marks; i++)
        if (overlap(&c->mark[i], b)) return false;
    return true;
}

/* The best free place for a label of this size around a point; false: there is none. */
static bool find_place(const crowd *c, const box *plot, double x, double y, double r, double w, double h, box *best)
{
    static const double way[8][2] = {{1, 0},      {0, -1},      {0, 1},     {-1, 0},
                                     {0.8, -0.8}, {-0.8, -0.8}, {0.8, 0.8}, {-0.8, 0.8}};
    int least = -1;
    for (int far = 0; far < 3; far++)
        for (int i = 0; i < 8; i++) {
            double reach = r + 2 + far * 9, cx = x + way[i][0] * (reach + w / 2), cy = y + way[i][1] * (reach + h / 2);
            if (i >= 4) cx = x + copysign(reach * 0.6 + w / 2, way[i][0]);
            box b = {cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2};
            if (b.x0 < plot->x0 || b.x1 > plot->x1 || b.y0 < plot->y0 || b.y1 > plot->y1 || !is_free(c, &b)) continue;
            int cost = 8 * far + 16 * count_crossed(c, &b);
            if (least >= 0 && cost >= least) continue;
            least = cost;
            *best = b;
        }
    return least >= 0;
}

static void draw_label(iso_canvas *v, const crowd *c, const box *b, double x, double y, double r, const char *text)
{
    double nx = fmin(fmax(x, b->x0), b->x1), ny = fmin(fmax(y, b->y0), b->y1), d = hypot(nx - x, ny - y);
    if (d > r + 6)
        iso_canvas_line(v, x + (nx - x) * r / d, y + (ny - y) * r / d, nx, ny, 0.5, iso_soft); /* whose it is */
    if (count_crossed(c, b) > 0) {
        cairo_set_source_rgba(v->c, 1, 1, 1, 0.75);
        cairo_rectangle(v->c, b->x0, b->y0, b->x1 - b->x0, b->y1 - b->y0);
        cairo_fill(v->c);
    }
    iso_canvas_text(v, ISO_FONT_SMALL, (b->x0 + b->x1) / 2, b->y1 - 2.5, ISO_CENTRE, text, LABEL_ROOM);
}

static void draw_labels(iso_canvas *v, const panel *p, crowd *c, const box *plot, double r)
{
    int tried = 0;
    for (int k = 0; k < p->spec->count; k++) {
        const iso_curve *s = &p->spec->curve[k];
        for (int i = 0; i < s->count && s->label && tried < LABELS; i++) {
            box b;
            if (!s->label[i] || !*s->label[i] || !drawable(p->spec, s, i)) continue;
            double x = iso_axis_at(&p->x, s->x[i]), y = iso_axis_at(&p->y, s->y[i]);
            double w = iso_canvas_width(v, ISO_FONT_SMALL, s->label[i], LABEL_ROOM) + 2;
            tried++;
            if (!find_place(c, plot, x, y, r, w, 10, &b)) continue;
            draw_label(v, c, &b, x, y, r, s->label[i]);
            c->label[c->labels++] = b;
        }
    }
}

/* ---- drawing ---- */

static bool crowd_make(crowd *c, size_t points)
{
    c->mark = iso_calloc(points, sizeof *c->mark);
    c->line = iso_calloc(points, sizeof *c->line);
    c->label = iso_calloc(LABELS, sizeof *c->label);
    return c->mark && c->line && c->label;
}

static void draw_line(iso_canvas *v, const panel *p, int k, crowd *c)
{
    const iso_curve *s = &p->spec->curve[k];
    double color[3], last[2] = {0, 0};
    bool begun = false;
    iso_series_color(p->style[k], color);
    for (int i = 0; i < s->count; i++) {
        bool there = drawable(p->spec, s, i); /* what is left out leaves a gap */
        double x = there ? iso_axis_at(&p->x, s->x[i]) : 0, y = there ? iso_axis_at(&p->y, s->y[i]) : 0;
        if (there && begun) {
            iso_canvas_line(v, last[0], last[1], x, y, 1.5, color);
            memcpy(c->line[c->lines++], (double[4]){last[0], last[1], x, y}, sizeof c->line[0]);
        }
        begun = there;
        last[0] = x, last[1] = y;
    }
}

static iso_status draw_points(iso_canvas *v, const panel *p, const box *plot, iso_error *err)
{
    crowd c = {0};
    size_t points = 0;
    for (int k = 0; k < p->spec->count; k++)
        points += p->spec->curve[k].count > 0 ? (size_t)p->spec->curve[k].count : 0;
    double r = points <= 100 ? 4 : points <= 1000 ? 2.6 : 1.6;
    bool made = crowd_make(&c, points);
    if (made) {
        cairo_set_line_cap(v->c, CAIRO_LINE_CAP_ROUND);
        for (int k = 0; k < p->spec->count; k++)
            if (p->spec->curve[k].line) draw_line(v, p, k, &c);
        cairo_set_line_cap(v->c, CAIRO_LINE_CAP_BUTT);
        for (int k = 0; k < p->spec->count; k++)
            for (int i = 0; i < p->spec->curve[k].count; i++) {
                if (!drawable(p->spec, &p->spec->curve[k], i)) continue;
                double x = iso_axis_at(&p->x, p->spec->curve[k].x[i]), y = iso_axis_at(&p->y, p->spec->curve[k].y[i]);
                iso_canvas_mark(v, p->style[k], x, y, r);
                c.mark[c.marks++] = (box){x - r - 0.5, y - r - 0.5, x + r + 0.5, y + r + 0.5};
            }
        draw_labels(v, p, &c, plot, r);
    }
    free(c.mark);
    free(c.line);
    free(c.label);
    return made ? ISO_OK : iso_fail_memory(err);
}

static iso_status draw_panel(iso_canvas *v, const layout *l, panel *p, double y, iso_error *err)
{
    const iso_curves *s = p->spec;
    double room = p->outer_width, bottom = y + l->title + l->y_label + 8 + l->plot_height,
           top = bottom - l->plot_height;
    box plot = {p->left, top, p->left + p->width, bottom};
    iso_range rx = {0}, ry = {0};
    iso_canvas_paragraph(v, ISO_FONT_HEADING, p->outer, y, room, 2, ISO_LEFT, s->title, true);
    iso_canvas_paragraph(v, ISO_FONT_LABEL, p->outer, y + l->title, room, 1, ISO_LEFT, s->y_label, true);
    iso_canvas_paragraph(v, ISO_FONT_LABEL, p->left + p->width / 2, bottom + 22, p->width, 1, ISO_CENTRE, s->x_label,
                         true);
    iso_canvas_paragraph(v, ISO_FONT_NOTE, p->outer, bottom + 22 + (l->x_label > 0 ? l->x_label + 2 : 0) + 4, room, 8,
                         ISO_LEFT, s->note, true);
    if (!find_ranges(s, &rx, &ry)) {
        cairo_set_source_rgb(v->c, iso_grid[0], iso_grid[1], iso_grid[2]);
        cairo_set_line_width(v->c, 1);
        cairo_rectangle(v->c, plot.x0, plot.y0, p->width, l->plot_height);
        cairo_stroke(v->c);
        iso_canvas_text(v, ISO_FONT_NOTE, p->left + p->width / 2, (top + bottom) / 2, ISO_CENTRE, "no points",
                        p->width);
        return ISO_OK;
    }
    p->y.from = bottom, p->y.to = top;
    iso_axis_draw_x(v, &p->x, top, bottom);
    iso_axis_draw_y(v, &p->y, plot.x0, plot.x1, true);
    return draw_points(v, p, &plot, err);
}

iso_status iso_chart_curves(int panels, const iso_curves *spec, const char *path, iso_error *err)
{
    iso_canvas v = {0};
    layout l = {.panels = panels};
    if (panels < 1) return iso_fail(err, ISO_E_ARGUMENT, "nothing to draw: there are no curves");
    l.panel = iso_calloc((size_t)panels, sizeof *l.panel);
    if (!l.panel) return iso_fail_memory(err);
    for (int i = 0; i < panels; i++) l.panel[i].spec = &spec[i];
    iso_status st = iso_canvas_measure(&v, err);
    if (st == ISO_OK) st = plan(&v, &l, err);
    if (st == ISO_OK) st = iso_canvas_open(&v, l.width, l.height, err);
    for (int i = 0; i < panels && st == ISO_OK; i++) st = draw_panel(&v, &l, &l.panel[i], ISO_CHART_MARGIN, err);
    if (st == ISO_OK) {
        iso_canvas_legend(&v, l.item, l.items, ISO_CHART_MARGIN, l.height - ISO_CHART_MARGIN - l.legend,
                          l.width - 2 * ISO_CHART_MARGIN, l.width, 12, true);
        st = iso_canvas_write(&v, path, err);
    }
    for (int i = 0; i < panels; i++) free(l.panel[i].style);
    free(l.panel);
    free(l.item);
    iso_canvas_close(&v);
    return st;
}
