/* search.h: from example images to answers.
 *
 * score(x) = <w, z_x/|z_x|> - offset: one inner product with one query vector, whatever the number of examples and the scorer
 * (scorer.h). Every score handed out is in double precision, from the vectors in LMDB: the index only proposes candidates. */
#ifndef ISO_SEARCH_H
#define ISO_SEARCH_H

#include "indexer/store.h"
#include "retriever/vindex.h"

/* An open database ready for queries: the index and the items added or removed after it was built. The store must
 * outlive it. Any number of threads may search at a time; iso_searcher_refresh and _free need to be alone. */
typedef struct iso_searcher iso_searcher;

typedef struct iso_hit { uint64_t id; double score; } iso_hit;

/* The index is mapped, or rebuilt in memory (and, where the directory is writable, on disk) when it is missing,
 * damaged, of another model or database, or when more than a fifth of the items are not in it. None of these is an
 * error: iso_searcher_note tells. One process builds at a time, where the file system has locks (flock): the others wait, and then take its index.
 * ISO_E_INTERRUPTED when iso_interrupted, while waiting or building. No transaction of this thread may be open. */
ISO_CHECK iso_status iso_searcher_open(iso_store *store, iso_searcher **out, iso_error *err);

/* The same for a program that says on stderr what takes long: one line before it builds a large index, or waits for another program that does, and
 * progress. */
typedef struct iso_index_talk {
    iso_progress *progress; /* NULL: none */
    const char *program; /* lines begin with it */
    const char *hint;    /* what the line about building ends with; NULL: nothing */
} iso_index_talk;
ISO_CHECK iso_status iso_searcher_open_telling(iso_store *store, const iso_index_talk *talk /* NULL: silent */, iso_searcher **out, iso_error *err);
void iso_searcher_free(iso_searcher *s);

/* One line about what opening found and did ("index ... is damaged: ...; it was rebuilt"), NULL when all was well.
 * Owned by the searcher. */
const char *iso_searcher_note(const iso_searcher *s);
/* Whether opening built an index that could not be saved; the note says why. */
bool iso_searcher_unsaved(const iso_searcher *s);

/* Takes in what was added or removed since; cheap when nothing was. Where the index lacks more than a little and the one on disk is newer, that takes
 * its place; one that is of no use leaves it alone. After a failure all is as before. The next contrast query reads the background anew. */
ISO_CHECK iso_status iso_searcher_refresh(iso_searcher *s, iso_error *err);
/* Whether nothing was added or removed since it was opened or refreshed. */
ISO_CHECK iso_status iso_searcher_current(iso_searcher *s, bool *current, iso_error *err);

/* The query vector of a set, w [dim], and the offset of its scores: unit means of positives [n, dim], n >= 1, and negatives
 * [k, dim] (k may be 0) through iso_scorer_query. The first ISO_CONTRAST query reads the mean and covariance of the database
 * as it is then, which all others use until iso_searcher_refresh finds changes. A vector of zeros or with a NaN is
 * ISO_E_NUMERIC naming its number (from 1); so are examples that leave no direction. ISO_E_ARGUMENT: no such scorer, no
 * positives; ISO_E_UNSUPPORTED: contrast with vectors of more than ISO_MOMENTS_DIM_MAX numbers. */
ISO_CHECK iso_status iso_searcher_query(iso_searcher *s, iso_scoring scoring, int64_t n, const float *positives, int64_t k, const float *negatives, double gamma, double *w, double *offset, iso_error *err);

/* The k best items by <w, unit vector> - offset, best first, ties by id; fewer when the database has fewer. `skip` (sorted ids)
 * are left out. hits has room for k. *exact says that no better item was missed: always for flat, and for sq8 and fp16,
 * whose largest error is known, so that the search widens until the answer is proved. */
ISO_CHECK iso_status iso_search(iso_searcher *s, const double *w, double offset, int64_t k, int64_t skips, const uint64_t *skip, iso_hit *hits, int64_t *found, bool *exact, iso_error *err);

/* Builds NAME.db/index.faiss of the given kind: flat, sq8, fp16, ivf, hnsw; NULL: flat below 100,000 items, ivf from
 * there on where memory does for it. Written to a temporary file, synced and renamed. Waits for another process that builds one, too; talk as above. */
ISO_CHECK iso_status iso_index_build(iso_store *store, const char *kind, const iso_index_talk *talk, iso_error *err);

/* From the header of index.faiss. *current (NULL: not wanted): nothing was added or removed since it was built. ISO_E_NOT_FOUND: there is none;
 * ISO_E_FORMAT, ISO_E_MISMATCH: of no use, with the reason. */
ISO_CHECK iso_status iso_index_info_get(iso_store *store, iso_vindex_info *out, bool *current, iso_error *err);
/* What it is to reach, and does not: one line in `line`; false where all is well. */
bool iso_index_shortfall(const iso_vindex_info *info, char line[200]);

/* Checksums of the index file, that it belongs to the store, and that each vector in it is the store's, as exactly as
 * its kind keeps it. Faults are told to `say` one by one and counted. An index that is missing or older than the last
 * change is no fault (it is rebuilt or completed when searched). */
ISO_CHECK iso_status iso_index_verify(iso_store *store, void (*say)(void *ctx, const char *line), void *ctx, iso_progress *progress, int64_t *faults, iso_error *err);

#endif
