/* evaluate compare: the retrieval tables of several models, side by side. */
#include <omp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/args.h"
#include "base/file.h"
#include "base/progress.h"
#include "indexer/dataset.h"
#include "programs/evaluate.h"
#include "programs/evaluate_compare.h"
#include "programs/evaluate_print.h"

static const char program[] = "evaluate compare";

typedef struct config {
    const char *images, *models, *seeds, *scorers, *examples, *attributes, *partition, *format, *chart, *work;
    int64_t split, query_split, draws, seed, bootstrap, threads;
    bool per_attribute, quiet;
    char *own_attributes, *own_partition; /* found by --images */
} config;

#define AT(field) offsetof(config, field)
static const iso_option options[] = {
    {"images", 0, ISO_ARG_TEXT, AT(images), "DIR", "the data set in CelebA's layout: its images, and both files", 0, 0},
    {"models", 0, ISO_ARG_TEXT, AT(models), "A,B,...", "NAME or LABEL=NAME: model files, or database folders", 0, 0},
    {"seeds", 0, ISO_ARG_TEXT, AT(seeds), "N,N,...", "what {seed} in a NAME stands for, one after another", 0, 0},
    {"scorer", 0, ISO_ARG_TEXT, AT(scorers), "S,S",
     "sum, contrast or both, as sum,contrast (default: sum)", 0, 0},
    {"split", 0, ISO_ARG_INT, AT(split), "N", "the part that is ranked (default: 2, the test images)", 0, 2},
    {"query-split", 0, ISO_ARG_INT, AT(query_split), "N",
     "the part that the examples come from (default: 0, the training images)", 0, 2},
    {"examples", 0, ISO_ARG_TEXT, AT(examples), "N,N,...",
     "P@10 with so few examples (default: 1,5,10,50,200); none: without", 0, 0},
    {"draws", 0, ISO_ARG_INT, AT(draws), "N", "how often these are drawn (default: 20)", 1, ISO_FEW_DRAWS},
    {"seed", 0, ISO_ARG_INT, AT(seed), "N", "of these draws and of the bootstrap (default: 0)", 0, 9007199254740992.0},
    {"bootstrap", 0, ISO_ARG_INT, AT(bootstrap), "N", "resamples for the 95 % interval (default: 1000); 0: none", 0,
     ISO_COMPARE_RESAMPLES},
    {"per-attribute", 0, ISO_ARG_FLAG, AT(per_attribute), NULL, "also a line for each attribute", 0, 0},
    {"format", 0, ISO_ARG_CHOICE, AT(format), "table|json|markdown", "how to print (default: table)", 0, 0},
    {"chart", 0, ISO_ARG_TEXT, AT(chart), "OUT.png", "also a bar chart", 0, 0},
    {"work", 0, ISO_ARG_TEXT, AT(work), "DIR", "where databases of model files go (default: beside each file)", 0, 0},
    {"attributes", 0, ISO_ARG_TEXT, AT(attributes), "FILE",
     "another attribute file (default: list_attr_celeba.txt in DIR)", 0, 0},
    {"partition", 0, ISO_ARG_TEXT, AT(partition), "FILE",
     "another partition file (default: list_eval_partition.txt in DIR)", 0, 0},
    {"threads", 0, ISO_ARG_INT, AT(threads), "N", "threads to use (default: all)", 1, 1024},
    {"quiet", 'q', ISO_ARG_FLAG, AT(quiet), NULL, "no progress and no notes on stderr", 0, 0},
    {NULL, 0, ISO_ARG_FLAG, 0, NULL, NULL, 0, 0}};

