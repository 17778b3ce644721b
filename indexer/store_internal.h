/* store_internal.h: what the store's own files share. Nothing else includes it. */
#ifndef ISO_STORE_INTERNAL_H
#define ISO_STORE_INTERNAL_H

#include <endian.h>
#include <lmdb.h>
#include <pthread.h>
#include <string.h>
#include <sys/types.h>

#include "base/bytes.h"
#include "indexer/store.h"
#include "indexer/store_places.h"

#define ISO_STORE_VERSION 1u
#define ISO_STORE_KEY 24        /* by-path and by-hash keys: 16 bytes of hash, 8 of id, big-endian */
#define ISO_STORE_PATH_MAX (1u << 20)
#define ISO_STORE_STEP_MIN (UINT64_C(16) << 20) /* of room ahead, where addresses are rationed */

typedef struct iso_sums iso_sums; /* store_moments.c's */

typedef struct iso_state { uint64_t count, next_id, generation, updated; } iso_state;

struct iso_store {
    MDB_env *env;
    MDB_dbi main /* the tables' names */, items, vectors, by_path, by_hash, meta;
    char *dir;              /* as given */
    int dir_fd, data_fd;
    char *data;             /* the path of data.mdb, absolute */
    dev_t dev;
    ino_t ino;              /* of data.mdb, to notice that it was replaced */
    bool writable, unlocked; /* unlocked: read without lock.mdb, as nobody writes */
    bool stamped;           /* this opening has marked a change in the history */
    bool broken;            /* the map is lost: every transaction fails */
    int dim;
    char digest[33], model[256];
    char *root;
    uint64_t created;
    uint64_t map_step;
    bool sums_hopeless;     /* a vector is damaged: the writer keeps no sums */
    pthread_mutex_t mutex;  /* guards active, broken and the map's size */
    int active;             /* transactions of this process */
    pid_t pid;              /* that has opened it: a child cannot use it */
    struct iso_store *next; /* all stores that this process has open, and those that its parent had when it forked */
};

struct iso_txn {
    iso_store *store;
    MDB_txn *txn;
    bool write, failed;
    bool dirty, changed;    /* something to commit; items added or removed */
    iso_state state;
    iso_sums *sums;         /* from the first put or remove on */
    bool sums_lost;         /* or none in this transaction: a vector is damaged */
    const iso_places *places; /* NULL: every look-up is LMDB's */
    const uint8_t *map;     /* of data.mdb, with places */
};

/* Makes lock.mdb, where there is none, with permission to write for all who may read data.mdb: LMDB's readers write there. They do so in a map, where
 * a full disk would end the process: all of it gets its room before. 0, or why it has none: ENOSPC or EDQUOT. */
int iso_lock_make(const iso_store *s);

/* Nobody else has the store open from here on: ISO_E_IO where somebody has, or where the file system cannot tell. */
ISO_CHECK iso_status iso_store_alone(const iso_store *s, iso_error *err);

/* Among the stores that this process has open: ISO_E_ARGUMENT where it has that folder open already. */
ISO_CHECK iso_status iso_store_enlist(iso_store *s, iso_error *err);
void iso_store_delist(iso_store *s); /* nothing where it is not among them */

/* A message for an LMDB code (or an errno), with what to do about it. */
iso_status iso_lmdb_fail(iso_error *err, int code, const char *dir, const char *doing);

/* A transaction of LMDB's alone, counted among the store's: end it when it is committed or aborted. Waits for a place among the readers, and
 * follows a file that has grown. */
int iso_lmdb_begin(iso_store *s, bool write, MDB_txn **txn);
void iso_lmdb_end(iso_store *s);

/* Records of `meta`: head never changes (but for root), state with every commit, history with the first change by an opening. */
iso_status iso_head_write(iso_store *s, MDB_txn *txn, iso_error *err);
iso_status iso_head_read(iso_store *s, MDB_txn *txn, iso_error *err); /* fills s; ISO_E_NOT_FOUND: there is none */
iso_status iso_head_root(const iso_store *s, MDB_txn *txn, char **out, iso_error *err); /* what it says now; fresh memory */
iso_status iso_state_write(iso_store *s, MDB_txn *txn, const iso_state *state, iso_error *err);
iso_status iso_state_read(iso_store *s, MDB_txn *txn, iso_state *state, iso_error *err);

