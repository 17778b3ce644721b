/* index_look.c: the index on disk beside its database, without searching: whether it is this one's, what it says of itself, and whether that is true. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/host_memory.h"
#include "base/memory.h"
#include "retriever/index_parts.h"

char *iso_index_path(const iso_store *store) { return iso_path_join(iso_store_dir(store), ISO_STORE_INDEX); }

iso_status iso_index_source(const iso_txn *txn, const iso_store_info *info, uint64_t generation, iso_vindex_source *out, iso_error *err)
{
    *out = (iso_vindex_source){.generation = generation < info->generation ? generation : info->generation, .dim = info->dim};
    snprintf(out->digest, sizeof out->digest, "%s", info->digest);
    return iso_store_stamp(txn, out->generation, &out->stamp, err);
}

iso_status iso_index_read(iso_txn *txn, const iso_store_info *info, const char *path, iso_vindex **out, char kind[8], iso_error *err)
{
    iso_vindex_source source;
    iso_vindex_info have;
    if (iso_vindex_peek(path, &have, err) != ISO_OK) have = (iso_vindex_info){0}; /* reading does not like it either, and says why */
    iso_status st = iso_index_source(txn, info, have.source.generation, &source, err);
    return st == ISO_OK ? iso_vindex_read(path, &source, out, kind, err) : st;
}

void iso_index_seen_free(iso_index_seen *s)
{
    if (s->txn) iso_txn_abort(s->txn);
    iso_vindex_free(s->index);
    *s = (iso_index_seen){0};
}

iso_status iso_index_see(iso_store *store, const char *path, iso_index_seen *s, iso_error *err)
{
    for (int attempt = 0;; attempt++) {
        *s = (iso_index_seen){0};
        iso_status st = iso_txn_begin(store, false, &s->txn, err);
        if (st == ISO_OK) s->info = iso_store_info_get(s->txn);
        if (st != ISO_OK) return st;
        s->read = iso_index_read(s->txn, &s->info, path, &s->index, s->kind, &s->why);
        if (s->read != ISO_E_MISMATCH || attempt) return ISO_OK;
        iso_index_seen_free(s);
    }
}

iso_status iso_index_info_get(iso_store *store, iso_vindex_info *out, bool *current, iso_error *err)
{
    iso_txn *txn = NULL;
    iso_vindex_info have;
    iso_vindex_source source;
    iso_status st = iso_txn_begin(store, false, &txn, err);
    if (st != ISO_OK) return st;
    const iso_store_info info = iso_store_info_get(txn);
    char *path = iso_index_path(store);
    st = path ? iso_vindex_peek(path, &have, err) : iso_fail_memory(err);
    if (st == ISO_OK) st = iso_index_source(txn, &info, have.source.generation, &source, err);
    if (st == ISO_OK) st = iso_vindex_source_check(&have.source, &source, path, err);
    if (st == ISO_OK) *out = have;
    if (st == ISO_OK && current) *current = have.source.generation == info.generation;
    iso_txn_abort(txn);
    free(path);
    return st;
}

bool iso_index_shortfall(const iso_vindex_info *info, char line[200])
{
    if (strcmp(info->kind, "flat") == 0 && info->count >= ISO_INDEX_FLAT_BELOW && iso_vindex_needs("ivf", info->count, info->source.dim) > iso_host_memory()) {
        snprintf(line, 200, "memory is short for an index of kind ivf, which is faster: this one is flat, and exact");
        return true;
    }
    if (!(info->least < ISO_VINDEX_RECALL)) return false;
    snprintf(line, 200, "the index of kind %s finds only %.3f of the answers of its hardest kind of queries (%.2f is wished for): flat, fp16 and sq8 find all", info->kind, info->least,
             ISO_VINDEX_RECALL);
    return true;
}

/* Every vector of the index beside the store's. */
static iso_status compare_vectors(const iso_store *store, iso_txn *txn, iso_vindex *index, void (*say)(void *, const char *), void *ctx, iso_progress *progress, int64_t *faults,
                                  iso_error *err)
{
    iso_vindex_info info;
    iso_vindex_info_get(index, &info);
    int dim = info.source.dim;
    float *kept = iso_calloc((size_t)dim * 2, sizeof *kept), *unit = kept + dim;
    iso_status st = kept ? ISO_OK : iso_fail_memory(err);
    iso_progress_pass(progress, "checking the index", "vectors", info.count);
    for (int64_t i = 0; st == ISO_OK && i < info.count; i++) {
        const float *z;
        const uint64_t id = iso_vindex_id(index, i);
        char line[160];
        double square = 0;
        iso_progress_step(progress, i);
        st = iso_item_vector(txn, id, &z, err);
        if (st == ISO_E_NOT_FOUND) { /* removed after the index was built */
            st = ISO_OK;
            continue;
        }
        if (st == ISO_OK) st = iso_vindex_vector(index, i, kept, err);
        if (st != ISO_OK) break;
        const bool finite = iso_index_unit(store, id, z, dim, unit, NULL) == ISO_OK;
        for (int j = 0; j < dim; j++) square += ((double)kept[j] - unit[j]) * ((double)kept[j] - unit[j]);
        if (finite && sqrt(square) <= info.error + 1e-6) continue;
        snprintf(line, sizeof line, "item %llu: the index holds another vector than the database; 'indexer reindex' builds it anew", (unsigned long long)id);
        say(ctx, line);
        ++*faults;
    }
    free(kept);
    return st;
}

iso_status iso_index_verify(iso_store *store, void (*say)(void *ctx, const char *line), void *ctx, iso_progress *progress, int64_t *faults, iso_error *err)
{
    iso_index_seen at = {0};
    int64_t found = 0;
    char *path = iso_index_path(store);
    iso_status st = path ? iso_index_see(store, path, &at, err) : iso_fail_memory(err);
    if (st == ISO_OK && at.read == ISO_OK) st = compare_vectors(store, at.txn, at.index, say, ctx, progress, &found, err);
    else if (st == ISO_OK && (at.read == ISO_E_FORMAT || at.read == ISO_E_MISMATCH || at.read == ISO_E_IO)) {
        say(ctx, at.why.message);
        found++;
    } else if (st == ISO_OK && at.read != ISO_E_NOT_FOUND) st = iso_fail(err, at.read, "%s", at.why.message);
    iso_index_seen_free(&at);
    free(path);
    if (st == ISO_OK) *faults = found;
    return st;
}
