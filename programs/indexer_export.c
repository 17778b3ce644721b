/* indexer export: a database's vectors and paths into files. */
#include <stdio.h>

#include "base/args.h"
#include "base/progress.h"
#include "indexer/exchange.h"
#include "programs/indexer.h"

typedef struct config {
    const char *db, *vectors, *paths;
    bool nul, quiet;
} config;

#define AT(field) offsetof(config, field)
static const iso_option options[] = {
    {"db", 0, ISO_ARG_TEXT, AT(db), "DB", "the database (default: $ISOFACE_DB)", 0, 0},
    {"vectors", 0, ISO_ARG_TEXT, AT(vectors), "V.npy", "the vectors, float32 [N, m]", 0, 0},
    {"paths", 0, ISO_ARG_TEXT, AT(paths), "P.txt", "the paths, line i belongs to row i", 0, 0},
    {"null", '0', ISO_ARG_FLAG, AT(nul), NULL, "paths raw, each ended by a NUL byte, instead of escaped lines", 0, 0},
    {"quiet", 'q', ISO_ARG_FLAG, AT(quiet), NULL, "print nothing", 0, 0},
    {NULL, 0, ISO_ARG_FLAG, 0, NULL, NULL, 0, 0},
};

static const iso_command command = {
    "indexer export",
    "indexer export --db DB --vectors V.npy --paths P.txt [-0]",
    "Writes every vector, in order of ids, as NumPy reads it, and the path of each, with tabs, newlines, carriage\n"
    "returns and backslashes as \\t, \\n, \\r and \\\\. Both files appear whole or, after a\n"
    "failure, not at all.",
    options,
    NULL,
};

static iso_status run(config *c, iso_error *err)
{
    iso_store *s = NULL;
    iso_progress progress;
    int64_t rows = 0;
    iso_progress_open(&progress, c->quiet);
    if (!c->vectors) return iso_fail(err, ISO_E_ARGUMENT, "--vectors is missing");
    if (!c->paths) return iso_fail(err, ISO_E_ARGUMENT, "--paths is missing");
    iso_status status = iso_args_db(&c->db, err);
    if (!status) status = iso_store_open(c->db, ISO_STORE_READ, NULL, &s, err);
    if (!status) status = iso_export(s, c->vectors, c->paths, c->nul, &progress, &rows, err);
    iso_progress_end(&progress);
    iso_store_close(s);
    if (status) return status;
    if (!c->quiet) printf("exported %lld\n", (long long)rows);
    return iso_indexer_flush(err);
}

int iso_indexer_export(int argc, char **argv)
{
    config c = {0};
    iso_error err = {0};
    int code = iso_args_parse(&command, argc, argv, 2, &c, NULL);
    if (code != ISO_ARGS_RUN) return code;
    iso_interrupt_install();
    return iso_exit(command.program, run(&c, &err), &err);
}
