/* test_store_system.c: the database where the system refuses what it needs: locks, maps, addresses, threads, room on the disk. */
#include "tests/store_common.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* These stand before libc's, for LMDB too. */
int flock(int fd, int how);
int fcntl(int fd, int what, ...);
int fallocate(int fd, int mode, off_t from, off_t bytes);
int madvise(void *at, size_t bytes, int what);
ssize_t pwrite(int fd, const void *from, size_t bytes, off_t at);
int ioctl(int fd, unsigned long what, ...);
void *mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t from);
int pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*start)(void *), void *ctx);
int fsync(int fd);

static int no_flock, no_fcntl, no_shared_map, no_thread, no_room; /* the error, or 0 */
static size_t map_most = SIZE_MAX;                                /* bytes of a file in one map */
static const char *lower;                                         /* of an overlay: what readers map in the place of data.mdb */

int flock(int fd, int how)
{
    if (no_flock) return errno = no_flock, -1;
    return (int)syscall(SYS_flock, fd, how);
}

int fcntl(int fd, int what, ...)
{
    va_list list;
    va_start(list, what);
    const long value = va_arg(list, long);
    va_end(list);
    if (no_fcntl && (what == F_SETLK || what == F_SETLKW || what == F_GETLK)) return errno = no_fcntl, -1;
    return (int)syscall(SYS_fcntl, fd, what, value);
}

int fallocate(int fd, int mode, off_t from, off_t bytes)
{
    if (no_room) return errno = no_room, -1;
    return (int)syscall(SYS_fallocate, fd, mode, from, bytes);
}

void *mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t from)
{
    if (no_shared_map && fd >= 0 && flags & MAP_SHARED) return errno = no_shared_map, MAP_FAILED;
    if (lower && fd >= 0 && protection == PROT_READ && flags & MAP_SHARED) fd = open(lower, O_RDONLY);
    if (bytes > map_most && (fd >= 0 || protection == PROT_NONE)) return errno = ENOMEM, MAP_FAILED;
    return (void *)syscall(SYS_mmap, at, bytes, protection, flags, fd, from); /* NOLINT */
}

static bool no_map_room, in_place; /* in_place: an empty file was to be written where it lies */

int madvise(void *at, size_t bytes, int what)
{
#ifdef MADV_POPULATE_WRITE
    if (no_map_room && what == MADV_POPULATE_WRITE) return errno = EFAULT, -1;
#endif
    return (int)syscall(SYS_madvise, at, bytes, what);
}

static bool no_direct;
static _Atomic int direct; /* writes past the page cache that were refused */

ssize_t pwrite(int fd, const void *from, size_t bytes, off_t at)
{
    if (no_direct && fcntl(fd, F_GETFL) & O_DIRECT) {
        direct++;
        usleep(50000); /* others are about to write, too */
        return errno = EINVAL, -1;
    }
    return syscall(SYS_pwrite64, fd, from, bytes, at);
}

int ioctl(int fd, unsigned long what, ...)
{
    va_list list;
    struct stat st;
    va_start(list, what);
    int *value = va_arg(list, int *);
    va_end(list);
    if (what == FS_IOC_SETFLAGS && !fstat(fd, &st) && !st.st_size && !st.st_blocks) in_place = (*value & FS_NOCOW_FL) != 0;
    return (int)syscall(SYS_ioctl, fd, what, value);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*start)(void *), void *ctx)
{
    int (*make_thread)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (no_thread) return no_thread;
    *(void **)&make_thread = dlsym(RTLD_NEXT, "pthread_create");
    return make_thread(thread, how, start, ctx);
}

/* What was in a folder when it was last synced; without folder: what was synced itself. */
static struct names { dev_t dev; ino_t folder, data; } synced[16];
static size_t syncs;

int fsync(int fd)
{
    struct stat st, data;
    if (fstat(fd, &st)) return -1;
    if (S_ISDIR(st.st_mode) && (!fstatat(fd, "data.mdb", &data, AT_SYMLINK_NOFOLLOW) || !fstatat(fd, "data", &data, 0)))
        synced[syncs++ % 16] = (struct names){st.st_dev, st.st_ino, data.st_ino};
    else if (S_ISREG(st.st_mode)) synced[syncs++ % 16] = (struct names){st.st_dev, 0, st.st_ino};
    return (int)syscall(SYS_fsync, fd);
}

