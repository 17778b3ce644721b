#include "indexer/store_layout.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

enum {
    PAGE_HEADER = 16,
    NODE_HEADER = 8,
    OFFSET = 2,
    DB_SIZE = 48,
    PAGE_MIN = 1024,
    PAGE_MAX = 32768,
    P_BRANCH = 1,
    P_LEAF = 2,
    P_OVERFLOW = 4,
    P_META = 8,
    F_BIGDATA = 1,
    F_SUBDATA = 2,
    INTEGER_KEYS = 8,
};
#define LMDB_MAGIC 0xBEEFC0DEu

bool iso_layout_supported(uint32_t psize)
{
    int major, minor;
    mdb_version(&major, &minor, NULL);
    return major == 0 && minor == 9 && sizeof(size_t) == 8 && psize >= PAGE_MIN && psize <= PAGE_MAX;
}

uint64_t iso_layout_node(uint64_t key, uint64_t held) { return (NODE_HEADER + key + held + 1) & ~UINT64_C(1); }

uint64_t iso_layout_nodes(uint32_t psize, uint64_t node) { return (psize - PAGE_HEADER) / (node + OFFSET); }

/* At least two nodes fit a page. */
bool iso_layout_is_long(uint32_t psize, uint64_t key, uint64_t size)
{
    return NODE_HEADER + key + size > (((psize - PAGE_HEADER) / 2) & ~1u) - OFFSET;
}

uint64_t iso_layout_long_pages(uint32_t psize, uint64_t size) { return (PAGE_HEADER - 1 + size) / psize + 1; }

/* ---- one page ---- */

void iso_layout_start(uint8_t *p, uint32_t psize, bool leaf)
{
    memset(p, 0, PAGE_HEADER);
    iso_put_u16(p + 10, leaf ? P_LEAF : P_BRANCH);
    iso_put_u16(p + 12, PAGE_HEADER);
    iso_put_u16(p + 14, psize);
}

static uint32_t room(const uint8_t *p) { return iso_get_u16(p + 14) - iso_get_u16(p + 12); }

static uint8_t *add_node(uint8_t *p, const void *key, uint32_t key_size, uint32_t held)
{
    uint32_t size = (uint32_t)iso_layout_node(key_size, held), lower = iso_get_u16(p + 12), upper = iso_get_u16(p + 14) - size;
    iso_put_u16(p + lower, upper);
    iso_put_u16(p + 12, lower + OFFSET);
    iso_put_u16(p + 14, upper);
    uint8_t *node = p + upper;
    node[size - 1] = 0;
    iso_put_u16(node + 6, key_size);
    if (key_size) memcpy(node + NODE_HEADER, key, key_size);
    return node;
}

static uint8_t *add_leaf_node(uint8_t *p, const void *key, uint32_t key_size, uint32_t size, uint32_t held,
                              uint32_t flags)
{
    uint8_t *node = add_node(p, key, key_size, held);
    iso_put_u32(node, size);
    iso_put_u16(node + 4, flags);
    return node + NODE_HEADER + key_size;
}

void *iso_layout_leaf(uint8_t *p, const void *key, uint32_t key_size, uint32_t size)
{
    return add_leaf_node(p, key, key_size, size, size, 0);
}

void iso_layout_leaf_long(uint8_t *p, const void *key, uint32_t key_size, uint32_t size, uint64_t page)
{
    iso_put_u64(add_leaf_node(p, key, key_size, size, sizeof page, F_BIGDATA), page);
}

static void add_branch_node(uint8_t *p, const void *key, uint32_t key_size, uint64_t page)
{
    uint8_t *node = add_node(p, key, key_size, 0);
    iso_put_u32(node, (uint32_t)page);
    iso_put_u16(node + 4, page >> 32);
}

void iso_layout_end(uint8_t *p, uint64_t page)
{
    iso_put_u64(p, page);
    memset(p + iso_get_u16(p + 12), 0, room(p));
}

