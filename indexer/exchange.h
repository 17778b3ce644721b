/* exchange.h: vectors into a database and out of it: a .npy file, and a text file whose line i names row i.
 *
 * The names are paths, one a line with TSV escapes (tab \t, newline \n, carriage return \r, backslash \\), or, with
 * `nul`, raw and each ended by a NUL byte. */
#ifndef ISO_EXCHANGE_H
#define ISO_EXCHANGE_H

#include "indexer/store.h"

/* Everything in order of ids, one snapshot; both files appear whole or not at all, as far as iso_file_commit_both goes. */
ISO_CHECK iso_status iso_export(iso_store *s, const char *vectors, const char *paths, bool nul, iso_progress *progress, int64_t *rows, iso_error *err);

typedef struct iso_import_spec {
    const char *vectors, *paths, *db;
    const char *root;      /* absolute folder that the paths are relative to; NULL: the database's own, or for a new one the current folder */
    bool nul;
    iso_progress *progress; /* NULL: none */
} iso_import_spec;

typedef struct iso_import_counts { int64_t added, changed, unchanged; } iso_import_counts;

/* Into a new database (iso_store_fill), or one of imported vectors of the same length. All is read and checked before
 * anything is written, or before a new database appears: a row of zeros, or with a NaN or an infinity, is ISO_E_NUMERIC
 * naming it (from 1), a path that is named twice or a wrong escape ISO_E_FORMAT, another number of rows than of paths
 * ISO_E_MISMATCH. Killed half-way, the next run goes on, or begins again where there was nothing; ISO_E_INTERRUPTED when
 * `iso_interrupted`. */
ISO_CHECK iso_status iso_import(const iso_import_spec *spec, iso_import_counts *out, iso_error *err);

/* The digest of imported vectors of that length. */
void iso_import_digest(int dim, char out[33]);

#endif
