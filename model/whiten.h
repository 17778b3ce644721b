/* whiten.h: a trained model to one whose vectors are whitened, so that they compare with whitened principal components (methods.md 8).
 *
 *     vector = W (c - mean),   W = ((1 - a) S + a (Tr S / m) I)^(-1/2)
 *
 * c [m] is the vector that the model gives (mu, or flow(mu); the mean over views where it has two), mean and S are mean and covariance
 * (images - 1 below) of the training images' c, a is the shrinkage. W is the symmetric root (ZCA): the whitening that moves vectors
 * the least. With a = 0 the training images' vectors have covariance 1; a > 0 keeps directions that hardly vary, which hold little but
 * noise, from being blown up. Labels take no part.
 *
 * In the file W is `whiten.weight` [m, m] and -W mean is `whiten.bias` [m], a Linear as PyTorch has it, behind all else. Computed in
 * double; the same model, images and number of threads give the same bits.
 *
 * Whitened vectors have no decoder: such a model is neither flattened nor measured nor whitened again. Flatten first.
 * Uses all OpenMP threads. Not thread-safe within one run; nothing is printed: see iso_watch. Memory: 4 m bytes an image. */
#ifndef ISO_WHITEN_H
#define ISO_WHITEN_H

#include "model/train.h"

#define ISO_WHITEN_SHRINKAGE 0.02 /* what programs use unless they are told otherwise */

typedef struct iso_whiten_spec {
    const iso_model *model; /* not whitened; borrowed */
    double shrinkage;       /* a, 0 to 1 */
    const char *path;       /* of the new model's file; iso_whiten_fit leaves it alone */
    bool force;             /* replace it */
    iso_watch watch;        /* say, part and stop are used */
} iso_whiten_spec;

/* The whitened model, by data's training images (two or more, dim ISO_PIXELS, without labels), with all of the model's metadata
 * and whiten.shrinkage and whiten.images.
 * ISO_E_ARGUMENT: what the spec says is impossible; the images' vectors are all alike; a shrinkage of 0 (or nearly) where vectors do
 * not vary in some direction. ISO_E_UNSUPPORTED: no model of images. ISO_E_NUMERIC: W is beyond the range of float.
 * ISO_E_INTERRUPTED: watch.stop said so. */
ISO_CHECK iso_status iso_whiten_fit(const iso_whiten_spec *spec, const iso_train_data *data, iso_model **out,
                                    iso_error *err);

/* What can be known without images: the model is not whitened, the shrinkage is in range, path can be written and is free or force is
 * set. A caller may ask before it decodes images. */
ISO_CHECK iso_status iso_whiten_check(const iso_whiten_spec *spec, iso_error *err);

/* The two above, then saves (output.h). */
ISO_CHECK iso_status iso_whiten(const iso_whiten_spec *spec, const iso_train_data *data, iso_error *err);

#endif
