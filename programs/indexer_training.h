/* indexer_training.h: what `indexer train` and `indexer flatten` share: images into memory, and telling how it goes. */
#ifndef ISO_INDEXER_TRAINING_H
#define ISO_INDEXER_TRAINING_H

#include "base/progress.h"
#include "indexer/dataset.h"
#include "model/train.h"

typedef struct iso_training {
    const char *program;      /* "indexer train" */
    bool quiet;
    iso_dataset *dataset;
    iso_train_data data;      /* into the dataset and the rows below */
    int64_t *rows;
    iso_progress progress;
    bool started;
    char line[160];           /* what the progress line says before its numbers */
    int64_t done, total;
    double began;
    iso_epoch best;           /* best.epoch 0: none in this run */
} iso_training;

/* Decodes DIR's training and validation images; lists what was skipped on stderr (fatal with strict). */
ISO_CHECK iso_status iso_training_load(iso_training *t, const char *dir, int threads, bool strict, iso_error *err);
/* Callbacks that print on stderr and stop on SIGINT; t must outlive the run. */
iso_watch iso_training_watch(iso_training *t);
/* Ends the progress line and, after success, says what came out. */
void iso_training_end(iso_training *t, const char *model_path, iso_status status);
void iso_training_free(iso_training *t);

#endif
