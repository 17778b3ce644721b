#include "eval/pictures.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "eval/chart.h"

enum { ELLIPSES = 30, COLUMNS = 10, LINES = 4, PAIRS = 8, STEPS = 9, AXES = 8, OFFSETS = 7 };
#define APART 0.45     /* of the codes' spread: the least distance of two ellipses' centres */
#define WIDEST 2.5     /* from the middle: ellipses lie among the codes, not at their fringe */
#define DEVIATIONS 3.0 /* to either side, along an axis */

/* --- codes in the plane */

typedef struct plane {
    double *mean, *axis, *deviation; /* iso_pullback_axes */
    double share;                    /* of the codes' variance that lies in the plane */
    double *z, *mixed;               /* [images, 2] */
    double centre[ELLIPSES * 2], metric[ELLIPSES * 4];
    int64_t ellipses;
} plane;

static void plane_free(plane *a) { free(a->mean), free(a->axis), free(a->deviation), free(a->z), free(a->mixed); }

static void project(const plane *a, const float *code, int64_t n, int m, double *out)
{
    for (int64_t i = 0; i < n; i++)
        for (int d = 0; d < 2; d++) {
            double sum = m == 2 ? (double)code[i * 2 + d] : 0;
            for (int k = 0; m > 2 && k < m; k++)
                sum += ((double)code[i * m + k] - a->mean[k]) * a->axis[(int64_t)d * m + k];
            out[i * 2 + d] = sum;
        }
}

/* Pt G P */
static void restrict_metric(const plane *a, const double *G, int m, double out[4])
{
    if (m == 2) {
        memcpy(out, G, 4 * sizeof *out);
        return;
    }
    for (int d = 0; d < 2; d++)
        for (int e = 0; e < 2; e++) {
            out[d * 2 + e] = 0;
            for (int i = 0; i < m; i++)
                for (int k = 0; k < m; k++)
                    out[d * 2 + e] += a->axis[(int64_t)d * m + i] * G[(int64_t)i * m + k] * a->axis[(int64_t)e * m + k];
        }
}

/* The codes' middle and how far they spread, over both coordinates: the plot has one scale. */
static void measure_spread(const double *z, int64_t n, double middle[2], double *spread)
{
    double square = 0;
    for (int d = 0; d < 2; d++) {
        middle[d] = 0;
        for (int64_t i = 0; i < n; i++) middle[d] += z[i * 2 + d] / (double)n;
        for (int64_t i = 0; i < n; i++) square += (z[i * 2 + d] - middle[d]) * (z[i * 2 + d] - middle[d]) / (double)n;
    }
    *spread = square > 0 ? sqrt(square / 2) : 1; /* one image, or all alike */
}

static double distance(const double *p, const double *q) { return hypot(p[0] - q[0], p[1] - q[1]); }

/* In the order of the images, which is random: the first that are not near one already taken. */
static void place_ellipses(plane *a, const iso_pullback *p)
{
    double middle[2], spread;
    measure_spread(a->z, p->images, middle, &spread);
    for (int64_t i = 0; i < p->images && a->ellipses < ELLIPSES; i++) {
        const double *at = a->mixed + i * 2, *G = p->metric + i * p->m * p->m;
        bool fits = !isnan(G[0]) && distance(at, middle) < WIDEST * spread;
        for (int64_t k = 0; k < a->ellipses && fits; k++) fits = distance(at, a->centre + k * 2) > APART * spread;
        if (!fits) continue;
        memcpy(a->centre + a->ellipses * 2, at, 2 * sizeof *at);
        restrict_metric(a, G, p->m, a->metric + a->ellipses * 4);
        a->ellipses++;
    }
}

static iso_status make_plane(const iso_pullback *p, plane *a, iso_error *err)
{
    size_t m = (size_t)p->m;
    a->mean = iso_calloc(m, sizeof *a->mean);
    a->axis = iso_calloc(m * m, sizeof *a->axis);
    a->deviation = iso_calloc(m, sizeof *a->deviation);
    a->z = iso_calloc((size_t)p->images, 2 * sizeof *a->z);
    a->mixed = iso_calloc((size_t)p->images, 2 * sizeof *a->mixed);
    if (!a->mean || !a->axis || !a->deviation || !a->z || !a->mixed) return iso_fail_memory(err);
    iso_status status = iso_pullback_axes(p->code, p->images, p->m, a->mean, a->axis, a->deviation, err);
    if (status) return status;
    double all = 0;
    for (size_t k = 0; k < m; k++) all += a->deviation[k] * a->deviation[k];
    a->share = all > 0 ? (a->deviation[0] * a->deviation[0] + a->deviation[1] * a->deviation[1]) / all : 1;
    project(a, p->code, p->images, p->m, a->z);
    project(a, p->mixed, p->images, p->m, a->mixed);
    place_ellipses(a, p);
    return ISO_OK;
}

