/* encode.h: a folder of images into a database: what is new or changed is decoded, encoded and stored; the rest is left.
 *
 * A file counts as unchanged by path, size and modification time: it is not opened. Otherwise it is read: the content
 * that the item has already is only noted, content that another item has (a file moved or copied) takes that item's
 * vector, all else is decoded and encoded. Files are read ahead; a batch is decoded by all threads and then encoded by all
 * of them, or, where the encoder leaves the processors alone, decoded while the one before is encoded. */
#ifndef ISO_ENCODE_H
#define ISO_ENCODE_H

#include "indexer/image.h"
#include "indexer/store.h"

typedef struct iso_encode_spec {
    const char *images;    /* a folder, or one in CelebA's layout */
    const char *db;
    int dim;               /* of the vectors */
    const char *digest;    /* of the model, 32 hexadecimal digits */
    const char *model;     /* the model's file, copied into a new database; NULL: none */
    int batch;             /* images that `encode` gets at a time at most; 0: 128 */
    int threads;           /* decoding; 0: OpenMP's */
    bool overlap;          /* `encode` computes elsewhere (a GPU): decode the next batch meanwhile */
    bool prune;            /* remove items whose files went away */
    bool relocate;         /* the folder of a database has moved: record `images` as its place */

    /* pixels [n, 64, 64, 3] to vectors [n, dim]; called from the caller's thread. ISO_E_NUMERIC: one of them has no
     * finite vector; then each is tried alone. Any other failure ends the run. */
    iso_status (*encode)(void *ctx, const uint8_t *pixels, int64_t n, float *vectors, iso_error *err);
    void *encode_ctx;

    /* What to tell a person; may be NULL; from the caller's thread. */
    void (*skipped)(void *ctx, const char *path, const char *reason); /* path as in the database */
    void *skipped_ctx;
    iso_progress *progress; /* of the files that have to be opened */
} iso_encode_spec;

typedef struct iso_encode_counts {
    int64_t found;         /* files in the folder */
    int64_t added, changed, unchanged, skipped, removed;
    int64_t encoded;       /* images that went through the encoder */
    double seconds;        /* from the first file opened to the last commit */
} iso_encode_counts;

/* ISO_E_INTERRUPTED when `iso_interrupted`: what was done is committed, and `out` is set as on success. After any
 * other failure, too, everything that was committed stays and the next run goes on from there. An empty folder is
 * ISO_E_ARGUMENT, also with prune: it may be one that is not mounted. */
ISO_CHECK iso_status iso_encode(const iso_encode_spec *spec, iso_encode_counts *out, iso_error *err);

#endif
