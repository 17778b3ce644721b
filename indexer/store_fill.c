/* store_fill.c: a new database in one pass.
 *
 * Putting a million items one by one writes most of the path index again in every transaction, copies every page through
 * the page cache, and leaves the disk idle between commits. Where there is nothing yet, the B+ trees are known beforehand:
 * ids, and with them the vectors' places, follow from the row, and the paths are sorted once. Workers read and account
 * vectors and write whole leaves where these belong, past the page cache where the file system can; meanwhile one thread
 * makes the other tables, behind the vectors. Then LMDB itself opens the file, adds the records of `meta` and commits, and
 * only then it takes the place of the empty database. */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/progress.h"
#include "indexer/store_internal.h"
#include "indexer/store_layout.h"

enum {
    CHUNK = 2 << 20,      /* bytes that a worker writes at once, about: a huge page */
    READ = 256 << 10,     /* bytes that it reads at once, about */
    GROUP_MAX = 8 << 20,  /* bytes of a leaf with its long vectors, unless one vector is longer */
    WORKERS_MAX = 10,     /* they wait for the disk, mostly: some more than cores */
    SUMS_MAX = 256 << 20, /* bytes of all workers' sums together; what they multiply with takes half as many again */
    BUCKETS = 65536,      /* of path hashes */
    BEHIND = INT32_MAX,   /* order of a failure that no row is to blame for */
};

typedef struct path_key {
    uint8_t bytes[ISO_STORE_KEY];
} path_key;

typedef struct filling {
    iso_store *store;
    iso_fill *what;
    char *temporary, *data;
    int fd;
    uint32_t psize;
    /* The leaves of vectors come in groups: a page of `rows` vectors, or of what leads to the `long_pages` of each behind it. */
    int64_t rows, long_pages, group_pages, groups, chunk_groups, read_groups;
    iso_tree vectors, items, by_path, main;
    uint64_t end;          /* page behind the last one */
    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t returned;
    int64_t next_group;
    iso_sums *sums[WORKERS_MAX]; /* [made]; those at idle[0 ... idles - 1] wait for a worker */
    int made, idles, idle[WORKERS_MAX];
    iso_status status;
    iso_error error;
    int64_t order, row, twin; /* the failure of the lowest order is told, whoever was first */
} filling;

/* ---- what all threads share ---- */

static void failed(filling *f, iso_status status, const iso_error *error, int64_t order, int64_t row, int64_t twin)
{
    pthread_mutex_lock(&f->mutex);
    if (!f->status || order < f->order) {
        f->status = status;
        f->error = *error;
        f->order = order;
        f->row = row;
        f->twin = twin;
    }
    pthread_mutex_unlock(&f->mutex);
}

static bool stopped(filling *f)
{
    iso_error error;
    if (iso_interrupted())
        failed(f, iso_fail(&error, ISO_E_INTERRUPTED, "interrupted: nothing was imported"), &error, BEHIND, -1, -1);
    pthread_mutex_lock(&f->mutex);
    bool stop = f->status != ISO_OK;
    pthread_mutex_unlock(&f->mutex);
    return stop;
}

static iso_status write_pages(filling *f, const uint8_t *p, uint64_t page, uint64_t count, iso_error *err)
{
    uint64_t left = count * f->psize;
    off_t at = (off_t)(page * f->psize);
    while (left) {
        const int flags = fcntl(f->fd, F_GETFL); /* as this write finds them: another thread may be the first to learn, too */
        ssize_t n = pwrite(f->fd, p, left, at);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EINVAL && flags > 0 && flags & O_DIRECT && !fcntl(f->fd, F_SETFL, flags & ~O_DIRECT))
            continue; /* not on this file system */
        if (n <= 0) return iso_lmdb_fail(err, n ? errno : ENOSPC, f->store->dir, "write");
        p += n;
        at += n;
        left -= (uint64_t)n;
    }
    return ISO_OK;
}

/* ---- vectors ---- */

