/* A page of a mapped file that cannot be had is a SIGBUS, wherever it is touched: the disk fails or is full, the file system has gone away, or somebody
 * cut the file off. The system would end the program without a word. Only what a signal handler may call is called here. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

enum { LINE = 4600 }; /* a path and what stands before it */

static void put(char *line, size_t *n, const char *text)
{
    while (*text && *n < LINE) line[(*n)++] = *text++;
}

static bool next_line(int fd, char *line)
{
    size_t n = 0;
    char c = 0;
    while (read(fd, &c, 1) == 1 && c != '\n')
        if (n < LINE - 1) line[n++] = c;
    line[n] = '\0';
    return c == '\n';
}

static uintptr_t number(const char **text)
{
    uintptr_t value = 0;
    for (;; (*text)++) {
        const char c = **text;
        if (c >= '0' && c <= '9') value = value * 16 + (uintptr_t)(c - '0');
        else if (c >= 'a' && c <= 'f') value = value * 16 + (uintptr_t)(c - 'a' + 10);
        else return value;
    }
}

/* Lines of /proc/self/maps: "from-to rw-s offset device inode   /path". NULL: it is no file's, or not to be told. */
static const char *file_at(uintptr_t at, char *line)
{
    const char *path = NULL;
    const int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    for (bool here = false; fd >= 0 && !here && next_line(fd, line);) {
        const char *text = line;
        const uintptr_t from = number(&text);
        text += *text == '-';
        here = from <= at && at < number(&text);
        if (here) path = strchr(text, '/');
    }
    if (fd >= 0) close(fd);
    return path;
}

static void on_bus_error(int signal_number, siginfo_t *info, void *context)
{
    static atomic_flag told = ATOMIC_FLAG_INIT;
    static char found[LINE], line[LINE + 1];
    (void)context;
    if (info->si_code != BUS_ADRERR) { /* a mistake of the program's: as ever, when it is made again */
        signal(signal_number, SIG_DFL);
        return;
    }
    if (atomic_flag_test_and_set(&told))
        for (;;) pause(); /* another thread is telling */
    size_t n = 0;
    const char *path = file_at((uintptr_t)info->si_addr, found);
    put(line, &n, program_invocation_short_name);
    put(line, &n, ": cannot read or write ");
    put(line, &n, path ? path : "a file that is mapped into memory");
    put(line, &n, ": its disk or a quota is full or failing, or it was cut off meanwhile; what was committed before is kept\n");
    if (write(STDERR_FILENO, line, n) < 0) _exit(1);
    _exit(1);
}

static void __attribute__((constructor)) expect_bus_errors(void)
{
    struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    (void)sigaction(SIGBUS, &action, NULL);
}