iso_status iso_history_begin(const iso_store *s, MDB_txn *txn, iso_error *err);
iso_status iso_history_add(const iso_txn *t, iso_error *err); /* for the generation that is being committed */
iso_status iso_history_mend(iso_txn *t, iso_error *err);      /* begins one anew that is wrong */

/* Records and keys. */
iso_status iso_item_decode(const iso_store *s, uint64_t id, const MDB_val *v, iso_item *out, iso_error *err);
void iso_path_hash(const char *path, uint8_t out[16]);
void iso_content_hash(const uint64_t hash[2], uint8_t out[16]);
void iso_index_key(uint8_t key[ISO_STORE_KEY], const uint8_t hash[16], uint64_t id);
uint64_t iso_index_id(const uint8_t key[ISO_STORE_KEY]);

/* An item's record; its path is not empty. */
size_t iso_record_bytes(const iso_item *item);
void iso_record_encode(uint8_t *p, const iso_item *item);

/* A file to be written beside data.mdb, and data.mdb itself: where it is a link, there where that leads to. Fresh memory, both NULL on failure. name:
 * that of the file in the store's own folder, which the next opening for writing sweeps. */
#define ISO_STORE_FILLING ".isoface-import.tmp"
#define ISO_STORE_COMPACTING ".isoface-compact.tmp"
ISO_CHECK iso_status iso_store_beside(const iso_store *s, const char *name, char **temporary, char **data, iso_error *err);

/* Closes the store's environment and puts the file `temporary`, whole and synced, in the place of its file `data`. Nobody else
 * may have the store open. The store can only be closed then. */
iso_status iso_store_replace(iso_store *s, const char *temporary, const char *data, iso_error *err);

/* Sums apart from a transaction, to be merged: one thread at a time each. account: how many of n
 * vectors were added; the next, if any, is not finite or has no direction. */
iso_sums *iso_sums_new(int dim); /* NULL: no memory */
int64_t iso_sums_account(iso_sums *s, const float *vectors, int64_t n);
void iso_sums_merge(iso_sums *into, iso_sums *from);
bool iso_sums_equal(iso_sums *a, iso_sums *b);
void iso_sums_free(iso_sums *s);

/* The sums behind iso_store_moments, kept by a write transaction: begin before the first change (again does no harm);
 * then each vector is told before the tables change, the one to be removed while it is still there; store just before
 * the commit, with the state that is committed; end always. */
iso_status iso_sums_begin(iso_txn *t, iso_error *err);
void iso_sums_add(iso_txn *t, const float *vector);
iso_status iso_sums_subtract(iso_txn *t, uint64_t id, iso_error *err);
iso_status iso_sums_store(iso_txn *t, iso_error *err);
void iso_sums_end(iso_txn *t);
uint64_t iso_sums_bytes(int dim); /* of their record; 0 where none are kept */
/* Computes them from the vectors. `mend` writes them where they are missing or wrong. `check` names what is wrong with
 * those that are stored, or NULL: none, or older ones that the next write replaces, are right too. */
iso_status iso_sums_mend(iso_txn *t, iso_progress *progress, iso_error *err);
iso_status iso_sums_check(iso_txn *t, iso_progress *progress, const char **fault, iso_error *err);

/* data.mdb page by page, so that nothing in it can mislead: the snapshot of a read transaction; where a writer was faster than
 * the look at the file's head, ISO_E_INTERRUPTED. Pages are read with pread, or `in_map`, for a transaction that has a lock, in LMDB's map.
 * Faults are told to `say`; the first ends the walk of its tree. */
typedef void iso_say(void *ctx, const char *line);
iso_status iso_pages_head(int fd, const char *dir, iso_error *err); /* both header pages alone */
/* Whether LMDB has begun the file (of which a power cut may have left zeros) and nothing was ever committed to it; whole: LMDB has written both header
 * pages, and goes on with them. */
iso_status iso_pages_begun(int fd, const char *dir, bool *begun, bool *whole, iso_error *err);
iso_status iso_pages_check(int fd, const char *dir, MDB_txn *txn, bool in_map, iso_say *say, void *ctx, iso_progress *progress, int64_t *faults, iso_error *err);
/* Wishes that LMDB's map, where `data` of a leaf lies, be read from the disk ahead and in large pages: for who reads all of it. */
void iso_pages_whole(MDB_env *env, const void *data);
/* Whether the file ends before the last page that the snapshot counts: cut off, or only free pages are missing. */
iso_status iso_pages_short(int fd, const char *dir, uint64_t txnid, bool *is_short, iso_error *err);

#endif
