/* check.h: cmocka, and what tests say of the library's own status and error; for tests that keep the latter in `err`. */
#ifndef ISO_TESTS_CHECK_H
#define ISO_TESTS_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "base/error.h"

#define OK(call) \
    do { \
        const iso_status status_ = (call); \
        if (status_) fail_msg("%s:%d: %d: %s", __FILE__, __LINE__, status_, err.message); \
    } while (0)

#define FAILS(want, call) \
    do { \
        const iso_status status_ = (call); \
        if (status_ != (want)) fail_msg("%s:%d: %d, not %d", __FILE__, __LINE__, status_, want); \
    } while (0)

#define SAYS(words) \
    do { \
        if (!strstr(err.message, words)) fail_msg("%s:%d: \"%s\" does not say \"%s\"", __FILE__, __LINE__, err.message, words); \
    } while (0)

/* cmocka's own has another name in every version. */
#define IN_RANGE(value, least, most) \
    do { \
        const long long value_ = (value); \
        if (value_ < (least) || value_ > (most)) fail_msg("%s:%d: %lld, not from %lld to %lld", __FILE__, __LINE__, value_, (long long)(least), (long long)(most)); \
    } while (0)

#endif
