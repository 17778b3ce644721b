/* vindex_kmeans.c: k-means over FAISS, in two levels where there are many centroids. */
#include "retriever/vindex_kmeans.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <faiss/c_api/AutoTune_c.h>
#include <faiss/c_api/Clustering_c.h>
#include <faiss/c_api/Index_c.h>
#include <faiss/c_api/index_factory_c.h>

#include "base/blas.h"
#include "base/memory.h"
#include "base/progress.h"
#include "retriever/vindex_faiss.h"

enum {
    ONE_LEVEL = 64,    /* up to this many centroids are found at once */
    LATER_LEVEL = 256, /* within a cluster: they have about as many rows as they would have then */
    LATER_TOPS = 16,
    ROWS_A_CENTROID = 256,
    ROUNDS = 10,
    DEEPEST = 8,       /* levels */
    EXACTLY = 4096     /* up to this many centroids the nearest is found by looking at all */
};

static iso_status make_index(int dim, const char *text, FaissIndex **out, iso_error *err)
{
    return faiss_index_factory(out, dim, text, METRIC_L2) ? iso_vindex_faiss_fail(err, "making an index") : ISO_OK;
}

/* One level. FAISS takes a seeded sample of rows where there are more than it needs. */
static iso_status cluster(int dim, int64_t n, const float *x, int64_t k, float *centroids, iso_error *err)
{
    FaissClusteringParameters p;
    FaissClustering *c = NULL;
    FaissIndex *index = NULL;
    float *found;
    size_t size;
    faiss_ClusteringParameters_init(&p);
    p.niter = ROUNDS;
    p.seed = 1;
    p.min_points_per_centroid = 1; /* FAISS would warn of fewer */
    p.max_points_per_centroid = ROWS_A_CENTROID;
    iso_status st = iso_blas_begin(1, err);
    if (st != ISO_OK) return st;
    st = make_index(dim, "Flat", &index, err);
    if (st != ISO_OK) goto done;
    if (faiss_Clustering_new_with_params(&c, dim, (int)k, &p) != 0 || faiss_Clustering_train(c, n, x, index) != 0)
        st = iso_vindex_faiss_fail(err, "finding clusters");
    else {
        faiss_Clustering_centroids(c, &found, &size);
        if (size == (size_t)k * (size_t)dim)
            memcpy(centroids, found, sizeof *found * size);
        else
            st = iso_fail(err, ISO_E_INTERNAL, "FAISS found another number of clusters than it was to");
    }
    if (c) faiss_Clustering_free(c);
    faiss_Index_free(index);
done:
    iso_blas_end(1);
    return st;
}

/* How many centroids have been found, and who is told. */
typedef struct telling {
    iso_progress *progress;
    int64_t done;
} telling;

static void tell(telling *t, int64_t more)
{
    t->done += more;
    iso_progress_step(t->progress, t->done);
}

static iso_status find(telling *t, int dim, int64_t n, const float *x, int64_t k, int depth, float *centroids, iso_error *err);

static bool all_equal(int dim, int64_t n, const float *x)
{
    for (int64_t i = 1; i < n; i++)
        if (memcmp(x + i * dim, x, sizeof *x * (size_t)dim) != 0) return false;
    return true;
}

/* The rows of each cluster of the upper level, divided further: as many centroids as its share of the rows. */
static iso_status divide(telling *told, int dim, int64_t n, const float *x, const uint32_t *of, int64_t tops, int64_t k, int depth, float *centroids, iso_error *err)
{
    int64_t before = 0;
    size_t row = sizeof(float) * (size_t)dim, room = 0;
    float *group = NULL;
    iso_status st = ISO_OK;
    int64_t *size = iso_calloc((size_t)tops, sizeof *size);
    if (!size) return iso_fail_memory(err);
    for (int64_t i = 0; i < n; i++) size[of[i]]++;
    for (int64_t t = 0; st == ISO_OK && t < tops; t++) {
        int64_t first = (int64_t)((double)k * (double)before / (double)n), m = 0;
        before += size[t];
        int64_t parts = (before == n ? k : (int64_t)((double)k * (double)before / (double)n)) - first;
        if (parts == 0) continue;
        if (!iso_grow(&group, &room, (size_t)size[t] * (size_t)dim, sizeof *group)) {
            st = iso_fail_memory(err);
            break;
        }
        for (int64_t i = 0; i < n; i++)
            if (of[i] == t) memcpy(group + m++ * dim, x + i * dim, row);
        st = find(told, dim, m, group, parts, depth, centroids + first * dim, err);
    }
    free(group);
    free(size);
    return st;
}

