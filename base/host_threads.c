#include "base/host_threads.h"

#include <limits.h>
#include <stdio.h>

#include "base/control_group.h"

/* The first number of a file; 0: none. */
static long long number_of(const char *root, const char *folder, const char *name, long long *second)
{
    long long first = 0;
    FILE *f = iso_group_open(root, folder, name);
    if (!f || fscanf(f, "%lld %lld", &first, second) < 1) first = 0; /* "max": no limit */
    if (f) fclose(f);
    return first;
}

static void look(void *threads, const char *root, const char *folder, bool unified)
{
    long long period = 0, unused = 0;
    const long long quota = number_of(root, folder, unified ? "/cpu.max" : "/cpu.cfs_quota_us", &period); /* version 1: -1, no limit */
    if (!unified) period = number_of(root, folder, "/cpu.cfs_period_us", &unused);
    if (quota <= 0 || period <= 0) return;
    const long long here = quota / period + (quota % period > 0);
    int *least = threads;
    if (here <= INT_MAX && (*least == 0 || here < *least)) *least = (int)here;
}

int iso_host_threads_at(const char *root)
{
    int threads = 0;
    iso_groups_each(root, "cpu", look, &threads);
    return threads;
}

int iso_host_threads(void) { return iso_host_threads_at(""); }
