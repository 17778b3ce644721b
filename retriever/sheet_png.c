/* sheet_png.c: the sheet as a picture. Lengths are pixels. */
#include "retriever/sheet_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/text.h"

enum {
    MARGIN = 28,
    GAP = 16,
    CONTENT = 864,          /* 5 tiles of 160, 8 of 94 or 10 of 72, with gaps */
    WIDTH = CONTENT + 2 * MARGIN,
    LARGE = 160, FEW = 25,  /* up to so many results are shown large */
    SMALL = 94,
    EXAMPLE = 72,
    HEADER = 62,            /* title and note */
    HEADING = 26,           /* of a section */
    SECTION = 22,           /* space before it */
    CAPTION = 36            /* below a result */
};

typedef struct layout {
    int side, columns;
    size_t results;
    int height;
} layout;

static const double ink[3] = {0.13, 0.14, 0.16}, soft[3] = {0.43, 0.45, 0.49}, red[3] = {0.72, 0.15, 0.15};

static layout plan(const iso_sheet *s)
{
    layout l = {.results = s->results < ISO_SHEET_RESULTS ? s->results : ISO_SHEET_RESULTS};
    l.side = l.results <= FEW ? LARGE : SMALL;
    l.columns = (CONTENT + GAP) / (l.side + GAP);
    int rows = (int)((l.results + (size_t)l.columns - 1) / (size_t)l.columns);
    l.height = MARGIN + HEADER + MARGIN;
    if (s->likes) l.height += HEADING + EXAMPLE + SECTION;
    if (s->unlikes) l.height += HEADING + EXAMPLE + SECTION;
    l.height += HEADING + (rows ? rows * (l.side + CAPTION + GAP) - GAP : GAP);
    return l;
}

