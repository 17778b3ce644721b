/* names.c: see names.h. */
#include "indexer/names.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/file.h"
#include "base/memory.h"

#define MAX_TEXT ((size_t)1 << 30)

iso_status iso_words_begin(iso_words *w, const char *file, iso_error *err)
{
    iso_words fresh = {.file = file};
    iso_status status = iso_file_read(file, MAX_TEXT, &fresh.data, &fresh.size, err);
    if (status) return status;
    if (fresh.size >= 3 && memcmp(fresh.data, "\xEF\xBB\xBF", 3) == 0) fresh.pos = 3; /* a byte order mark */
    *w = fresh;
    return ISO_OK;
}

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

iso_status iso_words_next(iso_words *w, iso_error *err)
{
    w->count = 0;
    while (w->pos < w->size && w->count == 0) {
        char *line = w->data + w->pos, *end = memchr(line, '\n', w->size - w->pos);
        if (!end) end = w->data + w->size;
        w->pos = (size_t)(end - w->data) + 1;
        w->line++;
        if (memchr(line, 0, (size_t)(end - line))) return iso_fail(err, ISO_E_FORMAT, "%s: line %zu: a NUL byte: not a text file", w->file, w->line);
        iso_status status = cut(w, line, end, err);
        if (status) return status;
    }
    return ISO_OK;
}

void iso_words_end(iso_words *w)
{
    free(w->word);
    w->word = NULL;
    w->count = w->capacity = 0;
}

static uint64_t hash_of(const char *name) { return XXH3_64bits(name, strlen(name)); }

static uint64_t slot_of(uint64_t hash, size_t number) { return (hash & ~(uint64_t)UINT32_MAX) | (number + 1); }
static size_t number_in(uint64_t slot) { return (size_t)(slot & UINT32_MAX) - 1; }

/* The slot that holds the name, or the free one where it belongs. Names are compared where half of their hashes agree. */
static uint64_t *find_slot(const iso_names *n, uint64_t hash, const char *name)
{
    size_t mask = n->slots - 1;
    for (size_t i = (size_t)hash & mask;; i = (i + 1) & mask) {
        uint64_t held = n->slot[i];
        if (!held || ((held ^ hash) >> 32 == 0 && strcmp(n->name[number_in(held)], name) == 0)) return &n->slot[i];
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
        uint64_t hash = hash_of(n->name[i]);
        *find_slot(n, hash, n->name[i]) = slot_of(hash, i);
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

iso_status iso_names_reserve(iso_names *n, size_t count, iso_error *err)
{
    return iso_grow(&n->name, &n->capacity, count, sizeof *n->name) ? ISO_OK : iso_fail_memory(err);
}

static iso_status append(iso_names *n, const char *name, iso_error *err)
{
    if (!iso_grow(&n->name, &n->capacity, n->count + 1, sizeof *n->name)) return iso_fail_memory(err);
    n->name[n->count++] = name;
    return ISO_OK;
}

iso_status iso_names_add(iso_names *n, const char *name, size_t *number, bool *added, iso_error *err)
{
    *added = true;
    *number = n->count;
    if (!n->slots && (!n->count || strcmp(n->name[n->count - 1], name) < 0)) return append(n, name, err);
    iso_status status = grow_slots(n, n->count + 1, err);
    if (status) return status;
    uint64_t hash = hash_of(name), *slot = find_slot(n, hash, name);
    if (*slot) {
        *added = false;
        *number = number_in(*slot);
        return ISO_OK;
    }
    status = append(n, name, err);
    if (!status) *slot = slot_of(hash, n->count - 1);
    return status;
}

/* SIZE_MAX: it is not there. */
static size_t find(const iso_names *n, const char *name)
{
    if (n->slots) {
        uint64_t held = *find_slot(n, hash_of(name), name);
        return held ? number_in(held) : SIZE_MAX;
    }
    size_t from = 0, to = n->count;
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        int order = strcmp(n->name[middle], name);
        if (order == 0) return middle;
        if (order < 0) from = middle + 1;
        else to = middle;
    }
    return SIZE_MAX;
}

bool iso_names_find(const iso_names *n, const char *path, size_t near, size_t *number)
{
    size_t found = near < n->count && strcmp(n->name[near], path) == 0 ? near : find(n, path);
    const char *last = found == SIZE_MAX ? strrchr(path, '/') : NULL;
    if (last) found = near < n->count && strcmp(n->name[near], last + 1) == 0 ? near : find(n, last + 1);
    if (found != SIZE_MAX) *number = found;
    return found != SIZE_MAX;
}

void iso_names_free(iso_names *n)
{
    free(n->name);
    free(n->slot);
    *n = (iso_names){0};
}
