/* plan_homes.c: the thread that a small step is at home with.
 *
 * What one thread has written another one must fetch from its caches, at a tenth of the speed of its own. So steps that hand large tensors on to each other
 * make a cluster, which one thread does, unless it is behind: in a flow that is a network of a coupling, with its weights, their moments, all
 * that is computed by them and their gradients; between the networks only what is as wide as a code goes. Homes are given out in the order in which clusters begin,
 * each to the thread that has least to do so far. Slices are at home by their images. What belongs to no cluster, or to one so large that
 * threads would wait for each other, has no home, and whoever is free does it. */
#include <stdlib.h>

#include "base/memory.h"
#include "model/graph/plan_internal.h"

enum {
    LARGE = 32 << 10, /* bytes of a tensor that joins steps: more than a first-level cache holds */
    HALF = 2          /* a cluster is at most this part of what a thread has to do */
};

static int cluster_of(int *joined, int i)
{
    while (joined[i] != i) i = joined[i] = joined[joined[i]];
    return i;
}

/* A range, and the step that touches it. */
typedef struct touch {
    const range *of;
    int step;
} touch;

static int by_address(const void *a, const void *b)
{
    const touch *x = a, *y = b;
    if (x->of->from != y->of->from) return x->of->from < y->of->from ? -1 : 1;
    return x->step - y->step;
}

static bool large(const range *r) { return r->to - r->from >= LARGE; }

/* Joins the steps of touch[0 ... count), which begin at one address, in their order. A step that writes without reading gives the bytes to another tensor,
 * and what nobody writes is with every thread. */
static void join_at(const touch *touch, int count, int *joined)
{
    int last = -1;
    bool written = false;
    for (int i = 0; i < count; i++) written |= touch[i].of->write;
    for (int i = 0, same; written && i < count; i += same) {
        bool reads = false, is_large = false;
        for (same = 0; i + same < count && touch[i + same].step == touch[i].step; same++) {
            reads |= !touch[i + same].of->write;
            is_large |= large(touch[i + same].of);
        }
        if (!is_large) continue;
        if (reads && last >= 0) joined[cluster_of(joined, touch[i].step)] = cluster_of(joined, last);
        last = touch[i].step;
    }
}

static void give_homes(int count, const step *s, const double *seconds, int threads, int *joined, double *work, double *load, int *home)
{
    double total = 0;
    for (int i = 0; i < count; i++) {
        work[cluster_of(joined, i)] += seconds[i];
        total += seconds[i];
        home[i] = -1;
    }
    for (int i = 0; i < count; i++) {
        const int c = cluster_of(joined, i);
        int least = 0;
        if (home[c] < 0 && work[c] > seconds[i] && work[c] * threads * HALF <= total) { /* the first step of a cluster that has several */
            for (int t = 1; t < threads; t++)
                if (load[t] < load[least]) least = t;
            home[c] = least;
            load[least] += work[c];
        }
        home[i] = home[c];
    }
    for (int i = 0; i < count; i++)
        if (s[i].images > 0) home[i] = (int)((s[i].position + s[i].images / 2) * threads);
}

bool iso_homes_find(int count, const step *s, const range *list, const int *at, const double *seconds, int threads, int *home)
{
    int n = 0;
    touch *touches = iso_calloc((size_t)at[count], sizeof *touches);
    int *joined = iso_calloc((size_t)count, sizeof *joined);
    double *work = iso_calloc((size_t)count, sizeof *work), *load = iso_calloc((size_t)threads, sizeof *load);
    const bool ok = touches && joined && work && load;
    for (int i = 0; ok && i < count; i++) {
        joined[i] = i;
        for (int r = at[i]; s[i].images == 0 && r < at[i + 1]; r++) touches[n++] = (touch){list + r, i};
    }
    if (ok) qsort(touches, (size_t)n, sizeof *touches, by_address);
    for (int i = 0, same; ok && i < n; i += same) {
        for (same = 1; i + same < n && touches[i + same].of->from == touches[i].of->from;) same++;
        join_at(touches + i, same, joined);
    }
    if (ok) give_homes(count, s, seconds, threads, joined, work, load, home);
    free(touches), free(joined), free(work), free(load);
    return ok;
}
