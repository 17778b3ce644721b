/* vindex_common.h: what the tests of indexes share: a folder with the file, and random numbers. */
#ifndef ISO_TESTS_VINDEX_COMMON_H
#define ISO_TESTS_VINDEX_COMMON_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/error.h"
#include "tests/check.h"
#include "tests/folder.h"
#include "tests/random.h"

static char base[512], file[600];
static iso_error err;

/* Of a test's set-up and tear-down. */
static int begin(const char *name, uint64_t own_seed)
{
    begin_random(own_seed);
    if (!make_folder(base, sizeof base, name)) return -1;
    snprintf(file, sizeof file, "%s/index.faiss", base);
    return 0;
}

static int tear_down(void **unused)
{
    (void)unused;
    unlink(file);
    return rmdir(base); /* nothing else was left */
}

#endif
