/* train_loop_parts.h: what the train_loop*.c files share; nobody else includes it. */
#ifndef ISO_TRAIN_LOOP_PARTS_H
#define ISO_TRAIN_LOOP_PARTS_H

#include "model/checkpoint.h"
#include "model/train_loop.h"

typedef struct iso_loop_work {
    const iso_loop_spec *spec;        /* NULL: it is only asked what a loop would take, or whether it could go on */
    const iso_net *net;
    const iso_objective *objective;
    const iso_run *run;
    const iso_train_data *data;
    const iso_backend *backend;
    int64_t batch, steps;             /* images a step; steps an epoch */
    int64_t done, total;              /* images of this run, those of validations too */
    double began;                     /* monotonic seconds, as `resumed` and `last_save`: the run's first step */

    /* of train_loop_plans.c */
    iso_vars *vars;
    iso_train_step *step, *valid, *rest;    /* rest: the last, smaller validation batch; NULL where there is none */

    /* of train_loop_feed.c */
    int64_t *order;                   /* [train_count] this epoch's permutation */
    int64_t *rows;                    /* [batch] what is fed */
    float *x, *normal;                /* [batch, dim], [batch, latent]; normal: v, where it was fed */
    float *delta;                     /* [batch] */
    float *labels;                    /* [batch, classes]; NULL unless supervised */
    int64_t *perm;                    /* [batch] */
    uint8_t *mirrored;                /* [batch] */
    iso_bytes *bytes;                 /* the images, on a backend with a device; else NULL */

    /* of train_loop_files.c */
    iso_checkpoint at;                /* where the training is: train_loop.c counts */
    const char **saved;               /* names of the vars in the state file */
    int saved_count;
    double resumed, last_save;        /* since when the epoch's clock runs; of the last state file */
    char *state_path, *csv_path;
    bool has_state;                   /* the state file is of this training */
} iso_loop_work;

/* ---- train_loop_plans.c: what a training computes with, and the memory that it takes ---- */

/* What every loop begins with; its spec is left to the caller. */
iso_loop_work iso_loop_of(const iso_net *net, const iso_objective *objective, const iso_run *run, const iso_train_data *data);
/* vars with the model's parameters, step, valid and rest. ISO_E_MEMORY says what would fit. */
ISO_CHECK iso_status iso_loop_plan(iso_loop_work *l, iso_error *err);
ISO_CHECK iso_status iso_loop_plan_tell(const iso_loop_work *l, iso_error *err); /* their memory, to the watch */
void iso_loop_plan_free(iso_loop_work *l);

/* ---- train_loop_feed.c: batches and their draws, to the plans ---- */

ISO_CHECK iso_status iso_loop_feed_open(iso_loop_work *l, iso_error *err);
/* The images to the device, where there is one: after its plans, which cannot do with less. */
ISO_CHECK iso_status iso_loop_feed_images(iso_loop_work *l, iso_error *err);
/* Writes the batch whose rows are in l->rows and its draws. */
ISO_CHECK iso_status iso_loop_feed(iso_loop_work *l, const iso_train_step *s, bool train, uint64_t step, iso_error *err);
void iso_loop_feed_close(iso_loop_work *l);

/* ---- train_loop_files.c: model, state and CSV, and going on with them ---- */

/* After iso_loop_plan. */
ISO_CHECK iso_status iso_loop_files_open(iso_loop_work *l, iso_error *err);
void iso_loop_files_close(iso_loop_work *l);
/* Reads the state and says from where it goes on. */
ISO_CHECK iso_status iso_loop_resume(iso_loop_work *l, iso_error *err);
ISO_CHECK iso_status iso_loop_save_state(iso_loop_work *l, iso_error *err); /* with the epoch's seconds until now */
ISO_CHECK iso_status iso_loop_save_csv(iso_loop_work *l, iso_error *err);
/* Vars to the model, and the sigma that goes with the epoch, whose terms are given. Adam's last step may have broken what no loss saw. */
ISO_CHECK iso_status iso_loop_collect(iso_loop_work *l, const double term[ISO_TERM_COUNT], double *sigma, iso_error *err);
ISO_CHECK iso_status iso_loop_save_model(iso_loop_work *l, iso_error *err); /* what was collected */
/* Told to stop: saves the state. Always a failure, ISO_E_INTERRUPTED where that could be done. */
ISO_CHECK iso_status iso_loop_interrupted(iso_loop_work *l, iso_error *err);
/* ISO_E_NUMERIC, saying which model is kept. `what` is a whole clause: "the KL term is NaN"; `advice` what is to be tried, NULL: a smaller --lr. */
ISO_CHECK iso_status iso_loop_broken(iso_loop_work *l, const char *what, const char *advice, iso_error *err);

#endif
