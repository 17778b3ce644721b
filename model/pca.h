/* pca.h: method `pca`: whitened principal components of the training images' pixels, the lower bound of methods.md 8.
 *
 *     vector = W (x - mean), rows of W: eigenvectors of the covariance (images - 1 below), each divided by its standard deviation
 *
 * found by randomised subspace iteration (Halko 2011) over blocks of images, so that beside the pixels' bytes only some
 * [latent, 12288] matrices are in memory. The vectors of the training images have mean 0 and covariance 1, whether or not the
 * iteration has settled. The start is drawn from (seed); the same seed, images and number of threads give the same bits.
 *
 * A pass costs 4 x images x 12288 x (1.25 latent + 16) floating point operations; some 5 to 15 passes settle it.
 * Uses all OpenMP threads. Not thread-safe within one run; nothing is printed: see iso_watch. */
#ifndef ISO_PCA_H
#define ISO_PCA_H

#include "model/train.h"

typedef struct iso_pca_spec {
    int latent;         /* at most images - 1 and 4096; components that (nearly) do not vary are an error */
    int views;          /* of iso_net; with 2 it is the components of the mirror-symmetric parts that the vectors have */
    uint64_t seed;
    const char *path;   /* of the model file; iso_pca_fit leaves it alone */
    bool force;         /* replace it */
    iso_watch watch;    /* say, part and stop are used */
} iso_pca_spec;

/* The model of data's training images (dim ISO_PIXELS), with metadata method, seed, train_images, explained_variance (share
 * of the total variance). ISO_E_ARGUMENT: too many components for the images; ISO_E_INTERRUPTED: watch.stop said so. */
ISO_CHECK iso_status iso_pca_fit(const iso_pca_spec *spec, const iso_train_data *data, iso_model **out, iso_error *err);

/* Whether path can be written and is free, or force is set. ISO_E_ARGUMENT: there is a model, or a PATH.state of one. A
 * caller may ask before it decodes images. */
ISO_CHECK iso_status iso_pca_check(const iso_pca_spec *spec, iso_error *err);

/* The two above, then saves. With force, a PATH.state and PATH.csv of the model that was there are removed. */
ISO_CHECK iso_status iso_pca_train(const iso_pca_spec *spec, const iso_train_data *data, iso_error *err);

#endif
