/* vindex_head.c: the fields of FAISS's files. */
#include "retriever/vindex_head.h"

#include <string.h>

enum { METRIC_INNER_PRODUCT = 0, RESERVED = 1 << 20 /* written twice, and ignored */ }; /* FAISS's numbers */

iso_vindex_head iso_vindex_head_read(const uint8_t *payload, size_t size)
{
    return (iso_vindex_head){.bytes = (uint8_t *)(uintptr_t)payload, .size = size, .reading = true};
}

/* The next bytes; NULL, and bad, where there are not so many. */
static uint8_t *next(iso_vindex_head *h, size_t size)
{
    if (h->bad || h->size - h->at < size) {
        h->bad = true;
        return NULL;
    }
    h->at += size;
    return h->bytes + h->at - size;
}

void iso_vindex_field(iso_vindex_head *h, const void *value, size_t size)
{
    uint8_t *at = next(h, size);
    if (!at) return;
    if (h->reading)
        h->bad = memcmp(at, value, size) != 0;
    else
        memcpy(at, value, size);
}

void iso_vindex_field_i32(iso_vindex_head *h, int32_t value) { iso_vindex_field(h, &value, sizeof value); }
void iso_vindex_field_u64(iso_vindex_head *h, uint64_t value) { iso_vindex_field(h, &value, sizeof value); }

void iso_vindex_field_index(iso_vindex_head *h, const char letters[4], int dim, int64_t count)
{
    const uint8_t is_trained = 1;
    iso_vindex_field(h, letters, 4);
    iso_vindex_field_i32(h, dim);
    iso_vindex_field_u64(h, (uint64_t)count);
    iso_vindex_field_u64(h, RESERVED);
    iso_vindex_field_u64(h, RESERVED);
    iso_vindex_field(h, &is_trained, 1);
    iso_vindex_field_i32(h, METRIC_INNER_PRODUCT);
}

const uint8_t *iso_vindex_field_bytes(iso_vindex_head *h, size_t size) { return next(h, size); }

int32_t iso_vindex_field_any_i32(iso_vindex_head *h)
{
    int32_t value = 0;
    const uint8_t *at = next(h, sizeof value);
    if (at) memcpy(&value, at, sizeof value);
    return value;
}

const uint8_t *iso_vindex_field_items(iso_vindex_head *h, size_t bytes, uint64_t *n)
{
    const uint8_t *at = next(h, sizeof *n);
    *n = 0;
    if (!at) return NULL;
    memcpy(n, at, sizeof *n);
    if (*n > (h->size - h->at) / bytes) h->bad = true;
    return next(h, h->bad ? 0 : (size_t)*n * bytes);
}
