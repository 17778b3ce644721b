/* evaluate precision: single- and double-attribute retrieval over a database. */
#include <omp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/args.h"
#include "base/file.h"
#include "base/progress.h"
#include "eval/evaluate.h"
#include "indexer/dataset.h"
#include "programs/evaluate.h"
#include "programs/evaluate_print.h"

static const char program[] = "evaluate precision";

typedef struct config {
    const char *db, *attributes, *partition, *images, *scorer, *format, *examples;
    int64_t split, query_split, threads, draws, seed; /* draws and seed: -1 where not given */
    bool per_attribute, timing, quiet;
    char *own_attributes, *own_partition; /* found by --images */
} config;

static const iso_option options[] = {
    {"db", 0, ISO_ARG_TEXT, offsetof(config, db), "DB", "the database (default: $ISOFACE_DB)", 0, 0},
    {"attributes", 0, ISO_ARG_TEXT, offsetof(config, attributes), "FILE", "which image has which attribute: list_attr_celeba.txt", 0, 0},
    {"partition", 0, ISO_ARG_TEXT, offsetof(config, partition), "FILE", "which image trains, validates, tests: list_eval_partition.txt", 0, 0},
    {"images", 0, ISO_ARG_TEXT, offsetof(config, images), "DIR", "the data set: both files from this folder", 0, 0},
    {"split", 0, ISO_ARG_INT, offsetof(config, split), "N", "the part that is ranked (default: 2, the test images)", 0, 2},
    {"query-split", 0, ISO_ARG_INT, offsetof(config, query_split), "N", "the part that the examples come from (default: 0, the training images)", 0, 2},
    {"scorer", 0, ISO_ARG_CHOICE, offsetof(config, scorer), "sum|contrast", "how examples become one query (default: sum)", 0, 0},
    {"examples", 0, ISO_ARG_TEXT, offsetof(config, examples), "N,N,...", "also P@10 with so few examples, as 1,5,10,50,200 (at most 16 numbers)", 0, 0},
    {"draws", 0, ISO_ARG_INT, offsetof(config, draws), "N", "with --examples: how often they are drawn (default: 20)", 1, ISO_FEW_DRAWS},
    {"seed", 0, ISO_ARG_INT, offsetof(config, seed), "N", "with --examples: another number draws others (default: 0)", 0, 9007199254740992.0},
    {"per-attribute", 0, ISO_ARG_FLAG, offsetof(config, per_attribute), NULL, "also a line for each attribute", 0, 0},
    {"format", 0, ISO_ARG_CHOICE, offsetof(config, format), "table|json", "how to print (default: table)", 0, 0},
    {"threads", 0, ISO_ARG_INT, offsetof(config, threads), "N", "threads to use (default: all)", 1, 1024},
    {"timing", 0, ISO_ARG_FLAG, offsetof(config, timing), NULL, "the seconds that reading, the table and the few examples took, on stderr", 0, 0},
    {"quiet", 'q', ISO_ARG_FLAG, offsetof(config, quiet), NULL, "no notes on stderr", 0, 0},
    {NULL, 0, 0, 0, NULL, NULL, 0, 0}};

static const iso_command command = {
    program,
    "evaluate precision --db DB --attributes FILE --partition FILE [options]",
    "For each attribute, the training images that have it are the examples and the test images are ranked. P@K is the share of "
    "the first K that have it, in per cent, averaged over the attributes; chance is the share of all test images that have it, "
    "which a random order would reach. Where fewer than K are ranked, it is over all of them, and a note says so. Pairs of attributes likewise, for pairs that more than 1 % and less than 50 % of the "
    "test images have. An attribute that no training or no test image has is left out and named.\n"
    "\n"
    "--scorer sum ranks by the mean cosine to the examples; contrast by what they share against the background of the whole "
    "database (a linear discriminant with one class given, its covariance shrunk the more the fewer examples there are). "
    "A set of examples that has no direction, as all images of the database under contrast, is left out and named.\n"
    "\n"
    "--examples measures what a person's search gets: n training images with the attribute, drawn at random without "
    "replacement, are the examples; P@10 is averaged over the draws and the attributes. A larger n adds to the examples of "
    "a smaller one. After ± stands the standard error over the draws. An attribute that fewer than n training images have "
    "is left out for that n and named; a pair is counted.",
    options,
    "Exit codes: 0 done; 1 failed; 2 wrong usage.\n"
    "Examples:\n"
    "  evaluate precision --db faces.db --images faces/ --per-attribute\n"
    "  evaluate precision --db faces.db --images faces/ --examples 1,5,10,50,200"};

static iso_status usage(iso_error *err, const char *what) { return iso_fail(err, ISO_E_ARGUMENT, "%s (see --help)", what); }