void iso_layout_long(uint8_t *p, uint32_t psize, uint64_t page, const void *data, uint32_t size)
{
    uint64_t pages = iso_layout_long_pages(psize, size);
    memset(p, 0, PAGE_HEADER);
    iso_put_u64(p, page);
    iso_put_u16(p + 10, P_OVERFLOW);
    iso_put_u32(p + 12, (uint32_t)pages);
    memcpy(p + PAGE_HEADER, data, size);
    memset(p + PAGE_HEADER + size, 0, (size_t)(pages * psize - PAGE_HEADER - size));
}

/* ---- trees ---- */

struct iso_layout_table {
    uint32_t psize, key_size;
    iso_layout_sink *sink;
    iso_tree tree;
    uint8_t *page;     /* the leaf being filled */
    iso_child *leaves; /* [tree.leaves], and the one being filled */
    size_t capacity;
    bool open;
};

iso_status iso_layout_open(uint32_t psize, iso_layout_sink *sink, bool integer, iso_layout_table **out, iso_error *err)
{
    iso_layout_table *t = iso_calloc(1, sizeof *t);
    if (!t || !(t->page = malloc(psize))) {
        free(t);
        return iso_fail_memory(err);
    }
    t->psize = psize;
    t->sink = sink;
    t->tree = (iso_tree){.integer = integer, .root = ISO_LAYOUT_NONE};
    *out = t;
    return ISO_OK;
}

static iso_status give(iso_layout_sink *sink, const uint8_t *page, iso_error *err)
{
    iso_status status = sink->page(sink->ctx, page, err);
    sink->next++;
    return status;
}

/* Its number is known only now: long data of its entries have gone before it. */
static iso_status end_leaf(iso_layout_table *t, iso_error *err)
{
    if (!t->open) return ISO_OK;
    t->open = false;
    t->leaves[t->tree.leaves++].page = t->sink->next;
    t->tree.entries += (iso_get_u16(t->page + 12) - PAGE_HEADER) / OFFSET;
    iso_layout_end(t->page, t->sink->next);
    return give(t->sink, t->page, err);
}

static iso_status begin_leaf(iso_layout_table *t, const void *key, uint32_t key_size, iso_error *err)
{
    if (!iso_grow(&t->leaves, &t->capacity, t->tree.leaves + 1, sizeof *t->leaves)) return iso_fail_memory(err);
    memcpy(t->leaves[t->tree.leaves].key, key, key_size);
    iso_layout_start(t->page, t->psize, true);
    t->key_size = key_size;
    t->open = true;
    return ISO_OK;
}

static iso_status add_long(iso_layout_table *t, const void *data, uint32_t size, iso_error *err)
{
    uint64_t pages = iso_layout_long_pages(t->psize, size);
    uint8_t *p = malloc((size_t)pages * t->psize);
    if (!p) return iso_fail_memory(err);
    iso_layout_long(p, t->psize, t->sink->next, data, size);
    iso_status status = ISO_OK;
    for (uint64_t i = 0; i < pages && !status; i++) status = give(t->sink, p + i * t->psize, err);
    t->tree.overflows += pages;
    free(p);
    return status;
}

iso_status iso_layout_add(iso_layout_table *t, const void *key, uint32_t key_size, const void *data, uint32_t size,
                          iso_error *err)
{
    bool is_long = iso_layout_is_long(t->psize, key_size, size);
    uint64_t node = iso_layout_node(key_size, is_long ? sizeof(uint64_t) : size) + OFFSET, page = t->sink->next;
    iso_status status = is_long ? add_long(t, data, size, err) : ISO_OK;
    if (!status && t->open && node > room(t->page)) status = end_leaf(t, err);
    if (!status && !t->open) status = begin_leaf(t, key, key_size, err);
    if (status) return status;
    if (is_long)
        iso_layout_leaf_long(t->page, key, key_size, size, page);
    else
        memcpy(iso_layout_leaf(t->page, key, key_size, size), data, size);
    return ISO_OK;
}

iso_status iso_layout_close(iso_layout_table *t, iso_status status, iso_tree *out, iso_error *err)
{
    if (!t) return status;
    if (!status) status = end_leaf(t, err);
    if (!status && t->tree.leaves)
        status = iso_layout_branch(t->psize, t->sink, t->leaves, t->tree.leaves, t->key_size, &t->tree, err);
    if (!status) *out = t->tree;
    free(t->leaves);
    free(t->page);
    free(t);
    return status;
}

