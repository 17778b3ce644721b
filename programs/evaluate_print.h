/* evaluate_print.h: what `evaluate precision` prints: tables and JSON on stdout, notes on stderr. `few` may be NULL. */
#ifndef ISO_PROGRAMS_EVALUATE_PRINT_H
#define ISO_PROGRAMS_EVALUATE_PRINT_H

#include <stdbool.h>
#include "eval/evaluate.h"

extern const char *const iso_part_name[]; /* [3] of the parts of a data set */

/* What the database and the files do not share, and what is left out. */
void iso_evaluate_notes(const char *program, const iso_evaluation *e, const iso_precision *p);
void iso_evaluate_few_notes(const char *program, const iso_evaluation *e, const iso_few *few);

void iso_evaluate_table(const char *db, const char *scorer, bool per_attribute, const iso_evaluation *e, const iso_precision *p,
                        const iso_few *few);
void iso_evaluate_json(const char *db, const char *scorer, const iso_evaluation *e, const iso_precision *p, const iso_few *few);

#endif
