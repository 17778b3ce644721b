/* train.h: training a model on images in memory.
 *
 * iso_train       trains encoder and decoder: methods `vae`, `isometric` and `flat-manifold` (methods.md 2 to 5, Lee 2022 4.3, B.1,
 *                 C, D.3); or encoder and classifier: method `supervised` (methods.md 7)
 *                 (method `pca` takes no steps: model/pca.h)
 * iso_train_flow  trains a flow with encoder and decoder frozen (methods.md 6, Lee 2022 4.2, B.2)
 *
 * Files, PATH being iso_run.path:
 *   PATH        the model of the best epoch so far, by validation loss; appears and changes as a whole
 *   PATH.state  parameters, Adam's moments and counters of the last finished epoch or of an interruption, for resuming; one during
 *               validation leaves those of the epoch's last step, and resuming begins with the whole validation
 *   PATH.csv    one row an epoch
 *
 * Every random number is a function of (seed, use, step), so a run that was stopped and resumed gives the same bits as one
 * that was not, given the same number of threads.
 *
 * Validation uses the training loss, on every validation image once, without Adam and with draws that depend on the seed
 * only, so that epochs compare: posterior samples with fixed eps, fixed mixup and probes. The terms are pooled over
 * all images: with the optimal sigma the NLL is that of the pooled MSE, and R = E|JtJv|^2 / (E|Jv|^2)^2 over all. R is
 * reported for every method that has a decoder, so that methods compare; the flat-manifold term, E|JtJv - cv|^2 with c over all
 * images, too, is seen in the loss only.
 *
 * Labels are given to the supervised method and to nothing else: any other that gets them refuses.
 *
 * An epoch is floor(count / batch) steps over a fresh permutation; the images left over wait for the next. A batch larger
 * than the training set shrinks to it. Not thread-safe within one run; nothing is printed: see iso_watch. */
#ifndef ISO_TRAIN_H
#define ISO_TRAIN_H

#include "model/model.h"
#include "model/train_step.h"

/* Images as bytes, one after another; which rows train and which validate. Borrowed. */
typedef struct iso_train_data {
    const uint8_t *pixels;       /* [*, dim] */
    int64_t dim;                 /* ISO_PIXELS, or the mlp's data dimension */
    const int64_t *train, *valid; /* rows */
    int64_t train_count, valid_count; /* without validation images the training loss decides which epoch is best */
    const uint8_t *labels;       /* [*, classes], 0 or 1, of the rows of pixels: supervised only; NULL for all others */
    int64_t classes;
    const char *attributes;      /* what the classes are called, one space between the names */
} iso_train_data;

/* An epoch's figures; NaN where the method has no such term. */
typedef struct iso_epoch {
    int64_t epoch, step, images;      /* from 1 (0: before training); steps and images since the beginning */
    double train[ISO_TERM_COUNT], valid[ISO_TERM_COUNT]; /* by iso_term */
    double sigma;
    double seconds, images_per_second;                   /* with its validation; of training alone */
    double left;                                         /* seconds that the epochs to come take at this run's pace; NaN: not known */
    bool best;
} iso_epoch;

/* After every step. */
typedef struct iso_tick {
    int64_t epoch, epochs;
    int64_t images_done, images_total; /* of this run, those of its validations too: what a resumed run had done before is not counted */
    double seconds;                    /* that these took */
    const double *term;                /* of the batch, by iso_term */
} iso_tick;

/* How a run tells what it does; any function may be NULL. */
typedef struct iso_watch {
    void *ctx;
    void (*say)(void *ctx, const char *line);         /* a notice, without newline */
    void (*tick)(void *ctx, const iso_tick *tick);
    void (*part)(void *ctx, const char *what, int64_t done, int64_t total); /* "validating", "encoding": images; 0 as it begins */
    void (*epoch)(void *ctx, const iso_epoch *epoch);
    bool (*stop)(void *ctx);                          /* true: save and return ISO_E_INTERRUPTED */
} iso_watch;

typedef enum iso_schedule {
    ISO_SCHEDULE_CONSTANT,
    ISO_SCHEDULE_COSINE /* the learning rate falls to zero over all epochs, whose number a resumed run then cannot change */
} iso_schedule;

/* What both trainings share. */
typedef struct iso_run {
    const char *path;
    int64_t epochs, batch;
    double lr, eta;
    iso_schedule schedule;
    int64_t warmup;      /* steps over which the learning rate rises to lr: fewer units die early */
    uint64_t seed;
    int threads;         /* 0: all */
    const iso_backend *backend; /* where to compute; NULL: the CPU */
    bool resume, force;  /* go on with PATH.state; start although PATH is there */
    bool repeated;       /* the caller's command has no --resume, for repeated it goes on by itself: messages tell its user so */
    iso_watch watch;
} iso_run;

typedef struct iso_train_spec {
    iso_net net;          /* without a flow */
    const char *method;   /* "vae", "isometric" or "flat-manifold": alpha weighs nothing, R, or the flat-manifold term; or
                             "supervised", whose net has the data's classes: alpha, kl_weight, sigma* and run.eta mean nothing then */
    double alpha, kl_weight;
    iso_sigma_rule sigma_rule;
    double sigma;         /* fixed: its value; learned: where it starts; ISO_SIGMA_LEAST to ISO_SIGMA_MOST */
    double sigma_lr;      /* learned: rate of log sigma */
    bool mirror;          /* flip half of the images, drawn anew each time; celeba only */
    iso_run run;
} iso_train_spec;

typedef struct iso_flow_spec {
    const iso_model *model; /* without a flow */
    double beta;
    int depth, length;
    iso_run run;
} iso_flow_spec;

/* Whether a run can begin: its numbers, whether PATH and its companions are there or missing as resume and force have it,
 * and whether all three can be written. Both trainings ask first; a caller may before it decodes images. */
ISO_CHECK iso_status iso_run_check(const iso_run *run, iso_error *err);
/* All of a training, or of a flow's and its model, that can be found wrong without images; with resume also what PATH.state has against it. */
ISO_CHECK iso_status iso_train_check(const iso_train_spec *spec, iso_error *err);
ISO_CHECK iso_status iso_flow_check(const iso_flow_spec *spec, iso_error *err);
/* Whether it would fit with as many images, which are still to be taken into memory: of `counts` the counts and dim alone are looked at.
 * ISO_E_MEMORY as below. */
ISO_CHECK iso_status iso_train_fits(const iso_train_spec *spec, const iso_train_data *counts, iso_error *err);
ISO_CHECK iso_status iso_flow_fits(const iso_flow_spec *spec, const iso_train_data *counts, iso_error *err);

/* ISO_E_ARGUMENT: impossible options, or files that are there without resume or force, or resumed with other options (epochs
 * may change). ISO_E_NUMERIC: a NaN or infinity, naming the step and what; PATH keeps the last good model.
 * ISO_E_INTERRUPTED: stopped on request; PATH.state goes on from there, or the message says that there is nothing to go on with yet. ISO_E_IO: PATH or its companions cannot be written. ISO_E_MEMORY: it would
 * not fit, found before memory is taken for the model, or memory ran out all the same. */
ISO_CHECK iso_status iso_train(const iso_train_spec *spec, const iso_train_data *data, iso_error *err);
ISO_CHECK iso_status iso_train_flow(const iso_flow_spec *spec, const iso_train_data *data, iso_error *err);

#endif
