/* test_store_locks.c: who shares a database: users who may only read, killed readers, forks, signals. */
#include "tests/store_common.h"

#include <fcntl.h>
#include <sys/wait.h>

static mode_t mode_of(const char *file)
{
    char path[700];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", db, file);
    assert_int_equal(stat(path, &st), 0);
    return st.st_mode & 0777;
}

static void set_mode(const char *file, mode_t mode)
{
    char path[700];
    snprintf(path, sizeof path, "%s/%s", db, file);
    assert_int_equal(chmod(path, mode), 0);
}

static int code_of(pid_t child)
{
    int code;
    assert_int_equal(waitpid(child, &code, 0), child);
    assert_true(WIFEXITED(code));
    return WEXITSTATUS(code);
}

static iso_status read_rows(void *ctx, int64_t first, int64_t n, float *out, iso_error *e)
{
    (void)ctx;
    (void)e;
    for (int64_t i = 0; i < n; i++) vector_of((uint64_t)(first + i), out + i * DIM);
    return ISO_OK;
}

/* Who may read may lock, whatever the umask, and after what replaces the database. */
static void test_lock_mode(void **state)
{
    (void)state;
    const mode_t masks[] = {022, 027, 077}, data[] = {0644, 0640, 0600}, lock[] = {0666, 0660, 0600};
    for (int i = 0; i < 3; i++) {
        uint64_t before, after;
        wipe();
        mode_t old = umask(masks[i]);
        iso_store *s = make(NULL);
        fill(s, 0, 5);
        iso_store_close(s);
        assert_int_equal(mode_of("data.mdb"), data[i]);
        assert_int_equal(mode_of("lock.mdb"), lock[i]);
        OK(iso_store_compact(db, &before, &after, &err));
        assert_int_equal(mode_of("lock.mdb"), lock[i]);
        set_mode("lock.mdb", 0600); /* one that is there is its owner's business */
        iso_store_close(make(NULL));
        assert_int_equal(mode_of("lock.mdb"), 0600);
        wipe();
        char *paths[] = {(char[]){"a"}, (char[]){"b"}};
        OK(iso_store_fill(db, &(iso_store_spec){.dim = DIM, .digest = digest_a, .root = "/tmp"}, &(iso_fill){.count = 2, .paths = paths, .read = read_rows}, &err));
        assert_int_equal(mode_of("data.mdb"), data[i]);
        assert_int_equal(mode_of("lock.mdb"), lock[i]);
        umask(old);
    }
}

/* As another user than the owner, where this one can become one. */
static iso_status read_as_other(const char *why)
{
    pid_t child = fork();
    if (child == 0) {
        iso_store *s;
        if (geteuid() == 0 && (setegid(65534) || seteuid(65534))) _exit(99);
        iso_status status = iso_store_open(db, ISO_STORE_READ, NULL, &s, &err);
        if (!status && info_of(s).count != 20) _exit(98);
        if (!status) sound(s);
        if (!status) iso_store_close(s);
        else if (!strstr(err.message, why)) _exit(97);
        _exit(-status);
    }
    return -code_of(child);
}

/* Without lock.mdb a writer would take the pages that are read. */
static void test_lock_refused(void **state)
{
    (void)state;
    const char *const hint = "chmod a+rw";
    char lock[700];
    iso_store *s;
    wipe();
    mode_t old = umask(022);
    s = make(NULL);
    umask(old);
    fill(s, 0, 20);
    iso_store_close(s);
    snprintf(lock, sizeof lock, "%s/lock.mdb", db);
    assert_int_equal(chmod(base, 0755), 0);
    assert_int_equal(chmod(db, 0555), 0);
    assert_int_equal(read_as_other(""), ISO_OK); /* as it was made */
    set_mode("lock.mdb", 0444);
    assert_int_equal(read_as_other(hint), ISO_E_IO);
    set_mode("data.mdb", 0444); /* nobody writes: nor root */
    assert_int_equal(read_as_other(""), ISO_OK);
    assert_int_equal(iso_store_open(db, ISO_STORE_WRITE, NULL, &s, &err), ISO_E_IO);
    assert_non_null(strstr(err.message, "chmod u+w"));
    set_mode("data.mdb", 0644);
    assert_int_equal(chmod(db, 0755), 0);
    assert_int_equal(unlink(lock), 0);
    assert_int_equal(chmod(db, 0555), 0);
    assert_int_equal(read_as_other(hint), ISO_E_IO); /* nobody writes yet */
    set_mode("data.mdb", 0444);
    assert_int_equal(read_as_other(""), ISO_OK);
    set_mode("data.mdb", 0644);
    assert_int_equal(chmod(db, 0755), 0);
    OK(iso_store_open(db, ISO_STORE_WRITE, NULL, &s, &err));
    iso_store_close(s);
    assert_int_equal(mode_of("lock.mdb"), 0666);
}

int main(void)
{
    if (!set_up("test_store_locks")) return 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_lock_mode), cmocka_unit_test(test_lock_refused)};
    return clean_up(cmocka_run_group_tests(tests, NULL, NULL));
}
