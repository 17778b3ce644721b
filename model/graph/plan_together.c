/* plan_together.c: runs of small steps, several at once.
 *
 * A step that takes microseconds gains nothing from being cut in two: waking the other threads costs as much. Such steps
 * are done by one thread each, and a run of them by all threads at once, in one parallel region: of the steps all of whose
 * predecessors (plan_order.c) are done, a thread takes the one with the longest way to the end behind it. Results are the same for any
 * number of threads. Steps that are at home with another thread (plan_homes.c) are left to it for a while. */
#include <omp.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "model/graph/plan_internal.h"

enum {
    LONGEST = 4096, /* steps of a run */
    SHORTEST = 4,   /* fewer are not worth a parallel region */
    WORD = 64,
    SPINS = 2000, /* looks for work before a thread lets others have its core */
    PATIENCE = 200, /* looks, of some 20 ns, before it takes what is at home with another one */
    SMALL_BYTES = 4 << 20,
    AHEAD_BYTES = 384 << 10 /* asked for while a step is done: of the second-level cache */
};
static const double small_flops = 48e6; /* 0.3 ms of a core */

struct iso_together {
    int first, count; /* steps of the plan */
    int *waits;       /* [count] how many of them a step waits for */
    int *next_at;     /* [count + 1] those that wait for step i begin in `next` at next_at[i + 1], and end at next_at[i] */
    int *next;        /* steps; not those that wait for another one of these anyway */
    int *urgent;      /* [count] steps, the one with the longest way to the end first */
    int *rank;        /* [count] where a step is in `urgent` */
    range *touched;   /* of step i: [touched_at[i] ... touched_at[i + 1]) */
    int *touched_at;
    int *asked;       /* [count] of these the first are what it reads and whoever does it next may ask for, shorter ones first */
    uint64_t *mine;   /* [threads, words] bits by rank: steps at home with a thread, and those that have no home */
    int words;        /* of so many bits */
    atomic_int *left; /* [count] of this run: predecessors that are not done */
    _Atomic uint64_t ready[LONGEST / WORD], meant[LONGEST / WORD]; /* bits by rank; a thread means to take it next */
};

static size_t tensor_bytes(const iso_tensor *t) { return (size_t)iso_shape_count(&t->shape) * sizeof(float); }

bool iso_together_small_size(size_t bytes, double flops) { return bytes <= SMALL_BYTES && flops <= small_flops; }

bool iso_together_small(iso_op op, const iso_call *call)
{
    size_t bytes = tensor_bytes(&call->out);
    for (int k = 0; k < iso_op_table[op].inputs; k++) bytes += tensor_bytes(&call->in[k]);
    return iso_together_small_size(bytes, iso_op_flops(op, call));
}

bool iso_together_small_fused(int64_t count, int operands)
{
    return count * operands <= SMALL_BYTES / (int64_t)sizeof(float);
}

static uint64_t bit_of(int n) { return (uint64_t)1 << n % WORD; }

/* --- which first */

/* Seconds of each step, about. */
static void find_seconds(const step *s, const iso_together *t, double *seconds)
{
    const double flop = 1 / 100e9, byte = 1 / 20e9;
    for (int i = 0; i < t->count; i++) {
        double bytes = 0;
        for (int r = t->touched_at[i]; r < t->touched_at[i + 1]; r++) bytes += (double)(t->touched[r].to - t->touched[r].from);
        seconds[i] = s[i].flops * flop + bytes * byte;
    }
}

typedef struct way {
    double position;
    double seconds; /* of the longest way from this step to the end */
    int step;
} way;

/* Slices one after the other, each as far as it goes: what a layer gives is in the cache for the next. */
static int more_urgent(const void *a, const void *b)
{
    const way *x = a, *y = b;
    if (x->position != y->position) return x->position < y->position ? -1 : 1;
    if (x->seconds != y->seconds) return x->seconds > y->seconds ? -1 : 1;
    return x->step - y->step;
}

static bool find_urgency(const step *s, iso_together *t, const double *seconds)
{
    way *ways = iso_calloc((size_t)t->count, sizeof *ways);
    if (!ways) return false;
    for (int i = t->count - 1; i >= 0; i--) {
        ways[i].step = i;
        ways[i].position = s[i].position;
        for (int k = t->next_at[i + 1]; k < t->next_at[i]; k++)
            if (ways[i].seconds < ways[t->next[k]].seconds) ways[i].seconds = ways[t->next[k]].seconds;
        ways[i].seconds += seconds[i];
    }
    qsort(ways, (size_t)t->count, sizeof *ways, more_urgent);
    for (int i = 0; i < t->count; i++) {
        t->urgent[i] = ways[i].step;
        t->rank[ways[i].step] = i;
    }
    free(ways);
    return true;
}

/* --- what is asked for beforehand */

