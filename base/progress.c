#include "base/progress.h"

#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"

#define WIPE "\r\033[K"

double iso_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

const char *iso_duration(double seconds, char buf[32])
{
    if (!(seconds >= 0) || seconds > 1e9) {
        snprintf(buf, 32, "?");
        return buf;
    }
    long s = lround(seconds);
    if (s >= 3600)
        snprintf(buf, 32, "%ld h %02ld min", s / 3600, s % 3600 / 60);
    else if (s >= 60)
        snprintf(buf, 32, "%ld min %02ld s", s / 60, s % 60);
    else
        snprintf(buf, 32, "%ld s", s);
    return buf;
}

/* A line that wraps could not be wiped. */
static int columns(void)
{
    struct winsize size;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col < 2) return 79;
    return size.ws_col - 1;
}

static void draw(iso_progress *p)
{
    double now = iso_now();
    if (p->shown > 0 && now - p->shown < 0.1) return;
    p->shown = now;
    double spent = now - p->started, rate = spent > 0 ? (double)p->done / spent : 0;
    char line[256], left[32];
    long long done = p->done, total = p->total;
    int n;
    if (total == 0 && done == 0)
        n = snprintf(line, sizeof line, "%s ...", p->what);
    else if (total > 0 && done == 0)
        n = snprintf(line, sizeof line, "%s 0/%lld %s", p->what, total, p->unit);
    else if (total > 0 && rate > 0)
        n = snprintf(line, sizeof line, "%s %lld/%lld %s (%d %%), %.3g/s, %s left", p->what, done, total, p->unit,
                     (int)(100.0 * (double)done / (double)total), rate, iso_duration((double)(total - done) / rate, left));
    else
        n = snprintf(line, sizeof line, "%s %lld %s, %.3g/s", p->what, done, p->unit, rate);
    if (n < 0) return;
    fprintf(stderr, WIPE "%.*s", columns(), line);
    fflush(stderr);
}

void iso_progress_open(iso_progress *p, bool quiet)
{
    const char *term = getenv("TERM");
    bool able = term && *term && strcmp(term, "dumb") != 0;
    *p = (iso_progress){.show = !quiet && able && isatty(STDERR_FILENO) ? draw : NULL};
}

void iso_progress_pass(iso_progress *p, const char *what, const char *unit, int64_t total)
{
    if (!p) return;
    p->what = what;
    p->unit = unit;
    p->total = total;
    p->started = iso_now();
    p->shown -= 1; /* it is drawn at once */
    iso_progress_step(p, 0);
}

void iso_progress_step(iso_progress *p, int64_t done)
{
    if (!p) return;
    p->done = done;
    if (p->show) p->show(p);
}

void iso_progress_end(iso_progress *p)
{
    if (!p || !(p->shown > 0)) return;
    fputs(WIPE, stderr);
    fflush(stderr);
    p->shown = 0;
}

void iso_progress_say(iso_progress *p, const char *fmt, ...)
{
    char *text = NULL;
    va_list args;
    va_start(args, fmt);
    int n = vasprintf(&text, fmt, args);
    va_end(args);
    if (n < 0) return;
    iso_text_harmless(text);
    fprintf(stderr, "%s%s\n", p && p->shown > 0 ? WIPE : "", text);
    free(text);
    if (p) p->shown = 0; /* the next step draws at once */
}

static atomic_bool interrupted; /* without a lock, so that signal handlers may, too */

static void on_signal(int number)
{
    if (interrupted && number != SIGHUP) { /* a terminal that goes may say so more than once */
        signal(number, SIG_DFL);
        raise(number); /* delivered when this handler returns */
    }
    interrupted = true;
}

static void install(int number)
{
    struct sigaction old, action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    /* nohup and shells' background jobs have asked to be left alone. */
    if (sigaction(number, NULL, &old) == 0 && old.sa_handler == SIG_IGN) return;
    sigaction(number, &action, NULL);
}

void iso_interrupt_install(void)
{
    install(SIGINT);
    install(SIGTERM);
    install(SIGHUP);
}

void iso_interrupt_set(bool on)
{
    interrupted = on;
}

bool iso_interrupted(void)
{
    return interrupted;
}
