/* encoding.h: a folder of images through a model into a database, telling how it goes on stderr: what `indexer encode` and
 * `evaluate compare` share. */
#ifndef ISO_PROGRAMS_ENCODING_H
#define ISO_PROGRAMS_ENCODING_H

#include <stdbool.h>
#include "indexer/encode.h"
#include "model/model.h"

typedef struct iso_encoding {
    const char *images, *db;
    const char *model;           /* the file, copied into a new database */
    int batch, threads;          /* threads 0: all */
    const iso_backend *backend;  /* of the encoder; NULL: the CPU */
    bool prune, relocate, quiet; /* encode.h; quiet: no progress, skipped files are listed all the same */
} iso_encoding;

/* m: of the file `model`. Errors and counts as in encode.h; nothing is printed on stdout. */
ISO_CHECK iso_status iso_encoding_run(const iso_encoding *e, const iso_model *m, iso_encode_counts *out,
                                      iso_error *err);
/* "encoded 40 images in 2 s (20 a second)" on stderr, where any were. */
void iso_encoding_rate(const iso_encode_counts *n);

#endif
