/* store_item.c: items and their vectors: looking up, adding, removing. */
#include <endian.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/clones.h"
#include "indexer/store_internal.h"

_Static_assert(sizeof(size_t) == 8, "LMDB's integer keys are size_t; ids have 64 bits");

/* u32 version, u32 path length, i64 size, i64 mtime, 2 x u64 hash, i32 width, i32 height, path, NUL */
enum { RECORD = 48 };

void iso_path_hash(const char *path, uint8_t out[16])
{
    XXH128_canonical_t c;
    XXH128_canonicalFromHash(&c, XXH3_128bits(path, strlen(path)));
    memcpy(out, c.digest, 16);
}

void iso_content_hash(const uint64_t hash[2], uint8_t out[16])
{
    iso_put_u64(out, hash[0]);
    iso_put_u64(out + 8, hash[1]);
}

/* Big-endian, so that LMDB's byte order is the ids' order. */
void iso_index_key(uint8_t key[ISO_STORE_KEY], const uint8_t hash[16], uint64_t id)
{
    memcpy(key, hash, 16);
    id = htobe64(id);
    memcpy(key + 16, &id, sizeof id);
}

uint64_t iso_index_id(const uint8_t key[ISO_STORE_KEY])
{
    uint64_t id;
    memcpy(&id, key + 16, sizeof id);
    return be64toh(id);
}

/* Plain loops: gcc takes its own vectors of that many doubles apart through the stack where registers are shorter. */
ISO_CLONES double iso_vector_squares(int dim, const float *v)
{
    enum { LANES = 8 };
    double part[LANES] = {0};
    int j = 0;
    for (; j + LANES <= dim; j += LANES)
        for (int l = 0; l < LANES; l++) part[l] += (double)v[j + l] * v[j + l];
    double sum = ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
    for (; j < dim; j++) sum += (double)v[j] * v[j];
    return sum;
}

const char *iso_vector_fault(int dim, const float *v)
{
    const double sum = iso_vector_squares(dim, v);
    if (isfinite(sum)) return sum > 0 ? NULL : "zeros only, which have no direction";
    while (isfinite(*v)) v++;
    return isnan(*v) ? "a NaN" : "an infinity";
}

static bool hash_known(const uint64_t hash[2]) { return hash[0] || hash[1]; }

iso_status iso_item_decode(const iso_store *s, uint64_t id, const MDB_val *v, iso_item *out, iso_error *err)
{
    const uint8_t *p = v->mv_data;
    uint64_t n = v->mv_size >= RECORD + 2 ? iso_get_u32(p + 4) : 0;
    if (!n || iso_get_u32(p) != ISO_STORE_VERSION || RECORD + n + 1 != v->mv_size || memchr(p + RECORD, 0, (size_t)n + 1) != p + RECORD + n)
        return iso_fail(err, ISO_E_FORMAT, "%s: the record of item %" PRIu64 " is damaged: run `indexer verify`", s->dir, id);
    iso_item item = {.id = id, .path = (const char *)p + RECORD, .size = (int64_t)iso_get_u64(p + 8), .mtime_ns = (int64_t)iso_get_u64(p + 16),
                     .hash = {iso_get_u64(p + 24), iso_get_u64(p + 32)}, .width = (int32_t)iso_get_u32(p + 40), .height = (int32_t)iso_get_u32(p + 44)};
    *out = item;
    return ISO_OK;
}

size_t iso_record_bytes(const iso_item *item) { return RECORD + strlen(item->path) + 1; }

void iso_record_encode(uint8_t *p, const iso_item *item)
{
    size_t path_length = strlen(item->path);
    iso_put_u32(p, ISO_STORE_VERSION);
    iso_put_u32(p + 4, (uint32_t)path_length);
    iso_put_u64(p + 8, (uint64_t)item->size);
    iso_put_u64(p + 16, (uint64_t)item->mtime_ns);
    iso_put_u64(p + 24, item->hash[0]);
    iso_put_u64(p + 32, item->hash[1]);
    iso_put_u32(p + 40, (uint32_t)item->width);
    iso_put_u32(p + 44, (uint32_t)item->height);
    memcpy(p + RECORD, item->path, path_length + 1);
}

/* ---- looking up ---- */

static iso_status not_found(const iso_txn *t, uint64_t id, iso_error *err)
{
    return iso_fail(err, ISO_E_NOT_FOUND, "%s has no item %" PRIu64, t->store->dir, id);
}

iso_status iso_item_get(iso_txn *t, uint64_t id, iso_item *out, iso_error *err)
{
    MDB_val key = {sizeof id, &id}, v;
    int rc = mdb_get(t->txn, t->store->items, &key, &v);
    if (rc == MDB_NOTFOUND) return not_found(t, id, err);
    if (rc) return iso_lmdb_fail(err, rc, t->store->dir, "read");
    return iso_item_decode(t->store, id, &v, out, err);
}

