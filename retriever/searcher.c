/* searcher.c: the index and its database: opening, keeping up, building, verifying. */
#include "retriever/searcher.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/host_memory.h"
#include "base/memory.h"
#include "base/progress.h"

#define INDEX_NAME "index.faiss"
#define FLAT_BELOW 100000 /* items: an exact search takes a few milliseconds */

/* ---- reading the store's vectors ---- */

/* out = z / |z|; a vector of zeros stays as it is. */
static bool to_unit(const float *z, int dim, float *out)
{
    double square = 0;
    for (int j = 0; j < dim; j++) square += (double)z[j] * z[j];
    if (!isfinite(square)) return false;
    double scale = square > 0 ? 1 / sqrt(square) : 0;
    for (int j = 0; j < dim; j++) out[j] = (float)(z[j] * scale);
    return true;
}

static iso_status unit_of(const iso_store *store, uint64_t id, const float *z, int dim, float *out, iso_error *err)
{
    if (to_unit(z, dim, out)) return ISO_OK;
    return iso_fail(err, ISO_E_FORMAT, "item %llu of %s has a vector that is not finite: see 'indexer verify'", (unsigned long long)id, iso_store_dir(store));
}

/* ---- for a build ---- */

typedef struct reader {
    iso_store *store;
    iso_txn *txn;
    iso_cursor *cursor;
    int dim;
    int64_t done, count;
    iso_progress *progress; /* NULL: none */
} reader;

static iso_status reader_rewind(void *ctx, iso_error *err)
{
    reader *r = ctx;
    iso_cursor_close(r->cursor);
    r->cursor = NULL;
    r->done = 0;
    return iso_cursor_open(r->txn, 0, &r->cursor, err);
}

static iso_status reader_next(void *ctx, int64_t room, uint64_t *ids, float *unit, int64_t *got, iso_error *err)
{
    reader *r = ctx;
    iso_item item;
    const float *z;
    int64_t n = 0;
    while (n < room) {
        iso_status st = iso_cursor_next(r->cursor, &item, &z, err);
        if (st == ISO_E_NOT_FOUND) break;
        if (st == ISO_OK) st = unit_of(r->store, item.id, z, r->dim, unit + n * r->dim, err);
        if (st != ISO_OK) return st;
        ids[n++] = item.id;
    }
    r->done += n;
    if (r->progress) iso_progress_step(r->progress, r->done);
    *got = n;
    return ISO_OK;
}

/* What an index is built from that is built from the database at that generation; at its own, where it has not come so far. */
static iso_status source_at(const iso_txn *txn, const iso_store_info *info, uint64_t generation, iso_vindex_source *out, iso_error *err)
{
    *out = (iso_vindex_source){.generation = generation < info->generation ? generation : info->generation, .dim = info->dim};
    snprintf(out->digest, sizeof out->digest, "%s", info->digest);
    return iso_store_stamp(txn, out->generation, &out->stamp, err);
}

/* The index on disk, if it is of this database: of a state that the one at hand has come from. kind: as of iso_vindex_read. */
static iso_status read_index(iso_txn *txn, const iso_store_info *info, const char *path, iso_vindex **out, char kind[8], iso_error *err)
{
    iso_vindex_source source;
    iso_vindex_info have;
    if (iso_vindex_peek(path, &have, err) != ISO_OK) have = (iso_vindex_info){0}; /* reading does not like it either, and says why */
    iso_status st = source_at(txn, info, have.source.generation, &source, err);
    return st == ISO_OK ? iso_vindex_read(path, &source, out, kind, err) : st;
}

/* A state of the database, and the index on disk beside it. */
typedef struct seen {
    iso_txn *txn;
    iso_store_info info;
    iso_vindex *index; /* where `read` is ISO_OK */
    char kind[8];      /* of iso_vindex_read */
    iso_status read;
    iso_error why;     /* where it is not */
} seen;

static void seen_free(seen *s)
{
    if (s->txn) iso_txn_abort(s->txn);
    iso_vindex_free(s->index);
    *s = (seen){0};
}

/* Where the index is of another state, another program may just have built it from one that came after ours: looked at again, once. */
static iso_status see(iso_store *store, const char *path, seen *s, iso_error *err)
{
    for (int attempt = 0;; attempt++) {
        *s = (seen){0};
        iso_status st = iso_txn_begin(store, false, &s->txn, err);
        if (st == ISO_OK) s->info = iso_store_info_get(s->txn);
        if (st != ISO_OK) return st;
        s->read = read_index(s->txn, &s->info, path, &s->index, s->kind, &s->why);
        if (s->read != ISO_E_MISMATCH || attempt) return ISO_OK;
        seen_free(s);
    }
}

