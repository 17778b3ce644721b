/* benchsearch: searches timed beside reading their vectors once, in one process and by turns. */
#include <dirent.h>
#include <inttypes.h>
#include <math.h>
#include <omp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/args.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/progress.h"
#include "indexer/npy.h"
#include "model/philox.h"
#include "programs/benchsearch.h"
#include "retriever/search.h"

typedef struct config {
    const char *db, *queries, *answers, *save, *output, *kind;
    int64_t sets, examples, k, rounds, threads, seed, count, first, dim, centres, ask;
    bool read, batch;
} config;

#define AT(field) offsetof(config, field)
#define SEED_MAX 9007199254740992.0
static const iso_option make_options[] = {
    {"output", 0, ISO_ARG_TEXT, AT(output), "DIR",
     "a folder that is there: vectors.npy, paths.txt and queries.npy go into it", 0, 0},
    {"kind", 0, ISO_ARG_CHOICE, AT(kind), "clustered|uniform", "how they are distributed (default: clustered)", 0, 0},
    {"count", 0, ISO_ARG_INT, AT(count), "N", "vectors (default: 200000)", 1, 1e9},
    {"first", 0, ISO_ARG_INT, AT(first), "I",
     "the number of the first: a large set can be made piece by piece (default: 0)", 0, 1e9},
    {"dim", 0, ISO_ARG_INT, AT(dim), "M", "numbers in a vector (default: 128)", 1, 65536},
    {"centres", 0, ISO_ARG_INT, AT(centres), "K", "clusters (default: 1000)", 1, 1e6},
    {"queries", 0, ISO_ARG_INT, AT(ask), "Q",
     "further vectors of the same distribution, for queries.npy (default: 1000; 0: none)", 0, 1e6},
    {"seed", 0, ISO_ARG_INT, AT(seed), "S", "another seed, other vectors (default: 0)", 0, SEED_MAX},
    {"threads", 0, ISO_ARG_INT, AT(threads), "N", "threads (default: all)", 1, 1024},
    {NULL, 0, ISO_ARG_FLAG, 0, NULL, NULL, 0, 0},
};
static const iso_option search_options[] = {
    {"db", 0, ISO_ARG_TEXT, AT(db), "DB", "the database; its index must be current (default: $ISOFACE_DB)", 0, 0},
    {"queries", 0, ISO_ARG_TEXT, AT(queries), "Q.npy", "queries of one example each, float32 [Q, m]", 0, 0},
    {"sets", 0, ISO_ARG_INT, AT(sets), "Q", "without --queries: sets of random items of the database (default: 5)", 1,
     1e6},
    {"examples", 0, ISO_ARG_INT, AT(examples), "N", "items in such a set (default: 10)", 1, 1e4},
    {"k", 'k', ISO_ARG_INT, AT(k), "K", "answers to a query (default: 10)", 1, 1e6},
    {"rounds", 0, ISO_ARG_INT, AT(rounds), "N",
     "times that each query is asked, after one that is not timed (default: 3)", 1, 10000},
    {"read", 0, ISO_ARG_FLAG, AT(read), NULL, "after each query read as many bytes as the index has vectors", 0, 0},
    {"batch", 0, ISO_ARG_FLAG, AT(batch), NULL, "also all queries at once, each on one thread", 0, 0},
    {"answers", 0, ISO_ARG_TEXT, AT(answers), "A.tsv",
     "write query (from 0), rank (from 1), id and score of each answer", 0, 0},
    {"save", 0, ISO_ARG_TEXT, AT(save), "W.npy", "write the query vectors, length 1, [Q, m]", 0, 0},
    {"seed", 0, ISO_ARG_INT, AT(seed), "S", "of the random sets (default: 0)", 0, SEED_MAX},
    {"threads", 0, ISO_ARG_INT, AT(threads), "N", "threads (default: all)", 1, 1024},
    {NULL, 0, ISO_ARG_FLAG, 0, NULL, NULL, 0, 0},
};
static const iso_option open_options[] = {
    {"db", 0, ISO_ARG_TEXT, AT(db), "DB", "the database; its index must be current (default: $ISOFACE_DB)", 0, 0},
    {"examples", 0, ISO_ARG_INT, AT(examples), "N", "items in the query (default: 10)", 1, 1e4},
    {"k", 'k', ISO_ARG_INT, AT(k), "K", "answers to it (default: 10)", 1, 1e6},
    {"rounds", 0, ISO_ARG_INT, AT(rounds), "N", "times, after one that is not timed (default: 3)", 1, 10000},
    {"seed", 0, ISO_ARG_INT, AT(seed), "S", "of the query (default: 0)", 0, SEED_MAX},
    {"threads", 0, ISO_ARG_INT, AT(threads), "N", "threads (default: all)", 1, 1024},
    {NULL, 0, ISO_ARG_FLAG, 0, NULL, NULL, 0, 0},
};

