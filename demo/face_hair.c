/* face_hair.c: hair of the head and beards: filled shapes, then many strands inside them. */
#include <math.h>

#include "demo/face.h"

typedef struct lock { double bottom, out, in; } lock; /* of the side locks: how far down, and their edges there */

static lock side_lock(const iso_face *f)
{
    double v = f->volume;
    if (f->length == 2) return (lock){86, f->cheek + v * 0.9 + 5, f->jaw - 5};
    if (f->length == 1) return (lock){46, f->cheek + v * 0.9 + 5, f->jaw - 1};
    if (f->has[ISO_FACE_SIDEBURNS]) return (lock){27, iso_face_half_width(f, 27) + 1, iso_face_half_width(f, 27) - 8};
    return (lock){3, iso_face_half_width(f, 3) + 1.5, iso_face_half_width(f, 3) - 3};
}

/* Height and length of the waves: hair that is neither wavy nor straight is a little unruly. */
static double wave(const iso_face *f) { return f->has[ISO_FACE_WAVY] ? 2.9 : f->has[ISO_FACE_STRAIGHT] ? 0 : 1.1; }
static double wave_length(const iso_face *f) { return f->has[ISO_FACE_WAVY] ? 21 : 37; }

/* The closed shape of the hair that lies in front: over the top of the head, down both sides, back along the hairline. */
static void hair_path(cairo_t *cr, const iso_face *f)
{
    lock l = side_lock(f);
    double v = f->volume, t = f->temple, hl = f->hairline, long_ = f->length > 0;
    double low = long_ ? l.bottom * 0.5 : 2, x1 = long_ ? l.out + 1 : iso_face_half_width(f, -4) + v * 0.3 + 1;
    double half[][2] = {{0, -f->top - v}, {0.60 * t + v * 0.35, -f->top * 0.9 - v * 0.75}, {0.95 * t + v * 0.75, -f->top * 0.55 - v * 0.2},
                        {t + v * (long_ ? 1 : 0.55) + 1, -12}, {x1, low}, {l.out, l.bottom}};
    enum { N = 6 };
    double outer[(2 * N - 1) * 2], inner[14];
    for (int i = 0; i < N; i++) {
        outer[2 * (N - 1 - i)] = -half[i][0], outer[2 * (N - 1 - i) + 1] = half[i][1];
        outer[2 * (N - 1 + i)] = half[i][0], outer[2 * (N - 1 + i) + 1] = half[i][1];
    }
    bool receding = f->has[ISO_FACE_RECEDING];
    double mid = receding ? hl - 7 : hl, corner = receding ? -50 : hl + 4.5, corner_x = receding ? 0.58 * t : 0.56 * t;
    double hw = iso_face_half_width(f, -8), edge = long_ ? hw - 2 : hw - 4, part = receding ? 0 : 15 * f->part;
    double in[7][2] = {{l.in, l.bottom}, {edge, -8}, {receding ? 0.84 * t : 0.86 * t, receding ? -32 : -23}, {corner_x, corner}, {part, mid},
                       {-corner_x, corner}, {receding ? -0.84 * t : -0.86 * t, receding ? -32 : -23}};
    for (int i = 0; i < 7; i++) inner[2 * i] = in[i][0], inner[2 * i + 1] = in[i][1];
    double tail[] = {inner[12], inner[13], -edge, -8, -l.in, l.bottom};
    cairo_save(cr);
    cairo_translate(cr, iso_face_offset(f), 0);
    cairo_new_path(cr);
    if (wave(f) > 0) iso_curve_wavy(cr, outer, 2 * N - 1, wave(f), wave_length(f), 5 * f->part);
    else iso_curve(cr, outer, 2 * N - 1, false);
    double round = long_ ? 6 : 0; /* the ends of the locks */
    cairo_curve_to(cr, l.out - 1, l.bottom + round, l.in + 2, l.bottom + round, l.in, l.bottom);
    iso_curve(cr, inner, 7, false);
    iso_curve(cr, tail, 3, false);
    cairo_curve_to(cr, -l.in - 2, l.bottom + round, -l.out + 1, l.bottom + round, -l.out, l.bottom);
    cairo_close_path(cr);
    cairo_restore(cr);
}

/* Thousands of thin lines need no round ends. */
static void thin_lines(cairo_t *cr)
{
    cairo_set_line_cap(cr, CAIRO_LINE_CAP_BUTT);
    cairo_set_line_join(cr, CAIRO_LINE_JOIN_BEVEL);
    cairo_set_antialias(cr, CAIRO_ANTIALIAS_FAST);
    cairo_set_tolerance(cr, 0.3);
}

