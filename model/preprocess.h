/* preprocess.h: from a decoded picture to what the encoder sees (methods.md, "Vectors to compare" 1).
 *
 * Pure functions of their arguments: any number of threads may call them at once; nothing here can fail. */
#ifndef ISO_PREPROCESS_H
#define ISO_PREPROCESS_H

#include <stdint.h>
#include "base/error.h"

#define ISO_SIDE 64
#define ISO_PIXELS (ISO_SIDE * ISO_SIDE * 3)

/* The centred square that is kept: CelebA's 178 x 218 gives its central 148 x 148, all else the largest square.
 * Where the remainder is odd the square lies half a pixel to the left (or up). */
void iso_crop(int width, int height, int *x, int *y, int *side);

/* Area-resamples the square [x8, x8+side8) x [y8, y8+side8), in 1/8 pixels, of an RGB picture (rows of `stride` bytes, interleaved) to
 * n x n RGB: each output pixel is the mean over the area it covers, exact for any side, rounded half up. In eighths a crop of the
 * full picture is told as it lies in a picture that was decoded at num/8 of its size (x8 = x * num). side8 >= 1, side8 and n at
 * most 2^19. */
void iso_resample_eighths(const uint8_t *rgb, int64_t stride, int64_t x8, int64_t y8, int64_t side8, int n, uint8_t *out);

/* bytes to [-1, 1]: x / 127.5 - 1. */
void iso_pixels_to_real(const uint8_t *bytes, int64_t n, float *out);

/* Swaps left and right of one picture [64, 64, 3]. */
void iso_mirror(float pixels[ISO_PIXELS]);

#endif
