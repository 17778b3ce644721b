/* chart_mosaic.c: rows of pictures; each of their pixels is one square of the file's. */
#include "eval/chart.h"
#include "eval/chart_parts.h"

#include <math.h>
#include <string.h>

enum { SIDE = 64, GAP = 4, ROW_NAME = 150, ROW_LINES = 3, COLUMN_LINES = 2, NARROWEST = 320 };

typedef struct layout {
    double left, top, title, names, note, width, height;
} layout;

static bool is_present(const iso_mosaic *s, int row, int column)
{
    return !s->present || s->present[(size_t)row * (size_t)s->columns + (size_t)column];
}

static bool any_present(const iso_mosaic *s)
{
    for (int i = 0; i < s->rows; i++)
        for (int j = 0; j < s->columns; j++)
            if (is_present(s, i, j)) return true;
    return false;
}

static void plan(iso_canvas *v, const iso_mosaic *s, layout *l)
{
    double name = 0;
    for (int i = 0; s->row && i < s->rows; i++)
        name = fmax(name, iso_canvas_width(v, ISO_FONT_LABEL, s->row[i], ROW_NAME));
    for (int j = 0; s->column && j < s->columns; j++)
        l->names = fmax(l->names, iso_canvas_paragraph(v, ISO_FONT_TICK, 0, 0, SIDE, COLUMN_LINES, ISO_CENTRE,
                                                       s->column[j], false));
    if (l->names > 0) l->names += 3;
    l->left = ceil(ISO_CHART_MARGIN + (name > 0 ? name + 10 : 0));
    l->width = fmax(l->left + (double)s->columns * (SIDE + GAP) - GAP + ISO_CHART_MARGIN, NARROWEST);
    double room = l->width - 2 * ISO_CHART_MARGIN;
    l->title = iso_canvas_paragraph(v, ISO_FONT_TITLE, 0, 0, room, 2, ISO_LEFT, s->title, false);
    if (l->title > 0) l->title += 8;
    l->note = iso_canvas_paragraph(v, ISO_FONT_NOTE, 0, 0, room, 8, ISO_LEFT, s->note, false);
    l->top = ceil(ISO_CHART_MARGIN + l->title + l->names);
    l->height = l->top + (double)s->rows * (SIDE + GAP) - GAP + (l->note > 0 ? 8 + l->note : 0) + ISO_CHART_MARGIN;
}

/* Straight into the picture's memory, past all filters. x, y: in pixels. */
static void put_tile(uint8_t *data, int stride, int x, int y, const uint8_t *rgb)
{
    for (int i = 0; i < SIDE * ISO_CHART_SCALE; i++)
        for (int j = 0; j < SIDE * ISO_CHART_SCALE; j++) {
            const uint8_t *p = rgb + (i / ISO_CHART_SCALE * SIDE + j / ISO_CHART_SCALE) * 3;
            uint32_t pixel = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
            memcpy(data + (size_t)(y + i) * (size_t)stride + (size_t)(x + j) * 4, &pixel, 4);
        }
}

static void put_tiles(iso_canvas *v, const iso_mosaic *s, const layout *l)
{
    cairo_surface_flush(v->surface);
    uint8_t *data = cairo_image_surface_get_data(v->surface);
    int stride = cairo_image_surface_get_stride(v->surface);
    for (int i = 0; i < s->rows; i++)
        for (int j = 0; j < s->columns; j++) {
            const uint8_t *tile = s->pixels + ((size_t)i * (size_t)s->columns + (size_t)j) * SIDE * SIDE * 3;
            int x = ((int)l->left + j * (SIDE + GAP)) * ISO_CHART_SCALE,
                y = ((int)l->top + i * (SIDE + GAP)) * ISO_CHART_SCALE;
            if (is_present(s, i, j)) put_tile(data, stride, x, y, tile);
        }
    cairo_surface_mark_dirty(v->surface);
}

static void draw(iso_canvas *v, const iso_mosaic *s, const layout *l)
{
    double room = l->width - 2 * ISO_CHART_MARGIN;
    iso_canvas_paragraph(v, ISO_FONT_TITLE, ISO_CHART_MARGIN, ISO_CHART_MARGIN, room, 2, ISO_LEFT, s->title, true);
    for (int j = 0; s->column && j < s->columns; j++) {
        double x = l->left + j * (SIDE + GAP) + SIDE / 2.0;
        double height =
            iso_canvas_paragraph(v, ISO_FONT_TICK, 0, 0, SIDE, COLUMN_LINES, ISO_CENTRE, s->column[j], false);
        iso_canvas_paragraph(v, ISO_FONT_TICK, x, l->top - 3 - height, SIDE, COLUMN_LINES, ISO_CENTRE, s->column[j],
                             true);
    }
    for (int i = 0; s->row && i < s->rows; i++) {
        double y = l->top + i * (SIDE + GAP) + SIDE / 2.0, width = l->left - 10 - ISO_CHART_MARGIN;
        double height = iso_canvas_paragraph(v, ISO_FONT_LABEL, 0, 0, width + 1, ROW_LINES, ISO_LEFT, s->row[i], false);
        iso_canvas_paragraph(v, ISO_FONT_LABEL, ISO_CHART_MARGIN, y - height / 2, width + 1, ROW_LINES, ISO_LEFT,
                             s->row[i], true);
    }
    iso_canvas_paragraph(v, ISO_FONT_NOTE, ISO_CHART_MARGIN, l->top + s->rows * (SIDE + GAP) - GAP + 8, room, 8,
                         ISO_LEFT, s->note, true);
    put_tiles(v, s, l);
}

iso_status iso_chart_mosaic(const iso_mosaic *s, const char *path, iso_error *err)
{
    iso_canvas v = {0};
    layout l = {0};
    if (s->rows < 1 || s->columns < 1 || !s->pixels || !any_present(s))
        return iso_fail(err, ISO_E_ARGUMENT, "nothing to draw: there are no pictures");
    iso_status st = iso_canvas_measure(&v, err);
    if (st == ISO_OK) {
        plan(&v, s, &l);
        st = iso_canvas_open(&v, l.width, l.height, err);
    }
    if (st == ISO_OK) {
        draw(&v, s, &l);
        st = iso_canvas_write(&v, path, err);
    }
    iso_canvas_close(&v);
    return st;
}
