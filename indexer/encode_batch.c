#include "indexer/encode_batch.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/progress.h"

enum { READERS_MAX = 8 };
#define BATCH_BYTES ((size_t)64 << 20) /* of files in a batch, and of files read ahead of it */

struct iso_encode_batches {
    iso_encode_source from;
    iso_reader *reader;
    size_t next;                /* task */
    iso_encode_batch batch[2];  /* the second only with overlap */
    /* With overlap: batch k is in place k % 2. taken <= made <= taken + 2, less one that the caller still looks at. */
    pthread_t thread;
    bool started, stop, holding;
    int64_t made, taken;
    pthread_mutex_t mutex, store;
    pthread_cond_t changed;
};

static char *task_path(void *ctx, int64_t i)
{
    const iso_encode_batches *b = ctx;
    return iso_path_join(b->from.listing->root, b->from.listing->path[b->from.task[i].file]);
}

static void skip(iso_encode_file *f, const char *reason)
{
    f->kind = ISO_ENCODE_SKIP;
    snprintf(f->reason, sizeof f->reason, "%.255s", reason);
}

/* ---- making a batch ---- */

/* Takes over up to `count` files that were read. */
static size_t take_files(iso_encode_batches *b, iso_encode_batch *to, int count)
{
    size_t bytes = 0;
    for (int i = 0; i < count && bytes < BATCH_BYTES && !iso_interrupted(); i++) {
        iso_read *read = iso_reader_next(b->reader);
        if (!read) break;
        iso_encode_file *f = &to->file[to->files++];
        iso_image_file own = f->content;
        f->task = &b->from.task[b->next++];
        f->kind = ISO_ENCODE_NEW;
        if (read->status == ISO_E_MEMORY) {
            to->status = iso_fail(&to->err, read->status, "%s: %s", b->from.listing->path[f->task->file], read->reason);
            break;
        }
        if (read->status) {
            skip(f, read->reason);
            continue;
        }
        f->content = read->file;
        read->file = own;
        bytes += f->content.size;
    }
    return bytes;
}

/* What a file needs. A vector that is there already is copied at once: its transaction ends here. */
static iso_status look_up(const iso_encode_batches *b, iso_txn *t, iso_encode_batch *to, iso_encode_file *f, iso_error *err)
{
    iso_item item;
    const float *vector;
    iso_status status = ISO_OK;
    const char *path = b->from.listing->path[f->task->file];
    f->info = (iso_image_info){.hash = {f->content.hash[0], f->content.hash[1]}, .size = (int64_t)f->content.size, .mtime_ns = f->content.mtime_ns};
    if (f->task->known && !(status = iso_item_by_path(t, path, &item, err)) && !memcmp(item.hash, f->info.hash, sizeof item.hash)) {
        f->kind = ISO_ENCODE_TOUCH;
        f->id = item.id;
    } else if (!status || status == ISO_E_NOT_FOUND) {
        status = iso_item_by_hash(t, f->info.hash, &item, err);
        if (!status && !(status = iso_item_vector(t, item.id, &vector, err))) {
            f->kind = ISO_ENCODE_REUSE;
            f->row = to->reuses++;
            memcpy(to->reused + f->row * b->from.dim, vector, (size_t)b->from.dim * sizeof *vector);
        }
    }
    if (status && status != ISO_E_NOT_FOUND) return status;
    if (f->kind == ISO_ENCODE_NEW) {
        f->row = to->pictures++;
    } else { /* the same bytes are the same picture */
        f->info.width = item.width;
        f->info.height = item.height;
    }
    return ISO_OK;
}

static iso_status look_up_all(iso_encode_batches *b, iso_encode_batch *to, int first, iso_error *err)
{
    iso_txn *t;
    iso_encode_batches_lock(b);
    iso_status status = iso_txn_begin(b->from.store, false, &t, err);
    if (!status) {
        for (int i = first; i < to->files && !status; i++)
            if (to->file[i].kind == ISO_ENCODE_NEW) status = look_up(b, t, to, &to->file[i], err);
        iso_txn_abort(t);
    }
    iso_encode_batches_unlock(b);
    return status;
}

static void decode_one(iso_encode_batch *b, iso_encode_file *f)
{
    iso_error err = {0};
    if (f->kind != ISO_ENCODE_NEW) return;
    const iso_status status = iso_image_file_decode(&f->content, b->pixels + f->row * ISO_PIXELS, &f->info, &err);
    if (status) skip(f, err.message);
    if (status != ISO_E_MEMORY) return; /* the picture may be sound */
#pragma omp critical(iso_encode_memory)
    b->status = status, b->err = err;
}

/* By the team that encodes, where that is on the processors: no other threads to wait for or to wait behind. */
static void decode_all(iso_encode_batch *b, int threads)
{
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int i = 0; i < b->files; i++) decode_one(b, &b->file[i]);
}

/* Closes the gaps that files which are no pictures left. */
static void close_gaps(iso_encode_batch *b)
{
    int64_t row = 0;
    for (int i = 0; i < b->files; i++) {
        iso_encode_file *f = &b->file[i];
        if (f->kind != ISO_ENCODE_NEW) continue;
        if (f->row != row) memmove(b->pixels + row * ISO_PIXELS, b->pixels + f->row * ISO_PIXELS, ISO_PIXELS);
        f->row = row++;
    }
    b->pictures = row;
}