static iso_status make_scorer(iso_txn *txn, iso_scorer **out, iso_error *err)
{
    iso_moments moments = {0};
    iso_status st = iso_store_moments(txn, &moments, err);
    if (st == ISO_OK) st = iso_scorer_create(&moments, out, err);
    iso_moments_free(&moments);
    return st;
}

static const char *default_kind(const iso_store_info *info)
{
    return info->count < FLAT_BELOW || iso_vindex_needs("ivf", (int64_t)info->count, info->dim) > iso_host_memory() ? "flat" : "ivf";
}

/* flat_else: the kind is nobody's wish, and flat will do where memory turns out to be short. path, unsaved, out: as for iso_vindex_build. */
static iso_status build(iso_store *store, iso_txn *txn, const iso_store_info *info, const char *kind, bool flat_else, iso_progress *progress, const char *path, iso_error *unsaved, iso_vindex **out, iso_error *err)
{
    iso_scorer *scorer = NULL;
    reader r = {.store = store, .txn = txn, .dim = info->dim, .count = (int64_t)info->count, .progress = progress};
    iso_vindex_source source;
    iso_status st = source_at(txn, info, info->generation, &source, err);
    if (st == ISO_OK && iso_vindex_kind_approximate(kind) && info->dim <= ISO_MOMENTS_DIM_MAX) st = make_scorer(txn, &scorer, err);
    iso_vindex_rows rows = {&r, (int64_t)info->count, reader_rewind, reader_next, scorer};
    if (st == ISO_OK) st = iso_vindex_build(&source, kind, &rows, path, unsaved, out, err);
    if (st == ISO_E_MEMORY && flat_else && iso_vindex_kind_approximate(kind)) st = iso_vindex_build(&source, "flat", &rows, path, unsaved, out, err);
    iso_cursor_close(r.cursor);
    iso_scorer_free(scorer);
    return st;
}

static char *index_path(const iso_store *store) { return iso_path_join(iso_store_dir(store), INDEX_NAME); }

/* ---- one builds at a time ---- */

static void say_waiting(const iso_index_talk *talk)
{
    if (talk) iso_progress_say(NULL, "%s: another program builds the index: waiting for it", talk->program);
}

/* Whoever builds an index has data.mdb locked by flock, which nobody else asks of it and LMDB does not know; so others wait, without a transaction, and
 * take that index, instead of each building one of its own. Where there are no locks each does. *lock is for let_build. */
static iso_status lock_build(const iso_store *store, const iso_index_talk *talk, int *lock, iso_error *err)
{
    char *path = iso_store_file(store, "data.mdb");
    if (!path) return iso_fail_memory(err);
    *lock = open(path, O_RDONLY | O_CLOEXEC);
    free(path);
    for (bool told = false; *lock >= 0 && flock(*lock, LOCK_EX | LOCK_NB);) {
        if (errno == EINTR) continue;
        if (errno != EWOULDBLOCK) break;
        if (iso_interrupted()) {
            close(*lock);
            *lock = -1;
            return iso_fail(err, ISO_E_INTERRUPTED, "interrupted while another program built the index of %s", iso_store_dir(store));
        }
        if (!told) say_waiting(talk);
        told = true;
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
    return ISO_OK;
}

static void let_build(int lock)
{
    if (lock < 0) return;
    (void)flock(lock, LOCK_UN); /* a child that was forked meanwhile has it open, too */
    close(lock);
}

iso_status iso_index_build(iso_store *store, const char *kind, bool quiet, iso_error *err)
{
    const iso_index_talk talk = {.program = "indexer"};
    iso_txn *txn = NULL;
    iso_store_info info;
    iso_progress progress;
    int lock = -1;
    if (kind && !iso_vindex_kind_known(kind))
        return iso_fail(err, ISO_E_ARGUMENT, "unknown kind of index '%s': use flat, sq8, fp16, ivf or hnsw", kind);
    char *path = index_path(store);
    iso_status st = path ? lock_build(store, quiet ? NULL : &talk, &lock, err) : iso_fail_memory(err);
    if (st == ISO_OK) st = iso_txn_begin(store, false, &txn, err);
    if (st == ISO_OK) info = iso_store_info_get(txn);
    if (st == ISO_OK) {
        iso_progress_start(&progress, "indexing", "items", (int64_t)info.count, quiet);
        st = build(store, txn, &info, kind ? kind : default_kind(&info), kind == NULL, &progress, path, NULL, NULL, err);
        iso_progress_end(&progress);
    }
    if (txn) iso_txn_abort(txn);
    let_build(lock);
    free(path);
    return st;
}

/* ---- what changed since the index was built ---- */

/* Puts an item behind the extras; it counts when k->extras does. */
static iso_status put_extra(iso_searcher *s, int64_t at, uint64_t id, const float *z, iso_error *err)
{
    iso_known *k = &s->known;
    const size_t n = (size_t)at + 1, dim = (size_t)s->dim;
    if (!iso_grow(&k->extra_id, &k->extra_id_room, n, sizeof *k->extra_id) || !iso_grow(&k->extra, &k->extra_room, n * dim, sizeof *k->extra))
        return iso_fail_memory(err);
    k->extra_id[at] = id;
    return unit_of(s->store, id, z, s->dim, k->extra + (size_t)at * dim, err);
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
 * read_index): what is new lies behind the last one, and what is gone is the difference in number. So the items that were there already are not
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
    return iso_vindex_kind_approximate(kind) ? info->count >= FLAT_BELOW : info->count * (uint64_t)info->dim >= UINT64_C(1) << 29;
}

