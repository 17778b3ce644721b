/* face_traits.c: who is drawn: attributes that go together as they do among people, and the look that follows from them. */
#include <math.h>
#include <string.h>

#include "demo/face.h"

const char *const iso_face_attribute[ISO_FACE_ATTRIBUTES] = {
#define NAME(name, id) #name,
    ISO_FACE_TRAITS(NAME)
#undef NAME
};

static bool chance(iso_face_rng *r, double p) { return iso_face_rand(r, 0, 1) < p; }

/* Hair that shows: its colour, its style, where it ends. */
static void hair_traits(iso_face_rng *r, uint8_t *h)
{
    bool male = h[ISO_FACE_MALE], young = h[ISO_FACE_YOUNG];
    double bald = iso_face_rand(r, 0, 1), colour = iso_face_rand(r, 0, 1), style = iso_face_rand(r, 0, 1);
    bool hat = chance(r, 0.11), bangs = chance(r, male ? 0.12 : 0.32), receding = chance(r, male ? (young ? 0.1 : 0.35) : 0.03);
    h[ISO_FACE_HAT] = hat;
    h[ISO_FACE_BALD] = !hat && male && bald < (young ? 0.07 : 0.22);
    if (h[ISO_FACE_BALD]) return;
    double gray = young ? 0.02 : 0.5, black = gray + (1 - gray) * 0.27, brown = black + (1 - gray) * 0.29;
    double blond = brown + (1 - gray) * (male ? 0.16 : 0.27); /* what is left is red, or of no clear colour */
    int which = colour < gray ? ISO_FACE_GRAY : colour < black ? ISO_FACE_BLACK : colour < brown ? ISO_FACE_BROWN
              : colour < blond ? ISO_FACE_BLOND : -1;
    if (which >= 0) h[which] = 1;
    double wavy = male ? 0.22 : 0.42, straight = male ? 0.32 : 0.36;
    h[ISO_FACE_WAVY] = style < wavy;
    h[ISO_FACE_STRAIGHT] = style >= wavy && style < wavy + straight;
    if (hat) return;
    h[ISO_FACE_BANGS] = bangs;
    h[ISO_FACE_RECEDING] = !bangs && receding;
}

static void beard_traits(iso_face_rng *r, uint8_t *h)
{
    double kind = iso_face_rand(r, 0, 1);
    bool sideburns = chance(r, 0.16);
    if (h[ISO_FACE_MALE]) {
        bool full = kind >= 0.5 && kind < 0.6;
        h[ISO_FACE_SHADOW] = kind >= 0.82;
        h[ISO_FACE_MUSTACHE] = kind >= 0.5 && kind < 0.73;
        h[ISO_FACE_GOATEE] = full || (kind >= 0.67 && kind < 0.82);
        h[ISO_FACE_SIDEBURNS] = !h[ISO_FACE_BALD] && (full || sideburns);
    }
    h[ISO_FACE_NO_BEARD] = !h[ISO_FACE_SHADOW] && !h[ISO_FACE_MUSTACHE] && !h[ISO_FACE_GOATEE];
}

static void face_traits(iso_face_rng *r, uint8_t *h)
{
    bool male = h[ISO_FACE_MALE], young = h[ISO_FACE_YOUNG];
    h[ISO_FACE_CHUBBY] = chance(r, 0.15);
    h[ISO_FACE_DOUBLE_CHIN] = chance(r, h[ISO_FACE_CHUBBY] ? 0.55 : young ? 0.03 : 0.1);
    h[ISO_FACE_OVAL] = chance(r, 0.38) && !h[ISO_FACE_CHUBBY];
    h[ISO_FACE_PALE] = chance(r, 0.13);
    h[ISO_FACE_BIG_NOSE] = chance(r, male ? 0.32 : 0.14);
    h[ISO_FACE_POINTY] = chance(r, 0.34) && !h[ISO_FACE_BIG_NOSE];
    h[ISO_FACE_BIG_LIPS] = chance(r, 0.27);
    h[ISO_FACE_NARROW] = chance(r, 0.17);
    h[ISO_FACE_BAGS] = chance(r, young ? 0.13 : 0.42);
    h[ISO_FACE_ARCHED] = chance(r, male ? 0.14 : 0.45);
    h[ISO_FACE_BUSHY] = chance(r, male ? 0.34 : 0.08);
    h[ISO_FACE_SMILING] = chance(r, 0.48);
    h[ISO_FACE_OPEN] = chance(r, h[ISO_FACE_SMILING] ? 0.62 : 0.28);
    h[ISO_FACE_CHEEKBONES] = chance(r, (h[ISO_FACE_SMILING] ? 0.55 : 0.22) - (h[ISO_FACE_CHUBBY] ? 0.15 : 0));
}

