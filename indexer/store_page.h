/* store_page.h: a page of data.mdb as LMDB 0.9 lays it out on a 64-bit little-endian machine, from a reader's side; store_layout.h says what the
 * parts are. For store_pages.c, store_places.c and store_cursor.c. */
#ifndef ISO_STORE_PAGE_H
#define ISO_STORE_PAGE_H

#include "indexer/store_internal.h"

enum {
    PAGE_HEADER = 16, NODE_HEADER = 8, DB_SIZE = 48, DEPTH_MAX = 32,
    P_BRANCH = 1, P_LEAF = 2, P_OVERFLOW = 4, P_META = 8,
    F_BIGDATA = 1, F_SUBDATA = 2, INTEGER_KEYS = 8
};

/* What a table's record says of its tree. */
typedef struct tree { uint32_t flags, depth; uint64_t entries, root; } tree;

static inline tree tree_at(const uint8_t *p)
{
    return (tree){.flags = iso_get_u16(p + 4), .depth = iso_get_u16(p + 6), .entries = iso_get_u64(p + 32), .root = iso_get_u64(p + 40)};
}

/* The page that holds data of a leaf: maps begin at a page of the system, which is no smaller than LMDB's. */
static inline const uint8_t *page_of(const void *data, size_t psize)
{
    const uint8_t *at = data;
    return at - (uintptr_t)at % psize;
}

/* Pages that were filled in order follow each other, with their records at the same places: of a leaf in the map that comes after this
 * one, what is looked at first is asked for. (Inlined early: gcc takes a function that only asks for pure, and drops its calls.) */
static inline __attribute__((always_inline)) void leaf_ahead(const uint8_t *page, size_t psize, uint32_t nodes)
{
    enum { PAGES_AHEAD = 4 };
    const uint8_t *ahead = page + PAGES_AHEAD * psize;
    __builtin_prefetch(ahead);
    for (uint32_t i = 0; i < nodes; i++) __builtin_prefetch(ahead + iso_get_u16(page + PAGE_HEADER + 2 * i));
}

/* Where LMDB's map begins, by data of a leaf in it. */
static inline const uint8_t *map_of(const void *data, size_t psize)
{
    const uint8_t *leaf = page_of(data, psize);
    return leaf - iso_get_u64(leaf) * psize;
}

/* The page that a branch's node leads to. */
static inline uint64_t child_of(const uint8_t *node) { return iso_get_u32(node) | (uint64_t)iso_get_u16(node + 4) << 32; }

/* A leaf's node: bytes of its data. */
static inline uint32_t data_size(const uint8_t *node) { return iso_get_u32(node); }

#endif
