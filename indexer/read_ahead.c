#include "indexer/read_ahead.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

/* A ring: file i goes into slot i % ahead. taken <= next <= taken + ahead: a thread claims `next` once its slot is free. */
struct iso_reader {
    char *(*path)(void *ctx, int64_t i);
    void *ctx;
    int64_t count, next, taken; /* next to claim; next to hand out */
    int ahead, threads;
    size_t bytes, held;         /* limit; in files read and not handed out */
    bool holding, stop;         /* the caller still looks at slot taken - 1 */
    iso_read *slot;             /* [ahead] */
    bool *ready;                /* [ahead] */
    pthread_t *thread;
    pthread_mutex_t mutex;
    pthread_cond_t room, done;
};

static void read_one(iso_reader *r, int64_t i, iso_read *out)
{
    iso_error err = {0};
    char *path = r->path(r->ctx, i);
    out->status = path ? iso_image_file_read(path, &out->file, &err) : iso_fail_memory(&err);
    snprintf(out->reason, sizeof out->reason, "%.255s", out->status ? err.message : "");
    free(path);
}

static bool has_room(const iso_reader *r)
{
    return r->next < r->taken - r->holding + r->ahead && (r->held < r->bytes || r->next == r->taken);
}

static void *work(void *ctx)
{
    iso_reader *r = ctx;
    pthread_mutex_lock(&r->mutex);
    for (;;) {
        while (!r->stop && r->next < r->count && !has_room(r)) pthread_cond_wait(&r->room, &r->mutex);
        if (r->stop || r->next >= r->count) break;
        int64_t i = r->next++;
        iso_read *to = &r->slot[i % r->ahead];
        pthread_mutex_unlock(&r->mutex);
        read_one(r, i, to);
        pthread_mutex_lock(&r->mutex);
        r->ready[i % r->ahead] = true;
        if (!to->status) r->held += to->file.size;
        if (i == r->taken) pthread_cond_signal(&r->done);
    }
    pthread_mutex_unlock(&r->mutex);
    return NULL;
}

iso_status iso_reader_start(char *(*path)(void *ctx, int64_t i), void *ctx, int64_t count, int threads, int ahead, size_t bytes,
                            iso_reader **out, iso_error *err)
{
    iso_reader *r = iso_calloc(1, sizeof *r);
    if (!r) return iso_fail_memory(err);
    pthread_mutex_init(&r->mutex, NULL);
    pthread_cond_init(&r->room, NULL);
    pthread_cond_init(&r->done, NULL);
    r->path = path;
    r->ctx = ctx;
    r->count = count;
    r->bytes = bytes;
    r->ahead = ahead < 2 ? 2 : ahead;
    r->slot = iso_calloc((size_t)r->ahead, sizeof *r->slot);
    r->ready = iso_calloc((size_t)r->ahead, sizeof *r->ready);
    r->thread = iso_calloc((size_t)threads, sizeof *r->thread);
    iso_status status = r->slot && r->ready && r->thread ? ISO_OK : iso_fail_memory(err);
    while (!status && r->threads < threads) {
        int code = pthread_create(&r->thread[r->threads], NULL, work, r);
        if (code && !r->threads) status = iso_fail(err, ISO_E_IO, "cannot start a thread: %s", strerror(code));
        if (code) break; /* fewer threads do it, too */
        r->threads++;
    }
    if (status) {
        iso_reader_free(r);
        return status;
    }
    *out = r;
    return ISO_OK;
}

/* The threads are woken when half of the ring is empty, not for every file. */
iso_read *iso_reader_next(iso_reader *r)
{
    pthread_mutex_lock(&r->mutex);
    r->holding = false;
    iso_read *out = NULL;
    if (r->taken < r->count) {
        int64_t i = r->taken % r->ahead;
        if (r->next - r->taken <= r->ahead / 2) pthread_cond_broadcast(&r->room);
        while (!r->ready[i]) pthread_cond_wait(&r->done, &r->mutex);
        r->ready[i] = false;
        r->holding = true;
        r->taken++;
        out = &r->slot[i];
        if (!out->status) r->held -= out->file.size;
    }
    pthread_mutex_unlock(&r->mutex);
    return out;
}

void iso_reader_free(iso_reader *r)
{
    if (!r) return;
    pthread_mutex_lock(&r->mutex);
    r->stop = true;
    pthread_cond_broadcast(&r->room);
    pthread_mutex_unlock(&r->mutex);
    for (int i = 0; i < r->threads; i++) pthread_join(r->thread[i], NULL);
    pthread_cond_destroy(&r->room);
    pthread_cond_destroy(&r->done);
    pthread_mutex_destroy(&r->mutex);
    for (int i = 0; r->slot && i < r->ahead; i++) iso_image_file_free(&r->slot[i].file);
    free(r->slot);
    free(r->ready);
    free(r->thread);
    free(r);
}
