/* vindex_parts.h: what the files vindex*.c share; nobody else includes it.
 *
 * An engine makes the payload of some kinds of index and searches in it:
 *     vindex_exact.c   flat, fp16, sq8: rows scanned where the file is mapped (scan.h)
 *     vindex_ivf.c     ivf: lists of similar vectors, searched as far as the query needs
 *     vindex_hnsw.c    hnsw: FAISS's graph
 * vindex.c chooses the engine and keeps the ids; vindex_file.c writes, checks and maps the file. */
#ifndef ISO_VINDEX_PARTS_H
#define ISO_VINDEX_PARTS_H

#include <stddef.h>
#include "retriever/scan.h"
#include "retriever/vindex.h"

enum {
    ISO_VINDEX_CHUNK = 4096, /* rows that a build holds at a time */
    ISO_VINDEX_DEPTHS = 3,   /* numbers of answers that an approximate kind is tuned for: 1, 10, 64 */
    ISO_VINDEX_SMALL = 40    /* below this many items every kind is kept as flat */
};
#define ISO_VINDEX_WANT(k) ((k) + (k) / 8 + 2) /* candidates that an approximate kind is tuned and searched with, for k answers */

typedef struct iso_vindex_engine iso_vindex_engine;

/* What an answer's scores are: base + score is farther than slack from none of its exact inner products. */
typedef struct iso_vindex_scale { double base, slack; } iso_vindex_scale;

/* Ids first, first + 1, ... from position `at` on, up to the next run: ids are given out in order, so most databases are
 * one run. */
typedef struct iso_vindex_run { uint64_t first, at; } iso_vindex_run;

struct iso_vindex {
    iso_vindex_info info;
    const iso_vindex_engine *engine;
    void *state;                /* the engine's; NULL: none */
    const iso_vindex_run *runs; /* in the file or in `own`; both numbers ascend */
    int64_t run_count;
    iso_vindex_run *own;        /* while building */
    size_t own_room;
    const uint8_t *map;         /* the file, mapped, or memory with the same content */
    size_t map_size;
    const uint8_t *payload;     /* in map; bytes: */
    size_t payload_size;
};

/* ---- for an engine's build ---- */

/* Where a payload goes: the file, or memory where there is none. */
typedef struct iso_vindex_sink iso_vindex_sink;

/* Before the first put: byte `lead` of the payload comes to lie on a page boundary (0 will do). */
ISO_CHECK iso_status iso_vindex_start(iso_vindex_sink *s, size_t lead, iso_error *err);
ISO_CHECK iso_status iso_vindex_put(iso_vindex_sink *s, const void *data, size_t size, iso_error *err);

/* One pass over all rows, ISO_VINDEX_CHUNK at a time: `take` gets rows [n, dim] from position `first` on. The ids are kept
 * and checked here. */
typedef iso_status iso_vindex_take(void *ctx, int64_t first, int64_t n, const float *unit, iso_error *err);
ISO_CHECK iso_status iso_vindex_pass(iso_vindex *v, const iso_vindex_rows *rows, iso_vindex_take *take, void *ctx, iso_error *err);
/* What keeps rows 0, stride, 2 stride ... of them in `row` [count / stride rounded up, dim]. */
typedef struct iso_vindex_sample { int dim; int64_t stride; float *row; } iso_vindex_sample;
iso_vindex_take iso_vindex_take_sample; /* ctx: an iso_vindex_sample */

struct iso_vindex_engine {
    /* Writes the payload; sets of v->info what it finds out: approximate, width, recall, error. May not keep anything in v. */
    iso_status (*build)(iso_vindex *v, const iso_vindex_rows *rows, iso_vindex_sink *sink, iso_error *err);
    /* Makes v->state from v->payload, which stays mapped as long as v lives. v->info is set, the checksums agree; still
     * nothing in the payload is believed that would read outside of it. *fault (NULL: none): what is wrong with it; then
     * the status is ISO_E_FORMAT and err is left to the caller. */
    iso_status (*open)(iso_vindex *v, const char **fault, iso_error *err);
    void (*close)(iso_vindex *v); /* frees v->state, which may be NULL */
    /* The k best positions, best first, 1 <= k <= count. Thread-safe. *scale is set to base 0 and what iso_vindex_slack says before. */
    iso_status (*search)(const iso_vindex *v, const float *w, int64_t k, iso_ranked *out, int64_t *found, iso_vindex_scale *scale, iso_error *err);
    iso_status (*vector)(iso_vindex *v, int64_t position, float *out, iso_error *err);
    /* No score is farther than this from the exact product of w with what the index keeps of the vector. */
    double (*slack)(const iso_vindex *v, const float *w);
    int64_t (*want)(const iso_vindex *v, int64_t k); /* as iso_vindex_want */
};

extern const iso_vindex_engine iso_vindex_exact, iso_vindex_inverted, iso_vindex_graph;
bool iso_vindex_kind_known(const char *kind);
/* By kind and approximate. */
const iso_vindex_engine *iso_vindex_engine_of(const iso_vindex_info *info);

/* ---- between vindex.c and vindex_file.c ---- */

/* path NULL: memory. */
ISO_CHECK iso_status iso_vindex_sink_create(const char *path, iso_vindex_sink **out, iso_error *err);
/* Whether the file could not be written: then ISO_E_IO of a build is its fault. */
bool iso_vindex_sink_failed(const iso_vindex_sink *s);
/* Behind the payload: ids, checksums, header. A file is committed; it, or the memory, becomes v->map. */
ISO_CHECK iso_status iso_vindex_finish(iso_vindex_sink *s, iso_vindex *v, iso_error *err);
void iso_vindex_sink_free(iso_vindex_sink *s);

/* Fills v from v->map, whose checksums agree; `path` is for messages. */
ISO_CHECK iso_status iso_vindex_adopt(iso_vindex *v, const char *path, iso_error *err);

#endif
