/* sweep.h: the table of a sweep, one row a model, and its trade-off curves: reconstruction error against how far the decoder is
 * from an isometry (Lee 2022 figures 1 to 3). Training and measuring are the caller's.
 *
 * A figure that is not known is NaN: an empty field in CSV. Nothing here is safe for two threads on one row. */
#ifndef ISO_SWEEP_H
#define ISO_SWEEP_H

#include "base/text.h"
#include "eval/pullback.h"

enum { ISO_SWEEP_LIST = 64 }; /* values of a list, at most */

typedef struct iso_sweep_row {
    char *model; /* file name without folder; owned, as are the other texts; NULL or "" where there is none */
    char *method;
    double alpha, beta, seed;       /* beta NaN: no flow of this sweep */
    double epochs, images;          /* that the training has done and seen */
    double best_epoch, loss;        /* the one the model holds; its validation loss */
    double mse, vor, vor_median, mcn, mcn_median, cn, vpres, iso, ratio; /* pullback.h */
    double metrics, left_out;
    char *measured; /* iso_sweep_digest of what the line above was found from; NULL: not measured */
    char *command;  /* what makes the same model */
} iso_sweep_row;

iso_sweep_row iso_sweep_row_empty(void);
void iso_sweep_row_clear(iso_sweep_row *row); /* frees its texts */
void iso_sweep_rows_free(iso_sweep_row *rows, int64_t count); /* with the array itself; NULL is fine */

/* "1,10,1e3": numbers >= 0, different from one another, in the order given; `zero` (may be NULL) is a word for 0. With `whole`
 * only whole numbers up to 2^53. ISO_E_ARGUMENT says which item of --`option` is wrong. */
ISO_CHECK iso_status iso_sweep_list(const char *option, const char *text, const char *zero, bool whole,
                                    double value[ISO_SWEEP_LIST], int *count, iso_error *err);

/* The shortest text that reads as the same double: "100", "0.1". */
const char *iso_sweep_number(double value, char text[ISO_TEXT_REAL]);

/* n of the numbers 0 .. count - 1, n <= count, in the order that `seed` draws them. */
ISO_CHECK iso_status iso_sweep_sample(int64_t count, int64_t n, uint64_t seed, int64_t *row, iso_error *err);

/* The training figures, from the CSV file beside the model; `best_epoch` is what the model says. Without such a file, or such
 * an epoch in it, they become NaN. Without validation images the training's loss stands for theirs. */
ISO_CHECK iso_status iso_sweep_training(const char *csv, double best_epoch, iso_sweep_row *row, iso_error *err);

void iso_sweep_set(iso_sweep_row *row, const iso_pullback *p); /* all but `measured` */

/* 32 hexadecimal digits over all that a measurement depends on. */
ISO_CHECK iso_status iso_sweep_digest(const iso_model *m, const uint8_t *pixels, int64_t n,
                                      const iso_pullback_spec *spec, char text[33], iso_error *err);

/* The CSV file (RFC 4180, names in the first line, numbers that read as the same double), whole or not at all. */
ISO_CHECK iso_status iso_sweep_save(const char *path, const iso_sweep_row *rows, int64_t count, iso_error *err);
/* Reads it back. ISO_E_FORMAT, with the line: it is no such file. ISO_E_IO: it cannot be read. */
ISO_CHECK iso_status iso_sweep_load(const char *path, iso_sweep_row **rows, int64_t *count, iso_error *err);

/* For printing: how many columns there are; a column's name; its text, or NULL and its number. */
int iso_sweep_columns(void);
const char *iso_sweep_column(int column);
const char *iso_sweep_field(const iso_sweep_row *row, int column, double *number);

/* The PNG file: two panels, MSE against the medians of VoR and of MCN; a curve for each method (with `flow` one over beta),
 * through the means over seeds in the order of alpha (beta), which starts at the rows with alpha 0 (without beta). *drawn is false, and no
 * file is written, where no row has all of the figures. */
ISO_CHECK iso_status iso_sweep_chart(const char *path, const iso_sweep_row *rows, int64_t count, bool flow, bool *drawn,
                                     iso_error *err);

#endif
