/* face_features.c: eyes, brows, nose, mouth, and what age does to them. */
#include <math.h>

#include "demo/face.h"

static const iso_rgb WHITE = {0.97, 0.96, 0.95}, DARK = {0.10, 0.06, 0.06};

/* The opening between the lids, around the origin; the inner corner is towards the nose. */
static void eye_path(cairo_t *cr, const iso_face *f, int side)
{
    double in = -side * f->eye_w, out = -in, up = f->eye_h * 1.28, down = f->eye_h * 0.86, corner = -f->eye_tilt * 10 - 0.5;
    cairo_new_path(cr);
    cairo_move_to(cr, in, 1);
    cairo_curve_to(cr, in * 0.5, -up, out * 0.5, -up, out, corner);
    cairo_curve_to(cr, out * 0.5, down, in * 0.5, down, in, 1);
    cairo_close_path(cr);
}

static void draw_eyeball(cairo_t *cr, const iso_face *f, int side)
{
    double gaze = 1.1 * f->yaw, r = fmin(5.1, f->eye_h * 0.6 + 2.5);
    cairo_save(cr);
    eye_path(cr, f, side);
    cairo_clip_preserve(cr);
    iso_paint(cr, WHITE, 1);
    cairo_fill(cr);
    cairo_pattern_t *p = cairo_pattern_create_radial(gaze, 0, 1, gaze, 0, r);
    iso_rgb edge = iso_rgb_scale(f->iris, 0.45), mid = iso_rgb_scale(f->iris, 1.25);
    cairo_pattern_add_color_stop_rgb(p, 0, mid.r, mid.g, mid.b);
    cairo_pattern_add_color_stop_rgb(p, 0.7, f->iris.r, f->iris.g, f->iris.b);
    cairo_pattern_add_color_stop_rgb(p, 1, edge.r, edge.g, edge.b);
    cairo_set_source(cr, p);
    iso_ellipse(cr, gaze, -0.2, r, r);
    cairo_fill(cr);
    cairo_pattern_destroy(p);
    iso_paint(cr, (iso_rgb){0.03, 0.02, 0.02}, 1);
    iso_ellipse(cr, gaze, -0.2, 2.2, 2.2);
    cairo_fill(cr);
    cairo_t *m = iso_soft_begin(cr); /* the upper lid's shadow on the eye */
    iso_ellipse(m, 0, -f->eye_h, f->eye_w, 2.2);
    cairo_fill(m);
    iso_soft_end(cr, m, 1, DARK, 0.45);
    iso_paint(cr, (iso_rgb){1, 1, 1}, 0.95);
    iso_ellipse(cr, gaze - 1.6 * cos(f->light_angle + M_PI), -1.9, 1.1, 1.1);
    cairo_fill(cr);
    cairo_restore(cr);
}

