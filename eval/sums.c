/* sums.c: the sums of the unit training vectors of all query sets.
 *
 * An image with m attributes belongs to m single sets and m (m - 1) / 2 pairs: of CelebA's 9, to 45. Instead of adding it to
 * each of them, attributes are put into levels, the commonest first, and for every level images into groups that agree in its
 * attributes. Within a group every image is added to the group's sum and to one for each attribute of a later level it has; then these few
 * sums, not the images, go to the level's singles and pairs, and to its pairs with later ones. Images that have none of a level's attributes are left
 * out of it. For CelebA an image is then added some eight times, to sums that lie in the first-level cache. Groups are made within blocks of
 * the images, whose vectors are read in their order and then lie in the cache.
 *
 * Threads share the images while they read them, and the coordinates while they add: every sum is taken in one order whatever their number. */
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/clones.h"
#include "base/isa.h"
#include "base/memory.h"
#include "eval/protocol.h"

enum { LANES = 8, SLICE_MAX = 8, COMMON_MAX = 10, BLOCK = 16384, AHEAD = 8, LINE = 64 }; /* a slice: at most SLICE_MAX vectors of LANES numbers */

typedef double lanes __attribute__((vector_size(64)));
typedef float floats __attribute__((vector_size(32), aligned(4)));

_Static_assert(BLOCK <= UINT16_MAX + 1 && COMMON_MAX <= 16, "16 bits for an image of a block, and for a group");

/* What a byte of an image's attributes says of a level's: bit k for its attribute k. */
typedef struct said {
    int byte;
    uint16_t pattern[256];
} said;

/* Some attributes, and the images by which of them they have. */
typedef struct level {
    int commons, common[COMMON_MAX];
    int saids;
    said *said;              /* [saids] all that say anything */
    uint64_t *rare_bits;     /* [row_words] attributes of later levels that make a set with one of these */
    int64_t *group;          /* [groups + 1] where each begins in `order`; 2^commons in each block of BLOCK images */
    uint16_t *order;         /* [n] training images, counted from their block's first, by group, in their own order within */
} level;

typedef struct plan {
    const iso_protocol *p;
    int sets;
    int32_t *set_of;         /* [count, count] number of the set, or -1; singles on the diagonal, both triangles */
    int used, *attribute;    /* those that are in any set, the commonest first */
    int64_t blocks;
    int levels;
    level *level;
} plan;

static int by_count(const void *x, const void *y)
{
    const int64_t *a = x, *b = y; /* {images, attribute} */
    return a[0] != b[0] ? (a[0] < b[0] ? 1 : -1) : a[1] < b[1] ? -1 : 1;
}

static void number_sets(const iso_protocol *p, const iso_query_set *set, int sets, int32_t *set_of)
{
    for (size_t i = 0; i < (size_t)p->count * p->count; i++) set_of[i] = -1;
    for (int i = 0; i < sets; i++) {
        int a = set[i].a, b = set[i].b < 0 ? a : set[i].b;
        set_of[(size_t)a * p->count + b] = set_of[(size_t)b * p->count + a] = i;
    }
}

/* Whether an attribute makes a set with any of the level's. */
static bool pairs_with(const plan *s, const level *l, int b)
{
    for (int k = 0; k < l->commons; k++)
        if (s->set_of[(size_t)b * s->p->count + l->common[k]] >= 0) return true;
    return false;
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
    for (int i = 0; i < s->used; i++) s->attribute[i] = (int)list[i][1];
    free(list);
    return ISO_OK;
}

