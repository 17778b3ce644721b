/* pictures.h: a latent space in pictures: its codes with equidistance ellipses (Lee 2022, figure 1), and sheets of decoded images
 * (Lee 2022 E.1). PNG files by chart.h, with its errors; `title` (UTF-8) names the model. */
#ifndef ISO_PICTURES_H
#define ISO_PICTURES_H

#include "eval/pullback.h"

/* The codes p->code, coloured by group, with ellipses at up to 30 of the mixed-up codes, no two near one another. Two dimensions as
 * they are; of more the plane of the two leading principal directions, with the metrics restricted to it, Pt G P.
 * group [p->images] in 0 ... names - 1, -1: none of them; NULL where names is 0. ISO_E_UNSUPPORTED: one dimension. */
ISO_CHECK iso_status iso_picture_codes(const iso_pullback *p, const char *title, const int *group, int names, const char *const *name,
                                       const char *path, iso_error *err);

/* Images [n, 64, 64, 3] over what is decoded from their codes, the first 40. */
ISO_CHECK iso_status iso_picture_reconstructions(const iso_model *m, const uint8_t *pixels, int64_t n, double mse, const char *title,
                                                 const char *path, iso_error *err);

/* The first 8 pairs of the images and, between them, what is decoded on the straight line from code to code. ISO_E_NOT_FOUND:
 * there is one image only. */
ISO_CHECK iso_status iso_picture_interpolations(const iso_model *m, const uint8_t *pixels, const iso_pullback *p, const char *title,
                                                const char *path, iso_error *err);

/* What is decoded along the leading principal directions of the codes, up to 8, from the first image's code: three standard
 * deviations to either side. ISO_E_NOT_FOUND: there is one image only. */
ISO_CHECK iso_status iso_picture_axes(const iso_model *m, const iso_pullback *p, const char *title, const char *path, iso_error *err);

#endif
