/* index_parts.h: what index_build.c, index_look.c and searcher.c share: a database's index as a file. Nobody else includes it. */
#ifndef ISO_INDEX_PARTS_H
#define ISO_INDEX_PARTS_H

#include "base/progress.h"
#include "retriever/search.h"

enum { ISO_INDEX_FLAT_BELOW = 100000 }; /* items: an exact search takes a few milliseconds */

/* Where it lies, for people: below the folder as it was given. Fresh memory; NULL when memory is out. */
char *iso_index_path(const iso_store *store);

/* ---- index_look.c ---- */

/* What an index is built from that is built from the database at that generation; at its own, where it has not come so far. */
ISO_CHECK iso_status iso_index_source(const iso_txn *txn, const iso_store_info *info, uint64_t generation, iso_vindex_source *out, iso_error *err);

/* The index on disk, if it is of this database: of a state that the one at hand has come from. kind: as of iso_vindex_read. */
ISO_CHECK iso_status iso_index_read(iso_txn *txn, const iso_store_info *info, const char *path, iso_vindex **out, char kind[8], iso_error *err);

/* A state of the database, and the index on disk beside it. */
typedef struct iso_index_seen {
    iso_txn *txn;
    iso_store_info info;
    iso_vindex *index; /* where `read` is ISO_OK */
    char kind[8];      /* of iso_vindex_read */
    iso_status read;
    iso_error why;     /* where it is not */
} iso_index_seen;

/* Where the index is of another state, another program may just have built it from one that came after ours: looked at again, once. */
ISO_CHECK iso_status iso_index_see(iso_store *store, const char *path, iso_index_seen *s, iso_error *err);
void iso_index_seen_free(iso_index_seen *s); /* what it holds; a zeroed one is fine */

/* ---- index_build.c ---- */

/* out = z / |z|, the vector of an item; one of zeros stays as it is. ISO_E_FORMAT: it is not finite. */
ISO_CHECK iso_status iso_index_unit(const iso_store *store, uint64_t id, const float *z, int dim, float *out, iso_error *err);

/* Whoever builds an index has data.mdb locked by flock, which nobody else asks of it and LMDB does not know; so others wait, without a transaction, and
 * take that index, instead of each building one of its own. Where there are no locks each does. *lock is for iso_index_unlock. ISO_E_INTERRUPTED. */
ISO_CHECK iso_status iso_index_lock(const iso_store *store, const iso_index_talk *talk, int *lock, iso_error *err);
void iso_index_unlock(int lock); /* negative: nothing is locked */

/* That of a database whose index nobody has chosen. */
const char *iso_index_default_kind(const iso_store_info *info);
/* flat_else: the kind is nobody's wish, and flat will do where memory turns out to be short. path, unsaved, out: as for iso_vindex_build. */
ISO_CHECK iso_status iso_index_make(iso_store *store, iso_txn *txn, const iso_store_info *info, const char *kind, bool flat_else, iso_progress *progress,
                                    const char *path, iso_error *unsaved, iso_vindex **out, iso_error *err);

#endif