iso_status iso_picture_codes(const iso_pullback *p, const char *title, const int *group, int names,
                             const char *const *name, const char *path, iso_error *err)
{
    if (p->m < 2)
        return iso_fail(err, ISO_E_UNSUPPORTED,
                        "codes of one dimension make no plane: --plot takes models of two dimensions or more");
    plane a = {0};
    int *gray = NULL;
    char *full = NULL, *note = NULL;
    iso_status status = make_plane(p, &a, err);
    if (status) goto done;
    gray = iso_calloc((size_t)p->images, sizeof *gray);
    full = p->m == 2 ? iso_format("%s: codes of %" PRId64 " image%s", title, p->images, p->images == 1 ? "" : "s")
                     : iso_format("%s: codes of %" PRId64 " image%s, two leading principal directions of %d", title,
                                  p->images, p->images == 1 ? "" : "s", p->m);
    note =
        p->m == 2
            ? iso_format(
                  "Ellipses: where the decoder's metric has the same distance to the centre. Circles of one size: an isometry.")
            : iso_format(
                  "The plane has %.1f %% of the codes' variance. Ellipses: the same distance to the centre by the "
                  "decoder's metric within the plane.",
                  100 * a.share);
    if (!gray || !full || !note) {
        status = iso_fail_memory(err);
        goto done;
    }
    for (int64_t i = 0; i < p->images; i++) gray[i] = names ? group[i] : -1;
    iso_codes spec = {.title = full,
                      .note = note,
                      .count = p->images,
                      .z = a.z,
                      .group = gray,
                      .groups = names,
                      .name = name,
                      .ellipses = a.ellipses,
                      .centre = a.centre,
                      .metric = a.metric};
    status = iso_chart_codes(&spec, path, err);
done:
    plane_free(&a);
    free(gray);
    free(full);
    free(note);
    return status;
}

/* --- sheets */

static uint8_t *cell(uint8_t *sheet, int columns, int row, int column)
{
    return sheet + ((size_t)row * (size_t)columns + (size_t)column) * ISO_PIXELS;
}

iso_status iso_picture_reconstructions(const iso_model *m, const uint8_t *pixels, int64_t n, double mse,
                                       const char *title, const char *path, iso_error *err)
{
    if (n < 1) return iso_fail(err, ISO_E_ARGUMENT, "no images to reconstruct");
    int shown = n < COLUMNS * LINES ? (int)n : COLUMNS * LINES, columns = shown < COLUMNS ? shown : COLUMNS;
    int lines = (shown + columns - 1) / columns;
    const char *row[2 * LINES];
    uint8_t *decoded = iso_calloc((size_t)shown, ISO_PIXELS),
            *sheet = iso_calloc((size_t)(2 * lines * columns), ISO_PIXELS);
    uint8_t *present = iso_calloc((size_t)(2 * lines * columns), 1);
    char *full = iso_format("%s: images and their reconstructions", title);
    char *note = iso_format("Mean squared error %.4g per pixel and channel, values in [-1, 1].", mse);
    iso_status status = decoded && sheet && present && full && note ? ISO_OK : iso_fail_memory(err);
    if (!status) status = iso_pullback_reconstruct(m, pixels, shown, decoded, NULL, err);
    if (status) goto done;
    for (int i = 0; i < 2 * lines; i++) row[i] = i % 2 ? "decoded" : "image";
    for (int i = 0; i < shown; i++) {
        int line = i / columns, column = i % columns;
        memcpy(cell(sheet, columns, 2 * line, column), pixels + (size_t)i * ISO_PIXELS, ISO_PIXELS);
        memcpy(cell(sheet, columns, 2 * line + 1, column), decoded + (size_t)i * ISO_PIXELS, ISO_PIXELS);
        present[2 * line * columns + column] = present[(2 * line + 1) * columns + column] = 1;
    }
    iso_mosaic spec = {.title = full,
                       .note = note,
                       .rows = 2 * lines,
                       .columns = columns,
                       .row = row,
                       .pixels = sheet,
                       .present = present};
    status = iso_chart_mosaic(&spec, path, err);
done:
    free(decoded);
    free(sheet);
    free(present);
    free(full);
    free(note);
    return status;
}

