/* isoface.h: the public C API of Isoface.
 *
 * Isoface finds, in a database of images, those that share what a handful of
 * example images share. No third-party type appears in this header.
 */
#ifndef ISOFACE_H
#define ISOFACE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ISO_VERSION "0.1.0"

/* Every fallible function returns one of these; outputs are set only on ISO_OK. */
typedef enum iso_status {
    ISO_OK = 0,
    ISO_E_ARGUMENT = -1,    /* the caller asked for something impossible */
    ISO_E_MEMORY = -2,      /* out of memory, or of open files */
    ISO_E_IO = -3,          /* the operating system refused: no such file, disk full, read-only, ... */
    ISO_E_FORMAT = -4,      /* a file is not what it claims to be, or is damaged */
    ISO_E_MISMATCH = -5,    /* two things that do not belong together: a model and another model's database */
    ISO_E_NOT_FOUND = -6,   /* no such item */
    ISO_E_NUMERIC = -7,     /* a NaN, an infinity, or a zero vector where a direction is needed */
    ISO_E_INTERRUPTED = -8, /* stopped on request; what was done is kept */
    ISO_E_UNSUPPORTED = -9, /* valid, but not in this build or backend */
    ISO_E_INTERNAL = -10    /* a bug in Isoface */
} iso_status;

/* Where a failing function says what went wrong, in one line fit for a user; after ISO_OK it holds ISO_OK and an empty
 * message. May be NULL everywhere it is accepted. */
typedef struct iso_error {
    iso_status status;
    char message[1024];
} iso_error;

/* "out of memory", ... never NULL. */
const char *iso_status_text(iso_status status);

/* ---- Searching a database ----
 *
 *     iso_db *db;
 *     iso_query *query;
 *     iso_answer *answer;
 *     iso_error err;
 *     if (iso_db_open("faces.db", &db, &err)) ...                      // err.message says why
 *     if (iso_query_create(db, &query, &err)) ...
 *     if (iso_query_add_path(query, ISO_LIKE, "examples/", &err)) ...  // a folder or a file
 *     if (iso_query_run(query, &(iso_query_options){.k = 10, .gamma = 0.5}, &answer, &err)) ...
 *     for (int64_t i = 0; i < iso_answer_count(answer); i++)
 *         puts(iso_answer_result(answer, i)->file);
 *     iso_answer_free(answer); iso_query_free(query); iso_db_close(db);
 *
 * The score of an item is its mean cosine to the examples minus gamma times its mean cosine to the counter-examples;
 * with .scorer = ISO_CONTRAST it is the item's distance from the average of the database, in standard deviations, towards
 * what the examples share. The whole set costs one search either way.
 *
 * Threads: a database may be used by any number of threads at a time, each with queries of its own; a query and an
 * answer belong to one thread at a time; iso_db_refresh and iso_db_close need the database to themselves. A thread that calls
 * needs 256 KiB of stack. Where the system refuses OpenMP a thread (pids.max, ulimit -u), OpenMP ends the process: OMP_THREAD_LIMIT in its
 * environment keeps it to as many as there may be.
 * A process opens a database once (ISO_E_ARGUMENT the second time). After fork() the child opens it for itself: with what the parent had open
 * it can ask nothing (ISO_E_ARGUMENT), only free it. From the first opening on, fork() ends the threads that OpenMP keeps for the thread that
 * calls it; its next parallel region starts them again. A child that is forked within a parallel region must not leave that.
 * A thread must not be cancelled within a call: iso_interrupt ends those that take long.
 * Files are mapped into memory: a disk that cannot give a page of the database, or somebody who cuts its files off, is a SIGBUS for the process.
 * Strings handed out belong to the object they came from and live as long as it does. Free functions take NULL; other handles, and where results go,
 * must not be NULL. */

typedef struct iso_db iso_db;
typedef struct iso_query iso_query;
typedef struct iso_answer iso_answer;

/* Opens the database (a folder NAME.db) for reading. A missing, outdated or damaged search index is rebuilt, in the
 * database where it can be written and else in memory: iso_db_note tells. That takes seconds from 100,000 items on and can take
 * minutes; nothing is printed. One process builds at a time, where the file system has locks, and the others wait for its
 * index: `indexer reindex` beforehand spares them that. ISO_E_NOT_FOUND: there is no database;
 * ISO_E_FORMAT: it is damaged. The model is loaded when the first image must be encoded, not before; the folder may have
 * another name by then, and `dir`, where it is relative, need not lead to it any more. */
iso_status iso_db_open(const char *dir, iso_db **out, iso_error *err);
void iso_db_close(iso_db *db);
/* Takes in what other processes have added and removed since, the folder of images where that has moved, and an index that they have built, where the
 * one in use lacks more than a little; a failure leaves db as it was. ISO_E_MISMATCH: the database was moved, removed or replaced, or
 * put back to an earlier state: db answers from what it had all the same (where its data.mdb was written over in place its queries may fail so, too, and on an overlay,
 * where the first change copies the database, they do), and what is there now has to be opened. Without
 * it items that were added are not found; those that were removed vanish from answers at once, so that fewer may come back
 * than iso_db_count says. */
iso_status iso_db_refresh(iso_db *db, iso_error *err);

uint64_t iso_db_count(const iso_db *db);      /* items, when it was opened or refreshed */
int iso_db_dim(const iso_db *db);             /* numbers in a vector */
const char *iso_db_digest(const iso_db *db);  /* 32 hexadecimal digits that identify the model */
const char *iso_db_root(const iso_db *db);    /* the folder that stored paths are relative to, when it was opened or refreshed */
const char *iso_db_note(const iso_db *db);    /* one line fit for a user about the index, NULL when all was well */

