/* searcher.c: an open database ready for queries: opening, keeping up with its changes, the background of contrast. */
#include "retriever/searcher.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "retriever/index_parts.h"

/* ---- what changed since the index was built ---- */

/* Puts an item behind the extras; it counts when k->extras does. */
static iso_status put_extra(iso_searcher *s, int64_t at, uint64_t id, const float *z, iso_error *err)
{
    iso_known *k = &s->known;
    const size_t n = (size_t)at + 1, dim = (size_t)s->dim;
    if (!iso_grow(&k->extra_id, &k->extra_id_room, n, sizeof *k->extra_id) || !iso_grow(&k->extra, &k->extra_room, n * dim, sizeof *k->extra))
        return iso_fail_memory(err);
    k->extra_id[at] = id;
    return iso_index_unit(s->store, id, z, s->dim, k->extra + (size_t)at * dim, err);
}

/* The last id that is in the index or among the extras; 0: none is. */
static uint64_t last_known(const iso_known *k)
{
    const int64_t count = iso_vindex_count(k->index);
    return k->extras ? k->extra_id[k->extras - 1] : count ? iso_vindex_id(k->index, count - 1) : 0;
}

/* Takes those of the extras out that are gone. */
static iso_status drop_extras(iso_known *k, size_t dim, iso_txn *txn, iso_error *err)
{
    const size_t n = (size_t)k->extras;
    iso_cursor *cursor = NULL;
    iso_item item = {0};
    bool *there = iso_calloc(n, sizeof *there);
    iso_status st = !there ? iso_fail_memory(err) : n ? iso_cursor_open(txn, k->extra_id[0], &cursor, err) : ISO_OK;
    for (size_t i = 0; st == ISO_OK && i < n; i++) {
        while (st == ISO_OK && item.id < k->extra_id[i]) st = iso_cursor_next(cursor, &item, NULL, err);
        there[i] = st == ISO_OK && item.id == k->extra_id[i];
    }
    iso_cursor_close(cursor);
    if (st == ISO_OK || st == ISO_E_NOT_FOUND) {
        k->extras = 0;
        for (size_t i = 0; i < n; i++) {
            if (!there[i]) continue;
            k->extra_id[k->extras] = k->extra_id[i];
            memmove(k->extra + (size_t)k->extras++ * dim, k->extra + i * dim, sizeof *k->extra * dim);
        }
        st = ISO_OK;
    }
    free(there);
    return st;
}

/* Brings the extras, which are those of an earlier state or none, to that of `info`. Ids are given out in order and never again (of one history:
 * iso_index_read): what is new lies behind the last one, and what is gone is the difference in number. So the items that were there already are not
 * read, but for the extras where something is gone. After a failure the earlier state holds. */
static iso_status take_changes(iso_searcher *s, iso_txn *txn, const iso_store_info *info, iso_error *err)
{
    iso_known *k = &s->known;
    const int64_t count = iso_vindex_count(k->index), before = k->extras;
    const uint64_t last = last_known(k);
    iso_cursor *cursor = NULL;
    iso_item item;
    const float *z;
    int64_t extras = before;
    uint64_t stamp;
    if (k->generation == info->generation) return ISO_OK;
    iso_status st = iso_store_stamp(txn, info->generation, &stamp, err);
    if (st == ISO_OK) st = iso_cursor_open(txn, last ? last + 1 : 0, &cursor, err);
    while (st == ISO_OK) {
        st = iso_cursor_next(cursor, &item, &z, err);
        if (st == ISO_OK) st = put_extra(s, extras++, item.id, z, err);
    }
    iso_cursor_close(cursor);
    if (st != ISO_E_NOT_FOUND) return st;
    k->extras = extras;
    const int64_t gone = count + extras - (int64_t)info->count;
    st = gone > k->removed ? drop_extras(k, (size_t)s->dim, txn, err) : ISO_OK;
    if (st != ISO_OK) {
        k->extras = before;
        return st;
    }
    k->removed = count + k->extras - (int64_t)info->count;
    k->generation = info->generation;
    k->stamp = stamp;
    return ISO_OK;
}

static void free_known(iso_known *k)
{
    iso_vindex_free(k->index);
    free(k->extra_id);
    free(k->extra);
}

/* Another index takes the place of that in memory, if there is one; what it lacks is still to be taken. */
static void use_index(iso_known *k, iso_vindex *index)
{
    iso_vindex_info have;
    iso_vindex_free(k->index);
    k->index = index;
    k->extras = k->removed = 0;
    iso_vindex_info_get(index, &have);
    k->generation = have.source.generation;
    k->stamp = have.source.stamp;
}

/* ---- opening ---- */

