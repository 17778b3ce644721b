/* store_meta.c: the head and state records of `meta`. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "indexer/store_internal.h"

/* u32 version, u32 dim, 32 digest, u64 created, u32 length and bytes of model and of root */
iso_status iso_head_write(iso_store *s, MDB_txn *txn, iso_error *err)
{
    size_t nm = strlen(s->model), nr = strlen(s->root);
    MDB_val key = {4, "head"}, v = {56 + nm + nr, NULL};
    int rc = mdb_put(txn, s->meta, &key, &v, MDB_RESERVE);
    if (rc) return iso_lmdb_fail(err, rc, s->dir, "write");
    uint8_t *p = v.mv_data;
    iso_put_u32(p, ISO_STORE_VERSION);
    iso_put_u32(p + 4, (uint32_t)s->dim);
    memcpy(p + 8, s->digest, 32);
    iso_put_u64(p + 40, s->created);
    iso_put_u32(p + 48, (uint32_t)nm);
    iso_put_u32(p + 52, (uint32_t)nr);
    memcpy(p + 56, s->model, nm);
    memcpy(p + 56 + nm, s->root, nr);
    return ISO_OK;
}

/* What a head record says. */
typedef struct head {
    uint32_t dim;
    uint64_t created;
    const char *digest, *model, *root; /* [32], [model_length], [root_length], in LMDB's map */
    size_t model_length, root_length;
} head;

static iso_status parse_head(const iso_store *s, MDB_txn *txn, head *out, iso_error *err)
{
    MDB_val key = {4, "head"}, v;
    int rc = mdb_get(txn, s->meta, &key, &v);
    if (rc == MDB_NOTFOUND) return iso_fail(err, ISO_E_NOT_FOUND, "%s is damaged or of another program (it has no head record): restore it, or name another", s->dir);
    if (rc) return iso_lmdb_fail(err, rc, s->dir, "read");
    const uint8_t *p = v.mv_data;
    uint32_t version = v.mv_size >= 56 ? iso_get_u32(p) : 0;
    if (v.mv_size >= 4 && iso_get_u32(p) > ISO_STORE_VERSION)
        return iso_fail(err, ISO_E_UNSUPPORTED, "%s was written by a newer Isoface (format %u): use that one", s->dir, iso_get_u32(p));
    uint32_t dim = version ? iso_get_u32(p + 4) : 0;
    uint64_t nm = version ? iso_get_u32(p + 48) : 0, nr = version ? iso_get_u32(p + 52) : 0;
    if (version != ISO_STORE_VERSION || dim < 1 || dim > ISO_STORE_DIM_MAX || nm >= sizeof s->model || !nr || 56 + nm + nr != v.mv_size
        || memchr(p + 56, 0, (size_t)(nm + nr)) || strspn((const char *)p + 8, "0123456789abcdef") < 32)
        return iso_fail(err, ISO_E_FORMAT, "%s is damaged (its head record is wrong): restore it, or remove it and encode again", s->dir);
    *out = (head){.dim = dim, .created = iso_get_u64(p + 40), .digest = (const char *)p + 8, .model = (const char *)p + 56, .model_length = (size_t)nm,
                  .root = (const char *)p + 56 + nm, .root_length = (size_t)nr};
    return ISO_OK;
}

iso_status iso_head_read(iso_store *s, MDB_txn *txn, iso_error *err)
{
    head h;
    iso_status status = parse_head(s, txn, &h, err);
    if (status) return status;
    char *root = iso_strndup(h.root, h.root_length);
    if (!root) return iso_fail_memory(err);
    free(s->root);
    s->root = root;
    s->dim = (int)h.dim;
    memcpy(s->digest, h.digest, 32);
    s->digest[32] = 0;
    s->created = h.created;
    memcpy(s->model, h.model, h.model_length);
    s->model[h.model_length] = 0;
    return ISO_OK;
}

iso_status iso_head_root(const iso_store *s, MDB_txn *txn, char **out, iso_error *err)
{
    head h;
    iso_status status = parse_head(s, txn, &h, err);
    if (status) return status;
    char *root = iso_strndup(h.root, h.root_length);
    if (!root) return iso_fail_memory(err);
    *out = root;
    return ISO_OK;
}

iso_status iso_state_write(iso_store *s, MDB_txn *txn, const iso_state *state, iso_error *err)
{
    uint8_t p[36];
    iso_put_u32(p, ISO_STORE_VERSION);
    iso_put_u64(p + 4, state->count);
    iso_put_u64(p + 12, state->next_id);
    iso_put_u64(p + 20, state->generation);
    iso_put_u64(p + 28, state->updated);
    MDB_val key = {5, "state"}, v = {sizeof p, p};
    int rc = mdb_put(txn, s->meta, &key, &v, 0);
    return rc ? iso_lmdb_fail(err, rc, s->dir, "write") : ISO_OK;
}

iso_status iso_state_read(iso_store *s, MDB_txn *txn, iso_state *state, iso_error *err)
{
    MDB_val key = {5, "state"}, v;
    int rc = mdb_get(txn, s->meta, &key, &v);
    if (rc && rc != MDB_NOTFOUND) return iso_lmdb_fail(err, rc, s->dir, "read");
    if (rc || v.mv_size != 36 || iso_get_u32(v.mv_data) != ISO_STORE_VERSION)
        return iso_fail(err, ISO_E_FORMAT, "%s is damaged (its state record is wrong): restore it, or remove it and encode again", s->dir);
    const uint8_t *p = v.mv_data;
    *state = (iso_state){iso_get_u64(p + 4), iso_get_u64(p + 12), iso_get_u64(p + 20), iso_get_u64(p + 28)};
    MDB_stat items;
    rc = mdb_stat(txn, s->items, &items);
    if (rc) return iso_lmdb_fail(err, rc, s->dir, "read");
    if (items.ms_entries != state->count)
        return iso_fail(err, ISO_E_FORMAT, "%s is damaged (its state record counts %" PRIu64 " items, but it has %zu): restore it, or remove it and encode again",
                        s->dir, state->count, items.ms_entries);
    return ISO_OK;
}
