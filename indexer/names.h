/* names.h: what the readers of CelebA's text files share: lines cut into words, and a table from file name to row. */
#ifndef ISO_NAMES_H
#define ISO_NAMES_H

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"

/* A text file being read line by line. */
typedef struct iso_words {
    const char *file;  /* its path, for messages */
    int fd;
    size_t bytes;      /* of the file; 0: not known */
    char *buffer;      /* [room] what has been read, of which `pos` bytes have been given out */
    size_t room, size, pos;
    bool ended;        /* there is no more to read */
    char *at, *end;    /* the line at hand, NUL-ended, without its line feed; at = NULL behind the last one. Until the next line. */
    size_t line;       /* its number, from 1 */
    char **word;       /* [count] of that line, NUL-ended */
    size_t count, capacity;
} iso_words;

ISO_CHECK iso_status iso_words_begin(iso_words *w, const char *file, iso_error *err);
/* The next line, as it is. */
ISO_CHECK iso_status iso_words_line(iso_words *w, iso_error *err);
/* Cuts the line at hand, which is there, into words. A NUL byte is ISO_E_FORMAT. */
ISO_CHECK iso_status iso_words_cut(iso_words *w, iso_error *err);
/* The next line that is not blank, in words; count = 0 at the end of the file. */
ISO_CHECK iso_status iso_words_next(iso_words *w, iso_error *err);
/* Also after an error. */
void iso_words_end(iso_words *w);

/* Names, numbered 0, 1, ... in the order in which they were added, of which they are copies. As long as that is the
 * order of their bytes, as in CelebA's files, they need no table. */
typedef struct iso_names {
    char *text;        /* [bytes] one behind the other, NUL-ended */
    size_t bytes, room;
    size_t *place;     /* [count] where each begins */
    size_t count, capacity;
    uint64_t *slot;    /* 0: free, else the upper half of its hash, and number + 1 */
    size_t slots;      /* 0: the names are in order; else a power of two, at least 2 * count */
} iso_names;

/* Makes room for so many names in all, of so many bytes each, so that adding them copies nothing about. */
ISO_CHECK iso_status iso_names_reserve(iso_names *n, size_t count, size_t length, iso_error *err);
/* Of `length` bytes, none of them NUL. *number: of the new name, or, when it is there already, of that one (and *added is false). */
ISO_CHECK iso_status iso_names_add(iso_names *n, const char *name, size_t length, size_t *number, bool *added, iso_error *err);
/* A name by its number; until the next is added. */
static inline const char *iso_names_at(const iso_names *n, size_t number) { return n->text + n->place[number]; }
/* By the whole of `path`, else by its last component. near: a number that it may well have, looked at before the others. */
bool iso_names_find(const iso_names *n, const char *path, size_t near, size_t *number);
void iso_names_free(iso_names *n);

#endif
