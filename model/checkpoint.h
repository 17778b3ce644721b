/* checkpoint.h: everything a training run needs to go on as if it had not stopped: PATH.state, a .safetensors file of
 * parameters and Adam's moments under their names, with counters, sums and options in __metadata__. */
#ifndef ISO_CHECKPOINT_H
#define ISO_CHECKPOINT_H

#include "model/safetensors.h"
#include "model/train_step.h"

typedef struct iso_checkpoint {
    int64_t epoch;             /* finished epochs */
    int64_t position;          /* steps done of the epoch after them */
    int64_t step;              /* Adam steps in all */
    int64_t best_epoch;        /* 0: none yet */
    double best;               /* its validation loss; infinity: none yet */
    char model[33];            /* its model's digest; empty: none yet, or a state from before digests were kept */
    double sum[ISO_TERM_COUNT];/* over the steps of the running epoch */
    double seconds;            /* spent in the running epoch */
    char *log;                 /* the CSV's rows; owned */
    char *history;             /* the same without times as JSON objects, for the model; owned */
} iso_checkpoint;

void iso_checkpoint_clear(iso_checkpoint *c); /* frees the texts, zeroes the rest */

/* Writes the `count` named vars and c. Atomic. A tensor with a NaN or infinity is ISO_E_NUMERIC and nothing is written. */
ISO_CHECK iso_status iso_checkpoint_save(const char *path, const iso_checkpoint *c, const iso_vars *vars, int count,
                                         const char *const *name, int options, const iso_st_meta_pair *option,
                                         iso_error *err);

/* Reads it back into vars and *c. Options that differ are ISO_E_ARGUMENT naming them, for a caller to prefix; a file that is no state of such a run
 * ISO_E_FORMAT, one of another version ISO_E_UNSUPPORTED. On failure vars may be half written; *c is untouched. vars NULL: the counters and
 * options alone, and of these not what is known only with the data, "images" and "labels". */
ISO_CHECK iso_status iso_checkpoint_load(const char *path, iso_checkpoint *c, iso_vars *vars, int count,
                                         const char *const *name, int options, const iso_st_meta_pair *option,
                                         iso_error *err);

#endif
