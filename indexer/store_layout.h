/* store_layout.h: pages of data.mdb as LMDB 0.9 lays them out on a 64-bit little-endian machine, for store_fill.c; nothing
 * else includes it. store_page.h says the same from the reader's side, on its own.
 *
 * A page: its number, its flags, `lower` behind the offsets of its nodes, `upper` where the nodes begin. A leaf's node: size
 * of the data, flags, size of the key, the key, the data, or the page where long data begin. A branch's: page, size of the
 * key, the key, which the first one leaves out. */
#ifndef ISO_STORE_LAYOUT_H
#define ISO_STORE_LAYOUT_H

#include "indexer/store_internal.h"

enum {
    ISO_LAYOUT_FIRST = 2, /* page behind the two headers */
};
#define ISO_LAYOUT_NONE UINT64_MAX /* root of an empty tree */

typedef struct iso_tree {
    bool integer; /* 8-byte keys in the machine's order */
    uint16_t depth;
    uint64_t branches, leaves, overflows, entries, root;
} iso_tree;

typedef struct iso_child {
    uint8_t key[ISO_STORE_KEY];
    uint64_t page;
} iso_child; /* of a branch: its first key, its page */
typedef struct iso_named_tree {
    const char *name;
    const iso_tree *tree;
} iso_named_tree;

/* Takes pages in order; `next` is the number of the next one. */
typedef struct iso_layout_sink {
    iso_status (*page)(void *ctx, const uint8_t *bytes, iso_error *err);
    void *ctx;
    uint64_t next;
} iso_layout_sink;

/* Whether LMDB here, with pages of that size, is the one above. */
bool iso_layout_supported(uint32_t psize);

/* Bytes of a leaf's node, how many such fit a page, whether data are too long for one, and the pages they take then. */
uint64_t iso_layout_node(uint64_t key, uint64_t held);
uint64_t iso_layout_nodes(uint32_t psize, uint64_t node);
bool iso_layout_is_long(uint32_t psize, uint64_t key, uint64_t size);
uint64_t iso_layout_long_pages(uint32_t psize, uint64_t size);

/* One page: start, nodes in the order of their keys that fit, end. A leaf's node gives where its `size` bytes go. */
void iso_layout_start(uint8_t *p, uint32_t psize, bool leaf);
void *iso_layout_leaf(uint8_t *p, const void *key, uint32_t key_size, uint32_t size);
void iso_layout_leaf_long(uint8_t *p, const void *key, uint32_t key_size, uint32_t size, uint64_t page);
void iso_layout_end(uint8_t *p, uint64_t page);
/* Long data in the pages from `page` on. */
void iso_layout_long(uint8_t *p, uint32_t psize, uint64_t page, const void *data, uint32_t size);

/* A table entry by entry, keys rising, all of one size up to ISO_STORE_KEY; close makes its branches and, where all went
 * well, returns ISO_OK; else `status`. */
typedef struct iso_layout_table iso_layout_table;
ISO_CHECK iso_status iso_layout_open(uint32_t psize, iso_layout_sink *sink, bool integer, iso_layout_table **out,
                                     iso_error *err);
ISO_CHECK iso_status iso_layout_add(iso_layout_table *t, const void *key, uint32_t key_size, const void *data,
                                    uint32_t size, iso_error *err);
ISO_CHECK iso_status iso_layout_close(iso_layout_table *t, iso_status status, iso_tree *out, iso_error *err);
/* The branches over leaves that are there; counts what it adds to `tree` and sets its depth and root. Overwrites `leaves`. */
ISO_CHECK iso_status iso_layout_branch(uint32_t psize, iso_layout_sink *sink, iso_child *leaves, uint64_t n,
                                       uint32_t key_size, iso_tree *tree, iso_error *err);
/* The one leaf of the main tree: tables in the order of their names. */
ISO_CHECK iso_status iso_layout_main(uint32_t psize, iso_layout_sink *sink, const iso_named_tree *tables, int n,
                                     iso_tree *out, iso_error *err);
/* The two header pages, for pages up to `last` and that main tree; the first is of an empty database, and older. */
void iso_layout_heads(uint8_t *p, uint32_t psize, uint64_t last, const iso_tree *main);

#endif
