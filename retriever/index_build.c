/* index_build.c: builds the index of a database, one program at a time. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "base/host_memory.h"
#include "retriever/index_parts.h"

/* ---- the vectors ---- */

iso_status iso_index_unit(const iso_store *store, uint64_t id, const float *z, int dim, float *out, iso_error *err)
{
    double square = 0;
    for (int j = 0; j < dim; j++) square += (double)z[j] * z[j];
    if (!isfinite(square))
        return iso_fail(err, ISO_E_FORMAT, "item %llu of %s has a vector that is not finite: see 'indexer verify'", (unsigned long long)id, iso_store_dir(store));
    double scale = square > 0 ? 1 / sqrt(square) : 0;
    for (int j = 0; j < dim; j++) out[j] = (float)(z[j] * scale);
    return ISO_OK;
}

typedef struct reader {
    iso_store *store;
    iso_txn *txn;
    iso_cursor *cursor;
    int dim;
    int64_t done, count;
    int passes;
    iso_progress *progress; /* NULL: none */
} reader;

static iso_status reader_rewind(void *ctx, iso_error *err)
{
    reader *r = ctx;
    iso_cursor_close(r->cursor);
    r->cursor = NULL;
    r->done = 0;
    static const char *const passes[] = {"indexing", "indexing, second pass", "indexing, third pass", "indexing, fourth pass", "indexing, another pass"};
    iso_progress_pass(r->progress, passes[r->passes < 4 ? r->passes++ : 4], "items", r->count);
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
        if (st == ISO_OK) st = iso_index_unit(r->store, item.id, z, r->dim, unit + n * r->dim, err);
        if (st != ISO_OK) return st;
        ids[n++] = item.id;
    }
    r->done += n;
    iso_progress_step(r->progress, r->done);
    *got = n;
    return ISO_OK;
}

/* ---- building ---- */

const char *iso_index_default_kind(const iso_store_info *info)
{
    return info->count < ISO_INDEX_FLAT_BELOW || iso_vindex_needs("ivf", (int64_t)info->count, info->dim) > iso_host_memory() ? "flat" : "ivf";
}

iso_status iso_index_make(iso_store *store, iso_txn *txn, const iso_store_info *info, const char *kind, bool flat_else, iso_progress *progress,
                          const char *path, iso_error *unsaved, iso_vindex **out, iso_error *err)
{
    iso_scorer *scorer = NULL;
    reader r = {.store = store, .txn = txn, .dim = info->dim, .count = (int64_t)info->count, .progress = progress};
    iso_vindex_source source;
    iso_status st = iso_index_source(txn, info, info->generation, &source, err);
    if (st == ISO_OK && iso_vindex_kind_approximate(kind) && info->dim <= ISO_MOMENTS_DIM_MAX) st = iso_scorer_read(txn, &scorer, err);
    iso_vindex_rows rows = {&r, (int64_t)info->count, reader_rewind, reader_next, scorer, progress};
    if (st == ISO_OK) st = iso_vindex_build(&source, kind, &rows, path, unsaved, out, err);
    if (st == ISO_E_MEMORY && flat_else && iso_vindex_kind_approximate(kind)) st = iso_vindex_build(&source, "flat", &rows, path, unsaved, out, err);
    iso_cursor_close(r.cursor);
    iso_scorer_free(scorer);
    return st;
}

/* ---- one builds at a time ---- */

iso_status iso_index_lock(const iso_store *store, const iso_index_talk *talk, int *lock, iso_error *err)
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
        if (talk && !told) iso_progress_say(talk->progress, "%s: another program builds the index: waiting for it", talk->program);
        told = true;
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
    return ISO_OK;
}

void iso_index_unlock(int lock)
{
    if (lock < 0) return;
    (void)flock(lock, LOCK_UN); /* a child that was forked meanwhile has it open, too */
    close(lock);
}

iso_status iso_index_build(iso_store *store, const char *kind, const iso_index_talk *talk, iso_error *err)
{
    iso_txn *txn = NULL;
    iso_store_info info;
    int lock = -1;
    char *path = iso_index_path(store);
    iso_status st = path ? iso_index_lock(store, talk, &lock, err) : iso_fail_memory(err);
    if (st == ISO_OK) st = iso_txn_begin(store, false, &txn, err);
    if (st == ISO_OK) {
        info = iso_store_info_get(txn);
        st = iso_index_make(store, txn, &info, kind ? kind : iso_index_default_kind(&info), kind == NULL, talk ? talk->progress : NULL, path, NULL, NULL, err);
    }
    if (txn) iso_txn_abort(txn);
    iso_index_unlock(lock);
    free(path);
    return st;
}
