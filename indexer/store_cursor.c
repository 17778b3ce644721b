/* store_cursor.c: walking over items and their vectors. LMDB finds one record of every page; a read transaction reads the others where
 * they lie, without a descent or a call for each, and asks for the pages that come next. */
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/memory.h"
#include "indexer/store_page.h"

enum { KEY = sizeof(uint64_t) };

/* One of the two tables. */
typedef struct table {
    MDB_cursor *cursor;
    const uint8_t *page;    /* the leaf at hand; NULL: none, or LMDB finds every record */
    uint32_t node, nodes;   /* its records: the one that comes next, and how many there are */
} table;

struct iso_cursor {
    iso_txn *txn;
    table items, vectors;
    uint64_t from;          /* no id below is wanted any more */
    size_t psize;           /* 0: pages cannot be read here */
    bool whole;             /* from the first item on, and no vector has been read yet */
    bool ended;             /* the last of all ids has been met */
};

static iso_status open_tables(iso_cursor *c, iso_error *err)
{
    iso_store *s = c->txn->store;
    MDB_stat stat;
    int rc = mdb_cursor_open(c->txn->txn, s->items, &c->items.cursor);
    if (!rc) rc = mdb_cursor_open(c->txn->txn, s->vectors, &c->vectors.cursor);
    if (!rc) rc = mdb_env_stat(s->env, &stat);
    if (rc) return iso_lmdb_fail(err, rc, s->dir, "read");
    /* pages that a writer has changed are not in the map */
    if (!c->txn->write && stat.ms_psize <= (size_t)sysconf(_SC_PAGESIZE)) c->psize = stat.ms_psize;
    return ISO_OK;
}

iso_status iso_cursor_open(iso_txn *t, uint64_t from, iso_cursor **out, iso_error *err)
{
    iso_cursor *c = iso_calloc(1, sizeof *c);
    if (!c) return iso_fail_memory(err);
    c->txn = t;
    c->from = from;
    c->whole = from == 0;
    iso_status status = open_tables(c, err);
    if (status) iso_cursor_close(c);
    else *out = c;
    return status;
}

void iso_cursor_close(iso_cursor *c)
{
    if (!c) return;
    if (c->items.cursor) mdb_cursor_close(c->items.cursor);
    if (c->vectors.cursor) mdb_cursor_close(c->vectors.cursor);
    free(c);
}

/* The record of a leaf, if it lies within and is a whole one; NULL: LMDB has to look. */
static const uint8_t *record_at(const uint8_t *page, size_t psize, uint32_t node, uint64_t *id)
{
    const size_t at = iso_get_u16(page + PAGE_HEADER + 2 * node);
    const uint8_t *p = page + at;
    if (at < PAGE_HEADER || at + NODE_HEADER + KEY > psize || iso_get_u16(p + 6) != KEY || iso_get_u16(p + 4) || at + NODE_HEADER + KEY + data_size(p) > psize) return NULL;
    memcpy(id, p + NODE_HEADER, KEY);
    return p;
}

/* Takes the leaf that LMDB has found a record of. */
static void take_leaf(table *t, size_t psize, const void *key)
{
    const uint8_t *page = page_of(key, psize);
    const uint32_t nodes = (uint32_t)(iso_get_u16(page + 12) - PAGE_HEADER) / 2;
    t->page = NULL;
    if (iso_get_u16(page + 10) != P_LEAF || nodes > (psize - PAGE_HEADER) / 2) return;
    t->page = page;
    t->node = 0;
    t->nodes = nodes;
    leaf_ahead(page, psize, nodes);
}

/* The first record whose id is `from` or above, in calls with rising `from`. An LMDB code. */
static int find(table *t, size_t psize, uint64_t from, uint64_t *id, MDB_val *data)
{
    for (; t->page && t->node < t->nodes; t->node++) {
        const uint8_t *p = record_at(t->page, psize, t->node, id);
        if (!p) break;
        if (*id < from) continue;
        *data = (MDB_val){data_size(p), (void *)(uintptr_t)(p + NODE_HEADER + KEY)};
        t->node += *id == from;
        return 0;
    }
    MDB_val key = {sizeof from, &from};
    int rc = mdb_cursor_get(t->cursor, &key, data, MDB_SET_RANGE);
    if (rc) return rc;
    if (key.mv_size != KEY) return MDB_CORRUPTED;
    memcpy(id, key.mv_data, KEY);
    if (psize) take_leaf(t, psize, key.mv_data);
    return 0;
}

static iso_status vector_of(iso_cursor *c, uint64_t id, const float **out, iso_error *err)
{
    const iso_store *s = c->txn->store;
    uint64_t found;
    MDB_val v;
    int rc = find(&c->vectors, c->psize, id, &found, &v);
    if (rc && rc != MDB_NOTFOUND) return iso_lmdb_fail(err, rc, s->dir, "read");
    if (rc || found != id || v.mv_size != (size_t)s->dim * sizeof(float) || (uintptr_t)v.mv_data % sizeof(float))
        return iso_fail(err, ISO_E_FORMAT, "%s: the vector of item %" PRIu64 " is missing or damaged: run `indexer verify`", s->dir, id);
    if (c->whole && c->vectors.page) iso_pages_whole(s->env, c->vectors.page);
    c->whole = false;
    *out = v.mv_data;
    return ISO_OK;
}

iso_status iso_cursor_next(iso_cursor *c, iso_item *item, const float **vector, iso_error *err)
{
    const iso_store *s = c->txn->store;
    uint64_t id;
    MDB_val v;
    int rc = c->ended ? MDB_NOTFOUND : find(&c->items, c->psize, c->from, &id, &v);
    if (rc == MDB_NOTFOUND) return ISO_E_NOT_FOUND;
    if (rc) return iso_lmdb_fail(err, rc, s->dir, "read");
    iso_item now;
    const float *values = NULL;
    iso_status status = iso_item_decode(s, id, &v, &now, err);
    if (!status && vector) status = vector_of(c, id, &values, err);
    c->ended = id == UINT64_MAX;
    c->from = id + 1; /* a damaged record is told, and the next call goes on behind it */
    if (status) return status;
    if (item) *item = now;
    if (vector) *vector = values;
    return ISO_OK;
}
