/* host_memory.h: how much memory this process can still take. */
#ifndef ISO_BASE_HOST_MEMORY_H
#define ISO_BASE_HOST_MEMORY_H

#include <stddef.h>

/* Bytes: the least of what the machine has available (swap included), of what is left below the limits of the control
 * groups that the process is in (both versions; files in the page cache do not count), and of what is left of its address
 * space (ulimit -v), for which the calling thread's OpenMP threads are begun: their stacks count. SIZE_MAX where none of them says anything.
 * Any thread. */
size_t iso_host_memory(void);
/* The same as the files below `root` have it ("" is the machine itself), without the limit on address space. */
size_t iso_host_memory_at(const char *root);

#endif
