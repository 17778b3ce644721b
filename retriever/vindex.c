/* vindex.c: what all kinds of index share: building and searching, by the engine of the kind; the ids. */
#include "retriever/vindex_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/host_memory.h"
#include "base/memory.h"
#include "base/progress.h"

bool iso_vindex_kind_known(const char *kind)
{
    static const char *const known[] = {"flat", "sq8", "fp16", "ivf", "hnsw"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(kind, known[i]) == 0) return true;
    return false;
}

bool iso_vindex_kind_approximate(const char *kind) { return strcmp(kind, "ivf") == 0 || strcmp(kind, "hnsw") == 0; }

/* What is taken at a time at most, measured: ivf its payload, or the sample and a copy of some of it; hnsw vectors, links, and what its making takes. */
size_t iso_vindex_needs(const char *kind, int64_t count, int dim)
{
    const size_t n = (size_t)count, d = (size_t)dim, fixed = (size_t)48 << 20;
    if (!iso_vindex_kind_approximate(kind) || count < ISO_VINDEX_SMALL) return 0;
    if (count > INT32_MAX) return SIZE_MAX;
    return fixed + n * (strcmp(kind, "ivf") == 0 ? 4 * d + 8 : 4 * d + 320);
}

const iso_vindex_engine *iso_vindex_engine_of(const iso_vindex_info *info)
{
    if (!info->approximate) return &iso_vindex_exact;
    return strcmp(info->kind, "ivf") == 0 ? &iso_vindex_inverted : &iso_vindex_graph;
}

void iso_vindex_free(iso_vindex *v)
{
    if (!v) return;
    if (v->engine) v->engine->close(v);
    if (v->map) munmap((void *)(uintptr_t)v->map, v->map_size);
    free(v->own);
    free(v);
}

void iso_vindex_info_get(const iso_vindex *v, iso_vindex_info *out) { *out = v->info; }
int64_t iso_vindex_count(const iso_vindex *v) { return v->info.count; }

uint64_t iso_vindex_id(const iso_vindex *v, int64_t position)
{
    int64_t low = 0, high = v->run_count; /* the last run that begins at or before the position */
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (v->runs[middle].at <= (uint64_t)position) low = middle;
        else high = middle;
    }
    return v->runs[low].first + ((uint64_t)position - v->runs[low].at);
}

/* ---- building ---- */

/* Takes ids from position `at` on into the runs; *last is the id before them. */
static iso_status keep_ids(iso_vindex *v, int64_t at, int64_t n, const uint64_t *ids, uint64_t *last, iso_error *err)
{
    for (int64_t i = 0; i < n; i++) {
        const bool first = at + i == 0;
        if (!first && ids[i] <= *last) return iso_fail(err, ISO_E_INTERNAL, "ids out of order while building the index");
        if (first || ids[i] != *last + 1) {
            if (!iso_grow(&v->own, &v->own_room, (size_t)v->run_count + 1, sizeof *v->own)) return iso_fail_memory(err);
            v->own[v->run_count++] = (iso_vindex_run){ids[i], (uint64_t)(at + i)};
            v->runs = v->own;
        }
        *last = ids[i];
    }
    return ISO_OK;
}

iso_status iso_vindex_pass(iso_vindex *v, const iso_vindex_rows *rows, iso_vindex_take *take, void *ctx, iso_error *err)
{
    int64_t at = 0, got = 0;
    uint64_t last = 0;
    uint64_t *ids = iso_calloc(ISO_VINDEX_CHUNK, sizeof *ids);
    float *chunk = iso_calloc(ISO_VINDEX_CHUNK, sizeof *chunk * (size_t)v->info.source.dim);
    iso_status st = ids && chunk ? rows->rewind(rows->ctx, err) : iso_fail_memory(err);
    v->run_count = 0;
    while (st == ISO_OK) {
        st = iso_interrupted() ? iso_fail(err, ISO_E_INTERRUPTED, "interrupted while the index was built") : ISO_OK;
        if (st == ISO_OK) st = rows->next(rows->ctx, ISO_VINDEX_CHUNK, ids, chunk, &got, err);
        if (st != ISO_OK || got == 0) break;
        if (at + got > rows->count) st = iso_fail(err, ISO_E_INTERNAL, "more vectors than announced while building the index");
        if (st == ISO_OK) st = keep_ids(v, at, got, ids, &last, err);
        if (st == ISO_OK) st = take(ctx, at, got, chunk, err);
        at += got;
    }
    if (st == ISO_OK && at != rows->count) st = iso_fail(err, ISO_E_INTERNAL, "fewer vectors than announced while building the index");
    free(ids);
    free(chunk);
    return st;
}

iso_status iso_vindex_take_sample(void *ctx, int64_t first, int64_t n, const float *unit, iso_error *err)
{
    const iso_vindex_sample *s = ctx;
    const size_t dim = (size_t)s->dim;
    (void)err;
    for (int64_t at = (first + s->stride - 1) / s->stride; at * s->stride < first + n; at++)
        memcpy(s->row + (size_t)at * dim, unit + (size_t)(at * s->stride - first) * dim, sizeof *unit * dim);
    return ISO_OK;
}

