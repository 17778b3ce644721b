/* sheet_parts.h: what sheet.c, sheet_png.c and sheet_html.c share; nobody else includes it. */
#ifndef ISO_SHEET_PARTS_H
#define ISO_SHEET_PARTS_H

#include <cairo.h>
#include <stdbool.h>
#include <stdio.h>
#include "retriever/sheet.h"

/* side x side pictures of images [n] into out [n]; NULL where a file is missing or no picture. On all threads. Free with
 * iso_tiles_free. */
ISO_CHECK iso_status iso_tiles_load(const iso_sheet_image *images, size_t n, int side, cairo_surface_t **out, iso_error *err);
void iso_tiles_free(cairo_surface_t **tiles, size_t n);

/* Leave write errors to the stream's own state. */
ISO_CHECK iso_status iso_sheet_png(const iso_sheet *sheet, FILE *out, iso_error *err);
ISO_CHECK iso_status iso_sheet_html(const iso_sheet *sheet, FILE *out, iso_error *err);

/* cairo's status as ours. */
iso_status iso_cairo_fail(iso_error *err, cairo_status_t status);

#endif
