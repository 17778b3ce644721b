/* indexer reindex: a new vector index for a database. */
#include <omp.h>
#include <stdio.h>

#include "base/args.h"
#include "base/progress.h"
#include "indexer/store.h"
#include "programs/indexer.h"
#include "retriever/search.h"

typedef struct config {
    const char *db, *index;
    int64_t threads;
    bool quiet;
} config;

#define AT(field) offsetof(config, field)
static const iso_option options[] = {
    {"db", 0, ISO_ARG_TEXT, AT(db), "DB", "the database (default: $ISOFACE_DB)", 0, 0},
    {"index", 0, ISO_ARG_CHOICE, AT(index), "flat|sq8|fp16|ivf|hnsw", "its kind (default: flat below 100,000 items, ivf from there on where memory does for it)", 0, 0},
    {"threads", 0, ISO_ARG_INT, AT(threads), "N", "threads (default: all)", 1, 1024},
    {"quiet", 'q', ISO_ARG_FLAG, AT(quiet), NULL, "no progress", 0, 0},
    {NULL, 0, ISO_ARG_FLAG, 0, NULL, NULL, 0, 0},
};

static const iso_command command = {
    "indexer reindex",
    "indexer reindex --db DB [--index KIND]",
    "Builds the vector index anew. flat is exact; sq8 and fp16 take a quarter and half of its memory and are exact, too\n"
    "(what they propose is checked); ivf and hnsw are faster on large databases and find nearly all.\n"
    "The same database gives the same index, whatever --threads says; but hnsw's graph only with --threads 1.",
    options,
    "`retrieve` rebuilds an index that is missing or damaged by itself; items added since are found without one. One\n"
    "program builds at a time, the others wait.",
};

static iso_status run(config *c, iso_error *err)
{
    iso_store *s = NULL;
    iso_vindex_info info;
    iso_progress progress;
    const iso_index_talk talk = {&progress, "indexer", NULL};
    iso_progress_open(&progress, c->quiet);
    iso_status status = iso_args_db(&c->db, err);
    if (c->threads) omp_set_num_threads((int)c->threads);
    if (!status) status = iso_store_open(c->db, ISO_STORE_READ, NULL, &s, err);
    if (!status) status = iso_index_build(s, c->index, c->quiet ? NULL : &talk, err);
    iso_progress_end(&progress);
    if (!status) status = iso_index_info_get(s, &info, NULL, err);
    iso_store_close(s);
    if (status) return status;
    printf("%s index of %lld items", info.kind, (long long)info.count);
    if (info.approximate) printf(", recall@10 %.3f", info.recall);
    putchar('\n');
    char line[200];
    if (!(c->index && !info.approximate) && iso_index_shortfall(&info, line)) fprintf(stderr, "%s: %s\n", command.program, line);
    return iso_indexer_flush(err);
}

int iso_indexer_reindex(int argc, char **argv)
{
    config c = {0};
    iso_error err = {0};
    int code = iso_args_parse(&command, argc, argv, 2, &c, NULL);
    if (code != ISO_ARGS_RUN) return code;
    iso_interrupt_install();
    return iso_exit(command.program, run(&c, &err), &err);
}
