/* sums.c: the sums of the unit training vectors of all query sets.
 *
 * An image with m attributes belongs to m single sets and m (m - 1) / 2 pairs: of CelebA's 9, to 45. Instead of adding it to
 * each of them, attributes are put into levels, the commonest first, and for every level images into groups that agree in its
 * attributes. Within a group every image is added to the group's sum and to one for each attribute of a later level it has; then these few
 * sums, not the images, go to the level's singles and pairs, and to its pairs with later ones. Images that have none of a level's attributes are left
 * out of it. For CelebA an image is then added some eight times, to sums that lie in the first-level cache. Groups are made within blocks of
 * the images, whose vectors are read in their order and then lie in the cache.
 *
 * Threads share the coordinates, not the images: every sum is taken in one order whatever their number. */
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "eval/protocol.h"
#include "model/cpu/cpu.h"

enum { LANES = 8, SLICE_MAX = 8, COMMON_MAX = 10, BLOCK = 16384, AHEAD = 8, LINE = 64 }; /* a slice: at most SLICE_MAX vectors of LANES numbers */

typedef double lanes __attribute__((vector_size(64)));

/* Some attributes, and the images by which of them they have. */
typedef struct level {
    int commons, common[COMMON_MAX];
    uint64_t *rare_bits;     /* [row_words] attributes of later levels */
    int64_t *group;          /* [groups + 1] where each begins in `order`; 2^commons in each block of BLOCK images */
    int64_t *order;          /* [n] training images by group, in their own order within */
} level;

typedef struct plan {
    const iso_protocol *p;
    int32_t *set_of;         /* [count, count] number of the set, or -1; singles on the diagonal, both triangles */
    int used, *attribute;    /* those that are in any set, the commonest first */
    int *back;               /* [count] how many of them come behind it */
    int64_t blocks;
    int levels;
    level *level;
} plan;

static int by_count(const void *x, const void *y)
{
    const int64_t *a = x, *b = y; /* {images, attribute} */
    return a[0] != b[0] ? (a[0] < b[0] ? 1 : -1) : a[1] < b[1] ? -1 : 1;
}

static void number_sets(const iso_protocol *p, int32_t *set_of)
{
    for (size_t i = 0; i < (size_t)p->count * p->count; i++) set_of[i] = -1;
    for (int i = 0; i < p->singles + p->doubles; i++) {
        int a = p->set[i].a, b = p->set[i].b < 0 ? a : p->set[i].b;
        set_of[(size_t)a * p->count + b] = set_of[(size_t)b * p->count + a] = i;
    }
}

/* Lists the attributes that are in any set. */
static iso_status list_used(plan *s, iso_error *err)
{
    const int count = s->p->count;
    int64_t(*list)[2] = iso_calloc((size_t)count, sizeof *list);
    if (!list) return iso_fail_memory(err);
    for (int a = 0; a < count; a++) {
        bool in = false;
        for (int b = 0; b < count; b++) in |= s->set_of[(size_t)a * count + b] >= 0;
        if (in) list[s->used][0] = s->p->both[(size_t)a * count + a], list[s->used++][1] = a;
    }
    qsort(list, (size_t)s->used, sizeof *list, by_count);
    for (int i = 0; i < s->used; i++) {
        s->attribute[i] = (int)list[i][1];
        s->back[list[i][1]] = s->used - 1 - i;
    }
    free(list);
    return ISO_OK;
}

static int64_t group_of(const iso_protocol *p, const level *l, int64_t image)
{
    const uint64_t *bits = p->has.image + image * p->has.row_words;
    int64_t group = 0;
    for (int k = l->commons - 1; k >= 0; k--) group = group << 1 | (int64_t)(bits[l->common[k] / 64] >> (l->common[k] % 64) & 1);
    return (image / BLOCK << l->commons) + group;
}

