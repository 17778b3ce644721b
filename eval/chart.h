/* chart.h: the plots of the evaluator as PNG files, drawn with cairo. Everything in a spec is borrowed.
 *
 *     iso_bars b = {.title = "Table 1", .y_label = "P@10 (%)", .groups = 2, .series = 2, .group = group, .name = name, .value = value};
 *     iso_status st = iso_chart_bars(&b, "table.png", &err);
 *
 * Texts are UTF-8 and may be NULL, as may lists of names; other bytes are written as \xHH; what is too long for its place goes on
 * two lines or loses its middle. The size follows from the content; files have two pixels to a point, to be shown at half size.
 * Files appear whole or not at all. A number that is not finite, or beyond 1e300 (on a log axis also one below 1e-300), is left
 * out of the drawing. Colours are told apart by people who see red and green alike; neighbours differ in lightness, points in shape.
 * ISO_E_ARGUMENT: nothing to draw, or too much for one picture (32,000 pixels a side). ISO_E_IO: the file cannot be written.
 * May be called by several threads at once. */
#ifndef ISO_CHART_H
#define ISO_CHART_H

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"

/* Bars in groups: one group per name on the horizontal axis, one bar per series in it, with an error bar where given. Groups
 * that are too many for one row go on in further rows with the same scale. */
typedef struct iso_bars {
    const char *title, *y_label;
    const char *note;              /* a line below, or NULL */
    int groups, series;
    const char *const *group;      /* [groups] */
    const char *const *name;       /* [series], in the legend */
    const double *value;           /* [series, groups] */
    const double *low, *high;      /* [series, groups] ends of the error bars, NaN for none; both may be NULL */
    const double *level;           /* [groups] a dashed line across each group (chance), NaN for none; may be NULL */
    const char *level_name;        /* of these lines in the legend; NULL: "chance" */
} iso_bars;
ISO_CHECK iso_status iso_chart_bars(const iso_bars *spec, const char *path, iso_error *err);

/* Curves through points, each point with a label where given: beside it, and left out where there is no room. */
typedef struct iso_curve {
    const char *name;
    int count;
    const double *x, *y;
    const char *const *label;      /* [count] or NULL; an item may be NULL */
    bool line;                     /* joined in the order given; else points only */
} iso_curve;
typedef struct iso_curves {
    const char *title, *x_label, *y_label, *note;
    bool x_log, y_log;             /* values <= 0 are left out */
    int count;
    const iso_curve *curve;
} iso_curves;
/* Several panels beside one another, left to right. Curves of one name have one colour and shape in all of them, and one entry in
 * the legend. A panel without points says so; all without is an error. A point that is left out leaves a gap in its line. */
ISO_CHECK iso_status iso_chart_curves(int panels, const iso_curves *panel, const char *path, iso_error *err);

/* Codes of a two-dimensional latent space, coloured by class, with the equidistance ellipses
 * {z : (z - c)T G(c) (z - c) = k}, one k for all, chosen so that the larger half axis
 * of the median ellipse is 4 % of the plot's width. Both axes have one scale. */
typedef struct iso_codes {
    const char *title, *note;
    int64_t count;
    const double *z;               /* [count, 2] */
    const int *group;              /* [count] in 0 .. groups - 1, -1: of none (gray); NULL: all are of none */
    int groups;
    const char *const *name;       /* [groups] */
    int64_t ellipses;
    const double *centre;          /* [ellipses, 2] */
    const double *metric;          /* [ellipses, 2, 2] symmetric; one that is not positive definite is left out */
} iso_codes;
ISO_CHECK iso_status iso_chart_codes(const iso_codes *spec, const char *path, iso_error *err);

/* Rows of 64 x 64 RGB pictures, each pixel drawn as 2 x 2, with a name before each row and, where given, above each column. */
typedef struct iso_mosaic {
    const char *title, *note;
    int rows, columns;
    const char *const *row;        /* [rows] or NULL */
    const char *const *column;     /* [columns] or NULL */
    const uint8_t *pixels;         /* [rows, columns, 64, 64, 3] */
    const uint8_t *present;        /* [rows, columns] 0: left empty; NULL: all are there */
} iso_mosaic;
ISO_CHECK iso_status iso_chart_mosaic(const iso_mosaic *spec, const char *path, iso_error *err);

#endif
