/* bytes.h: little-endian integers in bytes at any alignment, as all of Isoface's files have them; and the machine's own. */
#ifndef ISO_BASE_BYTES_H
#define ISO_BASE_BYTES_H

#include <stdint.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files hold little-endian numbers, which are used as they are: so must the machine");

static inline void iso_put_u16(uint8_t *p, uint16_t v) { memcpy(p, &v, sizeof v); }
static inline void iso_put_u32(uint8_t *p, uint32_t v) { memcpy(p, &v, sizeof v); }
static inline void iso_put_u64(uint8_t *p, uint64_t v) { memcpy(p, &v, sizeof v); }

static inline uint16_t iso_get_u16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint32_t iso_get_u32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint64_t iso_get_u64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

#endif
