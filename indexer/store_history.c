/* store_history.c: from which state of a database something was made.
 *
 * A generation alone does not say: where a backup is put back, or another database in this one's place, generations are given out a second time. So
 * every opening for writing marks its first change by a random stamp, and the record `history` of `meta` lists them: u64 generation, u64 stamp
 * each, generations ascending. The stamp of a generation is the last one up to it; two states of the same generation and stamp are the same,
 * or one opening's. Databases from before that record have one stamp, the time when they were made.
 *
 * The record keeps the newest ones, as many as an older Isoface reads. When it is full its oldest go into a record of their own, named by the first
 * generation that is no more theirs (`history` and its eight bytes, big-endian): where a program that knows of no such records has dropped some,
 * they are missing, and are not taken for the stamps before them.
 *
 * Only the index needs it: a record that is wrong counts as none at all, and the next change, or a compaction, begins it anew. */
#include <string.h>

#include "base/file.h"
#include "indexer/store_internal.h"

enum { ENTRY = 16, KEPT = 128, MOVED = 64, OLDER = 4096 }; /* bytes; stamps in the record; in one of older ones; such records */

typedef struct history {
    size_t count;
    uint64_t generation[KEPT + 1], stamp[KEPT + 1];
} history;

/* last: no entry is of a later generation. Of a wrong record nothing is read: count 0. */
static void decode(const MDB_val *v, uint64_t last, history *h)
{
    const uint8_t *p = v->mv_data;
    h->count = v->mv_size / ENTRY;
    bool sound = v->mv_size % ENTRY == 0 && h->count <= KEPT;
    for (size_t i = 0; sound && i < h->count; i++) {
        h->generation[i] = iso_get_u64(p + i * ENTRY);
        h->stamp[i] = iso_get_u64(p + i * ENTRY + 8);
        sound = (i == 0 || h->generation[i] > h->generation[i - 1]) && h->generation[i] <= last;
    }
    if (!sound) h->count = 0;
}

static iso_status read_history(const iso_store *s, MDB_txn *txn, uint64_t now, history *h, iso_error *err)
{
    MDB_val key = {7, "history"}, v;
    int rc = mdb_get(txn, s->meta, &key, &v);
    *h = (history){.count = 1, .stamp = {s->created}};
    if (rc == MDB_NOTFOUND) return ISO_OK;
    if (rc) return iso_lmdb_fail(err, rc, s->dir, "read");
    decode(&v, now, h);
    return ISO_OK;
}

static iso_status put(const iso_store *s, MDB_txn *txn, MDB_val key, const history *h, size_t first, size_t n, iso_error *err)
{
    uint8_t p[KEPT * ENTRY];
    MDB_val v = {n * ENTRY, p};
    for (size_t i = 0; i < n; i++) {
        iso_put_u64(p + i * ENTRY, h->generation[first + i]);
        iso_put_u64(p + i * ENTRY + 8, h->stamp[first + i]);
    }
    int rc = mdb_put(txn, s->meta, &key, &v, 0);
    return rc ? iso_lmdb_fail(err, rc, s->dir, "write") : ISO_OK;
}

/* ---- older ones ---- */

enum { NAME = 7, OLD_KEY = NAME + 8 };

static MDB_val old_key(uint64_t behind, uint8_t key[OLD_KEY])
{
    behind = htobe64(behind);
    memcpy(key, "history", NAME);
    memcpy(key + NAME, &behind, sizeof behind);
    return (MDB_val){OLD_KEY, key};
}

/* The first record of older ones that reaches beyond a generation; MDB_NOTFOUND: none. */
static int find_old(const iso_store *s, MDB_txn *txn, uint64_t generation, MDB_val *key, MDB_val *v)
{
    uint8_t bytes[OLD_KEY];
    MDB_cursor *c;
    int rc = mdb_cursor_open(txn, s->meta, &c);
    if (rc) return rc;
    *key = old_key(generation + 1, bytes);
    rc = mdb_cursor_get(c, key, v, MDB_SET_RANGE);
    if (!rc && (key->mv_size != OLD_KEY || memcmp(key->mv_data, "history", NAME) != 0)) rc = MDB_NOTFOUND;
    mdb_cursor_close(c);
    return rc;
}

static iso_status read_old(const iso_store *s, MDB_txn *txn, uint64_t generation, history *h, iso_error *err)
{
    MDB_val key, v;
    uint64_t behind;
    int rc = find_old(s, txn, generation, &key, &v);
    h->count = 0;
    if (rc) return rc == MDB_NOTFOUND ? ISO_OK : iso_lmdb_fail(err, rc, s->dir, "read");
    memcpy(&behind, (const uint8_t *)key.mv_data + NAME, sizeof behind);
    decode(&v, be64toh(behind) - 1, h);
    return ISO_OK;
}

/* A quarter of a million openings are enough for any index: what is older goes. */
static iso_status drop_oldest(const iso_store *s, MDB_txn *txn, iso_error *err)
{
    enum { OTHERS = 8 }; /* more records than `meta` has besides */
    uint8_t oldest[OLD_KEY];
    MDB_stat meta;
    MDB_val key, v;
    int rc = mdb_stat(txn, s->meta, &meta);
    if (!rc && meta.ms_entries <= OLDER + OTHERS) return ISO_OK;
    if (!rc) rc = find_old(s, txn, 0, &key, &v);
    if (!rc) rc = mdb_del(txn, s->meta, &(MDB_val){OLD_KEY, memcpy(oldest, key.mv_data, OLD_KEY)}, NULL);
    return rc ? iso_lmdb_fail(err, rc, s->dir, "write") : ISO_OK;
}

static iso_status write_history(const iso_store *s, MDB_txn *txn, const history *h, iso_error *err)
{
    const size_t moved = h->count > KEPT ? MOVED : 0;
    uint8_t key[OLD_KEY];
    iso_status status = moved ? put(s, txn, old_key(h->generation[moved], key), h, 0, moved, err) : ISO_OK;
    if (!status && moved) status = drop_oldest(s, txn, err);
    return status ? status : put(s, txn, (MDB_val){NAME, "history"}, h, moved, h->count - moved, err);
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
    if (generation > t->state.generation) return ISO_OK;
    if (h.count && generation < h.generation[0]) status = read_old(t->store, t->txn, generation, &h, err);
    for (size_t i = 0; !status && i < h.count && h.generation[i] <= generation; i++) *stamp = h.stamp[i];
    return status;
}