/* Attributes first ... first+commons-1; false: out of memory. */
static bool level_make(const plan *s, int first, int commons, level *l)
{
    const iso_protocol *p = s->p;
    const int64_t groups = s->blocks << commons;
    *l = (level){.commons = commons};
    l->said = iso_calloc((size_t)commons, sizeof *l->said);
    l->rare_bits = iso_calloc((size_t)p->has.row_words, sizeof *l->rare_bits);
    l->order = iso_calloc((size_t)p->n, sizeof *l->order);
    l->group = iso_calloc((size_t)groups + 1, sizeof *l->group);
    if (!l->said || !l->rare_bits || !l->order || !l->group) return false;
    l->group[groups] = p->n;
    for (int k = 0; k < commons; k++) {
        const int a = l->common[k] = s->attribute[first + k];
        int i = 0;
        while (i < l->saids && l->said[i].byte != a / 8) i++;
        if (i == l->saids) l->said[l->saids++].byte = a / 8;
        for (int v = 0; v < 256; v++) l->said[i].pattern[v] |= (uint16_t)((v >> a % 8 & 1) << k);
    }
    for (int i = first + commons; i < s->used; i++)
        if (pairs_with(s, l, s->attribute[i])) l->rare_bits[s->attribute[i] / 64] |= UINT64_C(1) << (s->attribute[i] % 64);
    return true;
}

static int pattern_of(const level *l, const uint64_t *bits)
{
    int pattern = 0;
    for (int i = 0; i < l->saids; i++) pattern |= l->said[i].pattern[bits[l->said[i].byte / 8] >> 8 * (l->said[i].byte % 8) & 255];
    return pattern;
}

/* Puts a block's images in order. */
static void level_sort(const plan *s, const level *l, int64_t block)
{
    const iso_protocol *p = s->p;
    const int64_t from = block * BLOCK, n = p->n - from < BLOCK ? p->n - from : BLOCK;
    int64_t *group = l->group + (block << l->commons), at = from;
    uint16_t of[BLOCK];
    int next[1 << COMMON_MAX] = {0};
    for (int64_t i = 0; i < n; i++) next[of[i] = (uint16_t)pattern_of(l, p->has.image + (from + i) * p->has.row_words)]++;
    for (int g = 0; g < 1 << l->commons; g++) {
        group[g] = at;
        at += next[g];
        next[g] = (int)(group[g] - from);
    }
    for (int64_t i = 0; i < n; i++) l->order[from + next[of[i]]++] = (uint16_t)i;
}

static iso_status plan_make(plan *s, const iso_protocol *p, int first_set, int sets, iso_error *err)
{
    size_t count = (size_t)p->count;
    *s = (plan){.p = p, .sets = sets, .blocks = (p->n - 1) / BLOCK + 1};
    s->set_of = iso_calloc(count, count * sizeof *s->set_of);
    s->attribute = iso_calloc(count, sizeof *s->attribute);
    if (!s->set_of || !s->attribute) return iso_fail_memory(err);
    number_sets(p, p->set + first_set, sets, s->set_of);
    iso_status status = list_used(s, err);
    if (status) return status;
    s->levels = (s->used + COMMON_MAX - 1) / COMMON_MAX;
    s->level = iso_calloc((size_t)s->levels, sizeof *s->level);
    if (!s->level) return iso_fail_memory(err);
    for (int i = 0; i < s->levels; i++) {
        const int first = s->used * i / s->levels;
        if (!level_make(s, first, s->used * (i + 1) / s->levels - first, &s->level[i])) return iso_fail_memory(err);
    }
#pragma omp parallel for schedule(dynamic)
    for (int64_t i = 0; i < s->levels * s->blocks; i++) level_sort(s, &s->level[i % s->levels], i / s->levels);
    return ISO_OK;
}

static void plan_clear(plan *s)
{
    for (int i = 0; s->level && i < s->levels; i++) free(s->level[i].said), free(s->level[i].rare_bits), free(s->level[i].group), free(s->level[i].order);
    free(s->set_of), free(s->attribute), free(s->level);
}

/* ---- adding ---- */

/* One slice of the coordinates, as one thread sums it. */
typedef struct slice {
    int from, width, vectors; /* coordinates; vectors of LANES that hold them, zeros behind */
    float *block;             /* [BLOCK, vectors * LANES] of the block at hand, zeros behind the width */
    lanes *w;                 /* [sets, vectors] */
    lanes *rare;              /* [count, vectors] of the group at hand: each rarer attribute's sum */
    lanes *sum;               /* [vectors] the group's */
    uint64_t *touched;        /* [row_words] attributes whose sums in `rare` are not zero */
} slice;

