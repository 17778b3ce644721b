/* vindex_kmeans.h: the lists of an inverted file: centroids of a sample, and the list of each row. FAISS's k-means underneath. */
#ifndef ISO_VINDEX_KMEANS_H
#define ISO_VINDEX_KMEANS_H

#include <stdint.h>
#include "retriever/vindex.h"

/* centroids [k, dim] of rows x [n, dim], 1 <= k <= n. Many centroids are found in two levels (clusters of about sqrt(k), each
 * divided by itself, in more levels where it has most of the rows), which costs sqrt(k) instead of k distances a row. The same rows give the same centroids. Uses all threads.
 * progress (NULL: none) is of the clusters. */
ISO_CHECK iso_status iso_vindex_kmeans(int dim, int64_t n, const float *x, int64_t k, float *centroids, iso_progress *progress, iso_error *err);

/* Finds the nearest centroid of rows, or among very many one that is about as near. */
typedef struct iso_vindex_nearest iso_vindex_nearest;
ISO_CHECK iso_status iso_vindex_nearest_create(int dim, int64_t k, const float *centroids, iso_vindex_nearest **out,
                                               iso_error *err);
void iso_vindex_nearest_free(iso_vindex_nearest *f);
/* list [n] of rows x [n, dim]. One thread at a time; uses all. */
ISO_CHECK iso_status iso_vindex_nearest_find(const iso_vindex_nearest *f, int64_t n, const float *x, uint32_t *list,
                                             iso_error *err);

#endif