/* Whether a range is what a sum's tail reads, which the sum asks for itself. */
static bool is_for_tail(const step *s, const range *r)
{
    for (int i = 0; s->products && s->products->sum && i < s->fused.inputs; i++)
        if ((uintptr_t)s->fused.input[i].data == r->from) return true;
    return false;
}

static int by_length(const void *a, const void *b)
{
    const range *x = a, *y = b;
    const size_t m = x->to - x->from, n = y->to - y->from;
    if (m != n) return m < n ? -1 : 1;
    return x->from < y->from ? -1 : x->from > y->from;
}

static void find_asked(const step *s, iso_together *t)
{
    for (int i = 0; i < t->count; i++) {
        range *of = t->touched + t->touched_at[i];
        int asked = 0;
        for (int r = 0; r < t->touched_at[i + 1] - t->touched_at[i]; r++) {
            if (of[r].write || is_for_tail(&s[i], &of[r])) continue;
            const range read = of[r];
            of[r] = of[asked];
            of[asked++] = read;
        }
        qsort(of, (size_t)asked, sizeof *of, by_length);
        t->asked[i] = asked;
    }
}

/* --- and by whom */

static bool find_mine(const step *s, iso_together *t, const double *seconds, int threads)
{
    int *home = iso_calloc((size_t)t->count, sizeof *home);
    const bool ok = home && iso_homes_find(t->count, s, t->touched, t->touched_at, seconds, threads, home);
    for (int i = 0; ok && i < t->count; i++)
        for (int k = 0; k < threads; k++)
            if (home[i] < 0 || home[i] == k) t->mine[k * t->words + t->rank[i] / WORD] |= bit_of(t->rank[i]);
    free(home);
    return ok;
}

static bool build(const iso_plan *p, iso_together *t, int first, int count)
{
    const step *s = p->step + first;
    int n = 0;
    t->first = first;
    t->count = count;
    t->words = (count + WORD - 1) / WORD;
    t->waits = iso_calloc((size_t)count, sizeof *t->waits);
    t->left = iso_calloc((size_t)count, sizeof *t->left);
    t->next_at = iso_calloc((size_t)count + 1, sizeof *t->next_at);
    t->urgent = iso_calloc((size_t)count, sizeof *t->urgent);
    t->rank = iso_calloc((size_t)count, sizeof *t->rank);
    t->mine = iso_calloc((size_t)p->together_threads, (size_t)t->words * sizeof *t->mine);
    double *seconds = iso_calloc((size_t)count, sizeof *seconds);
    t->asked = iso_calloc((size_t)count, sizeof *t->asked);
    t->touched_at = iso_calloc((size_t)count + 1, sizeof *t->touched_at);
    for (int i = 0; i < count; i++) n += iso_step_ranges(p, s + i, NULL);
    t->touched = iso_calloc((size_t)n, sizeof *t->touched);
    bool ok = t->waits && t->left && t->next_at && t->urgent && t->rank && t->mine && t->asked && t->touched_at && t->touched && seconds;
    for (int i = 0; ok && i < count; i++) t->touched_at[i + 1] = t->touched_at[i] + iso_step_ranges(p, s + i, t->touched + t->touched_at[i]);
    if (ok) find_seconds(s, t, seconds);
    ok = ok && iso_followers_find(t->count, t->touched, t->touched_at, t->waits, t->next_at, &t->next) && find_urgency(s, t, seconds) && find_mine(s, t, seconds, p->together_threads);
    if (ok) find_asked(s, t);
    free(seconds);
    return ok;
}

iso_status iso_together_build(iso_plan *p, iso_error *err)
{
    p->together = iso_calloc((size_t)p->step_count / SHORTEST + 1, sizeof *p->together);
    if (!p->together) return iso_fail_memory(err);
    for (int i = 0; i < p->step_count; i++) {
        int count = 0;
        while (i + count < p->step_count && p->step[i + count].small && count < LONGEST) count++;
        if (count >= SHORTEST && !build(p, &p->together[p->together_count++], i, count)) return iso_fail_memory(err);
        if (count) i += count - 1;
    }
    return ISO_OK;
}

void iso_together_free(iso_plan *p)
{
    for (int i = 0; i < p->together_count; i++) {
        free(p->together[i].waits);
        free(p->together[i].left);
        free(p->together[i].next_at);
        free(p->together[i].next);
        free(p->together[i].urgent);
        free(p->together[i].rank);
        free(p->together[i].mine);
        free(p->together[i].touched);
        free(p->together[i].touched_at);
        free(p->together[i].asked);
    }
    free(p->together);
}

int iso_together_longest(const iso_plan *p)
{
    int sum = 0;
    for (int r = 0; r < p->together_count; r++) {
        const iso_together *t = &p->together[r];
        int *before = iso_calloc((size_t)t->count, sizeof *before), longest = 0;
        if (!before) return -1;
        for (int i = 0; i < t->count; i++) {
            if (longest < before[i] + 1) longest = before[i] + 1;
            for (int k = t->next_at[i + 1]; k < t->next_at[i]; k++)
                if (before[t->next[k]] < before[i] + 1) before[t->next[k]] = before[i] + 1;
        }
        sum += longest;
        free(before);
    }
    return sum;
}

