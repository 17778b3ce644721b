/* chart_parts.h: what the chart_*.c files share, and what tests/test_chart.c looks at; nobody else includes it.
 *
 * Lengths are points: the file has ISO_CHART_SCALE pixels to each, so that it can be shown at half its size.
 * Functions that draw leave errors in the canvas, and iso_canvas_write reports them: callers need not ask at every step. */
#ifndef ISO_CHART_PARTS_H
#define ISO_CHART_PARTS_H

#include <cairo.h>
#include <stdbool.h>
#include <stddef.h>
#include "base/error.h"

enum {
    ISO_CHART_SCALE = 2,
    ISO_CHART_MARGIN = 18,
    ISO_CHART_MARKS = 7,  /* shapes, in turn; with the colours they repeat after 168 series */
    ISO_CHART_CODES = 560, /* width of the plot of codes */
    ISO_CHART_KEY = 26     /* of the sign before a name in the legend */
};
#define ISO_CHART_LARGEST 1e300 /* a number beyond it is left out like an infinity, so that no difference overflows; on a log
                                   axis one below its inverse, too */

/* ---- chart.c: the picture, its texts and marks ---- */

typedef struct iso_canvas {
    cairo_surface_t *surface;
    cairo_t *c;
    bool memory; /* was out while drawing */
} iso_canvas;

typedef enum iso_font { ISO_FONT_TITLE, ISO_FONT_HEADING, ISO_FONT_LABEL, ISO_FONT_TICK, ISO_FONT_SMALL, ISO_FONT_NOTE } iso_font;
typedef enum iso_align { ISO_LEFT, ISO_CENTRE, ISO_RIGHT } iso_align;

/* A canvas that measures texts, so that the picture's size can follow from them; then the picture, white.
 * ISO_E_ARGUMENT: larger than a picture can be. Closing a zeroed or closed one is fine. */
ISO_CHECK iso_status iso_canvas_measure(iso_canvas *v, iso_error *err);
ISO_CHECK iso_status iso_canvas_open(iso_canvas *v, double width, double height, iso_error *err);
ISO_CHECK iso_status iso_canvas_write(iso_canvas *v, const char *path, iso_error *err);
void iso_canvas_close(iso_canvas *v);

double iso_font_height(iso_font font); /* of a line */
void iso_canvas_font(iso_canvas *v, iso_font font);
/* Any bytes as text of at most `room` points: longer ones lose their middle. NULL counts as "". Return the width. */
double iso_canvas_width(iso_canvas *v, iso_font font, const char *bytes, double room);
double iso_canvas_text(iso_canvas *v, iso_font font, double x, double y, iso_align align, const char *bytes, double room);
/* The same over up to `lines` lines, broken between words; the last one loses its middle if it must. y: the top. Returns the
 * height of all lines, 0 for NULL and "". With draw false nothing but the height is found. */
double iso_canvas_paragraph(iso_canvas *v, iso_font font, double x, double y, double room, int lines, iso_align align,
                            const char *bytes, bool draw);
void iso_canvas_line(iso_canvas *v, double x0, double y0, double x1, double y1, double width, const double color[3]);

extern const double iso_ink[3], iso_soft[3], iso_grid[3];
/* A series' colour: eight that differ for every kind of eye, then darker ones, then lighter ones, then again. */
void iso_series_color(int series, double rgb[3]);
/* A mark of the series' colour and shape; series -1: a gray dot. */
void iso_canvas_mark(iso_canvas *v, int series, double x, double y, double r);

typedef enum iso_key { ISO_KEY_BAR, ISO_KEY_MARK, ISO_KEY_LINE, ISO_KEY_DASH, ISO_KEY_ELLIPSE } iso_key;
typedef struct iso_legend {
    const char *name;
    iso_key key;
    int series;
} iso_legend;
/* In columns of one width, row by row, within `width`, at most `rows` rows; names longer than `longest` lose their middle. Returns the height. */
double iso_canvas_legend(iso_canvas *v, const iso_legend *item, int count, double x, double y, double width, double longest, int rows, bool draw);

/* ---- chart_axis.c ---- */

enum { ISO_AXIS_TICKS = 64 };

typedef struct iso_range {
    bool any;
    double lo, hi;
} iso_range;

typedef struct iso_axis {
    bool log;
    double lo, hi;   /* at the ends; on a log axis log10 of it */
    double from, to; /* where the ends are in the picture */
    int ticks, lines;
    bool powers;     /* labels are powers of ten: 10 and the label as its exponent */
    double tick[ISO_AXIS_TICKS];
    char label[ISO_AXIS_TICKS][32];
    double line[ISO_AXIS_TICKS * 9]; /* of the grid between ticks of a log axis */
} iso_axis;

/* Whether a number can be drawn: finite, not beyond ISO_CHART_LARGEST, and positive on a log axis. */
bool iso_axis_takes(double value, bool log);
void iso_range_add(iso_range *r, double value, bool log); /* those that can be drawn */
/* An axis that shows the range (0 .. 1, or 1 .. 10, when it is empty) with some `about` ticks at 1, 2, 5 times a power of ten
 * or, on a log axis of several decades, at powers of ten. whole: it ends at ticks; else there is some room at the ends.
 * A range of next to no width is widened. The caller then says from where to where it is. */
void iso_axis_fit(iso_axis *a, iso_range r, bool log, bool whole, int about);
/* The same for ends that are given, on a linear axis. lo < hi. */
void iso_axis_set(iso_axis *a, double lo, double hi, int about);
/* Where a value that can be drawn is in the picture; never further out than ten times the axis. */
double iso_axis_at(const iso_axis *a, double value);

double iso_axis_width(iso_canvas *v, const iso_axis *a); /* of the widest label */
/* The grid and the labels; first x, then y, whose frame is the line of both axes. */
void iso_axis_draw_x(iso_canvas *v, const iso_axis *a, double top, double bottom);
void iso_axis_draw_y(iso_canvas *v, const iso_axis *a, double left, double right, bool frame);

#endif