static void plan_vectors(filling *f)
{
    uint64_t bytes = (uint64_t)f->store->dim * sizeof(float);
    bool is_long = iso_layout_is_long(f->psize, sizeof(uint64_t), bytes);
    uint64_t held = is_long ? sizeof(uint64_t) : bytes, node = iso_layout_node(sizeof(uint64_t), held);
    f->rows = (int64_t)iso_layout_nodes(f->psize, node);
    f->long_pages = is_long ? (int64_t)iso_layout_long_pages(f->psize, bytes) : 0;
    int64_t fit = is_long ? GROUP_MAX / (f->long_pages * f->psize) : f->rows;
    if (f->rows > fit) f->rows = fit > 1 ? fit : 1;
    f->group_pages = 1 + f->rows * f->long_pages;
    f->groups = (f->what->count + f->rows - 1) / f->rows;
    f->chunk_groups = CHUNK / (f->group_pages * f->psize);
    if (f->chunk_groups < 1) f->chunk_groups = 1;
    f->read_groups = READ / (f->group_pages * f->psize);
    if (f->read_groups < 1) f->read_groups = 1;
    int64_t last_rows = f->what->count - (f->groups - 1) * f->rows;
    f->end = ISO_LAYOUT_FIRST + (uint64_t)((f->groups - 1) * f->group_pages + 1 + last_rows * f->long_pages);
    f->vectors = (iso_tree){.integer = true,
                            .leaves = (uint64_t)f->groups,
                            .entries = (uint64_t)f->what->count,
                            .overflows = (uint64_t)(f->what->count * f->long_pages)};
}

/* A sum of one's own for a while: big ones are fewer than workers. */
static int sums_take(filling *f)
{
    if (!f->made) return -1;
    pthread_mutex_lock(&f->mutex);
    while (!f->idles) pthread_cond_wait(&f->returned, &f->mutex);
    int which = f->idle[--f->idles];
    pthread_mutex_unlock(&f->mutex);
    return which;
}

static void sums_return(filling *f, int which)
{
    if (which < 0) return;
    pthread_mutex_lock(&f->mutex);
    f->idle[f->idles++] = which;
    pthread_cond_signal(&f->returned);
    pthread_mutex_unlock(&f->mutex);
}

static iso_status account(filling *f, int which, const float *v, int64_t first, int64_t n, iso_error *err)
{
    int dim = f->store->dim;
    int64_t i = 0;
    if (which < 0)
        while (i < n && !iso_vector_fault(dim, v + i * dim)) i++;
    else
        i = iso_sums_account(f->sums[which], v, n);
    const char *why = i < n ? iso_vector_fault(dim, v + i * dim) : NULL;
    if (!why) return ISO_OK;
    iso_status status = iso_fail(err, ISO_E_NUMERIC, "the vector of %s holds %s", f->what->paths[first + i], why);
    failed(f, status, err, first + i, first + i, -1);
    return status;
}

/* Pages of `n` vectors from row `first` on; the last group of all may be shorter. How many pages come back. */
static uint64_t lay_out(const filling *f, const float *v, int64_t first, int64_t n, uint8_t *p)
{
    uint64_t page = ISO_LAYOUT_FIRST + (uint64_t)(first / f->rows * f->group_pages), from = page;
    uint32_t bytes = (uint32_t)f->store->dim * (uint32_t)sizeof(float);
    for (int64_t at = 0; at < n; at += f->rows) {
        int64_t rows = n - at < f->rows ? n - at : f->rows;
        uint8_t *leaf = p + (page - from) * f->psize;
        iso_layout_start(leaf, f->psize, true);
        uint64_t behind = page + 1;
        for (int64_t i = at; i < at + rows; i++) {
            uint64_t id = (uint64_t)(first + i) + 1;
            if (!f->long_pages)
                memcpy(iso_layout_leaf(leaf, &id, sizeof id, bytes), v + i * f->store->dim, bytes);
            else {
                iso_layout_leaf_long(leaf, &id, sizeof id, bytes, behind);
                iso_layout_long(p + (behind - from) * f->psize, f->psize, behind, v + i * f->store->dim, bytes);
                behind += (uint64_t)f->long_pages;
            }
        }
        iso_layout_end(leaf, page);
        page = behind;
    }
    return page - from;
}

/* Some groups at a time: between reading and writing, vectors stay in the nearer caches. */
static iso_status fill_chunk(filling *f, int64_t group, float *v, uint8_t *pages, iso_error *err)
{
    int64_t last = group + f->chunk_groups < f->groups ? group + f->chunk_groups : f->groups;
    uint64_t count = 0;
    iso_status status = ISO_OK;
    int which = sums_take(f);
    for (int64_t g = group; g < last && !status; g += f->read_groups) {
        int64_t end = g + f->read_groups < last ? g + f->read_groups : last;
        int64_t first = g * f->rows, n = end * f->rows < f->what->count ? (end - g) * f->rows : f->what->count - first;
        status = f->what->read(f->what->ctx, first, n, v, err);
        if (!status) status = account(f, which, v, first, n, err);
        if (!status) count += lay_out(f, v, first, n, pages + count * f->psize);
    }
    sums_return(f, which);
    return status ? status : write_pages(f, pages, ISO_LAYOUT_FIRST + (uint64_t)(group * f->group_pages), count, err);
}

