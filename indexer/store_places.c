/* store_places.c: see store_places.h. Pages are read in LMDB's map, as LMDB reads them; what is not as expected is left to it. */
#include "indexer/store_places.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/memory.h"
#include "indexer/store_page.h"

enum { KEY = 8, LINE = 64 };

struct iso_places {
    const iso_store *store;
    uint64_t snapshot;
    uint64_t probe, probe_page; /* an item, and the page of its vector */
    size_t psize, vector, node; /* bytes: of a page, a vector, and of its record in a page */
    size_t leaves, ids_room, pages_room;
    uint64_t *first;            /* [leaves] no id of the leaf is less; rising */
    uint32_t *page;             /* [leaves] */
};

/* ---- reading the branches ---- */

typedef struct reading {
    iso_places *p;
    const uint8_t *map;
    uint64_t pages; /* of the map */
    uint32_t depth;
} reading;

static iso_status add_leaf(iso_places *p, uint64_t first, uint64_t page)
{
    if (!iso_grow(&p->first, &p->ids_room, p->leaves + 1, sizeof *p->first) || !iso_grow(&p->page, &p->pages_room, p->leaves + 1, sizeof *p->page))
        return ISO_E_MEMORY;
    p->first[p->leaves] = first;
    p->page[p->leaves++] = (uint32_t)page;
    return ISO_OK;
}

/* first: no id below is less. */
static iso_status read_tree(const reading *r, uint64_t page, uint64_t first, uint32_t level)
{
    const size_t psize = r->p->psize;
    if (page < 2 || page >= r->pages || page > UINT32_MAX || level >= r->depth) return ISO_E_UNSUPPORTED;
    if (level + 1 == r->depth) return add_leaf(r->p, first, page);
    const uint8_t *at = r->map + page * psize;
    const size_t lower = iso_get_u16(at + 12);
    iso_status st = iso_get_u16(at + 10) == P_BRANCH && lower <= psize && lower > PAGE_HEADER ? ISO_OK : ISO_E_UNSUPPORTED;
    for (size_t i = PAGE_HEADER; st == ISO_OK && i + 2 <= lower; i += 2) {
        const uint8_t *node = at + iso_get_u16(at + i);
        const size_t key_size = i > PAGE_HEADER ? KEY : 0; /* the first node's is its parent's */
        if (node + NODE_HEADER + key_size > at + psize) return ISO_E_UNSUPPORTED;
        if (key_size) {
            uint64_t key;
            memcpy(&key, node + NODE_HEADER, sizeof key);
            if (iso_get_u16(node + 6) != key_size || key < first) return ISO_E_UNSUPPORTED;
            first = key;
        }
        st = read_tree(r, child_of(node), first, level + 1);
    }
    return st;
}

/* The first item, and what the table's record says of its tree. */
static int look(iso_txn *t, iso_places *p, MDB_val *vector, tree *of)
{
    MDB_cursor *c;
    MDB_stat stat;
    MDB_val key, name = {sizeof "vectors" - 1, "vectors"}, record;
    int rc = mdb_stat(t->txn, t->store->vectors, &stat);
    if (!rc) rc = mdb_get(t->txn, t->store->main, &name, &record);
    if (!rc) rc = mdb_cursor_open(t->txn, t->store->vectors, &c);
    if (rc) return rc;
    rc = record.mv_size == DB_SIZE ? mdb_cursor_get(c, &key, vector, MDB_FIRST) : MDB_INCOMPATIBLE;
    if (!rc && key.mv_size != KEY) rc = MDB_INCOMPATIBLE;
    if (!rc) memcpy(&p->probe, key.mv_data, KEY);
    mdb_cursor_close(c);
    p->psize = stat.ms_psize;
    if (!rc) *of = tree_at(record.mv_data);
    return rc;
}

static iso_status find(iso_txn *t, iso_places *p)
{
    MDB_envinfo env;
    MDB_val vector;
    tree of = {0};
    int major, minor, rc = look(t, p, &vector, &of);
    if (rc && rc != MDB_NOTFOUND && rc != MDB_INCOMPATIBLE) return iso_lmdb_fail(NULL, rc, t->store->dir, "read");
    mdb_version(&major, &minor, NULL);
    if (rc || t->write || major != 0 || minor != 9 || p->psize > (size_t)sysconf(_SC_PAGESIZE) || mdb_env_info(t->store->env, &env)) return ISO_E_UNSUPPORTED;
    const uint8_t *leaf = page_of(vector.mv_data, p->psize);
    p->probe_page = iso_get_u64(leaf);
    const uint64_t pages = env.me_mapsize / p->psize;
    if (p->probe_page >= pages) return ISO_E_UNSUPPORTED;
    if (vector.mv_size != p->vector || iso_get_u16(leaf + 10) != P_LEAF || of.depth < 1 || of.depth > DEPTH_MAX) return ISO_E_UNSUPPORTED;
    reading r = {p, leaf - p->probe_page * p->psize, pages, of.depth};
    iso_status st = read_tree(&r, of.root, 0, 0);
    if (st == ISO_OK) p->first[0] = p->probe;
    return st;
}