/* Whether a folder was synced with this file in it; NULL: whether the file was. */
static bool on_disk(const char *folder, const char *file)
{
    struct stat st = {0}, data;
    if ((folder && stat(folder, &st)) || lstat(file, &data)) return false;
    if (!folder) st.st_dev = data.st_dev;
    for (size_t i = 0; i < 16; i++)
        if (synced[i].dev == st.st_dev && synced[i].folder == st.st_ino && synced[i].data == data.st_ino) return true;
    return false;
}

static const char *in(const char *name)
{
    static char path[2][700];
    static int next;
    next = !next;
    snprintf(path[next], sizeof path[next], "%s/%s", db, name);
    return path[next];
}

static void made(uint64_t items)
{
    wipe();
    iso_store *s = make(NULL);
    fill(s, 0, items);
    iso_store_close(s);
}

static iso_status try(iso_store_mode mode, uint64_t items)
{
    iso_store *s;
    iso_status status = iso_store_open(db, mode, NULL, &s, &err);
    if (status) return status;
    assert_int_equal(info_of(s).count, items);
    if (mode == ISO_STORE_READ) sound(s);
    else fill(s, items, 1);
    iso_store_close(s);
    return ISO_OK;
}

/* LMDB writes into lock.mdb where it is mapped: without room that is a SIGBUS. So it has all of it, made anew or by LMDB alone, which leaves
 * holes; or it is said that there is none. */
static void test_lock_room(void **state)
{
    (void)state;
    struct stat st;
    for (int holes = 0; holes < 2; holes++)
        for (int write = 0; write < 2; write++) {
            made(20);
            assert_int_equal(unlink(in("lock.mdb")), 0);
            if (holes) {
                write_bytes(in("lock.mdb"), "", 0);
                assert_int_equal(truncate(in("lock.mdb"), 16384), 0);
            }
            for (int i = 0; i < 2; i++) {
                no_room = i ? EDQUOT : ENOSPC;
                FAILS(ISO_E_IO, try(write ? ISO_STORE_WRITE : ISO_STORE_READ, 20));
                SAYS(strerror(no_room));
            }
            assert_int_equal(chmod(in("data.mdb"), 0444), 0);
            if (!write) OK(try(ISO_STORE_READ, 20)); /* what nobody writes needs no lock */
            assert_int_equal(chmod(in("data.mdb"), 0644), 0);
            no_room = EOPNOTSUPP;
            OK(try(ISO_STORE_READ, 20));
            no_room = 0;
            const int fd = open(in("scratch"), O_RDWR | O_CREAT, 0600);
            const bool can = !fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 4096);
            close(fd);
            OK(try(write ? ISO_STORE_WRITE : ISO_STORE_READ, 20));
            assert_int_equal(stat(in("lock.mdb"), &st), 0);
            assert_int_equal(st.st_size, 16384); /* as LMDB makes it for 254 readers */
            if (can) assert_true(st.st_blocks * 512 >= st.st_size);
            else print_message("no fallocate here\n");
        }
}

/* Where each write takes room anew (btrfs), a map of lock.mdb that all lies on the disk can fail all the same: once, if it is written in place, after
 * a snapshot. */
static void test_lock_room_again(void **state)
{
    (void)state;
    made(20);
    int flags;
    const int fd = open(in("data.mdb"), O_RDONLY);
    if (ioctl(fd, FS_IOC_GETFLAGS, &flags)) print_message("no flags of files here\n");
    else assert_true(in_place);
    close(fd);
#ifdef MADV_POPULATE_WRITE
    for (int write = 0; write < 2; write++) {
        no_map_room = true;
        FAILS(ISO_E_IO, try(write ? ISO_STORE_WRITE : ISO_STORE_READ, 20));
        SAYS(strerror(ENOSPC));
        assert_int_equal(chmod(in("data.mdb"), 0444), 0);
        if (!write) OK(try(ISO_STORE_READ, 20)); /* what nobody writes needs no lock */
        assert_int_equal(chmod(in("data.mdb"), 0644), 0);
        no_map_room = false;
        OK(try(write ? ISO_STORE_WRITE : ISO_STORE_READ, 20));
    }
#endif
}

