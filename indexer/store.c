/* store.c: the folder of a database; opening, making and closing it. */
#include "indexer/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "indexer/store_internal.h"

#define MAP_STEP (UINT64_C(4) << 30)

/* ---- the folder ---- */

/* A pipe in its place is not waited for. */
static int data_open(int dir_fd) { return openat(dir_fd, "data.mdb", O_RDONLY | O_CLOEXEC | O_NONBLOCK); }

static bool has_index(int dir_fd) { return faccessat(dir_fd, ISO_STORE_INDEX, F_OK, 0) == 0; }

/* What is in a folder; whole: LMDB can open it. Of a database that was cut off within its first pages nothing is left but the index, if it had
 * one: that is damage. */
static iso_status look(int dir_fd, const char *dir, iso_store_found *out, bool *whole, iso_error *err)
{
    struct stat st;
    bool begun = false;
    *whole = false;
    *out = ISO_STORE_NONE;
    int fd = data_open(dir_fd);
    if (fd < 0) return errno == ENOENT ? ISO_OK : iso_fail_errno(err, "cannot open %s/data.mdb", dir);
    iso_status status = fstat(fd, &st) ? iso_fail_errno(err, "cannot open %s/data.mdb", dir) : ISO_OK;
    if (!status && S_ISREG(st.st_mode)) status = iso_pages_begun(fd, dir, &begun, whole, err);
    close(fd);
    *out = begun && (*whole || !has_index(dir_fd)) ? ISO_STORE_INCOMPLETE : ISO_STORE_COMPLETE;
    return status;
}

iso_status iso_store_look(const char *dir, iso_store_found *out, iso_error *err)
{
    bool whole;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *out = ISO_STORE_NONE;
    if (fd < 0) return errno == ENOENT || errno == ENOTDIR ? ISO_OK : iso_fail_errno(err, "cannot open %s", dir);
    iso_status status = look(fd, dir, out, &whole, err);
    close(fd);
    return status;
}

static const char *const ours[] = {"data.mdb", "lock.mdb", ISO_STORE_MODEL, ISO_STORE_INDEX};

bool iso_store_owns(const iso_store *s, const char *path)
{
    char file[PATH_MAX]; /* none of ours can be longer */
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        if (snprintf(file, sizeof file, "%s/%s", s->dir, ours[i]) < (int)sizeof file && iso_file_same(file, path)) return true;
    return false;
}

/* A folder that a database may be made in: empty, or left by a killed attempt. */
static iso_status folder_is_ours(const char *dir, iso_error *err)
{
    DIR *d = opendir(dir);
    if (!d) return iso_fail_errno(err, "cannot open %s", dir);
    const struct dirent *e;
    const char *foreign = NULL;
    char name[sizeof e->d_name];
    while (!foreign && (e = readdir(d))) {
        bool known = e->d_name[0] == '.';
        for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) known = known || !strcmp(e->d_name, ours[i]);
        if (!known) foreign = strcpy(name, e->d_name);
    }
    closedir(d);
    if (foreign) return iso_fail(err, ISO_E_ARGUMENT, "%s holds other files (%s) and no database: name a new folder for the database", dir, foreign);
    return ISO_OK;
}

static void sync_parent(const char *dir)
{
    char *up = iso_path_join(dir, "..");
    int fd = up ? open(up, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        fsync(fd); /* best effort: some file systems cannot */
        close(fd);
    }
    free(up);
}

static iso_status folder_make(const char *dir, bool *made, iso_error *err)
{
    if (mkdir(dir, 0777) == 0) {
        *made = true;
        sync_parent(dir);
        return ISO_OK;
    }
    if (errno != EEXIST) return iso_fail_errno(err, "cannot make the database folder %s", dir);
    struct stat st;
    if (stat(dir, &st)) return iso_fail_errno(err, "cannot open %s", dir);
    if (!S_ISDIR(st.st_mode)) return iso_fail(err, ISO_E_ARGUMENT, "%s is a file: a database is a folder, name another", dir);
    iso_store_found found;
    iso_status status = iso_store_look(dir, &found, err);
    return status || found != ISO_STORE_NONE ? status : folder_is_ours(dir, err);
}

