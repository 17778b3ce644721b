/* vindex_hnsw.h: what FAISS's file of a graph must be before FAISS reads it, as it believes every number of it. */
#ifndef ISO_VINDEX_HNSW_H
#define ISO_VINDEX_HNSW_H

#include <stddef.h>
#include "retriever/vindex.h"

enum { ISO_VINDEX_HNSW_MOST_WIDTH = 4096 }; /* of a search (efSearch) */

/* What is wrong with it; NULL: FAISS can read and search it, and its size in memory is that of the payload. Whatever the
 * vectors' numbers are. */
const char *iso_vindex_hnsw_check(const uint8_t *payload, size_t size, const iso_vindex_info *info);

#endif
