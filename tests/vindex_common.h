/* vindex_common.h: what the tests of indexes share: a folder with the file, random numbers, and checksums for forged files. */
#ifndef ISO_TESTS_VINDEX_COMMON_H
#define ISO_TESTS_VINDEX_COMMON_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

#include "base/error.h"
#include "retriever/vindex.h"
#include "tests/check.h"
#include "tests/folder.h"
#include "tests/random.h"

/* Of the header: where its fields lie. A checksum is of so many bytes behind it. */
enum {
    AT_VERSION = 8, AT_DIM = 12, AT_KIND = 16, AT_COUNT = 72, AT_APPROXIMATE = 80, AT_WIDTH = 84, AT_RECALL = 88, AT_ERROR = 96, AT_PAYLOAD_AT = 104, AT_PAYLOAD = 112,
    AT_RUNS = 120, AT_BODY = 128, AT_ORDER = 136, AT_LEAST = 144, AT_HASH = 248, PIECE = 1 << 20
};

static char base[512], file[600];
static iso_error err;

/* Of a test's set-up and tear-down. */
static int begin(const char *name, uint64_t own_seed)
{
    begin_random(own_seed);
    if (!make_folder(base, sizeof base, name)) return -1;
    snprintf(file, sizeof file, "%s/index.faiss", base);
    return 0;
}

static int tear_down(void **unused)
{
    (void)unused;
    unlink(file);
    return rmdir(base); /* nothing else was left */
}

static inline uint64_t number_at(const void *at)
{
    uint64_t x;
    memcpy(&x, at, sizeof x);
    return x;
}

/* Makes the header's checksum that of what is there. */
static inline void mend_header(void *data)
{
    const XXH64_hash_t h = XXH3_64bits(data, AT_HASH);
    memcpy((char *)data + AT_HASH, &h, 8);
}

/* Makes all checksums those of what is there. */
static inline void mend(void *data)
{
    char *d = data;
    const uint64_t end = (number_at(d + AT_PAYLOAD_AT) + number_at(d + AT_PAYLOAD) + 7) / 8 * 8 + 16 * number_at(d + AT_RUNS);
    char *hash = d + end;
    for (uint64_t from = ISO_VINDEX_HEADER; from < end; from += PIECE, hash += 8) {
        const XXH64_hash_t h = XXH3_64bits(d + from, end - from < PIECE ? end - from : PIECE);
        memcpy(hash, &h, 8);
    }
    const XXH64_hash_t h = XXH3_64bits(d + end, (size_t)(hash - (d + end)));
    memcpy(d + AT_BODY, &h, 8);
    mend_header(d);
}

#endif
