/* names.c: see names.h. */
#include "indexer/names.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/file.h"
#include "base/memory.h"

enum { CHUNK = 256 << 10, LONGEST_LINE = 64 << 20 };
#define LARGEST ((size_t)1 << 30)

/* ---- lines ---- */

iso_status iso_words_begin(iso_words *w, const char *file, iso_error *err)
{
    struct stat st;
    int fd;
    iso_status status = iso_file_open(file, LARGEST, &fd, &st, err);
    if (!status) *w = (iso_words){.file = file, .fd = fd, .bytes = S_ISREG(st.st_mode) ? (size_t)st.st_size : 0};
    return status;
}

/* Reads on behind what has been read; what has been given out makes room. */
static iso_status refill(iso_words *w, iso_error *err)
{
    const size_t left = w->size - w->pos;
    if (left) memmove(w->buffer, w->buffer + w->pos, left);
    w->pos = 0;
    w->size = left;
    if (left > LONGEST_LINE) return iso_fail(err, ISO_E_FORMAT, "%s: line %zu is longer than %d MiB: not a list", w->file, w->line + 1, LONGEST_LINE >> 20);
    if (!iso_grow(&w->buffer, &w->room, left + CHUNK + 1, 1)) return iso_fail_memory(err);
    const ssize_t n = TEMP_FAILURE_RETRY(read(w->fd, w->buffer + left, CHUNK));
    if (n < 0) return iso_fail_errno(err, "cannot read %s", w->file);
    w->size += (size_t)n;
    w->ended = n == 0;
    return ISO_OK;
}

/* The line feed behind `pos`, `looked` bytes of which hold none. */
static char *line_feed(const iso_words *w, size_t looked)
{
    const size_t left = w->size - w->pos - looked;
    return left ? memchr(w->buffer + w->pos + looked, '\n', left) : NULL;
}

iso_status iso_words_line(iso_words *w, iso_error *err)
{
    const bool first = w->line == 0;
    char *end;
    for (size_t looked = 0; !(end = line_feed(w, looked)) && !w->ended;) {
        looked = w->size - w->pos;
        iso_status status = refill(w, err);
        if (status) return status;
    }
    w->at = w->end = NULL;
    if (!end && w->pos == w->size) return ISO_OK;
    w->at = w->buffer + w->pos;
    w->end = end ? end : w->buffer + w->size;
    *w->end = 0; /* at least there is room for it */
    w->pos = end ? (size_t)(end + 1 - w->buffer) : w->size;
    w->line++;
    if (first && w->end - w->at >= 3 && memcmp(w->at, "\xEF\xBB\xBF", 3) == 0) w->at += 3; /* a byte order mark */
    return ISO_OK;
}

/* ---- words ---- */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static iso_status cut(iso_words *w, char *line, char *end, iso_error *err)
{
    w->count = 0;
    for (char *p = line;;) {
        while (p < end && is_blank(*p)) p++;
        if (p == end) return ISO_OK;
        if (!iso_grow(&w->word, &w->capacity, w->count + 1, sizeof *w->word)) return iso_fail_memory(err);
        w->word[w->count++] = p;
        while (p < end && !is_blank(*p)) p++;
        *p = 0; /* at `end` there is a line feed, or the NUL behind the file */
        if (p < end) p++;
    }
}

iso_status iso_words_cut(iso_words *w, iso_error *err)
{
    if (memchr(w->at, 0, (size_t)(w->end - w->at))) return iso_fail(err, ISO_E_FORMAT, "%s: line %zu: a NUL byte: not a text file", w->file, w->line);
    return cut(w, w->at, w->end, err);
}

iso_status iso_words_next(iso_words *w, iso_error *err)
{
    iso_status status;
    w->count = 0;
    do {
        if ((status = iso_words_line(w, err)) || !w->at) break;
        status = iso_words_cut(w, err);
    } while (!status && !w->count);
    return status;
}

void iso_words_end(iso_words *w)
{
    if (w->fd >= 0) close(w->fd);
    free(w->buffer);
    free(w->word);
    *w = (iso_words){.fd = -1};
}

/* ---- names ---- */

static uint64_t hash_of(const char *name, size_t length) { return XXH3_64bits(name, length); }

static bool is_name(const char *held, const char *name, size_t length) { return strncmp(held, name, length) == 0 && !held[length]; }

static uint64_t slot_of(uint64_t hash, size_t number) { return (hash & ~(uint64_t)UINT32_MAX) | (number + 1); }
static size_t number_in(uint64_t slot) { return (size_t)(slot & UINT32_MAX) - 1; }

