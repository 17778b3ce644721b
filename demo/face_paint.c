/* face_paint.c: colours, curves, soft layers and random numbers that the drawing is made of. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "demo/face.h"

iso_face_rng iso_face_rng_start(uint64_t seed, int64_t number, iso_face_use use)
{
    return (iso_face_rng){.draw = {.seed = seed, .stream = (uint32_t)use << 20, .step = (uint64_t)number}, .at = 64};
}

double iso_face_rand(iso_face_rng *r, double low, double high)
{
    if (r->at == 64) {
        iso_draw_uniform(r->draw, 0, 1, 64, r->block);
        r->draw.stream++;
        r->at = 0;
    }
    return low + (high - low) * r->block[r->at++];
}

iso_rgb iso_rgb_mix(iso_rgb a, iso_rgb b, double t)
{
    return (iso_rgb){a.r + (b.r - a.r) * t, a.g + (b.g - a.g) * t, a.b + (b.b - a.b) * t};
}

iso_rgb iso_rgb_scale(iso_rgb a, double k)
{
    return (iso_rgb){fmin(a.r * k, 1), fmin(a.g * k, 1), fmin(a.b * k, 1)};
}

static double hue_channel(double h, double s, double v, double shift)
{
    double x = fabs(fmod(h + shift, 1) * 6 - 3) - 1;
    return v * (1 - s + s * fmin(fmax(x, 0), 1));
}

iso_rgb iso_rgb_hsv(double h, double s, double v)
{
    return (iso_rgb){hue_channel(h, s, v, 1), hue_channel(h, s, v, 2.0 / 3), hue_channel(h, s, v, 1.0 / 3)};
}

void iso_paint(cairo_t *cr, iso_rgb c, double alpha) { cairo_set_source_rgba(cr, c.r, c.g, c.b, alpha); }

void iso_ellipse(cairo_t *cr, double x, double y, double rx, double ry)
{
    cairo_matrix_t m;
    cairo_get_matrix(cr, &m);
    cairo_translate(cr, x, y);
    cairo_scale(cr, fmax(rx, 1e-3), fmax(ry, 1e-3));
    cairo_new_sub_path(cr);
    cairo_arc(cr, 0, 0, 1, 0, 2 * M_PI);
    cairo_set_matrix(cr, &m);
}

/* One box pass of radius r along a line of n samples `step` apart, edges repeated. */
static void box_line(uint8_t *line, int n, int step, int r, uint8_t *copy)
{
    for (int i = 0; i < n; i++) copy[i] = line[(size_t)i * step];
    uint32_t sum = copy[0] * (uint32_t)r, width = 2 * (uint32_t)r + 1, inverse = 65536 / width + 1;
    for (int i = 0; i < r; i++) sum += copy[i < n ? i : n - 1];
    for (int i = 0; i < n; i++) {
        sum += copy[i + r < n ? i + r : n - 1];
        uint32_t mean = (sum + (uint32_t)r) * inverse >> 16;
        line[(size_t)i * step] = (uint8_t)(mean < 255 ? mean : 255);
        sum -= copy[i - r > 0 ? i - r : 0];
    }
}

/* Three box passes come close to a Gaussian. */
void iso_blur(uint8_t *data, int width, int height, int stride, int channels, double sigma)
{
    uint8_t copy[ISO_FACE_HEIGHT > ISO_FACE_WIDTH ? ISO_FACE_HEIGHT : ISO_FACE_WIDTH];
    for (int pass = 0; pass < 3; pass++) {
        /* radii whose variances add up to sigma squared */
        int r = (int)(sqrt(4 * sigma * sigma + 1) / 2 - 0.5 + (pass + 0.5) / 3);
        if (r < 1) continue;
        for (int c = 0; c < channels; c++) {
            for (int y = 0; y < height; y++) box_line(data + (size_t)y * stride + c, width, channels, r, copy);
            for (int x = 0; x < width; x++) box_line(data + (size_t)x * channels + c, height, stride, r, copy);
        }
    }
}

typedef struct box { int x0, y0, x1, y1; } box; /* x1, y1 not included */

/* Where a mask is not empty, and `margin` more: most soft layers are small, and blurring is what drawing costs. */
static box covered(const uint8_t *data, int stride, int margin)
{
    static const uint8_t none[ISO_FACE_WIDTH];
    box b = {ISO_FACE_WIDTH, ISO_FACE_HEIGHT, 0, 0};
    for (int y = 0; y < ISO_FACE_HEIGHT; y++) {
        const uint8_t *row = data + (size_t)y * stride;
        if (memcmp(row, none, ISO_FACE_WIDTH) == 0) continue;
        int x0 = 0, x1 = ISO_FACE_WIDTH;
        while (!row[x0]) x0++;
        while (!row[x1 - 1]) x1--;
        if (b.y1 == 0) b.y0 = y;
        b.y1 = y + 1;
        if (x0 < b.x0) b.x0 = x0;
        if (x1 > b.x1) b.x1 = x1;
    }
    b.x0 = b.x0 > margin ? b.x0 - margin : 0, b.y0 = b.y0 > margin ? b.y0 - margin : 0;
    b.x1 = b.x1 + margin < ISO_FACE_WIDTH ? b.x1 + margin : ISO_FACE_WIDTH;
    b.y1 = b.y1 + margin < ISO_FACE_HEIGHT ? b.y1 + margin : ISO_FACE_HEIGHT;
    return b;
}