static void wear_traits(iso_face_rng *r, uint8_t *h)
{
    bool male = h[ISO_FACE_MALE], young = h[ISO_FACE_YOUNG];
    h[ISO_FACE_GLASSES] = chance(r, young ? 0.15 : 0.32);
    h[ISO_FACE_MAKEUP] = chance(r, male ? 0 : young ? 0.5 : 0.32);
    h[ISO_FACE_LIPSTICK] = chance(r, male ? 0.005 : h[ISO_FACE_MAKEUP] ? 0.93 : 0.3);
    h[ISO_FACE_ROSY] = chance(r, male ? 0.05 : h[ISO_FACE_MAKEUP] ? 0.36 : 0.16);
    h[ISO_FACE_EARRINGS] = chance(r, male ? 0.04 : 0.42);
    h[ISO_FACE_NECKTIE] = chance(r, male ? 0.22 : 0.006);
    h[ISO_FACE_NECKLACE] = chance(r, male ? 0.03 : 0.32) && !h[ISO_FACE_NECKTIE];
    h[ISO_FACE_BLURRY] = chance(r, 0.08);
    double liked = 0.25 + 0.35 * young + 0.2 * h[ISO_FACE_MAKEUP] + 0.08 * h[ISO_FACE_SMILING] - 0.35 * h[ISO_FACE_CHUBBY]
                 - 0.25 * h[ISO_FACE_BLURRY] - 0.15 * h[ISO_FACE_BIG_NOSE] - 0.15 * h[ISO_FACE_BAGS] - 0.1 * h[ISO_FACE_GLASSES];
    h[ISO_FACE_ATTRACTIVE] = chance(r, liked);
}

void iso_face_traits(uint64_t seed, int64_t number, uint8_t has[ISO_FACE_ATTRIBUTES])
{
    iso_face_rng r = iso_face_rng_start(seed, number, ISO_FACE_FOR_TRAITS);
    memset(has, 0, ISO_FACE_ATTRIBUTES);
    has[ISO_FACE_MALE] = chance(&r, 0.46);
    has[ISO_FACE_YOUNG] = chance(&r, has[ISO_FACE_MALE] ? 0.66 : 0.78);
    hair_traits(&r, has);
    beard_traits(&r, has);
    face_traits(&r, has);
    wear_traits(&r, has);
}

static iso_rgb skin_tone(double t)
{
    static const iso_rgb stop[] = {{0.95, 0.79, 0.69}, {0.90, 0.70, 0.56}, {0.80, 0.58, 0.43}, {0.62, 0.42, 0.30}, {0.42, 0.27, 0.19}};
    int i = t >= 1 ? 3 : (int)(t * 4);
    return iso_rgb_mix(stop[i], stop[i + 1], t * 4 - i);
}

static iso_rgb hair_colour(const uint8_t *h, double a, double b)
{
    if (h[ISO_FACE_BLACK]) return (iso_rgb){0.08 + 0.04 * a, 0.07 + 0.03 * a, 0.07 + 0.05 * b};
    if (h[ISO_FACE_BROWN]) return (iso_rgb){0.36 + 0.14 * a, 0.21 + 0.09 * a, 0.11 + 0.06 * b};
    if (h[ISO_FACE_BLOND]) return (iso_rgb){0.86 + 0.10 * a, 0.68 + 0.14 * a, 0.34 + 0.20 * b};
    if (h[ISO_FACE_GRAY]) return (iso_rgb){0.62 + 0.22 * a, 0.63 + 0.21 * a, 0.66 + 0.19 * a};
    return (iso_rgb){0.56 + 0.14 * a, 0.22 + 0.08 * a, 0.09 + 0.05 * b};
}