/* Attributes first ... first+commons-1; false: out of memory. */
static bool level_make(const plan *s, int first, int commons, level *l)
{
    const iso_protocol *p = s->p;
    const int64_t groups = s->blocks << commons;
    int64_t *of = iso_calloc((size_t)p->n, sizeof *of); /* [n] each image's group */
    *l = (level){.commons = commons};
    l->rare_bits = iso_calloc((size_t)p->has.row_words, sizeof *l->rare_bits);
    l->order = iso_calloc((size_t)p->n, sizeof *l->order);
    l->group = iso_calloc((size_t)groups + 2, sizeof *l->group);
    if (!of || !l->rare_bits || !l->order || !l->group) {
        free(of);
        return false;
    }
    for (int k = 0; k < commons; k++) l->common[k] = s->attribute[first + k];
    for (int i = first + commons; i < s->used; i++) l->rare_bits[s->attribute[i] / 64] |= UINT64_C(1) << (s->attribute[i] % 64);
    for (int64_t i = 0; i < p->n; i++) l->group[(of[i] = group_of(p, l, i)) + 2]++;
    for (int64_t g = 2; g < groups + 2; g++) l->group[g] += l->group[g - 1];
    for (int64_t i = 0; i < p->n; i++) l->order[l->group[of[i] + 1]++] = i;
    free(of);
    return true;
}

static iso_status plan_make(plan *s, const iso_protocol *p, iso_error *err)
{
    size_t count = (size_t)p->count;
    bool failed = false;
    *s = (plan){.p = p, .blocks = (p->n - 1) / BLOCK + 1};
    s->set_of = iso_calloc(count, count * sizeof *s->set_of);
    s->attribute = iso_calloc(count, sizeof *s->attribute);
    s->back = iso_calloc(count, sizeof *s->back);
    if (!s->set_of || !s->attribute || !s->back) return iso_fail_memory(err);
    number_sets(p, s->set_of);
    iso_status status = list_used(s, err);
    if (status) return status;
    s->levels = (s->used + COMMON_MAX - 1) / COMMON_MAX;
    s->level = iso_calloc((size_t)s->levels, sizeof *s->level);
    if (!s->level) return iso_fail_memory(err);
#pragma omp parallel for schedule(dynamic) reduction(|| : failed)
    for (int i = 0; i < s->levels; i++) {
        const int first = s->used * i / s->levels;
        failed = !level_make(s, first, s->used * (i + 1) / s->levels - first, &s->level[i]) || failed;
    }
    return failed ? iso_fail_memory(err) : ISO_OK;
}

static void plan_clear(plan *s)
{
    for (int i = 0; s->level && i < s->levels; i++) free(s->level[i].rare_bits), free(s->level[i].group), free(s->level[i].order);
    free(s->set_of), free(s->attribute), free(s->back), free(s->level);
}

/* ---- adding ---- */

/* One slice of the coordinates, as one thread sums it. */
typedef struct slice {
    int from, width, vectors; /* coordinates; vectors of LANES that hold them, zeros behind */
    float *block;             /* [BLOCK, vectors * LANES] of the block at hand, zeros behind the width */
    lanes *w;                 /* [sets, vectors] */
    lanes *rare;              /* [used, vectors] of the group at hand: each rarer attribute's sum, by plan.back */
    lanes *sum;               /* [vectors] the group's */
    lanes **to;               /* [1 + used] what an image is added to */
    uint64_t *touched;        /* [row_words] attributes whose sums in `rare` are not zero */
} slice;

/* Number by number: gcc takes whole `lanes` through the stack where registers are shorter. */
static inline __attribute__((always_inline)) void add(lanes *to, const lanes *x, int vectors)
{
    double *sum = (double *)to;
    const double *more = (const double *)x;
#pragma omp simd
    for (int i = 0; i < vectors * LANES; i++) sum[i] += more[i];
}

/* Copies this slice of a block's vectors. */
static void read_block(const iso_protocol *p, const slice *c, int64_t block)
{
    float *to = c->block;
    for (int64_t i = block * BLOCK; i < p->n && i < (block + 1) * BLOCK; i++, to += c->vectors * LANES) {
        if (i + ISO_VECTORS_AHEAD < p->n) iso_vector_ahead(p->train[i + ISO_VECTORS_AHEAD] + c->from, c->width);
        memcpy(to, p->train[i] + c->from, (size_t)c->width * sizeof *to);
    }
}