typedef struct adding {
    const plan *plan;
    int slices;
    slice *slice;             /* [slices] those at hand */
    bool measured;            /* all images' lengths are known */
    double *inverse;          /* [n] 1 / length of the images read so far */
    int64_t bad;              /* the first image that has no direction; n: none */
} adding;

static inline __attribute__((always_inline)) float *in_block(const slice *c, int64_t image) { return c->block + (uint64_t)image % BLOCK * (uint64_t)c->vectors * LANES; }

/* Copies an image's vector to the slices' blocks. */
static void read_image(adding *a, int64_t image, int64_t end)
{
    const iso_protocol *p = a->plan->p;
    if (image + ISO_VECTORS_AHEAD < end) iso_vector_ahead(p->train[image + ISO_VECTORS_AHEAD], p->dim);
    if (!a->measured) a->inverse[image] = iso_vector_inverse(p->dim, p->train[image]);
    for (int i = 0; i < a->slices; i++) memcpy(in_block(&a->slice[i], image), p->train[image] + a->slice[i].from, (size_t)a->slice[i].width * sizeof(float));
    if (a->inverse[image] > 0) return;
#pragma omp critical(iso_sums_bad)
    if (image < a->bad) a->bad = image;
}

static inline __attribute__((always_inline)) void add(lanes *to, const lanes *x, int vectors)
{
    double *sum = (double *)to; /* number by number: gcc takes whole `lanes` through the stack where no register holds them */
    const double *more = (const double *)x;
#pragma omp simd
    for (int i = 0; i < vectors * LANES; i++) sum[i] += more[i];
}

/* Where registers hold `lanes`, SLICE_MAX named ones stay in them. */
_Static_assert(SLICE_MAX == 8, "eight variables");
#define EACH_LANES(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#define ZERO(i) lanes s##i = {0};
#define HOLD(i) const lanes x##i = x[i];
#define READ(i) lanes x##i; widen(z + i, &x##i); x##i *= inverse; s##i += x##i;
#define ADD(i) sum[i] += x##i;
#define SAVE(i) c->sum[i] = s##i;

/* gcc 12 makes of this conversion two of half the width. Unoptimised it keeps the wide branch of functions for other processors, too, which lack the
 * registers. */
static inline __attribute__((always_inline)) void widen(const floats *x, lanes *y)
{
#if defined __x86_64__ && defined __OPTIMIZE__
    __asm__("vcvtps2pd %1, %0" : "=v"(*y) : "m"(*x));
#else
    *y = __builtin_convertvector(*x, lanes);
#endif
}

/* The image at a place of the order. */
static inline __attribute__((always_inline)) int64_t ordered(const level *l, int64_t k) { return (k & -(int64_t)BLOCK) + l->order[k]; }

/* Asks for what will be read of the image at a place, which lies anywhere in its block. */
static inline __attribute__((always_inline)) void ask_for(const adding *a, const level *l, const slice *c, int vectors, int64_t k)
{
    if (k >= a->plan->p->n) return;
    const int64_t image = ordered(l, k);
    const float *z = in_block(c, image);
#pragma GCC unroll 8
    for (int i = 0; i < vectors * LANES; i += LINE / (int)sizeof *z) __builtin_prefetch(z + i);
    __builtin_prefetch(a->plan->p->has.image + image * a->plan->p->has.row_words);
    __builtin_prefetch(a->inverse + image);
}

/* Adds to the sums of the rarer attributes that an image has: for each of these, SUM is its sum. */
#define EACH_RARE(SUM, ...)                                                                              \
    for (int r = 0; r < row_words; r++) {                                                                \
        uint64_t left = has[image * row_words + r] & l->rare_bits[r];                                    \
        c->touched[r] |= left;                                                                           \
        for (; left; left &= left - 1) {                                                                 \
            lanes *SUM = c->rare + (size_t)(64 * r + __builtin_ctzll(left)) * (size_t)vectors;           \
            __VA_ARGS__;                                                                                 \
        }                                                                                                \
    }

