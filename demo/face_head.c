/* face_head.c: background, neck and clothes, ears, and the head with its skin. */
#include <math.h>

#include "demo/face.h"

void iso_draw_background(cairo_t *cr, const iso_face *f)
{
    iso_face_rng r = iso_face_rng_start(f->seed, f->number, ISO_FACE_FOR_BACKGROUND);
    double hue = iso_face_rand(&r, 0, 1), s = iso_face_rand(&r, 0.03, 0.36), v = iso_face_rand(&r, 0.34, 0.86);
    double angle = iso_face_rand(&r, 0, 2 * M_PI), drift = iso_face_rand(&r, -0.12, 0.12), fall = iso_face_rand(&r, 0.5, 1.0);
    iso_rgb a = iso_rgb_hsv(hue, s, v), b = iso_rgb_hsv(hue + drift + 1, s * 0.8, v * fall);
    cairo_pattern_t *p = cairo_pattern_create_linear(89 - 120 * cos(angle), 109 - 120 * sin(angle), 89 + 120 * cos(angle), 109 + 120 * sin(angle));
    cairo_pattern_add_color_stop_rgb(p, 0, a.r, a.g, a.b);
    cairo_pattern_add_color_stop_rgb(p, 1, b.r, b.g, b.b);
    cairo_set_source(cr, p);
    cairo_paint(cr);
    cairo_pattern_destroy(p);
    int shapes = (int)iso_face_rand(&r, 0, 6);
    for (int i = 0; i < shapes; i++) {
        double x = iso_face_rand(&r, 0, 178), y = iso_face_rand(&r, 0, 218), w = iso_face_rand(&r, 12, 55), h = iso_face_rand(&r, 12, 80);
        double tone = iso_face_rand(&r, -0.22, 0.24), round = iso_face_rand(&r, 0, 1), soft = iso_face_rand(&r, 2, 9);
        cairo_t *m = iso_soft_begin(cr);
        if (round < 0.6) iso_ellipse(m, x, y, w, h * 0.7);
        else cairo_rectangle(m, x - w / 2, y - h, w, 2 * h);
        cairo_fill(m);
        iso_rgb c = iso_rgb_hsv(hue + 2 * drift + 1 + (round > 0.85 ? 0.45 : 0), s, fmin(fmax(v + tone, 0.08), 1));
        iso_soft_end(cr, m, soft, c, 0.55);
    }
}

static void body_path(cairo_t *cr, const iso_face *f)
{
    double wide = f->has[ISO_FACE_MALE] ? 80 : 68;
    if (f->has[ISO_FACE_CHUBBY]) wide += 8;
    cairo_new_path(cr);
    cairo_move_to(cr, -wide - 24, 130);
    cairo_curve_to(cr, -wide, 86, -wide * 0.7, 76, -24, 66);
    cairo_curve_to(cr, -10, 74, 10, 74, 24, 66);
    cairo_curve_to(cr, wide * 0.7, 76, wide, 86, wide + 24, 130);
    cairo_close_path(cr);
}

static void draw_neck(cairo_t *cr, const iso_face *f, double ox)
{
    double w = (f->has[ISO_FACE_MALE] ? 25 : 19.5) + (f->has[ISO_FACE_CHUBBY] ? 5 : 0);
    cairo_new_path(cr);
    cairo_move_to(cr, -w + ox, 20);
    cairo_curve_to(cr, -w, 50, -w, 62, -w - 8, 70);
    cairo_line_to(cr, -44, 80), cairo_line_to(cr, -30, 130), cairo_line_to(cr, 30, 130), cairo_line_to(cr, 44, 80), cairo_line_to(cr, w + 8, 70);
    cairo_curve_to(cr, w, 62, w, 50, w + ox, 20);
    cairo_close_path(cr);
    iso_paint(cr, iso_rgb_mix(f->skin, f->shade, 0.16), 1);
    cairo_fill_preserve(cr);
    cairo_save(cr);
    cairo_clip(cr);
    cairo_t *m = iso_soft_begin(cr); /* the chin's shadow */
    cairo_translate(m, ox, 7);
    iso_face_outline(m, f, 1);
    cairo_fill(m);
    iso_soft_end(cr, m, 3, f->shade, 0.75);
    m = iso_soft_begin(cr);
    cairo_set_line_width(m, 5);
    cairo_move_to(m, -w, 45), cairo_line_to(m, -w, 75);
    cairo_move_to(m, w, 45), cairo_line_to(m, w, 75);
    cairo_stroke(m);
    iso_soft_end(cr, m, 3, f->shade, 0.5);
    cairo_restore(cr);
}