/* What nobody writes can be read without locks; else they are missed, and named. */
static void test_no_locks(void **state)
{
    (void)state;
    static const int codes[] = {ENOSYS, ENOLCK, EOPNOTSUPP};
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        uint64_t before, after;
        made(20);
        no_flock = codes[i];
        OK(try(ISO_STORE_READ, 20));
        OK(try(ISO_STORE_WRITE, 20));
        FAILS(ISO_E_IO, iso_store_compact(db, NULL, &before, &after, &err));
        SAYS("no locks on folders");
        no_fcntl = codes[i];
        FAILS(ISO_E_IO, try(ISO_STORE_READ, 21));
        SAYS("no file locks");
        SAYS("chmod a-w");
        FAILS(ISO_E_IO, try(ISO_STORE_WRITE, 21));
        SAYS("no file locks");
        assert_int_equal(chmod(in("data.mdb"), 0444), 0);
        OK(try(ISO_STORE_READ, 21));
        no_flock = no_fcntl = 0;
        assert_int_equal(chmod(in("data.mdb"), 0644), 0);
        OK(try(ISO_STORE_WRITE, 21));
    }
}

/* A file system that maps no files: said, and what was begun in a new folder is gone again. */
static void test_no_maps(void **state)
{
    (void)state;
    char model[700];
    iso_store *s;
    snprintf(model, sizeof model, "%s/m", base);
    write_bytes(model, "model", 5);
    made(20);
    no_shared_map = ENODEV;
    FAILS(ISO_E_IO, try(ISO_STORE_READ, 20));
    SAYS("cannot share a file that is mapped");
    no_shared_map = 0;
    OK(try(ISO_STORE_READ, 20));
    for (int folder = 0; folder < 2; folder++) {
        iso_store_spec spec = {.dim = DIM, .digest = digest_a, .root = "/tmp", .model = model};
        wipe();
        if (folder) assert_int_equal(mkdir(db, 0777), 0);
        no_shared_map = ENODEV;
        iso_status status = iso_store_open(db, ISO_STORE_CREATE, &spec, &s, &err);
        no_shared_map = 0;
        assert_int_equal(status, ISO_E_IO);
        SAYS("cannot share a file that is mapped");
        assert_int_equal(access(db, F_OK), folder ? 0 : -1); /* who has made it keeps it */
        s = make(model);
        iso_store_close(s);
    }
}

/* Where addresses are rationed the file alone does for readers, and for writers that and the least room. */
static void test_addresses(void **state)
{
    (void)state;
    enum { ITEMS = 20000 };
    struct stat st;
    made(ITEMS);
    assert_int_equal(stat(in("data.mdb"), &st), 0);
    assert_true(st.st_size > 4 << 20);
    map_most = (size_t)st.st_size + (64 << 10);
    const iso_status read = try(ISO_STORE_READ, ITEMS);
    map_most = (size_t)st.st_size + (17 << 20);
    const iso_status write = try(ISO_STORE_WRITE, ITEMS);
    map_most = (size_t)st.st_size / 2;
    const iso_status none = try(ISO_STORE_READ, ITEMS);
    map_most = SIZE_MAX;
    assert_int_equal(read, ISO_OK);
    assert_int_equal(write, ISO_OK);
    assert_int_equal(none, ISO_E_MEMORY);
}

/* A writer elsewhere brought the file up from an overlay's lower layer: who had it open before reads that no more, and learns what to do. */
static void test_overlay(void **state)
{
    (void)state;
    char copy[700], command[1500];
    iso_store *s;
    iso_txn *t;
    int code = 0;
    made(20);
    snprintf(copy, sizeof copy, "%s/lower", base);
    snprintf(command, sizeof command, "cp '%s' '%s'", in("data.mdb"), copy);
    assert_int_equal(system(command), 0);
    lower = copy;
    OK(iso_store_open(db, ISO_STORE_READ, NULL, &s, &err));
    assert_int_equal(info_of(s).count, 20);
    lower = NULL;
    const pid_t child = fork();
    assert_true(child >= 0);
    if (!child) _exit(try(ISO_STORE_WRITE, 20) ? 1 : 0);
    assert_int_equal(waitpid(child, &code, 0), child);
    assert_int_equal(code, 0);
    FAILS(ISO_E_MISMATCH, iso_txn_begin(s, false, &t, &err));
    SAYS("open it again");
    iso_store_close(s);
    OK(try(ISO_STORE_READ, 21));
}

