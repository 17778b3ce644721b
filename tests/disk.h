/* disk.h: what a test's program asks of the disk, in order, and a disk that cannot. These stand in the place of the C library's functions. */
#ifndef ISO_TESTS_DISK_H
#define ISO_TESTS_DISK_H

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static char asked[64];       /* "f": a file is synced; "d": a folder is; "r": another file gets a name */
static off_t synced;         /* bytes of the file last synced */
static int refused_files;    /* the error that syncing a file gives; 0: none */
static int refused_folders;

static inline void ask_anew(void)
{
    memset(asked, 0, sizeof asked);
    synced = -1;
    refused_files = refused_folders = 0;
}

static inline void note_asked(char what)
{
    const size_t n = strlen(asked);
    if (n + 1 < sizeof asked) asked[n] = what;
}

int fsync(int fd)
{
    struct stat st;
    if (fstat(fd, &st)) return -1;
    const int refused = S_ISDIR(st.st_mode) ? refused_folders : refused_files;
    note_asked(S_ISDIR(st.st_mode) ? 'd' : 'f');
    if (!S_ISDIR(st.st_mode)) synced = st.st_size;
    if (refused) return errno = refused, -1;
    return (int)syscall(SYS_fsync, fd);
}

int rename(const char *from, const char *to)
{
    note_asked('r');
    return renameat(AT_FDCWD, from, AT_FDCWD, to);
}

#endif