static const iso_command command = {
    program, "evaluate compare --images DIR --models A,B,... [options]",
    "One table from several models: precision at K of single and double attributes, as `evaluate precision` computes it, and P@10 "
    "with few examples beside it. A row is a model and a scorer; the interval is that of P@10.\n"
    "\n"
    "A model file M.safetensors is encoded first, as `indexer encode` does, into M.db beside it; the next time that is only "
    "brought up to date. A folder is a database, of any network's vectors (`indexer import`), and is taken as it is. Models may "
    "differ in the length of their vectors. LABEL= names a row; else the model says what it is, as "
    "\"IRVAE + FM (alpha 1000, beta 100)\", or the folder's name does.\n"
    "\n"
    "{seed} in a name is replaced by each of --seeds; these models are one row, mean ± standard deviation over the seeds. The "
    "interval is a percentile bootstrap over the attributes, and a pair goes with its two: it says how much a mean hangs on "
    "which attributes were asked for.\n"
    "\n"
    "All rankings are over the same images: where the databases differ, only those that all have are used, and a note says how many. "
    "The background of contrast is each database as a whole, as in `retrieve`.\n"
    "\n"
    "A model that cannot be used is named and left out, the rest is compared, and the exit code is 1.",
    options,
    "Exit codes: 0 done; 1 failed, or a model was left out; 2 wrong usage.\n"
    "Examples:\n"
    "  evaluate compare --images faces/ --models pca.safetensors,vae.safetensors,ResNet-50=resnet50.db\n"
    "  evaluate compare --images faces/ --models vae-{seed}.safetensors,irvae-{seed}.safetensors --seeds 0,1 \\\n"
    "      --scorer sum,contrast --per-attribute --format markdown --chart table1.png"};

static iso_status missing(iso_error *err, const char *what)
{
    return iso_fail(err, ISO_E_ARGUMENT, "%s (see --help)", what);
}

static iso_status ask(config *c, iso_comparison *q, iso_error *err)
{
    if (!c->images) return missing(err, "no data set: give --images DIR");
    if (!c->models) return missing(err, "no models: give --models A,B,...");
    c->own_attributes = iso_path_join(c->images, ISO_DATASET_ATTRIBUTES);
    c->own_partition = iso_path_join(c->images, ISO_DATASET_PARTITION);
    if (!c->own_attributes || !c->own_partition) return iso_fail_memory(err);
    *q = (iso_comparison){.program = program,
                          .images = c->images,
                          .work = c->work,
                          .query_part = (int)c->query_split,
                          .test_part = (int)c->split,
                          .attribute_file = c->attributes ? c->attributes : c->own_attributes,
                          .partition_file = c->partition ? c->partition : c->own_partition,
                          .threads = (int)c->threads,
                          .quiet = c->quiet,
                          .resamples = (int)c->bootstrap};
    q->with_few = strcmp(c->examples, "none") != 0;
    iso_status status =
        q->with_few ? iso_few_parse(c->examples, (int)c->draws, (uint64_t)c->seed, &q->few, err) : ISO_OK;
    if (status) return iso_fail_prefix(err, status, "--examples");
    q->few.seed = (uint64_t)c->seed;
    return iso_compared_parse(q, c->models, c->seeds, c->scorers, err);
}

static iso_status compare(config *c, iso_error *err)
{
    iso_comparison q = {0};
    iso_status status = ask(c, &q, err);
    if (status) goto done;
    if (c->chart && (status = iso_evaluate_picture(c->chart, err))) goto done;
    if ((status = iso_comparison_run(&q, err))) goto done;
    if (strcmp(c->format, "json") == 0)
        iso_comparison_json(&q);
    else if (strcmp(c->format, "markdown") == 0)
        iso_comparison_markdown(&q, c->per_attribute);
    else
        iso_comparison_table(&q, c->per_attribute);
    if (fflush(stdout) || ferror(stdout)) status = iso_fail_errno(err, "cannot write the results");
    if (!status && c->chart) status = iso_comparison_chart(&q, c->chart, err);
    if (!status && q.failures)
        status = iso_fail(err, ISO_E_MISMATCH, "the table is not complete: what is left out is said above");
done:
    iso_comparison_clear(&q);
    return status;
}

int iso_evaluate_compare(int argc, char **argv)
{
    config c = {.split = 2,
                .scorers = "sum",
                .examples = "1,5,10,50,200",
                .draws = 20,
                .bootstrap = 1000,
                .format = "table"};
    int code = iso_args_parse(&command, argc, argv, 2, &c, NULL);
    if (code != ISO_ARGS_RUN) return code;
    if (c.threads > 0) omp_set_num_threads((int)c.threads);
    iso_interrupt_install();
    iso_error err = {0};
    iso_status status = compare(&c, &err);
    free(c.own_attributes), free(c.own_partition);
    return iso_exit(program, status, &err);
}