static const iso_command make_command = {
    "benchsearch make",
    "benchsearch make --output DIR [options]",
    "Makes vectors by seed for `indexer import`. Clustered: centres whose numbers vary less and less, clusters of different sizes and\n"
    "spreads around them, each extended in directions of its own; queries are further draws of the same, not stored ones.",
    make_options,
    NULL,
};
static const iso_command search_command = {
    "benchsearch search",
    "benchsearch search --db DB [--queries Q.npy] [--read] [options]",
    "Asks one query after another and prints one line of JSON: the median in seconds, the mean (the median of the rounds' means), whether\n"
    "all answers were proved exact, the bytes of the vectors as the index keeps them, and the largest resident set, taken before --read takes its own memory.",
    search_options,
    "--read takes turns with the queries: the fastest of several ways to read memory by all threads counts (its median).",
};
static const iso_command open_command = {
    "benchsearch open",
    "benchsearch open --db DB [options]",
    "Opens the database, asks a query and closes it, by turns with reading the index file into fresh memory by all threads and then that\n"
    "memory once. Prints one line of JSON: medians in seconds.",
    open_options,
    NULL,
};

/* ---- numbers ---- */

static int compare_doubles(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* Sorts x. */
static double median(double *x, int64_t n)
{
    qsort(x, (size_t)n, sizeof *x, compare_doubles);
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

static double mean(const double *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i];
    return sum / (double)n;
}

/* The least of the medians of the ways to read: seconds [BENCHSEARCH_WAYS, n]. */
static double fastest_way(double *seconds, int64_t n)
{
    double best = INFINITY;
    for (int how = 0; how < BENCHSEARCH_WAYS; how++) best = fmin(best, median(seconds + how * n, n));
    return best;
}

/* The largest resident set of this program so far, in bytes (getrusage's may be that of the shell before it). */
static double peak(void)
{
    char line[256];
    double kilobytes = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, "VmHWM:", 6) == 0) kilobytes = strtod(line + 6, NULL);
    if (f) fclose(f);
    return 1024 * kilobytes;
}

/* ---- queries ---- */

typedef struct queries {
    int64_t count, examples;
    int dim;
    float *vector; /* [count, examples, dim] */
} queries;

/* Sets of items, chosen by seed. */
static iso_status choose_sets(iso_store *store, int64_t seed, queries *q, iso_error *err)
{
    iso_txn *txn = NULL;
    iso_status status = iso_txn_begin(store, false, &txn, err);
    if (status != ISO_OK) return status;
    const iso_store_info info = iso_store_info_get(txn);
    if (info.count == 0)
        status = iso_fail(err, ISO_E_ARGUMENT, "%s has no items", iso_store_dir(store));
    q->dim = info.dim;
    if (status == ISO_OK && !(q->vector = iso_calloc((size_t)(q->count * q->examples), sizeof(float) * (size_t)q->dim)))
        status = iso_fail_memory(err);
    for (int64_t i = 0, tried = 0; status == ISO_OK && i < q->count * q->examples; tried++) {
        const float *z;
        uint64_t id = 1 + iso_draw_below((iso_draw){(uint64_t)seed, 1, 0}, (uint64_t)tried, info.next_id - 1);
        status = iso_item_vector(txn, id, &z, err);
        if (status == ISO_OK) memcpy(q->vector + i++ * q->dim, z, sizeof *z * (size_t)q->dim);
        if (status == ISO_E_NOT_FOUND) status = ISO_OK; /* removed: the next one */
    }
    iso_txn_abort(txn);
    return status;
}

