/* face.h: what the files that draw a face share. Inside demo/ only.
 *
 * Face coordinates: origin between the eyes, x to the viewer's right, y down, one unit a pixel of the 178 x 218 picture;
 * the eyes at (-19.5, 0) and (19.5, 0), the chin near y = 55, the top of the head near y = -54. */
#ifndef ISO_FACE_H
#define ISO_FACE_H

#include <cairo.h>
#include "demo/faces.h"
#include "model/philox.h"

/* Random numbers of one face and one use: uses do not disturb one another, so that the same person can be drawn with
 * one attribute changed. */
typedef enum iso_face_use {
    ISO_FACE_FOR_TRAITS = 1, ISO_FACE_FOR_LOOK, ISO_FACE_FOR_BACKGROUND, ISO_FACE_FOR_CLOTHES, ISO_FACE_FOR_HAIR, ISO_FACE_FOR_BEARD, ISO_FACE_FOR_BROWS,
    ISO_FACE_FOR_WEAR, ISO_FACE_FOR_GRAIN, ISO_FACE_FOR_FILE
} iso_face_use;
typedef struct iso_face_rng { iso_draw draw; float block[64]; int at; } iso_face_rng;
iso_face_rng iso_face_rng_start(uint64_t seed, int64_t number, iso_face_use use);
double iso_face_rand(iso_face_rng *r, double low, double high);

typedef struct iso_rgb { double r, g, b; } iso_rgb;
iso_rgb iso_rgb_mix(iso_rgb a, iso_rgb b, double t);
iso_rgb iso_rgb_scale(iso_rgb a, double k);
iso_rgb iso_rgb_hsv(double h, double s, double v); /* h in turns */

typedef struct iso_face {
    uint64_t seed;
    int64_t number;
    uint8_t has[ISO_FACE_ATTRIBUTES];
    double dx, dy, roll, scale, yaw;            /* pose; yaw in [-1, 1], positive towards the viewer's right */
    double light_angle, light, exposure, warmth;
    iso_rgb skin, shade, glow, blush;
    double temple, cheek, jaw, chin_w, chin_y, top; /* half widths and heights of the head */
    double eye_x, eye_w, eye_h, eye_tilt;
    iso_rgb iris;
    double brow_y, brow_w, brow_arch, brow_tilt;
    double nose_w, nose_y, nose_tip;
    double mouth_y, mouth_w, lip, curve, gap;   /* curve: how far the corners rise; gap: between the lips */
    iso_rgb lips;
    int length;                                 /* of hair: 0 short, 1 to the jaw, 2 long */
    double volume, hairline, part;
    iso_rgb hair;
    iso_rgb brow;
} iso_face;

/* The look of a person with these attributes. */
void iso_face_look(uint64_t seed, int64_t number, const uint8_t has[ISO_FACE_ATTRIBUTES], iso_face *out);

/* Painting. A soft layer is a mask drawn apart, blurred, and laid down in one colour under the clip of `cr`. */
void iso_paint(cairo_t *cr, iso_rgb c, double alpha); /* sets the source */
cairo_t *iso_soft_begin(cairo_t *cr);
void iso_soft_end(cairo_t *cr, cairo_t *mask, double blur, iso_rgb colour, double alpha);
void iso_ellipse(cairo_t *cr, double x, double y, double rx, double ry); /* a path */
void iso_blur(uint8_t *data, int width, int height, int stride, int channels, double sigma);

/* A smooth curve through n points (x0, y0, x1, y1, ...); starts with a line from the current point if there is one. */
void iso_curve(cairo_t *cr, const double *xy, int n, bool closed);
/* The same with a wave of this height and length on it. */
void iso_curve_wavy(cairo_t *cr, const double *xy, int n, double height, double length, double phase);

/* The outline of the head, grown by `by`, as a closed path; its x offset; and its half width at y (0 outside it). */
void iso_face_outline(cairo_t *cr, const iso_face *f, double by);
double iso_face_offset(const iso_face *f);
double iso_face_half_width(const iso_face *f, double y);

/* Layers, from back to front. */
void iso_draw_background(cairo_t *cr, const iso_face *f);
void iso_draw_hair_back(cairo_t *cr, const iso_face *f);
void iso_draw_body(cairo_t *cr, const iso_face *f);
void iso_draw_head(cairo_t *cr, const iso_face *f);
void iso_draw_features(cairo_t *cr, const iso_face *f);
void iso_draw_beard(cairo_t *cr, const iso_face *f);
void iso_draw_mustache(cairo_t *cr, const iso_face *f);
void iso_draw_mouth(cairo_t *cr, const iso_face *f);
void iso_draw_brows(cairo_t *cr, const iso_face *f);
void iso_draw_hair_front(cairo_t *cr, const iso_face *f);
void iso_draw_hat(cairo_t *cr, const iso_face *f);
void iso_draw_glasses(cairo_t *cr, const iso_face *f);
void iso_draw_earrings(cairo_t *cr, const iso_face *f);
void iso_draw_necklace(cairo_t *cr, const iso_face *f);
void iso_draw_collar(cairo_t *cr, const iso_face *f); /* shirt, jacket and tie */

#endif
