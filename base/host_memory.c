#include "base/host_memory.h"

#include <inttypes.h>
#include <omp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/control_group.h"

static size_t least(size_t a, size_t b) { return a < b ? a : b; }
static size_t minus(size_t a, size_t b) { return a > b ? a - b : 0; }

/* The number behind the first line that begins with `key` and a blank or colon; key "": the first number of the file. */
static bool number_in(const char *root, const char *folder, const char *name, const char *key, size_t *out)
{
    char line[256];
    const size_t length = strlen(key);
    bool found = false;
    FILE *f = iso_group_open(root, folder, name);
    while (f && !found && fgets(line, sizeof line, f)) {
        uint64_t value;
        if (strncmp(line, key, length) != 0 || (length && !strchr(" \t:", line[length]))) continue;
        if (sscanf(line + length + (length > 0), "%" SCNu64, &value) != 1) break; /* "max": no limit */
        *out = value > SIZE_MAX ? SIZE_MAX : (size_t)value;
        found = true;
    }
    if (f) fclose(f);
    return found;
}

static size_t machine(const char *root)
{
    size_t available, swap = 0;
    if (!number_in(root, "/proc/meminfo", "", "MemAvailable", &available)) return SIZE_MAX;
    (void)number_in(root, "/proc/meminfo", "", "SwapFree", &swap);
    return (available > SIZE_MAX / 4096 ? SIZE_MAX / 4096 : available + swap) * 1024;
}

/* What is left in one control group. Its usage counts files that were read, which are given up when memory is wanted. */
static size_t left_in(const char *root, const char *folder, const char *limit_name, const char *usage_name, const char *cached_name)
{
    size_t limit, usage, cached = 0;
    if (!number_in(root, folder, limit_name, "", &limit) || !number_in(root, folder, usage_name, "", &usage)) return SIZE_MAX;
    (void)number_in(root, folder, "/memory.stat", cached_name, &cached);
    return minus(limit, minus(usage, cached));
}

static void look(void *room, const char *root, const char *folder, bool unified)
{
    const size_t left = unified ? left_in(root, folder, "/memory.max", "/memory.current", "inactive_file")
                                : left_in(root, folder, "/memory.limit_in_bytes", "/memory.usage_in_bytes", "total_inactive_file");
    *(size_t *)room = least(*(size_t *)room, left);
}

/* What is left below the limit; SIZE_MAX: there is none. */
static size_t addresses_left(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return SIZE_MAX;
    long pages = 0;
    FILE *f = iso_group_open("", "/proc/self/statm", "");
    if (f && fscanf(f, "%ld", &pages) != 1) pages = 0;
    if (f) fclose(f);
    return minus((size_t)limit.rlim_cur, (size_t)pages * (size_t)sysconf(_SC_PAGESIZE));
}

static int begin_threads(void)
{
    int threads = 0;
#pragma omp parallel reduction(+ : threads)
    threads++;
    return threads;
}

/* OpenMP begins its threads with the first work: only then are their stacks counted, so they are begun here, where there is room for them. */
static size_t address_space(void)
{
    const size_t before = addresses_left(), stacks = (size_t)omp_get_max_threads() * ((size_t)16 << 20);
    return before == SIZE_MAX || before < stacks || !begin_threads() ? before : addresses_left();
}

size_t iso_host_memory_at(const char *root)
{
    size_t room = machine(root);
    iso_groups_each(root, "memory", look, &room);
    return room;
}

size_t iso_host_memory(void)
{
    return least(iso_host_memory_at(""), address_space());
}
