/* indexer.h: the subcommands of the `indexer` program. Each gets main's arguments (argv[1] is its own name) and returns
 * the exit code. */
#ifndef ISO_PROGRAMS_INDEXER_H
#define ISO_PROGRAMS_INDEXER_H

#include <stdbool.h>

#include "base/error.h"

int iso_indexer_train(int argc, char **argv);
int iso_indexer_flatten(int argc, char **argv);
int iso_indexer_whiten(int argc, char **argv);
int iso_indexer_encode(int argc, char **argv);
int iso_indexer_info(int argc, char **argv);
int iso_indexer_verify(int argc, char **argv);
int iso_indexer_remove(int argc, char **argv);
int iso_indexer_reindex(int argc, char **argv);
int iso_indexer_compact(int argc, char **argv);
int iso_indexer_export(int argc, char **argv);
int iso_indexer_import(int argc, char **argv);

/* `dir`/model.safetensors in fresh memory; NULL when memory is out. */
char *iso_indexer_model(const char *dir);

/* Brings the search index up to date with the items, where it is missing or lacks too many of them. Where it cannot be saved, stderr gets
 * a line that says so: every search builds it again then. Unless quiet, one also before a large one is built, and progress. */
ISO_CHECK iso_status iso_indexer_index(const char *db, bool quiet, iso_error *err);

/* Flushes stdout: a full disk behind a redirection is a failure, too. */
ISO_CHECK iso_status iso_indexer_flush(iso_error *err);

#endif
