/* test_library.c: the public API as a program uses it that knows only include/isoface.h: databases of real models, paths, what it is told. */
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <turbojpeg.h>
#include <unistd.h>

#include "indexer/encode.h"
#include "tests/models.h"
#include "tests/check.h"
#include "tests/folder.h"

enum { IMAGES = 6 };
static char base[512];
static iso_error err;

/* No two alike. */
static void write_picture(const char *path, int brightest)
{
    enum { W = 80, H = 90 };
    static uint8_t rgb[W * H * 3];
    for (int i = 0; i < W * H; i++) {
        rgb[3 * i] = (uint8_t)(brightest * (i % W) / W);
        rgb[3 * i + 1] = (uint8_t)(brightest * (i / W) / H);
        rgb[3 * i + 2] = (uint8_t)brightest;
    }
    tjhandle t = tjInitCompress();
    unsigned char *jpeg = NULL;
    unsigned long n = 0;
    assert_int_equal(tjCompress2(t, rgb, W, 0, H, TJPF_RGB, &jpeg, &n, TJSAMP_444, 95, 0), 0);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(jpeg, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    tjFree(jpeg);
    tjDestroy(t);
}

static iso_status encode(void *ctx, const uint8_t *pixels, int64_t n, float *vectors, iso_error *e)
{
    return iso_encoder_run(ctx, pixels, n, vectors, e);
}

/* Of the folder `images`, by a model of its own. */
static void make_database(const char *name, uint64_t model_seed)
{
    iso_model *m = fresh(&celeba, model_seed);
    iso_encoder *e;
    iso_encode_counts counts;
    OK(iso_model_save(m, "m.safetensors", &err));
    OK(iso_encoder_create(m, 4, &e, &err));
    iso_encode_spec spec = {.images = "images", .db = name, .dim = iso_model_dim(m), .digest = iso_model_digest(m), .model = "m.safetensors", .encode = encode, .encode_ctx = e};
    OK(iso_encode(&spec, &counts, &err));
    iso_encoder_free(e);
    iso_model_free(m);
}

static void go(const char *folder)
{
    if (chdir(base) || chdir(folder)) fail_msg("no folder %s", folder);
}

static void shell(const char *command)
{
    if (system(command)) fail_msg("failed: %s", command);
}

/* What lies beside a relative path is found from another folder, too, and in a folder that is called otherwise by now. */
static void test_another_folder(void **state)
{
    (void)state;
    static const char *const moves[] = {"true", "mv one/f.db one/moved.db && cp -r two/f.db one/f.db"};
    for (size_t i = 0; i < sizeof moves / sizeof *moves; i++) {
        iso_db *d;
        iso_query *q;
        iso_answer *a;
        const char *path, *reason;
        go("one");
        OK(iso_db_open("f.db", &d, &err));
        OK(iso_query_create(d, &q, &err));
        OK(iso_query_add_path(q, ISO_LIKE, "asked", &err)); /* images of no database: the model is needed */
        OK(iso_query_add_path(q, ISO_LIKE, "asked/1.jpg", &err));
        OK(iso_query_add_path(q, ISO_LIKE, "none.jpg", &err));
        go(".");
        shell(moves[i]);
        go("two"); /* f.db in it is another model's */
        OK(iso_query_run(q, &(iso_query_options){.k = 1}, &a, &err));
        assert_int_equal(iso_query_count(q, ISO_LIKE), 3);
        assert_string_equal(iso_query_file(q, ISO_LIKE, 2), "asked/1.jpg"); /* shown as given */
        assert_int_equal(iso_query_skipped(q), 1);
        iso_query_skip(q, 0, &path, &reason);
        assert_string_equal(path, "none.jpg");
        iso_answer_free(a);
        iso_query_free(q);
        iso_db_close(d);
    }
}

/* The scores of all items, by id, for what is asked. */
static void scores_of(iso_query *q, double score[IMAGES + 1])
{
    iso_answer *a;
    OK(iso_query_run(q, &(iso_query_options){.k = IMAGES}, &a, &err));
    assert_int_equal(iso_answer_count(a), IMAGES);
    for (int i = 0; i < IMAGES; i++) score[iso_answer_result(a, i)->id] = iso_answer_result(a, i)->score;
    iso_answer_free(a);
}

/* Images of the database, files that are none, and images that must be encoded, among one another: each counts as it does alone. What fails in the
 * middle is gone on with from there. */
static void test_mixed_examples(void **state)
{
    (void)state;
    static const char *const file[] = {"../images/0.jpg", "../images/none.jpg", "asked/0.jpg", "../images/3.jpg", "asked/1.jpg"};
    enum { FILES = sizeof file / sizeof *file, STORED = 16 };
    double mean[IMAGES + 1] = {0}, score[IMAGES + 1];
    iso_db *d;
    iso_query *q, *alone;
    go("one");
    OK(iso_db_open("f.db", &d, &err));
    OK(iso_query_create(d, &q, &err));
    for (int i = 0; i < FILES; i++) {
        OK(iso_query_add_path(q, ISO_LIKE, file[i], &err));
        if (i == 1) continue;
        OK(iso_query_create(d, &alone, &err));
        OK(iso_query_add_path(alone, ISO_LIKE, file[i], &err));
        scores_of(alone, score);
        for (int k = 1; k <= IMAGES; k++) mean[k] += score[k] / (FILES - 1);
        iso_query_free(alone);
    }
    scores_of(q, score);
    for (int k = 1; k <= IMAGES; k++)
        if (!(fabs(score[k] - mean[k]) <= 1e-6)) fail_msg("item %d: %.9f, not %.9f", k, score[k], mean[k]);
    iso_query_free(q);
    iso_db_close(d);

    OK(iso_db_open("f.db", &d, &err));
    OK(iso_query_create(d, &q, &err));
    for (int i = 0; i < STORED; i++) OK(iso_query_add_path(q, ISO_LIKE, "../images/0.jpg", &err));
    OK(iso_query_add_path(q, ISO_LIKE, "asked/1.jpg", &err));
    shell("mv f.db/model.safetensors kept");
    assert_int_not_equal(iso_query_read(q, &err), ISO_OK);
    assert_int_equal(iso_query_count(q, ISO_LIKE), STORED);
    shell("mv kept f.db/model.safetensors");
    OK(iso_query_read(q, &err));
    assert_int_equal(iso_query_count(q, ISO_LIKE), STORED + 1);
    assert_string_equal(iso_query_file(q, ISO_LIKE, STORED), "asked/1.jpg");
    iso_query_free(q);
    iso_db_close(d);
}

/* Another program removes an item of the database in the current folder. */
static void remove_elsewhere(uint64_t id)
{
    const pid_t child = fork();
    int code;
    if (!child) {
        iso_store *s;
        iso_txn *t;
        _exit(iso_store_open("f.db", ISO_STORE_WRITE, NULL, &s, NULL) || iso_txn_begin(s, true, &t, NULL) || iso_item_remove(t, id, NULL) || iso_txn_commit(t, NULL));
    }
    assert_int_equal(waitpid(child, &code, 0), child);
    assert_int_equal(code, 0);
}

/* Another program says where the folder of images is by now. What was handed out before stays what it was. */
static void test_moved_images(void **state)
{
    (void)state;
    static const char *const roots[] = {"/moved", "/moved/again"};
    iso_db *d;
    iso_query *q;
    iso_answer *a;
    int code;
    go("mine");
    OK(iso_db_open("f.db", &d, &err));
    OK(iso_query_create(d, &q, &err));
    OK(iso_query_add_id(q, ISO_LIKE, 1, &err));
    const char *before = iso_db_root(d);
    char copy[600];
    snprintf(copy, sizeof copy, "%s", before);
    for (size_t i = 0; i < sizeof roots / sizeof *roots; i++) {
        const pid_t child = fork();
        if (!child) {
            iso_store *s;
            _exit(iso_store_open("f.db", ISO_STORE_WRITE, NULL, &s, NULL) || iso_store_relocate(s, roots[i], NULL));
        }
        assert_int_equal(waitpid(child, &code, 0), child);
        assert_int_equal(code, 0);
        OK(iso_db_refresh(d, &err));
        OK(iso_db_refresh(d, &err));
        assert_string_equal(iso_db_root(d), roots[i]);
        assert_string_equal(before, copy);
        OK(iso_query_run(q, &(iso_query_options){.k = 1}, &a, &err));
        const iso_result *r = iso_answer_result(a, 0);
        char want[600];
        snprintf(want, sizeof want, "%s/%s", roots[i], r->path);
        assert_string_equal(r->file, want);
        iso_answer_free(a);
    }
    iso_query_free(q);
    iso_db_close(d);
}

static void *open_waiting(void *out)
{
    iso_db *d = NULL;
    *(iso_status *)out = iso_db_open("f.db", &d, NULL);
    iso_db_close(d);
    return NULL;
}

/* What takes long can be ended, and goes on afterwards. */
static void test_interrupt(void **state)
{
    (void)state;
    iso_db *d;
    iso_query *q;
    pthread_t thread;
    iso_status st = ISO_OK;
    go("mine");
    OK(iso_db_open("f.db", &d, &err));
    OK(iso_query_create(d, &q, &err));
    OK(iso_query_add_path(q, ISO_LIKE, "../images", &err));
    iso_interrupt(1);
    assert_int_equal(iso_query_read(q, &err), ISO_E_INTERRUPTED);
    assert_int_equal(iso_query_count(q, ISO_LIKE), 0);
    iso_interrupt(0);
    OK(iso_query_read(q, &err));
    assert_int_equal(iso_query_count(q, ISO_LIKE), IMAGES);
    assert_int_equal(iso_query_count(q, (iso_sign)9), 0);
    iso_query_free(q);
    iso_db_close(d);

    const int lock = open("f.db/data.mdb", O_RDONLY); /* as another process has it that builds the index */
    assert_true(lock >= 0);
    assert_int_equal(flock(lock, LOCK_EX), 0);
    assert_int_equal(unlink("f.db/index.faiss"), 0);
    assert_int_equal(pthread_create(&thread, NULL, open_waiting, &st), 0);
    usleep(100000);
    iso_interrupt(1);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(st, ISO_E_INTERRUPTED);
    iso_interrupt(0);
    close(lock);
    OK(iso_db_open("f.db", &d, &err));
    iso_db_close(d);
}

/* After ISO_OK err says so, whatever it held and whatever was tried on the way. */
#define CLEAN(call) do { \
    err = (iso_error){ISO_E_IO, "of an earlier call"}; \
    OK(call); \
    if (err.status || err.message[0]) fail_msg("%s: %d: %s", #call, err.status, err.message); \
} while (0)

static void test_success_leaves_no_error(void **state)
{
    (void)state;
    iso_db *d;
    iso_query *q, *all;
    iso_answer *a;
    go("mine");
    shell("rm -f f.db/index.faiss");
    CLEAN(iso_db_open("f.db", &d, &err));
    assert_non_null(iso_db_note(d));
    CLEAN(iso_query_create(d, &q, &err));
    CLEAN(iso_query_add_id(q, ISO_LIKE, 1, &err));
    CLEAN(iso_query_add_vector(q, ISO_UNLIKE, (float[5]){1, 2, -3}, iso_db_dim(d), &err));
    CLEAN(iso_query_add_path(q, ISO_LIKE, "../images", &err));
    CLEAN(iso_query_add_path(q, ISO_LIKE, "../one/asked/0.jpg", &err));
    CLEAN(iso_query_add_path(q, ISO_LIKE, "none.jpg", &err));
    CLEAN(iso_query_read(q, &err));
    CLEAN(iso_query_read(q, &err));
    assert_int_equal(iso_query_skipped(q), 1);
    for (int exclude = 0; exclude < 2; exclude++) {
        CLEAN(iso_query_run(q, &(iso_query_options){.k = 100, .gamma = 0.5, .scorer = ISO_CONTRAST, .exclude_query = exclude}, &a, &err));
        assert_int_equal(iso_answer_count(a), exclude ? 0 : IMAGES);
        iso_answer_free(a);
    }
    CLEAN(iso_query_create(d, &all, &err));
    for (int i = 0; i < ISO_AUTO_EXAMPLES / IMAGES * IMAGES + IMAGES; i++) CLEAN(iso_query_add_id(all, ISO_LIKE, (uint64_t)(i % IMAGES) + 1, &err));
    CLEAN(iso_query_run(all, &(iso_query_options){.k = 1, .scorer = ISO_AUTO}, &a, &err));
    assert_int_equal(iso_answer_scorer(a), ISO_SUM); /* contrast found no direction */
    iso_answer_free(a);
    for (uint64_t id = 2; id < 4; id++) { /* gone since the index was built, and since the last refresh */
        remove_elsewhere(id);
        CLEAN(iso_query_run(all, &(iso_query_options){.k = 100}, &a, &err));
        assert_int_equal(iso_answer_count(a), IMAGES - (int64_t)id + 1);
        iso_answer_free(a);
        CLEAN(iso_db_refresh(d, &err));
        assert_int_equal(iso_db_count(d), IMAGES - id + 1);
    }
    iso_query_free(all);
    iso_query_free(q);
    iso_db_close(d);
}

/* What cannot be is refused and crashes nothing. */
static void test_impossible(void **state)
{
    (void)state;
    static const double gammas[] = {-1e-9, -INFINITY, NAN, INFINITY, 1.0001e6, 1e300}, good[] = {0, 1e6};
    iso_db *d;
    iso_query *q = NULL;
    iso_answer *a = NULL;
    const char *path = "", *reason = "";
    go("two");
    assert_int_equal(iso_query_create(NULL, &q, &err), ISO_E_ARGUMENT);
    assert_null(q);
    OK(iso_db_open("f.db", &d, &err));
    OK(iso_query_create(d, &q, &err));
    assert_int_equal(iso_query_add_vector(q, ISO_LIKE, NULL, iso_db_dim(d), &err), ISO_E_ARGUMENT);
    OK(iso_query_add_id(q, ISO_LIKE, 1, &err));
    OK(iso_query_add_id(q, ISO_UNLIKE, 2, &err));
    assert_int_equal(iso_query_run(q, NULL, &a, &err), ISO_E_ARGUMENT);
    for (size_t i = 0; i < sizeof gammas / sizeof *gammas; i++) {
        assert_int_equal(iso_query_run(q, &(iso_query_options){.k = 1, .gamma = gammas[i]}, &a, &err), ISO_E_ARGUMENT);
        assert_non_null(strstr(err.message, "gamma"));
    }
    assert_null(a);
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        OK(iso_query_run(q, &(iso_query_options){.k = 2, .gamma = good[i]}, &a, &err));
        for (int64_t at = -1; at < 4; at++) assert_true((at >= 0 && at < 2) == (iso_answer_result(a, at) != NULL));
        iso_answer_free(a);
    }
    for (int64_t at = -1; at < 3; at++) assert_true((at == 0) == (iso_query_file(q, ISO_LIKE, at) != NULL));
    for (int64_t at = -1; at < 2; at++) {
        iso_query_skip(q, at, &path, &reason);
        assert_true(!path && !reason);
    }
    iso_query_free(q);
    iso_db_close(d);
}

