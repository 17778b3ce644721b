/* decode_ahead.h: images decoded by several threads, handed out in the order they were asked for. */
#ifndef ISO_DECODE_AHEAD_H
#define ISO_DECODE_AHEAD_H

#include "indexer/image.h"

typedef struct iso_decoded {
    iso_status status;        /* of iso_image_read; its message is `reason` */
    char reason[256];
    iso_image_info info;
    uint8_t pixels[ISO_PIXELS];
} iso_decoded;

typedef struct iso_decoder iso_decoder;

/* Files path(ctx, 0) ... path(ctx, count - 1), at most `ahead` decoded and not yet given back. `path` is called from any
 * thread and gives fresh memory, NULL when memory is out. threads >= 1. */
ISO_CHECK iso_status iso_decoder_start(char *(*path)(void *ctx, int64_t i), void *ctx, int64_t count, int threads, int ahead, iso_decoder **out, iso_error *err);
/* The next one in order (waits for it), valid until the next call; NULL after the last. One thread. */
const iso_decoded *iso_decoder_next(iso_decoder *d);
/* Stops the threads, wherever they are. NULL is fine. */
void iso_decoder_free(iso_decoder *d);

#endif