iso_status iso_picture_interpolations(const iso_model *m, const uint8_t *pixels, const iso_pullback *p,
                                      const char *title, const char *path, iso_error *err)
{
    if (p->images < 2)
        return iso_fail(err, ISO_E_NOT_FOUND, "there is one image only: interpolations go from one image to another");
    int pairs = p->images / 2 < PAIRS ? (int)(p->images / 2) : PAIRS, width = STEPS + 2;
    size_t dim = (size_t)p->m;
    char text[STEPS][16];
    const char *column[STEPS + 2] = {[0] = "image", [STEPS + 1] = "image"};
    float *code = iso_calloc((size_t)pairs * STEPS, dim * sizeof *code);
    uint8_t *decoded = iso_calloc((size_t)pairs * STEPS, ISO_PIXELS),
            *sheet = iso_calloc((size_t)(pairs * width), ISO_PIXELS);
    char *full = iso_format("%s: straight lines from code to code", title);
    iso_status status = code && decoded && sheet && full ? ISO_OK : iso_fail_memory(err);
    if (status) goto done;
    for (int s = 0; s < STEPS; s++) {
        snprintf(text[s], sizeof text[s], "%.3g", (double)s / (STEPS - 1));
        column[s + 1] = text[s];
    }
    for (size_t i = 0; i < (size_t)pairs * STEPS; i++) {
        const float *from = p->code + i / STEPS * 2 * dim, *to = from + dim;
        float t = (float)(i % STEPS) / (STEPS - 1);
        for (size_t k = 0; k < dim; k++) code[i * dim + k] = (1 - t) * from[k] + t * to[k];
    }
    if ((status = iso_pullback_decode(m, code, (int64_t)pairs * STEPS, decoded, err))) goto done;
    for (int r = 0; r < pairs; r++) {
        memcpy(cell(sheet, width, r, 0), pixels + (size_t)(2 * r) * ISO_PIXELS, ISO_PIXELS);
        memcpy(cell(sheet, width, r, 1), decoded + (size_t)(r * STEPS) * ISO_PIXELS, STEPS * (size_t)ISO_PIXELS);
        memcpy(cell(sheet, width, r, width - 1), pixels + (size_t)(2 * r + 1) * ISO_PIXELS, ISO_PIXELS);
    }
    iso_mosaic spec = {.title = full,
                       .note = "Between the images: what is decoded on the way, from one code (0) to the other (1).",
                       .rows = pairs,
                       .columns = width,
                       .column = column,
                       .pixels = sheet};
    status = iso_chart_mosaic(&spec, path, err);
done:
    free(code);
    free(decoded);
    free(sheet);
    free(full);
    return status;
}

/* Row k of `code` [axes, OFFSETS, m]: from the first image's code along axis k. */
static void walk(const iso_pullback *p, int axes, const double *axis, const double *deviation, float *code)
{
    for (int k = 0; k < axes; k++)
        for (int s = 0; s < OFFSETS; s++) {
            double far = DEVIATIONS * (2.0 * s / (OFFSETS - 1) - 1) * deviation[k];
            float *to = code + ((size_t)k * OFFSETS + (size_t)s) * (size_t)p->m;
            for (int i = 0; i < p->m; i++)
                to[i] = (float)((double)p->code[i] + far * axis[(size_t)k * (size_t)p->m + (size_t)i]);
        }
}

iso_status iso_picture_axes(const iso_model *m, const iso_pullback *p, const char *title, const char *path,
                            iso_error *err)
{
    if (p->images < 2)
        return iso_fail(err, ISO_E_NOT_FOUND, "there is one image only: the codes' directions take two or more");
    int axes = p->m < AXES ? p->m : AXES;
    size_t dim = (size_t)p->m;
    char row_text[AXES][40], column_text[OFFSETS][16];
    const char *row[AXES], *column[OFFSETS];
    double *mean = iso_calloc(dim, sizeof *mean), *axis = iso_calloc(dim * dim, sizeof *axis),
           *deviation = iso_calloc(dim, sizeof *deviation);
    float *code = iso_calloc((size_t)(axes * OFFSETS), dim * sizeof *code);
    uint8_t *decoded = iso_calloc((size_t)(axes * OFFSETS), ISO_PIXELS);
    char *full = iso_format("%s: along the leading principal directions of the codes", title);
    iso_status status = mean && axis && deviation && code && decoded && full ? ISO_OK : iso_fail_memory(err);
    if (!status) status = iso_pullback_axes(p->code, p->images, p->m, mean, axis, deviation, err);
    if (status) goto done;
    walk(p, axes, axis, deviation, code);
    if ((status = iso_pullback_decode(m, code, (int64_t)axes * OFFSETS, decoded, err))) goto done;
    for (int k = 0; k < axes; k++) {
        snprintf(row_text[k], sizeof row_text[k], "%d (σ %.3g)", k + 1, deviation[k]);
        row[k] = row_text[k];
    }
    for (int s = 0; s < OFFSETS; s++) {
        snprintf(column_text[s], sizeof column_text[s], "%+.3gσ", DEVIATIONS * (2.0 * s / (OFFSETS - 1) - 1));
        column[s] = 2 * s == OFFSETS - 1 ? "0" : column_text[s];
    }
    iso_mosaic spec = {
        .title = full,
        .note =
            "In the middle: one image, decoded. To either side: its code moved by standard deviations (σ) of all codes.",
        .rows = axes,
        .columns = OFFSETS,
        .row = row,
        .column = column,
        .pixels = decoded};
    status = iso_chart_mosaic(&spec, path, err);
done:
    free(mean);
    free(axis);
    free(deviation);
    free(code);
    free(decoded);
    free(full);
    return status;
}