/* Both files, each from its option or from the data set's folder. */
static iso_status find_files(config *c, iso_error *err)
{
    if (c->images) {
        c->own_attributes = iso_path_join(c->images, ISO_DATASET_ATTRIBUTES);
        c->own_partition = iso_path_join(c->images, ISO_DATASET_PARTITION);
        if (!c->own_attributes || !c->own_partition) return iso_fail_memory(err);
        if (!c->attributes) c->attributes = c->own_attributes;
        if (!c->partition) c->partition = c->own_partition;
    }
    iso_status status = iso_args_db(&c->db, err);
    if (status) return status;
    if (!c->attributes) return usage(err, "no attributes: give --attributes FILE, or --images DIR for both files");
    if (!c->partition) return usage(err, "no partition: give --partition FILE, or --images DIR for both files");
    return ISO_OK;
}

static iso_status few_options(const config *c, iso_few_options *o, iso_error *err)
{
    if (!c->examples && (c->draws >= 0 || c->seed >= 0)) return usage(err, "--draws and --seed need --examples");
    if (!c->examples) return ISO_OK;
    iso_status status = iso_few_parse(c->examples, c->draws < 0 ? 20 : (int)c->draws, c->seed < 0 ? 0 : (uint64_t)c->seed, o, err);
    return status ? iso_fail_prefix(err, status, "--examples") : ISO_OK;
}

static iso_status evaluate(config *c, iso_error *err)
{
    const double begin = omp_get_wtime();
    const iso_scoring scoring = (iso_scoring)iso_scorer_by_name(c->scorer); /* one of them, or the options refuse it */
    iso_evaluation *e = NULL;
    iso_precision *p = NULL;
    iso_few *f = NULL;
    iso_few_options few = {0};
    iso_progress progress;
    iso_progress_open(&progress, c->quiet);
    iso_status status = find_files(c, err);
    if (status) goto done;
    if ((status = few_options(c, &few, err))) goto done;
    if ((status = iso_evaluation_open(c->db, c->attributes, c->partition, (int)c->query_split, (int)c->split, scoring == ISO_CONTRAST, &e, err))) goto done;
    const double read = omp_get_wtime();
    if ((status = iso_evaluation_precision(e, scoring, &p, err))) goto done;
    if (c->timing) fprintf(stderr, "%s: %.4f s to read the files and the database, %.4f s for the table\n", program, read - begin, omp_get_wtime() - read);
    if (!c->quiet) iso_evaluate_notes(program, &e->matches);
    if (!c->quiet) iso_evaluate_short_ranking(program, e->test.part, e->test.count);
    if (!c->quiet) iso_evaluate_left_out(program, NULL, e, p);
    if (p->singles == 0) {
        status = iso_fail(err, ISO_E_MISMATCH, "no attribute has both a %s image, as an example, and a %s image, to be found", iso_part_name[e->query.part], iso_part_name[e->test.part]);
        goto done;
    }
    if (p->single_sets == 0) {
        status = iso_fail(err, ISO_E_NUMERIC, "no attribute's examples have a direction with --scorer %s", c->scorer);
        goto done;
    }
    const double asking = omp_get_wtime();
    few.progress = &progress;
    if (c->examples && (status = iso_evaluation_few(e, scoring, &few, &f, err))) goto done;
    iso_progress_end(&progress);
    if (c->timing && f) fprintf(stderr, "%s: %.4f s for the few examples\n", program, omp_get_wtime() - asking);
    if (f && !c->quiet) iso_evaluate_few_short(program, e, f);
    if (f && !c->quiet) iso_evaluate_few_lost(program, NULL, e, f);
    if (strcmp(c->format, "json") == 0) iso_evaluate_json(c->db, c->scorer, e, p, f);
    else iso_evaluate_table(c->db, c->scorer, c->per_attribute, e, p, f);
    if (fflush(stdout) || ferror(stdout)) status = iso_fail_errno(err, "cannot write the results");
done:
    iso_progress_end(&progress);
    iso_few_free(f);
    iso_precision_free(p);
    iso_evaluation_free(e);
    return status;
}

int iso_evaluate_precision(int argc, char **argv)
{
    config c = {.split = 2, .query_split = 0, .scorer = "sum", .format = "table", .draws = -1, .seed = -1};
    int code = iso_args_parse(&command, argc, argv, 2, &c, NULL);
    if (code != ISO_ARGS_RUN) return code;
    if (c.threads > 0) omp_set_num_threads((int)c.threads);
    iso_error err = {0};
    iso_status status = evaluate(&c, &err);
    free(c.own_attributes), free(c.own_partition);
    return iso_exit(program, status, &err);
}