static iso_status read_queries(const char *path, int dim, queries *q, iso_error *err)
{
    iso_npy *f = NULL;
    iso_status status = iso_npy_open(path, &f, err);
    if (status != ISO_OK) return status;
    *q = (queries){.count = iso_npy_rows(f), .examples = 1, .dim = dim};
    if (iso_npy_cols(f) != dim)
        status = iso_fail(err, ISO_E_MISMATCH, "%s has vectors of %" PRId64 " numbers, the database of %d", path,
                          iso_npy_cols(f), dim);
    else if (q->count < 1)
        status = iso_fail(err, ISO_E_ARGUMENT, "%s has no queries", path);
    else if (!(q->vector = iso_calloc((size_t)q->count, sizeof(float) * (size_t)dim)))
        status = iso_fail_memory(err);
    if (status == ISO_OK) status = iso_npy_read(f, 0, q->count, q->vector, err);
    iso_npy_close(f);
    return status;
}

typedef struct answer {
    int64_t found;
    bool exact;
    iso_hit *hit; /* [k] */
} answer;

/* From example vectors to answers. w: [dim], the query vector. */
static iso_status ask(iso_searcher *s, const queries *q, int64_t i, int64_t k, double *w, answer *a, iso_error *err)
{
    double offset;
    iso_status status =
        iso_searcher_query(s, ISO_SUM, q->examples, q->vector + i * q->examples * q->dim, 0, NULL, 0, w, &offset, err);
    return status == ISO_OK ? iso_search(s, w, offset, k, 0, NULL, a->hit, &a->found, &a->exact, err) : status;
}

/* ---- search ---- */

typedef struct run {
    const config *c;
    iso_store *store;
    iso_searcher *searcher;
    iso_vindex_info index;
    queries q;
    answer *answers;         /* [q.count] */
    iso_hit *hits;           /* [q.count, k] */
    double *w;               /* [q.count, dim] */
    int64_t rounds;          /* --rounds; with --read so many for each way of reading */
    double *seconds;         /* [rounds, q.count] */
    double *reads;           /* [BENCHSEARCH_WAYS, rounds / BENCHSEARCH_WAYS * q.count] */
    double *means, *batches; /* [rounds] */
} run;

static iso_status open_database(const char *db, iso_store **store, iso_searcher **searcher, iso_error *err)
{
    iso_status status = iso_store_open(db, ISO_STORE_READ, NULL, store, err);
    if (status == ISO_OK) status = iso_searcher_open(*store, searcher, err);
    if (status == ISO_OK && iso_searcher_note(*searcher))
        status =
            iso_fail(err, ISO_E_MISMATCH, "this would time the building of an index, which is done now: try again (%s)",
                     iso_searcher_note(*searcher));
    return status;
}