cairo_t *iso_soft_begin(cairo_t *cr)
{
    cairo_surface_t *s = cairo_image_surface_create(CAIRO_FORMAT_A8, ISO_FACE_WIDTH, ISO_FACE_HEIGHT);
    cairo_t *mask = cairo_create(s);
    cairo_surface_destroy(s); /* the context keeps it */
    cairo_matrix_t m;
    cairo_get_matrix(cr, &m);
    cairo_set_matrix(mask, &m);
    cairo_set_line_cap(mask, CAIRO_LINE_CAP_ROUND);
    cairo_set_source_rgba(mask, 0, 0, 0, 1);
    return mask;
}

void iso_soft_end(cairo_t *cr, cairo_t *mask, double blur, iso_rgb colour, double alpha)
{
    cairo_surface_t *s = cairo_get_target(mask);
    cairo_surface_flush(s);
    uint8_t *data = cairo_image_surface_get_data(s);
    int stride = cairo_image_surface_get_stride(s);
    box b = {0, 0, 0, 0};
    if (data) b = covered(data, stride, (int)(3 * blur) + 2);
    if (b.x1 > b.x0 && b.y1 > b.y0) {
        iso_blur(data + (size_t)b.y0 * stride + b.x0, b.x1 - b.x0, b.y1 - b.y0, stride, 1, blur);
        cairo_surface_mark_dirty(s);
        cairo_save(cr);
        cairo_identity_matrix(cr);
        cairo_new_path(cr);
        cairo_rectangle(cr, b.x0, b.y0, b.x1 - b.x0, b.y1 - b.y0);
        cairo_clip(cr);
        iso_paint(cr, colour, alpha);
        cairo_mask_surface(cr, s, 0, 0);
        cairo_restore(cr);
    }
    cairo_destroy(mask);
}

static const double *point(const double *xy, int n, int i, bool closed)
{
    if (closed) i = (i + n) % n;
    return xy + 2 * (i < 0 ? 0 : i >= n ? n - 1 : i);
}

/* Catmull-Rom: the tangent at a point is half the chord between its neighbours. */
void iso_curve(cairo_t *cr, const double *xy, int n, bool closed)
{
    if (cairo_has_current_point(cr) && !closed) cairo_line_to(cr, xy[0], xy[1]);
    else cairo_move_to(cr, xy[0], xy[1]);
    for (int i = 0; i < (closed ? n : n - 1); i++) {
        const double *a = point(xy, n, i - 1, closed), *b = point(xy, n, i, closed);
        const double *c = point(xy, n, i + 1, closed), *d = point(xy, n, i + 2, closed);
        cairo_curve_to(cr, b[0] + (c[0] - a[0]) / 6, b[1] + (c[1] - a[1]) / 6, c[0] - (d[0] - b[0]) / 6, c[1] - (d[1] - b[1]) / 6,
                       c[0], c[1]);
    }
    if (closed) cairo_close_path(cr);
}

static double spline(double a, double b, double c, double d, double t)
{
    return 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t * t + (3 * b - a - 3 * c + d) * t * t * t);
}

void iso_curve_wavy(cairo_t *cr, const double *xy, int n, double height, double length, double phase)
{
    enum { STEPS = 24 };
    double run = 0, px = xy[0], py = xy[1];
    for (int i = 0; i < n - 1; i++) {
        const double *a = point(xy, n, i - 1, false), *b = point(xy, n, i, false);
        const double *c = point(xy, n, i + 1, false), *d = point(xy, n, i + 2, false);
        for (int k = i ? 1 : 0; k <= STEPS; k++) {
            double t = (double)k / STEPS;
            double x = spline(a[0], b[0], c[0], d[0], t), y = spline(a[1], b[1], c[1], d[1], t);
            double step = hypot(x - px, y - py), nx = 0, ny = 0;
            if (step > 0) nx = -(y - py) / step, ny = (x - px) / step;
            run += step;
            double w = height * sin(2 * M_PI * run / length + phase);
            if (cairo_has_current_point(cr)) cairo_line_to(cr, x + w * nx, y + w * ny);
            else cairo_move_to(cr, x + w * nx, y + w * ny);
            px = x, py = y;
        }
    }
}
