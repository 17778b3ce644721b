/* folder.h: a test's own folder. */
#ifndef ISO_TESTS_FOLDER_H
#define ISO_TESTS_FOLDER_H

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Makes an empty folder "isoface-NAME-..." in TMPDIR or /tmp, and says where in path [room]; false: it cannot be made. */
static inline bool make_folder(char *path, size_t room, const char *name)
{
    const char *tmp = getenv("TMPDIR");
    const int n = snprintf(path, room, "%s/isoface-%s-XXXXXX", tmp && *tmp ? tmp : "/tmp", name); /* mkdtemp's template */
    return n > 0 && (size_t)n < room && mkdtemp(path);
}

/* Removes whatever is there, with all that is in it; nothing there is fine. */
static inline bool remove_folder(const char *path)
{
    char command[1024];
    const int n = snprintf(command, sizeof command, "rm -rf '%s'", path);
    return n > 0 && (size_t)n < sizeof command && system(command) == 0;
}

/* Removes a folder of files; false where it holds other folders. */
static inline bool remove_files(const char *path)
{
    DIR *d = opendir(path);
    if (!d) return false;
    for (struct dirent *e; (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
    return rmdir(path) == 0;
}

#endif
