/* store_forks.c: one process opens a database once, as LMDB's locks are the process's; and what a fork does to it. */
#include <omp.h>
#include <sys/stat.h>

#include "indexer/store_internal.h"

static pthread_mutex_t open_mutex = PTHREAD_MUTEX_INITIALIZER;
static iso_store *open_stores;

/* A child has none of GNU OpenMP's threads, and would wait for them: those of the thread that forks end, and start again when they are needed.
 * Within a parallel region they stay (-1); there the child has no others to wait for. LLVM's OpenMP sees to it by itself, and does not
 * survive to be paused before. */
extern void kmp_set_blocktime(int) __attribute__((weak)); /* a function of LLVM's own; GNU's it has, too */
static void before_fork(void)
{
    if (!kmp_set_blocktime) (void)omp_pause_resource_all(omp_pause_hard);
    pthread_mutex_lock(&open_mutex);
}

static void after_fork(void) { pthread_mutex_unlock(&open_mutex); }

static void expect_forks(void) { (void)pthread_atfork(before_fork, after_fork, after_fork); }

iso_status iso_store_enlist(iso_store *s, iso_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct stat st;
    if (fstat(s->dir_fd, &st)) return iso_fail_errno(err, "cannot open %s", s->dir);
    pthread_once(&once, expect_forks);
    pthread_mutex_lock(&open_mutex);
    for (iso_store *o = open_stores; o; o = o->next) {
        struct stat other;
        if (o->pid == s->pid && !fstat(o->dir_fd, &other) && other.st_dev == st.st_dev && other.st_ino == st.st_ino) {
            pthread_mutex_unlock(&open_mutex);
            return iso_fail(err, ISO_E_ARGUMENT, "%s is open in this process already", s->dir);
        }
    }
    s->next = open_stores;
    open_stores = s;
    pthread_mutex_unlock(&open_mutex);
    return ISO_OK;
}

void iso_store_delist(iso_store *s)
{
    pthread_mutex_lock(&open_mutex);
    for (iso_store **p = &open_stores; *p; p = &(*p)->next)
        if (*p == s) {
            *p = s->next;
            break;
        }
    pthread_mutex_unlock(&open_mutex);
}