/* The images of a group. */
static inline __attribute__((always_inline)) void add_images(const adding *a, const level *l, const slice *c, int vectors, int64_t from, int64_t to, bool wide)
{
    const int row_words = a->plan->p->has.row_words;
    const uint64_t *has = a->plan->p->has.image;
    EACH_LANES(ZERO)
    for (int64_t k = from; k < to; k++) {
        const int64_t image = ordered(l, k);
        const double inverse = a->inverse[image];
        ask_for(a, l, c, vectors, k + AHEAD);
        if (wide) {
            const floats *z = (const floats *)in_block(c, image);
            EACH_LANES(READ)
            EACH_RARE(sum, EACH_LANES(ADD))
        } else {
            const float *z = in_block(c, image);
            lanes x[SLICE_MAX];
            for (int i = 0; i < vectors * LANES; i++) ((double *)x)[i] = inverse * (double)z[i];
            add(c->sum, x, vectors);
            EACH_RARE(sum, add(sum, x, vectors))
        }
    }
    if (wide) {
        EACH_LANES(SAVE)
    }
}

/* For each pair of b with the first attributes of a list that is a set, SUM is its sum. */
#define EACH_SET(SUM, ...)                                                             \
    for (int i = 0; i < many; i++) {                                                   \
        const int32_t set = s->set_of[(size_t)list[i] * s->p->count + b];              \
        if (set < 0) continue;                                                         \
        lanes *SUM = c->w + (size_t)set * (size_t)vectors;                             \
        __VA_ARGS__;                                                                   \
    }

/* Adds x, the sum of images that have attribute b, to these pairs. */
static inline __attribute__((always_inline)) void give(const plan *s, const slice *c, int vectors, const lanes *x, int b, int many, const int *list, bool wide)
{
    if (wide) {
        EACH_LANES(HOLD)
        EACH_SET(sum, EACH_LANES(ADD))
    } else {
        EACH_SET(sum, add(sum, x, vectors))
    }
}

/* Gives the sums of the group that has these of the level's attributes to the sets, and clears them. */
static inline __attribute__((always_inline)) void end_group(const plan *s, const level *l, const slice *c, int vectors, int pattern, bool wide)
{
    int in[COMMON_MAX], ins = 0;
    for (int k = 0; k < l->commons; k++)
        if (pattern >> k & 1) in[ins++] = l->common[k];
    for (int i = 0; i < ins; i++) give(s, c, vectors, c->sum, in[i], i + 1, in, wide);
    memset(c->sum, 0, (size_t)vectors * sizeof *c->sum);
    for (int r = 0; r < s->p->has.row_words; r++)
        for (; c->touched[r]; c->touched[r] &= c->touched[r] - 1) {
            const int b = 64 * r + __builtin_ctzll(c->touched[r]);
            lanes *x = c->rare + (size_t)b * (size_t)vectors;
            give(s, c, vectors, x, b, ins, in, wide);
            memset(x, 0, (size_t)vectors * sizeof *x);
        }
}

static inline __attribute__((always_inline)) void add_groups(const adding *a, const slice *c, int64_t block, int vectors, bool wide)
{
    for (int i = 0; i < a->plan->levels; i++) {
        const level *l = &a->plan->level[i];
        for (int pattern = 1; pattern < 1 << l->commons; pattern++) {
            const int64_t *group = l->group + (block << l->commons) + pattern;
            if (group[0] == group[1]) continue;
            add_images(a, l, c, vectors, group[0], group[1], wide);
            end_group(a->plan, l, c, vectors, pattern, wide);
        }
    }
}

ISO_CLONES static void add_block(const adding *a, const slice *c, int64_t block)
{
    if (c->vectors == SLICE_MAX) add_groups(a, c, block, SLICE_MAX, false); /* the compiler then knows how many */
    else add_groups(a, c, block, c->vectors, false);
}

#ifdef __x86_64__
__attribute__((target("avx512f"))) static void add_block_wide(const adding *a, const slice *c, int64_t block) { add_groups(a, c, block, SLICE_MAX, true); }
#else
#define add_block_wide add_block
#endif

