/* face_wear.c: what people put on: glasses, hats, earrings, necklaces, ties. */
#include <math.h>

#include "demo/face.h"

static iso_face_rng wear(const iso_face *f, int what) /* each thing its own draws */
{
    return iso_face_rng_start(f->seed, f->number + ((int64_t)(what + 1) << 40), ISO_FACE_FOR_WEAR);
}

static void lens(cairo_t *cr, double x, double y, double w, double h, double kind)
{
    cairo_new_sub_path(cr);
    if (kind < 0.4) { /* round */
        iso_ellipse(cr, x, y, (w + h) * 0.48, (w + h) * 0.46);
        return;
    }
    double r = kind < 0.75 ? 3.5 : 6, sag = kind < 0.75 ? 0 : 2.5; /* square, or wider below */
    cairo_new_sub_path(cr);
    cairo_arc(cr, x - w + r, y - h + r, r, M_PI, 1.5 * M_PI);
    cairo_arc(cr, x + w - r, y - h + r, r, 1.5 * M_PI, 2 * M_PI);
    cairo_arc(cr, x + w - r, y + h - r + sag, r, 0, 0.5 * M_PI);
    cairo_arc(cr, x - w + r, y + h - r + sag, r, 0.5 * M_PI, M_PI);
    cairo_close_path(cr);
}

void iso_draw_glasses(cairo_t *cr, const iso_face *f)
{
    iso_face_rng r = wear(f, 0);
    double kind = iso_face_rand(&r, 0, 1), tint = iso_face_rand(&r, 0, 1), hue = iso_face_rand(&r, 0, 1), thick = iso_face_rand(&r, 2.3, 3.6);
    double colour = iso_face_rand(&r, 0, 1), w = iso_face_rand(&r, 13.5, 15.5), h = iso_face_rand(&r, 9.5, 11.5), x = f->eye_x + 0.5, y = 1.5;
    if (!f->has[ISO_FACE_GLASSES]) return;
    iso_rgb frame = colour < 0.62 ? (iso_rgb){0.07, 0.06, 0.07} : colour < 0.8 ? (iso_rgb){0.33, 0.17, 0.09} : iso_rgb_hsv(hue, 0.75, 0.55);
    bool dark = tint < 0.09;
    for (int side = -1; side <= 1; side += 2) {
        cairo_t *m = iso_soft_begin(cr); /* the frame's shadow */
        cairo_set_line_width(m, thick);
        lens(m, side * x, y + 2.5, w, h, kind);
        cairo_stroke(m);
        iso_soft_end(cr, m, 1.3, f->shade, 0.5);
        cairo_new_path(cr);
        lens(cr, side * x, y, w, h, kind);
        iso_paint(cr, dark ? (iso_rgb){0.06, 0.06, 0.08} : (iso_rgb){0.93, 0.97, 1}, dark ? 0.86 : 0.13);
        cairo_fill_preserve(cr);
        cairo_save(cr);
        cairo_clip_preserve(cr);
        cairo_path_t *path = cairo_copy_path(cr);
        cairo_new_path(cr); /* a glare across the glass */
        double g = side * x + 3 * (hue - 0.5) * w * 0.3;
        cairo_move_to(cr, g - 7, y + 14), cairo_line_to(cr, g + 3, y - 14), cairo_line_to(cr, g + 8, y - 14), cairo_line_to(cr, g - 2, y + 14);
        cairo_close_path(cr);
        iso_paint(cr, (iso_rgb){1, 1, 1}, dark ? 0.2 : 0.26);
        cairo_fill(cr);
        cairo_restore(cr);
        cairo_new_path(cr);
        cairo_append_path(cr, path);
        cairo_path_destroy(path);
        cairo_set_line_width(cr, thick);
        iso_paint(cr, frame, 1);
        cairo_stroke(cr);
        cairo_set_line_width(cr, thick * 0.95); /* temple */
        double edge = kind < 0.4 ? (w + h) * 0.48 : w;
        cairo_move_to(cr, side * (x + edge), y - 3);
        cairo_line_to(cr, side * (iso_face_half_width(f, -2) + 2.5) + iso_face_offset(f), y - 5);
        cairo_stroke(cr);
    }
    double inner = x - (kind < 0.4 ? (w + h) * 0.48 : w);
    cairo_move_to(cr, -inner, y - 2), cairo_curve_to(cr, -2, y - 5.5, 2, y - 5.5, inner, y - 2);
    cairo_stroke(cr);
}

