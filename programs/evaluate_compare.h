/* evaluate_compare.h: what the parts of `evaluate compare` share: the models asked for, what came out, how it is printed. */
#ifndef ISO_PROGRAMS_EVALUATE_COMPARE_H
#define ISO_PROGRAMS_EVALUATE_COMPARE_H

#include "eval/compare.h"
#include "model/model.h"

enum { ISO_SCORERS = 2, ISO_SEEDS_MAX = 64 };

/* One model, of one seed: a file, or a database folder. */
typedef struct iso_compared_model {
    char *name; /* as given, with {seed} replaced */
    bool has_seed;
    int64_t seed;
    char *db, *label; /* where its vectors are; what it calls itself; NULL until known */
    char digest[33];
    int dim;
    iso_matches matches;
    iso_rows query, test; /* images it has of the two parts */
    bool usable;
    iso_precision *precision[ISO_SCORERS]; /* NULL: not asked for, or failed */
    iso_few *few[ISO_SCORERS];
} iso_compared_model;

/* An entry of --models: one model, or one of each seed. */
typedef struct iso_compared_entry {
    char *pattern; /* the name before {seed} is replaced */
    char *label;   /* given, or of the first model; NULL until known */
    bool label_given;
    int first, models; /* in iso_comparison.model */
} iso_compared_entry;

/* A row of the tables: an entry under a scorer, over the models that could be evaluated. */
typedef struct iso_compared_row {
    const iso_compared_entry *entry;
    iso_scoring scoring;
    int runs;
    const iso_compared_model **model; /* [runs] */
    const iso_precision **precision;  /* [runs] */
    const iso_few **few;              /* [runs], NULL: not asked for */
    iso_summary sum;
} iso_compared_row;

typedef struct iso_compared_failure {
    char *name, *message;
} iso_compared_failure;

typedef struct iso_comparison {
    /* what is asked */
    const char *program, *images, *attribute_file, *partition_file, *work;
    int query_part, test_part, threads, scorers;
    iso_scoring scorer[ISO_SCORERS];
    bool with_few, quiet;
    iso_few_options few;
    int resamples; /* of the bootstrap, with few.seed */
    int entries, models;
    iso_compared_entry *entry;
    iso_compared_model *model;
    /* what came out */
    iso_rows query, test; /* images that all have */
    int attributes;
    char **name; /* [attributes] */
    int rows;
    iso_compared_row *row;
    int failures;
    size_t failure_room;
    iso_compared_failure *failure;
} iso_comparison;

/* evaluate_models.c: --models, --seeds and --scorer into entries and models. ISO_E_ARGUMENT says what is wrong. */
ISO_CHECK iso_status iso_compared_parse(iso_comparison *c, const char *models, const char *seeds, const char *scorers,
                                        iso_error *err);
/* The name of a model after its metadata: "IRVAE + FM (alpha 1000, beta 100)". Fresh memory; NULL when memory is out. */
char *iso_compared_label(const iso_model *m, const char *name);
/* "vae24" of "runs/vae24.safetensors" or "runs/vae24.db/". Fresh memory; NULL when memory is out. */
char *iso_compared_stem(const char *name);
/* Gives every entry a label, all of them different. */
ISO_CHECK iso_status iso_compared_name_entries(iso_comparison *c, iso_error *err);

/* evaluate_compare_run.c: encodes what is to be encoded, and evaluates. A model that fails is told on stderr and listed in
 * `failure`; an error is returned where nothing can be compared at all. */
ISO_CHECK iso_status iso_comparison_run(iso_comparison *c, iso_error *err);
void iso_comparison_clear(iso_comparison *c);

/* evaluate_compare_print.c, evaluate_compare_json.c: on stdout. */
void iso_comparison_table(const iso_comparison *c, bool per_attribute);
void iso_comparison_markdown(const iso_comparison *c, bool per_attribute);
void iso_comparison_json(const iso_comparison *c);
ISO_CHECK iso_status iso_comparison_chart(const iso_comparison *c, const char *path, iso_error *err);

#endif
