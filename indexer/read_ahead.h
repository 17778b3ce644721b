/* read_ahead.h: files read by several threads, handed out in the order they were asked for. Reading waits for disks and
 * takes next to no processor; decoding, which does, is left to the caller. */
#ifndef ISO_READ_AHEAD_H
#define ISO_READ_AHEAD_H

#include "indexer/image.h"

typedef struct iso_read {
    iso_status status;        /* of iso_image_file_read; its message is `reason` */
    char reason[256];
    iso_image_file file;      /* the caller may swap it for another one, whose memory is used again */
} iso_read;

typedef struct iso_reader iso_reader;

/* Files path(ctx, 0) ... path(ctx, count - 1), at most `ahead` (>= 2) of them read and not yet given back, and no further
 * one begun while they have `bytes` or more. `path` is called from any thread and gives fresh memory, NULL when memory is
 * out. threads >= 1. */
ISO_CHECK iso_status iso_reader_start(char *(*path)(void *ctx, int64_t i), void *ctx, int64_t count, int threads, int ahead, size_t bytes,
                                      iso_reader **out, iso_error *err);
/* The next one in order (waits for it), valid until the next call; NULL after the last. One thread at a time. */
iso_read *iso_reader_next(iso_reader *r);
/* Stops the threads, wherever they are. NULL is fine. */
void iso_reader_free(iso_reader *r);

#endif
