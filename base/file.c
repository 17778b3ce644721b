#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "base/memory.h"

struct iso_file {
    char *path;      /* the target, symbolic links resolved */
    char *temporary; /* beside it */
    char *folder;
    FILE *stream;
};

char *iso_path_join(const char *dir, const char *name)
{
    size_t n = strlen(dir);
    bool slash = n > 0 && dir[n - 1] == '/';
    return iso_format("%s%s%s", dir, slash ? "" : "/", name);
}

char *iso_path_absolute(const char *path)
{
    if (path[0] == '/') return iso_strndup(path, strlen(path));
    char *here = getcwd(NULL, 0), *whole = here ? iso_path_join(here, path) : NULL;
    free(here);
    return whole;
}

static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash) return iso_strndup(".", 1);
    return iso_strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

static const char *name_in(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* -1: neither is there. */
static int same_inode(const char *a, const char *b)
{
    struct stat sa, sb;
    const bool is_a = stat(a, &sa) == 0, is_b = stat(b, &sb) == 0;
    if (!is_a && !is_b) return -1;
    return is_a && is_b && sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

/* The folder of a path that is no longer than paths may be. */
static bool folder_in(const char *path, char out[PATH_MAX])
{
    const size_t n = (size_t)(name_in(path) - path);
    if (n >= PATH_MAX - 1) return false;
    memcpy(out, path, n);
    strcpy(out + n, ".");
    return true;
}

/* Without memory of its own: that there is none is no answer. */
bool iso_file_same(const char *a, const char *b)
{
    char in_a[PATH_MAX], in_b[PATH_MAX];
    if (strcmp(a, b) == 0) return true;
    const int same = same_inode(a, b);
    if (same >= 0) return same;
    return strcmp(name_in(a), name_in(b)) == 0 && folder_in(a, in_a) && folder_in(b, in_b) && same_inode(in_a, in_b) == 1;
}

uint64_t iso_fresh_number(void)
{
    uint64_t value;
    if (getrandom(&value, sizeof value, GRND_NONBLOCK) == (ssize_t)sizeof value && value) return value;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return ((uint64_t)t.tv_nsec * 0x9E3779B97F4A7C15u ^ (uint64_t)t.tv_sec << 20 ^ (uint64_t)getpid()) | 1;
}

#define TEMPORARY ".isoface-%016llx.tmp"
enum { DAY = 24 * 60 * 60 };

static bool is_temporary(const char *name)
{
    static const char begin[] = ".isoface-";
    const size_t digits = 16, n = sizeof begin - 1;
    if (strncmp(name, begin, n) != 0) return false;
    name += n;
    return strcmp(name, "compact.tmp") == 0 || strcmp(name, "import.tmp") == 0 /* the store's */
        || (strspn(name, "0123456789abcdef") == digits && strcmp(name + digits, ".tmp") == 0);
}

/* Who writes it has it locked, however long ago that was. */
static bool is_left(int folder, const char *name)
{
    struct stat st;
    const int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) return false;
    const bool old = !fstat(fd, &st) && S_ISREG(st.st_mode) && time(NULL) - st.st_mtime > DAY;
    const bool left = old && (!flock(fd, LOCK_EX | LOCK_NB) || errno != EWOULDBLOCK); /* not every file system has locks */
    close(fd);
    return left;
}

void iso_file_sweep(const char *folder)
{
    const struct dirent *e;
    DIR *d = opendir(folder);
    while (d && (e = readdir(d)))
        if (is_temporary(e->d_name) && is_left(dirfd(d), e->d_name)) unlinkat(dirfd(d), e->d_name, 0); /* best effort */
    if (d) closedir(d);
}

/* Many files often go into one folder, which may be large. */
static void sweep_once(const char *folder)
{
    static _Atomic uint64_t last;
    struct stat st;
    if (stat(folder, &st)) return;
    const uint64_t this = ((uint64_t)st.st_ino * 0x9E3779B97F4A7C15u ^ (uint64_t)st.st_dev) | 1;
    if (atomic_exchange(&last, this) != this) iso_file_sweep(folder);
}

static char *fresh_name(const char *folder)
{
    char name[48];
    snprintf(name, sizeof name, TEMPORARY, (unsigned long long)iso_fresh_number());
    return iso_path_join(folder, name);
}

/* The target's own mode where it exists, else what the umask leaves of 0666: a
 * plain open() is asked, since reading the umask is not safe beside other threads. */
static int open_beside(iso_file *f)
{
    for (int attempt = 0; attempt < 16; attempt++) {
        free(f->temporary);
        f->temporary = fresh_name(f->folder);
        if (!f->temporary) return errno = ENOMEM, -1;
        int fd = open(f->temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd >= 0 || errno != EEXIST) return fd;
    }
    return -1;
}

static void file_free(iso_file *f)
{
    if (!f) return;
    if (f->stream) fclose(f->stream);
    free(f->path);
    free(f->temporary);
    free(f->folder);
    free(f);
}

/* Where the links at `path` lead to, whether or not anything is there: another program may take it away meanwhile. Fresh memory; NULL and errno on failure. */
static char *follow(const char *path)
{
    enum { LINKS = 40 };
    char target[PATH_MAX], *at = iso_strndup(path, strlen(path));
    for (int i = 0; at; i++) {
        const ssize_t n = readlink(at, target, sizeof target);
        if (n < 0) return at; /* no link */
        char *folder = folder_of(at);
        free(at);
        at = NULL;
        if (n == sizeof target || i == LINKS) errno = ELOOP;
        else if (target[0] == '/') at = iso_strndup(target, (size_t)n);
        else if (folder) at = iso_format("%s/%.*s", folder, (int)n, target);
        free(folder);
    }
    return NULL;
}

/* A container's bind mount of one file. Kernels before 5.8 do not tell: renaming then fails. */
static bool is_mounted(const char *path)
{
    struct statx st;
    return statx(AT_FDCWD, path, AT_STATX_DONT_SYNC, STATX_TYPE, &st) == 0 && (st.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
}

/* A link keeps being a link: the file it points to is replaced, or made. */
static iso_status resolve(iso_file *f, const char *path, struct stat *target, bool *exists, iso_error *err)
{
    *exists = stat(path, target) == 0;
    if (!*exists && errno != ENOENT) return iso_fail_errno(err, "cannot write %s", path);
    if (*exists && S_ISDIR(target->st_mode))
        return iso_fail(err, ISO_E_IO, "cannot write %s: it is a folder", path);
    if (*exists && !S_ISREG(target->st_mode))
        return iso_fail(err, ISO_E_IO, "cannot write %s: it is not a regular file", path);
    if (*exists && is_mounted(path))
        return iso_fail(err, ISO_E_IO, "cannot write %s: it is mounted as a single file, which cannot be replaced; mount its folder", path);
    f->path = follow(path);
    if (!f->path) return iso_fail_errno(err, "cannot write %s", path);
    f->folder = folder_of(f->path);
    return f->folder ? ISO_OK : iso_fail_memory(err);
}

int iso_file_reserve(int fd, uint64_t bytes, bool longer)
{
    int rc;
    do rc = fallocate(fd, longer ? 0 : FALLOC_FL_KEEP_SIZE, 0, (off_t)bytes);
    while (rc && errno == EINTR);
    return rc && (errno == ENOSPC || errno == EDQUOT || errno == EFBIG) ? errno : 0;
}

/* All of it best effort: on a foreign file system neither may be ours to set. */
void iso_file_like(int fd, const struct stat *other)
{
    struct stat st;
    const bool foreign = !fstat(fd, &st) && (st.st_uid != other->st_uid || st.st_gid != other->st_gid);
    if (foreign && fchown(fd, other->st_uid, other->st_gid) && fchown(fd, (uid_t)-1, other->st_gid)) errno = 0;
    if (fchmod(fd, other->st_mode & 0777)) errno = 0;
}

iso_status iso_file_create(const char *path, iso_file **out, iso_error *err)
{
    iso_file *f = iso_calloc(1, sizeof *f);
    if (!f) return iso_fail_memory(err);
    struct stat target;
    bool exists;
    int fd = -1;
    iso_status status = resolve(f, path, &target, &exists, err);
    if (status) goto fail;
    sweep_once(f->folder);
    fd = open_beside(f);
    if (fd < 0) {
        status = iso_fail_errno(err, "cannot write %s", path);
        goto fail;
    }
    if (flock(fd, LOCK_SH | LOCK_NB) != 0) errno = 0; /* best effort: not every file system has locks */
    if (exists) iso_file_like(fd, &target);
    f->stream = fdopen(fd, "wb");
    if (!f->stream) {
        status = iso_fail_errno(err, "cannot write %s", path);
        unlink(f->temporary);
        goto fail;
    }
    *out = f;
    return ISO_OK;
fail:
    if (fd >= 0) close(fd);
    file_free(f);
    return status;
}

FILE *iso_file_stream(iso_file *f)
{
    return f->stream;
}

/* Some file systems cannot sync a folder (EINVAL), some folders may be written but not read. */
static int sync_folder(const char *folder)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return 0;
    int bad = fsync(fd) != 0 && errno == EIO;
    int code = errno;
    close(fd);
    errno = code;
    return bad ? -1 : 0;
}

/* What may fail for want of room. */
static iso_status finish(iso_file *f, iso_error *err)
{
    /* A write that failed long ago left no errno behind. */
    if (ferror(f->stream))
        return iso_fail(err, ISO_E_IO, "cannot write %s: a write failed (is the disk full?)", f->path);
    if (fflush(f->stream) != 0 || (fsync(fileno(f->stream)) != 0 && errno != EINVAL))
        return iso_fail_errno(err, "cannot write %s", f->path);
    FILE *stream = f->stream;
    f->stream = NULL;
    if (fclose(stream) != 0) return iso_fail_errno(err, "cannot write %s", f->path);
    return ISO_OK;
}

static iso_status replace(const iso_file *f, iso_error *err)
{
    return rename(f->temporary, f->path) == 0 ? ISO_OK : iso_fail_errno(err, "cannot replace %s", f->path);
}

static iso_status settle(const char *folder, iso_error *err)
{
    return sync_folder(folder) == 0 ? ISO_OK : iso_fail_errno(err, "cannot sync the folder %s", folder);
}

static iso_status settle_in(char *folder, iso_error *err)
{
    iso_status status = folder ? settle(folder, err) : iso_fail_memory(err);
    free(folder);
    return status;
}

iso_status iso_file_settle(const char *path, iso_error *err)
{
    struct stat st;
    iso_status status = settle_in(folder_of(path), err);
    if (status || lstat(path, &st) || !S_ISLNK(st.st_mode)) return status;
    char *target = realpath(path, NULL);
    if (!target) return iso_fail_errno(err, "cannot tell where %s leads to", path);
    status = settle_in(folder_of(target), err);
    free(target);
    return status;
}

iso_status iso_file_commit(iso_file *f, iso_error *err)
{
    iso_status status = finish(f, err);
    if (!status) status = replace(f, err);
    if (status) unlink(f->temporary);
    else status = settle(f->folder, err);
    file_free(f);
    return status;
}

/* b after a, whose old file is kept under the name `old`; is_new: there is none. */
static iso_status replace_both(const iso_file *a, const iso_file *b, const char *old, bool is_new, iso_error *err)
{
    iso_error why = {0};
    const bool kept = !is_new && link(a->path, old) == 0;
    iso_status status = replace(a, err);
    if (!status && (status = replace(b, &why)) != ISO_OK) {
        const bool back = is_new ? unlink(a->path) == 0 : kept && rename(old, a->path) == 0;
        return iso_fail(err, status, "%s%s%s", why.message, back ? "" : "; already new is ", back ? "" : a->path);
    }
    if (kept) unlink(old);
    return status;
}

iso_status iso_file_commit_both(iso_file *a, iso_file *b, iso_error *err)
{
    struct stat st;
    const bool is_new = lstat(a->path, &st) != 0;
    char *old = fresh_name(a->folder);
    iso_status status = old ? finish(a, err) : iso_fail_memory(err);
    if (!status) status = finish(b, err);
    if (!status) status = replace_both(a, b, old, is_new, err);
    if (status) {
        unlink(a->temporary);
        unlink(b->temporary);
    } else {
        status = settle(a->folder, err);
        if (!status) status = settle(b->folder, err);
    }
    free(old);
    file_free(a);
    file_free(b);
    return status;
}

void iso_file_abort(iso_file *f)
{
    if (!f) return;
    unlink(f->temporary);
    file_free(f);
}

/* Reads to the end, one byte more than the limit at most: a pipe's size is not known before. */
static iso_status read_all(int fd, const char *path, size_t limit, size_t guess,
                           char **data, size_t *size, iso_error *err)
{
    char *buffer = NULL;
    size_t used = 0, capacity = 0;
    iso_status status = ISO_OK;
    for (;;) {
        size_t need = used == 0 ? guess + 2 : used + 2;
        if (!iso_grow(&buffer, &capacity, need, 1)) {
            status = iso_fail_memory(err);
            break;
        }
        const ssize_t n = TEMP_FAILURE_RETRY(read(fd, buffer + used, capacity - used - 1));
        if (n < 0) {
            status = iso_fail_errno(err, "cannot read %s", path);
            break;
        }
        if (n == 0) break;
        used += (size_t)n;
        if (used > limit) {
            status = iso_fail(err, ISO_E_FORMAT, "%s is larger than the %zu bytes it may have", path, limit);
            break;
        }
    }
    if (status) {
        free(buffer);
        return status;
    }
    buffer[used] = '\0';
    *data = buffer;
    *size = used;
    return ISO_OK;
}

static bool is_named_pipe(int fd, const struct stat *st)
{
    struct statfs fs;
    return S_ISFIFO(st->st_mode) && (fstatfs(fd, &fs) != 0 || fs.f_type != PIPEFS_MAGIC);
}

iso_status iso_file_open(const char *path, size_t limit, int *fd, struct stat *st, iso_error *err)
{
    iso_status status = ISO_OK;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (*fd < 0) return iso_fail_errno(err, "cannot open %s", path);
    if (fstat(*fd, st) != 0 || fcntl(*fd, F_SETFL, 0) != 0) /* reading may wait */
        status = iso_fail_errno(err, "cannot read %s", path);
    else if (S_ISDIR(st->st_mode))
        status = iso_fail(err, ISO_E_IO, "cannot read %s: it is a folder", path);
    else if (is_named_pipe(*fd, st))
        status = iso_fail(err, ISO_E_IO, "cannot read %s: it is a named pipe", path);
    else if (S_ISREG(st->st_mode) && (uintmax_t)st->st_size > limit)
        status = iso_fail(err, ISO_E_FORMAT, "%s has %jd bytes, more than the %zu it may have", path, (intmax_t)st->st_size, limit);
    if (status) close(*fd);
    return status;
}

iso_status iso_file_open_regular(const char *path, size_t limit, int *fd, struct stat *st, iso_error *err)
{
    iso_status status = iso_file_open(path, limit, fd, st, err);
    if (status || S_ISREG(st->st_mode)) return status;
    close(*fd);
    return iso_fail(err, ISO_E_IO, "cannot read %s: it is no regular file", path);
}

iso_status iso_file_read(const char *path, size_t limit, char **data, size_t *size, iso_error *err)
{
    int fd;
    struct stat st;
    iso_status status = iso_file_open(path, limit, &fd, &st, err);
    if (status) return status;
    status = read_all(fd, path, limit, S_ISREG(st.st_mode) ? (size_t)st.st_size : 4096, data, size, err);
    close(fd);
    return status;
}

int iso_file_read_at(int fd, void *to, size_t bytes, int64_t at)
{
    for (char *p = to; bytes > 0;) {
        const ssize_t n = TEMP_FAILURE_RETRY(pread(fd, p, bytes, (off_t)at));
        if (n <= 0) return n < 0 ? errno : -1;
        p += n;
        at += n;
        bytes -= (size_t)n;
    }
    return 0;
}

iso_status iso_file_read_huge(const char *path, size_t limit, char **data, size_t *size, iso_error *err)
{
    enum { PART = 4 << 20 };
    int fd, failed = 0;
    struct stat st;
    iso_status status = iso_file_open_regular(path, limit, &fd, &st, err);
    if (status) return status;
    const size_t bytes = (size_t)st.st_size;
    char *to = iso_huge_alloc(bytes);
    if (!to) status = iso_fail_memory(err);
#pragma omp parallel for schedule(dynamic, 1) if (bytes > PART)
    for (size_t at = 0; at < bytes; at += PART) {
        const int why = status ? 0 : iso_file_read_at(fd, to + at, bytes - at < PART ? bytes - at : PART, (int64_t)at);
        if (why) {
#pragma omp atomic write
            failed = why;
        }
    }
    close(fd);
    if (failed > 0) {
        errno = failed;
        status = iso_fail_errno(err, "cannot read %s", path);
    } else if (failed) {
        status = iso_fail(err, ISO_E_FORMAT, "%s became shorter while it was read", path);
    }
    if (status) {
        iso_huge_free(to, bytes);
        return status;
    }
    *data = to;
    *size = bytes;
    return ISO_OK;
}
