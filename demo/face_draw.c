/* face_draw.c: the layers of a face in order, the light on them, and what a camera does to the picture. */
#include <math.h>
#include <stdlib.h>

#include "demo/face.h"

static void draw_person(cairo_t *cr, const iso_face *f)
{
    cairo_set_line_cap(cr, CAIRO_LINE_CAP_ROUND);
    cairo_set_line_join(cr, CAIRO_LINE_JOIN_ROUND);
    iso_draw_hair_back(cr, f);
    iso_draw_body(cr, f);
    iso_draw_head(cr, f);
    iso_draw_beard(cr, f);
    iso_draw_features(cr, f);
    iso_draw_mouth(cr, f);
    iso_draw_mustache(cr, f);
    iso_draw_brows(cr, f);
    iso_draw_hair_front(cr, f);
    iso_draw_hat(cr, f);
    iso_draw_glasses(cr, f);
    iso_draw_earrings(cr, f);
}

/* Light from one side over everything painted so far in the group. */
static void light_person(cairo_t *cr, const iso_face *f)
{
    double x = 70 * cos(f->light_angle), y = 70 * sin(f->light_angle);
    cairo_pattern_t *p = cairo_pattern_create_linear(x, y, -x, -y);
    cairo_pattern_add_color_stop_rgba(p, 0, 1, 0.97, 0.9, f->light * 0.75);
    cairo_pattern_add_color_stop_rgba(p, 0.45, 1, 0.97, 0.9, 0);
    cairo_pattern_add_color_stop_rgba(p, 0.55, 0.08, 0.05, 0.12, 0);
    cairo_pattern_add_color_stop_rgba(p, 1, 0.08, 0.05, 0.12, f->light * 1.35);
    cairo_set_operator(cr, CAIRO_OPERATOR_ATOP);
    cairo_set_source(cr, p);
    cairo_paint(cr);
    cairo_pattern_destroy(p);
    cairo_set_operator(cr, CAIRO_OPERATOR_OVER);
}

static void expose(cairo_t *cr, const iso_face *f)
{
    double e = f->exposure, w = f->warmth;
    if (e >= 0) cairo_set_source_rgba(cr, 1, 1, 1, e);
    else cairo_set_source_rgba(cr, 0, 0, 0, -e * 1.6);
    cairo_paint(cr);
    cairo_set_source_rgba(cr, w > 0 ? 1 : 0.25, 0.6, w > 0 ? 0.2 : 1, 0.06 * fabs(w));
    cairo_paint(cr);
}

/* From cairo's BGRA words to RGB bytes, with a sensor's noise. */
static void develop(const uint8_t *data, int stride, const iso_face *f, uint8_t *rgb)
{
    iso_face_rng r = iso_face_rng_start(f->seed, f->number, ISO_FACE_FOR_GRAIN);
    double noise = iso_face_rand(&r, 0, f->has[ISO_FACE_BLURRY] ? 1.0 : 4.5);
    for (int y = 0; y < ISO_FACE_HEIGHT; y++) {
        const uint32_t *row = (const uint32_t *)(const void *)(data + (size_t)y * stride);
        for (int x = 0; x < ISO_FACE_WIDTH; x++) {
            double n = noise * iso_face_rand(&r, -1, 1);
            for (int c = 0; c < 3; c++) {
                double v = (row[x] >> (16 - 8 * c) & 255) + n + 0.5;
                rgb[(y * ISO_FACE_WIDTH + x) * 3 + c] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
            }
        }
    }
}

iso_status iso_face_draw(uint64_t seed, int64_t number, const uint8_t has[ISO_FACE_ATTRIBUTES], uint8_t rgb[ISO_FACE_BYTES], iso_error *err)
{
    iso_face f;
    iso_face_look(seed, number, has, &f);
    cairo_surface_t *s = cairo_image_surface_create(CAIRO_FORMAT_RGB24, ISO_FACE_WIDTH, ISO_FACE_HEIGHT);
    cairo_t *cr = cairo_create(s);
    iso_draw_background(cr, &f);
    cairo_translate(cr, 88.5 + f.dx, 111 + f.dy);
    cairo_rotate(cr, f.roll);
    cairo_scale(cr, f.scale, f.scale);
    cairo_push_group(cr);
    draw_person(cr, &f);
    light_person(cr, &f);
    cairo_pop_group_to_source(cr);
    cairo_paint(cr);
    expose(cr, &f);
    cairo_surface_flush(s);
    iso_status status = ISO_OK;
    cairo_status_t trouble = cairo_status(cr);
    uint8_t *data = cairo_image_surface_get_data(s);
    if (trouble || !data) {
        status = trouble == CAIRO_STATUS_NO_MEMORY || !data ? iso_fail_memory(err)
               : iso_fail(err, ISO_E_INTERNAL, "cannot draw face %lld: %s", (long long)number, cairo_status_to_string(trouble));
        goto done;
    }
    int stride = cairo_image_surface_get_stride(s);
    if (f.has[ISO_FACE_BLURRY]) iso_blur(data, ISO_FACE_WIDTH, ISO_FACE_HEIGHT, stride, 4, 3.6);
    develop(data, stride, &f, rgb);
done:
    cairo_destroy(cr);
    cairo_surface_destroy(s);
    return status;
}