static iso_status prepare(run *r, iso_error *err)
{
    const config *c = r->c;
    iso_txn *txn = NULL;
    iso_store_info info;
    iso_status status = open_database(c->db, &r->store, &r->searcher, err);
    if (status == ISO_OK) status = iso_index_info_get(r->store, &r->index, NULL, err);
    if (status == ISO_OK) status = iso_txn_begin(r->store, false, &txn, err);
    if (status == ISO_OK) info = iso_store_info_get(txn);
    if (txn) iso_txn_abort(txn);
    if (status != ISO_OK) return status;
    r->q = (queries){.count = c->sets, .examples = c->examples};
    status = c->queries ? read_queries(c->queries, info.dim, &r->q, err) : choose_sets(r->store, c->seed, &r->q, err);
    if (status != ISO_OK) return status;
    r->rounds = c->rounds * (c->read ? BENCHSEARCH_WAYS : 1);
    size_t n = (size_t)r->q.count, rounds = (size_t)r->rounds;
    r->answers = iso_calloc(n, sizeof *r->answers);
    r->hits = iso_calloc(n * (size_t)c->k, sizeof *r->hits);
    r->w = iso_calloc(n * (size_t)r->q.dim, sizeof *r->w);
    r->seconds = iso_calloc(n * rounds, sizeof *r->seconds);
    r->reads = iso_calloc(n * rounds, sizeof *r->reads);
    r->means = iso_calloc(rounds, sizeof *r->means);
    r->batches = iso_calloc(rounds, sizeof *r->batches);
    if (!r->answers || !r->hits || !r->w || !r->seconds || !r->reads || !r->means || !r->batches)
        return iso_fail_memory(err);
    for (size_t i = 0; i < n; i++) r->answers[i].hit = r->hits + i * (size_t)c->k;
    return ISO_OK;
}

static iso_status ask_one(run *r, int64_t i, iso_error *err)
{
    return ask(r->searcher, &r->q, i, r->c->k, r->w + i * r->q.dim, &r->answers[i], err);
}

/* All queries at once. */
static iso_status ask_all(run *r, iso_error *err)
{
    iso_status worst = ISO_OK;
#pragma omp parallel for schedule(dynamic)
    for (int64_t i = 0; i < r->q.count; i++) {
        iso_error why = {0};
        iso_status status = ask_one(r, i, &why);
        if (status != ISO_OK)
#pragma omp critical
        {
            worst = status;
            if (err) *err = why;
        }
    }
    return worst;
}

static iso_status write_answers(const run *r, iso_error *err)
{
    iso_file *f = NULL;
    if (!r->c->answers) return ISO_OK;
    iso_status status = iso_file_create(r->c->answers, &f, err);
    if (status != ISO_OK) return status;
    for (int64_t i = 0; i < r->q.count; i++)
        for (int64_t a = 0; a < r->answers[i].found; a++)
            fprintf(iso_file_stream(f), "%" PRId64 "\t%" PRId64 "\t%" PRIu64 "\t%.9g\n", i, a + 1,
                    r->answers[i].hit[a].id, r->answers[i].hit[a].score);
    return iso_file_commit(f, err);
}

static iso_status write_vectors(const run *r, iso_error *err)
{
    iso_npy_writer *f = NULL;
    const int dim = r->q.dim;
    if (!r->c->save) return ISO_OK;
    float *row = iso_calloc((size_t)dim, sizeof *row);
    iso_status status = row ? iso_npy_create(r->c->save, r->q.count, dim, &f, err) : iso_fail_memory(err);
    for (int64_t i = 0; status == ISO_OK && i < r->q.count; i++) {
        double square = 0;
        for (int j = 0; j < dim; j++) square += r->w[i * dim + j] * r->w[i * dim + j];
        for (int j = 0; j < dim; j++) row[j] = (float)(r->w[i * dim + j] / sqrt(square));
        status = iso_npy_write(f, row, 1, err);
    }
    free(row);
    if (status == ISO_OK) return iso_npy_commit(f, err);
    iso_npy_abort(f);
    return status;
}

static int bytes_of(const char *kind) { return strcmp(kind, "fp16") == 0 ? 2 : strcmp(kind, "sq8") == 0 ? 1 : 4; }

