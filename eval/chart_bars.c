/* chart_bars.c: groups of bars; many groups stand in several rows with one scale. */
#include "eval/chart.h"
#include "eval/chart_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

enum { WIDEST = 1040, NARROWEST = 360, NAME = 110, NAME_LINES = 2, BAR = 15, BAR_SMALL = 11, BAR_WIDEST = 34 };

typedef struct layout {
    iso_axis axis;
    int rows, per_row;
    double bar, group; /* widths */
    double left, plot_height, row_height;
    double title, y_label, names, legend, note; /* heights */
    double width, height;
    iso_legend *item;
    int items;
} layout;

static const char *text_of(const char *const *list, int i) { return list && list[i] ? list[i] : ""; }

static double at(const iso_bars *s, const double *list, int series, int group)
{
    return list ? list[(size_t)series * (size_t)s->groups + (size_t)group] : NAN;
}

static iso_status find_range(const iso_bars *s, iso_range *r, iso_error *err)
{
    for (int i = 0; i < s->series; i++)
        for (int g = 0; g < s->groups; g++) iso_range_add(r, at(s, s->value, i, g), false);
    if (!r->any) return iso_fail(err, ISO_E_ARGUMENT, "nothing to draw: the bar chart has not one finite value");
    for (int i = 0; i < s->series; i++)
        for (int g = 0; g < s->groups; g++) {
            if (!iso_axis_takes(at(s, s->value, i, g), false)) continue;
            iso_range_add(r, at(s, s->low, i, g), false);
            iso_range_add(r, at(s, s->high, i, g), false);
        }
    for (int g = 0; s->level && g < s->groups; g++) iso_range_add(r, s->level[g], false);
    iso_range_add(r, 0, false); /* a bar begins at 0 */
    return ISO_OK;
}

/* The width in which a name fits on two lines, more or less. */
static double name_width(iso_canvas *v, const char *name)
{
    double whole = iso_canvas_width(v, ISO_FONT_TICK, name, 4 * NAME), piece = 0;
    if (whole <= 72) return whole;
    char *copy = iso_strndup(name, strlen(name)), *place = NULL;
    if (!copy) {
        v->memory = true;
        return NAME;
    }
    for (char *word = strtok_r(copy, " _+/-&", &place); word; word = strtok_r(NULL, " _+/-&", &place))
        piece = fmax(piece, iso_canvas_width(v, ISO_FONT_TICK, word, NAME) + 8);
    free(copy);
    return fmin(fmax(0.56 * whole, piece), NAME);
}

static double draw_name(iso_canvas *v, const iso_bars *s, const layout *l, int g, double middle, double y, bool draw)
{
    return iso_canvas_paragraph(v, ISO_FONT_TICK, middle, y, l->group - 6, NAME_LINES, ISO_CENTRE, text_of(s->group, g),
                                draw);
}

static void plan_widths(iso_canvas *v, const iso_bars *s, layout *l)
{
    double name = 0;
    for (int g = 0; g < s->groups && name < NAME; g++) name = fmax(name, name_width(v, text_of(s->group, g)));
    for (double bar = BAR; bar >= BAR_SMALL; bar -= BAR - BAR_SMALL) { /* slim ones where one row cannot hold them */
        l->bar = fmin(bar, 0.85 * WIDEST / s->series);
        l->group = ceil(fmax(s->series * l->bar + fmax(16, 0.12 * s->series * l->bar), name + 10));
        if (s->groups * l->group <= WIDEST) break;
    }
    int capacity = (int)(WIDEST / l->group);
    if (capacity < 1) capacity = 1;
    l->rows = (s->groups + capacity - 1) / capacity;
    l->per_row = (s->groups + l->rows - 1) / l->rows;
    if (l->per_row * l->group < NARROWEST) { /* few groups: wider bars */
        l->group = ceil((double)NARROWEST / l->per_row);
        l->bar = fmin(BAR_WIDEST, fmax(l->bar, 0.7 * l->group / s->series));
    }
    if (l->bar >= 4) l->bar = floor(l->bar * ISO_CHART_SCALE) / ISO_CHART_SCALE; /* whole pixels: sharp edges */
    for (int g = 0; g < s->groups; g++) l->names = fmax(l->names, draw_name(v, s, l, g, 0, 0, false));
}

