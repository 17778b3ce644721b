/* answer.h: an answer as text: a table for people, TSV, JSON, or bare paths.
 *
 *   table  a heading that says what the scores are, then rank, score and path (control characters and bad UTF-8 as \xHH)
 *   tsv    rank, id, score, path; tabs, newlines, carriage returns and backslashes of the path escaped; no heading
 *   json   {"schema_version": 1, "model": ..., "scorer": "sum" or "contrast", "query": {...}, "exact": ..., "results": [...]}; a path that is
 *          not UTF-8 has "path_bytes" in base64 beside it
 *   paths  one path a line, byte for byte; with `nul` each ends with a NUL instead
 */
#ifndef ISO_ANSWER_H
#define ISO_ANSWER_H

#include <stdbool.h>
#include <stdio.h>
#include "base/error.h"

typedef struct iso_report { /* everything is borrowed */
    const iso_db *db;
    const iso_query *query;
    const iso_answer *answer;
    bool relative; /* paths as stored, not where the images lie */
} iso_report;

/* format: "table", "tsv", "json" or "paths" (ISO_E_ARGUMENT otherwise). Flushes; a write that fails is ISO_E_IO. */
ISO_CHECK iso_status iso_report_print(const iso_report *r, const char *format, bool nul, FILE *out, iso_error *err);

#endif
