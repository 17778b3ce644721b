/* test_answer.c: the public API, answers as text, contact sheets. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <omp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/text.h"
#include "retriever/answer.h"
#include "retriever/examples.h"
#include "retriever/search.h"
#include "retriever/sheet.h"
#include "tests/check.h"
#include "tests/folder.h"

#define DIM 5

static const char digest_a[] = "0123456789abcdef0123456789abcdef";
static char base[512], db[600], file[700];
static iso_error err;

static void wipe(void)
{
    if (!remove_folder(db)) fail();
}

static iso_store *make(void)
{
    iso_store *s;
    iso_store_spec spec = {.dim = DIM, .digest = digest_a, .root = base};
    OK(iso_store_open(db, ISO_STORE_CREATE, &spec, &s, &err));
    return s;
}

static uint64_t put(iso_txn *t, const char *path, const float *v, uint64_t content)
{
    iso_item item = {.path = path, .size = 1, .hash = {content, content ? 1 : 0}, .width = 178, .height = 218};
    OK(iso_item_put(t, &item, v, &err));
    return item.id;
}

static char *slurp(const char *path, size_t *n)
{
    char *data;
    OK(iso_file_read(path, 1 << 28, &data, n, &err));
    return data;
}

static const char *const odd[] = {"plain.jpg", "with space.jpg", "tab\there.jpg", "new\nline.jpg", "back\\slash.jpg",
                                  "quote\"<b>&amp;'.jpg", "caf\xc3\xa9.jpg", "latin\xe9.jpg", "copy of plain.jpg"};
enum { ODD = sizeof odd / sizeof *odd };

static iso_db *odd_database(uint64_t ids[ODD])
{
    iso_txn *t;
    iso_db *d;
    wipe();
    iso_store *s = make();
    OK(iso_txn_begin(s, true, &t, &err));
    for (int i = 0; i < ODD; i++) {
        float v[DIM] = {1};
        v[1] = (float)(i == ODD - 1 ? 0 : i) * 0.1f;
        ids[i] = put(t, odd[i], v, i == ODD - 1 ? 1 : (uint64_t)i + 1); /* the last has the content of the first */
    }
    OK(iso_txn_commit(t, &err));
    OK(iso_index_build(s, NULL, NULL, &err));
    iso_store_close(s);
    OK(iso_db_open(db, &d, &err));
    return d;
}

