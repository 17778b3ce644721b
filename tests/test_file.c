/* test_file.c: files that appear whole or not at all, what is read of others, paths. */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "tests/check.h"
#include "tests/descriptors.h"
#include "tests/disk.h"
#include "tests/folder.h"

static char folder[512];

static int folder_make(void **state)
{
    (void)state;
    return make_folder(folder, sizeof folder, "file") ? 0 : -1;
}

static int folder_remove(void **state)
{
    (void)state;
    return !remove_folder(folder);
}

static char *in_folder(const char *name)
{
    char *path = iso_path_join(folder, name);
    assert_non_null(path);
    return path;
}

static void write_text(const char *path, const char *text)
{
    iso_error err;
    iso_file *f = NULL;
    assert_int_equal(iso_file_create(path, &f, &err), ISO_OK);
    fputs(text, iso_file_stream(f));
    assert_int_equal(iso_file_commit(f, &err), ISO_OK);
}

static void assert_file(const char *path, const char *text)
{
    char *data = NULL;
    size_t size = 0;
    assert_int_equal(iso_file_read(path, 1 << 20, &data, &size, NULL), ISO_OK);
    assert_int_equal(size, strlen(text));
    assert_string_equal(data, text);
    free(data);
}

/* How many names the folder holds: no temporary file may be left. */
static int names_in_folder(void)
{
    char *command = iso_format("ls -A '%s' | wc -l", folder);
    FILE *p = popen(command, "r");
    int n = -1;
    assert_int_equal(fscanf(p, "%d", &n), 1);
    pclose(p);
    free(command);
    return n;
}

/* Two files that appear together, of which the second cannot: a folder has come into its place. */
static void test_both(void **state)
{
    (void)state;
    const int before = names_in_folder();
    char *a = in_folder("first"), *b = in_folder("second");
    for (int old = 0; old < 2; old++)
        for (int refused = 1; refused >= 0; refused--) {
            iso_error err = {0};
            iso_file *fa = NULL, *fb = NULL;
            if (old) write_text(a, "old a"), write_text(b, "old b");
            assert_int_equal(iso_file_create(a, &fa, &err), ISO_OK);
            assert_int_equal(iso_file_create(b, &fb, &err), ISO_OK);
            fputs("new a", iso_file_stream(fa)), fputs("new b", iso_file_stream(fb));
            if (refused) unlink(b), assert_int_equal(mkdir(b, 0700), 0);
            assert_int_equal(iso_file_commit_both(fa, fb, &err), refused ? ISO_E_IO : ISO_OK);
            if (refused) {
                assert_non_null(strstr(err.message, "cannot replace"));
                assert_null(strstr(err.message, "already new"));
                assert_int_equal(rmdir(b), 0);
                if (old) assert_file(a, "old a");
                assert_int_equal(names_in_folder(), before + old);
            } else {
                assert_file(a, "new a"), assert_file(b, "new b");
                assert_int_equal(names_in_folder(), before + 2);
            }
            unlink(a), unlink(b);
        }
    free(a), free(b);
}

static void test_file_appears_whole(void **state)
{
    (void)state;
    char *path = in_folder("a file\n");
    iso_error err;
    iso_file *f = NULL;
    struct stat st;
    const mode_t mask = umask(0027);
    write_text(path, "old");
    umask(mask);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640); /* as the umask leaves it */
    assert_int_equal(chmod(path, 0604), 0);
    const uid_t owner = geteuid() ? geteuid() : 12345; /* root's writing takes a file away from nobody */
    assert_int_equal(chown(path, owner, (gid_t)-1), 0);
    assert_int_equal(iso_file_create(path, &f, &err), ISO_OK);
    fputs("new and longer", iso_file_stream(f));
    fflush(iso_file_stream(f));
    assert_file(path, "old");
    iso_file_abort(f);
    iso_file_abort(NULL);
    assert_file(path, "old");
    write_text(path, "new");
    assert_file(path, "new");
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0604);
    assert_int_equal(st.st_uid, owner);
    assert_int_equal(names_in_folder(), 2); /* the name holds a newline: ls prints two lines */
    unlink(path);
    free(path);
}