/* One strand: a Bezier curve with a wave across it. */
static void strand(cairo_t *cr, const double p[8], double height, double length, double phase)
{
    enum { STEPS = 24 };
    if (height == 0) {
        cairo_move_to(cr, p[0], p[1]), cairo_curve_to(cr, p[2], p[3], p[4], p[5], p[6], p[7]);
        return;
    }
    double run = 0, px = p[0], py = p[1];
    cairo_move_to(cr, px, py);
    for (int i = 1; i <= STEPS; i++) {
        double t = (double)i / STEPS, s = 1 - t;
        double a = s * s * s, b = 3 * s * s * t, c = 3 * s * t * t, d = t * t * t;
        double x = a * p[0] + b * p[2] + c * p[4] + d * p[6], y = a * p[1] + b * p[3] + c * p[5] + d * p[7];
        double step = hypot(x - px, y - py);
        run += step;
        double w = step > 0 ? height * sin(2 * M_PI * run / length + phase) : 0;
        cairo_line_to(cr, x - w * (y - py) / fmax(step, 1e-6), y + w * (x - px) / fmax(step, 1e-6));
        px = x, py = y;
    }
}

static iso_rgb strand_colour(const iso_face *f, iso_face_rng *r)
{
    double u = iso_face_rand(r, 0, 1), dark = f->has[ISO_FACE_BLACK];
    if (u < 0.5) return iso_rgb_scale(f->hair, 0.5 + 0.4 * u);
    return iso_rgb_mix(f->hair, (iso_rgb){1, 0.95, 0.88}, (u - 0.5) * (dark ? 0.28 : 0.55));
}

/* Strands from the parting over the top and down both sides, under the current clip. */
static void comb(cairo_t *cr, const iso_face *f, iso_face_rng *r, int n)
{
    lock l = side_lock(f);
    double top = -f->top - f->volume, out = f->temple + f->volume + 4, w = wave(f);
    cairo_save(cr);
    thin_lines(cr);
    for (int i = 0; i < n; i++) {
        double u = iso_face_rand(r, -1, 1), root = 15 * f->part + iso_face_rand(r, -5, 5), phase = iso_face_rand(r, -0.9, 0.9);
        double depth = iso_face_rand(r, 0, 1), side = u < 0 ? -1 : 1, a = fabs(u);
        double end = side * (l.in - 4 + (l.out + 5 - l.in) * a), swell = side * out * (0.45 + 0.62 * a);
        double p[8] = {root, top + 16 * depth * (1 - a) - 1, root + swell * 0.7, top - 2 + 26 * (1 - a), swell * 1.02, -30, end, l.bottom + 7};
        iso_paint(cr, strand_colour(f, r), f->has[ISO_FACE_STRAIGHT] ? 0.55 : 0.42);
        cairo_set_line_width(cr, f->has[ISO_FACE_STRAIGHT] ? 1.0 : 1.3);
        strand(cr, p, w * 0.95, wave_length(f), phase);
        cairo_stroke(cr);
    }
    cairo_restore(cr);
}

static void gloss(cairo_t *cr, const iso_face *f)
{
    double top = -f->top - f->volume, y = top + 15, w = f->temple * 0.86;
    bool straight = f->has[ISO_FACE_STRAIGHT];
    cairo_t *m = iso_soft_begin(cr);
    cairo_set_line_width(m, straight ? 5 : 7);
    double arc[] = {-w - 3, y + 22, -w * 0.62, y + 4, 0, y - 3, w * 0.62, y + 4, w + 3, y + 22};
    iso_curve(m, arc, 5, false);
    for (int side = -1; straight && f->length && side <= 1; side += 2) { /* and down the locks */
        double x = side * (f->cheek + f->volume * 0.5), lock_arc[] = {x - side * 5, 14, x, 18, x + side * 6, 15};
        cairo_new_sub_path(m);
        iso_curve(m, lock_arc, 3, false);
    }
    cairo_stroke(m);
    iso_soft_end(cr, m, straight ? 1.6 : 4, iso_rgb_mix(f->hair, (iso_rgb){1, 0.97, 0.92}, straight ? 0.62 : 0.4), straight ? 0.75 : 0.3);
}

