/* json.h: reads JSON (RFC 8259) that lies in memory, one token after another. Memory is taken for texts alone, and when it is out that is what
 * is said: never that the JSON is damaged. Writing it: text.h. */
#ifndef ISO_BASE_JSON_H
#define ISO_BASE_JSON_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

typedef struct iso_json { const char *at, *end; } iso_json; /* what has not been read yet */

/* Goes past white space, and past c where it is next: whether it was. */
bool iso_json_take(iso_json *j, char c);
/* Whether nothing but white space is left. */
bool iso_json_ended(iso_json *j);
/* A string in fresh memory. ISO_E_FORMAT: none is next, or one that is not UTF-8 or holds U+0000; ISO_E_MEMORY. */
ISO_CHECK iso_status iso_json_string(iso_json *j, char **text);
/* [n, n, ...] of at most `most` whole numbers that are not negative; false: something else is next. */
bool iso_json_numbers(iso_json *j, int most, int64_t *number, int *count);

#endif