static void *work(void *context)
{
    filling *f = context;
    iso_error error = {0};
    float *v = malloc((size_t)(f->read_groups * f->rows) * (size_t)f->store->dim * sizeof *v);
    const size_t bytes = (size_t)(f->chunk_groups * f->group_pages) * f->psize;
    uint8_t *pages = iso_huge_alloc(bytes);
    if (!v || !pages) failed(f, iso_fail_memory(&error), &error, BEHIND, -1, -1);
    while (!stopped(f)) {
        pthread_mutex_lock(&f->mutex);
        int64_t group = f->next_group;
        f->next_group += f->chunk_groups;
        iso_progress_step(f->what->progress, group < f->groups ? group * f->rows : f->what->count);
        pthread_mutex_unlock(&f->mutex);
        if (group >= f->groups) break;
        iso_status status = fill_chunk(f, group, v, pages, &error);
        if (status) failed(f, status, &error, BEHIND, -1, -1);
    }
    free(v);
    iso_huge_free(pages, bytes);
    return NULL;
}

/* ---- items and paths, in the order of their keys ---- */

typedef struct stream { /* iso_layout_sink's context: pages one behind the other */
    filling *f;
    uint8_t *buffer; /* CHUNK bytes */
    uint64_t first, held;
} stream;

static iso_status stream_flush(stream *s, iso_error *err)
{
    iso_status status = stopped(s->f) ? ISO_E_INTERRUPTED : write_pages(s->f, s->buffer, s->first, s->held, err);
    s->first += s->held;
    s->held = 0;
    return status;
}

static iso_status stream_page(void *context, const uint8_t *p, iso_error *err)
{
    stream *s = context;
    uint32_t psize = s->f->psize;
    memcpy(s->buffer + s->held * psize, p, psize);
    return (++s->held + 1) * psize > CHUNK ? stream_flush(s, err) : ISO_OK;
}

static int by_bytes(const void *a, const void *b) { return memcmp(a, b, sizeof(path_key)); }

static bool before(const path_key *a, const path_key *b)
{
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return x != y ? be64toh(x) < be64toh(y) : memcmp(a, b, sizeof *a) < 0;
}

static void sort_few(path_key *k, int64_t n)
{
    for (int64_t i = 1; i < n; i++) {
        path_key now = k[i];
        int64_t at = i;
        for (; at > 0 && before(&now, &k[at - 1]); at--) k[at] = k[at - 1];
        k[at] = now;
    }
}

/* Hashes are spread evenly: by their first 16 bits they fall into buckets that are small. */
static void sort_keys(const path_key *keys, int64_t n, int64_t start[], path_key *sorted)
{
    int64_t at = 0;
    for (int64_t i = 0; i < n; i++) start[keys[i].bytes[0] << 8 | keys[i].bytes[1]]++;
    for (int b = 0; b < BUCKETS; b++) {
        at += start[b];
        start[b] = at - start[b];
    }
    for (int64_t i = 0; i < n; i++) sorted[start[keys[i].bytes[0] << 8 | keys[i].bytes[1]]++] = keys[i];
    for (int b = 0; b < BUCKETS; b++) {
        int64_t from = b ? start[b - 1] : 0, few = start[b] - from;
        if (few > 64)
            qsort(sorted + from, (size_t)few, sizeof *sorted, by_bytes);
        else
            sort_few(sorted + from, few);
    }
}

static path_key *sort_paths(const iso_fill *what)
{
    path_key *keys = malloc((size_t)what->count * sizeof *keys), *sorted = malloc((size_t)what->count * sizeof *sorted);
    int64_t *start = iso_calloc(BUCKETS, sizeof *start);
    uint8_t hash[16];
    for (int64_t i = 0; keys && i < what->count; i++) {
        iso_path_hash(what->paths[i], hash);
        iso_index_key(keys[i].bytes, hash, (uint64_t)i + 1);
    }
    if (keys && sorted && start)
        sort_keys(keys, what->count, start, sorted);
    else {
        free(sorted);
        sorted = NULL;
    }
    free(start);
    free(keys);
    return sorted;
}

