/* vindex_ivf.h: the payload of an index of the kind ivf: an inverted file, searched as far as the query needs.
 *
 * Vectors are sorted into lists by their nearest centroid. A list keeps of each vector x with centroid c: codes of one byte a
 * number for x - c, which the search runs through, and the vector in 16 bits for the score of the best ones: of x - m, m the mean
 * of all vectors. What tells vectors apart may be far smaller than that rounding, and than the rounding of c to one byte a number:
 * of a list that is not many times as wide as that (a tight one) c is kept in full, codes and 16 bits are of x - c, and
 * both are rounded so that the errors cancel out along c: vectors about a query differ in their products with it by little, and c
 * points where the query does.
 *
 * How far a search goes. Within list l, scores <w, x> are about normal: mean <w, c_l>, deviation s_l = r_l sqrt(wT C w), r_l the
 * root mean square of |x - c_l| and C the covariance of all x - c, scaled to trace 1. With the k-th best score t so far, list l
 * is expected to hold
 *     e_l = n_l Q((t - <w, c_l>) / s_l)        Q: upper tail of the normal distribution
 * better ones. Lists are searched by descending Q until those left sum to at most `tolerance` times k. The tolerance for few, some and many candidates (up to 6, up to 32, more) is chosen
 * while building so that every kind of query reaches its recall: it takes up what is not normal about the data, and one
 * that is easy (a single vector) ends after a few lists, one whose answers lie scattered (contrast) goes on.
 *
 * Payload (integers and floats little-endian; each part begins at a multiple of ISO_VINDEX_IVF_ALIGN from the payload's start):
 *     u32 lists, u32 cov_dim (dim, or 0: C = I / dim), u32 pools (below), 0, f64 tolerance [3], zeros up to 64 bytes
 *     f32 low [dim], step [dim]     a code a of a vector in list l stands for scale_l (low + a * step)
 *     f32 low [dim], step [dim]     of the centroids' codes, without a scale
 *     f32 cov [cov_dim, cov_dim]    C
 *     f32 middle [dim]              m
 *     u32 offset [lists + 1]        where the lists begin, in vectors
 *     f32 radius [lists]            r_l
 *     f32 scale [lists]
 *     f32 blur [lists]              no vector of the list is farther than this from what 16 bits keep of it
 *     f32 center [lists, dim]       c in full
 *     u8  tight [lists]             0 or 1
 *     u8  centroid [lists, dim]     c as codes
 *     u32 position [count]          of the vectors in the order of the lists
 *     u8  code [count, dim]
 *     f16 row [count, dim]
 * The codes of the k best are among the best `pools` (1.25 k + 8), or nearly so. */
#ifndef ISO_VINDEX_IVF_H
#define ISO_VINDEX_IVF_H

#include "retriever/vindex_parts.h"

enum {
    ISO_VINDEX_IVF_ALIGN = 64,
    ISO_VINDEX_IVF_HEAD = 64,
    ISO_VINDEX_IVF_COV_MAX = 1024,
    ISO_VINDEX_IVF_BUCKETS = 128,
    ISO_VINDEX_IVF_POOLS_MOST = 1 << 16
};

/* Where the parts lie; the pointers are into a payload. */
typedef struct iso_vindex_ivf {
    int dim, cov_dim, pools;
    int64_t count, lists, longest; /* longest: vectors of the longest list */
    double tolerance[ISO_VINDEX_DEPTHS]; /* for few candidates, some, many */
    double radius_mean;                         /* over vectors */
    bool any_tight;
    float tail[2 * ISO_VINDEX_IVF_BUCKETS + 1]; /* Q at the lower end of each bucket, and of as many more behind them */
    const float *low, *step, *centroid_low, *centroid_step, *cov, *middle, *radius, *scale, *blur, *center;
    const uint32_t *offset, *position;
    const uint8_t *tight, *centroid, *code;
    const uint16_t *row;
    uint8_t *packed; /* the centroids once more, as iso_ivf_pack lays them; may be NULL */
    uint32_t *slot;  /* [count] where each position lies; made when a vector is asked for */
} iso_vindex_ivf;

/* Bytes of a payload; 0 where that overflows. */
size_t iso_vindex_ivf_size(int64_t count, int dim, int64_t lists, int cov_dim);
/* Points the parts into the payload by dim, count, lists and cov_dim. */
void iso_vindex_ivf_place(iso_vindex_ivf *x, const uint8_t *payload);
/* What follows from the parts (longest, radius_mean, any_tight, tail) and whether they can be believed: NULL, or what is wrong. */
const char *iso_vindex_ivf_check(iso_vindex_ivf *x);

/* What makes searching faster, where it can be had; behind the check. Owned by x: */
void iso_vindex_ivf_pack(iso_vindex_ivf *x);
void iso_vindex_ivf_free_parts(iso_vindex_ivf *x);

/* The list that a place in the order of the lists is in. */
int64_t iso_vindex_ivf_list(const iso_vindex_ivf *x, int64_t slot);

/* The k best positions, 1 <= k <= count; as iso_vindex_engine's search. *visited (may be NULL): lists searched. */
ISO_CHECK iso_status iso_vindex_ivf_search(const iso_vindex_ivf *x, const float *w, int64_t k, iso_ranked *out,
                                           int64_t *found, iso_vindex_scale *scale, int64_t *visited, iso_error *err);

/* Which tolerance is that of k candidates. */
int iso_vindex_ivf_depth(int64_t k);

#endif
