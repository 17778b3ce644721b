/* store_verify.c: every promise of store.h, checked against what is on disk. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "indexer/store_internal.h"

typedef struct check {
    iso_txn *txn;
    iso_store *store;
    iso_say *say;
    void *ctx;
    iso_progress *progress;
    int64_t faults;
} check;

__attribute__((format(printf, 2, 3))) static void fault(check *c, const char *fmt, ...)
{
    char line[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    c->faults++;
    if (c->say) c->say(c->ctx, line);
}

static bool has(check *c, MDB_dbi table, void *bytes, size_t n)
{
    MDB_val key = {n, bytes}, v;
    return mdb_get(c->txn->txn, table, &key, &v) == 0;
}

static void check_index(check *c, const iso_item *item)
{
    uint8_t hash[16], key[ISO_STORE_KEY];
    iso_path_hash(item->path, hash);
    iso_index_key(key, hash, item->id);
    if (!has(c, c->store->by_path, key, sizeof key)) fault(c, "item %" PRIu64 " is not found by its path", item->id);
    if (!item->hash[0] && !item->hash[1]) return;
    iso_content_hash(item->hash, hash);
    iso_index_key(key, hash, item->id);
    if (!has(c, c->store->by_hash, key, sizeof key)) fault(c, "item %" PRIu64 " is not found by its content", item->id);
}

static void check_twins(check *c, const iso_item *item)
{
    iso_item first;
    iso_error err;
    iso_status status = iso_item_by_path(c->txn, item->path, &first, &err);
    if (!status && first.id != item->id) {
        char *path = iso_text_printable(item->path);
        fault(c, "items %" PRIu64 " and %" PRIu64 " have the same path %s", first.id, item->id, path ? path : "");
        free(path);
    }
}

static void check_item(check *c, uint64_t id, const MDB_val *record)
{
    iso_error err;
    iso_item item;
    const float *vector;
    const char *why;
    if (id == 0 || id >= c->txn->state.next_id) fault(c, "item %" PRIu64 " has an id that was never given out", id);
    if (iso_item_decode(c->store, id, record, &item, &err)) {
        fault(c, "the record of item %" PRIu64 " is damaged", id);
        return;
    }
    if (iso_item_vector(c->txn, id, &vector, &err)) fault(c, "the vector of item %" PRIu64 " is missing or has a wrong length", id);
    else if ((why = iso_vector_fault(c->store->dim, vector))) fault(c, "the vector of item %" PRIu64 " holds %s", id, why);
    check_index(c, &item);
    check_twins(c, &item);
}

/* Walks a table; `each` sees every entry. The number of entries comes back. */
typedef void each_entry(check *c, const MDB_val *key, const MDB_val *value);

static iso_status walk(check *c, MDB_dbi table, const char *entries, each_entry *each, uint64_t *count, iso_error *err)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    uint64_t n = 0;
    iso_progress_pass(c->progress, "checking", entries, (int64_t)c->txn->state.count);
    int rc = mdb_cursor_open(c->txn->txn, table, &cursor);
    if (rc) return iso_lmdb_fail(err, rc, c->store->dir, "read");
    while (!(rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT))) {
        each(c, &key, &value);
        iso_progress_step(c->progress, (int64_t)++n);
    }
    mdb_cursor_close(cursor);
    if (rc != MDB_NOTFOUND) return iso_lmdb_fail(err, rc, c->store->dir, "read");
    *count = n;
    return ISO_OK;
}

static uint64_t id_of(const MDB_val *key)
{
    uint64_t id;
    memcpy(&id, key->mv_data, sizeof id);
    return id;
}

static void each_item(check *c, const MDB_val *key, const MDB_val *value)
{
    if (key->mv_size != 8) fault(c, "an item's key has %zu bytes", key->mv_size);
    else check_item(c, id_of(key), value);
}

static void each_vector(check *c, const MDB_val *key, const MDB_val *value)
{
    uint64_t id = key->mv_size == 8 ? id_of(key) : 0;
    (void)value;
    if (!has(c, c->store->items, &id, sizeof id)) fault(c, "vector %" PRIu64 " belongs to no item", id);
}

