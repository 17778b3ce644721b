/* file.h: whole files, and files that appear whole or not at all. Paths are byte strings. */
#ifndef ISO_BASE_FILE_H
#define ISO_BASE_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include "base/error.h"

/* A file being written beside its target: temporary name, then fsync and rename.
 * Until iso_file_commit nothing is visible under `path`. */
typedef struct iso_file iso_file;

/* ISO_E_IO also where there is something that could not be replaced: a folder, a device, a file that is itself a mount. */
ISO_CHECK iso_status iso_file_create(const char *path, iso_file **out, iso_error *err);
/* The stream to write to; owned by the file. Its descriptor can be read and mapped, too. */
FILE *iso_file_stream(iso_file *f);
/* Flushes and syncs, then renames and syncs the folder. Frees f in every case. After a failure the old file stands as it was, unless it was the folder
 * that could not be synced: then the new one does, and a power cut may bring the old one back. */
ISO_CHECK iso_status iso_file_commit(iso_file *f, iso_error *err);
/* The same for two files that are to appear together: both are synced before either is renamed, and where b cannot be renamed the old a is put back, or a is
 * removed if there was none. That takes hard links; on a file system without them, and where a is not to be put back, the message says that a is new.
 * A kill between the two renames leaves a new and b old. */
ISO_CHECK iso_status iso_file_commit_both(iso_file *a, iso_file *b, iso_error *err);
/* Throws away what was written. NULL is fine. */
void iso_file_abort(iso_file *f);

/* Opens a file to be read, and says what it is, without waiting for anyone; refuses folders, regular files of more than `limit` bytes, and named
 * pipes, which may never have a writer (those of `<(command)` have one, and no name). close(*fd). */
ISO_CHECK iso_status iso_file_open(const char *path, size_t limit, int *fd, struct stat *st, iso_error *err);
/* The same; refuses whatever is no regular file. */
ISO_CHECK iso_status iso_file_open_regular(const char *path, size_t limit, int *fd, struct stat *st, iso_error *err);
/* The whole file in fresh memory (free()), with a NUL behind it; refuses more than `limit` bytes. */
ISO_CHECK iso_status iso_file_read(const char *path, size_t limit, char **data, size_t *size, iso_error *err);
/* The same of a large regular file, by all threads into memory of iso_huge_alloc(*size), without a NUL: a tenth of the page faults. */
ISO_CHECK iso_status iso_file_read_huge(const char *path, size_t limit, char **data, size_t *size, iso_error *err);
/* Reads so many bytes from `at` on. 0; errno; or -1, where the file ends before. */
int iso_file_read_at(int fd, void *to, size_t bytes, int64_t at);

/* Room on the disk for a file's first `bytes`, so that a full disk is told before they are written; longer: the file gets that long by it. 0; or ENOSPC,
 * EDQUOT or EFBIG. A file system that cannot tell counts as one that has room. */
int iso_file_reserve(int fd, uint64_t bytes, bool longer);

/* Gives a file that is to take the place of another its permissions and, where the system allows it, as it does root, its owner and group. */
void iso_file_like(int fd, const struct stat *other);

/* After a file got its name by other means: syncs the folder that it is in and, where it is a link, the one that the link leads into, which may be on another
 * disk. ISO_E_IO where that disk fails; what a file system cannot sync counts as synced. */
ISO_CHECK iso_status iso_file_settle(const char *path, iso_error *err);

/* Whether both names are one file, under links too, or would be if they were written. */
bool iso_file_same(const char *a, const char *b);

/* Removes what writers that were killed have left in a folder: temporary files of iso_file_create and of the store, a day old. Those that are
 * still being written stay. iso_file_create does so in the folder that it writes to. */
void iso_file_sweep(const char *folder);

/* A number that nobody has had, and not 0: for names and marks, not for secrets. */
uint64_t iso_fresh_number(void);

/* dir + "/" + name in fresh memory; NULL when memory is out. */
char *iso_path_join(const char *dir, const char *name);
/* The path as the current folder has it, absolute: one that still holds in another. Fresh memory; NULL and errno on failure. */
char *iso_path_absolute(const char *path);

#endif