/* Replaces the index in memory and, if the folder lets us, on disk. `at` says what was wrong with the old one. */
static iso_status rebuild(iso_searcher *s, const seen *at, const iso_index_talk *talk, const char *path, iso_error *err)
{
    iso_error unsaved;
    iso_vindex *fresh = NULL;
    iso_progress progress;
    const iso_store_info *info = &at->info;
    const char *kind = at->kind[0] ? at->kind : default_kind(info), *why = at->why.message;
    if (talk && takes_long(kind, info))
        iso_progress_say(NULL, "%s: building the index of %llu items%s", talk->program, (unsigned long long)info->count, talk->hint ? talk->hint : "");
    iso_progress_start(&progress, "indexing", "items", (int64_t)info->count, !talk);
    iso_status st = build(s->store, at->txn, info, kind, true, &progress, path, &unsaved, &fresh, err);
    iso_progress_end(&progress);
    if (st != ISO_OK) return st;
    use_index(&s->known, fresh);
    s->unsaved = unsaved.status != ISO_OK;
    if (!s->unsaved) snprintf(s->note, sizeof s->note, "%.900s: it was built anew", why);
    else snprintf(s->note, sizeof s->note, "%.700s: it was built for this run only (%.400s)", why, unsaved.message);
    return ISO_OK;
}

/* Takes over what was seen of the index. Not *good: there has to be another, of which at->kind says the kind ("": the default one), and at->why the reason. */
static iso_status take_index(iso_searcher *s, seen *at, const char *path, bool *good, iso_error *err)
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
    if (strcmp(at->kind, "flat") == 0 && iso_vindex_count(k->index) < FLAT_BELOW) at->kind[0] = 0;
    return ISO_OK;
}

/* Looks again once nobody else builds one: it may be there then. */
static iso_status open_index(iso_searcher *s, const iso_index_talk *talk, const char *path, iso_error *err)
{
    seen at = {0};
    bool good = false, alone = false;
    int lock = -1;
    iso_status st;
    for (;; alone = true) {
        st = see(s->store, path, &at, err);
        s->dim = at.info.dim;
        if (st == ISO_OK) st = take_index(s, &at, path, &good, err);
        if (st != ISO_OK || good || alone) break;
        seen_free(&at);
        st = lock_build(s->store, talk, &lock, err);
        if (st != ISO_OK) break;
    }
    if (st == ISO_OK && !good) st = rebuild(s, &at, talk, path, err);
    seen_free(&at);
    if (alone) let_build(lock);
    return st;
}