/* Whether somebody at a terminal would wonder: building it takes a second or more. */
static bool takes_long(const char *kind, const iso_store_info *info)
{
    return iso_vindex_kind_approximate(kind) ? info->count >= ISO_INDEX_FLAT_BELOW : info->count * (uint64_t)info->dim >= UINT64_C(1) << 29;
}

/* Replaces the index in memory and, if the folder lets us, on disk. `at` says what was wrong with the old one. */
static iso_status rebuild(iso_searcher *s, const iso_index_seen *at, const iso_index_talk *talk, const char *path, iso_error *err)
{
    iso_error unsaved;
    iso_vindex *fresh = NULL;
    const iso_store_info *info = &at->info;
    const char *kind = at->kind[0] ? at->kind : iso_index_default_kind(info), *why = at->why.message;
    if (talk && takes_long(kind, info))
        iso_progress_say(talk->progress, "%s: building the index of %llu items%s", talk->program, (unsigned long long)info->count, talk->hint ? talk->hint : "");
    iso_status st = iso_index_make(s->store, at->txn, info, kind, true, talk ? talk->progress : NULL, path, &unsaved, &fresh, err);
    if (st != ISO_OK) return st;
    use_index(&s->known, fresh);
    s->unsaved = unsaved.status != ISO_OK;
    if (!s->unsaved) snprintf(s->note, sizeof s->note, "%.900s: it was built anew", why);
    else snprintf(s->note, sizeof s->note, "%.700s: it was built for this run only (%.400s)", why, unsaved.message);
    return ISO_OK;
}

/* Takes over what was seen of the index. Not *good: there has to be another, of which at->kind says the kind ("": the default one), and at->why the reason. */
static iso_status take_index(iso_searcher *s, iso_index_seen *at, const char *path, bool *good, iso_error *err)
{
    const iso_store_info *info = &at->info;
    iso_known *k = &s->known;
    *good = false;
    if (at->read == ISO_E_MEMORY) { /* or files: what it was is said there */
        if (err) *err = at->why;
        return at->read;
    }
    if (at->read != ISO_OK) return ISO_OK;
    use_index(k, at->index);
    at->index = NULL;
    const int64_t missing = (int64_t)info->count - iso_vindex_count(k->index); /* at least; so many are not read in first */
    iso_status st = missing > (int64_t)(info->count / 5) ? ISO_OK : take_changes(s, at->txn, info, err);
    const int64_t lacks = missing > k->extras ? missing : k->extras;
    *good = lacks <= (int64_t)(info->count / 5) && k->removed <= iso_vindex_count(k->index) / 2;
    if (st != ISO_OK || *good) return st;
    (void)iso_fail(&at->why, ISO_E_MISMATCH, "index %s lacks %lld of %llu items and holds %lld that are gone", path, (long long)lacks,
                   (unsigned long long)info->count, (long long)k->removed);
    /* a kind that was only the default for a smaller database need not be the right one now, but a chosen one stays */
    if (strcmp(at->kind, "flat") == 0 && iso_vindex_count(k->index) < ISO_INDEX_FLAT_BELOW) at->kind[0] = 0;
    return ISO_OK;
}

/* Looks again once nobody else builds one: it may be there then. */
static iso_status open_index(iso_searcher *s, const iso_index_talk *talk, const char *path, iso_error *err)
{
    iso_index_seen at = {0};
    bool good = false, alone = false;
    int lock = -1;
    iso_status st;
    for (;; alone = true) {
        st = iso_index_see(s->store, path, &at, err);
        s->dim = at.info.dim;
        if (st == ISO_OK) st = take_index(s, &at, path, &good, err);
        if (st != ISO_OK || good || alone) break;
        iso_index_seen_free(&at);
        st = iso_index_lock(s->store, talk, &lock, err);
        if (st != ISO_OK) break;
    }
    if (st == ISO_OK && !good) st = rebuild(s, &at, talk, path, err);
    iso_index_seen_free(&at);
    if (alone) iso_index_unlock(lock);
    return st;
}

iso_status iso_searcher_open_telling(iso_store *store, const iso_index_talk *talk, iso_searcher **out, iso_error *err)
{
    char *path = iso_index_path(store);
    iso_searcher *s = iso_calloc(1, sizeof *s);
    iso_status st = s && path ? ISO_OK : iso_fail_memory(err);
    if (s) {
        pthread_mutex_init(&s->lock, NULL);
        s->store = store;
    }
    if (st == ISO_OK) st = open_index(s, talk, path, err);
    free(path);
    if (st == ISO_OK) *out = s;
    else iso_searcher_free(s);
    return st;
}

iso_status iso_searcher_open(iso_store *store, iso_searcher **out, iso_error *err) { return iso_searcher_open_telling(store, NULL, out, err); }

