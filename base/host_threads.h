/* host_threads.h: how many threads this process can keep busy. */
#ifndef ISO_BASE_HOST_THREADS_H
#define ISO_BASE_HOST_THREADS_H

/* The processors' worth of time that the quotas of the control groups leave the process (cpu.max, cpu.cfs_quota_us), rounded up; 0: no limit.
 * Any thread. More threads than that stop each other, those that wait for others most. */
int iso_host_threads(void);
/* The same as the files below `root` have it. */
int iso_host_threads_at(const char *root);

#endif
