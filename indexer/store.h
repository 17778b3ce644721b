/* store.h: the database: a directory NAME.db/ with LMDB, a copy of its model and the FAISS index. LMDB is the truth.
 *
 * Sub-databases: items (id -> record), vectors (id -> m floats), by-path (XXH3-128 of the path, then the id -> nothing),
 * by-hash (content hash, then the id -> nothing), meta. Ids are 64-bit, given out in order from 1, never reused. All
 * integers little-endian, in records with a version. Many readers and one writer at a time (LMDB's own locks, also
 * between processes); readers keep the snapshot that their transaction began with. One process opens a database once
 * at a time; after fork() the child must open its own.
 * A database belongs to one model: `digest`. Killed at any instant it opens again with every item whose commit returned.
 * A damaged file gives ISO_E_FORMAT: on opening, headers and length are always checked, and a file of up to
 * ISO_STORE_CHECK bytes page by page, so that LMDB, which trusts its file, never follows a wrong link.
 */
#ifndef ISO_STORE_H
#define ISO_STORE_H

#include <stdbool.h>
#include "base/error.h"
#include "base/progress.h"

#define ISO_STORE_CHECK (128u << 20) /* larger databases are checked whole by iso_store_verify only */
#define ISO_STORE_DIM_MAX 65536      /* floats in a vector */

/* What lies in the directory beside data.mdb, where it is there. */
#define ISO_STORE_MODEL "model.safetensors" /* the copy of its model */
#define ISO_STORE_INDEX "index.faiss"

