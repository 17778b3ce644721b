/* indexer verify: is everything in a database as it should be? */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/args.h"
#include "base/progress.h"
#include "indexer/store.h"
#include "model/model.h"
#include "programs/indexer.h"
#include "retriever/search.h"

typedef struct config {
    const char *db;
    bool quiet;
} config;

#define AT(field) offsetof(config, field)
static const iso_option options[] = {
    {"db", 0, ISO_ARG_TEXT, AT(db), "DB", "the database (default: $ISOFACE_DB)", 0, 0},
    {"quiet", 'q', ISO_ARG_FLAG, AT(quiet), NULL, "say nothing when all is well", 0, 0},
    {NULL, 0, ISO_ARG_FLAG, 0, NULL, NULL, 0, 0},
};

static const iso_command command = {
    "indexer verify",
    "indexer verify --db DB",
    "Checks every page, record and vector of the database, that paths and contents lead to their items and back, that\n"
    "its mean and covariance are those of the vectors, that its copy of the model is the model they are of, and its\n"
    "vector index. Every fault is one line; exit code 1 when there is one.",
    options,
    "A faulty index is repaired by `indexer reindex`, a wrong mean and covariance or record of changes by `indexer\n"
    "compact`; a database with other faults is restored, or made anew by `indexer encode`. A vector has no checksum: what\n"
    "changes it by less than the millionth part of its length, or its file's size, time or dimensions, is not seen.",
};

/* ctx: the progress, whose line it would run into. */
static void say(void *ctx, const char *line)
{
    iso_progress_end(ctx);
    puts(line);
}

/* Prints what is wrong with the copy of the model; how many faults. Without memory nothing is known of it. */
static iso_status check_model(const char *db, const iso_store_info *info, int64_t *faults, iso_error *err)
{
    iso_model *m = NULL;
    *faults = 0;
    if (!info->model[0]) return ISO_OK; /* imported vectors */
    char *file = iso_indexer_model(db);
    iso_status status = file ? iso_model_load(file, &m, err) : iso_fail_memory(err);
    free(file);
    if (status == ISO_E_MEMORY) {
        iso_model_free(m);
        return status;
    }
    *faults = 1;
    if (status) printf("the copy of the model is of no use: %s\n", err->message);
    else if (strcmp(iso_model_digest(m), info->digest))
        printf("the copy of the model is %s, the vectors are of %s\n", iso_model_digest(m), info->digest);
    else if (iso_model_dim(m) != info->dim) printf("the model's vectors have %d numbers, the database's %d\n", iso_model_dim(m), info->dim);
    else *faults = 0;
    iso_model_free(m);
    return ISO_OK;
}

static iso_status run(config *c, iso_error *err)
{
    iso_store *s = NULL;
    iso_txn *t = NULL;
    iso_store_info info;
    iso_progress progress;
    int64_t store_faults = 0, model_faults = 0, index_faults = 0;
    iso_progress_open(&progress, c->quiet);
    iso_status status = iso_args_db(&c->db, err);
    if (!status) status = iso_store_open(c->db, ISO_STORE_READ, NULL, &s, err);
    if (!status) status = iso_txn_begin(s, false, &t, err);
    if (!status) info = iso_store_info_get(t);
    iso_txn_abort(t);
    if (!status) status = iso_store_verify(s, say, &progress, &progress, &store_faults, err);
    iso_progress_end(&progress);
    if (!status) status = check_model(c->db, &info, &model_faults, err);
    if (!status && !store_faults) status = iso_index_verify(s, say, &progress, &progress, &index_faults, err);
    iso_progress_end(&progress);
    int64_t faults = store_faults + model_faults + index_faults;
    if (!status && faults) {
        iso_status ignored = iso_indexer_flush(err);
        (void)ignored; /* there is worse to report */
        status = iso_fail(err, ISO_E_FORMAT, "%s has %" PRId64 " fault%s: %s", c->db, faults, faults == 1 ? "" : "s",
                          store_faults ? "do what the line above says; if it says nothing, restore it, or remove it and encode again" : model_faults ? "copy the right model to model.safetensors in it" : "run `indexer reindex`");
    } else if (!status) {
        if (!c->quiet) printf("%s: %" PRIu64 " item%s, no fault\n", c->db, info.count, info.count == 1 ? "" : "s");
        status = iso_indexer_flush(err);
    }
    iso_store_close(s);
    return status;
}

int iso_indexer_verify(int argc, char **argv)
{
    config c = {0};
    iso_error err = {0};
    int code = iso_args_parse(&command, argc, argv, 2, &c, NULL);
    return code != ISO_ARGS_RUN ? code : iso_exit(command.program, run(&c, &err), &err);
}