/* Crown of a hat from the sides over the top. */
static void crown(cairo_t *cr, double half, double base, double top, double flat)
{
    cairo_new_path(cr);
    cairo_move_to(cr, -half, base);
    cairo_curve_to(cr, -half - 2, top + 12, -half * flat, top, 0, top);
    cairo_curve_to(cr, half * flat, top, half + 2, top + 12, half, base);
    cairo_curve_to(cr, half * 0.5, base + 6, -half * 0.5, base + 6, -half, base);
    cairo_close_path(cr);
}

static void shaded_fill(cairo_t *cr, const iso_face *f, iso_rgb c, double half)
{
    double s = cos(f->light_angle) > 0 ? 1 : -1;
    iso_rgb lit = iso_rgb_mix(c, (iso_rgb){1, 1, 1}, 0.22), dim = iso_rgb_scale(c, 0.55);
    cairo_pattern_t *p = cairo_pattern_create_linear(s * half, -60, -s * half, -20);
    cairo_pattern_add_color_stop_rgb(p, 0, lit.r, lit.g, lit.b);
    cairo_pattern_add_color_stop_rgb(p, 0.5, c.r, c.g, c.b);
    cairo_pattern_add_color_stop_rgb(p, 1, dim.r, dim.g, dim.b);
    cairo_set_source(cr, p);
    cairo_fill_preserve(cr);
    cairo_pattern_destroy(p);
}

static void draw_beanie(cairo_t *cr, const iso_face *f, iso_rgb c, iso_rgb band, double half)
{
    crown(cr, half, -26, -f->top - 17, 0.62);
    shaded_fill(cr, f, c, half);
    cairo_new_path(cr);
    cairo_move_to(cr, -half - 2.5, -20), cairo_line_to(cr, -half - 1.5, -35);
    cairo_curve_to(cr, -half * 0.5, -40, half * 0.5, -40, half + 1.5, -35);
    cairo_line_to(cr, half + 2.5, -20);
    cairo_curve_to(cr, half * 0.5, -24, -half * 0.5, -24, -half - 2.5, -20);
    cairo_close_path(cr);
    shaded_fill(cr, f, band, half);
    cairo_clip(cr);
    cairo_set_line_width(cr, 1.2);
    for (double x = -half - 2; x < half + 3; x += 4) cairo_move_to(cr, x, -42), cairo_line_to(cr, x * 1.02, -17);
    iso_paint(cr, iso_rgb_scale(band, 0.5), 0.5);
    cairo_stroke(cr);
}

static void draw_cap(cairo_t *cr, const iso_face *f, iso_rgb c, iso_rgb visor, double half)
{
    double x = 5 * f->yaw;
    crown(cr, half, -27, -f->top - 13, 0.7);
    shaded_fill(cr, f, c, half);
    cairo_new_path(cr);
    cairo_set_line_width(cr, 1.1);
    cairo_move_to(cr, x, -f->top - 13), cairo_line_to(cr, x, -28);
    cairo_move_to(cr, -14, -f->top - 11), cairo_curve_to(cr, -26, -48, -27, -38, -26, -29);
    cairo_move_to(cr, 14, -f->top - 11), cairo_curve_to(cr, 26, -48, 27, -38, 26, -29);
    iso_paint(cr, iso_rgb_scale(c, 0.5), 0.7);
    cairo_stroke(cr);
    iso_ellipse(cr, x, -43, 7, 6);
    iso_paint(cr, visor, 0.95);
    cairo_fill(cr);
    cairo_new_path(cr);
    cairo_move_to(cr, -half + 2, -27);
    cairo_curve_to(cr, -half * 0.6, -37, half * 0.6, -37, half - 2, -27);
    cairo_curve_to(cr, half * 0.8 + x, -13, -half * 0.8 + x, -13, -half + 2, -27);
    cairo_close_path(cr);
    shaded_fill(cr, f, visor, half);
    iso_paint(cr, iso_rgb_scale(visor, 0.4), 0.8);
    cairo_stroke(cr);
}

static void draw_brimmed(cairo_t *cr, const iso_face *f, iso_rgb c, iso_rgb band, double half)
{
    crown(cr, half - 4, -30, -f->top - 19, 0.85);
    shaded_fill(cr, f, c, half);
    cairo_save(cr);
    cairo_clip(cr);
    cairo_set_line_width(cr, 9);
    cairo_move_to(cr, -half - 5, -37), cairo_curve_to(cr, -half * 0.4, -31, half * 0.4, -31, half + 5, -37);
    iso_paint(cr, band, 1);
    cairo_stroke(cr);
    cairo_restore(cr);
    cairo_new_path(cr);
    cairo_move_to(cr, -half - 25, -33);
    cairo_curve_to(cr, -half * 0.7, -29, half * 0.7, -29, half + 25, -33);
    cairo_curve_to(cr, half + 14, -17, -half - 14, -17, -half - 25, -33);
    cairo_close_path(cr);
    shaded_fill(cr, f, iso_rgb_scale(c, 0.92), half + 20);
    cairo_set_line_width(cr, 1);
    iso_paint(cr, iso_rgb_scale(c, 0.45), 0.8);
    cairo_stroke(cr);
}

