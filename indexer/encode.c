#include "indexer/encode.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/progress.h"
#include "indexer/dataset.h"
#include "indexer/decode_ahead.h"

enum { COMMIT_IMAGES = 512 };
#define COMMIT_SECONDS 2.0

typedef struct task { size_t file; bool known; } task; /* of the listing; known: an item has that path */

typedef enum kind { ENCODE, REUSE, TOUCH, SKIP } kind;

typedef struct pending {       /* decoded, not yet committed */
    size_t file;
    kind kind;
    bool known;
    iso_image_info info;
    uint64_t id;               /* TOUCH: of the item */
    int64_t row;               /* of its vector */
    int64_t picture;           /* ENCODE: of its pixels; -1 when it has its vector */
} pending;

typedef struct run {
    const iso_encode_spec *spec;
    iso_encode_counts counts;
    iso_store *store;
    iso_listing listing;
    task *todo;
    size_t todos, todo_capacity;
    int batch;
    uint8_t *pixels;           /* [batch, 64, 64, 3] */
    int64_t pictures;          /* in pixels */
    float *fresh;              /* [batch, dim] as the encoder gives them */
    pending *wait;             /* [COMMIT_IMAGES] */
    int64_t waiting;
    float *vectors;            /* [COMMIT_IMAGES, dim] */
    int64_t rows;
    bool encoded_once;         /* the encoder has given a usable vector, now or when the database was made */
    char *own;                 /* the database's place below the folder, with a slash behind; NULL: elsewhere */
} run;

static void tell_skipped(run *r, const char *path, const char *reason)
{
    r->counts.skipped++;
    if (r->spec->skipped) r->spec->skipped(r->spec->tell_ctx, path, reason);
}

/* ---- what is there to do ---- */

static iso_status add_task(run *r, size_t file, bool known, iso_error *err)
{
    if (!iso_grow(&r->todo, &r->todo_capacity, r->todos + 1, sizeof *r->todo)) return iso_fail_memory(err);
    r->todo[r->todos++] = (task){file, known};
    return ISO_OK;
}

