/* progress.h: one line on stderr that tells how far a long job is: only on a terminal, and never with --quiet. */
#ifndef ISO_BASE_PROGRESS_H
#define ISO_BASE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct iso_progress {
    const char *what;   /* "decoding" */
    const char *unit;   /* "images" */
    int64_t total;
    double started, shown; /* seconds, monotonic */
    bool live;          /* a terminal that may be redrawn */
} iso_progress;

double iso_now(void); /* monotonic seconds */
/* quiet, or stderr not a terminal: nothing is ever drawn. */
void iso_progress_start(iso_progress *p, const char *what, const char *unit, int64_t total, bool quiet);
/* Redraws at most ten times a second: done/total, rate, time left; 0 of 0: what alone. One thread at a time. */
void iso_progress_step(iso_progress *p, int64_t done);
/* Wipes the line. */
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
