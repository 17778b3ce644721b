/* chart.c: the picture of a chart, its texts, marks and legend. */
#include "eval/chart_parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/text.h"

const double iso_ink[3] = {0.13, 0.14, 0.16}, iso_soft[3] = {0.40, 0.42, 0.45}, iso_grid[3] = {0.89, 0.895, 0.90};

static const struct {
    double size, height;
    bool bold;
    const double *color;
} fonts[] = {
    [ISO_FONT_TITLE] = {16, 21, true, iso_ink},  [ISO_FONT_HEADING] = {13, 18, true, iso_ink},
    [ISO_FONT_LABEL] = {12, 16, false, iso_ink}, [ISO_FONT_TICK] = {11, 14, false, iso_ink},
    [ISO_FONT_SMALL] = {9, 12, false, iso_ink},  [ISO_FONT_NOTE] = {10.5, 14, false, iso_soft},
};

enum {
    LINE = 400,
    LONGEST = 2000,
    SIDE = 32000
}; /* bytes looked at of a line, of a text; pixels of a side (cairo: 32767) */

/* ---- the picture ---- */

static iso_status cairo_fail(iso_error *err, cairo_status_t status, const char *path)
{
    if (status == CAIRO_STATUS_NO_MEMORY) return iso_fail_memory(err);
    if (status == CAIRO_STATUS_WRITE_ERROR) return iso_fail_errno(err, "cannot write %s", path);
    return iso_fail(err, ISO_E_INTERNAL, "cannot draw the chart: %s", cairo_status_to_string(status));
}

static iso_status open_surface(iso_canvas *v, int width, int height, iso_error *err)
{
    iso_canvas_close(v);
    v->surface = cairo_image_surface_create(CAIRO_FORMAT_RGB24, width, height);
    v->c = cairo_create(v->surface);
    cairo_status_t status = cairo_status(v->c);
    if (status != CAIRO_STATUS_SUCCESS) {
        iso_canvas_close(v);
        return cairo_fail(err, status, "");
    }
    /* Widths must not depend on the size at which a letter is rounded to pixels. */
    cairo_font_options_t *options = cairo_font_options_create();
    cairo_font_options_set_hint_metrics(options, CAIRO_HINT_METRICS_OFF);
    cairo_font_options_set_hint_style(options, CAIRO_HINT_STYLE_NONE);
    cairo_font_options_set_antialias(options, CAIRO_ANTIALIAS_GRAY);
    cairo_set_font_options(v->c, options);
    cairo_font_options_destroy(options);
    cairo_scale(v->c, ISO_CHART_SCALE, ISO_CHART_SCALE);
    cairo_set_source_rgb(v->c, 1, 1, 1);
    cairo_paint(v->c);
    return ISO_OK;
}

iso_status iso_canvas_measure(iso_canvas *v, iso_error *err) { return open_surface(v, 1, 1, err); }

iso_status iso_canvas_open(iso_canvas *v, double width, double height, iso_error *err)
{
    double w = ceil(width) * ISO_CHART_SCALE, h = ceil(height) * ISO_CHART_SCALE;
    if (!(w <= SIDE && h <= SIDE))
        return iso_fail(
            err, ISO_E_ARGUMENT,
            "too much for one chart: it would have %.0f x %.0f pixels, and %d a side is the most; draw it in parts", w,
            h, SIDE);
    return open_surface(v, (int)w, (int)h, err);
}

static cairo_status_t write_bytes(void *closure, const unsigned char *data, unsigned n)
{
    return fwrite(data, 1, n, closure) == n ? CAIRO_STATUS_SUCCESS : CAIRO_STATUS_WRITE_ERROR;
}

iso_status iso_canvas_write(iso_canvas *v, const char *path, iso_error *err)
{
    iso_file *f = NULL;
    cairo_status_t drawn = cairo_status(v->c);
    if (v->memory) return iso_fail_memory(err);
    if (drawn != CAIRO_STATUS_SUCCESS) return cairo_fail(err, drawn, path);
    iso_status st = iso_file_create(path, &f, err);
    if (st != ISO_OK) return st;
    cairo_status_t written = cairo_surface_write_to_png_stream(v->surface, write_bytes, iso_file_stream(f));
    if (written == CAIRO_STATUS_SUCCESS) return iso_file_commit(f, err);
    iso_file_abort(f);
    return cairo_fail(err, written, path);
}

