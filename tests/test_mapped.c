/* test_mapped.c: what a program says when a file that it has mapped cannot be read. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "programs/mapped.c"
#include "tests/check.h"
#include "tests/folder.h"

/* What a child says that maps a file of two pages, which is then cut off, and touches the page that is gone; its exit code, or 128 and the signal. */
static int touch_what_is_gone(char *said, size_t size, const char *path)
{
    const long page = sysconf(_SC_PAGESIZE);
    int ends[2], code;
    const int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    assert_true(fd >= 0 && !ftruncate(fd, 2 * page) && !pipe(ends));
    const volatile char *map = mmap(NULL, (size_t)(2 * page), PROT_READ, MAP_SHARED, fd, 0);
    assert_true(map != MAP_FAILED && !ftruncate(fd, page));
    close(fd);
    const pid_t child = fork();
    if (!child) {
        expect_bus_errors(); /* after what cmocka wants of signals */
        dup2(ends[1], STDERR_FILENO);
        _exit(map[page] ? 3 : 4);
    }
    close(ends[1]);
    const ssize_t n = read(ends[0], said, size - 1);
    said[n > 0 ? n : 0] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(child, &code, 0), child);
    munmap((void *)(uintptr_t)map, (size_t)(2 * page));
    return WIFEXITED(code) ? WEXITSTATUS(code) : 128 + WTERMSIG(code);
}

static void test_cut_off(void **state)
{
    (void)state;
    char folder[512], path[600], wanted[LINE], said[LINE];
    assert_true(make_folder(folder, sizeof folder, "mapped"));
    snprintf(path, sizeof path, "%s/cut-off", folder);
    assert_int_equal(touch_what_is_gone(said, sizeof said, path), 1);
    snprintf(wanted, sizeof wanted, "test_mapped: cannot read or write %s: ", path);
    if (strncmp(said, wanted, strlen(wanted)) != 0) fail_msg("%s", said);
    assert_ptr_equal(strchr(said, '\n'), said + strlen(said) - 1); /* one line */
    assert_true(remove_folder(folder));
}

/* Other mistakes that end in this signal still do. */
static void test_other(void **state)
{
    (void)state;
    int code;
    const pid_t child = fork();
    if (!child) {
        expect_bus_errors();
        raise(SIGBUS);
        raise(SIGBUS);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &code, 0), child);
    assert_true(WIFSIGNALED(code) && WTERMSIG(code) == SIGBUS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cut_off), cmocka_unit_test(test_other)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