static iso_status measure(run *r, iso_error *err)
{
    const int64_t n = r->q.count, rounds = r->rounds, each = rounds / BENCHSEARCH_WAYS * n;
    const size_t bytes = (size_t)r->index.count * (size_t)r->q.dim * (size_t)bytes_of(r->index.kind);
    bool exact = true;
    void *memory = NULL;
    iso_status status = ISO_OK;
    for (int64_t i = 0; status == ISO_OK && i < n; i++) {
        status = ask_one(r, i, err);
        exact = exact && r->answers[i].exact;
    }
    const double most = peak();
    if (status == ISO_OK && r->c->read) {
        if (!(memory = iso_huge_alloc(bytes))) return iso_fail_memory(err);
        memset(memory, 1, bytes);
    }
    for (int64_t t = 0; status == ISO_OK && t < rounds; t++) {
        for (int64_t i = 0; status == ISO_OK && i < n; i++) {
            double start = iso_now();
            status = ask_one(r, i, err);
            r->seconds[t * n + i] = iso_now() - start;
            /* one read after each search: of two in a row the second would find some of its bytes in the cache */
            const int64_t how = t % BENCHSEARCH_WAYS;
            if (memory) r->reads[how * each + t / BENCHSEARCH_WAYS * n + i] = benchsearch_read(memory, bytes, (int)how);
        }
        if (status != ISO_OK || !r->c->batch) continue;
        double start = iso_now();
        status = ask_all(r, err);
        r->batches[t] = (iso_now() - start) / (double)n;
    }
    iso_huge_free(memory, bytes);
    if (status == ISO_OK) status = write_answers(r, err);
    if (status == ISO_OK) status = write_vectors(r, err);
    if (status != ISO_OK) return status;
    for (int64_t t = 0; t < rounds; t++) r->means[t] = mean(r->seconds + t * n, n);
    double average = median(r->means, rounds), middle = median(r->seconds, rounds * n);
    printf("{\"index\":\"%s\",\"items\":%" PRId64 ",\"dim\":%d,\"queries\":%" PRId64
           ",\"threads\":%d,\"exact\":%d,\"recall\":%.4f,\"width\":%d,"
           "\"seconds\":%.6g,\"mean_seconds\":%.6g,\"vector_bytes\":%zu,\"peak_rss\":%.0f",
           r->index.kind, r->index.count, r->q.dim, n, omp_get_max_threads(), exact, r->index.recall, r->index.width,
           middle, average, bytes, most);
    if (r->c->read) printf(",\"read_seconds\":%.6g", fastest_way(r->reads, each));
    if (r->c->batch) printf(",\"batch_seconds\":%.6g", median(r->batches, rounds));
    puts("}");
    return ISO_OK;
}

static iso_status search(const config *c, iso_error *err)
{
    run r = {.c = c};
    iso_status status = prepare(&r, err);
    if (status == ISO_OK) status = measure(&r, err);
    free(r.q.vector);
    free(r.answers);
    free(r.hits);
    free(r.w);
    free(r.seconds);
    free(r.reads);
    free(r.means);
    free(r.batches);
    iso_searcher_free(r.searcher);
    iso_store_close(r.store);
    return status;
}

/* ---- open ---- */

/* The database's index file: the largest of index.*. */
static char *index_file(const char *db)
{
    char *best = NULL;
    off_t size = -1;
    DIR *d = opendir(db);
    for (struct dirent *e; d && (e = readdir(d));) {
        struct stat about;
        char *path = strncmp(e->d_name, "index.", 6) == 0 ? iso_path_join(db, e->d_name) : NULL;
        if (path && stat(path, &about) == 0 && about.st_size > size) {
            size = about.st_size;
            free(best);
            best = path;
        } else {
            free(path);
        }
    }
    if (d) closedir(d);
    return best;
}

