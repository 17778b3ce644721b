/* vindex_hnsw.c: the engine of the kind hnsw, which is FAISS's: its graph and its vectors in single precision. The payload is
 * what faiss_write_index writes, and FAISS holds a copy of it in memory. FAISS believes every number in its file, so nothing
 * reaches it before all of them are checked (vindex_hnsw_check.c). */
#include "retriever/vindex_faiss.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <faiss/c_api/AutoTune_c.h>
#include <faiss/c_api/Index_c.h>
#include <faiss/c_api/error_c.h>
#include <faiss/c_api/index_factory_c.h>
#include <faiss/c_api/index_io_c.h>

#include "base/memory.h"
#include "retriever/vindex_hnsw.h"
#include "retriever/vindex_parts.h"
#include "retriever/vindex_tune.h"

enum { LEAST_WIDTH = 64 };

iso_status iso_vindex_faiss_fail(iso_error *err, const char *doing)
{
    const char *why = faiss_get_last_error();
    /* FAISS's C interface keeps only the base of what was thrown, and its own exceptions say more */
    if (why && (strstr(why, "bad_alloc") || strcmp(why, "std::exception") == 0)) return iso_fail_memory(err);
    return iso_fail(err, ISO_E_INTERNAL, "FAISS failed while %s: %s", doing, why ? why : "no reason given");
}

/* ---- searching ---- */

static iso_status search(const FaissIndex *index, const float *w, int64_t k, iso_ranked *out, int64_t *found,
                         iso_error *err)
{
    int64_t n = 0, count = faiss_Index_ntotal(index);
    iso_status st = ISO_OK;
    idx_t *labels = iso_calloc((size_t)k, sizeof *labels);
    float *scores = iso_calloc((size_t)k, sizeof *scores);
    if (!labels || !scores)
        st = iso_fail_memory(err);
    else if (faiss_Index_search(index, 1, w, k, scores, labels) != 0)
        st = iso_vindex_faiss_fail(err, "searching");
    for (int64_t i = 0; st == ISO_OK && i < k; i++) /* -1: it found no more */
        if (labels[i] >= 0 && labels[i] < count) out[n++] = (iso_ranked){scores[i], labels[i]};
    free(labels);
    free(scores);
    if (st == ISO_OK) *found = n;
    return st;
}

static iso_status hnsw_search(const iso_vindex *v, const float *w, int64_t k, iso_ranked *out, int64_t *found,
                              iso_vindex_scale *scale, iso_error *err)
{
    (void)scale;
    return search(v->state, w, k, out, found, err);
}

static iso_status hnsw_vector(iso_vindex *v, int64_t position, float *out, iso_error *err)
{
    return faiss_Index_reconstruct(v->state, position, out) ? iso_vindex_faiss_fail(err, "reading a vector back")
                                                            : ISO_OK;
}

static double hnsw_slack(const iso_vindex *v, const float *w)
{
    iso_scan_query rows = {ISO_CODE_F32, v->info.source.dim, w, 0};
    return iso_scan_slack(&rows, 1.01);
}

/* ---- building ---- */

/* By all threads: a vector is linked to those that are in the graph already, which is a matter of timing. By one it would be the same graph every
 * time, after so many times the minute that 100,000 vectors take. */
static iso_status take_rows(void *ctx, int64_t first, int64_t n, const float *unit, iso_error *err)
{
    (void)first;
    return faiss_Index_add(ctx, n, unit) ? iso_vindex_faiss_fail(err, "adding vectors") : ISO_OK;
}

static iso_status set_width(FaissIndex *index, int width, iso_error *err)
{
    FaissParameterSpace *space = NULL;
    if (faiss_ParameterSpace_new(&space) != 0) return iso_vindex_faiss_fail(err, "tuning the index");
    int rc = faiss_ParameterSpace_set_index_parameter(space, index, "efSearch", width);
    faiss_ParameterSpace_free(space);
    return rc ? iso_vindex_faiss_fail(err, "tuning the index") : ISO_OK;
}

static iso_status on_trial(void *ctx, const float *w, int64_t k, iso_ranked *out, int64_t *found, iso_error *err)
{
    return search(ctx, w, k, out, found, err);
}

