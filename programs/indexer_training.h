/* indexer_training.h: what `indexer train` and `indexer flatten` share: images into memory, and telling how it goes; and
 * what `evaluate sweep` needs to do the same trainings. */
#ifndef ISO_INDEXER_TRAINING_H
#define ISO_INDEXER_TRAINING_H

#include "base/args.h"
#include "base/progress.h"
#include "indexer/dataset.h"
#include "model/train.h"

typedef struct iso_training {
    const char *program;      /* "indexer train" */
    bool quiet;
    bool train_only;          /* nothing validates */
    iso_status (*fits)(const void *spec, const iso_train_data *counts, iso_error *err); /* asked before images are decoded; NULL: nobody is */
    const void *spec;
    iso_dataset *dataset;
    iso_train_data data;      /* into the dataset, the rows and the labels below */
    int64_t *rows;
    char *attribute_file;     /* these three: of supervised training only */
    iso_attributes *attributes;
    iso_labels labels;
    iso_progress progress;
    char line[160];           /* what the progress line says before its numbers, of steps */
    iso_epoch best;           /* best.epoch 0: none in this run */
} iso_training;

/* For supervised training, before the images are loaded: the attributes to learn, of `file` or, where that is NULL, of
 * DIR/list_attr_celeba.txt. The data then have labels, and no images that the file does not list (fatal with strict). */
ISO_CHECK iso_status iso_training_attributes(iso_training *t, const char *dir, const char *file, iso_error *err);
/* Decodes DIR's training and, unless train_only, validation images; lists what was skipped on stderr (fatal with strict). */
ISO_CHECK iso_status iso_training_load(iso_training *t, const char *dir, int threads, bool strict, iso_error *err);
/* Callbacks that print on stderr and stop on SIGINT; t must outlive the run. */
iso_watch iso_training_watch(iso_training *t);
/* --schedule. */
iso_schedule iso_training_schedule(const char *name);
/* Ends the progress line and, after success, says what came out. */
void iso_training_end(iso_training *t, const char *model_path, iso_status status);
void iso_training_free(iso_training *t);

/* The options of either command; and the training it does with the options word[0 .. count - 1], which the spec points into.
 * The caller has checked them; the flow's model is left for it to load. */
const iso_option *iso_indexer_train_options(void);
const iso_option *iso_indexer_flatten_options(void);
ISO_CHECK iso_status iso_indexer_train_spec(int count, char **word, iso_training *t, iso_train_spec *spec, iso_error *err);
ISO_CHECK iso_status iso_indexer_flatten_spec(int count, char **word, iso_training *t, iso_flow_spec *spec, iso_error *err);

#endif