iso_status iso_item_vector(iso_txn *t, uint64_t id, const float **out, iso_error *err)
{
    MDB_val key = {sizeof id, &id}, v;
    const float *place = iso_places_vector(t, id);
    if (place) {
        *out = place;
        return ISO_OK;
    }
    int rc = mdb_get(t->txn, t->store->vectors, &key, &v);
    if (rc == MDB_NOTFOUND) return not_found(t, id, err);
    if (rc) return iso_lmdb_fail(err, rc, t->store->dir, "read");
    if (v.mv_size != (size_t)t->store->dim * sizeof(float) || (uintptr_t)v.mv_data % sizeof(float))
        return iso_fail(err, ISO_E_FORMAT, "%s: the vector of item %" PRIu64 " is damaged: run `indexer verify`", t->store->dir, id);
    *out = v.mv_data;
    return ISO_OK;
}

/* The items whose index key begins with `hash`, in order of ids; with `path`, the one of that path: two paths may hash alike. */
static iso_status index_find(iso_txn *t, MDB_dbi table, const uint8_t hash[16], const char *path, iso_item *out, iso_error *err)
{
    MDB_cursor *c;
    int rc = mdb_cursor_open(t->txn, table, &c);
    if (rc) return iso_lmdb_fail(err, rc, t->store->dir, "read");
    uint8_t from[ISO_STORE_KEY];
    iso_index_key(from, hash, 0);
    MDB_val key = {sizeof from, from}, v;
    iso_status status = ISO_E_NOT_FOUND;
    rc = mdb_cursor_get(c, &key, &v, MDB_SET_RANGE);
    while (!rc && key.mv_size == ISO_STORE_KEY && !memcmp(key.mv_data, hash, 16)) {
        iso_item item;
        uint64_t id = iso_index_id(key.mv_data);
        status = iso_item_get(t, id, &item, err);
        if (status == ISO_E_NOT_FOUND)
            status = iso_fail(err, ISO_E_FORMAT, "%s: an index entry leads to item %" PRIu64 ", which is missing: run `indexer verify`", t->store->dir, id);
        if (status) break;
        if (!path || !strcmp(item.path, path)) {
            *out = item;
            break;
        }
        status = ISO_E_NOT_FOUND;
        rc = mdb_cursor_get(c, &key, &v, MDB_NEXT);
    }
    mdb_cursor_close(c);
    if (rc && rc != MDB_NOTFOUND) return iso_lmdb_fail(err, rc, t->store->dir, "read");
    return status;
}

iso_status iso_item_by_path(iso_txn *t, const char *path, iso_item *out, iso_error *err)
{
    uint8_t hash[16];
    iso_path_hash(path, hash);
    iso_status status = index_find(t, t->store->by_path, hash, path, out, err);
    return status == ISO_E_NOT_FOUND ? iso_fail(err, status, "%s has no item %s", t->store->dir, path) : status;
}

iso_status iso_item_by_hash(iso_txn *t, const uint64_t hash[2], iso_item *out, iso_error *err)
{
    uint8_t bytes[16];
    iso_content_hash(hash, bytes);
    iso_status status = hash_known(hash) ? index_find(t, t->store->by_hash, bytes, NULL, out, err) : ISO_E_NOT_FOUND;
    return status == ISO_E_NOT_FOUND ? iso_fail(err, status, "%s has no item of that content", t->store->dir) : status;
}

/* ---- changing ---- */

static iso_status writing(iso_txn *t, iso_error *err)
{
    if (!t->write) return iso_fail(err, ISO_E_ARGUMENT, "%s: a read transaction cannot change it", t->store->dir);
    if (t->failed) return iso_fail(err, ISO_E_ARGUMENT, "%s: this transaction failed before", t->store->dir);
    return ISO_OK;
}

/* Half a change must never be committed. */
static iso_status write_failed(iso_txn *t, int rc, iso_error *err)
{
    t->failed = true;
    return iso_lmdb_fail(err, rc, t->store->dir, "write");
}

static int drop_key(iso_txn *t, MDB_dbi table, void *bytes, size_t n)
{
    MDB_val key = {n, bytes};
    int rc = mdb_del(t->txn, table, &key, NULL);
    return rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc;
}

