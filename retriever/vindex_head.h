/* vindex_head.h: the fields that FAISS's write_index puts before its numbers, in the machine's byte order and without gaps:
 * written and read by one list of them. Internal to the index. */
#ifndef ISO_VINDEX_HEAD_H
#define ISO_VINDEX_HEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct iso_vindex_head {
    uint8_t *bytes;    /* writing: room; reading: the payload, which stays as it is */
    size_t size, at;   /* reading: size of the payload */
    bool reading, bad; /* bad: shorter than its fields, or a field that is not what it must be */
} iso_vindex_head;

iso_vindex_head iso_vindex_head_read(const uint8_t *payload, size_t size);

/* A field whose value is known: written, or compared with what is there. */
void iso_vindex_field(iso_vindex_head *h, const void *value, size_t size);
void iso_vindex_field_i32(iso_vindex_head *h, int32_t value);
void iso_vindex_field_u64(iso_vindex_head *h, uint64_t value);

/* What each of FAISS's indexes begins with; ours are by inner product. */
void iso_vindex_field_index(iso_vindex_head *h, const char letters[4], int dim, int64_t count);

/* Reading. Where the next `size` bytes are; NULL, and bad, where there are not so many. */
const uint8_t *iso_vindex_field_bytes(iso_vindex_head *h, size_t size);
/* One that the caller checks; 0 where it is missing. */
int32_t iso_vindex_field_any_i32(iso_vindex_head *h);
/* Where n items of so many bytes begin, before which n stands. */
const uint8_t *iso_vindex_field_items(iso_vindex_head *h, size_t bytes, uint64_t *n);

#endif