static int64_t mtime_of(const struct stat *st) { return (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec; }

static iso_status scan_file(run *r, iso_txn *t, size_t i, iso_error *err)
{
    const char *path = r->listing.path[i];
    struct stat st;
    iso_item item;
    if (r->own && !strncmp(path, r->own, strlen(r->own))) {
        r->counts.found--; /* the database itself */
        return ISO_OK;
    }
    char *full = iso_path_join(r->listing.root, path);
    if (!full) return iso_fail_memory(err);
    int failed = stat(full, &st) ? errno : 0;
    free(full);
    if (failed) {
        tell_skipped(r, path, strerror(failed));
        return ISO_OK;
    }
    iso_status status = iso_item_by_path(t, path, &item, err);
    if (status == ISO_E_NOT_FOUND) return add_task(r, i, false, err);
    if (status) return status;
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
    iso_store_info info;
    status = iso_store_info_get(t, &info, err);
    r->encoded_once = !status && info.count > 0;
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
    bool gone = full && stat(full, &st) && (errno == ENOENT || errno == ENOTDIR);
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

static void drop(run *r, pending *p, const char *reason)
{
    p->kind = SKIP;
    tell_skipped(r, r->listing.path[p->file], reason);
}

static bool usable(const float *v, int dim)
{
    double sum = 0;
    for (int i = 0; i < dim; i++) sum += (double)v[i] * v[i];
    return sum > 0 && sum - sum == 0;
}

static void take_vector(run *r, pending *p, const float *vector)
{
    p->picture = -1;
    r->counts.encoded++;
    if (usable(vector, r->spec->dim)) {
        memcpy(r->vectors + p->row * r->spec->dim, vector, (size_t)r->spec->dim * sizeof *vector);
        r->encoded_once = true;
    } else drop(r, p, "its vector is zero or not finite");
}

/* One image of a batch has no vector: which? */
static iso_status encode_singly(run *r, pending *p, iso_error *err)
{
    const iso_encode_spec *s = r->spec;
    iso_error why = {0};
    iso_status status = s->encode(s->encode_ctx, r->pixels + p->picture * ISO_PIXELS, 1, r->fresh, &why);
    if (!status) take_vector(r, p, r->fresh);
    else if (status == ISO_E_NUMERIC) {
        r->counts.encoded++;
        drop(r, p, why.message);
    } else return iso_fail(err, status, "%s", why.message);
    return ISO_OK;
}

/* Vectors for the pictures that are waiting for one. */
static iso_status encode_batch(run *r, iso_error *err)
{
    const iso_encode_spec *s = r->spec;
    if (!r->pictures) return ISO_OK;
    iso_status status = s->encode(s->encode_ctx, r->pixels, r->pictures, r->fresh, err);
    bool singly = status == ISO_E_NUMERIC;
    if (status && !singly) return status;
    for (int64_t i = 0; i < r->waiting; i++) {
        pending *p = &r->wait[i];
        if (p->kind != ENCODE || p->picture < 0) continue;
        if (!singly) take_vector(r, p, r->fresh + p->picture * s->dim);
        else if ((status = encode_singly(r, p, err))) return status;
    }
    if (!r->encoded_once)
        return iso_fail(err, ISO_E_NUMERIC, "the model gives no usable vector for any of the first %" PRId64 " images: is it trained? Nothing was added", r->pictures);
    r->pictures = 0;
    return ISO_OK;
}

static iso_status store_one(run *r, iso_txn *t, const pending *p, iso_encode_counts *counts, iso_error *err)
{
    iso_item item = {.id = p->id, .path = r->listing.path[p->file], .size = p->info.size, .mtime_ns = p->info.mtime_ns,
                     .hash = {p->info.hash[0], p->info.hash[1]}, .width = p->info.width, .height = p->info.height};
    if (p->kind == SKIP) return ISO_OK;
    if (p->kind == TOUCH) {
        iso_status status = iso_item_touch(t, &item, err);
        if (status == ISO_E_NOT_FOUND) return ISO_OK; /* removed by another program since: the next run adds it */
        counts->unchanged++;
        return status;
    }
    *(p->known ? &counts->changed : &counts->added) += 1;
    return iso_item_put(t, &item, r->vectors + p->row * r->spec->dim, err);
}

static iso_status commit(run *r, iso_error *err)
{
    iso_txn *t;
    iso_encode_counts counts;
    iso_status status = encode_batch(r, err);
    if (status || !r->waiting) return status;
    counts = r->counts;
    status = iso_txn_begin(r->store, true, &t, err);
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

/* What a decoded file needs. A vector that is there already is copied at once: its transaction ends here. */
static iso_status sort_out(run *r, const task *k, const iso_decoded *d, iso_error *err)
{
    iso_txn *t;
    iso_item item;
    const float *vector;
    int dim = r->spec->dim;
    pending *p = &r->wait[r->waiting];
    *p = (pending){.file = k->file, .kind = ENCODE, .known = k->known, .info = d->info, .row = r->rows, .picture = r->pictures};
    iso_status status = iso_txn_begin(r->store, false, &t, err);
    if (status) return status;
    if (k->known && !(status = iso_item_by_path(t, r->listing.path[k->file], &item, err)) && !memcmp(item.hash, d->info.hash, sizeof item.hash)) {
        p->kind = TOUCH;
        p->id = item.id;
    } else if (!status || status == ISO_E_NOT_FOUND) {
        status = iso_item_by_hash(t, d->info.hash, &item, err);
        if (!status && !(status = iso_item_vector(t, item.id, &vector, err))) {
            p->kind = REUSE;
            memcpy(r->vectors + r->rows++ * dim, vector, (size_t)dim * sizeof *vector);
        }
    }
    iso_txn_abort(t);
    if (status && status != ISO_E_NOT_FOUND) return status;
    if (p->kind == ENCODE) {
        memcpy(r->pixels + r->pictures++ * ISO_PIXELS, d->pixels, ISO_PIXELS);
        r->rows++;
    }
    r->waiting++;
    return ISO_OK;
}

static char *task_path(void *ctx, int64_t i)
{
    const run *r = ctx;
    return iso_path_join(r->listing.root, r->listing.path[r->todo[i].file]);
}

static iso_status work(run *r, iso_decoder *decoder, iso_error *err)
{
    const iso_decoded *d;
    double last = iso_now();
    iso_status status = ISO_OK;
    for (size_t i = 0; !status && i < r->todos && (d = iso_decoder_next(decoder)); i++) {
        if (d->status) tell_skipped(r, r->listing.path[r->todo[i].file], d->reason);
        else status = sort_out(r, &r->todo[i], d, err);
        if (!status && r->pictures == r->batch) status = encode_batch(r, err);
        if (!status && (r->waiting == COMMIT_IMAGES || iso_now() - last > COMMIT_SECONDS || iso_interrupted())) {
            status = commit(r, err);
            last = iso_now();
        }
        if (!status && r->spec->progress) r->spec->progress(r->spec->tell_ctx, (int64_t)i + 1, (int64_t)r->todos);
        if (!status && iso_interrupted() && i + 1 < r->todos)
            status = iso_fail(err, ISO_E_INTERRUPTED, "interrupted: %zu of %zu new or changed files are done; run the same command again to go on", i + 1, r->todos);
    }
    if (status) return status;
    return commit(r, err);
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
    bool there = !status && iso_store_exists(s->db);
    iso_store_spec store = {.dim = s->dim, .digest = s->digest, .root = s->relocate && there ? NULL : root, .model = s->model};
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
    r->batch = r->spec->batch < 1 ? 64 : r->spec->batch < COMMIT_IMAGES ? r->spec->batch : COMMIT_IMAGES;
    r->pixels = iso_calloc((size_t)r->batch, ISO_PIXELS);
    r->wait = iso_calloc(COMMIT_IMAGES, sizeof *r->wait);
    r->vectors = iso_calloc((size_t)COMMIT_IMAGES * (size_t)r->spec->dim, sizeof *r->vectors);
    r->fresh = iso_calloc((size_t)r->batch * (size_t)r->spec->dim, sizeof *r->fresh);
    return r->pixels && r->wait && r->vectors && r->fresh ? ISO_OK : iso_fail_memory(err);
}

static iso_status encode_todo(run *r, iso_error *err)
{
    iso_decoder *decoder = NULL;
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    int threads = r->spec->threads > 0 ? r->spec->threads : processors > 0 ? (int)processors : 1;
    if (!r->todos) return ISO_OK;
    iso_status status = allocate(r, err);
    if (!status) status = iso_decoder_start(task_path, r, (int64_t)r->todos, threads, r->batch + 4 * threads, &decoder, err);
    if (!status) status = work(r, decoder, err);
    iso_decoder_free(decoder);
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
    free(r.todo);
    free(r.pixels);
    free(r.wait);
    free(r.vectors);
    free(r.fresh);
    free(r.own);
    if (!status || status == ISO_E_INTERRUPTED) *out = r.counts;
    return status;
}