void iso_draw_hair_back(cairo_t *cr, const iso_face *f)
{
    if (f->length == 0) return;
    lock l = side_lock(f);
    double x = l.out + 1, shoulders[] = {-x + 3, l.bottom, -x - 1, l.bottom * 0.5, -x - 1, 0, -x * 0.72, -45, 0, -f->top - f->volume + 2,
                                         x * 0.72, -45, x + 1, 0, x + 1, l.bottom * 0.5, x - 3, l.bottom};
    cairo_save(cr);
    cairo_translate(cr, iso_face_offset(f), 0);
    cairo_new_path(cr);
    if (wave(f) > 0) iso_curve_wavy(cr, shoulders, 9, wave(f), wave_length(f), 1);
    else iso_curve(cr, shoulders, 9, false);
    cairo_close_path(cr);
    iso_paint(cr, iso_rgb_scale(f->hair, 0.55), 1);
    cairo_fill(cr);
    cairo_restore(cr);
}

/* A fringe from the parting down to the brows. */
static void draw_bangs(cairo_t *cr, const iso_face *f, iso_face_rng *r)
{
    double t = f->temple, y = -f->eye_h - 9, lean = 6 * f->part, ends[27 * 2];
    for (int i = 0; i < 27; i++) { /* uneven tips */
        double u = i / 13.0 - 1;
        ends[2 * i] = 0.88 * t * u, ends[2 * i + 1] = y + 3 * u * u + (i % 2 ? 1.6 : -2) * iso_face_rand(r, 0.2, 1.1);
    }
    cairo_save(cr);
    cairo_translate(cr, iso_face_offset(f), 0);
    cairo_new_path(cr);
    cairo_move_to(cr, -0.93 * t, -14);
    cairo_curve_to(cr, -0.9 * t, -f->top * 0.9, -12, -f->top - 2, lean, -f->top - 2);
    cairo_curve_to(cr, 12, -f->top - 2, 0.9 * t, -f->top * 0.9, 0.93 * t, -14);
    for (int i = 26; i >= 0; i--) cairo_line_to(cr, ends[2 * i], ends[2 * i + 1]);
    cairo_close_path(cr);
    cairo_path_t *path = cairo_copy_path(cr);
    cairo_t *m = iso_soft_begin(cr); /* its shadow on the brow */
    cairo_translate(m, 0, 3);
    cairo_append_path(m, path);
    cairo_fill(m);
    cairo_new_path(cr);
    iso_soft_end(cr, m, 1.8, f->shade, 0.6);
    cairo_push_group(cr);
    iso_paint(cr, f->hair, 1);
    cairo_paint(cr);
    thin_lines(cr);
    for (int i = 0; i < 130; i++) {
        double u = iso_face_rand(r, -1, 1), phase = iso_face_rand(r, -1, 1), bend = iso_face_rand(r, -2, 2);
        double p[8] = {lean + 12 * u, -f->top - 3, lean + 0.75 * t * u, -f->top + 10, 0.86 * t * u + bend, -34, 0.9 * t * u + bend, y + 5};
        iso_paint(cr, strand_colour(f, r), 0.5);
        cairo_set_line_width(cr, 1.2);
        strand(cr, p, wave(f) * 0.5, 15, phase);
        cairo_stroke(cr);
    }
    cairo_pop_group_to_source(cr);
    cairo_append_path(cr, path);
    cairo_path_destroy(path);
    cairo_fill(cr);
    cairo_restore(cr);
}

/* What a bald head keeps: a thin rim above the ears. */
static void draw_rim(cairo_t *cr, const iso_face *f)
{
    for (int side = -1; side <= 1; side += 2) {
        double x = side * (iso_face_half_width(f, -8) - 0.5) + iso_face_offset(f);
        cairo_t *m = iso_soft_begin(cr);
        iso_ellipse(m, x, -9, 3.0, 9);
        cairo_fill(m);
        iso_soft_end(cr, m, 1.4, f->hair, 0.6);
    }
}

void iso_draw_hair_front(cairo_t *cr, const iso_face *f)
{
    iso_face_rng r = iso_face_rng_start(f->seed, f->number, ISO_FACE_FOR_HAIR);
    if (f->has[ISO_FACE_BALD]) {
        draw_rim(cr, f);
        return;
    }
    cairo_save(cr); /* its shadow on the face */
    iso_face_outline(cr, f, 0);
    cairo_clip(cr);
    cairo_t *m = iso_soft_begin(cr);
    cairo_translate(m, 0, 3.5);
    hair_path(m, f);
    cairo_fill(m);
    iso_soft_end(cr, m, 2.4, f->shade, 0.6);
    cairo_restore(cr);
    cairo_push_group(cr); /* cut out once, at the end: a clip would be paid for at every strand */
    iso_paint(cr, f->hair, 1);
    cairo_paint(cr);
    m = iso_soft_begin(cr); /* darker towards the ends */
    iso_ellipse(m, -60, 60, 30, 60), iso_ellipse(m, 60, 60, 30, 60);
    cairo_fill(m);
    iso_soft_end(cr, m, 12, iso_rgb_scale(f->hair, 0.55), 0.55);
    cairo_save(cr);
    cairo_translate(cr, iso_face_offset(f), 0);
    comb(cr, f, &r, f->length ? 260 : 170);
    gloss(cr, f);
    cairo_restore(cr);
    cairo_pop_group_to_source(cr);
    hair_path(cr, f);
    cairo_fill(cr);
    if (f->has[ISO_FACE_BANGS]) draw_bangs(cr, f, &r);
}