/* A message of the library is for who calls it as much as for who types a command. */
static void test_messages_name_no_option(void **state)
{
    (void)state;
    iso_db *d;
    iso_query *q;
    iso_answer *a;
    go("two");
    OK(iso_db_open("f.db", &d, &err));
    OK(iso_query_create(d, &q, &err));
    for (uint64_t id = 1; id <= IMAGES; id++) OK(iso_query_add_id(q, ISO_LIKE, id, &err));
    assert_int_equal(iso_query_run(q, &(iso_query_options){.k = 1, .scorer = ISO_CONTRAST}, &a, &err), ISO_E_NUMERIC);
    assert_null(strstr(err.message, "--"));
    for (uint64_t id = 1; id <= IMAGES; id++) OK(iso_query_add_id(q, ISO_UNLIKE, id, &err));
    for (int scorer = 0; scorer < 2; scorer++) {
        assert_int_equal(iso_query_run(q, &(iso_query_options){.k = 1, .scorer = (iso_scoring)scorer, .gamma = 1}, &a, &err), ISO_E_NUMERIC);
        assert_null(strstr(err.message, "--"));
        assert_non_null(strstr(err.message, "another gamma"));
    }
    iso_query_free(q);
    iso_db_close(d);
}

static int set_up(void **state)
{
    (void)state;
    if (!make_folder(base, sizeof base, "library")) return -1;
    go(".");
    shell("mkdir images one one/asked two mine");
    for (int i = 0; i < IMAGES; i++) {
        char path[32];
        snprintf(path, sizeof path, "images/%d.jpg", i);
        write_picture(path, 255 - 20 * i);
    }
    write_picture("one/asked/0.jpg", 233);
    write_picture("one/asked/1.jpg", 222);
    shell("touch one/asked/list_attr_celeba.txt"); /* no image, and none that is missed */
    make_database("one/f.db", 1);
    make_database("two/f.db", 2);
    make_database("mine/f.db", 1);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    return chdir("/") || !remove_folder(base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mixed_examples),
        cmocka_unit_test(test_another_folder),
        cmocka_unit_test(test_success_leaves_no_error),
        cmocka_unit_test(test_impossible),
        cmocka_unit_test(test_messages_name_no_option),
        cmocka_unit_test(test_moved_images),
        cmocka_unit_test(test_interrupt),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