/* Equal hashes are neighbours, and nearly always equal paths. */
static iso_status distinct(filling *f, const path_key *sorted, iso_error *err)
{
    for (int64_t i = 1; i < f->what->count; i++)
        for (int64_t j = i - 1; j >= 0 && !memcmp(sorted[i].bytes, sorted[j].bytes, 16); j--) {
            int64_t row = (int64_t)iso_index_id(sorted[i].bytes) - 1, twin = (int64_t)iso_index_id(sorted[j].bytes) - 1;
            if (strcmp(f->what->paths[row], f->what->paths[twin]) != 0) continue;
            iso_status status = iso_fail(err, ISO_E_FORMAT, "%s is named twice", f->what->paths[row]);
            failed(f, status, err, -1, row, twin); /* before whatever a row may hold */
            return status;
        }
    return ISO_OK;
}

static iso_status fill_items(filling *f, iso_layout_sink *sink, iso_error *err)
{
    iso_layout_table *t = NULL;
    uint8_t *record = NULL;
    size_t capacity = 0;
    iso_status status = iso_layout_open(f->psize, sink, true, &t, err);
    for (int64_t i = 0; i < f->what->count && !status; i++) {
        iso_item item = {.id = (uint64_t)i + 1, .path = f->what->paths[i]};
        size_t n = iso_record_bytes(&item);
        if (!*item.path || strlen(item.path) > ISO_STORE_PATH_MAX)
            status = iso_fail(err, ISO_E_ARGUMENT, "row %" PRId64 " needs a path of at most %u bytes", i + 1,
                              ISO_STORE_PATH_MAX);
        else if (!iso_grow(&record, &capacity, n, 1))
            status = iso_fail_memory(err);
        else {
            iso_record_encode(record, &item);
            status = iso_layout_add(t, &item.id, sizeof item.id, record, (uint32_t)n, err);
        }
    }
    free(record);
    return iso_layout_close(t, status, &f->items, err);
}

static iso_status fill_paths(filling *f, const path_key *sorted, iso_layout_sink *sink, iso_error *err)
{
    iso_layout_table *t = NULL;
    iso_status status = iso_layout_open(f->psize, sink, false, &t, err);
    for (int64_t i = 0; i < f->what->count && !status; i++)
        status = iso_layout_add(t, sorted[i].bytes, sizeof sorted[i].bytes, "", 0, err);
    return iso_layout_close(t, status, &f->by_path, err);
}

static iso_status branch_vectors(filling *f, iso_layout_sink *sink, iso_error *err)
{
    iso_child *leaves = iso_calloc((size_t)f->groups, sizeof *leaves);
    if (!leaves) return iso_fail_memory(err);
    for (int64_t g = 0; g < f->groups; g++) {
        uint64_t id = (uint64_t)(g * f->rows) + 1;
        memcpy(leaves[g].key, &id, sizeof id);
        leaves[g].page = ISO_LAYOUT_FIRST + (uint64_t)(g * f->group_pages);
    }
    iso_status status =
        iso_layout_branch(f->psize, sink, leaves, (uint64_t)f->groups, sizeof(uint64_t), &f->vectors, err);
    free(leaves);
    return status;
}

static iso_status fill_tables(filling *f, iso_error *err)
{
    stream s = {.f = f, .first = f->end, .buffer = iso_huge_alloc(CHUNK)};
    iso_layout_sink sink = {stream_page, &s, f->end};
    path_key *sorted = sort_paths(f->what);
    iso_status status = s.buffer && sorted ? distinct(f, sorted, err) : iso_fail_memory(err);
    if (!status) status = fill_items(f, &sink, err);
    if (!status) status = fill_paths(f, sorted, &sink, err);
    if (!status) status = branch_vectors(f, &sink, err);
    const iso_named_tree tables[] = {{"by-hash", &(iso_tree){.root = ISO_LAYOUT_NONE}},
                                     {"by-path", &f->by_path},
                                     {"items", &f->items},
                                     {"meta", &(iso_tree){.root = ISO_LAYOUT_NONE}},
                                     {"vectors", &f->vectors}};
    if (!status) status = iso_layout_main(f->psize, &sink, tables, sizeof tables / sizeof *tables, &f->main, err);
    if (!status) status = stream_flush(&s, err);
    f->end = s.first;
    iso_huge_free(s.buffer, CHUNK);
    free(sorted);
    return status;
}

/* ---- all of it ---- */

