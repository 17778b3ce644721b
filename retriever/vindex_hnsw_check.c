/* vindex_hnsw_check.c: FAISS's file of an IndexHNSWFlat, as its write_index writes it:
 *     "IHNf", the fields of every index
 *     probability of each level f64, links up to each level i32 (one more), levels of each vector i32, where the links of
 *         each vector begin u64 (one more), links i32: -1 for none; each with its number u64 before it
 *     entry point, highest level, efConstruction, efSearch, beam on the upper levels: i32 each
 *     "IxFI", the fields of every index, number of floats u64, the vectors [count, dim]
 * A vector of n levels is on levels 0 to n - 1, and the links of one level lie behind those of the lower one. */
#include "retriever/vindex_hnsw.h"

#include <stdint.h>
#include <string.h>

#include "retriever/vindex_head.h"

/* Links of a vector on a level, of which the lowest has twice as many, as "HNSW32" says; FAISS's defaults; and some ten times
 * the levels that it makes. */
enum { LINKS = 32, EF_CONSTRUCTION = 40, UPPER_BEAM = 1, MOST_LEVELS = 64 };

typedef struct graph {
    int64_t count;
    uint64_t levels, links;               /* levels there are; links of all vectors */
    const uint8_t *level, *offset, *link; /* [count], [count + 1], [links]; in the payload, not aligned */
} graph;

static int32_t i32_at(const uint8_t *items, int64_t i)
{
    int32_t value;
    memcpy(&value, items + 4 * i, sizeof value);
    return value;
}

static uint64_t u64_at(const uint8_t *items, int64_t i)
{
    uint64_t value;
    memcpy(&value, items + 8 * i, sizeof value);
    return value;
}

/* Links of a vector below this level. */
static uint64_t links_below(uint64_t level) { return level ? LINKS * (level + 1) : 0; }

/* The lists, by their lengths. */
static bool find_lists(iso_vindex_head *h, graph *g)
{
    uint64_t bounds, levels, offsets;
    const uint8_t *share = iso_vindex_field_items(h, 8, &g->levels), *below = iso_vindex_field_items(h, 4, &bounds);
    g->level = iso_vindex_field_items(h, 4, &levels);
    g->offset = iso_vindex_field_items(h, 8, &offsets);
    g->link = iso_vindex_field_items(h, 4, &g->links);
    if (h->bad || g->levels < 1 || g->levels > MOST_LEVELS || bounds != g->levels + 1) return false;
    if (levels != (uint64_t)g->count || offsets != levels + 1) return false;
    for (uint64_t l = 0; l < bounds; l++)
        if (i32_at(below, (int64_t)l) != (int32_t)links_below(l)) return false;
    for (uint64_t l = 0; l < g->levels; l++) {
        double probability;
        memcpy(&probability, share + 8 * l, sizeof probability);
        if (!(probability >= 0 && probability <= 1)) return false;
    }
    return true;
}

/* Each vector has the room that its levels take, one behind the other. */
static bool offsets_fit(const graph *g)
{
    uint64_t at = 0;
    for (int64_t i = 0; i < g->count; i++) {
        const int32_t levels = i32_at(g->level, i);
        if (levels < 1 || (uint64_t)levels > g->levels || u64_at(g->offset, i) != at) return false;
        at += links_below((uint64_t)levels);
    }
    return u64_at(g->offset, g->count) == at && at == g->links;
}

/* Each link leads to a vector that is on that level. */
static bool links_fit(const graph *g)
{
    int wrong = 0;
#pragma omp parallel for schedule(static) reduction(| : wrong)
    for (int64_t i = 0; i < g->count; i++) {
        const uint8_t *link = g->link + 4 * u64_at(g->offset, i);
        const int32_t levels = i32_at(g->level, i);
        for (int32_t l = 0, j = 0; l < levels; l++)
            for (const int32_t end = (int32_t)links_below((uint64_t)l + 1); j < end; j++) {
                const int64_t to = i32_at(link, j);
                wrong |= to < -1 || to >= g->count || (l && to >= 0 && i32_at(g->level, to) <= l);
            }
    }
    return !wrong;
}

const char *iso_vindex_hnsw_check(const uint8_t *payload, size_t size, const iso_vindex_info *info)
{
    const uint64_t floats = (uint64_t)info->count * (uint64_t)info->source.dim;
    iso_vindex_head h = iso_vindex_head_read(payload, size);
    graph g = {.count = info->count};
    if (g.count < 1 || g.count > INT32_MAX) return "its graph is of more vectors than there can be, or of none";
    iso_vindex_field_index(&h, "IHNf", info->source.dim, g.count);
    if (!find_lists(&h, &g)) return "its graph is not as its header says";
    const int32_t entry = iso_vindex_field_any_i32(&h), top = iso_vindex_field_any_i32(&h);
    iso_vindex_field_i32(&h, EF_CONSTRUCTION);
    iso_vindex_field_i32(&h, info->width);
    iso_vindex_field_i32(&h, UPPER_BEAM);
    if (h.bad || info->width < 1 || info->width > ISO_VINDEX_HNSW_MOST_WIDTH) return "a number of its graph is out of range";
    iso_vindex_field_index(&h, "IxFI", info->source.dim, g.count);
    iso_vindex_field_u64(&h, floats);
    if (h.bad || h.size - h.at != floats * sizeof(float)) return "its vectors are not what the header says";
    if (!offsets_fit(&g)) return "the levels of its graph do not fit";
    if (entry < 0 || entry >= g.count || top < 0 || i32_at(g.level, entry) - 1 != top) return "its graph's entry point is out of range";
    return links_fit(&g) ? NULL : "its graph leads to a vector that is not there";
}
