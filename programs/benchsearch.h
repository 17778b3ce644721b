/* benchsearch.h: the parts of benchsearch: vectors to search in, and what reading them costs at least. */
#ifndef ISO_PROGRAMS_BENCHSEARCH_H
#define ISO_PROGRAMS_BENCHSEARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

/* ---- vectors by seed ---- */

typedef struct benchsearch_vectors {
    bool clustered;
    int64_t dim, centres, seed;
} benchsearch_vectors;

/* Rows first ... first + count - 1 of an endless sequence that v alone defines, into DIR/vectors.npy, with DIR/paths.txt for
 * `indexer import`; and `queries` rows of a far part of the same sequence into DIR/queries.npy (none for 0). All threads. */
ISO_CHECK iso_status benchsearch_make(const benchsearch_vectors *v, const char *dir, int64_t first, int64_t count,
                                      int64_t queries, iso_error *err);

/* ---- reading ---- */

/* Reads `bytes` at p once, by all threads of OpenMP, with the widest loads there are; in one of several ways (how < BENCHSEARCH_WAYS),
 * since which is the fastest differs between processors. Returns seconds. */
enum { BENCHSEARCH_WAYS = 6 };
double benchsearch_read(const void *p, size_t bytes, int how);

/* Reads a file into fresh memory in huge pages by all threads, then the memory once as above: seconds of both, and its size. */
ISO_CHECK iso_status benchsearch_read_file(const char *path, int how, double *seconds, int64_t *bytes, iso_error *err);

#endif
