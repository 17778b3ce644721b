/* names.h: what the readers of CelebA's text files share: lines cut into words, and a table from file name to row. */
#ifndef ISO_NAMES_H
#define ISO_NAMES_H

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"

/* A text file being read line by line. Words are NUL-ended within `data`, which must live as long as they are used. */
typedef struct iso_words {
    const char *file;  /* its path, for messages */
    char *data;        /* free() */
    size_t size, pos;
    size_t line;       /* number of the line last read, from 1 */
    char **word;       /* of that line; iso_words_end frees the array */
    size_t count, capacity;
} iso_words;

ISO_CHECK iso_status iso_words_begin(iso_words *w, const char *file, iso_error *err);
/* The next line that is not blank; count = 0 at the end of the file. A NUL byte is ISO_E_FORMAT. */
ISO_CHECK iso_status iso_words_next(iso_words *w, iso_error *err);
/* All but `data`. */
void iso_words_end(iso_words *w);

/* Names, numbered 0, 1, ... in the order in which they were added; the strings stay the caller's. As long as that is the
 * order of their bytes, as in CelebA's files, they need no table. */
typedef struct iso_names {
    const char **name;
    size_t count, capacity;
    uint64_t *slot;    /* 0: free, else the upper half of its hash, and number + 1 */
    size_t slots;      /* 0: the names are in order; else a power of two, at least 2 * count */
} iso_names;

/* Makes room for so many names in all, so that adding them copies nothing about. */
ISO_CHECK iso_status iso_names_reserve(iso_names *n, size_t count, iso_error *err);
/* *number: of the new name, or, when it is there already, of that one (and *added is false). */
ISO_CHECK iso_status iso_names_add(iso_names *n, const char *name, size_t *number, bool *added, iso_error *err);
/* By the whole of `path`, else by its last component. near: a number that it may well have, looked at before the others. */
bool iso_names_find(const iso_names *n, const char *path, size_t near, size_t *number);
void iso_names_free(iso_names *n);

#endif
