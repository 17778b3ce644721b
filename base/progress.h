/* progress.h: one line on stderr that tells how far a long job is: only on a terminal, and never with --quiet. Programs open and end it; library
 * functions are given it (NULL: none), and say which pass they are in and how far. One thread at a time. */
#ifndef ISO_BASE_PROGRESS_H
#define ISO_BASE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct iso_progress {
    const char *what;      /* "decoding"; must last as long as the pass, as `unit` */
    const char *unit;      /* "images" */
    int64_t done, total;   /* 0 of 0: how many is not known */
    double started, shown; /* seconds, monotonic; shown 0: no line is there */
    void (*show)(struct iso_progress *p); /* at every step; NULL: nobody is shown anything */
} iso_progress;

double iso_now(void); /* monotonic seconds */
/* quiet, or stderr not a terminal: nothing is ever drawn. A zeroed one is quiet, too. */
void iso_progress_open(iso_progress *p, bool quiet);
/* A pass begins, with a pace of its own. */
void iso_progress_pass(iso_progress *p, const char *what, const char *unit, int64_t total);
/* Redraws at most ten times a second: done/total, rate, time left; 0 of 0: what alone. */
void iso_progress_step(iso_progress *p, int64_t done);
/* Wipes the line; the next step draws it again. */
void iso_progress_end(iso_progress *p);
/* Prints a whole line on stderr without tearing the progress line. */
void iso_progress_say(iso_progress *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* "1 h 02 min", "3 min 05 s", "12 s" into buf. */
const char *iso_duration(double seconds, char buf[32]);

/* SIGINT, SIGTERM and SIGHUP (the terminal is gone) set a flag instead of killing; a second one, of the first two, kills. */
void iso_interrupt_install(void);
void iso_interrupt_set(bool on); /* the same flag, by hand; from any thread or signal handler */
bool iso_interrupted(void);

#endif
