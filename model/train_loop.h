/* train_loop.h: epochs, validation, files and resuming, for anything that iso_train_step can express. Used by what trains or fits, in model/, only.
 *
 * train_loop.c        epochs and steps, and which epoch is best
 * train_loop_plans.c  what they compute with, and whether there is memory for it
 * train_loop_feed.c   batches and draws
 * train_loop_files.c  model, state and CSV; going on from them */
#ifndef ISO_TRAIN_LOOP_H
#define ISO_TRAIN_LOOP_H

#include "model/safetensors.h"
#include "model/train.h"

#define ISO_MAX_OPTIONS 24

/* What was asked for, as texts: compared on resuming and kept in the model's metadata. */
typedef struct iso_options {
    int count;
    iso_st_meta_pair pair[ISO_MAX_OPTIONS];
    char value[ISO_MAX_OPTIONS][128];
} iso_options;
void iso_options_text(iso_options *o, const char *key, const char *value);
void iso_options_int(iso_options *o, const char *key, int64_t value);
/* What a schedule other than a constant rate adds: its name, and the number of epochs it spans. */
void iso_options_schedule(iso_options *o, const iso_run *run);
void iso_options_real(iso_options *o, const char *key, double value); /* the shortest text that gives the same double */
/* A digest of the images that train and validate, in order: key "images". */
iso_status iso_options_images(iso_options *o, const iso_train_data *data, iso_error *err);
/* The same of their labels and the attributes' names: key "labels". */
iso_status iso_options_labels(iso_options *o, const iso_train_data *data, iso_error *err);

/* What a loop draws from the run's seed, one Philox stream per use (parameters have those below 100). Steps of training count from 0 over the whole
 * run, batches of validation from 0 in every epoch. Another number here is another training, and a resumed run's second half of one. */
enum {
    ISO_DRAW_SHUFFLE = 100, /* of each epoch, from 0: the permutation of the training images that its batches take one after another */
    ISO_DRAW_MIRROR,        /* of each step, position b: whether image b is mirrored, below 2 */
    ISO_DRAW_EPS, ISO_DRAW_DELTA, ISO_DRAW_PERM, ISO_DRAW_PROBE, /* of each step: the inputs of iso_train_step */
    ISO_DRAW_VALID_EPS = 110, ISO_DRAW_VALID_DELTA, ISO_DRAW_VALID_PERM, ISO_DRAW_VALID_PROBE, /* of each batch of validation */
};

typedef struct iso_loop_spec {
    iso_model *model;             /* the parameters to begin with; changed */
    const iso_objective *objective;
    const iso_run *run;
    const iso_train_data *data;   /* which rows, and their pixels unless `codes` is there */
    const float *codes;           /* [*, latent]: the rows of a flow's training */
    bool mirror;
    bool baseline;                /* validate before training, as epoch 0 */
    const iso_options *options;
} iso_loop_spec;

/* To be asked before memory is taken for what the loop is given. ISO_E_MEMORY: a training of the net does not fit with its model, its
 * inputs and what saving takes (iso_device_check); on a device its plans alone count. Needs the counts of the data only: without pixels
 * their memory is still to be taken, and counts, too. */
ISO_CHECK iso_status iso_loop_fits(const iso_net *net, const iso_objective *objective, const iso_run *run, const iso_train_data *data,
                                   iso_error *err);
/* Whether --resume can go on as far as that is known without data: all options but the data's own, the state file and its model. */
ISO_CHECK iso_status iso_loop_resumable(const iso_run *run, const iso_options *options, iso_error *err);
ISO_CHECK iso_status iso_loop(const iso_loop_spec *spec, iso_error *err);
/* The vectors of the listed rows, [count, latent], into `codes`. backend NULL: the CPU. ISO_E_INTERRUPTED: watch.stop said so. */
ISO_CHECK iso_status iso_encode_rows(const iso_model *m, const iso_train_data *data, const int64_t *rows, int64_t count,
                                     const iso_watch *watch, const iso_backend *backend, float *codes, iso_error *err);
void iso_watch_part(const iso_watch *w, const char *what, int64_t done, int64_t total);
bool iso_watch_stop(const iso_watch *w);
void iso_watch_say(const iso_watch *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
