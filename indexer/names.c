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

/* The slot that holds the name, or the free one where it belongs. */
static size_t *find_slot(const iso_names *n, const char *name)
{
    size_t mask = n->slots - 1;
    for (size_t i = (size_t)XXH3_64bits(name, strlen(name)) & mask;; i = (i + 1) & mask)
        if (!n->slot[i] || strcmp(n->name[n->slot[i] - 1], name) == 0) return &n->slot[i];
}

static iso_status grow_slots(iso_names *n, iso_error *err)
{
    size_t slots = n->slots ? n->slots * 2 : 16;
    size_t *slot = iso_calloc(slots, sizeof *slot);
    if (!slot) return iso_fail_memory(err);
    free(n->slot);
    n->slot = slot;
    n->slots = slots;
    for (size_t i = 0; i < n->count; i++) *find_slot(n, n->name[i]) = i + 1;
    return ISO_OK;
}

iso_status iso_names_add(iso_names *n, const char *name, size_t *number, bool *added, iso_error *err)
{
    if (2 * (n->count + 1) > n->slots) {
        iso_status status = grow_slots(n, err);
        if (status) return status;
    }
    size_t *slot = find_slot(n, name);
    *added = *slot == 0;
    if (*added) {
        if (!iso_grow(&n->name, &n->capacity, n->count + 1, sizeof *n->name)) return iso_fail_memory(err);
        n->name[n->count++] = name;
        *slot = n->count;
    }
    *number = *slot - 1;
    return ISO_OK;
}

bool iso_names_find(const iso_names *n, const char *path, size_t *number)
{
    if (!n->slots) return false;
    size_t found = *find_slot(n, path);
    const char *last = strrchr(path, '/');
    if (!found && last) found = *find_slot(n, last + 1);
    if (found) *number = found - 1;
    return found != 0;
}

void iso_names_free(iso_names *n)
{
    free(n->name);
    free(n->slot);
    *n = (iso_names){0};
}