iso_status iso_searcher_open_telling(iso_store *store, const iso_index_talk *talk, iso_searcher **out, iso_error *err)
{
    char *path = index_path(store);
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
    if (behind(s, info) <= iso_vindex_count(s->known.index) / SHARE || !(path = iso_store_file(s->store, INDEX_NAME))) return;
    iso_vindex_info_get(s->known.index, &ours);
    if (iso_vindex_peek(path, &have, NULL) == ISO_OK && have.source.generation > ours.source.generation && read_index(txn, info, path, &index, kind, NULL) == ISO_OK) {
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

/* ---- the background of contrast ---- */

static iso_status read_scorer(iso_searcher *s, iso_error *err)
{
    iso_txn *txn = NULL;
    if (s->dim > ISO_MOMENTS_DIM_MAX)
        return iso_fail(err, ISO_E_UNSUPPORTED, "the scorer contrast takes vectors of up to %d numbers, and those of %s have %d: use the scorer sum",
                        ISO_MOMENTS_DIM_MAX, iso_store_dir(s->store), s->dim);
    iso_status st = iso_txn_begin(s->store, false, &txn, err);
    if (st != ISO_OK) return st;
    st = make_scorer(txn, &s->scorer, err);
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

/* ---- looking at an index without searching ---- */

iso_status iso_index_info_get(iso_store *store, iso_vindex_info *out, bool *current, iso_error *err)
{
    iso_txn *txn = NULL;
    iso_vindex_info have;
    iso_vindex_source source;
    iso_status st = iso_txn_begin(store, false, &txn, err);
    if (st != ISO_OK) return st;
    const iso_store_info info = iso_store_info_get(txn);
    char *path = index_path(store);
    st = path ? iso_vindex_peek(path, &have, err) : iso_fail_memory(err);
    if (st == ISO_OK) st = source_at(txn, &info, have.source.generation, &source, err);
    if (st == ISO_OK) st = iso_vindex_source_check(&have.source, &source, path, err);
    if (st == ISO_OK) *out = have;
    if (st == ISO_OK && current) *current = have.source.generation == info.generation;
    iso_txn_abort(txn);
    free(path);
    return st;
}

bool iso_index_shortfall(const iso_vindex_info *info, char line[200])
{
    if (strcmp(info->kind, "flat") == 0 && info->count >= FLAT_BELOW && iso_vindex_needs("ivf", info->count, info->source.dim) > iso_host_memory()) {
        snprintf(line, 200, "memory is short for an index of kind ivf, which is faster: this one is flat, and exact");
        return true;
    }
    if (!(info->least < ISO_VINDEX_RECALL)) return false;
    snprintf(line, 200, "the index of kind %s finds only %.3f of the answers of its hardest kind of queries (%.2f is wished for): flat, fp16 and sq8 find all", info->kind, info->least,
             ISO_VINDEX_RECALL);
    return true;
}

/* Every vector of the index beside the store's. */
static iso_status compare_vectors(iso_txn *txn, iso_vindex *index, void (*say)(void *, const char *), void *ctx, int64_t *faults, iso_error *err)
{
    iso_vindex_info info;
    iso_vindex_info_get(index, &info);
    int dim = info.source.dim;
    float *kept = iso_calloc((size_t)dim * 2, sizeof *kept), *unit = kept + dim;
    iso_status st = kept ? ISO_OK : iso_fail_memory(err);
    for (int64_t i = 0; st == ISO_OK && i < info.count; i++) {
        const float *z;
        const uint64_t id = iso_vindex_id(index, i);
        char line[160];
        double square = 0;
        st = iso_item_vector(txn, id, &z, err);
        if (st == ISO_E_NOT_FOUND) { /* removed after the index was built */
            st = ISO_OK;
            continue;
        }
        if (st == ISO_OK) st = iso_vindex_vector(index, i, kept, err);
        if (st != ISO_OK) break;
        bool finite = to_unit(z, dim, unit);
        for (int j = 0; j < dim; j++) square += ((double)kept[j] - unit[j]) * ((double)kept[j] - unit[j]);
        if (finite && sqrt(square) <= info.error + 1e-6) continue;
        snprintf(line, sizeof line, "item %llu: the index holds another vector than the database; 'indexer reindex' builds it anew", (unsigned long long)id);
        say(ctx, line);
        ++*faults;
    }
    free(kept);
    return st;
}

iso_status iso_index_verify(iso_store *store, void (*say)(void *ctx, const char *line), void *ctx, int64_t *faults, iso_error *err)
{
    seen at = {0};
    int64_t found = 0;
    char *path = index_path(store);
    iso_status st = path ? see(store, path, &at, err) : iso_fail_memory(err);
    if (st == ISO_OK && at.read == ISO_OK) st = compare_vectors(at.txn, at.index, say, ctx, &found, err);
    else if (st == ISO_OK && (at.read == ISO_E_FORMAT || at.read == ISO_E_MISMATCH || at.read == ISO_E_IO)) {
        say(ctx, at.why.message);
        found++;
    } else if (st == ISO_OK && at.read != ISO_E_NOT_FOUND) st = iso_fail(err, at.read, "%s", at.why.message);
    seen_free(&at);
    free(path);
    if (st == ISO_OK) *faults = found;
    return st;
}
