#include "base/json.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/text.h"

static void skip_space(iso_json *j)
{
    while (j->at < j->end && (*j->at == ' ' || *j->at == '\n' || *j->at == '\r' || *j->at == '\t')) j->at++;
}

bool iso_json_take(iso_json *j, char c)
{
    skip_space(j);
    if (j->at == j->end || *j->at != c) return false;
    j->at++;
    return true;
}

bool iso_json_ended(iso_json *j)
{
    skip_space(j);
    return j->at == j->end;
}

/* \uXXXX at s. */
static bool unit(const char *s, const char *end, uint32_t *out)
{
    if (end - s < 6 || s[0] != '\\' || s[1] != 'u') return false;
    *out = 0;
    for (int i = 2; i < 6; i++) {
        const char c = s[i];
        if (!(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'f') && !(c >= 'A' && c <= 'F')) return false;
        *out = *out << 4 | (uint32_t)(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
    }
    return true;
}

static char *put_utf8(char *to, uint32_t u)
{
    if (u < 0x80) {
        *to++ = (char)u;
        return to;
    }
    if (u < 0x800) {
        *to++ = (char)(0xc0 | u >> 6);
    } else {
        if (u < 0x10000) {
            *to++ = (char)(0xe0 | u >> 12);
        } else {
            *to++ = (char)(0xf0 | u >> 18);
            *to++ = (char)(0x80 | (u >> 12 & 63));
        }
        *to++ = (char)(0x80 | (u >> 6 & 63));
    }
    *to++ = (char)(0x80 | (u & 63));
    return to;
}

/* The escape at *s, past which *s goes. */
static bool unescape(const char **s, const char *end, char **to)
{
    static const char letter[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    const char *known = memchr(letter, (*s)[1], sizeof letter - 1);
    uint32_t u, low;
    if (known) {
        *(*to)++ = meant[known - letter];
        *s += 2;
        return true;
    }
    if (!unit(*s, end, &u)) return false;
    *s += 6;
    if (u >= 0xd800 && u <= 0xdbff) { /* the first half of a pair */
        if (!unit(*s, end, &low) || low < 0xdc00 || low > 0xdfff) return false;
        *s += 6;
        u = 0x10000 + ((u - 0xd800) << 10) + (low - 0xdc00);
    } else if (u == 0 || (u >= 0xdc00 && u <= 0xdfff)) {
        return false;
    }
    *to = put_utf8(*to, u);
    return true;
}

/* The quote that ends a string; NULL: there is none, or a control character before it. */
static const char *closing(const char *s, const char *end)
{
    for (; s < end && *s != '"'; s++) {
        if ((unsigned char)*s < 0x20) return NULL;
        if (*s == '\\' && ++s == end) return NULL;
    }
    return s < end ? s : NULL;
}

iso_status iso_json_string(iso_json *j, char **text)
{
    if (!iso_json_take(j, '"')) return ISO_E_FORMAT;
    const char *s = j->at, *end = closing(s, j->end);
    if (!end || !iso_text_is_utf8(s, (size_t)(end - s))) return ISO_E_FORMAT;
    char *out = iso_calloc((size_t)(end - s) + 1, 1), *to = out; /* no escape is shorter than what it means */
    if (!out) return ISO_E_MEMORY;
    while (s < end) {
        if (*s != '\\') {
            *to++ = *s++;
        } else if (!unescape(&s, end, &to)) {
            free(out);
            return ISO_E_FORMAT;
        }
    }
    j->at = end + 1;
    *text = out;
    return ISO_OK;
}

static bool whole(iso_json *j, int64_t *out)
{
    skip_space(j);
    const char *s = j->at;
    int64_t value = 0;
    for (; s < j->end && *s >= '0' && *s <= '9'; s++) {
        if (s > j->at && *j->at == '0') return false; /* 07 */
        if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, *s - '0', &value)) return false;
    }
    if (s == j->at) return false;
    j->at = s;
    *out = value;
    return true;
}

bool iso_json_numbers(iso_json *j, int most, int64_t *number, int *count)
{
    int n = 0;
    if (!iso_json_take(j, '[')) return false;
    *count = 0;
    if (iso_json_take(j, ']')) return true;
    do {
        if (n == most || !whole(j, &number[n])) return false;
        n++;
    } while (iso_json_take(j, ','));
    *count = n;
    return iso_json_take(j, ']');
}
