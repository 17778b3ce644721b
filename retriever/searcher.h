/* searcher.h: what search.c and searcher.c share; only a test includes it, too. */
#ifndef ISO_SEARCHER_H
#define ISO_SEARCHER_H

#include <pthread.h>
#include <stdatomic.h>

#include "indexer/store_places.h"
#include "retriever/scorer.h"
#include "retriever/search.h"
#include "retriever/vindex.h"

/* A state of the database as a searcher knows it: an index, and what changed since that was built. */
typedef struct iso_known {
    iso_vindex *index;
    uint64_t generation;  /* of the store, as far as the following goes */
    uint64_t stamp;       /* of that generation */
    int64_t extras;       /* items that the index lacks */
    uint64_t *extra_id;   /* [extras], ascending */
    float *extra;         /* [extras, dim], of length 1 */
    size_t extra_id_room, extra_room;
    int64_t removed;      /* positions of the index whose items are gone */
} iso_known;

struct iso_searcher {
    iso_store *store;
    int dim;
    iso_known known;
    char note[1200];
    bool unsaved;         /* the index is in memory only */
    pthread_mutex_t lock; /* over the four below; never waited for within a transaction, as one is begun under it */
    iso_scorer *scorer;   /* of contrast; NULL until it is asked for, and again when the database has changed */
    uint64_t scored;      /* the generation that it knows */
    _Atomic(iso_places *) places; /* NULL until look-ups have been many, and again when the database has changed */
    _Atomic int64_t looked_up;    /* vectors; without places */
};

/* The database's scorer of contrast; the searcher's own. Thread-safe. */
ISO_CHECK iso_status iso_searcher_scorer(iso_searcher *s, const iso_scorer **out, iso_error *err);

#endif
