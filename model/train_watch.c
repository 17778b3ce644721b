/* train_watch.c: how what trains or fits tells what it does. */
#include <stdarg.h>
#include <stdio.h>

#include "model/train_loop.h"

void iso_watch_say(const iso_watch *w, const char *fmt, ...)
{
    if (!w->say) return;
    char line[512];
    va_list list;
    va_start(list, fmt);
    vsnprintf(line, sizeof line, fmt, list);
    va_end(list);
    w->say(w->ctx, line);
}

void iso_watch_part(const iso_watch *w, const char *what, int64_t done, int64_t total)
{
    if (w->part) w->part(w->ctx, what, done, total);
}

bool iso_watch_stop(const iso_watch *w)
{
    return w->stop && w->stop(w->ctx);
}
