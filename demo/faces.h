/* faces.h: drawn faces with known attributes, in CelebA's layout: a data set that may be shared, shown and tested on.
 *
 * A face is a pure function of (seed, number): the same bytes for any count and any number of threads. Eyes lie near
 * (69, 111) and (108, 111) in a picture of 178 x 218, as in CelebA's aligned images. */
#ifndef ISO_FACES_H
#define ISO_FACES_H

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"

#define ISO_FACE_WIDTH 178
#define ISO_FACE_HEIGHT 218
#define ISO_FACE_BYTES (ISO_FACE_WIDTH * ISO_FACE_HEIGHT * 3)
#define ISO_FACES_MAX 999999 /* CelebA's names have six digits */

/* CelebA's attributes in CelebA's order. Each is drawn, except Attractive: that is a label which goes with others. */
#define ISO_FACE_TRAITS(T) \
    T(5_o_Clock_Shadow, SHADOW) T(Arched_Eyebrows, ARCHED) T(Attractive, ATTRACTIVE) T(Bags_Under_Eyes, BAGS) \
    T(Bald, BALD) T(Bangs, BANGS) T(Big_Lips, BIG_LIPS) T(Big_Nose, BIG_NOSE) T(Black_Hair, BLACK) T(Blond_Hair, BLOND) \
    T(Blurry, BLURRY) T(Brown_Hair, BROWN) T(Bushy_Eyebrows, BUSHY) T(Chubby, CHUBBY) T(Double_Chin, DOUBLE_CHIN) \
    T(Eyeglasses, GLASSES) T(Goatee, GOATEE) T(Gray_Hair, GRAY) T(Heavy_Makeup, MAKEUP) T(High_Cheekbones, CHEEKBONES) \
    T(Male, MALE) T(Mouth_Slightly_Open, OPEN) T(Mustache, MUSTACHE) T(Narrow_Eyes, NARROW) T(No_Beard, NO_BEARD) \
    T(Oval_Face, OVAL) T(Pale_Skin, PALE) T(Pointy_Nose, POINTY) T(Receding_Hairline, RECEDING) T(Rosy_Cheeks, ROSY) \
    T(Sideburns, SIDEBURNS) T(Smiling, SMILING) T(Straight_Hair, STRAIGHT) T(Wavy_Hair, WAVY) T(Wearing_Earrings, EARRINGS) \
    T(Wearing_Hat, HAT) T(Wearing_Lipstick, LIPSTICK) T(Wearing_Necklace, NECKLACE) T(Wearing_Necktie, NECKTIE) \
    T(Young, YOUNG)

enum {
#define ISO_FACE_ENUM(name, id) ISO_FACE_##id,
    ISO_FACE_TRAITS(ISO_FACE_ENUM)
#undef ISO_FACE_ENUM
    ISO_FACE_ATTRIBUTES /* 40 */
};
extern const char *const iso_face_attribute[ISO_FACE_ATTRIBUTES];

/* The attributes of a face, one byte (0 or 1) each; consistent: one hair colour at most, no beard with No_Beard, ... */
void iso_face_traits(uint64_t seed, int64_t number, uint8_t has[ISO_FACE_ATTRIBUTES]);

/* The picture, interleaved RGB rows, of that person with these attributes (iso_face_traits' or others: the same person
 * with one changed). */
ISO_CHECK iso_status iso_face_draw(uint64_t seed, int64_t number, const uint8_t has[ISO_FACE_ATTRIBUTES], uint8_t rgb[ISO_FACE_BYTES], iso_error *err);

/* Faces 1 ... count into DIR: img_align_celeba/000001.jpg ..., list_attr_celeba.txt, list_eval_partition.txt (train, then
 * validation, then test images, as in CelebA) and drawfaces.txt, which marks the folder as one that may be redrawn. */
typedef struct iso_faces_spec {
    int64_t count;       /* 1 ... ISO_FACES_MAX */
    uint64_t seed;
    double train, valid; /* shares; the rest tests */
    bool force;          /* redraw a folder of drawn faces */
    bool quiet;
} iso_faces_spec;

/* A folder that is there and not empty is ISO_E_ARGUMENT, unless `force` and it holds drawn faces. ISO_E_INTERRUPTED when
 * the user stops it; the lists are written last. */
ISO_CHECK iso_status iso_faces_write(const char *dir, const iso_faces_spec *spec, iso_error *err);

#endif
