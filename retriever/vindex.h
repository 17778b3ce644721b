/* vindex.h: unit vectors, their ids, and the file both are kept in and searched in.
 *
 * The file (index.faiss; integers little-endian unless said):
 *     header     ISO_VINDEX_HEADER bytes: magic "ISOINDEX", version, kind, what it was built from, sizes, checksum, byte order
 *     zeros      until the payload begins on a page of its own; of flat, fp16, sq8: until the vectors in it do
 *     payload    flat, fp16, sq8: what FAISS's write_index writes (IndexFlatIP, IndexScalarQuantizer), in the machine's byte
 *                order, so that FAISS reads it too; ivf: vindex_ivf.h; hnsw: FAISS's, too
 *     ids        runs of consecutive ids: first u64, position u64 each, in the machine's byte order
 *     checksums  XXH3 of every MiB between the header and here; the header has theirs
 * It is mapped, checked by all threads and searched where it lies: the vectors are in memory once, but for hnsw, of which FAISS
 * takes a copy. A mapped file must not be changed in place: Isoface only ever replaces it by renaming a complete one over it,
 * which leaves those who have the old one mapped alone. Whoever truncates an index that is being served stops the program that
 * serves it (SIGBUS).
 *
 * Kinds: flat (exact), fp16 and sq8 (2 bytes and 1 byte a number; the largest error of a vector is measured, so that a
 * search can widen until its answer is proved), ivf and hnsw (approximate; the width of their search is chosen while
 * building so that recall at 1, at 10 and at 64 is at least 0.95 on a seeded sample of each kind of queries, when k + k / 8 + 2
 * candidates (iso_vindex_want) are asked for; where that cannot be had, the index says so).
 */
#ifndef ISO_VINDEX_H
#define ISO_VINDEX_H

#include <stdbool.h>
#include "base/progress.h"
#include "retriever/scorer.h"

#define ISO_VINDEX_HEADER 256
#define ISO_VINDEX_MAX_DIM 65536
#define ISO_VINDEX_RECALL 0.95 /* what every kind of query is to reach in an approximate index */

typedef struct iso_vindex iso_vindex;

/* What an index was built from: it belongs to a database when digest and dim agree, and its stamp is that of its generation there
 * (iso_store_stamp). */
typedef struct iso_vindex_source {
    char digest[33];     /* of the model */
    uint64_t stamp;      /* of the database at that generation */
    uint64_t generation; /* of the database when it was read */
    int dim;
} iso_vindex_source;

typedef struct iso_vindex_info {
    iso_vindex_source source;
    char kind[8];        /* flat, sq8, fp16, ivf, hnsw */
    bool approximate;    /* true for ivf and hnsw */
    int64_t count;
    int width;           /* ivf: lists that a trial query searched on average; efSearch of hnsw; else 0 */
    double recall;       /* recall@10 of its worst kind of queries, measured at that width; 1 where the index is not approximate */
    double least;        /* the worst of recall@1, @10 and @64, as well */
    double error;        /* no stored vector is farther than this from its unit vector */
} iso_vindex_info;


/* Where a build reads from; read more than once. next gives up to `room` rows in order of ascending ids: unit vectors
 * [got, dim]; got = 0 at the end. */
typedef struct iso_vindex_rows {
    void *ctx;
    int64_t count;
    iso_status (*rewind)(void *ctx, iso_error *err);
    iso_status (*next)(void *ctx, int64_t room, uint64_t *ids, float *unit, int64_t *got, iso_error *err);
    const iso_scorer *scorer; /* of contrast, NULL: none. Approximate kinds: the width is to do for its queries as well */
    iso_progress *progress;   /* of what is done between the passes over the rows; NULL: none */
} iso_vindex_rows;

/* Bytes that building such an index of `count` vectors of `dim` numbers takes, beside what the system can give up; 0: few, whatever their number. */
size_t iso_vindex_needs(const char *kind, int64_t count, int dim);

bool iso_vindex_kind_approximate(const char *kind); /* ivf and hnsw, once there are enough items for them */

/* kind as above. Uses all threads; the same rows give the same index, whatever their number, but for hnsw, whose graph is a matter of timing where
 * there are several. Where path is not NULL the index is written there while it is built (a temporary file,
 * synced and renamed) and then mapped; the vectors are in memory no more than once. Where that cannot be written: the
 * status of it (ISO_E_IO); but with `unsaved` the index is made in memory and *unsaved says why (its status is ISO_OK
 * where all went well). ISO_E_MEMORY, before anything is done, where iso_vindex_needs more than is free. out may be NULL where only the file is wanted; not with `unsaved`. */
ISO_CHECK iso_status iso_vindex_build(const iso_vindex_source *source, const char *kind, const iso_vindex_rows *rows, const char *path, iso_error *unsaved, iso_vindex **out, iso_error *err);
void iso_vindex_free(iso_vindex *v);

/* Maps the file and checks it whole. ISO_E_NOT_FOUND: no such file; ISO_E_FORMAT: damaged, or of another version or byte
 * order, with the reason; ISO_E_MISMATCH: sound, but of another database, state or model than `source` (whose
 * generation and stamp are those of the generation which the file names, as iso_vindex_peek has it; NULL: any). kind, where not NULL, is set to the kind that the file names as soon as its header is sound (that
 * of an older version, too), so that a caller can build the same again. */
ISO_CHECK iso_status iso_vindex_read(const char *path, const iso_vindex_source *source, iso_vindex **out, char kind[8], iso_error *err);

/* ISO_E_MISMATCH: `have`, which the index at `path` names, is not `want`. */
ISO_CHECK iso_status iso_vindex_source_check(const iso_vindex_source *have, const iso_vindex_source *want, const char *path, iso_error *err);

/* Only the header, checked; cheap whatever the size. */
ISO_CHECK iso_status iso_vindex_peek(const char *path, iso_vindex_info *out, iso_error *err);

void iso_vindex_info_get(const iso_vindex *v, iso_vindex_info *out);
int64_t iso_vindex_count(const iso_vindex *v);
uint64_t iso_vindex_id(const iso_vindex *v, int64_t position); /* ascending with the position, from 0 */

/* The k best by inner product with w [dim], best first; k <= count. ids and scores have room for k; *found may be less for
 * approximate kinds. No score of these is farther than *slack (NULL: not wanted) from the exact inner product with the unit
 * vector: at most what iso_vindex_slack says, of ivf often far less. Thread-safe. */
ISO_CHECK iso_status iso_vindex_search(const iso_vindex *v, const float *w, int64_t k, uint64_t *ids, double *scores, int64_t *found, double *slack, iso_error *err);

/* How many candidates a search for the k best begins with. */
int64_t iso_vindex_want(const iso_vindex *v, int64_t k);

/* No score of w is farther than this from its exact inner product with the unit vector that was indexed. */
double iso_vindex_slack(const iso_vindex *v, const float *w);

/* The vector at a position, as the index holds it. Not for an index that other threads search. */
ISO_CHECK iso_status iso_vindex_vector(iso_vindex *v, int64_t position, float *out, iso_error *err);

#endif