iso_status iso_places_find(iso_txn *t, iso_places **out)
{
    iso_places *p = iso_calloc(1, sizeof *p);
    if (!p) return ISO_E_MEMORY;
    p->store = t->store;
    p->snapshot = mdb_txn_id(t->txn);
    p->vector = (size_t)t->store->dim * sizeof(float);
    p->node = (NODE_HEADER + KEY + p->vector + 1) & ~(size_t)1;
    iso_status st = find(t, p);
    if (st == ISO_OK) *out = p;
    else iso_places_free(p);
    return st;
}

void iso_places_free(iso_places *p)
{
    if (!p) return;
    free(p->first);
    free(p->page);
    free(p);
}

/* ---- finding ---- */

bool iso_txn_use_places(iso_txn *t, const iso_places *p)
{
    MDB_val key, v;
    if (!p || t->write || p->store != t->store || p->snapshot != mdb_txn_id(t->txn)) return false;
    key = (MDB_val){KEY, (void *)(uintptr_t)&p->probe};
    if (mdb_get(t->txn, t->store->vectors, &key, &v)) return false;
    const uint8_t *leaf = page_of(v.mv_data, p->psize);
    if (iso_get_u64(leaf) != p->probe_page) return false;
    t->places = p;
    t->map = leaf - p->probe_page * p->psize; /* the map may have moved since */
    return true;
}

/* The last leaf whose first id is not above. Ids are nearly evenly spread: a guess, and from there in growing steps. */
static size_t leaf_of(const iso_places *p, uint64_t id)
{
    const uint64_t *first = p->first;
    const size_t n = p->leaves;
    const double share = (double)(id - first[0]) / (double)(first[n - 1] - first[0] + 1) * (double)(n - 1);
    size_t low = share < (double)n ? (size_t)share : n - 1, high = low + 1, step = 1;
    for (; first[low] > id; step *= 2) {
        high = low;
        low = low > step ? low - step : 0;
    }
    for (step = 1; high < n && first[high] <= id; step *= 2) {
        low = high;
        high = high + step < n ? high + step : n;
    }
    while (high - low > 1) {
        const size_t middle = low + (high - low) / 2;
        if (first[middle] <= id) low = middle;
        else high = middle;
    }
    return low;
}

static const uint8_t *page_at(const iso_txn *t, size_t leaf) { return t->map + t->places->page[leaf] * t->places->psize; }

/* Where a record lies in a page that was filled in order with ids one after another. */
static size_t usual_place(const iso_places *p, size_t leaf, uint64_t id)
{
    const uint64_t before = id - p->first[leaf];
    return before < p->psize / p->node ? p->psize - (size_t)(before + 1) * p->node : PAGE_HEADER;
}

void iso_item_vector_ahead(const iso_txn *t, uint64_t id)
{
    const iso_places *p = t->places;
    if (!p || id < p->first[0]) return;
    const size_t leaf = leaf_of(p, id);
    const uint8_t *page = page_at(t, leaf), *at = page + usual_place(p, leaf, id), *end = at + p->node;
    __builtin_prefetch(page);
    for (at -= (uintptr_t)at % LINE; at < end; at += LINE) __builtin_prefetch(at);
}

const float *iso_places_vector(const iso_txn *t, uint64_t id)
{
    const iso_places *p = t->places;
    if (!p || id < p->first[0]) return NULL;
    const size_t leaf = leaf_of(p, id);
    const uint8_t *page = page_at(t, leaf);
    size_t low = 0, nodes = (size_t)(iso_get_u16(page + 12) - PAGE_HEADER) / 2;
    if (iso_get_u16(page + 10) != P_LEAF || nodes > (p->psize - PAGE_HEADER) / 2) return NULL;
    for (size_t high = nodes, i = id - p->first[leaf] < nodes ? (size_t)(id - p->first[leaf]) : nodes / 2; low < high; i = low + (high - low) / 2) {
        const size_t at = iso_get_u16(page + PAGE_HEADER + 2 * i);
        const uint8_t *node = page + at;
        uint64_t key;
        if (at + p->node > p->psize || iso_get_u16(node + 6) != KEY) return NULL;
        memcpy(&key, node + NODE_HEADER, sizeof key);
        if (key == id) {
            const uint8_t *data = node + NODE_HEADER + KEY;
            return data_size(node) == p->vector && iso_get_u16(node + 4) == 0 && (uintptr_t)data % sizeof(float) == 0 ? (const float *)(const void *)data : NULL;
        }
        if (key < id) low = i + 1;
        else high = i;
    }
    return NULL;
}
