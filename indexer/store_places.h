/* store_places.h: where the vectors of a snapshot lie in the map of data.mdb.
 *
 * A look-up in LMDB descends a tree and waits for memory at every page that is not in a cache. Whoever has read the tree's branches once knows the
 * page of every vector: it can ask for many pages at a time, and then finds a vector in its page without descending. For programs that answer
 * many queries from one state of the database. */
#ifndef ISO_STORE_PLACES_H
#define ISO_STORE_PLACES_H

#include "indexer/store.h"

typedef struct iso_places iso_places;

/* For a read transaction; constant afterwards. 12 bytes a page of vectors, and some nanoseconds. ISO_E_UNSUPPORTED where there are no items, where a
 * vector does not fit a page with another (more than 505 numbers), and where the file is not as LMDB 0.9 writes it here. */
ISO_CHECK iso_status iso_places_find(iso_txn *t, iso_places **out);
void iso_places_free(iso_places *p);

/* From here on iso_item_vector finds what it can by `p`, which outlives the transaction; the results are the same. False, and nothing
 * changes, where p is of another snapshot or database, or NULL. */
bool iso_txn_use_places(iso_txn *t, const iso_places *p);
/* Asks the memory for an item's vector, where the transaction has places; does not wait. */
void iso_item_vector_ahead(const iso_txn *t, uint64_t id);
/* A vector by the transaction's places, until it ends; NULL where LMDB has to look. Unlike all else of a transaction, from any thread at any time. */
const float *iso_places_vector(const iso_txn *t, uint64_t id);

#endif