void iso_searcher_free(iso_searcher *s)
{
    if (!s) return;
    free_known(&s->known);
    iso_scorer_free(s->scorer);
    iso_places_free(s->places);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

const char *iso_searcher_note(const iso_searcher *s) { return s->note[0] ? s->note : NULL; }
bool iso_searcher_unsaved(const iso_searcher *s) { return s->unsaved; }

/* ---- keeping up ---- */

/* About how many items the index in memory lacks, or holds though they are gone; nothing is read for it. */
static int64_t behind(const iso_searcher *s, const iso_store_info *info)
{
    const int64_t count = iso_vindex_count(s->known.index), fewer = count - (int64_t)info->count;
    const uint64_t last = count ? iso_vindex_id(s->known.index, count - 1) : 0;
    return (int64_t)(info->next_id - 1 - last) + (fewer > 0 ? fewer : 0);
}

/* The index on disk, where another program has built it anew and ours lacks more than a little. Whatever is wrong with it: ours is still right. */
static void adopt_newer(iso_searcher *s, iso_txn *txn, const iso_store_info *info)
{
    enum { SHARE = 64 }; /* fewer extras cost less than opening it */
    iso_searcher next = {.store = s->store, .dim = s->dim};
    iso_vindex_info ours, have;
    iso_vindex *index;
    char kind[8], *path;
    if (behind(s, info) <= iso_vindex_count(s->known.index) / SHARE || !(path = iso_store_file(s->store, ISO_STORE_INDEX))) return;
    iso_vindex_info_get(s->known.index, &ours);
    if (iso_vindex_peek(path, &have, NULL) == ISO_OK && have.source.generation > ours.source.generation
        && iso_index_read(txn, info, path, &index, kind, NULL) == ISO_OK) {
        use_index(&next.known, index);
        const bool took = take_changes(&next, txn, info, NULL) == ISO_OK;
        free_known(took ? &s->known : &next.known);
        if (took) s->known = next.known;
    }
    free(path);
}

iso_status iso_searcher_refresh(iso_searcher *s, iso_error *err)
{
    iso_txn *txn = NULL;
    iso_status st = iso_store_still_there(s->store, err);
    if (st == ISO_OK) st = iso_txn_begin(s->store, false, &txn, err);
    if (st != ISO_OK) return st;
    const iso_store_info info = iso_store_info_get(txn);
    if (info.generation != s->known.generation) {
        uint64_t stamp;
        st = iso_store_stamp(txn, s->known.generation, &stamp, err);
        if (st == ISO_OK && (s->known.generation > info.generation || (stamp && stamp != s->known.stamp))) /* 0: many changes ago */
            st = iso_fail(err, ISO_E_MISMATCH, "%s is in another state than the one it was opened in came from: close it and open it again", iso_store_dir(s->store));
    }
    if (st == ISO_OK) {
        adopt_newer(s, txn, &info);
        st = take_changes(s, txn, &info, err);
    }
    if (!iso_txn_use_places(txn, s->places)) {
        iso_places_free(s->places);
        s->places = NULL;
        s->looked_up = 0;
    }
    iso_txn_abort(txn);
    if (st == ISO_OK && s->scorer && s->scored != info.generation) {
        iso_scorer_free(s->scorer);
        s->scorer = NULL;
    }
    return st;
}

iso_status iso_searcher_current(iso_searcher *s, bool *current, iso_error *err)
{
    iso_txn *txn = NULL;
    iso_status st = iso_txn_begin(s->store, false, &txn, err);
    if (st != ISO_OK) return st;
    *current = iso_store_info_get(txn).generation == s->known.generation;
    iso_txn_abort(txn);
    return ISO_OK;
}

/* ---- the background of contrast ---- */

static iso_status read_scorer(iso_searcher *s, iso_error *err)
{
    iso_txn *txn = NULL;
    if (s->dim > ISO_MOMENTS_DIM_MAX)
        return iso_fail(err, ISO_E_UNSUPPORTED, "the scorer contrast takes vectors of up to %d numbers, and those of %s have %d: use the scorer sum",
                        ISO_MOMENTS_DIM_MAX, iso_store_dir(s->store), s->dim);
    iso_status st = iso_txn_begin(s->store, false, &txn, err);
    if (st != ISO_OK) return st;
    st = iso_scorer_read(txn, &s->scorer, err);
    if (st == ISO_OK) s->scored = iso_store_info_get(txn).generation;
    iso_txn_abort(txn);
    return st;
}

iso_status iso_searcher_scorer(iso_searcher *s, const iso_scorer **out, iso_error *err)
{
    pthread_mutex_lock(&s->lock);
    iso_status st = s->scorer ? ISO_OK : read_scorer(s, err);
    if (st == ISO_OK) *out = s->scorer;
    pthread_mutex_unlock(&s->lock);
    return st;
}