static void test_api(void **state)
{
    (void)state;
    uint64_t ids[ODD];
    iso_db *d = NULL;
    iso_query *q;
    iso_answer *a = NULL;
    snprintf(file, sizeof file, "%s/none.db", base);
    assert_int_equal(iso_db_open(file, &d, &err), ISO_E_NOT_FOUND);
    assert_null(d);
    d = odd_database(ids);
    assert_int_equal(iso_db_count(d), ODD);
    assert_int_equal(iso_db_dim(d), DIM);
    assert_string_equal(iso_db_digest(d), digest_a);
    assert_string_equal(iso_db_root(d), base);
    assert_null(iso_db_note(d));
    OK(iso_query_create(d, &q, &err));
    assert_int_equal(iso_query_run(q, &(iso_query_options){.k = 3}, &a, &err), ISO_E_ARGUMENT);
    assert_int_equal(iso_query_add_id(q, ISO_LIKE, 4711, &err), ISO_E_NOT_FOUND);
    assert_int_equal(iso_query_add_vector(q, ISO_LIKE, (float[3]){1}, 3, &err), ISO_E_ARGUMENT);
    snprintf(file, sizeof file, "%s/nor this.jpg", base);
    OK(iso_query_add_path(q, ISO_UNLIKE, file, &err)); /* a counter-example is none of what to find, skipped or not */
    assert_int_equal(iso_query_run(q, &(iso_query_options){.k = 3}, &a, &err), ISO_E_ARGUMENT);
    assert_int_equal(iso_query_skipped(q), 1);
    snprintf(file, sizeof file, "%s/no such.jpg", base);
    OK(iso_query_add_path(q, ISO_LIKE, file, &err));
    assert_int_equal(iso_query_run(q, &(iso_query_options){.k = 3}, &a, &err), ISO_E_NOT_FOUND);
    assert_non_null(strstr(err.message, "no usable example among 1 skipped: "));
    assert_non_null(strstr(err.message, "no such.jpg: "));
    assert_int_equal(iso_query_skipped(q), 2);
    const char *path, *reason;
    iso_query_skip(q, 1, &path, &reason);
    assert_string_equal(path, file);
    assert_non_null(strstr(reason, "No such file"));
    OK(iso_query_add_id(q, ISO_LIKE, ids[0], &err));
    assert_int_equal(iso_query_run(q, &(iso_query_options){.k = 0}, &a, &err), ISO_E_ARGUMENT);
    OK(iso_query_run(q, &(iso_query_options){.k = 3}, &a, &err));
    assert_int_equal(iso_answer_count(a), 3);
    assert_true(iso_answer_exact(a));
    assert_int_equal(iso_answer_result(a, 0)->id, ids[0]);
    assert_int_equal(iso_answer_result(a, 1)->id, ids[ODD - 1]); /* a tie */
    assert_string_equal(iso_answer_result(a, 2)->path, odd[1]);
    iso_answer_free(a);
    OK(iso_query_run(q, &(iso_query_options){.k = 100, .exclude_query = 1}, &a, &err));
    assert_int_equal(iso_answer_count(a), ODD - 2); /* neither the example nor its copy */
    assert_int_equal(iso_answer_result(a, 0)->id, ids[1]);
    iso_answer_free(a);
    OK(iso_query_add_vector(q, ISO_UNLIKE, (float[DIM]){0, 1}, DIM, &err));
    OK(iso_query_run(q, &(iso_query_options){.k = 100, .gamma = 3}, &a, &err));
    assert_int_equal(iso_answer_count(a), ODD);
    assert_string_equal(iso_answer_result(a, ODD - 1)->path, odd[ODD - 2]);
    iso_answer_free(a);
    for (double gamma = 1e3; gamma <= ISO_GAMMA_MAX; gamma *= 10) { /* longer than a float can be: test_search.c */
        OK(iso_query_run(q, &(iso_query_options){.k = 100, .gamma = gamma}, &a, &err));
        assert_int_equal(iso_answer_count(a), ODD);
        assert_string_equal(iso_answer_result(a, ODD - 1)->path, odd[ODD - 2]);
        iso_answer_free(a);
    }
    const char *root = iso_db_root(d);
    OK(iso_db_refresh(d, &err));
    assert_string_equal(root, base); /* it lives as long as the database */
    /* contrast: the same examples, negatives and exclusion; scores in standard deviations, 0 on average */
    OK(iso_query_run(q, &(iso_query_options){.k = 100, .scorer = ISO_CONTRAST, .gamma = 3}, &a, &err));
    assert_int_equal(iso_answer_count(a), ODD);
    assert_true(iso_answer_exact(a));
    assert_string_equal(iso_answer_result(a, ODD - 1)->path, odd[ODD - 2]);
    double mean = 0, square = 0;
    for (int i = 0; i < ODD; i++) {
        double score = iso_answer_result(a, i)->score;
        mean += score / ODD;
        square += score * score / ODD;
    }
    assert_true(fabs(mean) <= 1e-6 && fabs(square - 1) <= 1e-5);
    iso_answer_free(a);
    OK(iso_query_run(q, &(iso_query_options){.k = 100, .scorer = ISO_CONTRAST, .gamma = 0.5, .exclude_query = 1}, &a, &err));
    assert_int_equal(iso_answer_count(a), ODD - 2);
    iso_answer_free(a);
    assert_int_equal(iso_query_run(q, &(iso_query_options){.k = 3, .scorer = (iso_scoring)7}, &a, &err), ISO_E_ARGUMENT);
    float nothing[DIM] = {0};
    OK(iso_query_add_vector(q, ISO_UNLIKE, nothing, DIM, &err));
    assert_int_equal(iso_query_run(q, &(iso_query_options){.k = 3, .gamma = 0.5}, &a, &err), ISO_E_NUMERIC);
    SAYS("example 2 is a vector of zeros, which points nowhere: leave it out");
    iso_query_free(q);
    iso_db_close(d);
}

/* Fills the database with copies of one image, one whose content is half the same, some of unknown content, and others. */
enum { COPIES = 12, ALIKE, UNKNOWN = ALIKE + 4, FILLED = UNKNOWN + 5 };

