/* vindex_tune.h: queries to tune an approximate index with, and how much of their exact answers it finds. */
#ifndef ISO_VINDEX_TUNE_H
#define ISO_VINDEX_TUNE_H

#include "retriever/vindex_parts.h"

#define ISO_VINDEX_RECALL 0.95 /* what every kind of query is to reach */

/* Seeded queries of each kind that people ask, with the scores of their exact answers. */
typedef struct iso_vindex_trial iso_vindex_trial;

/* Two passes over the rows. Uses all threads. */
ISO_CHECK iso_status iso_vindex_trial_create(iso_vindex *v, const iso_vindex_rows *rows, iso_vindex_trial **out,
                                             iso_error *err);
void iso_vindex_trial_free(iso_vindex_trial *t);

/* What is on trial: as iso_vindex_engine's search; called from several threads. */
typedef iso_status iso_vindex_trial_search(void *ctx, const float *w, int64_t k, iso_ranked *out, int64_t *found,
                                           iso_error *err);

/* The share of the best one, of the best 10 and of the best 64 that it finds, by score (duplicates count as one another; scores may be
 * wrong by `slack`): the worst over the kinds of queries and over the three. ten (NULL: not wanted): the worst of the best 10. */
ISO_CHECK iso_status iso_vindex_trial_recall(const iso_vindex_trial *t, iso_vindex_trial_search *search, void *ctx,
                                             double slack, double *worst, double *ten, iso_error *err);

#endif