/* Files until there are `size` pictures, or enough of all kinds. */
static void make(iso_encode_batches *b, iso_encode_batch *to)
{
    const int size = b->from.size;
    size_t bytes = 0;
    to->files = 0;
    to->pictures = to->reuses = 0;
    to->status = ISO_OK;
    while (!to->status && to->pictures < size && to->files < 2 * size && to->reuses < size && bytes < BATCH_BYTES) {
        int first = to->files, want = size - (int)(to->pictures > to->reuses ? to->pictures : to->reuses);
        bytes += take_files(b, to, want < 2 * size - first ? want : 2 * size - first);
        if (to->files == first || to->status) break;
        to->status = look_up_all(b, to, first, &to->err);
    }
    if (to->status) return;
    if (to->pictures) decode_all(to, b->from.threads);
    if (!to->status) close_gaps(to);
}

/* ---- with overlap ---- */

static void *work(void *ctx)
{
    iso_encode_batches *b = ctx;
    bool more = true;
    pthread_mutex_lock(&b->mutex);
    while (more) {
        while (!b->stop && b->made >= b->taken - b->holding + 2) pthread_cond_wait(&b->changed, &b->mutex);
        if (b->stop) break;
        iso_encode_batch *to = &b->batch[b->made % 2];
        pthread_mutex_unlock(&b->mutex);
        make(b, to);
        more = to->files > 0 && !to->status;
        pthread_mutex_lock(&b->mutex);
        b->made++;
        pthread_cond_signal(&b->changed);
    }
    pthread_mutex_unlock(&b->mutex);
    return NULL;
}

static iso_encode_batch *wait_for_batch(iso_encode_batches *b)
{
    pthread_mutex_lock(&b->mutex);
    b->holding = false;
    pthread_cond_signal(&b->changed);
    while (b->made == b->taken) pthread_cond_wait(&b->changed, &b->mutex);
    iso_encode_batch *out = &b->batch[b->taken++ % 2];
    b->holding = true;
    pthread_mutex_unlock(&b->mutex);
    return out;
}

/* ---- the whole ---- */

static iso_status allocate(iso_encode_batches *b, iso_error *err)
{
    const size_t size = (size_t)b->from.size;
    for (int i = 0; i < (b->from.overlap ? 2 : 1); i++) {
        iso_encode_batch *to = &b->batch[i];
        to->file = iso_calloc(2 * size, sizeof *to->file);
        to->pixels = iso_calloc(size, ISO_PIXELS);
        to->reused = iso_calloc(size * (size_t)b->from.dim, sizeof *to->reused);
        if (!to->file || !to->pixels || !to->reused) return iso_fail_memory(err);
    }
    return ISO_OK;
}

iso_status iso_encode_batches_start(const iso_encode_source *source, iso_encode_batches **out, iso_error *err)
{
    iso_encode_batches *b = iso_calloc(1, sizeof *b);
    if (!b) return iso_fail_memory(err);
    pthread_mutex_init(&b->mutex, NULL);
    pthread_mutex_init(&b->store, NULL);
    pthread_cond_init(&b->changed, NULL);
    b->from = *source;
    const int readers = source->threads < 2 ? 2 : source->threads < READERS_MAX ? source->threads : READERS_MAX;
    iso_status status = allocate(b, err);
    if (!status) status = iso_reader_start(task_path, b, (int64_t)source->tasks, readers, 2 * source->size, BATCH_BYTES, &b->reader, err);
    if (!status && source->overlap) {
        int code = pthread_create(&b->thread, NULL, work, b);
        if (code) status = iso_fail(err, ISO_E_IO, "cannot start a thread: %s", strerror(code));
        b->started = code == 0;
    }
    if (status) {
        iso_encode_batches_free(b);
        return status;
    }
    *out = b;
    return ISO_OK;
}

iso_status iso_encode_batches_next(iso_encode_batches *b, iso_encode_batch **out, iso_error *err)
{
    iso_encode_batch *batch = &b->batch[0];
    if (b->started) batch = wait_for_batch(b);
    else make(b, batch);
    if (batch->status) return iso_fail(err, batch->status, "%s", batch->err.message);
    *out = batch;
    return ISO_OK;
}

void iso_encode_batches_lock(iso_encode_batches *b) { pthread_mutex_lock(&b->store); }
void iso_encode_batches_unlock(iso_encode_batches *b) { pthread_mutex_unlock(&b->store); }

void iso_encode_batches_free(iso_encode_batches *b)
{
    if (!b) return;
    if (b->started) {
        pthread_mutex_lock(&b->mutex);
        b->stop = true;
        pthread_cond_signal(&b->changed);
        pthread_mutex_unlock(&b->mutex);
        pthread_join(b->thread, NULL);
    }
    iso_reader_free(b->reader);
    for (int i = 0; i < 2; i++) {
        iso_encode_batch *batch = &b->batch[i];
        for (int k = 0; batch->file && k < 2 * b->from.size; k++) iso_image_file_free(&batch->file[k].content);
        free(batch->file);
        free(batch->pixels);
        free(batch->reused);
    }
    pthread_cond_destroy(&b->changed);
    pthread_mutex_destroy(&b->mutex);
    pthread_mutex_destroy(&b->store);
    free(b);
}