/* --- running */

static void make_ready(iso_together *t, int i)
{
    atomic_fetch_or(&t->ready[t->rank[i] / WORD], bit_of(t->rank[i]));
}

/* Of steps that are ready and among these (NULL: all) the most urgent one, which nobody else then takes; one that another thread means to take only if
 * there is no other. -1: none. */
static int take(iso_together *t, const uint64_t *among)
{
    for (int all = 0; all < 2; all++)
        for (int w = 0; w < t->words; w++) {
            uint64_t bits;
            while ((bits = atomic_load(&t->ready[w]) & (among ? among[w] : ~(uint64_t)0) & (all ? ~(uint64_t)0 : ~atomic_load(&t->meant[w])))) {
                const uint64_t bit = bits & -bits;
                if (atomic_fetch_and(&t->ready[w], ~bit) & bit) return t->urgent[w * WORD + __builtin_ctzll(bit)];
            }
        }
    return -1;
}

static bool is_among(const uint64_t *bits, int rank) { return bits[rank / WORD] & bit_of(rank); }

/* The rank of the step that the calling thread, which is about to do step i, will take next, if all goes on as it looks now: of its own ones that are ready
 * or wait for i alone the most urgent one. From now on it is meant. -1: not known. */
static int intend(iso_together *t, const uint64_t *mine, int i)
{
    int rank = t->count;
    for (int w = 0; rank == t->count && w < t->words; w++) {
        const uint64_t bits = atomic_load(&t->ready[w]) & mine[w] & ~atomic_load(&t->meant[w]);
        if (bits) rank = w * WORD + __builtin_ctzll(bits);
    }
    for (int k = t->next_at[i + 1]; k < t->next_at[i]; k++)
        if (t->rank[t->next[k]] < rank && is_among(mine, t->rank[t->next[k]]) && atomic_load(&t->left[t->next[k]]) == 1) rank = t->rank[t->next[k]];
    if (rank == t->count) return -1;
    return atomic_fetch_or(&t->meant[rank / WORD], bit_of(rank)) & bit_of(rank) ? -1 : rank;
}

/* What step `next` reads and `now` does not write. */
static void look_ahead(const iso_together *t, int now, int next, iso_ahead *a)
{
    const int most = sizeof a->range / sizeof *a->range;
    const range *reads = t->touched + t->touched_at[next], *others = t->touched + t->touched_at[now];
    size_t bytes = 0;
    a->count = 0;
    for (int i = 0; i < t->asked[next] && a->count < most; i++) {
        const size_t length = reads[i].to - reads[i].from;
        if (iso_ranges_clash(&reads[i], 1, others, t->touched_at[now + 1] - t->touched_at[now])) continue;
        bytes += length;
        if (bytes > AHEAD_BYTES) break;
        a->range[a->count].at = (const void *)reads[i].from;
        a->range[a->count++].bytes = length;
    }
}

static void work(const iso_plan *p, iso_together *t, atomic_int *done, void *workspace)
{
    const uint64_t *mine = t->mine + omp_get_thread_num() * t->words;
    int next = -1;
    iso_ahead ahead = {0};
    for (int idle = 0; atomic_load(done) < t->count;) {
        if (next >= 0) atomic_fetch_and(&t->meant[next / WORD], ~bit_of(next));
        next = -1;
        int i = take(t, mine);
        if (i < 0 && idle >= PATIENCE) i = take(t, NULL);
        if (i < 0) {
            if (++idle % SPINS == 0) sched_yield();
            continue;
        }
        idle = 0;
        const step *s = &p->step[t->first + i];
        next = s->products ? intend(t, mine, i) : -1;
        if (next >= 0) look_ahead(t, i, t->urgent[next], &ahead);
        iso_step_run(p, s, workspace, next >= 0 ? &ahead : NULL);
        for (int k = t->next_at[i + 1]; k < t->next_at[i]; k++)
            if (atomic_fetch_sub(&t->left[t->next[k]], 1) == 1) make_ready(t, t->next[k]);
        atomic_fetch_add(done, 1);
    }
}

int iso_together_run(iso_plan *p, int step)
{
    iso_together *t = NULL;
    for (int i = 0; i < p->together_count; i++)
        if (p->together[i].first == step) t = &p->together[i];
    if (!t) return 0;
    atomic_int done = 0;
    memset(t->ready, 0, sizeof t->ready);
    memset(t->meant, 0, sizeof t->meant);
    for (int i = 0; i < t->count; i++) {
        t->left[i] = t->waits[i];
        if (t->waits[i] == 0) make_ready(t, i);
    }
#pragma omp parallel num_threads(p->together_threads)
    work(p, t, &done, (char *)p->together_workspace + (size_t)omp_get_thread_num() * p->together_workspace_each);
    return t->count;
}
