#include "base/text.h"

#include <assert.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

void iso_text_tsv(FILE *out, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        switch (bytes[i]) {
        case '\t': fputs("\\t", out); break;
        case '\n': fputs("\\n", out); break;
        case '\r': fputs("\\r", out); break;
        case '\\': fputs("\\\\", out); break;
        default: putc((unsigned char)bytes[i], out);
        }
    }
}

/* Length of the well-formed UTF-8 sequence at s (no overlong forms, no surrogates), 0 if there is none. */
static size_t sequence(const char *bytes, size_t n)
{
    const unsigned char *s = (const unsigned char *)bytes;
    if (n == 0) return 0;
    if (s[0] < 0x80) return 1;
    size_t length = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4 || n < length) return 0;
    for (size_t i = 1; i < length; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    if (s[0] == 0xe0 && s[1] < 0xa0) return 0;
    if (s[0] == 0xed && s[1] > 0x9f) return 0;
    if (s[0] == 0xf0 && s[1] < 0x90) return 0;
    if (s[0] == 0xf4 && s[1] > 0x8f) return 0;
    return length;
}

bool iso_text_is_utf8(const char *bytes, size_t n)
{
    while (n > 0) {
        size_t length = sequence(bytes, n);
        if (length == 0) return false;
        bytes += length;
        n -= length;
    }
    return true;
}

static void json_char(FILE *out, unsigned char c)
{
    switch (c) {
    case '"': fputs("\\\"", out); break;
    case '\\': fputs("\\\\", out); break;
    case '\n': fputs("\\n", out); break;
    case '\r': fputs("\\r", out); break;
    case '\t': fputs("\\t", out); break;
    default:
        if (c < 0x20 || c == 0x7f)
            fprintf(out, "\\u%04x", c);
        else
            putc(c, out);
    }
}

void iso_text_json(FILE *out, const char *bytes, size_t n)
{
    putc('"', out);
    while (n > 0) {
        size_t length = sequence(bytes, n);
        if (length == 0) {
            fputs("\xef\xbf\xbd", out);
            length = 1;
        } else if (length == 1) {
            json_char(out, (unsigned char)bytes[0]);
        } else {
            fwrite(bytes, 1, length, out);
        }
        bytes += length;
        n -= length;
    }
    putc('"', out);
}

void iso_text_base64(FILE *out, const void *bytes, size_t n)
{
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *s = bytes;
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)s[i] << 16;
        if (i + 1 < n) v |= (uint32_t)s[i + 1] << 8;
        if (i + 2 < n) v |= s[i + 2];
        putc(digit[v >> 18], out);
        putc(digit[v >> 12 & 63], out);
        putc(i + 1 < n ? digit[v >> 6 & 63] : '=', out);
        putc(i + 2 < n ? digit[v & 63] : '=', out);
    }
}

void iso_text_json_path(FILE *out, const char *key, const char *path)
{
    size_t n = strlen(path);
    iso_text_json(out, key, strlen(key));
    fputs(": ", out);
    iso_text_json(out, path, n);
    if (iso_text_is_utf8(path, n)) return;
    fprintf(out, ", \"%s_bytes\": \"", key);
    iso_text_base64(out, path, n);
    putc('"', out);
}

static bool in_digits(double value, int digits, char text[ISO_TEXT_REAL])
{
    assert(digits >= 1 && digits <= 17); /* which also tells gcc that there is room */
    snprintf(text, ISO_TEXT_REAL, "%.*g", digits, value);
    return strtod(text, NULL) == value;
}

const char *iso_text_real(double value, int least, char text[ISO_TEXT_REAL])
{
    if (in_digits(value, least, text)) return text;
    int few = least, enough = 17; /* if so many are enough, more are, too */
    while (enough - few > 1) {
        const int middle = (few + enough) / 2;
        if (in_digits(value, middle, text)) enough = middle;
        else few = middle;
    }
    in_digits(value, enough, text);
    return text;
}

void iso_text_json_number(FILE *out, double value)
{
    char text[ISO_TEXT_REAL];
    fputs(isfinite(value) ? iso_text_real(value, 6, text) : "null", out);
}

/* U+FDD0 to U+FDEF and the last two of each plane. */
static bool noncharacter(const unsigned char *s, size_t length)
{
    if (length < 3 || s[length - 2] < 0xb7) return false;
    if (length == 3 && s[0] == 0xef && s[1] == 0xb7) return s[2] >= 0x90 && s[2] <= 0xaf;
    bool plane = length == 3 ? s[0] == 0xef : (s[1] & 0x0f) == 0x0f;
    return plane && s[length - 2] == 0xbf && s[length - 1] >= 0xbe;
}

/* U+0080 to U+009F are control characters too: a terminal obeys them. */
static bool is_control(const unsigned char *s, size_t length)
{
    return length == 1 ? s[0] < 0x20 || s[0] == 0x7f : length == 2 && s[0] == 0xc2 && s[1] < 0xa0;
}

void iso_text_harmless(char *text)
{
    for (size_t n = strlen(text), length; n > 0; text += length, n -= length) {
        length = sequence(text, n);
        const unsigned char *s = (const unsigned char *)text;
        if (length ? is_control(s, length) : s[0] >= 0x80 && s[0] < 0xa0) memset(text, '?', length ? length : 1);
        if (!length) length = 1;
    }
}

enum { SHOWN = 4 * 4 }; /* characters of a sequence, at most */

/* What is shown of the first sequence of n > 0 bytes, how many characters that is, and of how many bytes. */
static size_t show_one(const char *bytes, size_t n, char out[SHOWN], size_t *taken)
{
    static const char digit[] = "0123456789ABCDEF";
    const size_t length = sequence(bytes, n);
    const unsigned char *s = (const unsigned char *)bytes;
    *taken = length ? length : 1;
    if (length && !is_control(s, length) && !noncharacter(s, length)) {
        memcpy(out, bytes, length);
        return length;
    }
    char *end = out;
    for (size_t i = 0; i < *taken; i++) {
        *end++ = '\\', *end++ = 'x';
        *end++ = digit[s[i] >> 4], *end++ = digit[s[i] & 15];
    }
    return (size_t)(end - out);
}

char *iso_text_printable(const char *path)
{
    size_t n = strlen(path), taken;
    if (n > SIZE_MAX / 4 - 1 - SHOWN) return NULL;
    char *text = iso_calloc(4 * n + 1 + SHOWN, 1), *end = text;
    if (!text) return NULL;
    for (; n > 0; path += taken, n -= taken) end += show_one(path, n, end, &taken);
    *end = '\0';
    return text;
}

int iso_text_show(FILE *out, const char *bytes, size_t n)
{
    char one[SHOWN];
    int letters = 0;
    for (size_t taken; n > 0; bytes += taken, n -= taken) {
        const size_t length = show_one(bytes, n, one, &taken);
        if (out) fwrite(one, 1, length, out);
        for (size_t i = 0; i < length; i++) letters += ((unsigned char)one[i] & 0xc0) != 0x80;
    }
    return letters;
}

char *iso_text_middle(const char *text, size_t keep)
{
    size_t n = strlen(text);
    if (n <= keep) return iso_strndup(text, n);
    size_t head = (keep + 1) / 2, tail = n - keep / 2;
    while (head > 0 && ((unsigned char)text[head] & 0xc0) == 0x80) head--;
    while (tail < n && ((unsigned char)text[tail] & 0xc0) == 0x80) tail++;
    return iso_format("%.*s…%s", (int)head, text, text + tail);
}
