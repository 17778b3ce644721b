/* vindex_tune.h: queries to tune an approximate index with, and how much of their exact answers it finds. */
#ifndef ISO_VINDEX_TUNE_H
#define ISO_VINDEX_TUNE_H

#include "retriever/vindex_parts.h"

/* Seeded queries of each kind that people ask, with their exact answers. */
typedef struct iso_vindex_trial iso_vindex_trial;

/* Three passes over the rows, which stay the caller's, as v does, and must outlive the trial. Uses all threads. */
ISO_CHECK iso_status iso_vindex_trial_create(iso_vindex *v, const iso_vindex_rows *rows, iso_vindex_trial **out,
                                             iso_error *err);
void iso_vindex_trial_free(iso_vindex_trial *t);

/* What is on trial: as iso_vindex_engine's search; called from several threads. */
typedef iso_status iso_vindex_trial_search(void *ctx, const float *w, int64_t k, iso_ranked *out, int64_t *found,
                                           iso_error *err);

/* The share of the best one, of the best 10 and of the best 64 that is among the candidates which iso_search asks for first, so that it comes
 * out: vectors count whose exact product is that of the last of the best, or more (of equal ones any will do). least: the worst over
 * the kinds of queries, of each of the three; enough: that is ISO_VINDEX_RECALL, and for one answer somewhat more, as so few are counted there that
 * the best of several tries may have been lucky. A pass over the rows where the
 * exact products of what was found are not known. */
ISO_CHECK iso_status iso_vindex_trial_recall(iso_vindex_trial *t, iso_vindex_trial_search *search, void *ctx, double least[ISO_VINDEX_DEPTHS],
                                             bool enough[ISO_VINDEX_DEPTHS], iso_error *err);

#endif