/* Children are dealt out evenly: no branch is left with one. */
iso_status iso_layout_branch(uint32_t psize, iso_layout_sink *sink, iso_child *leaves, uint64_t n, uint32_t key_size,
                             iso_tree *tree, iso_error *err)
{
    uint64_t most = (psize - PAGE_HEADER) / (iso_layout_node(key_size, 0) + OFFSET);
    uint8_t *p = malloc(psize);
    iso_status status = p ? ISO_OK : iso_fail_memory(err);
    uint32_t depth = 1;
    for (; n > 1 && !status; depth++) {
        uint64_t pages = (n + most - 1) / most;
        for (uint64_t b = 0; b < pages && !status; b++) {
            uint64_t from = n * b / pages, to = n * (b + 1) / pages;
            iso_layout_start(p, psize, false);
            for (uint64_t i = from; i < to; i++)
                add_branch_node(p, leaves[i].key, i > from ? key_size : 0, leaves[i].page);
            iso_layout_end(p, sink->next);
            leaves[b] = leaves[from];
            leaves[b].page = sink->next;
            status = give(sink, p, err);
        }
        tree->branches += pages;
        n = pages;
    }
    free(p);
    if (status) return status;
    tree->depth = (uint16_t)depth;
    tree->root = leaves[0].page;
    return ISO_OK;
}

static void put_tree(uint8_t *p, const iso_tree *t, uint32_t pad)
{
    iso_put_u32(p, pad);
    iso_put_u16(p + 4, t->integer ? INTEGER_KEYS : 0);
    iso_put_u16(p + 6, t->depth);
    iso_put_u64(p + 8, t->branches);
    iso_put_u64(p + 16, t->leaves);
    iso_put_u64(p + 24, t->overflows);
    iso_put_u64(p + 32, t->entries);
    iso_put_u64(p + 40, t->root);
}

iso_status iso_layout_main(uint32_t psize, iso_layout_sink *sink, const iso_named_tree *tables, int n, iso_tree *out,
                           iso_error *err)
{
    uint8_t *p = malloc(psize);
    if (!p) return iso_fail_memory(err);
    iso_layout_start(p, psize, true);
    for (int i = 0; i < n; i++)
        put_tree(add_leaf_node(p, tables[i].name, (uint32_t)strlen(tables[i].name), DB_SIZE, DB_SIZE, F_SUBDATA),
                 tables[i].tree, 0);
    *out = (iso_tree){.depth = 1, .leaves = 1, .entries = (uint64_t)n, .root = sink->next};
    iso_layout_end(p, sink->next);
    iso_status status = give(sink, p, err);
    free(p);
    return status;
}

/* ---- header pages ---- */

static void put_head(uint8_t *p, uint32_t psize, uint64_t number, uint64_t last, const iso_tree *main)
{
    const iso_tree free_pages = {.integer = true, .root = ISO_LAYOUT_NONE};
    iso_put_u64(p, number);
    iso_put_u16(p + 10, P_META);
    uint8_t *m = p + PAGE_HEADER;
    iso_put_u32(m, LMDB_MAGIC);
    iso_put_u32(m + 4, 1);                   /* version of the layout */
    iso_put_u64(m + 16, (last + 1) * psize); /* size of a map */
    put_tree(m + 24, &free_pages, psize);
    put_tree(m + 24 + DB_SIZE, main, 0);
    iso_put_u64(m + 24 + 2 * DB_SIZE, last);
    iso_put_u64(m + 32 + 2 * DB_SIZE, number); /* transaction 1 is in page 1 */
}

void iso_layout_heads(uint8_t *p, uint32_t psize, uint64_t last, const iso_tree *main)
{
    const iso_tree none = {.root = ISO_LAYOUT_NONE};
    memset(p, 0, ISO_LAYOUT_FIRST * (size_t)psize);
    put_head(p, psize, 0, 1, &none);
    put_head(p + psize, psize, 1, last, main);
}
