/* image_codec.h: what image.c and its decoders share. */
#ifndef ISO_IMAGE_CODEC_H
#define ISO_IMAGE_CODEC_H

#include <stdbool.h>
#include "indexer/image.h"

/* A decoded picture as it is stored, not yet turned upright. */
typedef struct iso_picture {
    uint8_t *rgb;       /* interleaved rows of `stride` bytes; free() */
    int64_t stride;
    int width, height;  /* stored, full size */
    int eighths;        /* decoded at eighths/8 of that: ceil(width * eighths / 8) columns; 8: whole */
    int orientation;    /* EXIF's 1 ... 8 */
} iso_picture;

/* `least`: the side that the crop must keep when a decoder scales down. */
ISO_CHECK iso_status iso_jpeg_decode(const uint8_t *data, size_t size, int least, iso_picture *out, iso_error *err);
ISO_CHECK iso_status iso_png_decode(const uint8_t *data, size_t size, iso_picture *out, iso_error *err);

/* The orientation in an EXIF block that begins with "Exif\0\0"; 1 when it says none or nonsense. */
int iso_exif_orientation(const uint8_t *block, size_t size);
/* 5 ... 8 swap width and height. */
bool iso_exif_swaps(int orientation);

/* Refuses sizes of zero and above ISO_IMAGE_MAX_SIDE and ISO_IMAGE_MAX_PIXELS. */
ISO_CHECK iso_status iso_picture_check(int64_t width, int64_t height, iso_error *err);

/* Around the decoding of one picture: very large ones take turns. */
void iso_picture_enter(int64_t width, int64_t height);
void iso_picture_leave(int64_t width, int64_t height);

#endif