static void look_skin_and_light(iso_face_rng *r, iso_face *f)
{
    double tone = iso_face_rand(r, 0, 1), red = iso_face_rand(r, -0.02, 0.02);
    f->skin = skin_tone(0.12 + 0.88 * tone * (0.55 + 0.45 * tone));
    if (f->has[ISO_FACE_PALE]) f->skin = (iso_rgb){0.985, 0.915 + 0.015 * tone, 0.885 + 0.02 * tone};
    f->skin.r += red / 2, f->skin.g -= red / 2;
    f->shade = (iso_rgb){f->skin.r * 0.60, f->skin.g * 0.44, f->skin.b * 0.40};
    f->glow = iso_rgb_mix(f->skin, (iso_rgb){1, 0.97, 0.92}, 0.55);
    f->blush = iso_rgb_mix(f->skin, (iso_rgb){0.92, 0.22, 0.28}, 0.62);
    f->light_angle = iso_face_rand(r, -2.9, -0.25);
    f->light = iso_face_rand(r, 0.06, 0.30);
    f->exposure = iso_face_rand(r, -0.10, 0.08);
    f->warmth = iso_face_rand(r, -1, 1);
}

static void look_shape(iso_face_rng *r, iso_face *f)
{
    const uint8_t *h = f->has;
    double male = h[ISO_FACE_MALE] ? 1 : 0;
    f->dx = iso_face_rand(r, -1.8, 1.8), f->dy = iso_face_rand(r, -1.8, 1.8);
    f->roll = iso_face_rand(r, -0.07, 0.07), f->scale = iso_face_rand(r, 0.96, 1.04), f->yaw = iso_face_rand(r, -1, 1);
    f->temple = iso_face_rand(r, 38.5, 42.5), f->cheek = iso_face_rand(r, 39, 43) + male;
    double jaw = iso_face_rand(r, -2, 2);
    f->jaw = 32 + jaw + 2.5 * male;
    f->chin_w = iso_face_rand(r, 12, 16) + 3 * male;
    f->chin_y = iso_face_rand(r, 52, 56) + 1.5 * male;
    f->top = iso_face_rand(r, 51, 56);
    if (h[ISO_FACE_OVAL]) f->cheek -= 3.5, f->temple -= 2, f->jaw -= 6, f->chin_w -= 3, f->chin_y += 3;
    else f->jaw += 2, f->chin_w += 2;
    if (h[ISO_FACE_CHUBBY]) f->cheek += 4.5, f->jaw += 8, f->chin_w += 8, f->temple += 1;
    f->eye_x = iso_face_rand(r, 18.7, 20.3), f->eye_w = iso_face_rand(r, 8.8, 10.2);
    f->eye_h = iso_face_rand(r, 4.9, 6.0), f->eye_tilt = iso_face_rand(r, -0.06, 0.14);
    if (h[ISO_FACE_NARROW]) f->eye_h *= 0.38, f->eye_w += 0.8;
    double iris = iso_face_rand(r, 0, 1), deep = iso_face_rand(r, 0.7, 1.1);
    f->iris = iris < 0.55 ? (iso_rgb){0.33 * deep, 0.20 * deep, 0.12 * deep} : iris < 0.8 ? (iso_rgb){0.28, 0.45 * deep, 0.62 * deep}
                                                                                        : (iso_rgb){0.34, 0.48 * deep, 0.30};
}