void iso_canvas_close(iso_canvas *v)
{
    if (v->c) cairo_destroy(v->c);
    if (v->surface) cairo_surface_destroy(v->surface);
    v->c = NULL;
    v->surface = NULL;
}

void iso_canvas_line(iso_canvas *v, double x0, double y0, double x1, double y1, double width, const double color[3])
{
    cairo_set_source_rgb(v->c, color[0], color[1], color[2]);
    cairo_set_line_width(v->c, width);
    cairo_move_to(v->c, x0, y0);
    cairo_line_to(v->c, x1, y1);
    cairo_stroke(v->c);
}

/* ---- texts ---- */

double iso_font_height(iso_font font) { return fonts[font].height; }

void iso_canvas_font(iso_canvas *v, iso_font font)
{
    cairo_select_font_face(v->c, "sans-serif", CAIRO_FONT_SLANT_NORMAL,
                           fonts[font].bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
    cairo_set_font_size(v->c, fonts[font].size);
    cairo_set_source_rgb(v->c, fonts[font].color[0], fonts[font].color[1], fonts[font].color[2]);
}

static double advance(iso_canvas *v, const char *text)
{
    cairo_text_extents_t e;
    cairo_text_extents(v->c, text, &e);
    return e.x_advance;
}

/* Readable text of any bytes, of at most `limit` and an ellipsis; white space is spaces. Fresh memory or NULL. */
static char *readable(iso_canvas *v, const char *bytes, size_t limit)
{
    size_t n = bytes ? strlen(bytes) : 0;
    char *copy = iso_strndup(bytes ? bytes : "", n), *text = NULL, *cut = NULL;
    if (copy) {
        for (size_t i = 0; i < n; i++)
            if (strchr("\t\n\v\f\r", copy[i])) copy[i] = ' ';
        text = iso_text_printable(copy);
        cut = text ? iso_text_middle(text, limit) : NULL;
    }
    free(copy);
    free(text);
    v->memory = v->memory || !cut;
    return cut;
}

/* Cuts the middle out of text until it is at most `room` wide in the current font; takes text, returns fresh memory or NULL. */
static char *fit(iso_canvas *v, char *text, double room)
{
    if (!text || advance(v, text) <= room) return text;
    size_t fits = 2, wide = strlen(text); /* bytes kept; two bytes are always taken to fit */
    char *best = iso_text_middle(text, fits);
    while (best && wide - fits > 1) {
        size_t keep = fits + (wide - fits) / 2;
        char *cut = iso_text_middle(text, keep);
        if (cut && advance(v, cut) <= room) {
            free(best);
            best = cut;
            fits = keep;
            continue;
        }
        if (!cut) v->memory = true;
        free(cut);
        wide = keep;
    }
    v->memory = v->memory || !best;
    free(text);
    return best;
}

double iso_canvas_width(iso_canvas *v, iso_font font, const char *bytes, double room)
{
    iso_canvas_font(v, font);
    char *text = fit(v, readable(v, bytes, LINE), room);
    double width = text ? advance(v, text) : 0;
    free(text);
    return width;
}

static void show(iso_canvas *v, double x, double y, iso_align align, const char *text)
{
    double width = align == ISO_LEFT ? 0 : advance(v, text);
    cairo_move_to(v->c, x - (align == ISO_RIGHT ? width : align == ISO_CENTRE ? width / 2 : 0), y);
    cairo_show_text(v->c, text);
}

double iso_canvas_text(iso_canvas *v, iso_font font, double x, double y, iso_align align, const char *bytes,
                       double room)
{
    iso_canvas_font(v, font);
    char *text = fit(v, readable(v, bytes, LINE), room);
    double width = text ? advance(v, text) : 0;
    if (text) show(v, x, y, align, text);
    free(text);
    return width;
}

/* How many bytes of text go on a line: up to a space, or behind one of _ + / - & where there is none in the line, or what
 * there is room for. At least one character. */
static size_t line_length(iso_canvas *v, char *text, double room)
{
    size_t n = strlen(text), fits = 0, soft = 0;
    for (size_t i = 1; i <= n; i++) {
        if (((unsigned char)text[i] & 0xc0) == 0x80) continue;
        char kept = text[i];
        text[i] = '\0';
        bool wide = advance(v, text) > room;
        text[i] = kept;
        if (wide && fits) break;
        fits = i;
        if (kept == ' ' || strchr("_+/-&", text[i - 1])) soft = i;
        if (wide) break;
    }
    if (fits == n) return n;
    if (soft == 0) return fits;
    size_t space = fits; /* a space is a better place than the other signs */
    while (space > 0 && text[space] != ' ') space--;
    return space > fits / 3 ? space : soft;
}

double iso_canvas_paragraph(iso_canvas *v, iso_font font, double x, double y, double room, int lines, iso_align align,
                            const char *bytes, bool draw)
{
    if (!bytes || !*bytes) return 0;
    iso_canvas_font(v, font);
    char *text = readable(v, bytes, LONGEST), *rest = text;
    int used = 0;
    while (rest && *rest && used < lines) {
        bool last = used == lines - 1;
        size_t n = last ? strlen(rest) : line_length(v, rest, room);
        char *line = iso_strndup(rest, n);
        if (!line) v->memory = true;
        if (last) line = fit(v, line, room);
        if (line && draw) show(v, x, y + (used + 0.78) * fonts[font].height, align, line);
        free(line);
        used++;
        rest += n;
        rest += strspn(rest, " ");
    }
    free(text);
    return used * fonts[font].height;
}

/* ---- marks and colours ---- */

void iso_series_color(int series, double rgb[3])
{
    /* Okabe and Ito's colours in an order in which neighbours differ in lightness; their black as dark gray. */
    static const double base[8][3] = {
        {0.000, 0.447, 0.698}, {0.902, 0.624, 0.000}, {0.000, 0.620, 0.451}, {0.800, 0.475, 0.655},
        {0.337, 0.706, 0.914}, {0.835, 0.369, 0.000}, {0.230, 0.240, 0.260}, {0.941, 0.894, 0.259},
    };
    int variant = series < 0 ? 0 : series / 8 % 3;
    for (int i = 0; i < 3; i++) {
        double c = series < 0 ? 0.66 : base[series % 8][i];
        rgb[i] = variant == 0 ? c : variant == 1 ? c * 0.5 : 0.5 + c * 0.5;
    }
}

static void polygon(cairo_t *c, int n, const double (*point)[2], double x, double y, double r)
{
    cairo_new_path(c);
    for (int i = 0; i < n; i++) cairo_line_to(c, x + point[i][0] * r, y + point[i][1] * r);
    cairo_close_path(c);
}

static void mark_path(cairo_t *c, int shape, double x, double y, double r)
{
    static const double square[][2] = {{-0.88, -0.88}, {0.88, -0.88}, {0.88, 0.88}, {-0.88, 0.88}};
    static const double up[][2] = {{0, -1.2}, {1.1, 0.8}, {-1.1, 0.8}},
                        down[][2] = {{0, 1.2}, {1.1, -0.8}, {-1.1, -0.8}};
    static const double diamond[][2] = {{0, -1.25}, {1.25, 0}, {0, 1.25}, {-1.25, 0}};
    static const double plus[][2] = {{-0.4, -1.2}, {0.4, -1.2}, {0.4, -0.4}, {1.2, -0.4}, {1.2, 0.4},   {0.4, 0.4},
                                     {0.4, 1.2},   {-0.4, 1.2}, {-0.4, 0.4}, {-1.2, 0.4}, {-1.2, -0.4}, {-0.4, -0.4}};
    static const double star[][2] = {{0, -1.4}, {0.35, -0.48}, {1.33, -0.43}, {0.57, 0.19},   {0.82, 1.13},
                                     {0, 0.6},  {-0.82, 1.13}, {-0.57, 0.19}, {-1.33, -0.43}, {-0.35, -0.48}};
    switch (shape) {
    case 1: polygon(c, 4, square, x, y, r); break;
    case 2: polygon(c, 3, up, x, y, r); break;
    case 3: polygon(c, 4, diamond, x, y, r); break;
    case 4: polygon(c, 3, down, x, y, r); break;
    case 5: polygon(c, 12, plus, x, y, r); break;
    case 6: polygon(c, 10, star, x, y, r); break;
    default:
        cairo_new_path(c);
        cairo_arc(c, x, y, r, 0, 2 * M_PI);
        cairo_close_path(c);
    }
}

void iso_canvas_mark(iso_canvas *v, int series, double x, double y, double r)
{
    double color[3];
    iso_series_color(series, color);
    mark_path(v->c, series < 0 ? 0 : series % ISO_CHART_MARKS, x, y, r);
    cairo_set_source_rgb(v->c, color[0], color[1], color[2]);
    cairo_fill_preserve(v->c);
    /* A darker edge: light colours stand out from white, and touching marks from one another. */
    cairo_set_source_rgb(v->c, color[0] * 0.55, color[1] * 0.55, color[2] * 0.55);
    cairo_set_line_width(v->c, r < 3 ? 0.35 : 0.7);
    cairo_stroke(v->c);
}

/* ---- legend ---- */

enum { ENTRY_GAP = 20, ROW = 18 };

static void draw_key(iso_canvas *v, const iso_legend *item, double x, double y)
{
    static const double dash[] = {4, 2.5};
    double color[3], middle = x + ISO_CHART_KEY / 2.0 - 4;
    iso_series_color(item->series, color);
    switch (item->key) {
    case ISO_KEY_BAR:
        cairo_rectangle(v->c, x + 4, y - 5.5, 14, 11);
        cairo_set_source_rgb(v->c, color[0], color[1], color[2]);
        cairo_fill(v->c);
        break;
    case ISO_KEY_LINE: iso_canvas_line(v, x, y, x + ISO_CHART_KEY - 8, y, 1.5, color); /* fall through */
    case ISO_KEY_MARK: iso_canvas_mark(v, item->series, middle, y, 4); break;
    case ISO_KEY_DASH:
        cairo_set_dash(v->c, dash, 2, 0);
        iso_canvas_line(v, x, y, x + ISO_CHART_KEY - 7, y, 1.25, iso_ink);
        cairo_set_dash(v->c, NULL, 0, 0);
        break;
    case ISO_KEY_ELLIPSE:
        cairo_save(v->c);
        cairo_translate(v->c, middle, y);
        cairo_scale(v->c, 9, 4.5);
        cairo_new_path(v->c);
        cairo_arc(v->c, 0, 0, 1, 0, 2 * M_PI);
        cairo_restore(v->c);
        cairo_set_source_rgb(v->c, iso_ink[0], iso_ink[1], iso_ink[2]);
        cairo_set_line_width(v->c, 1);
        cairo_stroke(v->c);
        break;
    }
}

double iso_canvas_legend(iso_canvas *v, const iso_legend *item, int count, double x, double y, double width, double longest,
                         int rows, bool draw)
{
    char more[40];
    double cell = 0;
    if (count < 1) return 0;
    for (int i = 0; i < count && cell < ISO_CHART_KEY + longest; i++)
        cell = fmax(cell, ISO_CHART_KEY + iso_canvas_width(v, ISO_FONT_LABEL, item[i].name, longest));
    cell = fmin(cell, width);
    int columns = (int)((width + ENTRY_GAP) / (cell + ENTRY_GAP));
    if (columns < 1) columns = 1;
    int places = columns * rows, shown = count <= places ? count : places - 1; /* the last place says how many more */
    for (int i = 0; i < shown && draw; i++) {
        double ex = x + i % columns * (cell + ENTRY_GAP), ey = y + i / columns * ROW + ROW / 2.0;
        draw_key(v, &item[i], ex, ey);
        iso_canvas_text(v, ISO_FONT_LABEL, ex + ISO_CHART_KEY, ey + 4.2, ISO_LEFT, item[i].name, cell - ISO_CHART_KEY);
    }
    if (shown < count && draw) {
        snprintf(more, sizeof more, "+ %d more", count - shown);
        iso_canvas_text(v, ISO_FONT_LABEL, x + shown % columns * (cell + ENTRY_GAP),
                        y + (shown / columns + 0.5) * ROW + 4.2, ISO_LEFT, more, cell);
    }
    int filled = (shown < count ? shown + 1 : count);
    return (filled + columns - 1) / columns * (double)ROW;
}
