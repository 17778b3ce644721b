/* test_store_locks.c: who shares a database: users who may only read, killed readers, forks, signals. */
#include "tests/store_common.h"

#include <fcntl.h>
#include <lmdb.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/time.h>
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
        OK(iso_store_compact(db, NULL, &before, &after, &err));
        assert_int_equal(mode_of("lock.mdb"), lock[i]);
        set_mode("lock.mdb", 0600); /* one that is there is its owner's business */
        iso_store_close(make(NULL));
        assert_int_equal(mode_of("lock.mdb"), 0600);
        wipe();
        char *paths[] = {(char[]){"a"}, (char[]){"b"}};
        OK(iso_store_fill(db, &(iso_store_spec){.dim = DIM, .digest = digest_a, .root = "/tmp"}, &(iso_fill){.count = 2, .paths = paths, .read = read_vectors}, &err));
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
    s = make(NULL);
    fill(s, 0, 20);
    iso_store_close(s);
    snprintf(lock, sizeof lock, "%s/lock.mdb", db);
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

/* Another process takes all places of LMDB's readers; then it is killed, or leaves after a tenth of a second. */
static pid_t take_places(bool killed)
{
    int tell[2];
    char taken = 0;
    assert_int_equal(pipe(tell), 0);
    pid_t child = fork();
    if (child == 0) {
        MDB_env *env;
        MDB_txn *txn;
        if (mdb_env_create(&env) || mdb_env_set_maxreaders(env, 254) || mdb_env_open(env, db, MDB_RDONLY | MDB_NOTLS, 0666)) _exit(1);
        while (!mdb_txn_begin(env, NULL, MDB_RDONLY, &txn)) taken = 1;
        if (killed) kill(getpid(), SIGKILL);
        if (write(tell[1], &taken, 1) != 1) _exit(2);
        usleep(100000);
        mdb_env_close(env);
        _exit(0);
    }
    close(tell[1]);
    assert_int_equal(read(tell[0], &taken, 1), !killed);
    close(tell[0]);
    return child;
}

/* Opening waits for a place as a transaction does. */
static void test_no_place(void **state)
{
    (void)state;
    wipe();
    iso_store *s = make(NULL);
    fill(s, 0, 20);
    iso_store_close(s);
    pid_t child = take_places(false);
    OK(iso_store_open(db, ISO_STORE_READ, NULL, &s, &err));
    assert_int_equal(info_of(s).count, 20);
    iso_store_close(s);
    assert_int_equal(code_of(child), 0);
}

/* The places of readers that were killed are free, for who only reads, too. Waiting would take ten seconds. */
static void test_killed_readers(void **state)
{
    (void)state;
    int code;
    wipe();
    iso_store *s = make(NULL);
    fill(s, 0, 20);
    iso_store_close(s);
    OK(iso_store_open(db, ISO_STORE_READ, NULL, &s, &err)); /* and keeps lock.mdb as it is */
    assert_int_equal(waitpid(take_places(true), &code, 0) > 0 && WIFSIGNALED(code), 1);
    time_t start = time(NULL);
    assert_int_equal(info_of(s).count, 20);
    assert_int_equal(waitpid(take_places(true), &code, 0) > 0 && WIFSIGNALED(code), 1);
    assert_int_equal(read_as_other(""), ISO_OK); /* opens */
    assert_true(time(NULL) - start < 8);
    iso_store_close(s);
}

static void tick(int signal) { (void)signal; }

/* Opening waits for a compaction, whatever signals come. */
static void test_signals(void **state)
{
    (void)state;
    int ready[2];
    char go;
    struct sigaction old, action = {.sa_handler = tick}; /* no SA_RESTART */
    const struct itimerval often = {{0, 5000}, {0, 5000}}, never = {{0, 0}, {0, 0}};
    wipe();
    iso_store_close(make(NULL));
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        int fd = open(db, O_RDONLY | O_DIRECTORY);
        if (fd < 0 || flock(fd, LOCK_EX) || write(ready[1], "", 1) != 1) _exit(1);
        usleep(100000);
        _exit(0);
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &go, 1), 1);
    close(ready[0]);
    iso_store *s;
    sigaction(SIGALRM, &action, &old);
    setitimer(ITIMER_REAL, &often, NULL);
    iso_status status = iso_store_open(db, ISO_STORE_READ, NULL, &s, &err);
    setitimer(ITIMER_REAL, &never, NULL);
    sigaction(SIGALRM, &old, NULL);
    OK(status);
    iso_store_close(s);
    assert_int_equal(code_of(child), 0);
}

/* A child that has closed what its parent had open does not keep it locked, nor unlock it. */
static void test_fork(void **state)
{
    (void)state;
    int closed[2], leave[2];
    char go;
    uint64_t before, after;
    iso_store *s;
    wipe();
    s = make(NULL);
    fill(s, 0, 20);
    assert_int_equal(pipe(closed), 0);
    assert_int_equal(pipe(leave), 0);
    pid_t child = fork();
    if (child == 0) {
        close(leave[1]);
        iso_store *own;
        if (iso_store_open(db, ISO_STORE_READ, NULL, &own, &err)) _exit(1);
        iso_store_close(s);
        if (info_of(own).count != 20) _exit(2); /* the child's own stays */
        iso_store_close(own);
        if (write(closed[1], "", 1) != 1 || read(leave[0], &go, 1)) _exit(3);
        _exit(0);
    }
    close(closed[1]);
    close(leave[0]);
    assert_int_equal(read(closed[0], &go, 1), 1);
    pid_t other = fork();
    if (other == 0) _exit(-iso_store_compact(db, NULL, &before, &after, &err));
    assert_int_equal(code_of(other), -ISO_E_IO); /* the parent has it open */
    iso_store_close(s);
    OK(iso_store_compact(db, NULL, &before, &after, &err)); /* while the child lives */
    close(closed[0]);
    close(leave[1]);
    assert_int_equal(code_of(child), 0);
}

int main(void)
{
    umask(022);
    if (!set_up() || chmod(base, 0755)) return 1;
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_lock_mode), cmocka_unit_test(test_lock_refused), cmocka_unit_test(test_no_place),
                                       cmocka_unit_test(test_killed_readers), cmocka_unit_test(test_signals), cmocka_unit_test(test_fork)};
    return clean_up(cmocka_run_group_tests(tests, NULL, NULL));
}