/* The slot that holds the name, or the free one where it belongs. Names are compared where half of their hashes agree. */
static uint64_t *find_slot(const iso_names *n, uint64_t hash, const char *name, size_t length)
{
    size_t mask = n->slots - 1;
    for (size_t i = (size_t)hash & mask;; i = (i + 1) & mask) {
        uint64_t held = n->slot[i];
        if (!held || ((held ^ hash) >> 32 == 0 && is_name(iso_names_at(n, number_in(held)), name, length))) return &n->slot[i];
    }
}

static iso_status set_slots(iso_names *n, size_t slots, iso_error *err)
{
    uint64_t *slot = iso_calloc(slots, sizeof *slot);
    if (!slot) return iso_fail_memory(err);
    free(n->slot);
    n->slot = slot;
    n->slots = slots;
    for (size_t i = 0; i < n->count; i++) {
        const char *name = iso_names_at(n, i);
        const size_t length = strlen(name);
        uint64_t hash = hash_of(name, length);
        *find_slot(n, hash, name, length) = slot_of(hash, i);
    }
    return ISO_OK;
}

static iso_status grow_slots(iso_names *n, size_t count, iso_error *err)
{
    size_t slots = n->slots ? n->slots : 16;
    if (count >= UINT32_MAX) return iso_fail_memory(err);
    while (slots < 2 * count) slots *= 2;
    return slots > n->slots ? set_slots(n, slots, err) : ISO_OK;
}

iso_status iso_names_reserve(iso_names *n, size_t count, size_t length, iso_error *err)
{
    const bool ok = iso_grow(&n->place, &n->capacity, count, sizeof *n->place) && iso_grow(&n->text, &n->room, count * (length + 1), 1);
    return ok ? ISO_OK : iso_fail_memory(err);
}

static iso_status append(iso_names *n, const char *name, size_t length, iso_error *err)
{
    if (!iso_grow(&n->place, &n->capacity, n->count + 1, sizeof *n->place) || !iso_grow(&n->text, &n->room, n->bytes + length + 1, 1)) return iso_fail_memory(err);
    memcpy(n->text + n->bytes, name, length);
    n->text[n->bytes + length] = 0;
    n->place[n->count++] = n->bytes;
    n->bytes += length + 1;
    return ISO_OK;
}

/* Whether it comes behind the last name. */
static bool in_order(const iso_names *n, const char *name, size_t length)
{
    if (!n->count) return true;
    const char *last = iso_names_at(n, n->count - 1);
    const size_t before = n->bytes - n->place[n->count - 1] - 1;
    const int order = memcmp(last, name, before < length ? before : length);
    return order < 0 || (order == 0 && before < length);
}

iso_status iso_names_add(iso_names *n, const char *name, size_t length, size_t *number, bool *added, iso_error *err)
{
    *added = true;
    *number = n->count;
    if (!n->slots && in_order(n, name, length)) return append(n, name, length, err);
    iso_status status = grow_slots(n, n->count + 1, err);
    if (status) return status;
    uint64_t hash = hash_of(name, length), *slot = find_slot(n, hash, name, length);
    if (*slot) {
        *added = false;
        *number = number_in(*slot);
        return ISO_OK;
    }
    status = append(n, name, length, err);
    if (!status) *slot = slot_of(hash, n->count - 1);
    return status;
}

/* SIZE_MAX: it is not there. */
static size_t find(const iso_names *n, const char *name)
{
    if (n->slots) {
        const size_t length = strlen(name);
        uint64_t held = *find_slot(n, hash_of(name, length), name, length);
        return held ? number_in(held) : SIZE_MAX;
    }
    size_t from = 0, to = n->count;
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        int order = strcmp(iso_names_at(n, middle), name);
        if (order == 0) return middle;
        if (order < 0) from = middle + 1;
        else to = middle;
    }
    return SIZE_MAX;
}

bool iso_names_find(const iso_names *n, const char *path, size_t near, size_t *number)
{
    size_t found = near < n->count && strcmp(iso_names_at(n, near), path) == 0 ? near : find(n, path);
    const char *last = found == SIZE_MAX ? strrchr(path, '/') : NULL;
    if (last) found = near < n->count && strcmp(iso_names_at(n, near), last + 1) == 0 ? near : find(n, last + 1);
    if (found != SIZE_MAX) *number = found;
    return found != SIZE_MAX;
}

void iso_names_free(iso_names *n)
{
    free(n->text);
    free(n->place);
    free(n->slot);
    *n = (iso_names){0};
}