/* All images for the slices at hand. */
static void add_all(adding *a)
{
    const int64_t n = a->plan->p->n;
    const bool wide = iso_isa_has(ISO_ISA_AVX512F);
#pragma omp parallel
    for (int64_t block = 0; block < a->plan->blocks; block++) {
        const int64_t end = n < (block + 1) * BLOCK ? n : (block + 1) * BLOCK;
#pragma omp for schedule(static)
        for (int64_t image = block * BLOCK; image < end; image++) read_image(a, image, n);
#pragma omp for schedule(static)
        for (int i = 0; i < a->slices; i++) {
            if (wide && a->slice[i].vectors == SLICE_MAX) add_block_wide(a, &a->slice[i], block);
            else add_block(a, &a->slice[i], block);
        }
    }
    a->measured = true;
}

/* n * size zeroed bytes, for whole vectors. */
static void *vectors_new(size_t n, size_t size)
{
    size_t bytes = n < SIZE_MAX / 2 / size ? (n * size + 64) / 64 * 64 : 0;
    void *x = bytes ? aligned_alloc(64, bytes) : NULL;
    if (x) memset(x, 0, bytes);
    return x;
}

static size_t block_bytes(const slice *c) { return (size_t)BLOCK * (size_t)c->vectors * LANES * sizeof *c->block; }

/* false: out of memory. */
static bool slice_begin(const plan *s, int from, int width, slice *c)
{
    size_t sets = (size_t)s->sets, count = (size_t)s->p->count;
    *c = (slice){.from = from, .width = width, .vectors = (width + LANES - 1) / LANES};
    c->block = iso_huge_alloc(block_bytes(c));
    c->w = vectors_new(sets * (size_t)c->vectors, sizeof *c->w);
    c->rare = vectors_new(count * (size_t)c->vectors, sizeof *c->rare);
    c->sum = vectors_new((size_t)c->vectors, sizeof *c->sum);
    c->touched = iso_calloc((size_t)s->p->has.row_words, sizeof *c->touched);
    return c->block && c->w && c->rare && c->sum && c->touched;
}

static void slice_end(const slice *c)
{
    iso_huge_free(c->block, block_bytes(c));
    free(c->w), free(c->rare), free(c->sum), free(c->touched);
}

/* `slices` slices from a coordinate on. */
static iso_status sum_slices(adding *a, int from, int width, double *sum, iso_error *err)
{
    const iso_protocol *p = a->plan->p;
    bool ok = true;
    for (int i = 0; i < a->slices && ok; i++) {
        const int at = from + i * width;
        ok = slice_begin(a->plan, at, p->dim - at < width ? p->dim - at : width, &a->slice[i]);
    }
    if (ok) add_all(a);
    for (int i = 0; i < a->slices; i++) {
        const slice *c = &a->slice[i];
        for (int s = 0; ok && s < a->plan->sets; s++)
            memcpy(sum + (size_t)s * (size_t)p->dim + c->from, c->w + (size_t)s * (size_t)c->vectors, (size_t)c->width * sizeof *sum);
        slice_end(c);
        a->slice[i] = (slice){0};
    }
    if (!ok) return iso_fail_memory(err);
    return a->bad == p->n ? ISO_OK : iso_vector_fail("training", a->bad, p->dim, p->train[a->bad], err);
}

iso_status iso_protocol_sums(const iso_protocol *p, int first, int sets, double *sum, iso_error *err)
{
    plan s;
    adding a = {.plan = &s, .bad = p->n};
    iso_status status = plan_make(&s, p, first, sets, err);
    if (status) goto done;
    /* as wide as gives every thread a slice: the attributes are looked at once for each */
    const int threads = omp_get_max_threads(), vectors = (p->dim + LANES - 1) / LANES, share = (vectors + threads - 1) / threads;
    const int width = LANES * (share < SLICE_MAX ? share : SLICE_MAX), slices = (p->dim + width - 1) / width;
    a.slice = iso_calloc((size_t)(slices < threads ? slices : threads), sizeof *a.slice);
    a.inverse = iso_calloc((size_t)p->n, sizeof *a.inverse);
    if (!a.slice || !a.inverse) status = iso_fail_memory(err);
    for (int i = 0; i < slices && !status; i += a.slices) {
        a.slices = slices - i < threads ? slices - i : threads;
        status = sum_slices(&a, i * width, width, sum, err);
    }
done:
    free(a.slice), free(a.inverse);
    plan_clear(&s);
    return status;
}
