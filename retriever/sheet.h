/* sheet.h: a contact sheet: the examples in a row, what to avoid in another, the answers below with rank, score and
 * file name: as a PNG or as one HTML file with the pictures inside. Written to a temporary file and renamed. */
#ifndef ISO_SHEET_H
#define ISO_SHEET_H

#include <stddef.h>
#include "base/error.h"

#define ISO_SHEET_EXAMPLES 10   /* at most that many of each kind are shown, then "+ n more" */
#define ISO_SHEET_RESULTS 1000  /* of a PNG, whose height is limited; the caption says so */

typedef struct iso_sheet_image {
    const char *file;     /* NULL or unreadable: a gray tile that says so */
    const char *name;     /* shown below a result: any bytes */
    double score;         /* of a result */
} iso_sheet_image;

typedef struct iso_sheet { /* everything is borrowed */
    const char *title;    /* any bytes */
    const char *note;     /* second line, or NULL */
    const iso_sheet_image *like, *unlike, *result;
    size_t likes, unlikes, results;
} iso_sheet;

/* By the ending of the path: .png, .html or .htm, in any case; ISO_E_ARGUMENT otherwise. Decodes on all threads. */
ISO_CHECK iso_status iso_sheet_write(const iso_sheet *sheet, const char *path, iso_error *err);

/* Whether the ending is one of these, so that a program can refuse before it searches. */
ISO_CHECK iso_status iso_sheet_check(const char *path, iso_error *err);

#endif
