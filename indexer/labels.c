/* labels.c: the attributes of a set's images, row for row. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "indexer/dataset.h"

/* The attributes' names, one space between them; NULL: out of memory. */
static char *join_names(const iso_attributes *a)
{
    size_t size = 1, used = 0;
    int n = iso_attributes_count(a);
    for (int i = 0; i < n; i++) size += strlen(iso_attributes_name(a, i)) + 1;
    char *text = iso_calloc(size, 1);
    for (int i = 0; text && i < n; i++) {
        size_t length = strlen(iso_attributes_name(a, i));
        if (i) text[used++] = ' ';
        memcpy(text + used, iso_attributes_name(a, i), length);
        used += length;
    }
    return text;
}

iso_status iso_labels_make(const iso_dataset *d, const iso_attributes *a, iso_labels *out, iso_error *err)
{
    iso_labels l = {.classes = iso_attributes_count(a)};
    size_t count = (size_t)d->count, classes = (size_t)l.classes;
    l.names = join_names(a);
    l.row = iso_calloc(count, classes);
    l.listed = iso_calloc(count, sizeof *l.listed);
    if (!l.names || !l.row || !l.listed) {
        iso_labels_free(&l);
        return iso_fail_memory(err);
    }
    for (size_t i = 0; i < count; i++) {
        const uint8_t *row = iso_attributes_find(a, d->path[i]);
        l.listed[i] = row != NULL;
        if (row) memcpy(l.row + i * classes, row, classes);
    }
    *out = l;
    return ISO_OK;
}

void iso_labels_free(iso_labels *l)
{
    free(l->names);
    free(l->row);
    free(l->listed);
    *l = (iso_labels){0};
}