/* A file system that takes O_DIRECT and refuses the writes: all threads that are writing then learn it, and write in the other way. */
static void test_no_direct(void **state)
{
    (void)state;
    enum { ITEMS = 300000, NAME = 12 };
    char **paths = calloc(ITEMS, sizeof *paths), *text = malloc(ITEMS * NAME);
    assert_true(paths && text);
    for (int i = 0; i < ITEMS; i++) snprintf(paths[i] = text + NAME * i, NAME, "%d", i);
    wipe();
    no_direct = true;
    OK(iso_store_fill(db, &(iso_store_spec){.dim = DIM, .digest = digest_a, .root = "/tmp"}, &(iso_fill){.count = ITEMS, .paths = paths, .read = read_vectors}, &err));
    no_direct = false;
    if (direct < 2) print_message("%d writes past the page cache\n", (int)direct);
    OK(try(ISO_STORE_READ, ITEMS));
    free(paths);
    free(text);
}

static void test_no_thread(void **state)
{
    (void)state;
    uint64_t before, after;
    made(20);
    no_thread = EAGAIN;
    const iso_status status = iso_store_compact(db, NULL, &before, &after, &err);
    no_thread = 0;
    assert_int_equal(status, ISO_E_IO);
    SAYS("thread");
    assert_int_equal(access(in(".isoface-compact.tmp"), F_OK), -1);
    OK(try(ISO_STORE_READ, 20));
    OK(iso_store_compact(db, NULL, &before, &after, &err));
}

/* data.mdb that is a link stays one: what it leads to is replaced, by what is made beside that. */
static void test_link(void **state)
{
    (void)state;
    char place[700], data[800], command[1500];
    uint64_t before, after;
    struct stat st, old;
    snprintf(place, sizeof place, "%s/place", base);
    snprintf(data, sizeof data, "%s/data", place);
    assert_int_equal(mkdir(place, 0777), 0);
    for (int filled = 0; filled < 2; filled++) {
        made(filled ? 0 : 20);
        assert_int_equal(rename(in("data.mdb"), data), 0);
        assert_int_equal(symlink(data, in("data.mdb")), 0);
        assert_int_equal(stat(data, &old), 0);
        if (filled) {
            char *paths[] = {(char[]){"a"}, (char[]){"b"}};
            OK(iso_store_fill(db, &(iso_store_spec){.dim = DIM, .digest = digest_a, .root = "/tmp"}, &(iso_fill){.count = 2, .paths = paths, .read = read_vectors}, &err));
        } else {
            OK(iso_store_compact(db, NULL, &before, &after, &err));
            assert_true(on_disk(NULL, data)); /* of what LMDB writes itself it sees to that */
        }
        assert_int_equal(lstat(in("data.mdb"), &st), 0);
        assert_true(S_ISLNK(st.st_mode));
        assert_int_equal(stat(data, &st), 0);
        assert_int_not_equal(st.st_ino, old.st_ino);
        assert_true(on_disk(place, data)); /* a power cut does not bring the old one back */
        OK(try(ISO_STORE_READ, filled ? 2 : 20));
        snprintf(command, sizeof command, "test \"$(ls -A '%s')\" = data", place);
        assert_int_equal(system(command), 0);
    }
}

/* What a commit put into a new database is not lost for want of a name. */
static void test_named(void **state)
{
    (void)state;
    char place[700], data[800];
    made(0);
    assert_true(on_disk(db, in("data.mdb")));
    wipe();
    snprintf(place, sizeof place, "%s/elsewhere", base);
    snprintf(data, sizeof data, "%s/data", place);
    assert_int_equal(mkdir(db, 0777), 0);
    assert_int_equal(mkdir(place, 0777), 0);
    assert_int_equal(symlink(data, in("data.mdb")), 0); /* to nothing yet */
    iso_store_close(make(NULL));
    assert_true(on_disk(place, data));
}