static void look_features(iso_face_rng *r, iso_face *f)
{
    const uint8_t *h = f->has;
    bool male = h[ISO_FACE_MALE];
    f->brow_y = iso_face_rand(r, -14.2, -12.2) + male, f->brow_w = iso_face_rand(r, 1.6, 2.4) + 0.9 * male;
    f->brow_arch = iso_face_rand(r, 0, 1), f->brow_tilt = iso_face_rand(r, -0.06, 0.05);
    if (h[ISO_FACE_ARCHED]) f->brow_arch += 6, f->brow_y -= 1;
    if (h[ISO_FACE_BUSHY]) f->brow_w += 3.2;
    f->nose_w = iso_face_rand(r, 6.6, 8.2) + male, f->nose_y = iso_face_rand(r, 19, 22), f->nose_tip = iso_face_rand(r, 0, 1);
    if (h[ISO_FACE_BIG_NOSE]) f->nose_w += 5.2, f->nose_y += 2;
    if (h[ISO_FACE_POINTY]) f->nose_w -= 2.6, f->nose_y += 1;
    f->mouth_y = iso_face_rand(r, 33.5, 36), f->mouth_w = iso_face_rand(r, 12.5, 15), f->lip = iso_face_rand(r, 2.1, 3.0) - 0.3 * male;
    double mood = iso_face_rand(r, -1.6, 0.2), wide = iso_face_rand(r, 4.4, 6.0), gap = iso_face_rand(r, 3.2, 5.6);
    f->curve = h[ISO_FACE_SMILING] ? wide : mood;
    if (h[ISO_FACE_SMILING]) f->mouth_w += 3.8;
    if (h[ISO_FACE_BIG_LIPS]) f->lip += 2.5;
    f->gap = h[ISO_FACE_OPEN] ? gap + (h[ISO_FACE_SMILING] ? 1.5 : 0.5) : 0;
    double shade = iso_face_rand(r, 0, 1), depth = iso_face_rand(r, 0.62, 0.9);
    f->lips = iso_rgb_mix(f->skin, (iso_rgb){0.68, 0.28, 0.27}, male ? 0.34 : 0.46);
    if (h[ISO_FACE_LIPSTICK]) f->lips = iso_rgb_hsv(0.93 + 0.075 * shade, 0.88, depth);
}

static void look_hair(iso_face_rng *r, iso_face *f)
{
    const uint8_t *h = f->has;
    double a = iso_face_rand(r, 0, 1), b = iso_face_rand(r, 0, 1), length = iso_face_rand(r, 0, 1);
    f->volume = iso_face_rand(r, 5, 10), f->hairline = iso_face_rand(r, -38, -33), f->part = iso_face_rand(r, -0.7, 0.7);
    f->length = h[ISO_FACE_MALE] ? (length < 0.9 ? 0 : length < 0.95 ? 1 : 2) : length < 0.12 ? 0 : length < 0.45 ? 1 : 2;
    if (h[ISO_FACE_BALD] || h[ISO_FACE_SIDEBURNS]) f->length = 0;
    if (h[ISO_FACE_WAVY]) f->volume += 3;
    f->hair = hair_colour(h, a, b);
    bool named = h[ISO_FACE_BLACK] || h[ISO_FACE_BROWN] || h[ISO_FACE_BLOND] || h[ISO_FACE_GRAY];
    if (!named && f->skin.g < 0.5) f->hair = iso_rgb_scale(f->hair, 0.62);
    if (h[ISO_FACE_BALD]) f->hair = (iso_rgb){0.25 + 0.3 * a, 0.18 + 0.3 * a, 0.14 + 0.3 * a};
    f->brow = iso_rgb_scale(f->hair, h[ISO_FACE_BLOND] ? 0.55 : h[ISO_FACE_GRAY] ? 0.72 : 0.62);
    if (f->skin.g < 0.45) /* brows that show on dark skin */
        f->brow = h[ISO_FACE_GRAY] ? iso_rgb_scale(f->hair, 0.95) : iso_rgb_mix(f->brow, (iso_rgb){0.06, 0.04, 0.04}, 0.7);
}

/* Draws are taken in one order whatever the attributes, so that one person keeps one look. */
void iso_face_look(uint64_t seed, int64_t number, const uint8_t has[ISO_FACE_ATTRIBUTES], iso_face *out)
{
    iso_face f = {.seed = seed, .number = number};
    memcpy(f.has, has, sizeof f.has);
    iso_face_rng r = iso_face_rng_start(seed, number, ISO_FACE_FOR_LOOK);
    look_skin_and_light(&r, &f);
    look_shape(&r, &f);
    look_features(&r, &f);
    look_hair(&r, &f);
    *out = f;
}