void iso_draw_hat(cairo_t *cr, const iso_face *f)
{
    iso_face_rng r = wear(f, 1);
    double kind = iso_face_rand(&r, 0, 1), hue = iso_face_rand(&r, 0, 1), s = iso_face_rand(&r, 0.35, 0.9), v = iso_face_rand(&r, 0.35, 0.85);
    double other = iso_face_rand(&r, 0, 1);
    if (!f->has[ISO_FACE_HAT]) return;
    iso_rgb c = iso_rgb_hsv(hue, s, v), band = other < 0.5 ? iso_rgb_scale(c, 0.6) : iso_rgb_hsv(hue + 0.3 + 0.4 * other, s, 0.8);
    if (kind > 0.66) c = iso_rgb_hsv(0.07 + 0.06 * hue, 0.2 + 0.5 * s, 0.3 + 0.6 * v), band = iso_rgb_scale(c, 0.35);
    double half = f->temple + 4 + 0.35 * f->volume;
    cairo_save(cr);
    cairo_t *m = iso_soft_begin(cr); /* on the forehead */
    iso_ellipse(m, 0, -25, half - 2, 11);
    cairo_fill(m);
    iso_soft_end(cr, m, 3.5, f->shade, 0.65);
    cairo_translate(cr, iso_face_offset(f), 0);
    if (kind < 0.36) draw_beanie(cr, f, c, band, half);
    else if (kind < 0.66) draw_cap(cr, f, c, band, half);
    else draw_brimmed(cr, f, c, band, half);
    cairo_restore(cr);
}

void iso_draw_earrings(cairo_t *cr, const iso_face *f)
{
    iso_face_rng r = wear(f, 2);
    double kind = iso_face_rand(&r, 0, 1), metal = iso_face_rand(&r, 0, 1), hue = iso_face_rand(&r, 0, 1), size = iso_face_rand(&r, 0.9, 1.2);
    if (!f->has[ISO_FACE_EARRINGS]) return;
    iso_rgb c = metal < 0.55 ? (iso_rgb){0.98, 0.80, 0.28} : (iso_rgb){0.88, 0.90, 0.94}, gem = iso_rgb_hsv(hue, 0.75, 0.85);
    for (int side = -1; side <= 1; side += 2) {
        double x = side * (iso_face_half_width(f, 14) + 4.5) + iso_face_offset(f) - 1.6 * f->yaw, y = 19;
        cairo_new_path(cr);
        if (kind < 0.4) { /* hoop */
            cairo_set_line_width(cr, 2.4);
            iso_ellipse(cr, x, y + 8 * size, 6.2 * size, 8 * size);
            iso_paint(cr, iso_rgb_scale(c, 0.5), 0.9);
            cairo_stroke_preserve(cr);
            cairo_set_line_width(cr, 1.7);
            iso_paint(cr, c, 1);
            cairo_stroke(cr);
            continue;
        }
        double ry = kind < 0.7 ? 4.6 * size : 8 * size, rx = kind < 0.7 ? 4.6 * size : 3.6 * size; /* pearl, or drop */
        iso_rgb body = kind < 0.7 ? (iso_rgb){0.97, 0.95, 0.92} : gem;
        iso_ellipse(cr, x, y + ry, rx + 0.9, ry + 0.9);
        iso_paint(cr, iso_rgb_scale(c, kind < 0.7 ? 0.45 : 0.8), 1);
        cairo_fill(cr);
        iso_ellipse(cr, x, y + ry, rx, ry);
        iso_paint(cr, body, 1);
        cairo_fill(cr);
        iso_ellipse(cr, x - 1.1, y + ry * 0.7, rx * 0.35, ry * 0.3);
        iso_paint(cr, (iso_rgb){1, 1, 1}, 0.9);
        cairo_fill(cr);
    }
}