static iso_db *copies_database(uint64_t ids[FILLED])
{
    iso_txn *t;
    iso_db *d;
    wipe();
    iso_store *s = make();
    OK(iso_txn_begin(s, true, &t, &err));
    for (int i = 0; i < FILLED; i++) {
        char path[32];
        snprintf(path, sizeof path, "%s%d.jpg", i + 1 < FILLED ? "" : "/elsewhere/", i);
        iso_item item = {.path = path, .size = 1, .width = 178, .height = 218};
        if (i < ALIKE) item.hash[0] = 1, item.hash[1] = i < COPIES ? 1 : 2;
        else if (i >= UNKNOWN) item.hash[0] = (uint64_t)i;
        OK(iso_item_put(t, &item, (float[DIM]){1, i < COPIES ? 0 : 0.1f * (float)i}, &err));
        ids[i] = item.id;
    }
    OK(iso_txn_commit(t, &err));
    iso_store_close(s);
    OK(iso_db_open(db, &d, &err));
    return d;
}

/* Examples and counter-examples are left out by what they hold, and by their ids where that is not known. What is asked for comes back, however
 * many copies of them are better. */
static void test_exclude_query(void **state)
{
    (void)state;
    uint64_t ids[FILLED];
    iso_query *q;
    iso_answer *a;
    iso_db *d = copies_database(ids);
    OK(iso_query_create(d, &q, &err));
    OK(iso_query_add_id(q, ISO_LIKE, ids[3], &err));
    OK(iso_query_run(q, &(iso_query_options){.k = 2, .exclude_query = 1}, &a, &err));
    assert_int_equal(iso_answer_count(a), 2);
    for (int i = 0; i < 2; i++) assert_int_equal(iso_answer_result(a, i)->id, ids[COPIES + i]);
    iso_answer_free(a);
    static const int gone[] = {ALIKE + 2, ALIKE + 1, ALIKE};
    for (int i = 0; i < 3; i++) OK(iso_query_add_id(q, i < 2 ? ISO_LIKE : ISO_UNLIKE, ids[gone[i]], &err));
    OK(iso_query_add_id(q, ISO_UNLIKE, ids[UNKNOWN], &err));
    OK(iso_query_run(q, &(iso_query_options){.k = INT64_MAX, .exclude_query = 1}, &a, &err));
    static const int left[] = {COPIES, ALIKE + 3, UNKNOWN + 1, UNKNOWN + 2, UNKNOWN + 3, UNKNOWN + 4};
    assert_int_equal(iso_answer_count(a), 6);
    for (int i = 0; i < 6; i++) assert_int_equal(iso_answer_result(a, i)->id, ids[left[i]]);
    assert_string_equal(iso_answer_result(a, 5)->path, "/elsewhere/21.jpg");
    assert_string_equal(iso_answer_result(a, 5)->file, "/elsewhere/21.jpg");
    iso_answer_free(a);
    iso_query_free(q);
    iso_db_close(d);
}

/* Of the examples only those of what to find count. */
static void test_auto(void **state)
{
    (void)state;
    uint64_t ids[FILLED];
    iso_query *q;
    iso_answer *a;
    iso_db *d = copies_database(ids);
    OK(iso_query_create(d, &q, &err));
    for (int i = 0; i < 2; i++) OK(iso_query_add_id(q, ISO_UNLIKE, ids[i], &err));
    for (int i = 1; i <= ISO_AUTO_EXAMPLES; i++) {
        OK(iso_query_add_id(q, ISO_LIKE, ids[FILLED - 1], &err));
        if (i < ISO_AUTO_EXAMPLES - 1) continue;
        OK(iso_query_run(q, &(iso_query_options){.k = 1, .scorer = ISO_AUTO}, &a, &err));
        assert_int_equal(iso_answer_scorer(a), i < ISO_AUTO_EXAMPLES ? ISO_SUM : ISO_CONTRAST);
        iso_answer_free(a);
    }
    iso_query_free(q);
    iso_db_close(d);
}