static inline __attribute__((always_inline)) const float *in_block(const slice *c, int64_t image) { return c->block + image % BLOCK * c->vectors * LANES; }

/* Asks for what will be read of an image, which lies anywhere in its block. */
static inline __attribute__((always_inline)) void ask_for(const plan *s, const slice *c, int64_t image)
{
    const float *z = in_block(c, image);
    for (int i = 0; i < c->vectors * LANES; i += LINE / (int)sizeof *z) __builtin_prefetch(z + i);
    __builtin_prefetch(s->p->has.image + image * s->p->has.row_words);
    __builtin_prefetch(s->p->inverse + image);
}

/* Lists what an image is added to; their number. */
static inline __attribute__((always_inline)) int targets(const plan *s, const level *l, const slice *c, int64_t image)
{
    const iso_protocol *p = s->p;
    const uint64_t *bits = p->has.image + image * p->has.row_words;
    int n = 0;
    c->to[n++] = c->sum;
    for (int r = 0; r < p->has.row_words; r++) {
        uint64_t left = bits[r] & l->rare_bits[r];
        c->touched[r] |= left;
        for (; left; left &= left - 1) c->to[n++] = c->rare + (size_t)s->back[64 * r + __builtin_ctzll(left)] * c->vectors;
    }
    return n;
}

/* An image's slice, of length 1. Number by number: gcc converts whole `lanes` through the stack where registers are shorter. */
static inline __attribute__((always_inline)) void unit(const plan *s, const slice *c, int64_t image, int vectors, lanes *x)
{
    const float *z = in_block(c, image);
    double *to = (double *)x, inverse = s->p->inverse[image];
    for (int i = 0; i < vectors * LANES; i++) to[i] = inverse * (double)z[i];
}

static inline __attribute__((always_inline)) void add_images(const plan *s, const level *l, const slice *c, int64_t from, int64_t to)
{
    for (int64_t k = from; k < to; k++) {
        lanes x[SLICE_MAX];
        int64_t image = l->order[k];
        if (k + AHEAD < s->p->n) ask_for(s, c, l->order[k + AHEAD]);
        unit(s, c, image, c->vectors, x);
        int n = targets(s, l, c, image);
        for (int i = 0; i < n; i++) add(c->to[i], x, c->vectors);
    }
}

/* The same for whole slices: the image stays in registers. */
static inline __attribute__((always_inline)) void add_images_wide(const plan *s, const level *l, const slice *c, int64_t from, int64_t to)
{
    _Static_assert(SLICE_MAX == 8, "eight variables");
    for (int64_t k = from; k < to; k++) {
        lanes x[SLICE_MAX];
        int64_t image = l->order[k];
        if (k + AHEAD < s->p->n) ask_for(s, c, l->order[k + AHEAD]);
        int n = targets(s, l, c, image);
        unit(s, c, image, SLICE_MAX, x);
        lanes x0 = x[0], x1 = x[1], x2 = x[2], x3 = x[3], x4 = x[4], x5 = x[5], x6 = x[6], x7 = x[7];
        for (int i = 0; i < n; i++) {
            lanes *sum = c->to[i];
            sum[0] += x0, sum[1] += x1, sum[2] += x2, sum[3] += x3, sum[4] += x4, sum[5] += x5, sum[6] += x6, sum[7] += x7;
        }
    }
}

static inline __attribute__((always_inline)) void add_to_set(const plan *s, const slice *c, int a, int b, const lanes *x)
{
    int32_t set = s->set_of[(size_t)a * s->p->count + b];
    if (set >= 0) add(c->w + (size_t)set * c->vectors, x, c->vectors);
}