static bool full_beard(const iso_face *f)
{
    return f->has[ISO_FACE_MUSTACHE] && f->has[ISO_FACE_GOATEE] && f->has[ISO_FACE_SIDEBURNS];
}

static iso_rgb beard_colour(const iso_face *f)
{
    return iso_rgb_mix(iso_rgb_scale(f->hair, 0.72), (iso_rgb){0.12, 0.08, 0.06}, f->has[ISO_FACE_GRAY] ? 0.05 : 0.35);
}

/* Where a beard grows: from the ears along the jaw, up to the lip; `cheek` lifts the upper edge. */
static void beard_path(cairo_t *cr, const iso_face *f, double cheek, double grow)
{
    double x0 = iso_face_half_width(f, 4) + 2, w = f->mouth_w, y = f->mouth_y;
    cairo_new_path(cr);
    cairo_move_to(cr, -x0, 4);
    cairo_curve_to(cr, -x0 + 7, 20 - cheek, -w - 12, y - 5 - cheek, -w - 3, y - 9 - cheek * 0.5);
    cairo_curve_to(cr, -w * 0.6, f->nose_y + 5, w * 0.6, f->nose_y + 5, w + 3, y - 9 - cheek * 0.5);
    cairo_curve_to(cr, w + 12, y - 5 - cheek, x0 - 7, 20 - cheek, x0, 4);
    cairo_line_to(cr, x0 + 4, 40);
    cairo_curve_to(cr, x0 - 4, f->chin_y + 10 + grow, -x0 + 4, f->chin_y + 10 + grow, -x0 - 4, 40);
    cairo_close_path(cr);
}

/* Short hairs inside the current path. */
static void bristles(cairo_t *cr, const iso_face *f, iso_face_rng *r, int n, double y0, double y1, double half)
{
    cairo_path_t *path = cairo_copy_path(cr);
    cairo_push_group(cr);
    iso_rgb c = beard_colour(f);
    cairo_new_path(cr);
    thin_lines(cr);
    cairo_set_line_width(cr, 0.9);
    for (int i = 0; i < n; i++) {
        double x = iso_face_rand(r, -half, half), y = iso_face_rand(r, y0, y1), light = iso_face_rand(r, 0.55, 1.7), l = iso_face_rand(r, 2.5, 5.5);
        cairo_move_to(cr, x, y), cairo_line_to(cr, x + x * 0.05 + iso_face_rand(r, -0.8, 0.8), y + l);
        iso_paint(cr, iso_rgb_scale(c, light), 0.55);
        cairo_stroke(cr);
    }
    cairo_pop_group_to_source(cr);
    cairo_new_path(cr);
    cairo_append_path(cr, path);
    cairo_path_destroy(path);
    cairo_fill(cr);
}

/* Five o'clock shadow: a cool tint with soft edges and thousands of dots. */
static void draw_shadow(cairo_t *cr, const iso_face *f, iso_face_rng *r)
{
    cairo_save(cr);
    iso_face_outline(cr, f, 0);
    cairo_clip(cr);
    iso_rgb tint = iso_rgb_mix(iso_rgb_scale(f->shade, 0.62), (iso_rgb){0.20, 0.22, 0.26}, 0.55);
    cairo_t *m = iso_soft_begin(cr);
    beard_path(m, f, 2, 6);
    cairo_fill(m);
    iso_soft_end(cr, m, 2.6, tint, 0.55);
    beard_path(cr, f, 1, 6);
    cairo_clip(cr);
    for (int i = 0; i < 1500; i++) {
        double x = iso_face_rand(r, -46, 46), y = iso_face_rand(r, 6, 62), s = iso_face_rand(r, 0.5, 1.0);
        cairo_rectangle(cr, x, y, s, s * 1.3);
    }
    iso_paint(cr, iso_rgb_scale(tint, 0.45), 0.5);
    cairo_fill(cr);
    cairo_restore(cr);
}