/* Doubles the width until the recall is reached. FAISS keeps the width in its file. */
static iso_status choose_width(iso_vindex *v, FaissIndex *index, const iso_vindex_rows *rows, iso_error *err)
{
    iso_vindex_trial *t = NULL;
    double least[ISO_VINDEX_DEPTHS] = {0};
    bool enough[ISO_VINDEX_DEPTHS] = {false};
    int width = LEAST_WIDTH;
    iso_status st = iso_vindex_trial_create(v, rows, &t, err);
    for (; st == ISO_OK; width *= 2) {
        st = set_width(index, width, err);
        if (st == ISO_OK) st = iso_vindex_trial_recall(t, on_trial, index, least, enough, err);
        if ((enough[0] && enough[1] && enough[2]) || width >= ISO_VINDEX_HNSW_MOST_WIDTH) break;
    }
    iso_vindex_trial_free(t);
    v->info.width = width;
    v->info.recall = least[1];
    v->info.least = fmin(least[0], fmin(least[1], least[2]));
    return st;
}

typedef struct tap {
    iso_vindex_sink *sink;
    iso_status st; /* of the first put that failed */
    iso_error why;
} tap;

static ssize_t tap_write(void *cookie, const char *data, size_t n)
{
    tap *t = cookie;
    if (t->st == ISO_OK) t->st = iso_vindex_put(t->sink, data, n, &t->why);
    if (t->st == ISO_OK) return (ssize_t)n;
    errno = EIO;
    return 0; /* what fopencookie's write returns for an error */
}

static iso_status write_payload(FaissIndex *index, iso_vindex_sink *sink, iso_error *err)
{
    tap t = {.sink = sink};
    FILE *stream = fopencookie(&t, "wb", (cookie_io_functions_t){.write = tap_write});
    if (!stream) return iso_fail_memory(err);
    iso_status st = faiss_write_index(index, stream) ? iso_vindex_faiss_fail(err, "writing the index") : ISO_OK;
    if (fclose(stream) != 0 && st == ISO_OK) st = iso_fail_errno(err, "cannot write the index");
    if (t.st != ISO_OK) { /* FAISS saw only a short write: this is the reason */
        if (err) *err = t.why;
        st = t.st;
    }
    return st;
}

static iso_status hnsw_build(iso_vindex *v, const iso_vindex_rows *rows, iso_vindex_sink *sink, iso_error *err)
{
    FaissIndex *index = NULL;
    if (faiss_index_factory(&index, v->info.source.dim, "HNSW32,Flat", METRIC_INNER_PRODUCT) != 0)
        return iso_vindex_faiss_fail(err, "making an index");
    iso_status st = iso_vindex_pass(v, rows, take_rows, index, err);
    if (st == ISO_OK) st = choose_width(v, index, rows, err);
    if (st == ISO_OK) st = iso_vindex_start(sink, 0, err);
    if (st == ISO_OK) st = write_payload(index, sink, err);
    faiss_Index_free(index);
    return st;
}

/* ---- opening ---- */

static void hnsw_close(iso_vindex *v)
{
    if (v->state) faiss_Index_free(v->state);
    v->state = NULL;
}

static iso_status hnsw_open(iso_vindex *v, const char **fault, iso_error *err)
{
    FaissIndex *index = NULL;
    *fault = iso_vindex_hnsw_check(v->payload, v->payload_size, &v->info);
    if (*fault) return ISO_E_FORMAT;
    FILE *stream = fmemopen((void *)(uintptr_t)v->payload, v->payload_size, "rb");
    if (!stream) return iso_fail_memory(err);
    const int rc = faiss_read_index(stream, 0, &index);
    fclose(stream);
    if (rc) return iso_vindex_faiss_fail(err, "reading the index");
    v->state = index;
    return ISO_OK;
}

static int64_t hnsw_want(const iso_vindex *v, int64_t k)
{
    (void)v;
    return ISO_VINDEX_WANT(k);
}

const iso_vindex_engine iso_vindex_graph = {hnsw_build, hnsw_open, hnsw_close, hnsw_search, hnsw_vector, hnsw_slack, hnsw_want};
