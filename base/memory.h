/* memory.h: allocation whose size arithmetic cannot overflow. */
#ifndef ISO_BASE_MEMORY_H
#define ISO_BASE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

/* n * size bytes, zeroed; NULL when that overflows or memory is out. Free with free(). n = 0 gives a valid pointer. */
void *iso_calloc(size_t n, size_t size);

/* Grows *array (of element size `size`) so that it holds at least `need` elements; *capacity follows.
 * On failure returns false and leaves both alone. Growth is geometric. */
bool iso_grow(void *array_pointer, size_t *capacity, size_t need, size_t size);

/* Zeroed memory at a multiple of 2 MiB, in pages of that size where the system has them: for what is large and walked through,
 * or written past the page cache. NULL when memory is out. Free with iso_huge_free and the same size; NULL is allowed. */
#define ISO_HUGE_PAGE ((size_t)2 << 20)
void *iso_huge_alloc(size_t bytes);
void iso_huge_free(void *p, size_t bytes);

/* Of large memory that has not been touched yet the inner part is wished for in pages of 2 MiB, a fault instead of 512 for each; as the
 * functions above do. p may be NULL, and is returned. */
void *iso_wish_huge(void *p, size_t bytes);

/* A copy of n bytes with a NUL behind them. */
char *iso_strndup(const char *s, size_t n);

/* printf into fresh memory; NULL when memory is out. */
char *iso_format(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