static int remove_item(iso_txn *t, const iso_item *item)
{
    iso_store *s = t->store;
    uint8_t hash[16], by_path[ISO_STORE_KEY], by_hash[ISO_STORE_KEY];
    uint64_t id = item->id;
    bool hashed = hash_known(item->hash);
    iso_path_hash(item->path, hash);
    iso_index_key(by_path, hash, id);
    iso_content_hash(item->hash, hash);
    iso_index_key(by_hash, hash, id);
    int rc = drop_key(t, s->items, &id, sizeof id); /* item->path is gone from here on */
    if (!rc) rc = drop_key(t, s->vectors, &id, sizeof id);
    if (!rc) rc = drop_key(t, s->by_path, by_path, sizeof by_path);
    if (!rc && hashed) rc = drop_key(t, s->by_hash, by_hash, sizeof by_hash);
    if (!rc && !t->state.count) rc = MDB_CORRUPTED;
    return rc;
}

static int add_index(iso_txn *t, MDB_dbi table, const uint8_t hash[16], uint64_t id)
{
    uint8_t bytes[ISO_STORE_KEY];
    iso_index_key(bytes, hash, id);
    MDB_val key = {sizeof bytes, bytes}, nothing = {0, ""};
    return mdb_put(t->txn, table, &key, &nothing, MDB_NOOVERWRITE);
}

static int add_item(iso_txn *t, const iso_item *item, uint64_t id, const float *vector)
{
    iso_store *s = t->store;
    uint8_t hash[16];
    MDB_val key = {sizeof id, &id}, v = {iso_record_bytes(item), NULL};
    /* ids only rise: appending fills the pages */
    int rc = mdb_put(t->txn, s->items, &key, &v, MDB_APPEND | MDB_RESERVE);
    if (!rc) iso_record_encode(v.mv_data, item);
    v = (MDB_val){(size_t)s->dim * sizeof(float), (void *)(uintptr_t)vector};
    if (!rc) rc = mdb_put(t->txn, s->vectors, &key, &v, MDB_APPEND);
    iso_path_hash(item->path, hash);
    if (!rc) rc = add_index(t, s->by_path, hash, id);
    iso_content_hash(item->hash, hash);
    if (!rc && hash_known(item->hash)) rc = add_index(t, s->by_hash, hash, id);
    return rc == MDB_KEYEXIST ? MDB_CORRUPTED : rc;
}

iso_status iso_item_put(iso_txn *t, iso_item *item, const float *vector, iso_error *err)
{
    iso_item old;
    iso_status status = writing(t, err);
    if (status) return status;
    if (!item->path || !*item->path || strlen(item->path) > ISO_STORE_PATH_MAX) return iso_fail(err, ISO_E_ARGUMENT, "an item needs a path");
    const char *why = iso_vector_fault(t->store->dim, vector);
    if (why) return iso_fail(err, ISO_E_NUMERIC, "the vector of %s holds %s", item->path, why);
    uint8_t hash[16];
    iso_path_hash(item->path, hash);
    status = index_find(t, t->store->by_path, hash, item->path, &old, err); /* a new path needs no message */
    if (status && status != ISO_E_NOT_FOUND) return status;
    bool replace = status == ISO_OK;
    status = iso_sums_begin(t, err);
    if (!status && replace) status = iso_sums_subtract(t, old.id, err);
    if (status) return status;
    iso_sums_add(t, vector);
    int rc = replace ? remove_item(t, &old) : 0;
    uint64_t id = t->state.next_id;
    if (!rc) rc = add_item(t, item, id, vector);
    if (rc) return write_failed(t, rc, err);
    t->state.next_id++;
    t->state.count += !replace;
    t->dirty = t->changed = true;
    item->id = id;
    return ISO_OK;
}

iso_status iso_item_touch(iso_txn *t, const iso_item *item, iso_error *err)
{
    iso_item old;
    iso_status status = writing(t, err);
    if (!status) status = iso_item_get(t, item->id, &old, err);
    if (status) return status;
    size_t n = iso_record_bytes(&old);
    uint8_t *p = malloc(n);
    if (!p) return iso_fail_memory(err);
    old.size = item->size;
    old.mtime_ns = item->mtime_ns;
    old.width = item->width;
    old.height = item->height;
    iso_record_encode(p, &old);
    uint64_t id = item->id;
    MDB_val key = {sizeof id, &id}, v = {n, p};
    int rc = mdb_put(t->txn, t->store->items, &key, &v, 0);
    free(p);
    if (rc) return write_failed(t, rc, err);
    t->dirty = true;
    return ISO_OK;
}

iso_status iso_item_remove(iso_txn *t, uint64_t id, iso_error *err)
{
    iso_item item;
    iso_status status = writing(t, err);
    if (!status) status = iso_item_get(t, id, &item, err);
    if (!status) status = iso_sums_begin(t, err);
    if (!status) status = iso_sums_subtract(t, id, err);
    if (status) return status;
    int rc = remove_item(t, &item);
    if (rc) return write_failed(t, rc, err);
    t->state.count--;
    t->dirty = t->changed = true;
    return ISO_OK;
}