/* Opens, asks, closes. The ids are known, the vectors are read from the database: as `retrieve --query-id` does. */
static iso_status open_once(const config *c, double *seconds, iso_error *err)
{
    iso_store *store = NULL;
    iso_searcher *searcher = NULL;
    queries q = {.count = 1, .examples = c->examples};
    answer a = {.hit = iso_calloc((size_t)c->k, sizeof *a.hit)};
    double *w = NULL, start = iso_now();
    iso_status status = a.hit ? open_database(c->db, &store, &searcher, err) : iso_fail_memory(err);
    if (status == ISO_OK) status = choose_sets(store, c->seed, &q, err);
    if (status == ISO_OK && !(w = iso_calloc((size_t)q.dim, sizeof *w))) status = iso_fail_memory(err);
    if (status == ISO_OK) status = ask(searcher, &q, 0, c->k, w, &a, err);
    *seconds = iso_now() - start;
    iso_searcher_free(searcher);
    iso_store_close(store);
    free(q.vector);
    free(a.hit);
    free(w);
    return status;
}

static iso_status open_repeatedly(const config *c, iso_error *err)
{
    double *seconds = iso_calloc((size_t)c->rounds, (BENCHSEARCH_WAYS + 1) * sizeof *seconds), unused, most = 0;
    int64_t bytes = 0;
    iso_status status = seconds ? open_once(c, &unused, err) : iso_fail_memory(err);
    most = peak();
    char *index = status == ISO_OK ? index_file(c->db) : NULL;
    if (status == ISO_OK && !index) status = iso_fail(err, ISO_E_NOT_FOUND, "%s has no index file", c->db);
    for (int64_t t = 0; status == ISO_OK && t < c->rounds; t++) {
        status = open_once(c, seconds + t, err);
        for (int how = 0; status == ISO_OK && how < BENCHSEARCH_WAYS; how++)
            status = benchsearch_read_file(index, how, seconds + (how + 1) * c->rounds + t, &bytes, err);
    }
    if (status == ISO_OK)
        printf("{\"threads\":%d,\"seconds\":%.6g,\"read_seconds\":%.6g,\"file_bytes\":%" PRId64 ",\"peak_rss\":%.0f}\n",
               omp_get_max_threads(), median(seconds, c->rounds), fastest_way(seconds + c->rounds, c->rounds), bytes,
               most);
    free(index);
    free(seconds);
    return status;
}

/* ---- the program ---- */

static iso_status make(const config *c, iso_error *err)
{
    benchsearch_vectors v = {strcmp(c->kind, "clustered") == 0, c->dim, c->centres, c->seed};
    if (!c->output) return iso_fail(err, ISO_E_ARGUMENT, "--output is missing");
    return benchsearch_make(&v, c->output, c->first, c->count, c->ask, err);
}

/* A command: its words, then what it does. */
static int run_command(const iso_command *command, iso_status (*task)(const config *, iso_error *), int argc, char **argv)
{
    config c = {.kind = "clustered", .sets = 5, .examples = 10, .k = 10, .rounds = 3, .count = 200000, .dim = 128, .centres = 1000, .ask = 1000};
    iso_error err = {0};
    const int code = iso_args_parse(command, argc, argv, 2, &c, NULL);
    if (code != ISO_ARGS_RUN) return code;
    if (c.threads) omp_set_num_threads((int)c.threads);
    iso_status status = task == make ? ISO_OK : iso_args_db(&c.db, &err);
    if (!status) status = task(&c, &err);
    return iso_exit(command->program, status, &err);
}

static int run_make(int argc, char **argv) { return run_command(&make_command, make, argc, argv); }
static int run_search(int argc, char **argv) { return run_command(&search_command, search, argc, argv); }
static int run_open(int argc, char **argv) { return run_command(&open_command, open_repeatedly, argc, argv); }

int main(int argc, char **argv)
{
    static const iso_subcommand commands[] = {
        {"make", run_make, "vectors by seed, and queries"},
        {"search", run_search, "one query after another, beside reading the vectors"},
        {"open", run_open, "a database opened, asked and closed, beside reading its index"},
        {NULL, NULL, NULL},
    };
    static const iso_program program = {"benchsearch", "Searches timed beside reading their vectors once.", commands};
    return iso_program_run(&program, argc, argv);
}
