/* evaluate_sweep.h: the parts of `evaluate sweep`: evaluate_sweep.c has its options and plan, evaluate_sweep_run.c does it. */
#ifndef ISO_PROGRAMS_EVALUATE_SWEEP_H
#define ISO_PROGRAMS_EVALUATE_SWEEP_H

#include "base/args.h"
#include "eval/sweep.h"
#include "programs/indexer_training.h"

enum { ISO_SWEEP_PASSED = 40, ISO_SWEEP_METHODS = 3 };

/* An option that is handed on to the training; which member is its kind's. */
typedef union iso_sweep_cell {
    int64_t i; /* INT64_MIN: not given, as NaN and NULL below */
    double r;
    const char *text;
    bool flag;
} iso_sweep_cell;

typedef struct iso_sweep_config {
    const char *images, *out, *alpha, *beta, *method, *model, *seeds, *format;
    int64_t samples, metrics_seed, split, threads;
    bool force, strict, quiet;
    iso_sweep_cell passed[ISO_SWEEP_PASSED];
} iso_sweep_config;

/* What a model needs: nothing but measuring, the rest of its training, or all of it. The order is that of the work, so that
 * what is there and does not fit is found before hours of training. */
typedef enum iso_sweep_need { ISO_SWEEP_MEASURE, ISO_SWEEP_RESUME, ISO_SWEEP_TRAIN } iso_sweep_need;

typedef struct iso_sweep_job {
    iso_sweep_row row;
    char *path;     /* of the model */
    char *source;   /* with a flow: of the model that is flattened */
    bool reference; /* the unflattened model: measured only */
    iso_sweep_need need;
    bool anew;   /* what is there is replaced */
    bool shown;  /* its row is in the table */
    char **word; /* options of the training */
    int words;
} iso_sweep_job;

typedef struct iso_sweep_plan {
    const iso_sweep_config *config;
    bool flow;          /* over beta */
    iso_sweep_job *job; /* in the table's order */
    size_t count, capacity;
    char *csv, *png;
} iso_sweep_plan;

/* Trains, measures, writes and prints. */
ISO_CHECK iso_status iso_sweep_run(iso_sweep_plan *plan, iso_error *err);

#endif