static iso_status sums_make(filling *f, int workers, iso_error *err)
{
    uint64_t bytes = iso_sums_bytes(f->store->dim);
    if (!bytes) return ISO_OK;
    for (f->made = 0; f->made < workers && (!f->made || (uint64_t)(f->made + 1) * bytes <= SUMS_MAX); f->made++) {
        f->sums[f->made] = iso_sums_new(f->store->dim);
        if (!f->sums[f->made]) return iso_fail_memory(err);
        f->idle[f->idles++] = f->made;
    }
    return ISO_OK;
}

/* About the bytes of the other tables, from some of the paths. */
static uint64_t tables_size(const filling *f)
{
    int64_t step = f->what->count / 1000 + 1, some = 0;
    double bytes = 0;
    for (int64_t i = 0; i < f->what->count; i += step, some++)
        bytes += iso_layout_node(sizeof(uint64_t), iso_record_bytes(&(iso_item){.path = f->what->paths[i]}));
    bytes = bytes / (double)some + iso_layout_node(ISO_STORE_KEY, 0);
    return (uint64_t)(1.05 * bytes * (double)f->what->count);
}

/* Room ahead: writes inside a file do not wait for each other, while one that makes it longer waits for all and lets none
 * pass; and a full disk is told at once. What is too much goes at the end. */
static iso_status reserve(filling *f, iso_error *err)
{
    const uint64_t vectors = f->end * f->psize;
    int full = iso_file_reserve(f->fd, vectors + tables_size(f), true);
    if (full) full = iso_file_reserve(f->fd, vectors, true); /* the tables were guessed */
    return full ? iso_lmdb_fail(err, full, f->store->dir, "write") : ISO_OK;
}

static iso_status fill_pages(filling *f, iso_error *err)
{
    pthread_t thread[WORKERS_MAX];
    int cores = omp_get_num_procs(), workers = cores + 2 < WORKERS_MAX ? cores + 2 : WORKERS_MAX, running = 0;
    iso_error error = {0};
    iso_status status = sums_make(f, workers, err);
    if (status) return status;
    iso_progress_pass(f->what->progress, "importing", "vectors", f->what->count);
    while (running < workers && !pthread_create(&thread[running], NULL, work, f)) running++;
    status = fill_tables(f, &error);
    if (status)
        failed(f, status, &error, BEHIND, -1, -1);
    else
        work(f); /* where no thread could be made, this one does it all */
    while (running) pthread_join(thread[--running], NULL);
    if (!f->status) {
        for (int i = 1; i < f->made; i++) iso_sums_merge(f->sums[0], f->sums[i]);
        return ISO_OK;
    }
    if (err) *err = f->error;
    return f->status;
}

static iso_status write_heads(filling *f, iso_error *err)
{
    uint8_t *p = aligned_alloc(f->psize, ISO_LAYOUT_FIRST * (size_t)f->psize); /* as O_DIRECT wants it */
    if (!p) return iso_fail_memory(err);
    iso_layout_heads(p, f->psize, f->end - 1, &f->main);
    iso_status status = write_pages(f, p, 0, ISO_LAYOUT_FIRST, err);
    free(p);
    return status;
}

/* What says that the database is one, by LMDB itself: its commit syncs all that was written before. */
static iso_status write_meta(filling *f, iso_error *err)
{
    iso_store store = *f->store;
    iso_txn t = {.store = &store,
                 .write = true,
                 .sums = f->sums[0],
                 .state = {.count = (uint64_t)f->what->count,
                           .next_id = (uint64_t)f->what->count + 1,
                           .generation = 1,
                           .updated = (uint64_t)time(NULL)}};
    iso_status status = ISO_OK;
    MDB_env *env = NULL;
    int rc = mdb_env_create(&env);
    if (!rc) rc = mdb_env_set_maxdbs(env, 8);
    if (!rc)
        rc = mdb_env_set_mapsize(
            env, (size_t)((f->end * f->psize + 2 * iso_sums_bytes(store.dim) + (4 << 20)) & ~UINT64_C(65535)));
    if (!rc) rc = mdb_env_open(env, f->temporary, MDB_NOSUBDIR | MDB_NOLOCK | MDB_NOTLS, 0666);
    if (!rc) rc = mdb_txn_begin(env, NULL, 0, &t.txn);
    if (!rc) rc = mdb_dbi_open(t.txn, "meta", 0, &store.meta);
    if (!rc) status = iso_head_write(&store, t.txn, err);
    if (!rc && !status) status = iso_state_write(&store, t.txn, &t.state, err);
    if (!rc && !status) status = iso_history_begin(&store, t.txn, err);
    if (!rc && !status) status = iso_sums_store(&t, err);
    if (!rc && !status) {
        rc = mdb_txn_commit(t.txn);
        t.txn = NULL;
    }
    if (t.txn) mdb_txn_abort(t.txn);
    if (env) mdb_env_close(env);
    return rc ? iso_lmdb_fail(err, rc, store.dir, "write") : status;
}

