#include "base/memory.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

void *iso_wish_huge(void *p, size_t bytes)
{
#ifdef MADV_HUGEPAGE
    if (!p || bytes < 2 * ISO_HUGE_PAGE) return p;
    const size_t before = (ISO_HUGE_PAGE - (uintptr_t)p % ISO_HUGE_PAGE) % ISO_HUGE_PAGE;
    (void)madvise((char *)p + before, (bytes - before) / ISO_HUGE_PAGE * ISO_HUGE_PAGE, MADV_HUGEPAGE);
#endif
    return p;
}

void *iso_calloc(size_t n, size_t size)
{
    if (n == 0 || size == 0) return calloc(1, 1);
    if (n > PTRDIFF_MAX / size) return NULL;
    return iso_wish_huge(calloc(n, size), n * size);
}

bool iso_grow(void *array_pointer, size_t *capacity, size_t need, size_t size)
{
    if (need <= *capacity) return true;
    size_t limit = size ? PTRDIFF_MAX / size : PTRDIFF_MAX;
    if (need > limit) return false;
    size_t grown = *capacity < limit / 2 ? *capacity * 2 : limit;
    if (grown < need) grown = need;
    if (grown < 8 && limit >= 8) grown = 8;
    /* The caller's pointer has its own type: copied bytewise, as void ** would alias it. */
    void *old, *fresh;
    memcpy(&old, array_pointer, sizeof old);
    fresh = iso_wish_huge(realloc(old, grown * (size ? size : 1)), grown * (size ? size : 1));
    if (!fresh) return false;
    memcpy(array_pointer, &fresh, sizeof fresh);
    *capacity = grown;
    return true;
}

static size_t huge_size(size_t bytes)
{
    return (bytes + ISO_HUGE_PAGE - 1) / ISO_HUGE_PAGE * ISO_HUGE_PAGE;
}

void *iso_huge_alloc(size_t bytes)
{
    if (bytes > PTRDIFF_MAX) return NULL;
    const size_t size = huge_size(bytes ? bytes : 1), room = size + ISO_HUGE_PAGE;
    char *base = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return NULL;
    size_t before = (ISO_HUGE_PAGE - (uintptr_t)base % ISO_HUGE_PAGE) % ISO_HUGE_PAGE;
    char *p = base + before;
    if (before) munmap(base, before);
    munmap(p + size, ISO_HUGE_PAGE - before);
#ifdef MADV_HUGEPAGE
    (void)madvise(p, size, MADV_HUGEPAGE); /* only a wish */
#endif
    return p;
}

void iso_huge_free(void *p, size_t bytes)
{
    if (p) munmap(p, huge_size(bytes ? bytes : 1));
}

char *iso_strndup(const char *s, size_t n)
{
    if (n >= PTRDIFF_MAX) return NULL;
    char *copy = malloc(n + 1);
    if (!copy) return NULL;
    if (n) memcpy(copy, s, n);
    copy[n] = '\0';
    return copy;
}

char *iso_format(const char *fmt, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, fmt);
    int n = vasprintf(&text, fmt, args);
    va_end(args);
    return n < 0 ? NULL : text;
}