/* Root's compaction or import takes a database away from nobody. */
static void test_owner(void **state)
{
    (void)state;
    enum { OWNER = 12345 };
    static const char *const files[] = {"data.mdb", "lock.mdb"};
    uint64_t before, after;
    struct stat st;
    if (geteuid() != 0) skip();
    for (int filled = 0; filled < 2; filled++) {
        made(filled ? 0 : 20);
        assert_int_equal(unlink(in("lock.mdb")), 0);
        assert_int_equal(chmod(in("data.mdb"), 0600), 0);
        assert_int_equal(chown(in("data.mdb"), OWNER, OWNER), 0);
        if (filled) {
            char *paths[] = {(char[]){"a"}};
            OK(iso_store_fill(db, &(iso_store_spec){.dim = DIM, .digest = digest_a, .root = "/tmp"}, &(iso_fill){.count = 1, .paths = paths, .read = read_vectors}, &err));
        } else {
            OK(iso_store_compact(db, NULL, &before, &after, &err));
        }
        for (int i = 0; i < 2; i++) {
            assert_int_equal(stat(in(files[i]), &st), 0);
            assert_int_equal(st.st_uid, OWNER);
            assert_int_equal(st.st_gid, OWNER);
        }
    }
}

/* Whether the system reads nothing ahead where that lies. */
static bool is_random(const void *at)
{
    char line[1000];
    uintptr_t from, to;
    bool ours = false, seen = false, random = false;
    FILE *f = fopen("/proc/self/smaps", "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " ", &from, &to) == 2) ours = from <= (uintptr_t)at && (uintptr_t)at < to;
        if (!ours || strncmp(line, "VmFlags:", 8) != 0) continue;
        seen = true;
        random = strstr(line, " rr") != NULL;
    }
    fclose(f);
    assert_true(seen);
    return random;
}

/* Of a large file a reader brings what it looks up and no more, until it reads all. */
static void test_read_ahead(void **state)
{
    (void)state;
    iso_txn *t;
    iso_cursor *c;
    iso_item item;
    const float *z;
    iso_store *s;
    made(20);
    assert_int_equal(truncate(in("data.mdb"), ISO_STORE_CHECK + 65536), 0); /* is not looked through at opening */
    OK(iso_store_open(db, ISO_STORE_READ, NULL, &s, &err));
    OK(iso_txn_begin(s, false, &t, &err));
    OK(iso_item_vector(t, 3, &z, &err));
    assert_true(is_random(z));
    OK(iso_cursor_open(t, 0, &c, &err));
    OK(iso_cursor_next(c, &item, &z, &err));
    assert_false(is_random(z));
    iso_cursor_close(c);
    iso_txn_abort(t);
    iso_store_close(s);
}

/* What a killed filling or compaction has left goes with the next opening for writing, unless another has the folder alone. */
static void test_left(void **state)
{
    (void)state;
    static const char *const names[] = {".isoface-import.tmp", ".isoface-compact.tmp"};
    made(20);
    for (int i = 0; i < 2; i++) {
        for (int mode = 0; mode < 2; mode++) {
            write_bytes(in(names[i]), "left", 4);
            OK(try(mode ? ISO_STORE_WRITE : ISO_STORE_READ, (uint64_t)(20 + i)));
            assert_int_equal(access(in(names[i]), F_OK), mode ? -1 : 0);
        }
        write_bytes(in(names[i]), "left", 4);
        no_flock = ENOLCK; /* nobody can tell whose it is */
        iso_store_close(make(NULL));
        no_flock = 0;
        assert_int_equal(access(in(names[i]), F_OK), 0);
    }
}

static int nothing_refused(void **state)
{
    (void)state;
    no_flock = no_fcntl = no_shared_map = no_thread = no_room = 0;
    map_most = SIZE_MAX;
    lower = NULL;
    no_map_room = in_place = no_direct = false;
    memset(synced, 0, sizeof synced);
    return 0;
}

#define TEST(name) cmocka_unit_test_setup(name, nothing_refused)

int main(void)
{
    if (!set_up()) return 1;
    const struct CMUnitTest tests[] = {
        TEST(test_lock_room), TEST(test_lock_room_again), TEST(test_no_locks), TEST(test_no_maps), TEST(test_addresses),
        TEST(test_overlay),   TEST(test_no_direct),       TEST(test_no_thread), TEST(test_link),   TEST(test_named),
        TEST(test_owner),     TEST(test_read_ahead),      TEST(test_left),
    };
    return clean_up(cmocka_run_group_tests(tests, NULL, NULL));
}
