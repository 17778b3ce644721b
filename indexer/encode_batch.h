/* encode_batch.h: files on their way into the database: read, looked up, decoded; a batch at a time. What encode.c does
 * before the encoder. */
#ifndef ISO_ENCODE_BATCH_H
#define ISO_ENCODE_BATCH_H

#include "indexer/dataset.h"
#include "indexer/encode.h"
#include "indexer/read_ahead.h"

typedef struct iso_encode_task { size_t file; bool known; } iso_encode_task; /* of the listing; known: an item has that path */

typedef enum iso_encode_kind { ISO_ENCODE_NEW, ISO_ENCODE_REUSE, ISO_ENCODE_TOUCH, ISO_ENCODE_SKIP } iso_encode_kind;

/* One file of a batch. */
typedef struct iso_encode_file {
    const iso_encode_task *task;
    iso_encode_kind kind;
    iso_image_info info;
    uint64_t id;            /* TOUCH: of the item */
    int64_t row;            /* NEW: of its pixels; REUSE: of its vector */
    char reason[256];       /* SKIP */
    iso_image_file content; /* NEW: until it is decoded; the memory stays */
} iso_encode_file;

typedef struct iso_encode_batch {
    iso_encode_file *file;  /* [2 * size] */
    int files;              /* 0: there are no more */
    uint8_t *pixels;        /* [size, 64, 64, 3] */
    int64_t pictures;
    float *reused;          /* [size, dim] vectors that the database had */
    int64_t reuses;
    iso_status status;      /* of making it */
    iso_error err;
} iso_encode_batch;

typedef struct iso_encode_source {
    iso_store *store;
    const iso_listing *listing;
    const iso_encode_task *task;
    size_t tasks;
    int dim, size;          /* of vectors; pictures in a batch, at most */
    int threads;            /* decoding */
    bool overlap;           /* batches are made while the caller is busy, by a thread of its own */
} iso_encode_source;

typedef struct iso_encode_batches iso_encode_batches;
/* `source` is copied, what it points at borrowed. */
ISO_CHECK iso_status iso_encode_batches_start(const iso_encode_source *source, iso_encode_batches **out, iso_error *err);
/* The next batch, valid until the next call; its `files` are 0 after the last, and after an interrupt. One thread. */
ISO_CHECK iso_status iso_encode_batches_next(iso_encode_batches *b, iso_encode_batch **out, iso_error *err);
/* With overlap, batches are looked up in the database meanwhile: whoever writes to it holds this lock. */
void iso_encode_batches_lock(iso_encode_batches *b);
void iso_encode_batches_unlock(iso_encode_batches *b);
void iso_encode_batches_free(iso_encode_batches *b); /* NULL is fine */

#endif