/* Another database in the place of one that is open, or none: a refresh says so, and what was open goes on answering. */
static void test_replaced(void **state)
{
    (void)state;
    static const struct { const char *command; bool sound; } ways[] = {
        {"true", true},
        {"touch here.db/other && mv here.db new.db/inner && mv new.db/inner here.db", true},
        {"mv new.db/data.mdb here.db/data.mdb", false},
        {"mv here.db away.db && mv new.db here.db", false},
        {"mv here.db away.db", false},
        {"rm -r here.db", false},
        {"rm -r here.db && cp -r new.db here.db", false},
    };
    uint64_t ids[ODD];
    iso_db *d;
    iso_query *q;
    iso_answer *a;
    iso_db_close(odd_database(ids));
    assert_int_equal(chdir(base), 0);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        assert_int_equal(system("rm -rf here.db new.db away.db && cp -r test.db here.db && cp -r here.db new.db"), 0);
        OK(iso_db_open("here.db", &d, &err)); /* named from a folder that is left */
        assert_int_equal(system(ways[i].command), 0);
        assert_int_equal(chdir("/"), 0);
        const iso_status status = iso_db_refresh(d, &err);
        if (status != (ways[i].sound ? ISO_OK : ISO_E_MISMATCH)) fail_msg("%s: %d", ways[i].command, status);
        if (status) assert_non_null(strstr(err.message, "here.db was moved, removed or replaced"));
        OK(iso_query_create(d, &q, &err));
        OK(iso_query_add_id(q, ISO_LIKE, ids[1], &err));
        OK(iso_query_run(q, &(iso_query_options){.k = 2}, &a, &err));
        assert_int_equal(iso_answer_result(a, 0)->id, ids[1]);
        iso_answer_free(a);
        OK(iso_query_run_settled(q, &(iso_query_options){.k = 2}, &a, &err));
        assert_int_equal(iso_answer_result(a, 0)->id, ids[1]);
        iso_answer_free(a);
        iso_query_free(q);
        iso_db_close(d);
        assert_int_equal(chdir(base), 0);
    }
    assert_int_equal(chdir("/"), 0);
}

/* Every item but one gets another vector, and so another id. */
static void change_all_but(uint64_t id)
{
    iso_store *s;
    iso_txn *t;
    iso_item item;
    OK(iso_store_open(db, ISO_STORE_WRITE, NULL, &s, &err));
    OK(iso_txn_begin(s, true, &t, &err));
    OK(iso_item_get(t, id, &item, &err));
    char *kept = iso_strndup(item.path, strlen(item.path));
    for (int i = 0; i < ODD; i++)
        if (strcmp(odd[i], kept) != 0) put(t, odd[i], (float[DIM]){-1, (float)i, 1}, (uint64_t)(i + 100));
    free(kept);
    OK(iso_txn_commit(t, &err));
    iso_store_close(s);
}

/* What is changed behind an open database's back is gone from its answers; `retrieve` answers from one state all the same. */
static void test_changed_meanwhile(void **state)
{
    (void)state;
    uint64_t ids[ODD];
    iso_db *d = odd_database(ids);
    iso_query *q;
    iso_answer *a;
    int code;
    OK(iso_query_create(d, &q, &err));
    OK(iso_query_add_id(q, ISO_LIKE, ids[1], &err));
    const pid_t child = fork();
    if (child == 0) {
        change_all_but(ids[1]);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &code, 0), child);
    assert_int_equal(code, 0);
    OK(iso_query_run(q, &(iso_query_options){.k = 100}, &a, &err));
    assert_int_equal(iso_answer_count(a), 1);
    iso_answer_free(a);
    OK(iso_query_run_settled(q, &(iso_query_options){.k = 100, .scorer = ISO_CONTRAST}, &a, &err));
    assert_int_equal(iso_answer_count(a), ODD);
    assert_int_equal(iso_answer_result(a, 0)->id, ids[1]);
    iso_answer_free(a);
    OK(iso_query_run_settled(q, &(iso_query_options){.k = 2}, &a, &err)); /* nothing has changed */
    assert_int_equal(iso_answer_count(a), 2);
    iso_answer_free(a);
    assert_int_equal(iso_query_run_settled(q, &(iso_query_options){.k = 0}, &a, &err), ISO_E_ARGUMENT);
    iso_query_free(q);
    iso_db_close(d);
}