static void use_font(cairo_t *c, double size, bool bold, const double color[3])
{
    cairo_select_font_face(c, "sans-serif", CAIRO_FONT_SLANT_NORMAL, bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
    cairo_set_font_size(c, size);
    cairo_set_source_rgb(c, color[0], color[1], color[2]);
}

static double text_width(cairo_t *c, const char *text)
{
    cairo_text_extents_t e;
    cairo_text_extents(c, text, &e);
    return e.x_advance;
}

/* Draws bytes as readable text; what is wider than `room` loses its middle, since names differ at both ends. */
static double draw_text(cairo_t *c, double x, double y, const char *bytes, double room)
{
    char *text = iso_text_printable(bytes), *cut = NULL;
    double width = 0;
    if (!text) return 0;
    size_t n = strlen(text);
    for (size_t keep = n; text_width(c, cut ? cut : text) > room && keep > 2;) {
        keep = keep > 400 ? 400 : keep - 1;
        free(cut);
        cut = iso_text_middle(text, keep);
        if (!cut) break;
    }
    cairo_move_to(c, x, y);
    cairo_show_text(c, cut ? cut : text);
    width = text_width(c, cut ? cut : text);
    free(cut);
    free(text);
    return width;
}

static void rounded(cairo_t *c, double x, double y, double side, double r)
{
    cairo_new_sub_path(c);
    cairo_arc(c, x + side - r, y + r, r, -M_PI / 2, 0);
    cairo_arc(c, x + side - r, y + side - r, r, 0, M_PI / 2);
    cairo_arc(c, x + r, y + side - r, r, M_PI / 2, M_PI);
    cairo_arc(c, x + r, y + r, r, M_PI, 3 * M_PI / 2);
    cairo_close_path(c);
}

static void draw_tile(cairo_t *c, double x, double y, int side, cairo_surface_t *picture, const double edge[3])
{
    rounded(c, x, y, side, side / 20.0 + 2);
    if (picture) {
        cairo_set_source_surface(c, picture, x, y);
        cairo_fill_preserve(c);
    } else {
        cairo_set_source_rgb(c, 0.86, 0.87, 0.88);
        cairo_fill_preserve(c);
    }
    cairo_set_source_rgba(c, edge ? edge[0] : 0, edge ? edge[1] : 0, edge ? edge[2] : 0, edge ? 1 : 0.15);
    cairo_set_line_width(c, edge ? 2 : 1);
    cairo_stroke(c);
    if (picture) return;
    use_font(c, side >= LARGE ? 13 : 10, false, soft);
    const char *words[2] = {"no picture", "here now"};
    for (int i = 0; i < 2; i++) {
        cairo_move_to(c, x + (side - text_width(c, words[i])) / 2, y + side / 2.0 + (i ? 12 : -3));
        cairo_show_text(c, words[i]);
    }
}

/* A heading and a row of examples; returns the y below. */
static double draw_examples(cairo_t *c, double y, const char *heading, const iso_sheet_image *images, size_t n, cairo_surface_t **tiles, const double edge[3])
{
    char more[48];
    size_t shown = n <= ISO_SHEET_EXAMPLES ? n : ISO_SHEET_EXAMPLES - 1; /* the last place says how many more */
    (void)images;
    use_font(c, 14, true, ink);
    double x = MARGIN + draw_text(c, MARGIN, y + 13, heading, CONTENT - 80);
    snprintf(more, sizeof more, "%zu", n);
    use_font(c, 14, false, soft);
    draw_text(c, x + 8, y + 13, more, 70);
    y += HEADING;
    for (size_t i = 0; i < shown; i++) draw_tile(c, MARGIN + (double)i * (EXAMPLE + GAP), y, EXAMPLE, tiles[i], edge);
    if (shown < n) {
        snprintf(more, sizeof more, "+ %zu more", n - shown);
        use_font(c, 12, false, soft);
        draw_text(c, MARGIN + (double)shown * (EXAMPLE + GAP), y + EXAMPLE / 2.0 + 4, more, EXAMPLE);
    }
    return y + EXAMPLE + SECTION;
}

static void draw_results(cairo_t *c, double y, const iso_sheet *s, const layout *l, cairo_surface_t **tiles)
{
    char text[96];
    use_font(c, 14, true, ink);
    double x = MARGIN + draw_text(c, MARGIN, y + 13, "Answers", CONTENT);
    if (l->results < s->results) snprintf(text, sizeof text, "the first %zu of %zu", l->results, s->results);
    else snprintf(text, sizeof text, "%zu", s->results);
    use_font(c, 14, false, soft);
    draw_text(c, x + 8, y + 13, text, CONTENT - 100);
    y += HEADING;
    for (size_t i = 0; i < l->results; i++) {
        double tx = MARGIN + (double)(i % (size_t)l->columns) * (l->side + GAP);
        double ty = y + (double)(i / (size_t)l->columns) * (l->side + CAPTION + GAP);
        draw_tile(c, tx, ty, l->side, tiles[i], NULL);
        snprintf(text, sizeof text, "%zu", i + 1);
        use_font(c, 13, true, ink);
        draw_text(c, tx + 1, ty + l->side + 16, text, l->side);
        snprintf(text, sizeof text, "%.3f", s->result[i].score);
        use_font(c, 13, false, ink);
        draw_text(c, tx + l->side - 1 - text_width(c, text), ty + l->side + 16, text, l->side);
        use_font(c, 11, false, soft);
        draw_text(c, tx + 1, ty + l->side + 31, s->result[i].name, l->side - 1);
    }
}

/* The pictures of a section, at most `limit`. */
static iso_status load(const iso_sheet_image *images, size_t n, size_t limit, int side, cairo_surface_t ***tiles, size_t *count, iso_error *err)
{
    *count = n < limit ? n : limit;
    *tiles = iso_calloc(*count, sizeof **tiles);
    if (!*tiles) return iso_fail_memory(err);
    return iso_tiles_load(images, *count, side, *tiles, err);
}

static cairo_status_t write_bytes(void *closure, const unsigned char *data, unsigned n)
{
    return fwrite(data, 1, n, closure) == n ? CAIRO_STATUS_SUCCESS : CAIRO_STATUS_WRITE_ERROR;
}

static iso_status draw(const iso_sheet *s, const layout *l, cairo_surface_t **tiles[3], FILE *out, iso_error *err)
{
    double y = MARGIN;
    cairo_surface_t *surface = cairo_image_surface_create(CAIRO_FORMAT_RGB24, WIDTH, l->height);
    cairo_t *c = cairo_create(surface);
    cairo_set_source_rgb(c, 0.985, 0.985, 0.98);
    cairo_paint(c);
    use_font(c, 22, true, ink);
    draw_text(c, MARGIN, y + 20, s->title, CONTENT);
    use_font(c, 13, false, soft);
    if (s->note) draw_text(c, MARGIN, y + 42, s->note, CONTENT);
    y += HEADER;
    if (s->likes) y = draw_examples(c, y, "Examples", s->like, s->likes, tiles[0], NULL);
    if (s->unlikes) y = draw_examples(c, y, "Not like these", s->unlike, s->unlikes, tiles[1], red);
    draw_results(c, y, s, l, tiles[2]);
    cairo_status_t status = cairo_status(c);
    if (status == CAIRO_STATUS_SUCCESS) status = cairo_surface_write_to_png_stream(surface, write_bytes, out);
    cairo_destroy(c);
    cairo_surface_destroy(surface);
    return status == CAIRO_STATUS_SUCCESS ? ISO_OK : iso_cairo_fail(err, status);
}

iso_status iso_sheet_png(const iso_sheet *s, FILE *out, iso_error *err)
{
    cairo_surface_t **tiles[3] = {NULL, NULL, NULL};
    size_t count[3] = {0, 0, 0};
    layout l = plan(s);
    iso_status st = load(s->like, s->likes, ISO_SHEET_EXAMPLES, EXAMPLE, &tiles[0], &count[0], err);
    if (st == ISO_OK) st = load(s->unlike, s->unlikes, ISO_SHEET_EXAMPLES, EXAMPLE, &tiles[1], &count[1], err);
    if (st == ISO_OK) st = load(s->result, s->results, l.results, l.side, &tiles[2], &count[2], err);
    if (st == ISO_OK) st = draw(s, &l, tiles, out, err);
    for (int i = 0; i < 3; i++) {
        if (tiles[i]) iso_tiles_free(tiles[i], count[i]);
        free(tiles[i]);
    }
    return st;
}