static void draw_lids(cairo_t *cr, const iso_face *f, int side)
{
    const uint8_t *h = f->has;
    bool made = h[ISO_FACE_MAKEUP], male = h[ISO_FACE_MALE];
    double w = f->eye_w, up = f->eye_h, lift = f->eye_tilt * 10;
    double in = -side * w, out = side * w;
    cairo_new_path(cr); /* upper lid and lashes */
    cairo_set_line_width(cr, made ? 3.0 : male ? 1.5 : 2.0);
    cairo_move_to(cr, in, 1);
    cairo_curve_to(cr, in * 0.5, -up * 1.28, out * 0.5, -up * 1.28, out, -lift - 0.5);
    if (made) cairo_line_to(cr, out + side * 4.2, -lift - 4);
    iso_paint(cr, made ? (iso_rgb){0.04, 0.03, 0.05} : iso_rgb_mix(DARK, f->shade, 0.2), 0.95);
    cairo_stroke(cr);
    cairo_set_line_width(cr, made ? 1.5 : 0.9);
    cairo_move_to(cr, in, 1);
    cairo_curve_to(cr, in * 0.5, f->eye_h * 0.86, out * 0.5, f->eye_h * 0.86, out, -lift - 0.5);
    iso_paint(cr, made ? DARK : f->shade, made ? 0.8 : 0.6);
    cairo_stroke(cr);
    cairo_set_line_width(cr, 1.1); /* crease */
    cairo_move_to(cr, in * 0.85, -up * 0.55 - 2.0);
    cairo_curve_to(cr, in * 0.4, -up * 1.15 - 3.2, out * 0.5, -up * 1.15 - 3.4, out * 1.05, -lift - 3);
    iso_paint(cr, f->shade, h[ISO_FACE_NARROW] ? 0.35 : 0.6);
    cairo_stroke(cr);
    if (!made) return;
    cairo_set_line_width(cr, 1.0);
    for (int i = 0; i < 5; i++) { /* lashes at the outer half */
        double t = 0.15 + 0.2 * i, x = out * t, y = -up * (1 - t * t) - lift * t;
        cairo_move_to(cr, x, y), cairo_line_to(cr, x + side * (1 + 2.2 * t), y - 3.4);
    }
    iso_paint(cr, DARK, 0.9);
    cairo_stroke(cr);
}

static void draw_bags(cairo_t *cr, const iso_face *f)
{
    double y = f->eye_h * 0.72 + 3;
    cairo_t *m = iso_soft_begin(cr);
    cairo_set_line_width(m, 3.4);
    cairo_move_to(m, -9, y - 1), cairo_curve_to(m, -5, y + 5.4, 5, y + 5.4, 9, y - 1);
    cairo_stroke(m);
    iso_soft_end(cr, m, 1.1, iso_rgb_mix(f->shade, (iso_rgb){0.30, 0.18, 0.32}, 0.45), 0.8);
    m = iso_soft_begin(cr);
    iso_ellipse(m, 0, y + 0.8, 6.5, 1.3);
    cairo_fill(m);
    iso_soft_end(cr, m, 0.9, f->glow, 0.55);
}

static void draw_eyes(cairo_t *cr, const iso_face *f)
{
    iso_face_rng r = iso_face_rng_start(f->seed, f->number, ISO_FACE_FOR_WEAR);
    double hue = iso_face_rand(&r, 0.5, 1.05), v = iso_face_rand(&r, 0.35, 0.75);
    iso_rgb shadow = iso_rgb_mix(f->shade, iso_rgb_hsv(hue, 0.65, v), 0.8);
    for (int side = -1; side <= 1; side += 2) {
        cairo_save(cr);
        cairo_translate(cr, side * f->eye_x, 0);
        cairo_t *m = iso_soft_begin(cr); /* the socket, or eye shadow */
        if (f->has[ISO_FACE_MAKEUP]) iso_ellipse(m, side * 1.5, -5, f->eye_w + 2.5, 5);
        else iso_ellipse(m, -side * 3, -4, f->eye_w, 6);
        cairo_fill(m);
        if (f->has[ISO_FACE_MAKEUP]) iso_soft_end(cr, m, 1.8, shadow, 0.95);
        else iso_soft_end(cr, m, 3.4, f->shade, 0.42);
        if (f->has[ISO_FACE_BAGS]) draw_bags(cr, f);
        draw_eyeball(cr, f, side);
        draw_lids(cr, f, side);
        cairo_restore(cr);
    }
}