/* Holds what a program that builds an index has locked, and adds items meanwhile. */
static void add_while_waited_for(int ready, int count)
{
    iso_store *s;
    iso_txn *t;
    snprintf(file, sizeof file, "%s/data.mdb", db);
    const int lock = open(file, O_RDONLY | O_CLOEXEC);
    if (lock < 0 || flock(lock, LOCK_EX) != 0 || write(ready, "", 1) != 1) _exit(1);
    usleep(500000); /* the other waits by now */
    OK(iso_store_open(db, ISO_STORE_WRITE, NULL, &s, &err));
    OK(iso_txn_begin(s, true, &t, &err));
    for (int i = 0; i < count; i++) {
        char path[32];
        snprintf(path, sizeof path, "added/%d.jpg", i);
        put(t, path, (float[DIM]){1, (float)i}, (uint64_t)(i + 100));
    }
    OK(iso_txn_commit(t, &err));
    iso_store_close(s);
    close(lock);
}

/* What was added while an opening waited for an index is counted and answered, however much it is. */
static void test_added_while_waiting(void **state)
{
    (void)state;
    enum { ADDED = 3000 };
    uint64_t ids[ODD];
    iso_db *d;
    iso_query *q;
    iso_answer *a;
    int ends[2], code;
    char byte;
    iso_db_close(odd_database(ids));
    snprintf(file, sizeof file, "%s/index.faiss", db);
    if (unlink(file) != 0 && errno != ENOENT) fail();
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
        add_while_waited_for(ends[1], ADDED);
        _exit(0);
    }
    assert_int_equal(read(ends[0], &byte, 1), 1);
    OK(iso_db_open(db, &d, &err));
    assert_int_equal(waitpid(child, &code, 0), child);
    assert_int_equal(code, 0);
    assert_int_equal(iso_db_count(d), ODD + ADDED);
    OK(iso_query_create(d, &q, &err));
    OK(iso_query_add_id(q, ISO_LIKE, ids[1], &err));
    OK(iso_query_run(q, &(iso_query_options){.k = 10000}, &a, &err));
    assert_int_equal(iso_answer_count(a), ODD + ADDED);
    iso_answer_free(a);
    iso_query_free(q);
    iso_db_close(d);
    close(ends[0]);
    close(ends[1]);
}

static iso_status ask(iso_db *d, uint64_t id)
{
    iso_query *q;
    iso_answer *a;
    iso_error why;
    iso_status status = iso_query_create(d, &q, &why);
    if (status) return status;
    status = iso_query_add_id(q, ISO_LIKE, id, &why);
    if (!status) status = iso_query_run(q, &(iso_query_options){.k = 2}, &a, &why);
    if (!status) {
        if (iso_answer_result(a, 0)->id != id) status = ISO_E_INTERNAL;
        iso_answer_free(a);
    }
    iso_query_free(q);
    return status;
}

static int threads_at_work(void)
{
    int n = 0;
#pragma omp parallel num_threads(4) reduction(+ : n)
    n++;
    return n;
}

static pid_t forked(iso_db *inherited, uint64_t id)
{
    const pid_t child = fork();
    if (child) return child;
    iso_db *d;
    alarm(60); /* the deliberately wrong case waits for ever */
    if (ask(inherited, id) != ISO_E_ARGUMENT || iso_db_refresh(inherited, NULL) != ISO_E_ARGUMENT) _exit(1);
    if (iso_db_open(db, &d, NULL)) _exit(2);
    iso_db_close(inherited);
    if (threads_at_work() != (omp_in_parallel() ? 1 : 4) || ask(d, id) || iso_db_refresh(d, NULL)) _exit(3);
    iso_db *twice;
    if (iso_db_open(db, &twice, NULL) != ISO_E_ARGUMENT) _exit(4);
    iso_db_close(d);
    _exit(0);
}

static void ends_well(pid_t child)
{
    int code;
    assert_int_equal(waitpid(child, &code, 0), child);
    if (code) fail_msg("child: %#x", code);
}

#ifndef __SANITIZE_ADDRESS__ /* gcc 12's allocator stays locked for ever in a child where another thread was in it, unlike glibc's */
typedef struct asker {
    iso_db *db;
    uint64_t id;
    atomic_bool stop;
    iso_status status;
} asker;

static void *ask_on(void *ctx)
{
    asker *a = ctx;
    while (!a->stop && !a->status) {
        threads_at_work();
        a->status = ask(a->db, a->id);
    }
    return NULL;
}

static void fork_beside_work(iso_db *d, uint64_t id, uint64_t another)
{
    asker busy = {.db = d, .id = another};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, ask_on, &busy), 0);
    for (int i = 0; i < 10; i++) ends_well(forked(d, id));
    busy.stop = true;
    pthread_join(thread, NULL);
    OK(busy.status);
}
#else
#define fork_beside_work(d, id, another) (void)0
#endif

