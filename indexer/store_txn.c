/* store_txn.c: transactions, the growing map, moving and compacting a database. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/progress.h"
#include "indexer/store_internal.h"

/* What the newest snapshot takes of the file, and the map, in bytes. */
static int sizes(const iso_store *s, uint64_t *used, uint64_t *map)
{
    MDB_envinfo info;
    MDB_stat stat;
    int rc = mdb_env_info(s->env, &info);
    if (!rc) rc = mdb_env_stat(s->env, &stat);
    if (rc) return rc;
    *used = ((uint64_t)info.me_last_pgno + 1) * stat.ms_psize;
    *map = info.me_mapsize;
    return 0;
}

/* Whether a map of so many bytes can take the place of one of `now`. */
static bool addresses(uint64_t bytes, uint64_t now)
{
    if (bytes <= now) return true;
    void *more = mmap(NULL, (size_t)(bytes - now), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return more != MAP_FAILED && !munmap(more, (size_t)(bytes - now));
}

/* LMDB may change its map only while this process has no transaction, and gives up the old one before it asks for the new: where that cannot
 * be had, it has none. So the addresses are looked for first, and ENOMEM leaves the store as it was, unless it is broken. 0: what the file,
 * grown by another process, needs. Called with the mutex held. */
static int remap(iso_store *s, uint64_t bytes)
{
    uint64_t used, now;
    int rc = sizes(s, &used, &now);
    if (rc) return rc;
    if (!bytes) bytes = addresses(2 * used, now) ? 2 * used : used;
    bytes = (bytes + 65535) & ~UINT64_C(65535);
    if (!addresses(bytes, now)) return ENOMEM;
    rc = mdb_env_set_mapsize(s->env, (size_t)bytes);
    if (rc) s->broken = true; /* another thread has taken the addresses meanwhile */
    return rc;
}

/* Room for one transaction of map_step bytes, and the sums that it writes anew. */
static uint64_t room(const iso_store *s) { return s->map_step + iso_sums_bytes(s->dim); }

/* Where addresses are rationed, less room is kept, as at opening. */
static int grow(iso_store *s)
{
    uint64_t used, now;
    int rc = sizes(s, &used, &now);
    while (!rc && !s->active && used + room(s) > now) {
        rc = remap(s, 2 * used + 2 * room(s));
        if (rc == ENOMEM && !s->broken) rc = remap(s, used + room(s));
        if (rc != ENOMEM || s->broken || s->map_step <= ISO_STORE_STEP_MIN) break;
        s->map_step /= 2;
        rc = 0;
    }
    return rc;
}

/* lock.mdb, which all share, counts on while our map stays as it is. So it does for whoever opened a file of the lower layer of an overlay (a
 * container's image) before the first change brought it up, or where the file was written over: its pages are not those of this snapshot. */
static bool is_beneath(const iso_store *s, MDB_txn *txn)
{
    MDB_envinfo info;
    return !mdb_env_info(s->env, &info) && info.me_last_txnid < mdb_txn_id(txn);
}

static int begin_once(iso_store *s, bool write, MDB_txn **txn)
{
    pthread_mutex_lock(&s->mutex);
    int rc = s->broken ? MDB_PANIC : write ? grow(s) : 0;
    if (!rc) s->active++;
    pthread_mutex_unlock(&s->mutex);
    if (rc) return rc;
    rc = mdb_txn_begin(s->env, NULL, write ? 0 : MDB_RDONLY, txn);
    if (!rc && !write && is_beneath(s, *txn)) {
        mdb_txn_abort(*txn);
        rc = ESTALE;
    }
    if (!rc) return 0;
    pthread_mutex_lock(&s->mutex);
    s->active--;
    /* another process has grown the file beyond our map */
    if (rc == MDB_MAP_RESIZED && !s->active && !(rc = remap(s, 0))) rc = EAGAIN;
    pthread_mutex_unlock(&s->mutex);
    int dead = 0;
    if (rc == MDB_READERS_FULL && !mdb_reader_check(s->env, &dead) && dead) rc = EAGAIN; /* readers that were killed had their places still */
    return rc;
}

enum { AGAIN = 100, WAIT = 10000 }; /* times; milliseconds */

/* All places for readers are taken, or the file has grown beyond the map while others here read in it: their transactions are short. */
static bool may_pass(int rc) { return rc == MDB_READERS_FULL || rc == MDB_MAP_RESIZED; }

int iso_lmdb_begin(iso_store *s, bool write, MDB_txn **txn)
{
    int rc = begin_once(s, write, txn);
    for (int again = 0, waited = 0; (rc == EAGAIN && again < AGAIN) || (may_pass(rc) && waited < WAIT);) {
        if (rc == EAGAIN) again++;
        else {
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
            waited++;
        }
        rc = begin_once(s, write, txn);
    }
    return rc;
}

void iso_lmdb_end(iso_store *s)
{
    pthread_mutex_lock(&s->mutex);
    s->active--;
    pthread_mutex_unlock(&s->mutex);
}

/* By its path, as who opens it now does. The number is nobody else's as long as we have the file open. */
iso_status iso_store_still_there(const iso_store *s, iso_error *err)
{
    struct stat st;
    if (stat(s->data, &st) || st.st_dev != s->dev || st.st_ino != s->ino)
        return iso_fail(err, ISO_E_MISMATCH, "%s was moved, removed or replaced meanwhile: close it and open it again", s->dir);
    return ISO_OK;
}

iso_status iso_txn_begin(iso_store *s, bool write, iso_txn **out, iso_error *err)
{
    if (s->pid != getpid()) return iso_fail(err, ISO_E_ARGUMENT, "%s was opened before this process was forked: open it here", s->dir);
    if (write && !s->writable) return iso_fail(err, ISO_E_ARGUMENT, "%s is open for reading only", s->dir);
    iso_txn *t = iso_calloc(1, sizeof *t);
    if (!t) return iso_fail_memory(err);
    t->store = s;
    t->write = write;
    int rc = iso_lmdb_begin(s, write, &t->txn);
    if (rc) {
        free(t);
        return iso_lmdb_fail(err, rc, s->dir, write ? "write" : "read");
    }
    iso_status status = write ? iso_store_still_there(s, err) : ISO_OK; /* what we would write, nobody would find */
    if (!status) status = iso_state_read(s, t->txn, &t->state, err);
    if (status) {
        iso_txn_abort(t);
        return status;
    }
    *out = t;
    return ISO_OK;
}

void iso_txn_abort(iso_txn *t)
{
    if (!t) return;
    iso_sums_end(t);
    mdb_txn_abort(t->txn);
    iso_lmdb_end(t->store);
    free(t);
}

iso_status iso_txn_commit(iso_txn *t, iso_error *err)
{
    iso_store *s = t->store;
    if (t->failed) {
        iso_txn_abort(t);
        return iso_fail(err, ISO_E_ARGUMENT, "%s: a transaction that failed cannot be committed", s->dir);
    }
    if (!t->write || !t->dirty) {
        iso_txn_abort(t);
        return ISO_OK;
    }
    t->state.updated = (uint64_t)time(NULL);
    t->state.generation += t->changed;
    iso_status status = iso_state_write(s, t->txn, &t->state, err);
    const bool stamp = t->changed && !s->stamped;
    if (!status && stamp) status = iso_history_add(t, err);
    if (!status) status = iso_sums_store(t, err);
    if (status) {
        iso_txn_abort(t);
        return status;
    }
    iso_sums_end(t);
    int rc = mdb_txn_commit(t->txn);
    s->stamped = s->stamped || (stamp && !rc);
    iso_lmdb_end(s);
    free(t);
    return rc ? iso_lmdb_fail(err, rc, s->dir, "write") : ISO_OK;
}

iso_store_info iso_store_info_get(const iso_txn *t)
{
    const iso_store *s = t->store;
    iso_store_info info = {.count = t->state.count, .next_id = t->state.next_id, .generation = t->state.generation,
                           .dim = s->dim, .created = s->created, .updated = t->state.updated};
    memcpy(info.digest, s->digest, sizeof info.digest);
    memcpy(info.model, s->model, sizeof info.model);
    return info;
}

iso_status iso_store_root(const iso_txn *t, char **out, iso_error *err) { return iso_head_root(t->store, t->txn, out, err); }

iso_status iso_store_map_step(iso_store *s, uint64_t bytes, iso_error *err)
{
    uint64_t used, now;
    pthread_mutex_lock(&s->mutex);
    const uint64_t before = s->map_step;
    s->map_step = bytes;
    int rc = s->active ? EBUSY : sizes(s, &used, &now);
    if (!rc) rc = remap(s, used + room(s));
    if (rc) s->map_step = before;
    pthread_mutex_unlock(&s->mutex);
    return rc ? iso_lmdb_fail(err, rc, s->dir, "map") : ISO_OK;
}

iso_status iso_store_relocate(iso_store *s, const char *root, iso_error *err)
{
    if (root[0] != '/') return iso_fail(err, ISO_E_ARGUMENT, "%s: the folder of images must be absolute", root);
    if (!strcmp(root, s->root)) return ISO_OK;
    char *now = iso_strndup(root, strlen(root)), *before = s->root;
    if (!now) return iso_fail_memory(err);
    iso_txn *t;
    iso_status status = iso_txn_begin(s, true, &t, err);
    if (status) {
        free(now);
        return status;
    }
    s->root = now;
    status = iso_head_write(s, t->txn, err);
    t->dirty = true;
    if (status) iso_txn_abort(t);
    else status = iso_txn_commit(t, err);
    if (status) {
        s->root = before;
        free(now);
        return status;
    }
    free(before);
    return ISO_OK;
}

/* ---- compaction ---- */

static iso_status size_of(const iso_store *s, uint64_t *bytes, iso_error *err)
{
    struct stat st;
    if (fstatat(s->dir_fd, "data.mdb", &st, 0)) return iso_fail_errno(err, "cannot read %s/data.mdb", s->dir);
    *bytes = (uint64_t)st.st_size;
    return ISO_OK;
}

iso_status iso_store_beside(const iso_store *s, const char *name, char **temporary, char **data, iso_error *err)
{
    struct stat st;
    *temporary = NULL;
    *data = iso_path_join(s->dir, "data.mdb");
    if (*data && !lstat(*data, &st) && S_ISLNK(st.st_mode)) {
        char *target = realpath(*data, NULL);
        if (!target) {
            iso_status status = iso_fail_errno(err, "cannot tell where %s leads to", *data);
            free(*data);
            *data = NULL;
            return status;
        }
        free(*data);
        *data = target; /* there others may write, too */
        *temporary = iso_format("%.*s/.isoface-%016" PRIx64 ".tmp", (int)(strrchr(target, '/') - target), target, iso_fresh_number());
    } else if (*data)
        *temporary = iso_path_join(s->dir, name);
    if (*temporary) return ISO_OK;
    free(*data);
    *data = NULL;
    return iso_fail_memory(err);
}

/* The lock file is another, too: the old one remembers the old file's transaction numbers. */
iso_status iso_store_replace(iso_store *s, const char *temporary, const char *data, iso_error *err)
{
    mdb_env_close(s->env);
    s->env = NULL;
    if (rename(temporary, data)) {
        iso_status status = iso_fail_errno(err, "cannot replace %s", data);
        unlink(temporary);
        return status;
    }
    if (unlinkat(s->dir_fd, "lock.mdb", 0) && errno != ENOENT) return iso_fail_errno(err, "cannot remove %s/lock.mdb: remove it by hand", s->dir);
    (void)iso_lock_make(s); /* the next opening says whether there is room */
    return iso_file_settle(s->data, err);
}

/* Bytes of what is in use: what a copy without free pages has. */
static iso_status used_bytes(iso_store *s, uint64_t *bytes, iso_error *err)
{
    iso_txn *t;
    MDB_dbi root;
    iso_status status = iso_txn_begin(s, false, &t, err);
    if (status) return status;
    int rc = mdb_dbi_open(t->txn, NULL, 0, &root);
    const MDB_dbi table[] = {root, s->items, s->vectors, s->by_path, s->by_hash, s->meta};
    uint64_t pages = 2, psize = 0; /* the header's */
    for (size_t i = 0; !rc && i < sizeof table / sizeof *table; i++) {
        MDB_stat stat;
        rc = mdb_stat(t->txn, table[i], &stat);
        pages += stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages;
        psize = stat.ms_psize;
    }
    iso_txn_abort(t);
    *bytes = pages * psize;
    return rc ? iso_lmdb_fail(err, rc, s->dir, "read") : ISO_OK;
}

/* LMDB copies without asking or telling anybody. Who stands by sees how far it is, and takes its file away on an interruption: the next write fails. */
typedef struct copying {
    int fd, instead;
    iso_progress *progress;
    atomic_bool done;
} copying;

enum { MIB = 1 << 20 };

static void *stand_by(void *ctx)
{
    copying *c = ctx;
    while (!c->done && !iso_interrupted()) {
        iso_progress_step(c->progress, lseek(c->fd, 0, SEEK_CUR) / MIB);
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    if (iso_interrupted()) (void)dup2(c->instead, c->fd);
    return NULL;
}

static int copy_to(iso_store *s, int fd, iso_progress *progress)
{
    copying c = {.fd = fd, .instead = s->dir_fd, .progress = progress};
    pthread_t thread;
    const bool watched = !pthread_create(&thread, NULL, stand_by, &c); /* without, the copy is made to the end */
    int rc = mdb_env_copyfd2(s->env, fd, MDB_CP_COMPACT);
    c.done = true;
    if (watched) pthread_join(thread, NULL);
    if (rc || iso_interrupted()) return rc;
    iso_progress_pass(progress, "writing to the disk", "", 0);
    return ftruncate(fd, lseek(fd, 0, SEEK_CUR)) || fsync(fd) ? errno : 0;
}

/* The copy goes beside the old file; only when it is whole and synced it takes its place. */
static iso_status compact_into(iso_store *s, const char *temporary, const char *data, iso_progress *progress, iso_error *err)
{
    uint64_t bytes;
    iso_status status = used_bytes(s, &bytes, err);
    if (status) return status;
    int fd = open(temporary, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) return iso_fail_errno(err, "cannot write %s", temporary);
    struct stat st;
    if (!fstat(s->data_fd, &st)) iso_file_like(fd, &st);
    iso_progress_pass(progress, "compacting", "MiB", (int64_t)(bytes / MIB));
    int rc = iso_file_reserve(fd, bytes, true);
    if (!rc) rc = copy_to(s, fd, progress);
    close(fd);
    const bool stopped = iso_interrupted();
    if (rc || stopped) {
        unlink(temporary);
        if (stopped) return iso_fail(err, ISO_E_INTERRUPTED, "interrupted: %s was not compacted", s->dir);
        if (rc == EAGAIN) return iso_fail(err, ISO_E_IO, "cannot compact %s: the system refuses the thread that this needs (see ulimit -u and -v)", s->dir);
        return iso_lmdb_fail(err, rc, s->dir, "compact");
    }
    return iso_store_replace(s, temporary, data, err);
}

static iso_status mend(iso_store *s, iso_progress *progress, iso_error *err)
{
    iso_txn *t;
    iso_status status = iso_txn_begin(s, true, &t, err);
    if (status) return status;
    status = iso_sums_mend(t, progress, err);
    if (!status) status = iso_history_mend(t, err);
    if (!status) return iso_txn_commit(t, err);
    iso_txn_abort(t);
    return status;
}

iso_status iso_store_compact(const char *dir, iso_progress *progress, uint64_t *before, uint64_t *after, iso_error *err)
{
    iso_store *s = NULL;
    char *temporary = NULL, *data = NULL;
    uint64_t old = 0, now = 0;
    iso_status status = iso_store_open(dir, ISO_STORE_WRITE, NULL, &s, err);
    if (status) return status;
    status = iso_store_alone(s, err);
    if (!status) status = iso_store_beside(s, ISO_STORE_COMPACTING, &temporary, &data, err);
    if (!status) status = size_of(s, &old, err);
    if (!status) status = mend(s, progress, err);
    if (!status) status = compact_into(s, temporary, data, progress, err);
    if (!status) status = size_of(s, &now, err);
    iso_store_close(s);
    free(temporary);
    free(data);
    if (status) return status;
    *before = old;
    *after = now;
    return ISO_OK;
}