static iso_status copy_stream(FILE *in, FILE *out, const char *from, const char *to, iso_error *err)
{
    char buf[1 << 16];
    size_t n;
    while ((n = fread(buf, 1, sizeof buf, in)) > 0)
        if (fwrite(buf, 1, n, out) != n) return iso_fail_errno(err, "cannot write %s", to);
    return ferror(in) ? iso_fail_errno(err, "cannot read %s", from) : ISO_OK;
}

/* The model goes in before the database is complete, so that there is never one without it. */
static iso_status copy_model(const char *from, const char *dir, iso_error *err)
{
    char *to = iso_path_join(dir, ISO_STORE_MODEL);
    if (!to) return iso_fail_memory(err);
    iso_file *f = NULL;
    FILE *in = NULL;
    int fd;
    struct stat st;
    iso_status status = iso_file_open_regular(from, SIZE_MAX, &fd, &st, err);
    if (!status && !(in = fdopen(fd, "rb"))) {
        status = iso_fail_errno(err, "cannot read the model %s", from);
        close(fd);
    }
    if (!status) status = iso_file_create(to, &f, err);
    if (!status) status = copy_stream(in, iso_file_stream(f), from, to, err);
    if (!status) {
        status = iso_file_commit(f, err);
        f = NULL;
    }
    iso_file_abort(f);
    if (in) fclose(in);
    free(to);
    return status;
}

/* ---- opening ---- */

/* What a file system answers that has no locks. */
static bool is_lockless(int code) { return code == ENOLCK || code == EOPNOTSUPP || code == ENOSYS; }

static int folder_flock(const iso_store *s, int how)
{
    int rc;
    do rc = flock(s->dir_fd, how);
    while (rc && errno == EINTR);
    return rc;
}

/* Not every file system has locks on folders: there LMDB's own must do. */
static bool folder_lock(const iso_store *s, int how) { return !folder_flock(s, how) || is_lockless(errno) || errno == EINVAL; }

iso_status iso_store_alone(const iso_store *s, iso_error *err)
{
    if (!folder_flock(s, LOCK_EX | LOCK_NB)) return ISO_OK;
    if (errno == EWOULDBLOCK) return iso_fail(err, ISO_E_IO, "%s is in use by another program: close that and run again", s->dir);
    if (is_lockless(errno) || errno == EINVAL)
        return iso_fail(err, ISO_E_IO, "cannot compact %s: its file system has no locks on folders (%s), and nothing would keep others from writing to it meanwhile: "
                        "move it to one that has, and compact it there", s->dir, strerror(errno));
    return iso_fail_errno(err, "cannot lock %s", s->dir);
}

enum { CLAIMS = 10000 }; /* a millisecond between them */

/* Whoever makes a database is alone in the folder meanwhile, so that what another has just begun is not taken for something left behind. That
 * is made anew; what was cut off LMDB would refuse. The folder stays locked where the database is fresh. */
static iso_status claim(iso_store *s, bool *fresh, iso_error *err)
{
    iso_store_found found;
    bool whole, alone = false;
    for (int i = 0;; i++) {
        iso_status status = look(s->dir_fd, s->dir, &found, &whole, err);
        if (status) return status;
        if (alone || found == ISO_STORE_COMPLETE) break;
        alone = folder_lock(s, LOCK_EX | LOCK_NB);
        if (alone) continue;
        if (errno != EWOULDBLOCK) return iso_fail_errno(err, "cannot lock %s", s->dir);
        if (i == CLAIMS) return iso_fail(err, ISO_E_IO, "%s is in use by another program: close that and run again", s->dir);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        if (!folder_lock(s, LOCK_SH)) return iso_fail_errno(err, "cannot lock %s", s->dir); /* the attempt has given it up */
    }
    *fresh = found != ISO_STORE_COMPLETE;
    if (!*fresh) return alone && !folder_lock(s, LOCK_SH) ? iso_fail_errno(err, "cannot lock %s", s->dir) : ISO_OK;
    if (found == ISO_STORE_NONE || whole) return ISO_OK;
    int fd = openat(s->dir_fd, "data.mdb", O_WRONLY | O_TRUNC | O_CLOEXEC);
    if (fd < 0) return iso_fail_errno(err, "cannot open %s/data.mdb for writing", s->dir);
    close(fd);
    return ISO_OK;
}