/* A child opens the database that its parent has open, whatever threads have worked, or are at work. */
static void test_fork(void **state)
{
    (void)state;
    uint64_t ids[ODD];
    iso_db *d = odd_database(ids);
    pid_t child[4] = {0};
    assert_int_equal(threads_at_work(), 4);
    OK(ask(d, ids[2]));
    ends_well(forked(d, ids[2]));
    assert_int_equal(threads_at_work(), 4);
#pragma omp parallel num_threads(4)
    child[omp_get_thread_num()] = forked(d, ids[2]);
    for (int i = 0; i < 4; i++) ends_well(child[i]);
    fork_beside_work(d, ids[2], ids[1]);
    OK(ask(d, ids[2]));
    iso_db_close(d);
}

static char *printed(const iso_report *r, const char *format, bool nul, size_t *n)
{
    char *text = NULL;
    FILE *f = open_memstream(&text, n);
    OK(iso_report_print(r, format, nul, f, &err));
    fclose(f);
    return text;
}

static void test_formats(void **state)
{
    (void)state;
    uint64_t ids[ODD];
    iso_db *d = odd_database(ids);
    iso_query *q;
    iso_answer *a;
    size_t n;
    OK(iso_query_create(d, &q, &err));
    OK(iso_query_add_path(q, ISO_LIKE, "/no/such/\xff.jpg", &err));
    OK(iso_query_add_id(q, ISO_LIKE, ids[0], &err));
    OK(iso_query_run(q, &(iso_query_options){.k = ODD}, &a, &err));
    iso_report r = {d, q, a, true};
    char *text = printed(&r, "json", false, &n);
    json_t *root = json_loadb(text, n, 0, NULL);
    assert_non_null(root);
    assert_int_equal(json_integer_value(json_object_get(root, "schema_version")), 1);
    assert_string_equal(json_string_value(json_object_get(root, "model")), digest_a);
    assert_true(json_is_true(json_object_get(root, "exact")));
    json_t *query = json_object_get(root, "query"), *results = json_object_get(root, "results");
    assert_int_equal(json_integer_value(json_object_get(query, "images")), 1);
    assert_int_equal(json_integer_value(json_object_get(query, "negatives")), 0);
    assert_string_equal(json_string_value(json_object_get(json_array_get(json_object_get(query, "skipped"), 0), "path_bytes")), "L25vL3N1Y2gv/y5qcGc=");
    assert_int_equal(json_array_size(results), ODD);
    for (size_t i = 0; i < ODD; i++) {
        json_t *x = json_array_get(results, i);
        const iso_result *want = iso_answer_result(a, (int64_t)i);
        assert_int_equal(json_integer_value(json_object_get(x, "rank")), i + 1);
        assert_int_equal(json_integer_value(json_object_get(x, "id")), want->id);
        assert_float_equal(json_number_value(json_object_get(x, "score")), want->score, 1e-15);
        if (strchr(want->path, '\xe9')) assert_string_equal(json_string_value(json_object_get(x, "path_bytes")), "bGF0aW7pLmpwZw==");
        else assert_string_equal(json_string_value(json_object_get(x, "path")), want->path);
    }
    assert_string_equal(json_string_value(json_object_get(root, "scorer")), "sum");
    json_decref(root);
    free(text);
    text = printed(&r, "tsv", false, &n);
    assert_non_null(strstr(text, "tab\\there.jpg\n"));
    assert_non_null(strstr(text, "new\\nline.jpg\n"));
    assert_non_null(strstr(text, "back\\\\slash.jpg\n"));
    assert_non_null(strstr(text, "latin\xe9.jpg\n"));
    int lines = 0, tabs = 0;
    for (size_t i = 0; i < n; i++) lines += text[i] == '\n', tabs += text[i] == '\t';
    assert_int_equal(lines, ODD);
    assert_int_equal(tabs, 3 * ODD);
    free(text);
    text = printed(&r, "paths", true, &n);
    size_t at = 0;
    for (int i = 0; i < ODD; i++, at += strlen(text + at) + 1) assert_string_equal(text + at, iso_answer_result(a, i)->path);
    assert_int_equal(at, n);
    free(text);
    r.relative = false;
    text = printed(&r, "paths", false, &n);
    assert_memory_equal(text, base, strlen(base));
    free(text);
    text = printed(&r, "table", false, &n);
    assert_non_null(strstr(text, "1 example (1 skipped): the best 9 of 9 images"));
    assert_null(strstr(text, "new\nline"));
    assert_null(strstr(text, "deviations"));
    free(text);
    iso_answer *contrasted = NULL;
    OK(iso_query_run(q, &(iso_query_options){.k = ODD, .scorer = ISO_CONTRAST}, &contrasted, &err));
    assert_int_equal(iso_answer_scorer(contrasted), ISO_CONTRAST);
    assert_int_equal(iso_answer_scorer(a), ISO_SUM);
    r.answer = contrasted;
    text = printed(&r, "table", false, &n);
    assert_non_null(strstr(text, "1 example (1 skipped): the best 9 of 9 images by contrast, in standard deviations of the database\n"));
    free(text);
    text = printed(&r, "json", false, &n);
    assert_non_null(strstr(text, "\"scorer\": \"contrast\""));
    free(text);
    r.answer = a;
    iso_answer_free(contrasted);
    assert_int_equal(iso_report_print(&r, "xml", false, stdout, &err), ISO_E_ARGUMENT);
    FILE *full = fopen("/dev/full", "w");
    assert_non_null(full);
    assert_int_equal(iso_report_print(&r, "json", false, full, &err), ISO_E_IO);
    fclose(full);
    iso_answer_free(a);
    iso_query_free(q);
    iso_db_close(d);
}