void iso_draw_brows(cairo_t *cr, const iso_face *f)
{
    iso_face_rng r = iso_face_rng_start(f->seed, f->number, ISO_FACE_FOR_BROWS);
    bool bushy = f->has[ISO_FACE_BUSHY];
    for (int side = -1; side <= 1; side += 2) {
        cairo_save(cr);
        cairo_translate(cr, side * f->eye_x, f->brow_y);
        cairo_scale(cr, side, 1);
        cairo_rotate(cr, f->brow_tilt);
        double t = f->brow_w, a = f->brow_arch;
        cairo_new_path(cr); /* from the inner end, along the top, to the outer tip and back */
        cairo_move_to(cr, -11.5, 1.5 + t / 2);
        cairo_curve_to(cr, -12, 1.5 - t / 2, -10, 1 - t / 2, -8, 0.6 - t * 0.6);
        cairo_curve_to(cr, 0, -a * 0.9 - t * 0.7, 5, -a * 1.25 - t * 0.6, 13, 2.6);
        cairo_curve_to(cr, 5, -a * 1.05 + t * 0.45, 0, -a * 0.7 + t * 0.6, -11.5, 1.5 + t / 2);
        cairo_close_path(cr);
        iso_paint(cr, f->brow, bushy ? 0.95 : 0.85);
        cairo_fill(cr);
        int strands = bushy ? 70 : 22;
        cairo_set_line_width(cr, bushy ? 1.0 : 0.7);
        for (int i = 0; i < strands; i++) {
            double u = iso_face_rand(&r, 0, 1), x = -11.5 + 22.5 * u, y = 1.2 - a * 3.4 * u * (1 - u) + iso_face_rand(&r, -0.5, 0.5) * t * (1 - 0.6 * u);
            double lean = iso_face_rand(&r, 1, 3), up = (bushy ? iso_face_rand(&r, 1.5, 4.5) : 1.5) * (1 - u);
            cairo_move_to(cr, x, y), cairo_line_to(cr, x + lean, y - up);
        }
        iso_paint(cr, iso_rgb_scale(f->brow, 0.8), bushy ? 0.7 : 0.45);
        cairo_stroke(cr);
        cairo_restore(cr);
    }
}

static void draw_nose(cairo_t *cr, const iso_face *f)
{
    bool big = f->has[ISO_FACE_BIG_NOSE], pointy = f->has[ISO_FACE_POINTY];
    double w = f->nose_w, y = f->nose_y, x = 2.6 * f->yaw, away = cos(f->light_angle) > 0 ? -1 : 1; /* shaded side */
    cairo_t *m = iso_soft_begin(cr); /* the side of the bridge */
    cairo_move_to(m, away * 3.5, -5);
    cairo_curve_to(m, away * 3.5, 4, away * 4 + x, 10, away * (w * 0.75) + x, y - 3);
    cairo_line_to(m, away * (w + 1.5) + x, y - 2);
    cairo_curve_to(m, away * (w + 1) + x, 8, away * 7, 2, away * 7.5, -6);
    cairo_fill(m);
    iso_soft_end(cr, m, 1.8, f->shade, big || pointy ? 0.6 : 0.42);
    m = iso_soft_begin(cr); /* under the tip */
    if (pointy) {
        cairo_move_to(m, -w - 1 + x, y - 1), cairo_line_to(m, x, y + 5.5), cairo_line_to(m, w + 1 + x, y - 1), cairo_line_to(m, x, y + 1.2);
        cairo_fill(m);
    } else {
        iso_ellipse(m, x, y + 1.8, w, 2.2);
        cairo_fill(m);
    }
    iso_soft_end(cr, m, 1.1, f->shade, 0.7);
    if (big) { /* round wings */
        cairo_set_line_width(cr, 2.0);
        for (int side = -1; side <= 1; side += 2) {
            cairo_new_path(cr);
            cairo_move_to(cr, side * (w - 4.5) + x, y - 9);
            cairo_curve_to(cr, side * (w + 3) + x, y - 9, side * (w + 3) + x, y + 2.5, side * (w - 4) + x, y + 1.5);
            iso_paint(cr, f->shade, 0.8);
            cairo_stroke(cr);
        }
    }
    for (int side = -1; side <= 1; side += 2) { /* nostrils and wings */
        cairo_save(cr);
        cairo_translate(cr, side * w * (pointy ? 0.62 : 0.52) + x, y + (pointy ? 0.2 : 0.8));
        cairo_rotate(cr, -side * 0.3);
        iso_ellipse(cr, 0, 0, w * (big ? 0.27 : 0.24) + 0.4, big ? 1.9 : 1.35);
        iso_paint(cr, iso_rgb_scale(f->shade, 0.5), 0.85);
        cairo_fill(cr);
        cairo_restore(cr);
        if (big) continue;
        cairo_set_line_width(cr, 1.3);
        cairo_new_path(cr);
        cairo_move_to(cr, side * w * 0.85 + x, y - 5), cairo_curve_to(cr, side * (w + 1.4) + x, y - 4, side * (w + 1.2) + x, y + 1, side * w * 0.7 + x, y + 0.8);
        iso_paint(cr, f->shade, 0.55);
        cairo_stroke(cr);
    }
    m = iso_soft_begin(cr); /* light along the ridge and on the tip */
    cairo_set_line_width(m, pointy ? 1.6 : 2.6);
    cairo_move_to(m, -away * 0.5, -6), cairo_line_to(m, x - away, y - 6);
    cairo_stroke(m);
    iso_ellipse(m, x - away * 0.8, y - (pointy ? 1.5 : 4), pointy ? 1.4 : w * 0.42, pointy ? 2.4 : w * 0.34);
    cairo_fill(m);
    iso_soft_end(cr, m, pointy ? 0.7 : 1.3, f->glow, pointy ? 0.95 : 0.75);
}