static iso_status open_data(iso_store *s, bool fresh, iso_error *err)
{
    struct stat st;
    s->data_fd = data_open(s->dir_fd);
    if (s->data_fd < 0 && errno == ENOENT) {
        if (fresh) return ISO_OK;
        return iso_fail(err, ISO_E_NOT_FOUND, "%s is not a database (no data.mdb in it): make one with `indexer encode --images DIR --model M --db %s`", s->dir, s->dir);
    }
    if (s->data_fd < 0) return iso_fail_errno(err, "cannot open %s/data.mdb", s->dir);
    if (fstat(s->data_fd, &st)) return iso_fail_errno(err, "cannot open %s/data.mdb", s->dir);
    if (!S_ISREG(st.st_mode)) return iso_fail(err, ISO_E_FORMAT, "%s/data.mdb is not a regular file", s->dir);
    if (fresh) return ISO_OK;
    bool begun, whole;
    iso_status status = iso_pages_begun(s->data_fd, s->dir, &begun, &whole, err);
    if (!status && begun && !whole)
        status = iso_fail(err, ISO_E_FORMAT, has_index(s->dir_fd) ? "%s was cut off (data.mdb has %lld bytes): restore it, or make another in a new folder"
                          : "%s was never completed, or cut off (data.mdb has %lld bytes): run what makes it again, or restore it",
                          s->dir, (long long)st.st_size);
    return status ? status : iso_pages_head(s->data_fd, s->dir, err);
}

static int env_try(iso_store *s, unsigned flags, uint64_t size)
{
    int rc = mdb_env_create(&s->env);
    if (rc) return rc;
    mdb_env_set_maxdbs(s->env, 8);
    mdb_env_set_maxreaders(s->env, 254);
    rc = mdb_env_set_mapsize(s->env, (size + 65535) & ~UINT64_C(65535));
    if (!rc) rc = mdb_env_open(s->env, s->dir, flags | MDB_NOTLS, 0666);
    if (rc) {
        mdb_env_close(s->env);
        s->env = NULL;
    }
    return rc;
}

/* The map takes only addresses; less of it where they are rationed, at last what is there already, which is enough for readers. */
static int env_map(iso_store *s, unsigned flags, uint64_t used)
{
    for (;; s->map_step /= 2) {
        int rc = env_try(s, flags, 2 * used + s->map_step);
        if (rc == ENOMEM) rc = env_try(s, flags, used + s->map_step);
        if (rc != ENOMEM) return rc;
        if (s->map_step <= ISO_STORE_STEP_MIN) break;
    }
    return flags & MDB_RDONLY ? env_try(s, flags, used) : ENOMEM;
}

enum { LOCK_BYTES = 16384 }; /* for that many readers */

/* Where a file's pages are never written twice in one place (btrfs), each write in a map needs room again: not in this file, which is empty yet. */
static void write_in_place(int fd)
{
    int flags;
    if (!ioctl(fd, FS_IOC_GETFLAGS, &flags) && !(flags & FS_NOCOW_FL)) {
        flags = (flags & ~FS_COMPR_FL) | FS_NOCOW_FL;
        (void)ioctl(fd, FS_IOC_SETFLAGS, &flags); /* not every file system knows it */
    }
}

/* Whether a map of the file can be written to: pages that a snapshot or a copy shares take room once more, and without it that is a SIGBUS. */
static bool is_writable_map(int fd, size_t bytes)
{
    bool writable = true;
#ifdef MADV_POPULATE_WRITE
    void *map = bytes ? mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (map == MAP_FAILED) return true; /* LMDB says why */
    writable = !madvise(map, bytes, MADV_POPULATE_WRITE) || errno != EFAULT;
    munmap(map, bytes);
#else
    (void)fd, (void)bytes;
#endif
    return writable;
}

/* Leaves length and content, which others may be using. Not every file system can. */
static int lock_room(int fd, const struct stat *lock)
{
    const off_t bytes = lock->st_size > LOCK_BYTES ? lock->st_size : LOCK_BYTES;
    int rc = 0;
    if (!S_ISREG(lock->st_mode)) return 0;
    if (lock->st_blocks * 512 < bytes) rc = iso_file_reserve(fd, (uint64_t)bytes, false);
    if (rc == ENOSPC || rc == EDQUOT) return rc;
    return is_writable_map(fd, (size_t)lock->st_size) ? 0 : ENOSPC;
}

