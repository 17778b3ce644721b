#include "indexer/decode_ahead.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

/* A ring: file i goes into slot i % ahead. taken <= next <= taken + ahead: a thread claims `next` once its slot is free. */
struct iso_decoder {
    char *(*path)(void *ctx, int64_t i);
    void *ctx;
    int64_t count, next, taken; /* next to claim; next to hand out */
    int ahead, threads;
    bool holding, stop;         /* the caller still looks at slot taken - 1 */
    iso_decoded *slot;          /* [ahead] */
    bool *ready;                /* [ahead] */
    pthread_t *thread;
    pthread_mutex_t mutex;
    pthread_cond_t room, done;
};

static void decode(iso_decoder *d, int64_t i, iso_decoded *out)
{
    iso_error err = {0};
    char *path = d->path(d->ctx, i);
    out->status = path ? iso_image_read(path, out->pixels, &out->info, &err) : iso_fail_memory(&err);
    snprintf(out->reason, sizeof out->reason, "%.255s", out->status ? err.message : "");
    free(path);
}

static void *work(void *ctx)
{
    iso_decoder *d = ctx;
    pthread_mutex_lock(&d->mutex);
    for (;;) {
        while (!d->stop && d->next < d->count && d->next >= d->taken - d->holding + d->ahead) pthread_cond_wait(&d->room, &d->mutex);
        if (d->stop || d->next >= d->count) break;
        int64_t i = d->next++;
        pthread_mutex_unlock(&d->mutex);
        decode(d, i, &d->slot[i % d->ahead]);
        pthread_mutex_lock(&d->mutex);
        d->ready[i % d->ahead] = true;
        pthread_cond_signal(&d->done);
    }
    pthread_mutex_unlock(&d->mutex);
    return NULL;
}

iso_status iso_decoder_start(char *(*path)(void *ctx, int64_t i), void *ctx, int64_t count, int threads, int ahead, iso_decoder **out, iso_error *err)
{
    iso_decoder *d = iso_calloc(1, sizeof *d);
    if (!d) return iso_fail_memory(err);
    pthread_mutex_init(&d->mutex, NULL);
    pthread_cond_init(&d->room, NULL);
    pthread_cond_init(&d->done, NULL);
    d->path = path;
    d->ctx = ctx;
    d->count = count;
    d->ahead = ahead < 2 ? 2 : ahead;
    d->slot = iso_calloc((size_t)d->ahead, sizeof *d->slot);
    d->ready = iso_calloc((size_t)d->ahead, sizeof *d->ready);
    d->thread = iso_calloc((size_t)threads, sizeof *d->thread);
    iso_status status = d->slot && d->ready && d->thread ? ISO_OK : iso_fail_memory(err);
    while (!status && d->threads < threads) {
        int code = pthread_create(&d->thread[d->threads], NULL, work, d);
        if (code && !d->threads) status = iso_fail(err, ISO_E_IO, "cannot start a thread: %s", strerror(code));
        if (code) break; /* fewer threads do it, too */
        d->threads++;
    }
    if (status) {
        iso_decoder_free(d);
        return status;
    }
    *out = d;
    return ISO_OK;
}

const iso_decoded *iso_decoder_next(iso_decoder *d)
{
    pthread_mutex_lock(&d->mutex);
    d->holding = false;
    pthread_cond_broadcast(&d->room);
    const iso_decoded *out = NULL;
    if (d->taken < d->count) {
        int64_t i = d->taken % d->ahead;
        while (!d->ready[i]) pthread_cond_wait(&d->done, &d->mutex);
        d->ready[i] = false;
        d->holding = true;
        d->taken++;
        out = &d->slot[i];
    }
    pthread_mutex_unlock(&d->mutex);
    return out;
}

void iso_decoder_free(iso_decoder *d)
{
    if (!d) return;
    pthread_mutex_lock(&d->mutex);
    d->stop = true;
    pthread_cond_broadcast(&d->room);
    pthread_mutex_unlock(&d->mutex);
    for (int i = 0; i < d->threads; i++) pthread_join(d->thread[i], NULL);
    pthread_cond_destroy(&d->room);
    pthread_cond_destroy(&d->done);
    pthread_mutex_destroy(&d->mutex);
    free(d->slot);
    free(d->ready);
    free(d->thread);
    free(d);
}