static void test_file_keeps_links(void **state)
{
    (void)state;
    char *target = in_folder("target"), *link = in_folder("link");
    write_text(target, "1");
    assert_int_equal(symlink("target", link), 0);
    write_text(link, "2");
    assert_file(target, "2");
    struct stat st;
    assert_int_equal(lstat(link, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    unlink(target);
    write_text(link, "3"); /* there is nothing at its end yet */
    assert_file(target, "3");
    assert_int_equal(lstat(link, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    unlink(target);
    unlink(link);
    assert_int_equal(symlink("link", link), 0);
    iso_file *f = NULL;
    assert_int_equal(iso_file_create(link, &f, NULL), ISO_E_IO);
    unlink(link);
    free(target);
    free(link);
}

static atomic_bool enough;

static void *come_and_go(void *path)
{
    while (!enough) {
        const int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
        if (fd >= 0) close(fd);
        unlink(path);
    }
    return NULL;
}

/* What is written does not fail of what happens to the old file meanwhile. */
static void test_file_comes_and_goes(void **state)
{
    (void)state;
    pthread_t thread;
    char *path = in_folder("busy");
    iso_error err = {0};
    enough = false;
    assert_int_equal(pthread_create(&thread, NULL, come_and_go, path), 0);
    for (int i = 0; i < 4000 && !err.status; i++) {
        iso_file *f = NULL;
        (void)!iso_file_create(path, &f, &err);
        iso_file_abort(f);
    }
    enough = true;
    pthread_join(thread, NULL);
    if (err.status) fail_msg("%s", err.message);
    free(path);
}

static void test_file_same(void **state)
{
    (void)state;
    char *a = in_folder("a"), *again = iso_format("%s/../%s/./a", folder, strrchr(folder, '/') + 1), *b = in_folder("b");
    for (int there = 0; there < 2; there++) {
        if (there) write_text(a, "1");
        assert_true(iso_file_same(a, a) && iso_file_same(a, again) && !iso_file_same(a, b) && !iso_file_same(b, again));
    }
    assert_int_equal(symlink("a", b), 0);
    assert_true(iso_file_same(a, b));
    assert_false(iso_file_same("/no/such/folder/a", "/no/such/other/a"));
    unlink(a);
    unlink(b);
    free(a), free(again), free(b);
}

static void test_file_refuses(void **state)
{
    (void)state;
    iso_error err;
    iso_file *f = NULL;
    char *missing = in_folder("no/such/file");
    assert_int_equal(iso_file_create(missing, &f, &err), ISO_E_IO);
    assert_non_null(strstr(err.message, "no/such/file: No such file or directory"));
    assert_null(f);
    assert_int_equal(iso_file_create(folder, &f, &err), ISO_E_IO);
    assert_non_null(strstr(err.message, "it is a folder"));
    assert_int_equal(iso_file_create("/dev/null", &f, NULL), ISO_E_IO);
    assert_int_equal(names_in_folder(), 0);
    free(missing);
}

/* All that was written is on the disk before it gets its name, and the name is before that is said. A disk that cannot leaves the old file. */
static void test_file_is_synced(void **state)
{
    (void)state;
    enum { BYTES = 100000 };
    char *path = in_folder("kept"), *below = in_folder("below"), *other = iso_path_join(below, "other");
    iso_error err;
    iso_file *f, *g;
    assert_int_equal(mkdir(below, 0777), 0);
    for (int what = 0; what < 5; what++) { /* a file, two, a disk that fails, one that cannot sync files, one that fails of a folder */
        assert_int_equal(iso_file_create(path, &f, &err), ISO_OK);
        if (what == 1) assert_int_equal(iso_file_create(other, &g, &err), ISO_OK);
        for (int i = 0; i < BYTES; i++) putc('x', iso_file_stream(f));
        if (what == 1) fputs("other", iso_file_stream(g));
        ask_anew();
        refused_files = what == 2 ? EIO : what == 3 ? EINVAL : 0;
        refused_folders = what == 4 ? EIO : what == 3 ? EINVAL : 0;
        const iso_status status = what == 1 ? iso_file_commit_both(g, f, &err) : iso_file_commit(f, &err);
        assert_int_equal(status, what == 2 || what == 4 ? ISO_E_IO : ISO_OK);
        assert_string_equal(asked, what == 1 ? "ffrrdd" : what == 2 ? "f" : "frd");
        assert_int_equal(synced, BYTES);
        char *command = iso_format("test \"$(wc -c <'%s')\" = %d && rm '%s' && echo old >'%s'", path, what == 2 ? 4 : BYTES, path, path);
        assert_int_equal(system(command), 0);
        free(command);
    }
    ask_anew();
    assert_int_equal(names_in_folder(), 2);
    unlink(other);
    unlink(path);
    rmdir(below);
    free(path), free(other), free(below);
}

/* A write that failed is not made good by later ones: the file lacks something. */
static void test_file_failed_before(void **state)
{
    (void)state;
    char *path = in_folder("whole");
    write_text(path, "old");
    const pid_t child = fork();
    if (child == 0) {
        const struct rlimit little = {4096, RLIM_INFINITY}, much = {RLIM_INFINITY, RLIM_INFINITY};
        iso_error err;
        iso_file *f = NULL;
        signal(SIGXFSZ, SIG_IGN);
        if (iso_file_create(path, &f, &err) || setrlimit(RLIMIT_FSIZE, &little)) _exit(3);
        if (iso_file_reserve(fileno(iso_file_stream(f)), 1 << 20, true) != EFBIG) _exit(5);
        for (int i = 0; i < 10000; i++) putc('x', iso_file_stream(f));
        fflush(iso_file_stream(f));
        if (setrlimit(RLIMIT_FSIZE, &much)) _exit(3);
        for (int i = 0; i < 10000; i++) putc('x', iso_file_stream(f));
        _exit(iso_file_commit(f, &err) == ISO_E_IO && strstr(err.message, "a write failed") ? 0 : 4);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_file(path, "old");
    unlink(path);
    free(path);
}

/* The file size limit stands for a full disk: the old file and nothing else is left. */
static void test_file_disk_full(void **state)
{
    (void)state;
    char *path = in_folder("kept");
    write_text(path, "kept");
    pid_t child = fork();
    if (child == 0) {
        struct rlimit limit = {4096, 4096};
        iso_error err;
        iso_file *f = NULL;
        signal(SIGXFSZ, SIG_IGN);
        if (setrlimit(RLIMIT_FSIZE, &limit) != 0 || iso_file_create(path, &f, &err)) _exit(3);
        for (int i = 0; i < 100000; i++) putc('x', iso_file_stream(f));
        _exit(iso_file_commit(f, &err) == ISO_E_IO && strstr(err.message, "cannot write") ? 0 : 4);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_file(path, "kept");
    assert_int_equal(names_in_folder(), 1);
    unlink(path);
    free(path);
}

/* What killed writers have left goes a day later, when something else is written there; never what is still being written. */
static void test_file_left(void **state)
{
    (void)state;
    enum { NAMES = 6, OURS = 3, YOUNG = 5 };
    static const char *const names[NAMES] = {".isoface-0123456789abcdef.tmp", ".isoface-compact.tmp", ".isoface-import.tmp",
                                             ".isoface-other.tmp", ".isoface-0123456789abcdef.jpg", ".isoface-fedcba9876543210.tmp"};
    const struct timespec old[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = time(NULL) - 2 * 24 * 60 * 60}};
    iso_error err;
    iso_file *f;
    char *below = in_folder("below"), *path = iso_path_join(below, "file");
    assert_int_equal(mkdir(below, 0777), 0);
    assert_int_equal(iso_file_create(path, &f, &err), ISO_OK);
    DIR *d = opendir(below);
    const struct dirent *e;
    assert_non_null(d);
    while ((e = readdir(d)))
        if (strstr(e->d_name, ".tmp")) assert_int_equal(utimensat(dirfd(d), e->d_name, old, 0), 0);
    iso_file_sweep(below);
    assert_int_equal(iso_file_commit(f, &err), ISO_OK);
    for (int i = 0; i < NAMES; i++) {
        char *left = iso_path_join(below, names[i]);
        write_text(left, "left");
        if (i != YOUNG) assert_int_equal(utimensat(AT_FDCWD, left, old, 0), 0);
        free(left);
    }
    char *other = in_folder("other"); /* a folder is looked through when it is another than the last */
    assert_int_equal(iso_file_create(other, &f, &err), ISO_OK);
    iso_file_abort(f);
    assert_int_equal(iso_file_create(path, &f, &err), ISO_OK);
    assert_int_equal(iso_file_commit(f, &err), ISO_OK);
    for (int i = 0; i < NAMES; i++) assert_int_equal(faccessat(dirfd(d), names[i], F_OK, 0), i < OURS ? -1 : 0);
    closedir(d);
    free(other), free(path), free(below);
}

static void test_file_read(void **state)
{
    (void)state;
    iso_error err;
    char *path = in_folder("text"), *data = NULL, *untouched = data;
    size_t size = 77;
    assert_int_equal(iso_file_read(path, 100, &data, &size, &err), ISO_E_IO);
    assert_non_null(strstr(err.message, "No such file"));
    assert_int_equal(iso_file_read(folder, 100, &data, &size, &err), ISO_E_IO);
    assert_non_null(strstr(err.message, "it is a folder"));
    write_text(path, "hello");
    assert_int_equal(iso_file_read(path, 4, &data, &size, &err), ISO_E_FORMAT);
    assert_int_equal(size, 77);
    assert_ptr_equal(data, untouched);
    assert_int_equal(iso_file_read(path, 5, &data, &size, &err), ISO_OK);
    assert_string_equal(data, "hello");
    free(data);
    write_text(path, "");
    assert_file(path, "");
    /* A file whose size is said to be 0, and a limit met only while reading. */
    assert_int_equal(iso_file_read("/proc/self/status", 1 << 20, &data, &size, &err), ISO_OK);
    assert_true(size > 10 && data[size] == '\0');
    free(data);
    assert_int_equal(iso_file_read("/dev/zero", 100000, &data, &size, &err), ISO_E_FORMAT);
    /* What is refused is closed again; what has fewer bytes says so. */
    char bytes[6];
    const int before = lowest_free();
    for (int i = 0; i < 3; i++) {
        assert_int_equal(iso_file_read(folder, 100, &data, &size, &err), ISO_E_IO);
        assert_int_equal(iso_file_read_huge("/dev/null", 100, &data, &size, &err), ISO_E_IO);
    }
    write_text(path, "hello");
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(fd, before);
    assert_int_equal(iso_file_read_at(fd, bytes, 4, 1), 0);
    assert_memory_equal(bytes, "ello", 4);
    assert_int_equal(iso_file_read_at(fd, bytes, 5, 1), -1);
    close(fd);
    unlink(path);
    free(path);
}

/* Nobody writes to a named pipe: it is refused, not waited for. One without a name is read to its end. */
static void test_file_pipes(void **state)
{
    (void)state;
    iso_error err;
    char *path = in_folder("fifo"), *data = NULL, name[64];
    size_t size;
    int ends[2];
    assert_int_equal(mkfifo(path, 0600), 0);
    alarm(60); /* the deliberately wrong case waits for ever */
    assert_int_equal(iso_file_read(path, 100, &data, &size, &err), ISO_E_IO);
    assert_non_null(strstr(err.message, "it is a named pipe"));
    assert_int_equal(iso_file_read_huge(path, 100, &data, &size, &err), ISO_E_IO);
    assert_null(data);
    for (int late = 0; late < 2; late++) { /* a writer that is done, and one that takes its time */
        assert_int_equal(pipe(ends), 0);
        snprintf(name, sizeof name, "/dev/fd/%d", ends[0]);
        if (!late) assert_int_equal(write(ends[1], "hello", 5), 5);
        const pid_t child = late ? fork() : -1;
        if (!child) _exit(usleep(200000) || write(ends[1], "hello", 5) != 5);
        close(ends[1]);
        assert_int_equal(iso_file_read(name, 100, &data, &size, &err), ISO_OK);
        assert_string_equal(data, "hello");
        free(data);
        close(ends[0]);
        if (late) assert_int_equal(waitpid(child, NULL, 0), child);
    }
    alarm(0);
    unlink(path);
    free(path);
}

static void test_file_read_huge(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, (4 << 20) - 1, 4 << 20, (9 << 20) + 17};
    iso_error err;
    char *path = in_folder("large"), *data = NULL;
    size_t size = 77;
    assert_int_equal(iso_file_read_huge(path, 100, &data, &size, &err), ISO_E_IO);
    assert_non_null(strstr(err.message, "No such file"));
    assert_int_equal(iso_file_read_huge(folder, 100, &data, &size, &err), ISO_E_IO);
    assert_non_null(strstr(err.message, "it is a folder"));
    assert_int_equal(iso_file_read_huge("/dev/zero", 100, &data, &size, &err), ISO_E_IO);
    assert_non_null(strstr(err.message, "no regular file"));
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        FILE *f = fopen(path, "wb");
        assert_non_null(f);
        for (size_t k = 0; k < sizes[i]; k++) putc((int)(k * 2654435761u >> 13 & 0xff), f);
        assert_int_equal(fclose(f), 0);
        if (sizes[i]) assert_int_equal(iso_file_read_huge(path, sizes[i] - 1, &data, &size, &err), ISO_E_FORMAT);
        assert_int_equal(iso_file_read_huge(path, sizes[i], &data, &size, &err), ISO_OK);
        assert_int_equal(size, sizes[i]);
        size_t wrong = 0;
        for (size_t k = 0; k < size; k++) wrong += (unsigned char)data[k] != (k * 2654435761u >> 13 & 0xff);
        assert_int_equal(wrong, 0);
        iso_huge_free(data, size);
    }
    unlink(path);
    free(path);
}

static void test_path_join(void **state)
{
    (void)state;
    char *a = iso_path_join("a", "b"), *b = iso_path_join("a/", "b"), *c = iso_path_join("/", "b");
    assert_string_equal(a, "a/b");
    assert_string_equal(b, "a/b");
    assert_string_equal(c, "/b");
    free(a);
    free(b);
    free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_both, folder_make, folder_remove),
        cmocka_unit_test_setup_teardown(test_file_appears_whole, folder_make, folder_remove),
        cmocka_unit_test_setup_teardown(test_file_keeps_links, folder_make, folder_remove),
        cmocka_unit_test_setup_teardown(test_file_refuses, folder_make, folder_remove),
        cmocka_unit_test_setup_teardown(test_file_comes_and_goes, folder_make, folder_remove),
        cmocka_unit_test_setup_teardown(test_file_same, folder_make, folder_remove),
        cmocka_unit_test_setup_teardown(test_file_is_synced, folder_make, folder_remove),
        cmocka_unit_test_setup_teardown(test_file_failed_before, folder_make, folder_remove),
        cmocka_unit_test_setup_teardown(test_file_disk_full, folder_make, folder_remove),
        cmocka_unit_test_setup_teardown(test_file_left, folder_make, folder_remove),
        cmocka_unit_test_setup_teardown(test_file_read, folder_make, folder_remove),
        cmocka_unit_test_setup_teardown(test_file_pipes, folder_make, folder_remove),
        cmocka_unit_test_setup_teardown(test_file_read_huge, folder_make, folder_remove),
        cmocka_unit_test(test_path_join),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
