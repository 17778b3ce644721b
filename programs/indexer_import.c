/* indexer import: vectors from elsewhere into a database. */
#include <stdio.h>
#include <stdlib.h>

#include "base/args.h"
#include "base/progress.h"
#include "indexer/exchange.h"
#include "programs/indexer.h"

typedef struct config {
    const char *db, *vectors, *paths, *images;
    bool nul, no_index, quiet;
} config;

#define AT(field) offsetof(config, field)
static const iso_option options[] = {
    {"vectors", 0, ISO_ARG_TEXT, AT(vectors), "V.npy", "float32 or float64 [N, m], C order", 0, 0},
    {"paths", 0, ISO_ARG_TEXT, AT(paths), "P.txt", "N paths, line i belongs to row i", 0, 0},
    {"db", 0, ISO_ARG_TEXT, AT(db), "DB", "a new database, or one of imported vectors of m numbers (default: $ISOFACE_DB)", 0, 0},
    {"images", 0, ISO_ARG_TEXT, AT(images), "DIR", "what the paths are relative to (default: the current folder)", 0, 0},
    {"null", '0', ISO_ARG_FLAG, AT(nul), NULL, "paths are raw, each ended by a NUL byte, instead of escaped lines", 0, 0},
    {"no-index", 0, ISO_ARG_FLAG, AT(no_index), NULL, "leave the search index to the first search or to `indexer reindex`", 0, 0},
    {"quiet", 'q', ISO_ARG_FLAG, AT(quiet), NULL, "print nothing", 0, 0},
    {NULL, 0, ISO_ARG_FLAG, 0, NULL, NULL, 0, 0},
};

static const iso_command command = {
    "indexer import",
    "indexer import --vectors V.npy --paths P.txt --db DB [--images DIR] [-0] [--no-index]",
    "Puts vectors of any origin into a database. A path that is there already gets the new vector. Everything is checked\n"
    "before anything is written: a row of zeros (as float32) or with a NaN, or another number of paths than of rows,\n"
    "is refused.\n"
    "A new database is written in one pass, about as fast as the disk takes it, and has all rows or none; where there\n"
    "are items already, vectors are put into it one by one, and a run that was killed goes on where it stopped.",
    options,
    "Such a database has no model: it is searched by `retrieve --query-id`, not by images.",
};

static iso_status run(config *c, iso_error *err)
{
    char *root = NULL;
    iso_import_counts n = {0};
    iso_progress progress;
    if (!c->vectors) return iso_fail(err, ISO_E_ARGUMENT, "--vectors is missing");
    if (!c->paths) return iso_fail(err, ISO_E_ARGUMENT, "--paths is missing");
    iso_status status = iso_args_db(&c->db, err);
    if (status) return status;
    if (c->images && !(root = realpath(c->images, NULL))) return iso_fail_errno(err, "cannot open the folder %s", c->images);
    iso_progress_open(&progress, c->quiet);
    iso_import_spec spec = {.vectors = c->vectors, .paths = c->paths, .db = c->db, .root = root, .nul = c->nul, .progress = &progress};
    status = iso_import(&spec, &n, err);
    iso_progress_end(&progress);
    free(root);
    if (!status && !c->no_index && (n.added || n.changed)) status = iso_indexer_index(c->db, c->quiet, err);
    if (status) return status;
    if (!c->quiet) printf("added %lld, changed %lld, unchanged %lld\n", (long long)n.added, (long long)n.changed, (long long)n.unchanged);
    return iso_indexer_flush(err);
}

int iso_indexer_import(int argc, char **argv)
{
    config c = {0};
    iso_error err = {0};
    int code = iso_args_parse(&command, argc, argv, 2, &c, NULL);
    if (code != ISO_ARGS_RUN) return code;
    iso_interrupt_install();
    return iso_exit(command.program, run(&c, &err), &err);
}
