/* store_history.c: from which state of a database something was made.
 *
 * A generation alone does not say: where a backup is put back, or another database in this one's place, generations are given out a second time. So
 * every opening for writing marks its first change by a random stamp, and the record `history` of `meta` lists them: u64 generation, u64 stamp
 * each, generations ascending. The stamp of a generation is the last one up to it; two states of the same generation and stamp are the same,
 * or one opening's. Databases from before that record have one stamp, the time when they were made.
 *
 * Only the index needs it: a record that is wrong counts as none at all, and the next change, or a compaction, begins it anew. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "indexer/store_internal.h"

enum { ENTRY = 16, KEPT = 128 }; /* bytes; stamps: of what is older than these nothing is known */

typedef struct history {
    size_t count;
    uint64_t generation[KEPT + 1], stamp[KEPT + 1];
} history;

/* now: no entry is of a later generation. Of a wrong record nothing is read: count 0. */
static iso_status read_history(const iso_store *s, MDB_txn *txn, uint64_t now, history *h, iso_error *err)
{
    MDB_val key = {7, "history"}, v;
    int rc = mdb_get(txn, s->meta, &key, &v);
    *h = (history){.count = 1, .stamp = {s->created}};
    if (rc == MDB_NOTFOUND) return ISO_OK;
    if (rc) return iso_lmdb_fail(err, rc, s->dir, "read");
    const uint8_t *p = v.mv_data;
    h->count = v.mv_size / ENTRY;
    bool sound = v.mv_size % ENTRY == 0 && h->count <= KEPT;
    for (size_t i = 0; sound && i < h->count; i++) {
        h->generation[i] = iso_get_u64(p + i * ENTRY);
        h->stamp[i] = iso_get_u64(p + i * ENTRY + 8);
        sound = (i == 0 || h->generation[i] > h->generation[i - 1]) && h->generation[i] <= now;
    }
    if (!sound) h->count = 0;
    return ISO_OK;
}

static iso_status write_history(const iso_store *s, MDB_txn *txn, const history *h, iso_error *err)
{
    const size_t first = h->count > KEPT ? h->count - KEPT : 0;
    uint8_t p[KEPT * ENTRY];
    MDB_val key = {7, "history"}, v = {(h->count - first) * ENTRY, p};
    for (size_t i = first; i < h->count; i++) {
        iso_put_u64(p + (i - first) * ENTRY, h->generation[i]);
        iso_put_u64(p + (i - first) * ENTRY + 8, h->stamp[i]);
    }
    int rc = mdb_put(txn, s->meta, &key, &v, 0);
    return rc ? iso_lmdb_fail(err, rc, s->dir, "write") : ISO_OK;
}

iso_status iso_history_begin(const iso_store *s, MDB_txn *txn, iso_error *err)
{
    const history h = {.count = 1, .stamp = {iso_fresh_number()}};
    return write_history(s, txn, &h, err);
}

iso_status iso_history_add(const iso_txn *t, iso_error *err)
{
    history h;
    iso_status status = read_history(t->store, t->txn, t->state.generation - 1, &h, err);
    if (status) return status;
    h.generation[h.count] = t->state.generation;
    h.stamp[h.count++] = iso_fresh_number();
    return write_history(t->store, t->txn, &h, err);
}

iso_status iso_history_mend(iso_txn *t, iso_error *err)
{
    uint64_t stamp;
    iso_status status = iso_store_stamp(t, t->state.generation, &stamp, err);
    if (status || stamp) return status;
    const history h = {.count = 1, .generation = {t->state.generation}, .stamp = {iso_fresh_number()}};
    t->dirty = true;
    return write_history(t->store, t->txn, &h, err);
}

iso_status iso_store_stamp(const iso_txn *t, uint64_t generation, uint64_t *stamp, iso_error *err)
{
    history h;
    iso_status status = read_history(t->store, t->txn, t->state.generation, &h, err);
    if (status) return status;
    *stamp = 0;
    for (size_t i = 0; generation <= t->state.generation && i < h.count && h.generation[i] <= generation; i++) *stamp = h.stamp[i];
    return ISO_OK;
}