static void soft_line(cairo_t *cr, const iso_face *f, const double *xy, int n, double width, double alpha)
{
    cairo_t *m = iso_soft_begin(cr);
    cairo_set_line_width(m, width);
    iso_curve(m, xy, n, false);
    cairo_stroke(m);
    iso_soft_end(cr, m, 0.6, f->shade, alpha);
}

static void draw_folds(cairo_t *cr, const iso_face *f)
{
    bool old = !f->has[ISO_FACE_YOUNG], smiling = f->has[ISO_FACE_SMILING];
    for (int side = -1; side <= 1; side += 2) {
        double w = f->nose_w, reach = f->mouth_w + (smiling ? 4.5 : 3);
        double fold[] = {side * (w + 2.5), f->nose_y - 4, side * (reach - 1.5), f->mouth_y - 9, side * reach, f->mouth_y - (old ? -3 : 3)};
        if (old || smiling) soft_line(cr, f, fold, 3, old ? 2.2 : 1.4, old ? 0.85 : 0.5);
        if (!old) continue;
        for (int i = -1; i <= 1; i++) { /* crow's feet */
            double x = f->eye_x + f->eye_w + 2, foot[] = {side * x, 2.0 * i - 1, side * (x + 7), 4.2 * i - 2};
            soft_line(cr, f, foot, 2, 1.3, 0.7);
        }
        double frown[] = {side * 4.0, -15, side * 3.2, -9};
        soft_line(cr, f, frown, 2, 1.4, 0.6);
    }
    for (int i = 0; old && i < 3; i++) {
        double y = -20.5 - 5.2 * i, w = 21 - 3.0 * i, line[] = {-w, y + 1.2, -w / 2, y - 0.6, 0, y + 0.5, w / 2, y - 0.6, w, y + 1.2};
        soft_line(cr, f, line, 5, 1.6, 0.72);
    }
}

static void lip_points(const iso_face *f, double *corner_y, double *top, double *bottom)
{
    *corner_y = -f->curve * 0.62;
    *top = f->curve * 0.38 - f->gap * 0.35;    /* where the lips meet, or part, in the middle */
    *bottom = f->curve * 0.38 + f->gap * 0.85;
}