/* Before LMDB makes it, with the umask's permissions: later, closing the file here would end LMDB's locks in it. */
int iso_lock_make(const iso_store *s)
{
    struct stat lock, data;
    int rc = 0, fd = openat(s->dir_fd, "lock.mdb", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    const bool made = fd >= 0;
    if (!made) fd = openat(s->dir_fd, "lock.mdb", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return 0; /* LMDB says why it cannot be */
    if (made) write_in_place(fd);
    if (!fstat(fd, &lock)) {
        if (fstatat(s->dir_fd, "data.mdb", &data, 0)) data = lock;
        const mode_t readers = data.st_mode & 0444;
        data.st_mode = lock.st_mode | readers | readers >> 1;
        if (made) iso_file_like(fd, &data); /* of the database's owner, whoever opens it first */
        rc = lock_room(fd, &lock);
    }
    close(fd);
    return rc;
}

/* Nor root, who opens it for writing by us: see open_env. */
static bool nobody_writes(const iso_store *s, const struct stat *data)
{
    struct statvfs fs;
    return !(data->st_mode & 0222) || (!fstatvfs(s->dir_fd, &fs) && fs.f_flag & ST_RDONLY);
}

static iso_status open_env(iso_store *s, iso_store_mode mode, iso_error *err)
{
    struct stat st = {0};
    if (s->data_fd >= 0 && fstat(s->data_fd, &st)) return iso_fail_errno(err, "cannot open %s/data.mdb", s->dir);
    if (mode != ISO_STORE_READ && s->data_fd >= 0 && !(st.st_mode & 0222))
        return iso_fail(err, ISO_E_IO, "cannot open %s for writing: nobody may write its data.mdb: close it everywhere, then `chmod u+w %s/data.mdb`", s->dir, s->dir);
    const uint64_t used = (uint64_t)st.st_size;
    /* Candidates lie all over the file: reading ahead would bring most of it. Whoever reads all of it says so (iso_pages_whole). */
    const unsigned flags = mode == ISO_STORE_READ ? MDB_RDONLY | MDB_NORDAHEAD : 0;
    int rc = iso_lock_make(s);
    const bool full = rc != 0;
    if (!rc) rc = env_map(s, flags, used);
    const bool refused = rc == EACCES || rc == EPERM || rc == EROFS, lockless = is_lockless(rc);
    if (mode == ISO_STORE_READ && (refused || lockless || full) && nobody_writes(s, &st)) { /* who would use again the pages that are read here */
        s->unlocked = true;
        rc = env_try(s, flags | MDB_NOLOCK, used);
    } else if (mode == ISO_STORE_READ && refused) {
        return iso_fail(err, ISO_E_IO, "cannot open %s: readers must be able to write its lock.mdb: let its owner `touch %s/lock.mdb; chmod a+rw %s/lock.mdb`, "
                        "or `chmod a-w %s/data.mdb` when all have closed it and nobody is to write any more", s->dir, s->dir, s->dir, s->dir);
    } else if (mode == ISO_STORE_READ && lockless) {
        return iso_fail(err, ISO_E_IO, "cannot open %s: its file system has no file locks (%s), which keep a writer from what is being read: put it on another, "
                        "or `chmod a-w %s/data.mdb` when all have closed it and nobody is to write any more", s->dir, strerror(rc), s->dir);
    } else if (lockless) {
        return iso_fail(err, ISO_E_IO, "cannot open %s for writing: its file system has no file locks (%s), which keep writers apart: put it on another", s->dir, strerror(rc));
    }
    if (rc) return iso_lmdb_fail(err, rc, s->dir, mode == ISO_STORE_READ ? "open" : "open for writing");
    s->unlocked = s->unlocked || faccessat(s->dir_fd, "lock.mdb", W_OK, AT_EACCESS) != 0;
    if (mode != ISO_STORE_READ) {
        int dead;
        mdb_reader_check(s->env, &dead); /* readers that were killed would pin old pages for ever */
    }
    if (s->data_fd < 0) s->data_fd = data_open(s->dir_fd);
    if (s->data_fd < 0 || fstat(s->data_fd, &st)) return iso_fail_errno(err, "cannot open %s/data.mdb", s->dir);
    s->dev = st.st_dev;
    s->ino = st.st_ino;
    return ISO_OK;
}

struct told { char first[256]; };

static void tell(void *ctx, const char *line)
{
    struct told *t = ctx;
    if (!t->first[0]) snprintf(t->first, sizeof t->first, "%s", line);
}

/* Before LMDB follows a single link: see store_pages.c. A reader without a lock may be overtaken by a writer elsewhere, of what is
 * mounted read-only here: again then. */
static iso_status check_pages(iso_store *s, iso_error *err)
{
    struct stat st;
    if (fstat(s->data_fd, &st)) return iso_fail_errno(err, "cannot read %s/data.mdb", s->dir);
    for (int attempt = 0;; attempt++) {
        MDB_txn *txn;
        int rc = iso_lmdb_begin(s, false, &txn);
        if (rc) return iso_lmdb_fail(err, rc, s->dir, "open");
        struct told told = {""};
        int64_t faults = 0;
        bool is_short = false;
        iso_status status = iso_pages_short(s->data_fd, s->dir, mdb_txn_id(txn), &is_short, err);
        if (!status && (is_short || st.st_size <= (off_t)ISO_STORE_CHECK))
            status = iso_pages_check(s->data_fd, s->dir, txn, !s->unlocked, tell, &told, NULL, &faults, err);
        mdb_txn_abort(txn);
        iso_lmdb_end(s);
        if ((status == ISO_E_INTERRUPTED || (faults && s->unlocked)) && attempt < 5) continue;
        if (status) return status;
        if (!faults) return ISO_OK;
        return iso_fail(err, ISO_E_FORMAT, "%s/data.mdb is damaged%s (%s): restore it, or remove the folder and encode again",
                        s->dir, is_short ? " or truncated" : "", told.first);
    }
}

static int open_tables(iso_store *s, MDB_txn *txn, unsigned create)
{
    int rc = mdb_dbi_open(txn, NULL, 0, &s->main);
    if (!rc) rc = mdb_dbi_open(txn, "meta", create, &s->meta);
    if (!rc) rc = mdb_dbi_open(txn, "items", create | MDB_INTEGERKEY, &s->items);
    if (!rc) rc = mdb_dbi_open(txn, "vectors", create | MDB_INTEGERKEY, &s->vectors);
    if (!rc) rc = mdb_dbi_open(txn, "by-path", create, &s->by_path);
    if (!rc) rc = mdb_dbi_open(txn, "by-hash", create, &s->by_hash);
    return rc;
}

static iso_status spec_check(const char *dir, const iso_store_spec *spec, iso_error *err)
{
    if (!spec || !spec->digest || spec->dim < 1 || spec->dim > ISO_STORE_DIM_MAX || strlen(spec->digest) != 32
        || strspn(spec->digest, "0123456789abcdef") != 32 || (spec->root && spec->root[0] != '/'))
        return iso_fail(err, ISO_E_ARGUMENT, "cannot make %s: vectors of 1 to %d numbers, a digest of 32 hexadecimal digits and an absolute folder are needed", dir, ISO_STORE_DIM_MAX);
    return ISO_OK;
}

static iso_status agree(const iso_store *s, const iso_store_spec *spec, iso_error *err)
{
    if (strcmp(s->digest, spec->digest) != 0 && !s->model[0])
        return iso_fail(err, ISO_E_MISMATCH, "%s holds imported vectors (%s, of %d numbers), not those of %s: they never mix; use a new database", s->dir, s->digest, s->dim, spec->digest);
    if (strcmp(s->digest, spec->digest) != 0 && !spec->model)
        return iso_fail(err, ISO_E_MISMATCH, "%s holds vectors of model %s, not those of %s: imported ones never mix with them; use another database", s->dir, s->digest, spec->digest);
    if (strcmp(s->digest, spec->digest) != 0)
        return iso_fail(err, ISO_E_MISMATCH, "%s holds vectors of model %s, not of %s: vectors of two models never mix; use the model it was made with, or another database",
                        s->dir, s->digest, spec->digest);
    if (s->dim != spec->dim)
        return iso_fail(err, ISO_E_MISMATCH, "%s holds vectors of %d numbers, not %d: use another database", s->dir, s->dim, spec->dim);
    if (spec->root && strcmp(s->root, spec->root) != 0)
        return iso_fail(err, ISO_E_MISMATCH, "%s was made from the folder %s, not %s: name that folder, or use another database%s",
                        s->dir, s->root, spec->root, spec->model ? ", or say --relocate if the folder has moved" : "");
    return ISO_OK;
}

/* Everything that a new database needs, in one transaction: it is there whole or not at all. */
static iso_status complete(iso_store *s, MDB_txn *txn, const iso_store_spec *spec, iso_error *err)
{
    if (!spec->root) return iso_fail(err, ISO_E_ARGUMENT, "cannot make %s: no folder of images is named", s->dir);
    s->root = iso_strndup(spec->root, strlen(spec->root));
    if (!s->root) return iso_fail_memory(err);
    s->dim = spec->dim;
    memcpy(s->digest, spec->digest, sizeof s->digest);
    snprintf(s->model, sizeof s->model, "%s", spec->model ? ISO_STORE_MODEL : "");
    s->created = (uint64_t)time(NULL);
    iso_state state = {.next_id = 1, .updated = s->created};
    iso_status status = iso_head_write(s, txn, err);
    if (!status) status = iso_state_write(s, txn, &state, err);
    return status ? status : iso_history_begin(s, txn, err);
}

static iso_status open_create(iso_store *s, bool fresh, const iso_store_spec *spec, iso_error *err)
{
    MDB_txn *txn;
    int rc = iso_lmdb_begin(s, true, &txn);
    if (rc) return iso_lmdb_fail(err, rc, s->dir, "write");
    rc = open_tables(s, txn, MDB_CREATE);
    iso_error none;
    iso_status status = rc ? iso_lmdb_fail(err, rc, s->dir, "write") : iso_head_read(s, txn, &none);
    if (!rc && status == ISO_E_NOT_FOUND && fresh) status = complete(s, txn, spec, err);
    else if (!rc) status = status ? (err ? (*err = none, status) : status) : agree(s, spec, err);
    if (status) {
        mdb_txn_abort(txn);
        iso_lmdb_end(s);
        return status;
    }
    rc = mdb_txn_commit(txn);
    iso_lmdb_end(s);
    return rc ? iso_lmdb_fail(err, rc, s->dir, "write") : ISO_OK;
}

static iso_status open_existing(iso_store *s, iso_error *err)
{
    MDB_txn *txn;
    int rc = iso_lmdb_begin(s, false, &txn);
    if (rc) return iso_lmdb_fail(err, rc, s->dir, "open");
    rc = open_tables(s, txn, 0);
    iso_state state;
    iso_status status;
    if (rc == MDB_NOTFOUND) status = iso_fail(err, ISO_E_NOT_FOUND, "%s is not a complete Isoface database: run `indexer encode` (again)", s->dir);
    else if (rc) status = iso_lmdb_fail(err, rc, s->dir, "open");
    else status = iso_head_read(s, txn, err);
    if (!status) status = iso_state_read(s, txn, &state, err);
    if (status) mdb_txn_abort(txn);
    else rc = mdb_txn_commit(txn); /* keeps the tables' handles */
    iso_lmdb_end(s);
    if (status) return status;
    return rc ? iso_lmdb_fail(err, rc, s->dir, "open") : ISO_OK;
}

static iso_status name(iso_store *s, const char *dir, iso_error *err)
{
    s->dir = iso_strndup(dir, strlen(dir));
    char *data = s->dir ? iso_path_join(dir, "data.mdb") : NULL;
    if (!data) return iso_fail_memory(err);
    s->data = iso_path_absolute(data);
    free(data);
    return s->data ? ISO_OK : iso_fail_errno(err, "cannot open %s", dir);
}

static iso_status open_folder(iso_store *s, iso_error *err)
{
    s->dir_fd = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->dir_fd < 0 && errno == ENOENT)
        return iso_fail(err, ISO_E_NOT_FOUND, "there is no database %s: make one with `indexer encode --images DIR --model M --db %s`", s->dir, s->dir);
    if (s->dir_fd < 0 && errno == ENOTDIR) return iso_fail(err, ISO_E_FORMAT, "%s is not a database: a database is a folder", s->dir);
    if (s->dir_fd < 0) return iso_fail_errno(err, "cannot open %s", s->dir);
    /* shared by all who have it open; a compaction waits for none and lets none in */
    if (!folder_lock(s, LOCK_SH)) return iso_fail_errno(err, "cannot lock %s", s->dir);
    return iso_store_enlist(s, err);
}

/* Who fills or compacts a database has its folder alone: what they have left there is nobody's, now that it is shared. */
static void sweep(const iso_store *s)
{
    static const char *const names[] = {ISO_STORE_FILLING, ISO_STORE_COMPACTING};
    for (int i = 0; i < 2 && !folder_flock(s, LOCK_SH | LOCK_NB); i++) unlinkat(s->dir_fd, names[i], 0);
    iso_file_sweep(s->dir);
}

/* What was put into a new folder goes again, where LMDB has not begun; where it has, the next attempt completes it. */
static void unmake(const iso_store *s)
{
    if (s->dir_fd < 0 || !faccessat(s->dir_fd, "data.mdb", F_OK, 0) || errno != ENOENT) return;
    unlinkat(s->dir_fd, "lock.mdb", 0);
    unlinkat(s->dir_fd, ISO_STORE_MODEL, 0);
}

iso_status iso_store_open(const char *dir, iso_store_mode mode, const iso_store_spec *spec, iso_store **out, iso_error *err)
{
    iso_status status = ISO_OK;
    bool fresh = false, made = false;
    if (!dir || !*dir) return iso_fail(err, ISO_E_ARGUMENT, "no database is named");
    if (mode == ISO_STORE_CREATE && (status = spec_check(dir, spec, err))) return status;
    if (mode == ISO_STORE_CREATE && (status = folder_make(dir, &made, err))) return status;
    iso_store *s = iso_calloc(1, sizeof *s);
    if (!s) return iso_fail_memory(err);
    s->dir_fd = s->data_fd = -1;
    s->pid = getpid();
    s->writable = mode != ISO_STORE_READ;
    s->map_step = MAP_STEP;
    pthread_mutex_init(&s->mutex, NULL);
    if ((status = name(s, dir, err))) goto fail;
    if ((status = open_folder(s, err))) goto fail;
    if (mode == ISO_STORE_CREATE && (status = claim(s, &fresh, err))) goto fail;
    if ((status = open_data(s, fresh, err))) goto fail;
    if (fresh && spec->model && (status = copy_model(spec->model, dir, err))) goto fail;
    if ((status = open_env(s, mode, err))) goto fail;
    if (fresh && (status = iso_file_settle(s->data, err))) goto fail; /* no commit returns before data.mdb has its name on disk */
    if ((status = check_pages(s, err))) goto fail;
    status = mode == ISO_STORE_CREATE ? open_create(s, fresh, spec, err) : open_existing(s, err);
    if (status) goto fail;
    if (mode == ISO_STORE_CREATE && spec->model && faccessat(s->dir_fd, ISO_STORE_MODEL, F_OK, 0) != 0
        && (status = copy_model(spec->model, dir, err))) goto fail;
    if (fresh && !folder_lock(s, LOCK_SH)) {
        status = iso_fail_errno(err, "cannot lock %s", dir);
        goto fail;
    }
    if (mode != ISO_STORE_READ) sweep(s);
    *out = s;
    return ISO_OK;
fail:
    if (made) unmake(s);
    iso_store_close(s);
    if (made) rmdir(dir);
    return status;
}

void iso_store_close(iso_store *s)
{
    if (!s) return;
    /* A child leaves lock.mdb open: closing it would take away the locks of what the child itself has opened (fcntl's: they are in no other file). */
    if (s->env && s->pid == getpid()) mdb_env_close(s->env);
    iso_store_delist(s);
    if (s->data_fd >= 0) close(s->data_fd);
    if (s->dir_fd >= 0) close(s->dir_fd);
    pthread_mutex_destroy(&s->mutex);
    free(s->dir);
    free(s->data);
    free(s->root);
    free(s);
}

const char *iso_store_dir(const iso_store *s) { return s->dir; }

char *iso_store_file(const iso_store *s, const char *name)
{
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", s->dir_fd);
    char *folder = realpath(link, NULL);
    char *file = folder ? iso_path_join(folder, name) : iso_format("%.*s%s", (int)(strlen(s->data) - strlen("data.mdb")), s->data, name);
    free(folder);
    return file;
}

char *iso_store_path(const iso_store *s, const char *path)
{
    return path[0] == '/' ? iso_strndup(path, strlen(path)) : iso_path_join(s->root, path);
}
