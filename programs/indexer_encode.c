/* indexer encode: what is new or changed in a folder of images goes into a database. */
#include <omp.h>
#include <stdlib.h>
#include <stdio.h>

#include "base/args.h"
#include "base/progress.h"
#include "indexer/model_copy.h"
#include "model/device.h"
#include "programs/encoding.h"
#include "programs/indexer.h"

typedef struct config {
    const char *images, *model, *db, *device;
    int64_t batch, threads;
    bool prune, relocate, strict, quiet;
} config;

#define AT(field) offsetof(config, field)
static const iso_option options[] = {
    {"images", 0, ISO_ARG_TEXT, AT(images), "DIR", "the folder of images, or one in CelebA's layout", 0, 0},
    {"model", 0, ISO_ARG_TEXT, AT(model), "M", "the model (default: the database's own)", 0, 0},
    {"db", 0, ISO_ARG_TEXT, AT(db), "DB", "the database; made when there is none (default: $ISOFACE_DB)", 0, 0},
    {"prune", 0, ISO_ARG_FLAG, AT(prune), NULL, "also remove items whose files went away", 0, 0},
    {"relocate", 0, ISO_ARG_FLAG, AT(relocate), NULL, "the database's folder of images has moved to DIR", 0, 0},
    {"strict", 0, ISO_ARG_FLAG, AT(strict), NULL, "exit 1 when a file was skipped", 0, 0},
    {"batch", 0, ISO_ARG_INT, AT(batch), "N", "images encoded at a time (default: 128); fewer than 7 can change a vector's last bits", 1, 512},
    {"device", 0, ISO_ARG_CHOICE, AT(device), ISO_DEVICES, "where to compute (default: cpu); cuda: a GPU, products in TF32", 0, 0},
    {"threads", 0, ISO_ARG_INT, AT(threads), "N", "threads (default: all)", 1, 1024},
    {"quiet", 'q', ISO_ARG_FLAG, AT(quiet), NULL, "no progress; skipped files are still listed", 0, 0},
    {NULL, 0, ISO_ARG_FLAG, 0, NULL, NULL, 0, 0},
};

static const iso_command command = {
    "indexer encode",
    "indexer encode --images DIR --model M --db DB [options]",
    "Decodes and encodes what is new or changed in DIR, by path, size, time and content; a second run does nothing.\n"
    "A file that was moved or copied takes the vector that its content has already. What is no usable image is\n"
    "listed on stderr and tried again by the next run; an item that it was before keeps its old vector and stays an answer,\n"
    "with --prune, too, until `indexer remove`. JPEG and PNG are read, of up to 104 megapixels; names that\n"
    "begin with a dot are left out. Every second or two is committed: after Ctrl-C, or worse, the\n"
    "same command goes on where it stopped. Readers are not disturbed.",
    options,
    "A copy of the model in DB that is lost, damaged or another one is replaced by M where that is the right one.\n"
    "Paths are stored relative to DIR (in CelebA's layout, to DIR/img_align_celeba).",
};

static void summary(const config *c, const iso_encode_counts *n)
{
    printf("added %lld, changed %lld, unchanged %lld, skipped %lld, removed %lld\n", (long long)n->added, (long long)n->changed,
           (long long)n->unchanged, (long long)n->skipped, (long long)n->removed);
    if (!c->quiet) iso_encoding_rate(n);
}

/* The model that the database has. One that was never completed has its copy already, and nothing that it could be compared with. */
static iso_status load_own(const char *db, iso_model **m, iso_error *err)
{
    iso_store *s = NULL;
    iso_txn *t = NULL;
    iso_store_info info;
    iso_error why;
    iso_status status = iso_store_open(db, ISO_STORE_READ, NULL, &s, err);
    if (status) {
        char *copy = iso_indexer_model(db);
        if (copy && !iso_model_load(copy, m, &why)) status = ISO_OK;
        free(copy);
        return status;
    }
    status = iso_txn_begin(s, false, &t, err);
    if (!status) info = iso_store_info_get(t);
    if (!status && !info.model[0])
        status = iso_fail(err, ISO_E_UNSUPPORTED, "%s holds imported vectors and no model to encode images with: name another database", db);
    if (!status) status = iso_model_copy_load(s, &info, m, err);
    iso_txn_abort(t);
    iso_store_close(s);
    return status;
}

static iso_status run(config *c, iso_encode_counts *counts, iso_error *err)
{
    iso_model *m = NULL;
    char *own = NULL;
    bool mended = false;
    if (!c->images) return iso_fail(err, ISO_E_ARGUMENT, "--images is missing");
    iso_status status = iso_args_db(&c->db, err);
    if (status) return status;
    if (!c->model) {
        iso_store_found found;
        if ((status = iso_store_look(c->db, &found, err))) return status;
        if (found != ISO_STORE_COMPLETE)
            return iso_fail(err, ISO_E_ARGUMENT, "--model is missing: %s %s", c->db, found == ISO_STORE_NONE ? "is not there yet" : "was never completed");
        if (!(c->model = own = iso_indexer_model(c->db))) return iso_fail_memory(err);
    }
    const iso_backend *backend = NULL;
    if ((status = iso_device_find(c->device, &backend, err))) goto done;
    if (c->threads) omp_set_num_threads((int)c->threads);
    if ((status = own ? load_own(c->db, &m, err) : iso_model_load(c->model, &m, err))) goto done;
    iso_encoding e = {.images = c->images, .db = c->db, .model = c->model, .batch = (int)c->batch, .threads = (int)c->threads, .backend = backend,
                      .prune = c->prune, .relocate = c->relocate, .quiet = c->quiet};
    status = iso_encoding_run(&e, m, counts, err);
    if (!status && !own) status = iso_model_copy_mend(c->db, m, &mended, err); /* the model is the vectors' now, or there was an error */
    if (mended) fprintf(stderr, "%s: %s had a wrong copy of its model: the right one is in its place now\n", command.program, c->db);
done:
    iso_model_free(m);
    free(own);
    return status;
}

int iso_indexer_encode(int argc, char **argv)
{
    config c = {.batch = 128, .device = "cpu"};
    iso_error err = {0};
    iso_encode_counts counts = {0};
    int code = iso_args_parse(&command, argc, argv, 2, &c, NULL);
    if (code != ISO_ARGS_RUN) return code;
    iso_interrupt_install();
    iso_status status = run(&c, &counts, &err);
    if (!status || status == ISO_E_INTERRUPTED) summary(&c, &counts);
    if (!status && (counts.added || counts.changed || counts.removed)) status = iso_indexer_index(c.db, c.quiet, &err);
    if (!status) status = iso_indexer_flush(&err);
    if (!status && c.strict && counts.skipped)
        status = iso_fail(&err, ISO_E_FORMAT, "%lld file%s could not be used (--strict)", (long long)counts.skipped, counts.skipped == 1 ? "" : "s");
    return iso_exit(command.program, status, &err);
}