void iso_draw_body(cairo_t *cr, const iso_face *f)
{
    iso_face_rng r = iso_face_rng_start(f->seed, f->number, ISO_FACE_FOR_CLOTHES);
    double hue = iso_face_rand(&r, 0, 1), s = iso_face_rand(&r, 0, 0.75), v = iso_face_rand(&r, 0.18, 0.95), cut = iso_face_rand(&r, 0, 1);
    iso_rgb cloth = iso_rgb_hsv(hue, s, v);
    double ox = iso_face_offset(f);
    body_path(cr, f);
    iso_paint(cr, cloth, 1);
    cairo_fill_preserve(cr);
    cairo_save(cr);
    cairo_clip(cr);
    cairo_t *m = iso_soft_begin(cr);
    iso_ellipse(m, -60, 120, 26, 50), iso_ellipse(m, 60, 120, 26, 50);
    cairo_fill(m);
    iso_soft_end(cr, m, 8, iso_rgb_scale(cloth, 0.5), 0.5);
    cairo_restore(cr);
    draw_neck(cr, f, ox);
    bool open = f->has[ISO_FACE_NECKLACE];
    double low = open ? 100 : cut < 0.4 ? 72 : 88;
    cairo_save(cr);
    body_path(cr, f);
    cairo_clip(cr);
    cairo_new_path(cr); /* cloth up to its neckline */
    cairo_move_to(cr, -120, 130), cairo_line_to(cr, -120, 60), cairo_line_to(cr, -30, 63);
    if (cut < 0.7) cairo_curve_to(cr, -22, low - 2, -12, low, 0, low), cairo_curve_to(cr, 12, low, 22, low - 2, 30, 63);
    else cairo_line_to(cr, -24, 66), cairo_line_to(cr, 0, low + 2), cairo_line_to(cr, 24, 66), cairo_line_to(cr, 30, 63);
    cairo_line_to(cr, 120, 60), cairo_line_to(cr, 120, 130);
    cairo_close_path(cr);
    iso_paint(cr, cloth, 1);
    cairo_fill_preserve(cr);
    iso_paint(cr, iso_rgb_scale(cloth, 0.62), 0.9);
    cairo_set_line_width(cr, 1.6);
    cairo_stroke(cr);
    cairo_restore(cr);
    if (f->has[ISO_FACE_NECKTIE]) iso_draw_collar(cr, f);
    if (f->has[ISO_FACE_NECKLACE]) iso_draw_necklace(cr, f);
}

double iso_face_offset(const iso_face *f) { return -2.4 * f->yaw; }

/* Right half, from the top of the head to the chin. */
enum { HALF = 8 };
static void half_outline(const iso_face *f, double by, double xy[HALF][2])
{
    const double p[HALF][2] = {{0, -f->top}, {0.60 * f->temple, -f->top * 0.90}, {0.93 * f->temple, -f->top * 0.58}, {f->temple, -12},
                               {f->cheek, 10}, {f->jaw, 34}, {f->chin_w, f->chin_y - 5}, {0, f->chin_y}};
    for (int i = 0; i < HALF; i++) {
        double x = p[i][0], y = p[i][1], cy = y < 0 ? y : y * 0.8, d = hypot(x, cy);
        xy[i][0] = x + by * x / d, xy[i][1] = y + by * cy / d;
    }
}

void iso_face_outline(cairo_t *cr, const iso_face *f, double by)
{
    double half[HALF][2], all[(2 * HALF - 2) * 2];
    half_outline(f, by, half);
    int n = 0;
    for (int i = 0; i < HALF; i++) all[2 * n] = half[i][0], all[2 * n++ + 1] = half[i][1];
    for (int i = HALF - 2; i > 0; i--) all[2 * n] = -half[i][0], all[2 * n++ + 1] = half[i][1];
    cairo_save(cr);
    cairo_new_path(cr);
    cairo_translate(cr, iso_face_offset(f), 0);
    iso_curve(cr, all, n, true);
    cairo_restore(cr);
}

double iso_face_half_width(const iso_face *f, double y)
{
    double h[HALF][2];
    half_outline(f, 0, h);
    for (int i = 0; i + 1 < HALF; i++)
        if (y >= h[i][1] && y <= h[i + 1][1]) return h[i][0] + (h[i + 1][0] - h[i][0]) * (y - h[i][1]) / (h[i + 1][1] - h[i][1]);
    return 0;
}

static void draw_ears(cairo_t *cr, const iso_face *f)
{
    for (int side = -1; side <= 1; side += 2) {
        double x = side * (iso_face_half_width(f, 4) + 2.2) + iso_face_offset(f) - 1.6 * f->yaw;
        iso_ellipse(cr, x, 5, 5.6, 12.5);
        iso_paint(cr, iso_rgb_mix(f->skin, f->shade, 0.12), 1);
        cairo_fill(cr);
        cairo_set_line_width(cr, 1.5);
        cairo_arc(cr, x + side, 3, 4.2, side > 0 ? -M_PI * 0.75 : M_PI * 0.1, side > 0 ? M_PI * 0.9 : M_PI * 1.75);
        iso_paint(cr, f->shade, 0.45);
        cairo_stroke(cr);
    }
}

