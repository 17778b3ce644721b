/* error.h: how a function says what went wrong.
 *
 *     if (fd < 0) return iso_fail_errno(err, "cannot open %s", path);
 *
 * Messages are one line: what is wrong and, where it helps, what to do. */
#ifndef ISO_BASE_ERROR_H
#define ISO_BASE_ERROR_H

#include "isoface.h"

#define ISO_CHECK __attribute__((warn_unused_result))

/* Fills err (may be NULL) and returns status. Control characters of the
 * message are replaced by '?', so that a path cannot break the line. */
iso_status iso_fail(iso_error *err, iso_status status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The same with ": " and strerror(errno) behind it. ENOMEM and too many open files give ISO_E_MEMORY, all else ISO_E_IO. */
iso_status iso_fail_errno(iso_error *err, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* ISO_E_MEMORY with the usual words. */
iso_status iso_fail_memory(iso_error *err);

/* Puts "prefix: " before the message already in err; returns err's status. */
iso_status iso_fail_prefix(iso_error *err, iso_status status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* For the end of a public function: what was tried on the way and failed is nothing to tell where all went well.
 * Returns status; err (may be NULL) says ISO_OK with it. */
iso_status iso_settle(iso_error *err, iso_status status);

#endif