static void draw_opening(cairo_t *cr, const iso_face *f, double w, double cy, double top, double bottom)
{
    cairo_new_path(cr);
    cairo_move_to(cr, -w * 0.93, cy);
    cairo_curve_to(cr, -w * 0.5, top + 0.3, w * 0.5, top + 0.3, w * 0.93, cy);
    cairo_curve_to(cr, w * 0.6, bottom + 1, -w * 0.6, bottom + 1, -w * 0.93, cy);
    cairo_close_path(cr);
    cairo_save(cr);
    iso_paint(cr, (iso_rgb){0.26, 0.05, 0.06}, 1);
    cairo_fill_preserve(cr);
    cairo_clip(cr);
    double teeth = f->has[ISO_FACE_SMILING] ? 0.72 : 0.34;
    cairo_new_path(cr);
    cairo_move_to(cr, -w, cy - 4), cairo_line_to(cr, w, cy - 4), cairo_line_to(cr, w, cy + 1);
    cairo_curve_to(cr, w * 0.5, top + (bottom - top) * teeth * 1.25, -w * 0.5, top + (bottom - top) * teeth * 1.25, -w, cy + 1);
    cairo_close_path(cr);
    iso_paint(cr, (iso_rgb){0.97, 0.96, 0.93}, 1);
    cairo_fill(cr);
    cairo_restore(cr);
}

void iso_draw_mouth(cairo_t *cr, const iso_face *f)
{
    double w = f->mouth_w, cy, top, bottom, lip = f->lip, x = 1.3 * f->yaw;
    bool red = f->has[ISO_FACE_LIPSTICK];
    lip_points(f, &cy, &top, &bottom);
    cairo_save(cr);
    cairo_translate(cr, x, f->mouth_y);
    cairo_t *m = iso_soft_begin(cr); /* below the lower lip */
    iso_ellipse(m, 0, bottom + lip * 1.7 + 2.4, w * 0.5, 1.8);
    cairo_fill(m);
    iso_soft_end(cr, m, 1.6, f->shade, 0.6);
    iso_rgb upper = iso_rgb_scale(f->lips, 0.84), lower = f->lips;
    cairo_new_path(cr); /* upper lip with its bow */
    cairo_move_to(cr, -w, cy);
    cairo_curve_to(cr, -w * 0.55, top - lip * 0.9, -w * 0.28, top - lip * 1.75, 0, top - lip * 1.02);
    cairo_curve_to(cr, w * 0.28, top - lip * 1.75, w * 0.55, top - lip * 0.9, w, cy);
    cairo_curve_to(cr, w * 0.5, top + 0.6, -w * 0.5, top + 0.6, -w, cy);
    iso_paint(cr, upper, 1);
    cairo_fill(cr);
    cairo_new_path(cr);
    cairo_move_to(cr, -w, cy);
    cairo_curve_to(cr, -w * 0.6, bottom + lip * 2.1, w * 0.6, bottom + lip * 2.1, w, cy);
    cairo_curve_to(cr, w * 0.5, bottom, -w * 0.5, bottom, -w, cy);
    iso_paint(cr, lower, 1);
    cairo_fill(cr);
    if (f->gap > 0) draw_opening(cr, f, w, cy, top, bottom);
    else {
        cairo_new_path(cr);
        cairo_set_line_width(cr, 1.5);
        cairo_move_to(cr, -w, cy), cairo_curve_to(cr, -w * 0.5, top + 0.7, w * 0.5, top + 0.7, w, cy);
        iso_paint(cr, iso_rgb_scale(f->lips, 0.42), 0.95);
        cairo_stroke(cr);
    }
    m = iso_soft_begin(cr);
    iso_ellipse(m, -1.5, bottom + lip * 0.75, w * 0.28, lip * 0.3);
    cairo_fill(m);
    iso_soft_end(cr, m, 0.8, (iso_rgb){1, 0.9, 0.88}, red ? 0.75 : 0.4);
    cairo_restore(cr);
}

void iso_draw_features(cairo_t *cr, const iso_face *f)
{
    cairo_set_line_cap(cr, CAIRO_LINE_CAP_ROUND);
    draw_folds(cr, f);
    draw_nose(cr, f);
    draw_eyes(cr, f);
}
