/* indexer: from a folder of images to a database that `retrieve` answers from. */
#include "programs/indexer.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/args.h"
#include "base/file.h"
#include "retriever/search.h"

static const iso_subcommand commands[] = {
    {"train", iso_indexer_train, "learn a model from a folder of images"},
    {"flatten", iso_indexer_flatten, "train a flattening flow behind a model"},
    {"whiten", iso_indexer_whiten, "make a model whose vectors are whitened"},
    {"encode", iso_indexer_encode, "put what is new or changed in a folder of images into a database"},
    {"info", iso_indexer_info, "what a database holds"},
    {"verify", iso_indexer_verify, "check every record, vector and index of a database"},
    {"remove", iso_indexer_remove, "remove items from a database"},
    {"reindex", iso_indexer_reindex, "build a database's vector index anew, of a kind of your choice"},
    {"compact", iso_indexer_compact, "give a database's free pages back to the disk"},
    {"export", iso_indexer_export, "write a database's vectors and paths to files"},
    {"import", iso_indexer_import, "make a database of vectors from elsewhere"},
    {NULL, NULL, NULL},
};
static const iso_program program = {"indexer", "From a folder of images to a database that `retrieve` answers from.", commands};

char *iso_indexer_model(const char *dir) { return iso_path_join(dir, ISO_STORE_MODEL); }

/* A searcher brings the index along with it: it rebuilds what is missing or too old. */
iso_status iso_indexer_index(const char *db, bool quiet, iso_error *err)
{
    iso_progress progress;
    const iso_index_talk talk = {&progress, "indexer", NULL};
    iso_store *store = NULL;
    iso_searcher *searcher = NULL;
    iso_progress_open(&progress, quiet);
    iso_status status = iso_store_open(db, ISO_STORE_READ, NULL, &store, err);
    if (!status) status = iso_searcher_open_telling(store, quiet ? NULL : &talk, &searcher, err);
    iso_progress_end(&progress);
    if (!status && iso_searcher_unsaved(searcher)) fprintf(stderr, "indexer: %s\n", iso_searcher_note(searcher));
    iso_vindex_info info;
    char line[200];
    if (!status && iso_index_info_get(store, &info, NULL, NULL) == ISO_OK && iso_index_shortfall(&info, line)) fprintf(stderr, "indexer: %s\n", line);
    iso_searcher_free(searcher);
    iso_store_close(store);
    return status;
}

iso_status iso_indexer_flush(iso_error *err)
{
    if (fflush(stdout) || ferror(stdout)) return iso_fail(err, ISO_E_IO, "cannot write to standard output");
    return ISO_OK;
}

int main(int argc, char **argv)
{
    signal(SIGXFSZ, SIG_IGN); /* a file size limit is an error to report, not to die of */
    return iso_program_run(&program, argc, argv);
}