static bool plan_legend(const iso_bars *s, layout *l)
{
    l->item = iso_calloc((size_t)s->series + 1, sizeof *l->item);
    if (!l->item) return false;
    for (int i = 0; i < s->series; i++)
        if (*text_of(s->name, i)) l->item[l->items++] = (iso_legend){s->name[i], ISO_KEY_BAR, i};
    for (int g = 0; s->level && g < s->groups; g++)
        if (iso_axis_takes(s->level[g], false)) {
            l->item[l->items++] = (iso_legend){s->level_name ? s->level_name : "chance", ISO_KEY_DASH, 0};
            break;
        }
    return true;
}

static iso_status plan(iso_canvas *v, const iso_bars *s, layout *l, iso_error *err)
{
    iso_range r = {0};
    iso_status st = find_range(s, &r, err);
    if (st != ISO_OK) return st;
    if (!plan_legend(s, l)) return iso_fail_memory(err);
    plan_widths(v, s, l);
    l->plot_height = l->rows > 1 ? 190 : 280;
    iso_axis_fit(&l->axis, r, false, true, l->rows > 1 ? 5 : 7);
    l->left = ceil(ISO_CHART_MARGIN + fmax(iso_axis_width(v, &l->axis), 12) + 10);
    l->width = l->left + l->per_row * l->group + ISO_CHART_MARGIN;
    l->row_height = l->plot_height + 10 + l->names + (l->rows > 1 ? 16 : 10);
    double room = l->width - 2 * ISO_CHART_MARGIN;
    l->title = iso_canvas_paragraph(v, ISO_FONT_TITLE, 0, 0, room, 2, ISO_LEFT, s->title, false);
    if (l->title > 0) l->title += 8;
    l->y_label = iso_canvas_paragraph(v, ISO_FONT_LABEL, 0, 0, room, 1, ISO_LEFT, s->y_label, false) + 11;
    l->legend = iso_canvas_legend(v, l->item, l->items, 0, 0, l->width - l->left - ISO_CHART_MARGIN, l->width, 12, false);
    l->note = iso_canvas_paragraph(v, ISO_FONT_NOTE, 0, 0, room, 8, ISO_LEFT, s->note, false);
    l->height = 2 * ISO_CHART_MARGIN + l->title + l->y_label + l->rows * l->row_height + l->legend +
                (l->note > 0 ? 8 + l->note : 0);
    return ISO_OK;
}

static void draw_error(iso_canvas *v, const layout *l, double x, double value, double low, double high)
{
    double from = iso_axis_at(&l->axis, iso_axis_takes(low, false) ? low : value);
    double to = iso_axis_at(&l->axis, iso_axis_takes(high, false) ? high : value);
    double cap = fmin(4, 0.3 * l->bar), thick = l->bar < 6 ? 0.6 : 1;
    if (!iso_axis_takes(low, false) && !iso_axis_takes(high, false)) return;
    iso_canvas_line(v, x, from, x, to, thick, iso_ink);
    if (iso_axis_takes(low, false)) iso_canvas_line(v, x - cap, from, x + cap, from, thick, iso_ink);
    if (iso_axis_takes(high, false)) iso_canvas_line(v, x - cap, to, x + cap, to, thick, iso_ink);
}

static void draw_bar(iso_canvas *v, const layout *l, int series, double x, double value)
{
    double color[3], zero = iso_axis_at(&l->axis, 0), end = iso_axis_at(&l->axis, value);
    double gap = l->bar >= 6 ? 1 : 0, height = fmax(fabs(end - zero), 0.5); /* 0 is seen, too */
    iso_series_color(series, color);
    cairo_set_source_rgb(v->c, color[0], color[1], color[2]);
    cairo_rectangle(v->c, x + gap / 2, value < 0 ? zero : zero - height, l->bar - gap, height);
    cairo_fill(v->c);
}

