/* Vectors to search in. Clustered ones: what encoders of faces and objects give is neither a few points nor noise, so
 *
 *     x = c_k + r_k g           (the database takes its direction)
 *
 * with centres c_k of length 1 and normal g of mean length 1. Both have a spectrum: the variance of number j falls as 1 / (1 + j/8), for
 * g from another number on in every cluster, as clusters extend in directions of their own. The spread r_k of a cluster
 * is uniform in [0.8, 1.6]: at 0.8 its members are nearer to one another than to others, at 1.6 clusters flow into one another. Cluster k
 * has a share of the vectors that falls as 1 / sqrt(1 + k): among 1,000 the largest has 16 times the average. With these numbers the
 * tenth answer to a query has a cosine of about 0.5 where any two vectors have 0 +- 0.1, and an inverted file of 1,024 lists has
 * to look into four to eight of them for nine and a half answers of ten.
 * Uniform ones: directions without any structure, the hardest case, which no approximate index is for. */
#include "programs/benchsearch.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/memory.h"
#include "indexer/npy.h"
#include "model/philox.h"

enum { STREAM_CENTRE = 1, STREAM_SPREAD, STREAM_CLUSTER, STREAM_ITEM, CHUNK = 8192 };
#define FAR ((int64_t)1 << 40) /* queries: beyond what any database holds */

typedef struct maker {
    const benchsearch_vectors *v;
    float *centre; /* [centres, dim] */
    float *spread; /* [centres] */
    float *scale;  /* [dim] of the spectrum: squares add up to 1 */
    double *upto;  /* [centres] shares of the clusters up to this one */
} maker;

static void normalize(float *x, int64_t n)
{
    double square = 0;
    for (int64_t j = 0; j < n; j++) square += (double)x[j] * x[j];
    for (int64_t j = 0; j < n; j++) x[j] = (float)(x[j] / sqrt(square));
}

static void prepare(maker *m)
{
    const benchsearch_vectors *v = m->v;
    const uint64_t seed = (uint64_t)v->seed;
    double sum = 0;
    for (int64_t j = 0; j < v->dim; j++) m->scale[j] = (float)sqrt(1 / (1 + (double)j / 8));
    normalize(m->scale, v->dim);
    iso_draw_uniform((iso_draw){seed, STREAM_SPREAD, 0}, 0.8, 1.6, v->centres, m->spread);
    for (int64_t k = 0; k < v->centres; k++) {
        float *c = m->centre + k * v->dim;
        iso_draw_normal((iso_draw){seed, STREAM_CENTRE, (uint64_t)k}, v->dim, c);
        for (int64_t j = 0; j < v->dim; j++) c[j] *= m->scale[j];
        normalize(c, v->dim);
        m->upto[k] = sum += 1 / sqrt(1 + (double)k);
    }
    for (int64_t k = 0; k < v->centres; k++) m->upto[k] /= sum;
}

static int64_t cluster_of(const maker *m, int64_t i)
{
    const uint64_t bound = (uint64_t)1 << 53;
    double u =
        (double)iso_draw_below((iso_draw){(uint64_t)m->v->seed, STREAM_CLUSTER, (uint64_t)i}, 0, bound) / (double)bound;
    int64_t low = 0, high = m->v->centres - 1;
    while (low < high) { /* the first cluster up to which there is more than u */
        int64_t middle = (low + high) / 2;
        if (m->upto[middle] > u)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static void make_row(const maker *m, int64_t i, float *x)
{
    const int64_t dim = m->v->dim;
    iso_draw_normal((iso_draw){(uint64_t)m->v->seed, STREAM_ITEM, (uint64_t)i}, dim, x);
    if (!m->v->clustered) return;
    int64_t k = cluster_of(m, i);
    const float *c = m->centre + k * dim, spread = m->spread[k];
    for (int64_t j = 0; j < dim; j++) x[j] = c[j] + spread * m->scale[(j + 37 * k) % dim] * x[j];
}

static iso_status write_rows(const maker *m, const char *path, int64_t first, int64_t count, iso_error *err)
{
    iso_npy_writer *w = NULL;
    float *chunk = iso_calloc(CHUNK, sizeof *chunk * (size_t)m->v->dim);
    iso_status status = chunk ? iso_npy_create(path, count, m->v->dim, &w, err) : iso_fail_memory(err);
    for (int64_t i = 0; status == ISO_OK && i < count; i += CHUNK) {
        int64_t n = count - i < CHUNK ? count - i : CHUNK;
#pragma omp parallel for schedule(static)
        for (int64_t r = 0; r < n; r++) make_row(m, first + i + r, chunk + r * m->v->dim);
        status = iso_npy_write(w, chunk, n, err);
    }
    free(chunk);
    if (status == ISO_OK) return iso_npy_commit(w, err);
    iso_npy_abort(w);
    return status;
}

static iso_status write_paths(const char *path, int64_t first, int64_t count, iso_error *err)
{
    iso_file *f = NULL;
    iso_status status = iso_file_create(path, &f, err);
    if (status != ISO_OK) return status;
    for (int64_t i = first; i < first + count; i++)
        if (fprintf(iso_file_stream(f), "item/%09lld\n", (long long)i) < 0) {
            status = iso_fail_errno(err, "cannot write %s", path);
            iso_file_abort(f);
            return status;
        }
    return iso_file_commit(f, err);
}

iso_status benchsearch_make(const benchsearch_vectors *v, const char *dir, int64_t first, int64_t count,
                            int64_t queries, iso_error *err)
{
    maker m = {.v = v};
    char *vectors = iso_path_join(dir, "vectors.npy"), *paths = iso_path_join(dir, "paths.txt"),
         *query = iso_path_join(dir, "queries.npy");
    m.centre = iso_calloc((size_t)v->centres * (size_t)v->dim, sizeof *m.centre);
    m.spread = iso_calloc((size_t)v->centres, sizeof *m.spread);
    m.scale = iso_calloc((size_t)v->dim, sizeof *m.scale);
    m.upto = iso_calloc((size_t)v->centres, sizeof *m.upto);
    iso_status status = ISO_OK;
    if (!vectors || !paths || !query || !m.centre || !m.spread || !m.scale || !m.upto) status = iso_fail_memory(err);
    if (status == ISO_OK) {
        prepare(&m);
        status = write_rows(&m, vectors, first, count, err);
    }
    if (status == ISO_OK) status = write_paths(paths, first, count, err);
    if (status == ISO_OK && queries) status = write_rows(&m, query, FAR, queries, err);
    free(vectors);
    free(paths);
    free(query);
    free(m.centre);
    free(m.spread);
    free(m.scale);
    free(m.upto);
    return status;
}