/* A soft ellipse on both cheeks. */
static void both(cairo_t *cr, double x, double y, double rx, double ry, double turn, double blur, iso_rgb c, double alpha)
{
    cairo_t *m = iso_soft_begin(cr);
    for (int side = -1; side <= 1; side += 2) {
        cairo_save(m);
        cairo_translate(m, side * x, y);
        cairo_rotate(m, side * turn);
        iso_ellipse(m, 0, 0, rx, ry);
        cairo_fill(m);
        cairo_restore(m);
    }
    iso_soft_end(cr, m, blur, c, alpha);
}

static void draw_cheeks(cairo_t *cr, const iso_face *f)
{
    const uint8_t *h = f->has;
    double lift = h[ISO_FACE_SMILING] ? -2 : 0;
    if (h[ISO_FACE_SMILING]) both(cr, 25, 19, 8, 6, 0, 4, f->glow, 0.35);
    if (h[ISO_FACE_CHUBBY]) {
        both(cr, 29, 26, 12, 11, 0, 5, f->glow, 0.5);
        both(cr, 20, 41, 12, 4, -0.45, 4, f->shade, 0.28);
    }
    if (h[ISO_FACE_CHEEKBONES]) {
        both(cr, 29.5, 25 + lift, 14, 4.2, -0.72, 2.4, f->shade, 0.62);
        both(cr, 28, 12.5 + lift, 9, 3.6, -0.42, 2.2, f->glow, 1);
    }
    iso_rgb pink = iso_rgb_mix(f->skin, (iso_rgb){0.96, 0.25, 0.32}, 0.7);
    if (h[ISO_FACE_ROSY]) both(cr, 25, 20 + lift, 10, 8.5, 0, 3.2, pink, 0.85);
    else if (h[ISO_FACE_MAKEUP]) both(cr, 29, 18 + lift, 10, 5, -0.5, 4, pink, 0.5);
    else both(cr, 25, 19 + lift, 10, 8, 0, 5, f->blush, h[ISO_FACE_PALE] ? 0.08 : 0.22);
}

static void draw_jowls(cairo_t *cr, const iso_face *f)
{
    if (f->has[ISO_FACE_DOUBLE_CHIN]) { /* a second curve below the chin: the first one moves up into the face */
        double y = f->chin_y - 7, w = f->chin_w + 9;
        cairo_t *m = iso_soft_begin(cr);
        cairo_set_line_width(m, 3.6);
        cairo_move_to(m, -w, y - 8), cairo_curve_to(m, -w * 0.6, y + 3, w * 0.6, y + 3, w, y - 8);
        cairo_stroke(m);
        iso_soft_end(cr, m, 1.2, f->shade, 0.85);
        m = iso_soft_begin(cr);
        iso_ellipse(m, 0, y - 5, 9, 3.4);
        cairo_fill(m);
        iso_soft_end(cr, m, 2, f->glow, 0.7);
    }
    if (!f->has[ISO_FACE_YOUNG]) both(cr, 21, 45, 3, 7, 0.35, 2.4, f->shade, 0.42);
}

void iso_draw_head(cairo_t *cr, const iso_face *f)
{
    draw_ears(cr, f);
    iso_face_outline(cr, f, 0);
    cairo_save(cr);
    iso_paint(cr, f->skin, 1);
    cairo_fill_preserve(cr);
    cairo_clip(cr);
    double lx = -26 * cos(f->light_angle), ox = iso_face_offset(f);
    cairo_t *m = iso_soft_begin(cr); /* darker towards the edge, most away from the light */
    cairo_set_fill_rule(m, CAIRO_FILL_RULE_EVEN_ODD);
    cairo_rectangle(m, -120, -120, 240, 240);
    cairo_new_sub_path(m);
    iso_ellipse(m, ox - 0.25 * lx, 2, f->cheek - 3, f->chin_y - 3);
    cairo_fill(m);
    iso_soft_end(cr, m, 6.5, f->shade, 0.62);
    m = iso_soft_begin(cr);
    iso_ellipse(m, -0.5 * lx, -22, 20, 9), iso_ellipse(m, -0.3 * lx, 49, 8, 4);
    cairo_fill(m);
    iso_soft_end(cr, m, 6, f->glow, 0.6);
    if (f->has[ISO_FACE_BALD]) { /* light on a bare skull */
        m = iso_soft_begin(cr);
        iso_ellipse(m, -0.6 * lx, -f->top + 13, 13, 5.5);
        cairo_fill(m);
        iso_soft_end(cr, m, 3.5, (iso_rgb){1, 0.98, 0.95}, 0.6);
    }
    draw_cheeks(cr, f);
    draw_jowls(cr, f);
    cairo_restore(cr);
}