/* Dashes over a white line are seen on bars of any colour. */
static void draw_level(iso_canvas *v, double x0, double x1, double y)
{
    static const double dash[] = {4, 2.5}, white[3] = {1, 1, 1};
    iso_canvas_line(v, x0, y, x1, y, 2.5, white);
    cairo_set_dash(v->c, dash, 2, 0);
    iso_canvas_line(v, x0, y, x1, y, 1.25, iso_ink);
    cairo_set_dash(v->c, NULL, 0, 0);
}

static void draw_group(iso_canvas *v, const iso_bars *s, const layout *l, int g, double left, double bottom)
{
    double first = left + (l->group - s->series * l->bar) / 2;
    first = floor(first * ISO_CHART_SCALE) / ISO_CHART_SCALE;
    for (int i = 0; i < s->series; i++) {
        double value = at(s, s->value, i, g), x = first + i * l->bar;
        if (iso_axis_takes(value, false)) draw_bar(v, l, i, x, value);
    }
    if (s->level && iso_axis_takes(s->level[g], false))
        draw_level(v, first - 5, first + s->series * l->bar + 5, iso_axis_at(&l->axis, s->level[g]));
    for (int i = 0; i < s->series; i++) {
        double value = at(s, s->value, i, g), x = first + (i + 0.5) * l->bar;
        if (iso_axis_takes(value, false)) draw_error(v, l, x, value, at(s, s->low, i, g), at(s, s->high, i, g));
    }
    draw_name(v, s, l, g, left + l->group / 2, bottom + 7, true);
}

static void draw(iso_canvas *v, const iso_bars *s, layout *l)
{
    double x = ISO_CHART_MARGIN, y = ISO_CHART_MARGIN, room = l->width - 2 * ISO_CHART_MARGIN;
    iso_canvas_paragraph(v, ISO_FONT_TITLE, x, y, room, 2, ISO_LEFT, s->title, true);
    y += l->title;
    iso_canvas_paragraph(v, ISO_FONT_LABEL, x, y, room, 1, ISO_LEFT, s->y_label, true);
    y += l->y_label;
    for (int row = 0; row < l->rows; row++, y += l->row_height) {
        int begin = row * l->per_row, end = begin + l->per_row < s->groups ? begin + l->per_row : s->groups;
        double bottom = y + l->plot_height, right = l->left + (end - begin) * l->group;
        l->axis.from = bottom, l->axis.to = y;
        iso_axis_draw_y(v, &l->axis, l->left, right, false);
        for (int g = begin; g < end; g++) draw_group(v, s, l, g, l->left + (g - begin) * l->group, bottom);
        double zero = iso_axis_at(&l->axis, 0);
        iso_canvas_line(v, l->left, zero, right, zero, 1, iso_soft);
    }
    iso_canvas_legend(v, l->item, l->items, l->left, y, l->width - l->left - ISO_CHART_MARGIN, l->width, 12, true);
    y += l->legend + 8;
    iso_canvas_paragraph(v, ISO_FONT_NOTE, x, y, room, 8, ISO_LEFT, s->note, true);
}

iso_status iso_chart_bars(const iso_bars *s, const char *path, iso_error *err)
{
    iso_canvas v = {0};
    layout l = {0};
    if (s->groups < 1 || s->series < 1 || !s->value)
        return iso_fail(err, ISO_E_ARGUMENT, "nothing to draw: the bar chart has no bars");
    iso_status st = iso_canvas_measure(&v, err);
    if (st == ISO_OK) st = plan(&v, s, &l, err);
    if (st == ISO_OK) st = iso_canvas_open(&v, l.width, l.height, err);
    if (st == ISO_OK) {
        draw(&v, s, &l);
        st = iso_canvas_write(&v, path, err);
    }
    free(l.item);
    iso_canvas_close(&v);
    return st;
}
