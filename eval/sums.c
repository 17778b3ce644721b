/* sums.c: the sums of the unit training vectors of all query sets.
 *
 * An image with m attributes belongs to m single sets and m (m - 1) / 2 pairs: of CelebA's 9, to 45. Instead of adding it to
 * each of them, images are put into groups that agree in the h most common attributes. Within a group every image is added to
 * the group's sum and, for each rarer attribute it has, to that attribute's; then these few sums, not the images, go to
 * the common attributes' singles and pairs, and to the rarer ones' singles. Only pairs of two rarer attributes get each image.
 * h is what costs least by the counts; for CelebA an image is then added some fifteen times. Groups are made within blocks of
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

enum { LANES = 8, SLICE_MAX = 8, COMMON_MAX = 12, BLOCK = 8192 }; /* a slice: at most SLICE_MAX vectors of LANES numbers */

typedef double lanes __attribute__((vector_size(64)));

typedef struct plan {
    const iso_protocol *p;
    int32_t *set_of;         /* [count, count] number of the set, or -1; singles on the diagonal, both triangles */
    int commons, *common;    /* the h attributes that make groups */
    int rares, *rare;        /* the others that are in any set */
    int *rare_of;            /* [count] number among those, or -1 */
    uint64_t *rare_bits;     /* [row_words] which those are */
    int64_t groups;          /* 2^h in each block of BLOCK images */
    int64_t *group;          /* [groups + 1] where each begins in `order` */
    int64_t *order;          /* [n] training images by group, in their own order within */
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

static int64_t images_with(const iso_protocol *p, int a, int b) { return p->both[a < b ? (size_t)a * p->count + b : (size_t)b * p->count + a]; }

/* Vectors that are added when the first h of `list` make groups. */
static double cost(const plan *s, int used, const int64_t (*list)[2], int h)
{
    int count = s->p->count;
    double n = (double)s->p->n, sum = h ? n : 0, groups = (double)(1 << h) * ceil(n / BLOCK);
    if (groups > n) groups = n;
    for (int i = h; i < used; i++) {
        sum += (double)list[i][0];
        for (int j = i + 1; j < used; j++)
            if (s->set_of[list[i][1] * count + list[j][1]] >= 0) sum += (double)images_with(s->p, (int)list[i][1], (int)list[j][1]);
    }
    return sum + groups * (h / 2.0 + 1) * (h / 4.0 + used - h);
}

/* Splits the attributes that are in any set into common and rare ones. */
static iso_status choose(plan *s, iso_error *err)
{
    const iso_protocol *p = s->p;
    int used = 0, best = 0, count = p->count;
    int64_t(*list)[2] = iso_calloc((size_t)count, sizeof *list);
    if (!list) return iso_fail_memory(err);
    for (int a = 0; a < count; a++) {
        bool in = false;
        for (int b = 0; b < count; b++) in |= s->set_of[(size_t)a * count + b] >= 0;
        if (in) list[used][0] = images_with(p, a, a), list[used++][1] = a;
    }
    qsort(list, (size_t)used, sizeof *list, by_count);
    for (int h = 1; h <= used && h <= COMMON_MAX; h++)
        if (cost(s, used, list, h) < cost(s, used, list, best)) best = h;
    for (int a = 0; a < count; a++) s->rare_of[a] = -1;
    for (int i = 0; i < used; i++) {
        int a = (int)list[i][1];
        if (i < best) {
            s->common[s->commons++] = a;
        } else {
            s->rare_bits[a / 64] |= UINT64_C(1) << (a % 64);
            s->rare_of[a] = s->rares;
            s->rare[s->rares++] = a;
        }
    }
    free(list);
    return ISO_OK;
}

static int64_t group_of(const plan *s, int64_t image)
{
    const uint64_t *bits = s->p->has.image + image * s->p->has.row_words;
    int64_t group = 0;
    for (int k = 0; k < s->commons; k++) group |= (int64_t)(bits[s->common[k] / 64] >> (s->common[k] % 64) & 1) << k;
    return (image / BLOCK << s->commons) + group;
}

static iso_status plan_make(plan *s, const iso_protocol *p, iso_error *err)
{
    size_t count = (size_t)p->count;
    *s = (plan){.p = p};
    s->set_of = iso_calloc(count, count * sizeof *s->set_of);
    s->common = iso_calloc(count, sizeof *s->common);
    s->rare = iso_calloc(count, sizeof *s->rare);
    s->rare_of = iso_calloc(count, sizeof *s->rare_of);
    s->rare_bits = iso_calloc((size_t)p->has.row_words, sizeof *s->rare_bits);
    s->order = iso_calloc((size_t)p->n, sizeof *s->order);
    if (!s->set_of || !s->common || !s->rare || !s->rare_of || !s->rare_bits || !s->order) return iso_fail_memory(err);
    number_sets(p, s->set_of);
    iso_status status = choose(s, err);
    if (status) return status;
    s->groups = ((p->n - 1) / BLOCK + 1) << s->commons;
    s->group = iso_calloc((size_t)s->groups + 2, sizeof *s->group);
    if (!s->group) return iso_fail_memory(err);
    for (int64_t i = 0; i < p->n; i++) s->group[group_of(s, i) + 2]++;
    for (int64_t g = 2; g < s->groups + 2; g++) s->group[g] += s->group[g - 1];
    for (int64_t i = 0; i < p->n; i++) s->order[s->group[group_of(s, i) + 1]++] = i;
    return ISO_OK;
}

static void plan_clear(plan *s)
{
    free(s->set_of), free(s->common), free(s->rare), free(s->rare_of), free(s->rare_bits), free(s->group), free(s->order);
}

/* ---- adding ---- */

/* One slice of the coordinates, as one thread sums it. */
typedef struct slice {
    int from, width, vectors; /* coordinates; vectors of LANES that hold them, zeros behind */
    float *block;             /* [BLOCK, vectors * LANES] of the block at hand */
    lanes *w;                 /* [sets, vectors] */
    lanes *rare;              /* [1 + rares, vectors] of the group at hand: its sum, then each rarer attribute's */
    lanes **to;               /* [1 + rares + pairs of them] what an image is added to */
    uint64_t *touched;        /* [row_words] attributes whose sums in `rare` are not zero */
} slice;

static inline __attribute__((always_inline)) void add(lanes *to, const lanes *x, int vectors)
{
    for (int i = 0; i < vectors; i++) to[i] += x[i];
}

/* Copies this slice of a block's vectors. */
static void read_block(const iso_protocol *p, const slice *c, int64_t block)
{
    float *to = c->block;
    for (int64_t i = block * BLOCK; i < p->n && i < (block + 1) * BLOCK; i++, to += c->vectors * LANES)
        memcpy(to, p->train[i] + c->from, (size_t)c->width * sizeof *to);
}

/* Lists what an image is added to; their number. */
static inline __attribute__((always_inline)) int targets(const plan *s, const slice *c, int64_t image, int *has)
{
    const iso_protocol *p = s->p;
    const uint64_t *bits = p->has.image + image * p->has.row_words;
    int m = 0, n = 0;
    c->to[n++] = c->rare;
    for (int r = 0; r < p->has.row_words; r++)
        for (uint64_t left = bits[r] & s->rare_bits[r]; left; left &= left - 1) has[m++] = 64 * r + __builtin_ctzll(left);
    for (int r = 0; r < p->has.row_words; r++) c->touched[r] |= bits[r] & s->rare_bits[r];
    for (int i = 0; i < m; i++) {
        const int32_t *set = s->set_of + (size_t)has[i] * p->count;
        c->to[n++] = c->rare + (size_t)(1 + s->rare_of[has[i]]) * c->vectors;
        for (int j = i + 1; j < m; j++)
            if (set[has[j]] >= 0) c->to[n++] = c->w + (size_t)set[has[j]] * c->vectors;
    }
    return n;
}

/* An image's slice, of length 1. Number by number: gcc converts whole `lanes` through the stack where registers are shorter. */
static inline __attribute__((always_inline)) void unit(const plan *s, const slice *c, int64_t image, int vectors, lanes *x)
{
    const float *z = c->block + image % BLOCK * vectors * LANES;
    double *to = (double *)x, inverse = s->p->inverse[image];
    for (int i = 0; i < vectors * LANES; i++) to[i] = inverse * (double)z[i];
}

static inline __attribute__((always_inline)) void add_images(const plan *s, const slice *c, int64_t from, int64_t to, int *has)
{
    for (int64_t k = from; k < to; k++) {
        lanes x[SLICE_MAX];
        int64_t image = s->order[k];
        unit(s, c, image, c->vectors, x);
        int n = targets(s, c, image, has);
        for (int i = 0; i < n; i++) add(c->to[i], x, c->vectors);
    }
}

/* The same for whole slices: the image stays in registers. */
static inline __attribute__((always_inline)) void add_images_wide(const plan *s, const slice *c, int64_t from, int64_t to, int *has)
{
    _Static_assert(SLICE_MAX == 8, "eight variables");
    for (int64_t k = from; k < to; k++) {
        lanes x[SLICE_MAX];
        int64_t image = s->order[k];
        int n = targets(s, c, image, has);
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

/* Gives a group's sums to the sets, and clears them. */
static inline __attribute__((always_inline)) void end_group(const plan *s, const slice *c, int64_t group)
{
    int in[COMMON_MAX], ins = 0;
    for (int k = 0; k < s->commons; k++)
        if (group >> k & 1) in[ins++] = s->common[k];
    for (int i = 0; i < ins; i++)
        for (int j = i; j < ins; j++) add_to_set(s, c, in[i], in[j], c->rare);
    memset(c->rare, 0, (size_t)c->vectors * sizeof *c->rare);
    for (int r = 0; r < s->rares; r++) {
        int a = s->rare[r];
        lanes *x = c->rare + (size_t)(1 + r) * c->vectors;
        if (!(c->touched[a / 64] >> (a % 64) & 1)) continue;
        add_to_set(s, c, a, a, x);
        for (int i = 0; i < ins; i++) add_to_set(s, c, in[i], a, x);
        memset(x, 0, (size_t)c->vectors * sizeof *x);
    }
    memset(c->touched, 0, (size_t)s->p->has.row_words * sizeof *c->touched);
}

ISO_CLONES static void add_groups(const plan *s, const slice *c, int *has)
{
    for (int64_t g = 0; g < s->groups; g++) {
        if (g % (INT64_C(1) << s->commons) == 0) read_block(s->p, c, g >> s->commons);
        if (s->group[g] == s->group[g + 1]) continue;
        if (c->vectors == SLICE_MAX) add_images_wide(s, c, s->group[g], s->group[g + 1], has);
        else add_images(s, c, s->group[g], s->group[g + 1], has);
        end_group(s, c, g);
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
    size_t sets = (size_t)s->p->singles + (size_t)s->p->doubles, rares = (size_t)s->rares;
    slice c = {.from = from, .width = width, .vectors = (width + LANES - 1) / LANES};
    c.block = vectors_new((size_t)BLOCK * (size_t)c.vectors, LANES * sizeof *c.block);
    c.w = vectors_new(sets * (size_t)c.vectors, sizeof *c.w);
    c.rare = vectors_new((1 + rares) * (size_t)c.vectors, sizeof *c.rare);
    c.to = iso_calloc(1 + rares * (rares + 1) / 2, sizeof *c.to);
    c.touched = iso_calloc((size_t)s->p->has.row_words, sizeof *c.touched);
    int *has = iso_calloc((size_t)s->p->count, sizeof *has);
    bool ok = c.block && c.w && c.rare && c.to && c.touched && has;
    if (ok) {
        add_groups(s, &c, has);
        for (size_t i = 0; i < sets; i++) memcpy(sum + i * (size_t)s->p->dim + from, c.w + i * (size_t)c.vectors, (size_t)width * sizeof *sum);
    }
    free(c.block), free(c.w), free(c.rare), free(c.to), free(c.touched), free(has);
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
