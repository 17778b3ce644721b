#include "indexer/encode.h"

#include <errno.h>
#include <inttypes.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/progress.h"
#include "indexer/encode_batch.h"

enum { COMMIT_IMAGES = 4096, COMMIT_BYTES = 16 << 20 }; /* of vectors */
#define COMMIT_SECONDS 2.0

typedef struct pending {       /* not yet committed */
    size_t file;               /* of the listing */
    bool known;                /* an item has that path */
    bool touch;                /* the content that item `id` has already */
    uint64_t id;
    iso_image_info info;
    int64_t row;               /* of its vector */
} pending;

typedef struct run {
    const iso_encode_spec *spec;
    iso_encode_counts counts;
    iso_store *store;
    iso_listing listing;
    iso_encode_task *task;
    size_t tasks, task_capacity;
    int batch;
    iso_encode_batches *batches;
    float *fresh;              /* [batch, dim] as the encoder gives them */
    pending *wait;             /* [room] */
    int64_t waiting, room, commit_at;
    float *vectors;            /* [room, dim] */
    int64_t rows;
    bool encoded_once;         /* the encoder has given a usable vector, now or when the database was made */
    char *own;                 /* the database's place below the folder, with a slash behind; NULL: elsewhere */
} run;

static void tell_skipped(run *r, const char *path, const char *reason)
{
    r->counts.skipped++;
    if (r->spec->skipped) r->spec->skipped(r->spec->skipped_ctx, path, reason);
}

/* ---- what is there to do ---- */

static iso_status add_task(run *r, size_t file, bool known, iso_error *err)
{
    if (!iso_grow(&r->task, &r->task_capacity, r->tasks + 1, sizeof *r->task)) return iso_fail_memory(err);
    r->task[r->tasks++] = (iso_encode_task){file, known};
    return ISO_OK;
}

