/* sheet.c: what both kinds of sheets need, and which of them a path asks for. */
#include "retriever/sheet_parts.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/file.h"
#include "base/progress.h"
#include "indexer/image.h"

iso_status iso_cairo_fail(iso_error *err, cairo_status_t status)
{
    if (status == CAIRO_STATUS_NO_MEMORY) return iso_fail_memory(err);
    if (status == CAIRO_STATUS_WRITE_ERROR) return iso_fail_errno(err, "cannot write the contact sheet");
    return iso_fail(err, ISO_E_INTERNAL, "cannot draw the contact sheet: %s", cairo_status_to_string(status));
}

static cairo_surface_t *to_surface(const uint8_t *rgb, int side)
{
    cairo_surface_t *s = cairo_image_surface_create(CAIRO_FORMAT_RGB24, side, side);
    if (cairo_surface_status(s) != CAIRO_STATUS_SUCCESS) {
        cairo_surface_destroy(s);
        return NULL;
    }
    uint8_t *data = cairo_image_surface_get_data(s);
    int stride = cairo_image_surface_get_stride(s);
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++) {
            const uint8_t *p = rgb + ((size_t)y * (size_t)side + (size_t)x) * 3;
            uint32_t pixel = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
            memcpy(data + (size_t)y * (size_t)stride + (size_t)x * 4, &pixel, 4);
        }
    cairo_surface_mark_dirty(s);
    return s;
}

iso_status iso_tiles_load(const iso_sheet_image *images, size_t n, int side, cairo_surface_t **out, iso_error *err)
{
    iso_error short_of = {0}; /* memory, or open files */
#pragma omp parallel for schedule(dynamic)
    for (size_t i = 0; i < n; i++) {
        uint8_t *rgb = NULL;
        iso_error why;
        out[i] = NULL;
        if (!images[i].file || iso_interrupted()) continue;
        iso_status st = iso_image_thumbnail(images[i].file, side, &rgb, &why);
        if (st == ISO_OK && !(out[i] = to_surface(rgb, side))) st = iso_fail_memory(&why);
        free(rgb);
        if (st == ISO_E_MEMORY) {
#pragma omp critical(iso_tiles_short)
            (void)iso_fail(&short_of, st, "%s: %s", images[i].file, why.message);
        }
    }
    const bool stopped = iso_interrupted();
    if (!short_of.status && !stopped) return ISO_OK;
    iso_tiles_free(out, n);
    return stopped ? iso_fail(err, ISO_E_INTERRUPTED, "interrupted: no contact sheet was written") : iso_fail(err, ISO_E_MEMORY, "%s", short_of.message);
}

void iso_tiles_free(cairo_surface_t **tiles, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (tiles[i]) cairo_surface_destroy(tiles[i]);
        tiles[i] = NULL;
    }
}

static bool ends_in(const char *path, const char *ending)
{
    size_t n = strlen(path), m = strlen(ending);
    return n > m && strcasecmp(path + n - m, ending) == 0;
}

iso_status iso_sheet_check(const char *path, iso_error *err)
{
    if (ends_in(path, ".png") || ends_in(path, ".html") || ends_in(path, ".htm")) return ISO_OK;
    return iso_fail(err, ISO_E_ARGUMENT, "cannot tell what kind of contact sheet '%s' is to be: give it the ending .png or .html", path);
}

iso_status iso_sheet_write(const iso_sheet *sheet, const char *path, iso_error *err)
{
    iso_file *f = NULL;
    iso_status st = iso_sheet_check(path, err);
    if (st == ISO_OK) st = iso_file_create(path, &f, err);
    if (st != ISO_OK) return st;
    st = ends_in(path, ".png") ? iso_sheet_png(sheet, iso_file_stream(f), err) : iso_sheet_html(sheet, iso_file_stream(f), err);
    if (st == ISO_OK) return iso_file_commit(f, err);
    iso_file_abort(f);
    return st;
}