/* For qsort and bsearch of ids. */
static inline int iso_ids_order(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

typedef struct iso_item {
    uint64_t id;
    const char *path;    /* relative to the store's root; valid until the transaction ends */
    int64_t size, mtime_ns;
    uint64_t hash[2];    /* XXH3 128 of the file's bytes; both 0: not known (imported) */
    int32_t width, height;
} iso_item;

typedef struct iso_store iso_store;

typedef struct iso_store_info {
    uint64_t count;        /* items */
    uint64_t next_id;
    uint64_t generation;   /* grows with every commit that adds or removes items (iso_item_touch alone leaves it) */
    int dim;
    char digest[33];       /* of the model, or of imported vectors: 32 hexadecimal digits */
    char model[256];       /* ISO_STORE_MODEL inside the directory, or "" for imported vectors */
    uint64_t created, updated; /* seconds since 1970 */
} iso_store_info;

typedef enum iso_store_mode { ISO_STORE_READ, ISO_STORE_WRITE, ISO_STORE_CREATE } iso_store_mode;

/* READ and WRITE want an existing database (ISO_E_NOT_FOUND otherwise, saying how to make one) and no spec; CREATE makes
 * one where none is, or none was completed, with the given dim, digest and root, and opens one that is there for writing when they agree
 * (ISO_E_MISMATCH otherwise). Readers must be able to write lock.mdb, which is made so that all can who may read data.mdb;
 * without it, without room for it on the disk, and without file locks only what nobody writes can be read: on a read-only file system, or a data.mdb
 * that nobody has permission to write (root is refused, too). ISO_E_IO otherwise.
 * spec: `root` absolute, or NULL: what the database says (it must be complete); `model` the model file to copy into the
 * directory, or NULL: imported vectors. */
typedef struct iso_store_spec { int dim; const char *digest, *root, *model; } iso_store_spec;
ISO_CHECK iso_status iso_store_open(const char *dir, iso_store_mode mode, const iso_store_spec *spec, iso_store **out, iso_error *err);
/* After fork() the child can open the database for itself: what the parent has open is refused there by iso_txn_begin, and stays open in the
 * parent when the child closes it; as long as it has not, it keeps iso_store_compact from it. */
void iso_store_close(iso_store *s);
const char *iso_store_dir(const iso_store *s); /* as it was given: for people */
/* Where a file of the database's folder lies, absolute: of the folder that is open, whatever it is called by now and whichever folder is current.
 * Fresh memory; NULL when memory is out. */
char *iso_store_file(const iso_store *s, const char *name);
/* ISO_E_MISMATCH where the folder or its data.mdb was moved, removed or replaced since it was opened: what is open can still be read, and
 * no transaction writes to it any more. */
ISO_CHECK iso_status iso_store_still_there(const iso_store *s, iso_error *err);
/* What is at `dir`. INCOMPLETE: its making was cut short and nothing was ever in it; CREATE makes it anew. COMPLETE: what claims to be a
 * database, though it may be damaged: opening it tells. */
typedef enum iso_store_found { ISO_STORE_NONE, ISO_STORE_INCOMPLETE, ISO_STORE_COMPLETE } iso_store_found;
ISO_CHECK iso_status iso_store_look(const char *dir, iso_store_found *out, iso_error *err);
/* Where an item's file is: root/path, or path when that is absolute. Fresh memory; NULL when memory is out. */
char *iso_store_path(const iso_store *s, const char *path);
/* Whether a path names one of the files that make up the database. */
bool iso_store_owns(const iso_store *s, const char *path);
/* The folder of images has moved: records where it is now (absolute). No transaction may be open. */
ISO_CHECK iso_status iso_store_relocate(iso_store *s, const char *root, iso_error *err);
/* The file map keeps at least this much room ahead (default 4 GiB of addresses, no memory; down to 16 MiB where there are
 * fewer, none for readers) and grows when a write transaction begins; one transaction may write as much. ISO_E_MEMORY where there are no
 * addresses for it: nothing has changed. Small in tests. No transaction may be open. */
ISO_CHECK iso_status iso_store_map_step(iso_store *s, uint64_t bytes, iso_error *err);
/* Rewrites the database without its free pages, and its sums (iso_store_moments) and its record of stamps where they are missing or wrong. Nobody
 * else may have it open: ISO_E_IO says so, or that the file system cannot tell, and nothing has changed. The old file stands until the new one is complete and
 * on disk; ISO_E_INTERRUPTED when iso_interrupted before. Sizes in bytes. */
ISO_CHECK iso_status iso_store_compact(const char *dir, iso_progress *progress, uint64_t *before, uint64_t *after, iso_error *err);

/* A new database of many items in one pass, about as fast as the disk takes it: items without files (no size, time, content),
 * ids 1 to count in the order of the rows. All or nothing: the items appear with the last write, and after a failure the
 * folder is as it was before.
 * `read` gives rows first ... first + n - 1, [n, dim]; several threads call it at once. Fails as iso_store_open and
 * iso_item_put do: ISO_E_NUMERIC for a vector, `row` (from 0) says whose, the lowest one; ISO_E_FORMAT for a path named
 * twice, by `row` and `twin`; ISO_E_INTERRUPTED when iso_interrupted. ISO_E_UNSUPPORTED, and nothing has changed: there are
 * items, somebody else has it open, or LMDB here is not 0.9; put them one by one then. */
typedef struct iso_fill {
    int64_t count;
    char *const *paths; /* [count], of 1 to 2^20 bytes */
    iso_status (*read)(void *ctx, int64_t first, int64_t n, float *out, iso_error *err);
    void *ctx;
    iso_progress *progress; /* NULL: none */
    int64_t row, twin;  /* out: -1 where no row is to blame */
} iso_fill;
ISO_CHECK iso_status iso_store_fill(const char *dir, const iso_store_spec *spec, iso_fill *what, iso_error *err);

/* A transaction. A read transaction is used by one thread at a time; a write transaction by the thread that began it, and
 * a thread has at most one. Close all before iso_store_close. A put, touch or remove that was refused (ISO_E_ARGUMENT, ISO_E_NUMERIC,
 * ISO_E_NOT_FOUND) has changed nothing, and the transaction goes on; after one that failed on writing it can only be aborted
 * (commit does that, and fails). Long-lived read transactions make the file grow. */
typedef struct iso_txn iso_txn;
ISO_CHECK iso_status iso_txn_begin(iso_store *s, bool write, iso_txn **out, iso_error *err);
ISO_CHECK iso_status iso_txn_commit(iso_txn *t, iso_error *err); /* frees t in every case */
void iso_txn_abort(iso_txn *t);

iso_store_info iso_store_info_get(const iso_txn *t);
/* The folder that paths are relative to, as of the transaction: another process may have moved it (iso_store_relocate) since the opening. Fresh memory. */
ISO_CHECK iso_status iso_store_root(const iso_txn *t, char **out, iso_error *err);
/* What tells a generation of this database from the same one of another, or of this one before a backup was put back: two with the same
 * stamp have the same items. 0: that of no state that this one has come from, or of one that a quarter of a million openings for writing lie behind; of
 * every one where the record of them is damaged, until the next change or iso_store_compact. */
ISO_CHECK iso_status iso_store_stamp(const iso_txn *t, uint64_t generation, uint64_t *stamp, iso_error *err);
ISO_CHECK iso_status iso_item_get(iso_txn *t, uint64_t id, iso_item *out, iso_error *err);              /* ISO_E_NOT_FOUND */
ISO_CHECK iso_status iso_item_by_path(iso_txn *t, const char *path, iso_item *out, iso_error *err);     /* ISO_E_NOT_FOUND */
/* The first item with that content, for recognising a moved or copied file. ISO_E_NOT_FOUND. */
ISO_CHECK iso_status iso_item_by_hash(iso_txn *t, const uint64_t hash[2], iso_item *out, iso_error *err);
/* The vector, dim floats, valid until the transaction ends. */
ISO_CHECK iso_status iso_item_vector(iso_txn *t, uint64_t id, const float **out, iso_error *err);

/* The sum of a vector's squares, in eight parts: the same on every processor, as products of two floats are exact in double. Finite where the vector
 * is, and above 0 where it is not zeros only. */
double iso_vector_squares(int dim, const float *v);
/* What a vector that can be neither kept nor compared holds, in words: a NaN, an infinity, or zeros only; NULL: it can. */
const char *iso_vector_fault(int dim, const float *v);

/* Adds (id is set) or, when the path is there already, replaces it under a new id. A vector that is not finite or has no
 * direction (zeros) is ISO_E_NUMERIC. `item` and `vector` must not point into this transaction. */
ISO_CHECK iso_status iso_item_put(iso_txn *t, iso_item *item, const float *vector, iso_error *err);
/* Changes size, mtime and dimensions only: the same content, touched. */
ISO_CHECK iso_status iso_item_touch(iso_txn *t, const iso_item *item, iso_error *err);
ISO_CHECK iso_status iso_item_remove(iso_txn *t, uint64_t id, iso_error *err);

/* In order of ids from `from` on: fills `out`, returns ISO_E_NOT_FOUND after the last, which is no error and not in err. Close it before its transaction
 * ends, and change nothing in a write transaction while one is open. */
typedef struct iso_cursor iso_cursor;
ISO_CHECK iso_status iso_cursor_open(iso_txn *t, uint64_t from, iso_cursor **out, iso_error *err);
ISO_CHECK iso_status iso_cursor_next(iso_cursor *c, iso_item *item, const float **vector, iso_error *err); /* either may be NULL */
void iso_cursor_close(iso_cursor *c);

/* Exact sufficient statistics of the unit vectors u = z/|z| of all items, from which the mean and covariance of the database
 * follow. The numbers of u are rounded to multiples of 2^-22; their sums and the sums of their products are kept as integers
 * beside the items and follow every put and remove in the same transaction: they are the same to the last bit whatever the
 * order, and after any number of additions and removals equal those of a database that never had the removed items.
 * Where they are missing, of another generation (a program without them has written) or damaged, they are computed when they
 * are asked for (reading, some microseconds an item) and stored by the next put or remove. In a write transaction they include
 * what it has changed. Up to ISO_MOMENTS_DIM_MAX numbers in a vector; above, ISO_E_UNSUPPORTED. ISO_E_FORMAT where they have to
 * be computed and a vector is damaged: such a database can still be changed. */
#define ISO_MOMENTS_DIM_MAX 4096
typedef struct iso_moments {
    int dim;
    uint64_t count;
    double *sum;     /* [dim] of u */
    double *product; /* [dim, dim] of u uT, symmetric */
} iso_moments;
ISO_CHECK iso_status iso_store_moments(iso_txn *t, iso_moments *out, iso_error *err); /* free with iso_moments_free */
void iso_moments_free(iso_moments *m); /* what it holds, not m itself; a zeroed one is fine */

/* Every record readable, every vector finite and of the right length, every index entry leading to its item and back, and
 * the stored sums those of the vectors to the last bit, and a stamp (iso_store_compact writes the last two anew): the number
 * of faults; each is told to `say`. */
ISO_CHECK iso_status iso_store_verify(iso_store *s, void (*say)(void *ctx, const char *line), void *ctx, iso_progress *progress, int64_t *faults, iso_error *err);

#endif