static int64_t mtime_of(const struct stat *st) { return (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec; }

static iso_status scan_file(run *r, iso_txn *t, size_t i, iso_error *err)
{
    const char *path = r->listing.path[i];
    struct stat st;
    iso_item item;
    if (iso_dataset_is_list(path) || (r->own && !strncmp(path, r->own, strlen(r->own)))) {
        r->counts.found--; /* no image: the data set's lists, the database itself */
        return ISO_OK;
    }
    iso_status status = iso_item_by_path(t, path, &item, err);
    if (status == ISO_E_NOT_FOUND) return add_task(r, i, false, err); /* it is read in any case: that tells what is wrong */
    if (status) return status;
    char *full = iso_path_join(r->listing.root, path);
    if (!full) return iso_fail_memory(err);
    int failed = iso_path_stat(full, &st) ? errno : 0;
    free(full);
    if (failed) {
        tell_skipped(r, path, strerror(failed));
        return ISO_OK;
    }
    if (item.size == st.st_size && item.mtime_ns == mtime_of(&st)) {
        r->counts.unchanged++;
        return ISO_OK;
    }
    return add_task(r, i, true, err);
}

static iso_status scan(run *r, iso_error *err)
{
    iso_txn *t;
    iso_status status = iso_txn_begin(r->store, false, &t, err);
    if (status) return status;
    r->encoded_once = iso_store_info_get(t).count > 0;
    for (size_t i = 0; i < r->listing.count && !status; i++) {
        status = scan_file(r, t, i, err);
        if (!status && i % 1024 == 0 && iso_interrupted()) status = iso_fail(err, ISO_E_INTERRUPTED, "interrupted while looking through the folder; nothing was changed");
    }
    iso_txn_abort(t);
    return status;
}

static int compare_paths(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* Not in the listing and not on the disk: a file that only became hidden stays. */
static bool went_away(const run *r, const char *path)
{
    if (bsearch(&path, r->listing.path, r->listing.count, sizeof *r->listing.path, compare_paths)) return false;
    struct stat st;
    char *full = iso_path_join(r->listing.root, path);
    bool gone = full && iso_path_stat(full, &st) && (errno == ENOENT || errno == ENOTDIR);
    free(full);
    return gone;
}

static iso_status list_gone(run *r, uint64_t **ids, size_t *count, iso_error *err)
{
    iso_txn *t;
    iso_cursor *c = NULL;
    iso_item item;
    size_t capacity = 0;
    iso_status status = iso_txn_begin(r->store, false, &t, err);
    if (status) return status;
    status = iso_cursor_open(t, 0, &c, err);
    while (!status && !(status = iso_cursor_next(c, &item, NULL, err))) {
        if (!went_away(r, item.path)) continue;
        if (iso_grow(ids, &capacity, *count + 1, sizeof **ids)) (*ids)[(*count)++] = item.id;
        else status = iso_fail_memory(err);
    }
    iso_cursor_close(c);
    iso_txn_abort(t);
    return status == ISO_E_NOT_FOUND ? ISO_OK : status;
}

static iso_status remove_all(run *r, const uint64_t *ids, size_t count, iso_error *err)
{
    iso_txn *t;
    int64_t removed = 0;
    iso_status status = iso_txn_begin(r->store, true, &t, err);
    if (status) return status;
    for (size_t i = 0; i < count && !status; i++) {
        status = iso_item_remove(t, ids[i], err);
        if (status == ISO_E_NOT_FOUND) status = ISO_OK; /* another program was faster */
        else removed++;
    }
    if (status) {
        iso_txn_abort(t);
        return status;
    }
    status = iso_txn_commit(t, err);
    if (!status) r->counts.removed += removed;
    return status;
}

static iso_status prune(run *r, iso_error *err)
{
    uint64_t *ids = NULL;
    size_t count = 0;
    iso_status status = list_gone(r, &ids, &count, err);
    if (!status && count) status = remove_all(r, ids, count, err);
    free(ids);
    return status;
}

/* ---- encoding and storing ---- */

static void add_pending(run *r, const iso_encode_file *f, const float *vector)
{
    r->wait[r->waiting++] = (pending){.file = f->task->file, .known = f->task->known, .touch = f->kind == ISO_ENCODE_TOUCH,
                                      .id = f->id, .info = f->info, .row = r->rows};
    if (vector) memcpy(r->vectors + r->rows++ * r->spec->dim, vector, (size_t)r->spec->dim * sizeof *vector);
}

static void take_vector(run *r, const iso_encode_file *f, const float *vector)
{
    r->counts.encoded++;
    if (iso_vector_fault(r->spec->dim, vector)) {
        tell_skipped(r, r->listing.path[f->task->file], "its vector is zero or not finite");
        return;
    }
    add_pending(r, f, vector);
    r->encoded_once = true;
}

/* One image of a batch has no vector: which? */
static iso_status encode_singly(run *r, const iso_encode_batch *b, const iso_encode_file *f, iso_error *err)
{
    const iso_encode_spec *s = r->spec;
    iso_error why = {0};
    iso_status status = s->encode(s->encode_ctx, b->pixels + f->row * ISO_PIXELS, 1, r->fresh, &why);
    if (!status) take_vector(r, f, r->fresh);
    else if (status == ISO_E_NUMERIC) {
        r->counts.encoded++;
        tell_skipped(r, r->listing.path[f->task->file], why.message);
    } else return iso_fail(err, status, "%s", why.message);
    return ISO_OK;
}

/* Vectors for a batch's pictures; the whole batch then waits for its commit. */
static iso_status encode_batch(run *r, const iso_encode_batch *b, iso_error *err)
{
    const iso_encode_spec *s = r->spec;
    iso_status status = b->pictures ? s->encode(s->encode_ctx, b->pixels, b->pictures, r->fresh, err) : ISO_OK;
    bool singly = status == ISO_E_NUMERIC;
    if (status && !singly) return status;
    status = ISO_OK;
    for (int i = 0; i < b->files && !status; i++) {
        const iso_encode_file *f = &b->file[i];
        switch (f->kind) {
        case ISO_ENCODE_SKIP: tell_skipped(r, r->listing.path[f->task->file], f->reason); break;
        case ISO_ENCODE_TOUCH: add_pending(r, f, NULL); break;
        case ISO_ENCODE_REUSE: add_pending(r, f, b->reused + f->row * s->dim); break;
        case ISO_ENCODE_NEW:
            if (singly) status = encode_singly(r, b, f, err);
            else take_vector(r, f, r->fresh + f->row * s->dim);
        }
    }
    if (!status && b->pictures && !r->encoded_once)
        return iso_fail(err, ISO_E_NUMERIC, "the model gives no usable vector for any of the first %" PRId64 " images: is it trained? Nothing was added", b->pictures);
    return status;
}

static iso_status store_one(run *r, iso_txn *t, const pending *p, iso_encode_counts *counts, iso_error *err)
{
    iso_item item = {.id = p->id, .path = r->listing.path[p->file], .size = p->info.size, .mtime_ns = p->info.mtime_ns,
                     .hash = {p->info.hash[0], p->info.hash[1]}, .width = p->info.width, .height = p->info.height};
    iso_item there;
    iso_status status = ISO_OK;
    bool touch = p->touch;
    if (!touch) {
        status = iso_item_by_path(t, item.path, &there, err);
        if (status && status != ISO_E_NOT_FOUND) return status;
        touch = !status && !memcmp(there.hash, item.hash, sizeof item.hash); /* another program has encoded it since */
        if (touch) item.id = there.id;
    }
    if (touch) {
        status = iso_item_touch(t, &item, err);
        if (status == ISO_E_NOT_FOUND) return ISO_OK; /* removed by another program since: the next run adds it */
        counts->unchanged++;
        return status;
    }
    *(p->known ? &counts->changed : &counts->added) += 1;
    return iso_item_put(t, &item, r->vectors + p->row * r->spec->dim, err);
}

static iso_status store_all(run *r, iso_error *err)
{
    iso_txn *t;
    iso_encode_counts counts = r->counts;
    iso_status status = iso_txn_begin(r->store, true, &t, err);
    if (status) return status;
    for (int64_t i = 0; i < r->waiting && !status; i++) status = store_one(r, t, &r->wait[i], &counts, err);
    if (status) {
        iso_txn_abort(t);
        return status;
    }
    status = iso_txn_commit(t, err);
    if (status) return status;
    r->counts = counts;
    r->waiting = r->rows = 0;
    return ISO_OK;
}

static iso_status commit(run *r, iso_error *err)
{
    if (!r->waiting) return ISO_OK;
    iso_encode_batches_lock(r->batches);
    iso_status status = store_all(r, err);
    iso_encode_batches_unlock(r->batches);
    return status;
}

static iso_status work(run *r, iso_error *err)
{
    iso_encode_batch *b;
    double last = iso_now();
    size_t done = 0;
    if (r->tasks) iso_progress_pass(r->spec->progress, "encoding", "images", (int64_t)r->tasks);
    for (;;) {
        iso_status status = iso_encode_batches_next(r->batches, &b, err);
        if (!status && !b->files) break;
        if (!status) status = encode_batch(r, b, err);
        if (!status && (r->waiting >= r->commit_at || iso_now() - last > COMMIT_SECONDS || iso_interrupted())) {
            status = commit(r, err);
            last = iso_now();
        }
        if (status) return status;
        done += (size_t)b->files;
        iso_progress_step(r->spec->progress, (int64_t)done);
        if (iso_interrupted()) break;
    }
    iso_status status = commit(r, err);
    if (!status && done < r->tasks)
        status = iso_fail(err, ISO_E_INTERRUPTED, "interrupted: %zu of %zu new or changed files are done; run the same command again to go on", done, r->tasks);
    return status;
}

/* ---- the whole ---- */

/* A database inside its folder of images is none of them. */
static iso_status find_own(run *r, const char *root, iso_error *err)
{
    char *db = realpath(r->spec->db, NULL);
    if (!db) return iso_fail_errno(err, "cannot open %s", r->spec->db);
    size_t n = strlen(root);
    if (!strncmp(db, root, n) && db[n] == '/' && !(r->own = iso_path_join(db + n + 1, ""))) {
        free(db);
        return iso_fail_memory(err);
    }
    free(db);
    return ISO_OK;
}

static iso_status open_all(run *r, iso_error *err)
{
    const iso_encode_spec *s = r->spec;
    char *folder = iso_dataset_image_dir(s->images), *root = folder ? realpath(folder, NULL) : NULL;
    iso_status status = ISO_OK;
    if (!folder) status = iso_fail_memory(err);
    else if (!root) status = iso_fail_errno(err, "cannot open the folder %s", folder);
    if (!status) status = iso_listing_read(root, &r->listing, err);
    if (!status && !r->listing.count)
        status = iso_fail(err, ISO_E_ARGUMENT, "there is no file in %s: nothing to encode%s", folder, s->prune ? ", and nothing is pruned, for it may just not be mounted" : "");
    iso_store_found found = ISO_STORE_NONE;
    if (!status && s->relocate) status = iso_store_look(s->db, &found, err);
    iso_store_spec store = {.dim = s->dim, .digest = s->digest, .root = found == ISO_STORE_COMPLETE ? NULL : root, .model = s->model};
    if (!status) status = iso_store_open(s->db, ISO_STORE_CREATE, &store, &r->store, err);
    if (!status && s->relocate) status = iso_store_relocate(r->store, root, err);
    if (!status) status = find_own(r, root, err);
    for (size_t i = 0; !status && i < r->listing.skipped; i++) tell_skipped(r, r->listing.skip_path[i], r->listing.skip_reason[i]);
    free(folder);
    free(root);
    return status;
}

static iso_status allocate(run *r, iso_error *err)
{
    const int64_t fit = COMMIT_BYTES / ((int64_t)r->spec->dim * (int64_t)sizeof *r->vectors);
    r->commit_at = fit < COMMIT_IMAGES ? fit + 1 : COMMIT_IMAGES;
    r->room = r->commit_at + 2 * r->batch; /* the files of a batch */
    r->wait = iso_calloc((size_t)r->room, sizeof *r->wait);
    r->vectors = iso_calloc((size_t)r->room * (size_t)r->spec->dim, sizeof *r->vectors);
    r->fresh = iso_calloc((size_t)r->batch * (size_t)r->spec->dim, sizeof *r->fresh);
    return r->wait && r->vectors && r->fresh ? ISO_OK : iso_fail_memory(err);
}

static iso_status encode_todo(run *r, iso_error *err)
{
    const iso_encode_spec *s = r->spec;
    if (!r->tasks) return ISO_OK;
    r->batch = s->batch < 1 ? 128 : s->batch < 512 ? s->batch : 512;
    iso_encode_source source = {.store = r->store, .listing = &r->listing, .task = r->task, .tasks = r->tasks, .dim = s->dim,
                                .size = r->batch, .threads = s->threads > 0 ? s->threads : omp_get_max_threads(), .overlap = s->overlap};
    iso_status status = allocate(r, err);
    if (!status) status = iso_encode_batches_start(&source, &r->batches, err);
    if (!status) status = work(r, err);
    iso_encode_batches_free(r->batches);
    return status;
}

iso_status iso_encode(const iso_encode_spec *spec, iso_encode_counts *out, iso_error *err)
{
    run r = {.spec = spec};
    iso_status status = open_all(&r, err);
    r.counts.found = (int64_t)r.listing.count;
    double started = iso_now();
    if (!status) status = scan(&r, err);
    if (!status) {
        started = iso_now();
        status = encode_todo(&r, err);
        r.counts.seconds = iso_now() - started;
    }
    if (!status && spec->prune) status = prune(&r, err);
    iso_store_close(r.store);
    iso_listing_free(&r.listing);
    free(r.task);
    free(r.wait);
    free(r.vectors);
    free(r.fresh);
    free(r.own);
    if (!status || status == ISO_E_INTERRUPTED) *out = r.counts;
    return status;
}