/* Gives the sums of the group that has these of the level's attributes to the sets, and clears them. */
static inline __attribute__((always_inline)) void end_group(const plan *s, const level *l, const slice *c, int pattern)
{
    int in[COMMON_MAX], ins = 0;
    for (int k = 0; k < l->commons; k++)
        if (pattern >> k & 1) in[ins++] = l->common[k];
    for (int i = 0; i < ins; i++)
        for (int j = i; j < ins; j++) add_to_set(s, c, in[i], in[j], c->sum);
    memset(c->sum, 0, (size_t)c->vectors * sizeof *c->sum);
    for (int r = 0; r < s->p->has.row_words; r++)
        for (; c->touched[r]; c->touched[r] &= c->touched[r] - 1) {
            const int a = 64 * r + __builtin_ctzll(c->touched[r]);
            lanes *x = c->rare + (size_t)s->back[a] * c->vectors;
            for (int i = 0; i < ins; i++) add_to_set(s, c, in[i], a, x);
            memset(x, 0, (size_t)c->vectors * sizeof *x);
        }
}

static inline __attribute__((always_inline)) void add_groups(const plan *s, const level *l, const slice *c, int64_t block)
{
    for (int pattern = 1; pattern < 1 << l->commons; pattern++) {
        const int64_t *group = l->group + (block << l->commons) + pattern;
        if (group[0] == group[1]) continue;
        if (c->vectors == SLICE_MAX) add_images_wide(s, l, c, group[0], group[1]);
        else add_images(s, l, c, group[0], group[1]);
        end_group(s, l, c, pattern);
    }
}

ISO_CLONES static void add_blocks(const plan *s, const slice *c)
{
    for (int64_t block = 0; block < s->blocks; block++) {
        read_block(s->p, c, block);
        for (int i = 0; i < s->levels; i++) add_groups(s, &s->level[i], c, block);
    }
}

/* n * size zeroed bytes, for whole vectors. */
static void *vectors_new(size_t n, size_t size)
{
    size_t bytes = n < SIZE_MAX / 2 / size ? (n * size + 64) / 64 * 64 : 0;
    void *x = bytes ? aligned_alloc(64, bytes) : NULL;
    if (x) memset(x, 0, bytes);
    return x;
}

static bool sum_slice(const plan *s, int from, int width, double *sum)
{
    size_t sets = (size_t)s->p->singles + (size_t)s->p->doubles, used = (size_t)s->used;
    slice c = {.from = from, .width = width, .vectors = (width + LANES - 1) / LANES};
    const size_t block = (size_t)BLOCK * (size_t)c.vectors * LANES * sizeof *c.block;
    c.block = iso_huge_alloc(block);
    c.w = vectors_new(sets * (size_t)c.vectors, sizeof *c.w);
    c.rare = vectors_new(used * (size_t)c.vectors, sizeof *c.rare);
    c.sum = vectors_new((size_t)c.vectors, sizeof *c.sum);
    c.to = iso_calloc(1 + used, sizeof *c.to);
    c.touched = iso_calloc((size_t)s->p->has.row_words, sizeof *c.touched);
    bool ok = c.block && c.w && c.rare && c.sum && c.to && c.touched;
    if (ok) {
        add_blocks(s, &c);
        for (size_t i = 0; i < sets; i++) memcpy(sum + i * (size_t)s->p->dim + from, c.w + i * (size_t)c.vectors, (size_t)width * sizeof *sum);
    }
    iso_huge_free(c.block, block);
    free(c.w), free(c.rare), free(c.sum), free(c.to), free(c.touched);
    return ok;
}

iso_status iso_protocol_sums(const iso_protocol *p, double *sum, iso_error *err)
{
    plan s;
    bool failed = false;
    iso_status status = plan_make(&s, p, err);
    if (status) goto done;
    /* as wide as gives every thread a slice: the attributes are looked at once for each */
    int threads = omp_get_max_threads(), blocks = (p->dim + LANES - 1) / LANES, share = (blocks + threads - 1) / threads;
    int width = LANES * (share < SLICE_MAX ? share : SLICE_MAX);
#pragma omp parallel for schedule(dynamic) reduction(|| : failed)
    for (int from = 0; from < p->dim; from += width)
        failed = !sum_slice(&s, from, p->dim - from < width ? p->dim - from : width, sum) || failed;
    if (failed) status = iso_fail_memory(err);
done:
    plan_clear(&s);
    return status;
}