/* A cluster that has more than its share of the rows is divided by some, and these again. */
static iso_status find(telling *told, int dim, int64_t n, const float *x, int64_t k, int depth, float *centroids, iso_error *err)
{
    tell(told, 0);
    if (iso_interrupted()) return iso_fail(err, ISO_E_INTERRUPTED, "interrupted while clusters were looked for");
    if (k > 1 && all_equal(dim, n, x)) {
        for (int64_t i = 0; i < k; i++) memcpy(centroids + i * dim, x, sizeof *x * (size_t)dim);
        tell(told, k);
        return ISO_OK;
    }
    /* a cluster of the upper level may get one centroid more than its share, and needs as many rows */
    if (k <= (depth ? LATER_LEVEL : ONE_LEVEL) || (k > n / 2 && k <= LATER_LEVEL)) {
        iso_status st = cluster(dim, n, x, k, centroids, err);
        tell(told, k);
        return st;
    }
    if (depth == DEEPEST || k > n / 2) { /* nearly all rows stay together: they hardly differ, and some will do */
        for (int64_t i = 0; i < k; i++) memcpy(centroids + i * dim, x + i * n / k * dim, sizeof *x * (size_t)dim);
        tell(told, k);
        return ISO_OK;
    }
    const int64_t tops = depth ? LATER_TOPS : (int64_t)sqrt((double)k);
    iso_vindex_nearest *nearest = NULL;
    float *top = iso_calloc((size_t)tops, sizeof *top * (size_t)dim);
    uint32_t *of = iso_calloc((size_t)n, sizeof *of);
    iso_status st = top && of ? cluster(dim, n, x, tops, top, err) : iso_fail_memory(err);
    if (st == ISO_OK) st = iso_vindex_nearest_create(dim, tops, top, &nearest, err);
    if (st == ISO_OK) st = iso_vindex_nearest_find(nearest, n, x, of, err);
    if (st == ISO_OK) st = divide(told, dim, n, x, of, tops, k, depth + 1, centroids, err);
    iso_vindex_nearest_free(nearest);
    free(top);
    free(of);
    return st;
}

iso_status iso_vindex_kmeans(int dim, int64_t n, const float *x, int64_t k, float *centroids, iso_progress *progress, iso_error *err)
{
    if (k < 1 || k > n)
        return iso_fail(err, ISO_E_ARGUMENT, "cannot find %lld clusters among %lld vectors", (long long)k,
                        (long long)n);
    iso_progress_pass(progress, "clustering", "clusters", k);
    return find(&(telling){progress, 0}, dim, n, x, k, 0, centroids, err);
}

/* ---- the nearest centroid ---- */

struct iso_vindex_nearest {
    FaissIndex *index;
    int dim;
    int64_t k;
};

void iso_vindex_nearest_free(iso_vindex_nearest *f)
{
    if (!f) return;
    if (f->index) faiss_Index_free(f->index);
    free(f);
}

/* Among very many centroids: an inverted file of them, of which an eighth is looked at. */
static iso_status set_up(iso_vindex_nearest *f, const float *centroids, iso_error *err)
{
    char text[32] = "Flat";
    FaissParameterSpace *space = NULL;
    int64_t lists = (int64_t)sqrt((double)f->k);
    if (f->k > EXACTLY) snprintf(text, sizeof text, "IVF%lld,Flat", (long long)lists);
    iso_status st = make_index(f->dim, text, &f->index, err);
    if (st != ISO_OK) return st;
    if (f->k > EXACTLY && faiss_Index_train(f->index, f->k, centroids) != 0)
        return iso_vindex_faiss_fail(err, "training the index");
    if (faiss_Index_add(f->index, f->k, centroids) != 0) return iso_vindex_faiss_fail(err, "adding centroids");
    if (f->k <= EXACTLY) return ISO_OK;
    if (faiss_ParameterSpace_new(&space) != 0) return iso_vindex_faiss_fail(err, "tuning the index");
    if (faiss_ParameterSpace_set_index_parameter(space, f->index, "nprobe", (double)(lists / 8)) != 0)
        st = iso_vindex_faiss_fail(err, "tuning the index");
    faiss_ParameterSpace_free(space);
    return st;
}

iso_status iso_vindex_nearest_create(int dim, int64_t k, const float *centroids, iso_vindex_nearest **out,
                                     iso_error *err)
{
    iso_vindex_nearest *f = iso_calloc(1, sizeof *f);
    if (!f) return iso_fail_memory(err);
    f->dim = dim;
    f->k = k;
    iso_status st = iso_blas_begin(1, err);
    if (st == ISO_OK) {
        st = set_up(f, centroids, err);
        iso_blas_end(1);
    }
    if (st == ISO_OK)
        *out = f;
    else
        iso_vindex_nearest_free(f);
    return st;
}

iso_status iso_vindex_nearest_find(const iso_vindex_nearest *f, int64_t n, const float *x, uint32_t *list,
                                   iso_error *err)
{
    enum { PIECE = 4096 };
    iso_status st = ISO_OK;
    idx_t *label = iso_calloc(PIECE, sizeof *label);
    float *distance = iso_calloc(PIECE, sizeof *distance);
    if (!label || !distance) st = iso_fail_memory(err);
    if (st == ISO_OK) st = iso_blas_begin(1, err);
    const bool begun = st == ISO_OK;
    for (int64_t i = 0; st == ISO_OK && i < n; i += PIECE) {
        int64_t m = n - i < PIECE ? n - i : PIECE;
        if (faiss_Index_search(f->index, m, x + i * f->dim, 1, distance, label) != 0)
            st = iso_vindex_faiss_fail(err, "searching the nearest centroid");
        /* none: not a number among the distances, or nothing in the lists looked at */
        for (int64_t j = 0; st == ISO_OK && j < m; j++) list[i + j] = label[j] < 0 ? 0 : (uint32_t)label[j];
    }
    if (begun) iso_blas_end(1);
    free(label);
    free(distance);
    return st;
}