/* A parser must refuse what our printer would give if it forgot to escape, so that test_formats can fail at all. */
static void test_a_wrong_answer_is_seen(void **state)
{
    (void)state;
    static const char raw[] = "{\"path\": \"new\nline.jpg\"}", latin[] = "{\"path\": \"latin\xe9.jpg\"}";
    assert_null(json_loadb(raw, sizeof raw - 1, 0, NULL));
    assert_null(json_loadb(latin, sizeof latin - 1, 0, NULL));
}

static void test_sheets(void **state)
{
    (void)state;
    iso_sheet_image image[30];
    size_t n;
    for (int i = 0; i < 30; i++) image[i] = (iso_sheet_image){"/no/such/file.jpg", odd[i % ODD], 1 - i * 0.03};
    iso_sheet sheet = {.title = "<script>&\xff", .note = "note", .like = image, .unlike = image, .result = image, .likes = 12, .unlikes = 2, .results = 30};
    snprintf(file, sizeof file, "%s/sheet.html", base);
    OK(iso_sheet_write(&sheet, file, &err));
    char *text = slurp(file, &n);
    assert_null(strstr(text, "<script>"));
    assert_null(strstr(text, "<b>&amp;'"));
    assert_non_null(strstr(text, "&lt;b&gt;&amp;amp;&#39;"));
    assert_non_null(strstr(text, "+ 3 more"));
    assert_non_null(strstr(text, "</html>"));
    assert_true(iso_text_is_utf8(text, n));
    free(text);
    snprintf(file, sizeof file, "%s/sheet.PNG", base);
    OK(iso_sheet_write(&sheet, file, &err));
    text = slurp(file, &n);
    assert_true(n > 1000);
    assert_memory_equal(text, "\x89PNG\r\n\x1a\n", 8);
    free(text);
    sheet = (iso_sheet){.title = "nothing"};
    OK(iso_sheet_write(&sheet, file, &err));
    assert_int_equal(iso_sheet_write(&sheet, "sheet.pdf", &err), ISO_E_ARGUMENT);
    assert_int_equal(iso_sheet_write(&sheet, "/no/such/folder/sheet.png", &err), ISO_E_IO);
}

static int set_up(void **state)
{
    (void)state;
    if (!make_folder(base, sizeof base, "answer")) return -1;
    snprintf(db, sizeof db, "%s/test.db", base);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    return !remove_folder(base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_api),
        cmocka_unit_test(test_exclude_query),
        cmocka_unit_test(test_auto),
        cmocka_unit_test(test_replaced),
        cmocka_unit_test(test_changed_meanwhile),
        cmocka_unit_test(test_added_while_waiting),
        cmocka_unit_test(test_fork),
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_a_wrong_answer_is_seen),
        cmocka_unit_test(test_sheets),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