/* While it is on (not 0), what takes long ends soon with ISO_E_INTERRUPTED, in all threads: iso_db_open where it builds an index or waits for
 * another process that does, iso_query_add_path where it lists a folder, iso_query_read and iso_query_run where they read images. With
 * 0 they work again, and a query that was stopped goes on from the images that it had read. May be called by any thread and from a signal handler. */
void iso_interrupt(int on);

typedef enum iso_sign {
    ISO_LIKE = 0,   /* an example of what to find */
    ISO_UNLIKE = 1  /* an example of what to avoid */
} iso_sign;

/* An empty query. The database must outlive it. ISO_E_ARGUMENT: no database. */
iso_status iso_query_create(iso_db *db, iso_query **out, iso_error *err);
void iso_query_free(iso_query *query);

/* Examples. Images are read and encoded by iso_query_read or iso_query_run, not yet here. A path is an image file or a
 * folder of images (read recursively, but for names that begin with a dot), JPEG or PNG of up to 104 megapixels; a relative one means what it means now, whichever folder is current later. An id
 * must be the database's (ISO_E_NOT_FOUND). A vector has iso_db_dim numbers (ISO_E_ARGUMENT) and is copied. What is added
 * several times counts as often; after a failure nothing was added. */
iso_status iso_query_add_path(iso_query *query, iso_sign sign, const char *path, iso_error *err);
iso_status iso_query_add_id(iso_query *query, iso_sign sign, uint64_t id, iso_error *err);
iso_status iso_query_add_vector(iso_query *query, iso_sign sign, const float *vector, int dim, iso_error *err);

/* Reads and encodes the images added so far, on all threads. An image that the database holds with the same content is
 * not encoded again, whatever its name. A file that cannot be used is no error: it becomes a skipped one.
 * ISO_E_MISMATCH: the database's copy of its model is not the one that made its vectors; ISO_E_UNSUPPORTED: the database
 * has no model (imported vectors); ISO_E_NUMERIC: the model gives no finite vector. */
iso_status iso_query_read(iso_query *query, iso_error *err);

int64_t iso_query_count(const iso_query *query, iso_sign sign);                       /* usable examples */
const char *iso_query_file(const iso_query *query, iso_sign sign, int64_t i);         /* its image, as the path was given; NULL for a bare vector and beyond the last */
int64_t iso_query_skipped(const iso_query *query);
void iso_query_skip(const iso_query *query, int64_t i, const char **path, const char **reason); /* NULL both beyond the last */

/* How examples become one search.
 * ISO_SUM compares images as wholes. Score: the mean cosine to the examples, minus gamma times that to the counter-examples.
 * ISO_CONTRAST looks for what the examples share against the background of the whole database (a linear discriminant with one
 * class given). Score: by how many standard deviations of the database's items an item lies from their mean in that direction;
 * what the counter-examples share counts gamma times against it. One example or thousands: the fewer they are, the less is made
 * of directions in which the database hardly varies. The first such query reads the mean and covariance of the database, which
 * takes longer than the query; they are kept until iso_db_refresh finds changes. Vectors of up to 4096 numbers.
 * ISO_AUTO is ISO_CONTRAST from ISO_AUTO_EXAMPLES examples on, where that is possible, and else ISO_SUM: iso_answer_scorer
 * says which it was. With fewer examples neither was better than the other on faces, and with sum an example finds itself. */
typedef enum iso_scoring { ISO_SUM = 0, ISO_CONTRAST = 1, ISO_AUTO = 2 } iso_scoring;
#define ISO_AUTO_EXAMPLES 20
#define ISO_GAMMA_MAX 1e6

typedef struct iso_query_options {
    int64_t k;           /* how many results, at least 1 */
    iso_scoring scorer;  /* 0: ISO_SUM */
    double gamma;        /* weight of what to avoid, up to ISO_GAMMA_MAX; 0.5 is a good start; 0: ISO_UNLIKE examples count for nothing */
    int exclude_query;   /* not 0: leave out the examples themselves, and items with the same content */
} iso_query_options;

typedef struct iso_result {
    uint64_t id;
    double score;        /* of ISO_SUM at most 1, but for rounding, where there are no counter-examples; of ISO_CONTRAST without bounds, 0 on average */
    const char *path;    /* as stored: relative to iso_db_root */
    const char *file;    /* where the image lies */
} iso_result;

/* The k best, best first, ties by id; fewer when the database has fewer. ISO_E_ARGUMENT: no ISO_LIKE example, no options, k < 1, no such
 * scorer, or a gamma that is not from 0 to ISO_GAMMA_MAX;
 * ISO_E_NOT_FOUND: every ISO_LIKE example was skipped;
 * ISO_E_NUMERIC: an example without a direction (named), examples that cancel one another out, or, with ISO_CONTRAST, that are
 * as the whole database; ISO_E_UNSUPPORTED: ISO_CONTRAST with vectors of more than 4096 numbers. */
iso_status iso_query_run(iso_query *query, const iso_query_options *options, iso_answer **out, iso_error *err);

int64_t iso_answer_count(const iso_answer *answer);
const iso_result *iso_answer_result(const iso_answer *answer, int64_t i); /* from 0 on; NULL beyond the last */
iso_scoring iso_answer_scorer(const iso_answer *answer); /* what it was found by: ISO_SUM or ISO_CONTRAST */
int iso_answer_exact(const iso_answer *answer);  /* 1: no better item was missed; 0: an approximate index was used */
void iso_answer_free(iso_answer *answer);

#ifdef __cplusplus
}
#endif
#endif