static void index_entry(check *c, const MDB_val *key, bool by_path)
{
    const char *name = by_path ? "path" : "content";
    iso_item item;
    uint8_t hash[16];
    if (key->mv_size != ISO_STORE_KEY) {
        fault(c, "an entry by %s has %zu bytes", name, key->mv_size);
        return;
    }
    uint64_t id = iso_index_id(key->mv_data);
    if (iso_item_get(c->txn, id, &item, NULL)) {
        fault(c, "an entry by %s leads to item %" PRIu64 ", which is missing or damaged", name, id);
        return;
    }
    if (by_path) iso_path_hash(item.path, hash);
    else iso_content_hash(item.hash, hash);
    if (memcmp(hash, key->mv_data, sizeof hash)) fault(c, "an entry by %s leads to item %" PRIu64 ", which has another", name, id);
}

static void each_path(check *c, const MDB_val *key, const MDB_val *value)
{
    (void)value;
    index_entry(c, key, true);
}

static void each_hash(check *c, const MDB_val *key, const MDB_val *value)
{
    (void)value;
    index_entry(c, key, false);
}

static iso_status check_tables(check *c, iso_error *err)
{
    uint64_t items = 0, vectors = 0, paths = 0, hashes = 0;
    iso_status status = walk(c, c->store->items, "items", each_item, &items, err);
    if (!status) status = walk(c, c->store->vectors, "vectors", each_vector, &vectors, err);
    if (!status) status = walk(c, c->store->by_path, "paths", each_path, &paths, err);
    if (!status) status = walk(c, c->store->by_hash, "contents", each_hash, &hashes, err);
    if (status) return status;
    if (items != c->txn->state.count) fault(c, "%" PRIu64 " items where %" PRIu64 " are counted", items, c->txn->state.count);
    if (vectors != items) fault(c, "%" PRIu64 " vectors for %" PRIu64 " items", vectors, items);
    if (paths != items) fault(c, "%" PRIu64 " paths for %" PRIu64 " items", paths, items);
    if (hashes > items) fault(c, "%" PRIu64 " contents for %" PRIu64 " items", hashes, items);
    return ISO_OK;
}

static iso_status check_history(check *c, iso_error *err)
{
    uint64_t stamp;
    iso_status status = iso_store_stamp(c->txn, c->txn->state.generation, &stamp, err);
    if (!status && !stamp) fault(c, "the record of changes is damaged, and every search builds its index anew: `indexer compact` begins the record anew");
    return status;
}

/* Sums of sound vectors only: the faults of others have been told. */
static iso_status check_records(check *c, iso_error *err)
{
    const char *what = NULL;
    iso_status status = check_tables(c, err);
    if (!status && !c->faults) status = iso_sums_check(c->txn, c->progress, &what, err);
    if (!status && what) fault(c, "%s", what);
    return status ? status : check_history(c, err);
}

iso_status iso_store_verify(iso_store *s, void (*say)(void *ctx, const char *line), void *ctx, iso_progress *progress, int64_t *faults, iso_error *err)
{
    check c = {.store = s, .say = say, .ctx = ctx, .progress = progress};
    iso_status status = ISO_E_INTERRUPTED;
    for (int attempt = 0; status == ISO_E_INTERRUPTED && attempt < 5; attempt++) { /* a writer may be faster than the look at its header */
        iso_txn_abort(c.txn);
        c.txn = NULL;
        status = iso_txn_begin(s, false, &c.txn, err);
        if (status) return status;
        /* pages first: with a fault there, LMDB must not be asked at all */
        status = iso_pages_check(s->data_fd, s->dir, c.txn->txn, false, say, ctx, progress, &c.faults, err);
    }
    if (!status && !c.faults) status = check_records(&c, err);
    iso_txn_abort(c.txn);
    if (status) return status;
    *faults = c.faults;
    return ISO_OK;
}
