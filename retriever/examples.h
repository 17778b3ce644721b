/* examples.h: the examples of a query: from paths, ids and vectors to vectors. Used by isoface.c and `retrieve`. */
#ifndef ISO_EXAMPLES_H
#define ISO_EXAMPLES_H

#include <pthread.h>
#include "indexer/store.h"
#include "model/model.h"
#include "retriever/search.h"

struct iso_db {
    iso_store *store;
    iso_searcher *searcher;
    iso_store_info info;
    char **root;            /* [roots], the newest last: those before it were handed out */
    size_t roots, root_room;
    pthread_mutex_t lock;   /* over the two below */
    iso_model *model;       /* NULL until an image must be encoded */
    iso_encoder *encoder;
};

/* iso_db_open that says what takes long: iso_searcher_open_telling. */
ISO_CHECK iso_status iso_db_open_telling(const char *dir, const iso_index_talk *talk, iso_db **out, iso_error *err);

/* iso_query_run for who has the database alone: refreshes it where something was committed before, and asks again where something was meanwhile, so that
 * the answer is that of one state. Where writers are too fast for that ten times, or what is open was replaced, it is iso_query_run's. */
ISO_CHECK iso_status iso_query_run_settled(iso_query *q, const iso_query_options *options, iso_answer **out, iso_error *err);

typedef struct iso_example {
    char *file;             /* NULL for a bare vector */
    uint64_t hash[2];       /* of the file's content; zeros: unknown */
    uint64_t id;            /* with by_id */
    bool by_id;
} iso_example;

typedef struct iso_examples { /* of one sign */
    iso_example *item;
    float *vector;          /* [count, dim] */
    size_t count, item_room, vector_room;
} iso_examples;

typedef struct iso_pending {
    char *path;             /* as given */
    char *file;             /* absolute: another folder may be current when it is read */
    iso_sign sign;
} iso_pending;
typedef struct iso_skip {
    char *path, *reason;
    iso_sign sign;
} iso_skip;

struct iso_query {
    iso_db *db;
    iso_examples set[2];    /* by iso_sign */
    iso_pending *pending;   /* files still to be read */
    size_t pendings, pending_room;
    iso_skip *skip;
    size_t skips, skip_room;
    iso_progress *progress; /* of the files that are read; NULL: none */
};

/* Appends an example; copies file and vector. */
ISO_CHECK iso_status iso_examples_add(iso_query *q, iso_sign sign, const iso_example *example, const float *vector, iso_error *err);

/* How much a query holds; and the same query as it was then: what is added is added whole or not at all. */
typedef struct iso_query_extent { size_t count[2], pendings, skips; } iso_query_extent;
iso_query_extent iso_query_extent_of(const iso_query *q);
void iso_query_cut(iso_query *q, iso_query_extent to);

/* What lies at a stored path: below the root, unless it is absolute or there is no root. Fresh memory, NULL without. */
char *iso_db_file(const iso_db *db, const char *path);

#endif