void iso_draw_necklace(cairo_t *cr, const iso_face *f)
{
    iso_face_rng r = wear(f, 3);
    double kind = iso_face_rand(&r, 0, 1), hue = iso_face_rand(&r, 0, 1), low = iso_face_rand(&r, 0, 1.5);
    iso_rgb gold = {0.99, 0.80, 0.25}, pearl = {0.98, 0.96, 0.93}, bead = iso_rgb_hsv(hue, 0.8, 0.8), c = kind < 0.4 ? pearl : kind < 0.7 ? gold : bead;
    double size = kind < 0.4 ? 2.7 : kind < 0.7 ? 2.2 : 2.9, y1 = f->chin_y + 10 + low, half = f->has[ISO_FACE_MALE] ? 27 : 22;
    for (int i = -9; i <= 9; i++) {
        double u = i / 9.0, x = half * u, y = y1 - 10 * u * u;
        iso_ellipse(cr, x, y + 0.8, size + 0.5, size + 0.5);
        iso_paint(cr, f->shade, 0.8);
        cairo_fill(cr);
        iso_ellipse(cr, x, y, size, size);
        iso_paint(cr, c, 1);
        cairo_fill(cr);
        iso_ellipse(cr, x - 0.7, y - 0.8, size * 0.35, size * 0.35);
        iso_paint(cr, (iso_rgb){1, 1, 1}, 0.9);
        cairo_fill(cr);
    }
}

static void tie_path(cairo_t *cr, double y)
{
    cairo_new_path(cr);
    cairo_move_to(cr, -8, y), cairo_line_to(cr, 8, y), cairo_line_to(cr, 5.5, y + 11), cairo_line_to(cr, 13, y + 60);
    cairo_line_to(cr, -13, y + 60), cairo_line_to(cr, -5.5, y + 11);
    cairo_close_path(cr);
}

void iso_draw_collar(cairo_t *cr, const iso_face *f)
{
    iso_face_rng r = wear(f, 4);
    double hue = iso_face_rand(&r, 0, 1), suit = iso_face_rand(&r, 0.08, 0.35), tint = iso_face_rand(&r, 0, 1), stripes = iso_face_rand(&r, 0, 1);
    iso_rgb jacket = iso_rgb_hsv(0.62, 0.25 + 0.3 * tint, suit), shirt = tint < 0.7 ? (iso_rgb){0.97, 0.97, 0.98} : (iso_rgb){0.72, 0.83, 0.95};
    iso_rgb tie = iso_rgb_hsv(hue, 0.85, 0.62);
    double y = f->chin_y + 6;
    cairo_new_path(cr); /* jacket, then the shirt in its opening */
    cairo_move_to(cr, -110, 130), cairo_curve_to(cr, -86, 84, -50, 76, -30, 60), cairo_line_to(cr, 30, 60);
    cairo_curve_to(cr, 50, 76, 86, 84, 110, 130);
    cairo_close_path(cr);
    iso_paint(cr, jacket, 1);
    cairo_fill(cr);
    cairo_new_path(cr);
    cairo_move_to(cr, -30, 58), cairo_line_to(cr, 0, 128), cairo_line_to(cr, 30, 58), cairo_line_to(cr, 20, y - 8), cairo_line_to(cr, 0, y + 4), cairo_line_to(cr, -20, y - 8);
    cairo_close_path(cr);
    iso_paint(cr, iso_rgb_scale(shirt, 0.92), 1);
    cairo_fill(cr);
    tie_path(cr, y + 1);
    iso_paint(cr, tie, 1);
    cairo_fill_preserve(cr);
    cairo_save(cr);
    cairo_clip(cr);
    cairo_set_line_width(cr, 3);
    for (int i = 0; stripes < 0.5 && i < 8; i++) cairo_move_to(cr, -16, y + 10 + 9 * i), cairo_line_to(cr, 16, y + 2 + 9 * i);
    iso_paint(cr, iso_rgb_mix(tie, (iso_rgb){1, 1, 1}, 0.6), 0.8);
    cairo_stroke(cr);
    cairo_restore(cr);
    cairo_set_line_width(cr, 1);
    cairo_move_to(cr, -5.5, y + 12), cairo_line_to(cr, 5.5, y + 12);
    iso_paint(cr, iso_rgb_scale(tie, 0.45), 0.9);
    cairo_stroke(cr);
    for (int side = -1; side <= 1; side += 2) { /* wings of the collar */
        cairo_new_path(cr);
        cairo_move_to(cr, side * 26, y - 14), cairo_line_to(cr, side * 5, y + 1), cairo_line_to(cr, side * 17, y + 15), cairo_line_to(cr, side * 33, y + 2);
        cairo_close_path(cr);
        iso_paint(cr, shirt, 1);
        cairo_fill_preserve(cr);
        iso_paint(cr, iso_rgb_scale(shirt, 0.6), 0.8);
        cairo_stroke(cr);
    }
}