static iso_status is_empty(iso_store *s, iso_error *err)
{
    iso_txn *t;
    iso_status status = iso_txn_begin(s, false, &t, err);
    if (status) return status;
    if (t->state.count || t->state.next_id != 1)
        status = iso_fail(err, ISO_E_UNSUPPORTED, "%s holds items already", s->dir);
    iso_txn_abort(t);
    return status;
}

static iso_status fill_file(filling *f, iso_error *err)
{
    iso_status status = ISO_OK;
    struct stat st;
    f->fd = open(f->temporary, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (f->fd < 0) return iso_fail_errno(err, "cannot write %s", f->temporary);
    int flags = fcntl(f->fd, F_GETFL);
    if (flags >= 0 && fcntl(f->fd, F_SETFL, flags | O_DIRECT)) errno = 0; /* through the page cache, then */
    if (!fstat(f->store->data_fd, &st)) iso_file_like(f->fd, &st);
    plan_vectors(f);
    status = reserve(f, err);
    if (!status) status = fill_pages(f, err);
    if (!status && ftruncate(f->fd, (off_t)(f->end * f->psize))) status = iso_lmdb_fail(err, errno, f->store->dir, "write");
    iso_progress_pass(f->what->progress, "writing to the disk", "", 0);
    if (!status) status = write_heads(f, err);
    if (!status) status = write_meta(f, err);
    if (close(f->fd) && !status) status = iso_fail_errno(err, "cannot write %s", f->temporary);
    if (!status)
        status = iso_store_replace(f->store, f->temporary, f->data, err);
    else
        unlink(f->temporary);
    return status;
}

static iso_status fill_store(iso_store *s, iso_fill *what, iso_error *err)
{
    filling f = {.store = s, .what = what, .fd = -1, .row = -1, .twin = -1};
    MDB_stat stat;
    int rc = mdb_env_stat(s->env, &stat);
    if (rc) return iso_lmdb_fail(err, rc, s->dir, "read");
    f.psize = stat.ms_psize;
    if (!iso_layout_supported(f.psize))
        return iso_fail(err, ISO_E_UNSUPPORTED, "%s cannot be filled at once on this machine", s->dir);
    pthread_mutex_init(&f.mutex, NULL);
    pthread_cond_init(&f.returned, NULL);
    iso_status status = iso_store_beside(s, ISO_STORE_FILLING, &f.temporary, &f.data, err);
    if (!status) status = fill_file(&f, err);
    what->row = f.row;
    what->twin = f.twin;
    for (int i = 0; i < f.made; i++) iso_sums_free(f.sums[i]);
    pthread_cond_destroy(&f.returned);
    pthread_mutex_destroy(&f.mutex);
    free(f.temporary);
    free(f.data);
    return status;
}

/* A folder that was made for nothing goes again; a model in it, or what is not ours, keeps it. */
static void discard(const char *dir)
{
    static const char *const ours[] = {"data.mdb", "lock.mdb"};
    for (int i = 0; i < 2; i++) {
        char *path = iso_path_join(dir, ours[i]);
        if (path) unlink(path);
        free(path);
    }
    rmdir(dir);
}

iso_status iso_store_fill(const char *dir, const iso_store_spec *spec, iso_fill *what, iso_error *err)
{
    iso_store *s = NULL;
    iso_store_found before;
    bool ours = false;
    what->row = what->twin = -1;
    iso_status status = iso_store_look(dir, &before, err);
    if (!status) status = iso_store_open(dir, ISO_STORE_CREATE, spec, &s, err);
    if (status) return status;
    status = is_empty(s, err);
    if (!status && flock(s->dir_fd, LOCK_EX | LOCK_NB))
        status = iso_fail(err, ISO_E_UNSUPPORTED, "%s is in use by another program", dir);
    else if (!status) {
        ours = true;
        status = is_empty(s, err); /* now nobody else can change it */
        if (!status) status = fill_store(s, what, err);
    }
    if (status && ours && before != ISO_STORE_COMPLETE && status != ISO_E_UNSUPPORTED) discard(dir);
    iso_store_close(s);
    return status;
}
