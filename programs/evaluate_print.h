/* evaluate_print.h: what `evaluate precision` prints: tables and JSON on stdout, notes on stderr. `few` may be NULL.
 * Partly shared with `evaluate compare`. */
#ifndef ISO_PROGRAMS_EVALUATE_PRINT_H
#define ISO_PROGRAMS_EVALUATE_PRINT_H

#include <stdbool.h>
#include "eval/evaluate.h"

extern const char *const iso_part_name[]; /* [3] of the parts of a data set */

/* Notes on stderr: what the database and the files do not share; and which attributes are left out of a protocol's means.
 * what: which database and scorer, put before the note; NULL: the only one. */
void iso_evaluate_notes(const char *program, const iso_matches *m);
void iso_evaluate_left_out(const char *program, const char *what, const iso_evaluation *e, const iso_precision *p);
void iso_evaluate_short_ranking(const char *program, int part, int64_t ranked); /* fewer images than the largest K */
void iso_evaluate_few_short(const char *program, const iso_evaluation *e, const iso_few *few);                  /* too few examples */
void iso_evaluate_few_lost(const char *program, const char *what, const iso_evaluation *e, const iso_few *few); /* without direction */

/* Minutes of work should not end at a picture that cannot be written: whether `path` ends in .png and its folder can be written to. */
ISO_CHECK iso_status iso_evaluate_picture(const char *path, iso_error *err);

/* Letters, not bytes: names may be UTF-8. */
int iso_evaluate_letters(const char *s);

void iso_evaluate_table(const char *db, const char *scorer, bool per_attribute, const iso_evaluation *e, const iso_precision *p,
                        const iso_few *few);
void iso_evaluate_json(const char *db, const char *scorer, const iso_evaluation *e, const iso_precision *p, const iso_few *few);

#endif
