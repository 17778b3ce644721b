/* arena.c: lays slots with lifetimes into one arena, largest first, each at the lowest offset that is free while it lives.
 * Greedy by size comes close to the optimum on networks (Pisarchyk & Lee 2020). */
#include <stdlib.h>

#include "model/graph/plan_internal.h"

#define ALIGN ((size_t)64)

static size_t rounded(size_t n) { return (n + ALIGN - 1) & ~(ALIGN - 1); }

static int by_size(const void *a, const void *b, void *context)
{
    const slot *s = context;
    int i = *(const int *)a, k = *(const int *)b;
    if (s[i].bytes != s[k].bytes) return s[i].bytes < s[k].bytes ? 1 : -1;
    return i - k;
}

/* The lowest offset for slot i beside those of placed[0 ... n), which are sorted by offset. */
static size_t lowest(const slot *s, int i, const int *placed, int n)
{
    size_t at = 0, want = rounded(s[i].bytes);
    for (int k = 0; k < n; k++) {
        const slot *o = &s[placed[k]];
        if (o->to < s[i].from || s[i].to < o->from) continue;
        if (o->offset >= at + want) break;
        size_t end = o->offset + rounded(o->bytes);
        if (end > at) at = end;
    }
    return at;
}

size_t iso_slots_place(int count, slot *s, int *scratch)
{
    int *order = scratch, *placed = scratch + count;
    size_t size = 0;
    for (int i = 0; i < count; i++) order[i] = i;
    qsort_r(order, (size_t)count, sizeof *order, by_size, s);
    for (int n = 0; n < count; n++) {
        int i = order[n], k = n;
        s[i].offset = lowest(s, i, placed, n);
        while (k > 0 && s[placed[k - 1]].offset > s[i].offset) {
            placed[k] = placed[k - 1];
            k--;
        }
        placed[k] = i;
        size_t end = s[i].offset + rounded(s[i].bytes);
        if (end > size) size = end;
    }
    return size;
}