static void draw_full_beard(cairo_t *cr, const iso_face *f, iso_face_rng *r)
{
    cairo_save(cr);
    iso_face_outline(cr, f, 4);
    cairo_clip(cr);
    cairo_t *m = iso_soft_begin(cr);
    beard_path(m, f, 0, 8);
    cairo_fill(m);
    iso_soft_end(cr, m, 1.4, beard_colour(f), 0.97);
    beard_path(cr, f, -1, 8);
    bristles(cr, f, r, 900, 4, 64, 48);
    cairo_restore(cr);
}

static void draw_goatee(cairo_t *cr, const iso_face *f, iso_face_rng *r)
{
    double y = f->mouth_y + f->gap * 0.85 + f->curve * 0.4 + f->lip * 1.7, w = f->mouth_w;
    cairo_save(cr);
    cairo_translate(cr, iso_face_offset(f) * 0.5, 0);
    cairo_t *m = iso_soft_begin(cr);
    for (int pass = 0; pass < 2; pass++) {
        cairo_t *c = pass ? cr : m;
        cairo_new_path(c);
        cairo_move_to(c, -w * 0.30, y);
        cairo_curve_to(c, -w * 0.35, y + 4, -w * 1.05, f->chin_y - 12, -w * 0.98, f->chin_y - 4);
        cairo_curve_to(c, -w * 0.5, f->chin_y + 9, w * 0.5, f->chin_y + 9, w * 0.98, f->chin_y - 4);
        cairo_curve_to(c, w * 1.05, f->chin_y - 12, w * 0.35, y + 4, w * 0.30, y);
        cairo_close_path(c);
        if (f->has[ISO_FACE_MUSTACHE]) /* joined round the mouth */
            for (int side = -1; side <= 1; side += 2) {
                cairo_new_sub_path(c);
                cairo_move_to(c, side * (w + 0.5), f->mouth_y - 7), cairo_line_to(c, side * (w + 5), f->mouth_y - 3);
                cairo_line_to(c, side * (w + 3), f->chin_y - 3), cairo_line_to(c, side * (w - 5), f->chin_y - 2);
                cairo_line_to(c, side * (w + 0.5), f->mouth_y + 6);
                cairo_close_path(c);
            }
    }
    cairo_fill(m);
    iso_soft_end(cr, m, 0.9, beard_colour(f), 0.97);
    bristles(cr, f, r, 260, y, f->chin_y + 6, w + 5);
    cairo_restore(cr);
}

void iso_draw_beard(cairo_t *cr, const iso_face *f)
{
    iso_face_rng r = iso_face_rng_start(f->seed, f->number, ISO_FACE_FOR_BEARD);
    if (f->has[ISO_FACE_SHADOW]) draw_shadow(cr, f, &r);
    if (full_beard(f)) draw_full_beard(cr, f, &r);
    else if (f->has[ISO_FACE_GOATEE]) draw_goatee(cr, f, &r);
}

void iso_draw_mustache(cairo_t *cr, const iso_face *f)
{
    if (!f->has[ISO_FACE_MUSTACHE]) return;
    iso_face_rng r = iso_face_rng_start(f->seed, f->number + ((int64_t)1 << 40), ISO_FACE_FOR_BEARD);
    double w = f->mouth_w + 3, top = f->nose_y + 3.2, y = f->mouth_y - f->curve * 0.45;
    double low = f->mouth_y + f->curve * 0.38 - f->gap * 0.35 - f->lip * 0.5;
    cairo_save(cr);
    cairo_translate(cr, 1.6 * f->yaw, 0);
    cairo_t *m = iso_soft_begin(cr);
    for (int pass = 0; pass < 2; pass++) {
        cairo_t *c = pass ? cr : m;
        cairo_new_path(c);
        cairo_move_to(c, 0, top);
        cairo_curve_to(c, w * 0.4, top - 1.5, w * 0.85, top + 3, w, y + 3.5);
        cairo_curve_to(c, w * 0.6, low + 0.5, w * 0.3, low, 0, low - 0.6);
        cairo_curve_to(c, -w * 0.3, low, -w * 0.6, low + 0.5, -w, y + 3.5);
        cairo_curve_to(c, -w * 0.85, top + 3, -w * 0.4, top - 1.5, 0, top);
        cairo_close_path(c);
    }
    cairo_fill(m);
    iso_soft_end(cr, m, 0.7, beard_colour(f), 1);
    bristles(cr, f, &r, 130, top - 2, low + 3, w);
    cairo_restore(cr);
}
