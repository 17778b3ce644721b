/* direct_planes.h: images split into bfloat16s, as direct.h describes. For direct.c and direct_w.c, on the tile unit. */
#ifndef ISO_CPU_DIRECT_PLANES_H
#define ISO_CPU_DIRECT_PLANES_H

#include "model/cpu/amx.h"
#include "model/cpu/conv.h"

typedef struct iso_planes {
    int64_t h, w, c;      /* of a plane, with the zeros around; c a multiple of ISO_AMX_TILE */
    int64_t phases;       /* of rows, and of columns: plane (i, j) has the pixels i, i + phases, ... from the padded image */
    int64_t pad;          /* zeros before the image's first row and column */
    int64_t lead;         /* zero pixels before a plane's first */
    bool pairs;           /* an element is two bfloat16s, of pixels q and q + 1; else one */
    /* from iso_planes_chunk: */
    int64_t images;       /* at a time */
    int64_t pixels;       /* of a plane with what lies before and behind */
    int64_t part;         /* bytes from one part of a float to the next */
    size_t bytes;         /* of all */
} iso_planes;

static inline int64_t iso_planes_element(const iso_planes *p)
{
    return p->pairs ? 4 : 2;
}

/* Chooses how many of `batch` images are split at a time; false where even one does not fit into the second-level cache. */
static inline bool iso_planes_chunk(iso_planes *p, int64_t batch)
{
    enum { CACHE = 1 << 20, BEHIND = 2 * ISO_AMX_DEPTH }; /* zeros that a tile reads behind the last pixel; more is read, not used */
    const int64_t image = p->phases * p->phases * p->h * p->w * p->c * iso_planes_element(p) * ISO_AMX_PARTS;
    if (image > CACHE) return false;
    /* an eighth of the batch in even parts */
    const int64_t most = iso_ceil_div(batch, 8);
    p->images = iso_ceil_div(most, iso_ceil_div(most, iso_min64(CACHE / image, most)));
    p->pixels = p->lead + p->images * p->h * p->w + BEHIND / ISO_AMX_TILE;
    p->part = iso_ceil_div(p->phases * p->phases * p->pixels * p->c * iso_planes_element(p), 64) * 64;
    p->bytes = (size_t)(ISO_AMX_PARTS * p->part);
    return true;
}

/* Bytes from the planes' beginning to a pixel of a plane. */
static inline int64_t iso_planes_at(const iso_planes *p, int64_t plane, int64_t pixel)
{
    return (plane * p->pixels + p->lead + pixel) * p->c * iso_planes_element(p);
}

/* Images first ... first+n-1 of x [.., h, w, c] to `to`, n <= p->images. */
void iso_planes_fill(const iso_planes *p, const float *x, int64_t h, int64_t w, int64_t first, int64_t n, char *to);

#endif