/* One build, into the file or (path NULL) into memory. *failed: the file could not be written. */
static iso_status build_at(const iso_vindex_info *info, const iso_vindex_rows *rows, const char *path, bool *failed, iso_vindex **out, iso_error *err)
{
    iso_vindex_sink *sink = NULL;
    iso_vindex *v = iso_calloc(1, sizeof *v);
    iso_status st = v ? ISO_OK : iso_fail_memory(err);
    *failed = false;
    if (st == ISO_OK) {
        v->info = *info;
        v->engine = iso_vindex_engine_of(info);
        st = iso_vindex_sink_create(path, &sink, err);
        *failed = path && st == ISO_E_IO;
    }
    if (st == ISO_OK) {
        st = v->engine->build(v, rows, sink, err);
        if (st == ISO_OK) st = iso_vindex_finish(sink, v, err);
        *failed = iso_vindex_sink_failed(sink);
    }
    iso_vindex_sink_free(sink);
    if (st == ISO_OK && out) st = iso_vindex_adopt(v, path ? path : "in memory", err);
    if (st == ISO_OK && out) *out = v;
    else iso_vindex_free(v);
    return st;
}

iso_status iso_vindex_build(const iso_vindex_source *source, const char *kind, const iso_vindex_rows *rows, const char *path, iso_error *unsaved, iso_vindex **out, iso_error *err)
{
    bool failed = false;
    if (!iso_vindex_kind_known(kind))
        return iso_fail(err, ISO_E_ARGUMENT, "unknown kind of index '%s': use flat, sq8, fp16, ivf or hnsw", kind);
    if (source->dim < 1 || source->dim > ISO_VINDEX_MAX_DIM)
        return iso_fail(err, ISO_E_ARGUMENT, "cannot index vectors of %d numbers", source->dim);
    const size_t needs = iso_vindex_needs(kind, rows->count, source->dim), room = needs ? iso_host_memory() : 0;
    if (needs && rows->count > INT32_MAX) return iso_fail(err, ISO_E_UNSUPPORTED, "an index of kind %s holds up to %d vectors", kind, INT32_MAX);
    if (needs > room)
        return iso_fail(err, ISO_E_MEMORY, "out of memory: an index of kind %s needs %zu MB of memory while it is built, where %zu are free; flat, fp16 and sq8 need little", kind,
                        needs >> 20, room >> 20);
    iso_vindex_info info = {.source = *source, .count = rows->count, .recall = 1, .least = 1};
    strcpy(info.kind, kind);
    info.approximate = iso_vindex_kind_approximate(kind) && rows->count >= ISO_VINDEX_SMALL;
    iso_status st = build_at(&info, rows, path, &failed, out, path && unsaved ? unsaved : err);
    if (unsaved && (st == ISO_OK || !path)) unsaved->status = ISO_OK; /* what was met on the way does not count */
    if (st == ISO_OK || !path || !unsaved) return st;
    if (failed) return build_at(&info, rows, NULL, &failed, out, err);
    return iso_fail(err, st, "%s", unsaved->message);
}

/* ---- use ---- */

iso_status iso_vindex_search(const iso_vindex *v, const float *w, int64_t k, uint64_t *ids, double *scores, int64_t *found, double *slack, iso_error *err)
{
    enum { FEW = 64 };
    int64_t n = 0;
    iso_ranked few[FEW], *many = NULL, *best = few;
    iso_vindex_scale scale = {0, iso_vindex_slack(v, w)};
    if (slack) *slack = scale.slack;
    if (k > v->info.count) k = v->info.count;
    if (k <= 0) {
        *found = 0;
        return ISO_OK;
    }
    if (k > FEW && !(best = many = iso_calloc((size_t)k, sizeof *many))) return iso_fail_memory(err);
    iso_status st = v->engine->search(v, w, k, best, &n, &scale, err);
    for (int64_t i = 0; st == ISO_OK && i < n; i++) {
        ids[i] = iso_vindex_id(v, best[i].position);
        scores[i] = scale.base + (double)best[i].score;
    }
    free(many);
    if (st == ISO_OK) *found = n;
    if (st == ISO_OK && slack) *slack = scale.slack;
    return st;
}

double iso_vindex_slack(const iso_vindex *v, const float *w)
{
    double square = 0;
    for (int j = 0; j < v->info.source.dim; j++) square += (double)w[j] * w[j];
    return v->engine->slack(v, w) + sqrt(square) * v->info.error;
}

int64_t iso_vindex_want(const iso_vindex *v, int64_t k) { return v->engine->want(v, k); }

iso_status iso_vindex_vector(iso_vindex *v, int64_t position, float *out, iso_error *err)
{
    if (position < 0 || position >= v->info.count) return iso_fail(err, ISO_E_ARGUMENT, "the index has no position %lld", (long long)position);
    return v->engine->vector(v, position, out, err);
}
