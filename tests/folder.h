/* folder.h: a test's own folder. */
#ifndef ISO_TESTS_FOLDER_H
#define ISO_TESTS_FOLDER_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

/* Makes an empty folder "isoface-NAME-..." in TMPDIR or /tmp, and says where in path [room]; false: it cannot be made. */
static inline bool make_folder(char *path, size_t room, const char *name)
{
    const char *tmp = getenv("TMPDIR");
    const int n = snprintf(path, room, "%s/isoface-%s-XXXXXX", tmp && *tmp ? tmp : "/tmp", name); /* mkdtemp's template */
    return n > 0 && (size_t)n < room && mkdtemp(path);
}

#endif
