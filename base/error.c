#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"

const char *iso_status_text(iso_status status)
{
    switch (status) {
    case ISO_OK: return "ok";
    case ISO_E_ARGUMENT: return "wrong argument";
    case ISO_E_MEMORY: return "out of memory";
    case ISO_E_IO: return "input/output error";
    case ISO_E_FORMAT: return "damaged or not of the expected format";
    case ISO_E_MISMATCH: return "things that do not belong together";
    case ISO_E_NOT_FOUND: return "not found";
    case ISO_E_NUMERIC: return "not a number, an infinity or a zero vector";
    case ISO_E_INTERRUPTED: return "interrupted";
    case ISO_E_UNSUPPORTED: return "not supported";
    case ISO_E_INTERNAL: return "internal error";
    }
    return "unknown status";
}

static void format_message(iso_error *err, const char *fmt, va_list args)
{
    if (vsnprintf(err->message, sizeof err->message, fmt, args) < 0)
        snprintf(err->message, sizeof err->message, "%s", iso_status_text(err->status));
    iso_text_harmless(err->message); /* a path may hold a newline or an escape sequence */
}

iso_status iso_fail(iso_error *err, iso_status status, const char *fmt, ...)
{
    if (!err) return status;
    err->status = status;
    va_list args;
    va_start(args, fmt);
    format_message(err, fmt, args);
    va_end(args);
    return status;
}

/* Two strerror_r exist; the GNU one (int-free) is what _GNU_SOURCE declares. */
iso_status iso_fail_errno(iso_error *err, const char *fmt, ...)
{
    int code = errno;
    iso_status status = code == ENOMEM || code == EMFILE || code == ENFILE ? ISO_E_MEMORY : ISO_E_IO;
    if (!err) return status;
    char buffer[256];
    const char *reason = strerror_r(code, buffer, sizeof buffer);
    err->status = status;
    va_list args;
    va_start(args, fmt);
    format_message(err, fmt, args);
    va_end(args);
    /* A path may be longer than the message: the reason is worth more than the path's tail. */
    size_t room = sizeof err->message - 1, extra = strlen(reason) + 2;
    size_t used = strlen(err->message);
    if (used + extra > room) used = room - extra;
    snprintf(err->message + used, sizeof err->message - used, ": %s", reason);
    return status;
}

iso_status iso_fail_memory(iso_error *err)
{
    return iso_fail(err, ISO_E_MEMORY, "out of memory");
}

iso_status iso_fail_prefix(iso_error *err, iso_status status, const char *fmt, ...)
{
    if (!err) return status;
    char tail[sizeof err->message];
    memcpy(tail, err->message, sizeof tail);
    tail[sizeof tail - 1] = '\0';
    err->status = status;
    va_list args;
    va_start(args, fmt);
    format_message(err, fmt, args);
    va_end(args);
    size_t used = strlen(err->message), room = sizeof err->message - used;
    snprintf(err->message + used, room, ": %.*s", (int)(room > 3 ? room - 3 : 0), tail);
    return status;
}

iso_status iso_settle(iso_error *err, iso_status status)
{
    if (err && status == ISO_OK) *err = (iso_error){0};
    return status;
}
