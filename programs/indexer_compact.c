/* indexer compact: free pages back to the disk. */
#include <inttypes.h>
#include <stdio.h>

#include "base/args.h"
#include "base/progress.h"
#include "indexer/store.h"
#include "programs/indexer.h"

typedef struct config { const char *db; bool quiet; } config;

#define AT(field) offsetof(config, field)
static const iso_option options[] = {
    {"db", 0, ISO_ARG_TEXT, AT(db), "DB", "the database (default: $ISOFACE_DB)", 0, 0},
    {"quiet", 'q', ISO_ARG_FLAG, AT(quiet), NULL, "print nothing", 0, 0},
    {NULL, 0, ISO_ARG_FLAG, 0, NULL, NULL, 0, 0},
};

static const iso_command command = {
    "indexer compact",
    "indexer compact --db DB",
    "Rewrites the database without the pages that removed and changed items left free, and with the mean and covariance of its\n"
    "vectors (what --scorer contrast asks for) and the record of changes (by which an index is known to be of this\n"
    "database) where they are missing or wrong. No other program may have it open meanwhile; the old file stands until the new one is\n"
    "complete and on disk.",
    options,
    NULL,
};

int iso_indexer_compact(int argc, char **argv)
{
    config c = {0};
    iso_error err = {0};
    iso_progress progress;
    uint64_t before = 0, after = 0;
    int code = iso_args_parse(&command, argc, argv, 2, &c, NULL);
    if (code != ISO_ARGS_RUN) return code;
    iso_interrupt_install();
    iso_progress_open(&progress, c.quiet);
    iso_status status = iso_args_db(&c.db, &err);
    if (!status) status = iso_store_compact(c.db, &progress, &before, &after, &err);
    iso_progress_end(&progress);
    if (!status && !c.quiet) printf("%" PRIu64 " bytes before, %" PRIu64 " after\n", before, after);
    if (!status) status = iso_indexer_flush(&err);
    return iso_exit(command.program, status, &err);
}
