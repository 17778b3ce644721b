/* test_vindex.c: the exact kinds of index and their file: what FAISS reads in it, ids with gaps, damage in every part,
 * another version or byte order, a full disk, threads, and replacing a file that is in use. (Searching a database: test_search.c.) */
#include "tests/descriptors.h"
#include "tests/vindex_common.h"

#include <math.h>
#include <omp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>

#include <faiss/c_api/Index_c.h>
#include <faiss/c_api/index_io_c.h>

#include "base/file.h"
#include "base/memory.h"

enum { DIM = 41, N = 6000, K = 30 };
static const char *const kinds[] = {"flat", "fp16", "sq8"};
static const iso_vindex_source source = {
    .digest = "0123456789abcdef0123456789abcdef", .stamp = 7, .generation = 3, .dim = DIM};
static float vectors[N * DIM];
static uint64_t ids[N];

static float real(void)
{
    return (float)((double)(draw() >> 11) / 9007199254740992.0 + (double)(draw() >> 11) / 9007199254740992.0 - 1);
}

static void random_query(float *w)
{
    for (int j = 0; j < DIM; j++) w[j] = real();
}

/* ---- rows to build from ---- */

typedef struct source_rows {
    int64_t n, at;
} source_rows;

static iso_status rewind_rows(void *ctx, iso_error *e)
{
    (void)e;
    ((source_rows *)ctx)->at = 0;
    return ISO_OK;
}

static iso_status next_rows(void *ctx, int64_t room, uint64_t *id, float *unit, int64_t *got, iso_error *e)
{
    source_rows *r = ctx;
    *got = r->n - r->at < room ? r->n - r->at : room;
    if (*got == 0) (void)iso_fail(e, ISO_E_NOT_FOUND, "no further rows"); /* what a cursor leaves behind is no error */
    memcpy(id, ids + r->at, sizeof *ids * (size_t)*got);
    memcpy(unit, vectors + r->at * DIM, sizeof *unit * (size_t)*got * DIM);
    r->at += *got;
    return ISO_OK;
}

static iso_status build(const char *kind, int64_t n, const char *path, iso_error *unsaved, iso_vindex **out)
{
    source_rows r = {n, 0};
    iso_vindex_rows rows = {.ctx = &r, .count = n, .rewind = rewind_rows, .next = next_rows};
    return iso_vindex_build(&source, kind, &rows, path, unsaved, out, &err);
}

/* The answer to w, whether the index gives it in full: rank by rank as plain sums in double have it, but for the slack. */
static bool answers(const iso_vindex *v, int64_t n, const float *w)
{
    uint64_t id[K];
    double score[K];
    int64_t found;
    OK(iso_vindex_search(v, w, K, id, score, &found, NULL, &err));
    if (found != (n < K ? n : K)) return false;
    const double slack = iso_vindex_slack(v, w);
    for (int64_t i = 0; i < found; i++) {
        int64_t at = 0, above = 0;
        while (at < n && ids[at] != id[i]) at++;
        if (at == n) return false;
        for (int64_t r = 0; r < n; r++) {
            double sum = 0;
            for (int j = 0; j < DIM; j++) sum += (double)w[j] * vectors[r * DIM + j];
            if (r == at && !(fabs(sum - score[i]) <= slack)) return false;
            above += sum > score[i] + slack;
        }
        if (above > i || (i && score[i] > score[i - 1])) return false;
    }
    return true;
}

/* ---- tests ---- */

static void test_answers_and_ids(void **unused)
{
    (void)unused;
    static const int64_t sizes[] = {0, 1, 39, 40, 4096, 4097, N};
    for (size_t kind = 0; kind < 3; kind++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            for (int in_memory = 0; in_memory < 2; in_memory++) {
                const int64_t n = sizes[i];
                iso_vindex *v;
                iso_vindex_info info;
                float w[DIM], kept[DIM];
                OK(build(kinds[kind], n, in_memory ? NULL : file, NULL, &v));
                iso_vindex_info_get(v, &info);
                assert_true(info.count == n && !info.approximate && info.recall == 1);
                assert_true(info.error <= (kind == 0 || n < 40 ? 0
                                           : kind == 1         ? 6e-4
                                                               : 2e-2) &&
                            (kind == 0 || n < 40 || info.error > 0));
                if (kind == 2 && n >= 40) { /* each number is kept to half of a 255th of its range */
                    double square = 0;
                    for (int j = 0; j < DIM; j++) {
                        double least = 1, most = -1;
                        for (int64_t at = 0; at < n; at++) least = fmin(least, vectors[at * DIM + j]), most = fmax(most, vectors[at * DIM + j]);
                        square += (most - least) * (most - least) / (510.0 * 510);
                    }
                    assert_true(info.error <= sqrt(square) * (1 + 1e-5));
                }
                random_query(w);
                assert_true(answers(v, n, w));
                for (int64_t at = 0; at < n; at++) {
                    double square = 0;
                    assert_int_equal(iso_vindex_id(v, at), ids[at]);
                    OK(iso_vindex_vector(v, at, kept, &err));
                    for (int j = 0; j < DIM; j++)
                        square += ((double)kept[j] - vectors[at * DIM + j]) * ((double)kept[j] - vectors[at * DIM + j]);
                    assert_true(sqrt(square) <= info.error + 1e-6);
                }
                assert_int_equal(iso_vindex_vector(v, n, kept, &err), ISO_E_ARGUMENT);
                iso_vindex_free(v);
            }
}

/* An index of other vectors does not give the answer. */
static void test_the_check_itself(void **unused)
{
    (void)unused;
    iso_vindex *v;
    float w[DIM], old = vectors[100 * DIM + 5];
    memcpy(w, vectors + 100 * DIM, sizeof w);
    vectors[100 * DIM + 5] += 0.1f;
    OK(build("flat", N, NULL, NULL, &v));
    vectors[100 * DIM + 5] = old;
    assert_false(answers(v, N, w));
    iso_vindex_free(v);
}

static char *slurp(size_t *n)
{
    char *data;
    OK(iso_file_read(file, 1 << 28, &data, n, &err));
    return data;
}

/* A new file in the place of the old one, which those who have it mapped keep. */
static void spill(const char *data, size_t n)
{
    unlink(file);
    FILE *f = fopen(file, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void test_faiss_reads_it(void **unused)
{
    (void)unused;
    for (size_t kind = 0; kind < 3; kind++)
        for (int64_t n = 30; n <= N; n += N - 30) {
            iso_vindex *v;
            FaissIndex *faiss = NULL;
            double score[K];
            float w[DIM], want[K], kept[DIM], ours[DIM];
            uint64_t id[K];
            idx_t label[K];
            int64_t found;
            size_t size;
            OK(build(kinds[kind], n, file, NULL, &v));
            char *data = slurp(&size);
            const uint64_t at = number_at(data + AT_PAYLOAD_AT), bytes = number_at(data + AT_PAYLOAD), number = n < 40 || kind == 0 ? 4 : kind == 1 ? 2 : 1;
            assert_int_equal((at + bytes - number * (uint64_t)(n * DIM)) % 4096, 0); /* the vectors begin at a page */
            FILE *stream = fmemopen(data + at, bytes, "rb");
            assert_int_equal(faiss_read_index(stream, 0, &faiss), 0);
            fclose(stream);
            assert_true(faiss_Index_d(faiss) == DIM && faiss_Index_ntotal(faiss) == n && faiss_Index_is_trained(faiss));
            for (int q = 0; q < 10; q++) {
                random_query(w);
                OK(iso_vindex_search(v, w, K, id, score, &found, NULL, &err));
                assert_int_equal(faiss_Index_search(faiss, 1, w, found, want, label), 0);
                for (int i = 0; i < found; i++) {
                    assert_true(fabs(score[i] - want[i]) <= 1e-5f);
                    if (i && i + 1 < found && score[i - 1] - score[i] > 1e-5f && score[i] - score[i + 1] > 1e-5f)
                        assert_int_equal(id[i], ids[label[i]]);
                }
                int64_t position = (int64_t)(draw() % (uint64_t)n);
                assert_int_equal(faiss_Index_reconstruct(faiss, position, kept), 0);
                OK(iso_vindex_vector(v, position, ours, &err));
                for (int j = 0; j < DIM; j++) assert_true(fabsf(kept[j] - ours[j]) <= 1e-6f);
            }
            /* and what FAISS would write of it is the same, byte for byte */
            char *again = NULL;
            size_t again_size = 0;
            stream = open_memstream(&again, &again_size);
            assert_int_equal(faiss_write_index(faiss, stream), 0);
            fclose(stream);
            assert_int_equal(again_size, bytes);
            assert_memory_equal(again, data + at, bytes);
            free(again);
            free(data);
            faiss_Index_free(faiss);
            iso_vindex_free(v);
        }
}

static void expect_damage(const char *what)
{
    iso_vindex *v = NULL;
    iso_status st = iso_vindex_read(file, &source, &v, NULL, &err);
    if (st != ISO_E_FORMAT || v) fail_msg("%s: status %d", what, st);
    assert_true(strlen(err.message) > 10 && !strchr(err.message, '\n'));
}

static void test_damage(void **unused)
{
    (void)unused;
    for (size_t kind = 0; kind < 3; kind++) {
        size_t n;
        OK(build(kinds[kind], N, file, NULL, NULL));
        char *good = slurp(&n), *bad = malloc(n + 1), what[80];
        const size_t payload = number_at(good + AT_PAYLOAD_AT),
                     runs = (payload + number_at(good + AT_PAYLOAD) + 7) / 8 * 8,
                     hashes = runs + 16 * number_at(good + AT_RUNS);
        const size_t part[] = {
            0, ISO_VINDEX_HEADER, payload, payload + 45, (payload + 4095) / 4096 * 4096, runs, hashes, n};
        assert_true(hashes < n && number_at(good + AT_RUNS) > 100);
        for (size_t i = 0; i < sizeof part / sizeof *part;
             i++) { /* cut off at each part, and a byte before and behind */
            for (int by = -1; by <= 1; by++) {
                size_t size = part[i] + (size_t)by;
                if (size >= n + 1 || (size == n && by <= 0)) continue;
                memcpy(bad, good, n);
                bad[n] = 0;
                spill(bad, size);
                snprintf(what, sizeof what, "%s cut at %zu of %zu", kinds[kind], size, n);
                expect_damage(what);
            }
        }
        for (int i = 0; i < 40; i++) { /* a bit in each part */
            const size_t p = (size_t)i % 7,
                         at = part[p] + (part[p + 1] > part[p] ? draw() % (part[p + 1] - part[p]) : 0);
            memcpy(bad, good, n);
            bad[at] = (char)(bad[at] ^ (1 << draw() % 8));
            spill(bad, n);
            snprintf(what, sizeof what, "%s byte %zu of %zu", kinds[kind], at, n);
            expect_damage(what);
        }
        free(good);
        free(bad);
    }
}

/* Does one thing wrong; how long the file is then. */
static size_t do_wrong(int what, char *data, size_t n)
{
    const size_t payload = number_at(data + AT_PAYLOAD_AT), bytes = number_at(data + AT_PAYLOAD), runs = (payload + bytes + 7) / 8 * 8, count = number_at(data + AT_RUNS);
    uint64_t *run = (uint64_t *)(void *)(data + runs); /* the first id, and its position */
    const double nan = NAN, large = 4;
    switch (what) {
    case 0: data[payload] ^= 1; break;
    case 1: data[payload + 4] ^= 1; break; /* dimensions, as FAISS has them */
    case 2: data[AT_COUNT]++; break;
    case 3: /* the payload is shorter than its vectors */
        memmove(data + runs - 64, data + runs, n - runs);
        data[AT_PAYLOAD] = (char)(bytes - 64), data[AT_PAYLOAD + 1] = (char)((bytes - 64) >> 8);
        return n - 64;
    case 4: run[1] = 1; break;
    case 5: run[3] = 0; break; /* none are of the first */
    case 6: run[3] = 1000; break;
    case 7: run[2] = run[0]; break;
    case 8: run[2 * count - 2] = UINT64_MAX; break;
    case 9: run[2] = run[0] + run[3] - 1; break; /* the last of the first run once more */
    case 10: memcpy(data + AT_ERROR, &nan, 8); break;
    case 11: memcpy(data + AT_ERROR, &large, 8); break;
    case 12: memcpy(data + AT_RECALL, &nan, 8); break;
    case 13: memcpy(data + AT_LEAST, &large, 8); break;
    case 14: data[AT_APPROXIMATE] = 1; break;
    case 15: data[AT_KIND] = 'x'; break;
    case 16: data[AT_KIND + 7] = 'x'; break;
    case 17: data[AT_DIM + 2] = 2; break;
    case 18: data[AT_PAYLOAD + 6] = 1; break;
    case 19: data[AT_PAYLOAD_AT + 6] = 1; break;
    case 20: memset(data + AT_PAYLOAD_AT, 0, 8); break;
    case 21: data[AT_RUNS + 7] = 1; break;
    case 22: data[AT_RUNS]--; break;
    case 23: data[AT_COUNT + 7] = 1; break;
    }
    return n;
}

/* Nothing is believed though all checksums agree. */
static void test_forged(void **unused)
{
    (void)unused;
    enum { WRONGS = 24, FORGED = 500 };
    for (size_t kind = 0; kind < 3; kind++) {
        size_t n;
        iso_vindex *v;
        OK(build(kinds[kind], FORGED, file, NULL, NULL));
        char *good = slurp(&n), *bad = malloc(n), what[80];
        assert_non_null(bad);
        memcpy(bad, good, n);
        mend(bad);
        assert_memory_equal(bad, good, n);
        const int before = lowest_free();
        for (int wrong = 0; wrong < WRONGS; wrong++) {
            memcpy(bad, good, n);
            const size_t size = do_wrong(wrong, bad, n);
            if (wrong < 18) mend(bad);
            else mend_header(bad);
            spill(bad, size);
            snprintf(what, sizeof what, "%s forged %d", kinds[kind], wrong);
            expect_damage(what);
        }
        memcpy(bad, good, n); /* vectors and their own checksum changed, but not that of the checksums */
        bad[number_at(bad + AT_PAYLOAD_AT) + number_at(bad + AT_PAYLOAD) - 1] ^= 1;
        mend(bad);
        memcpy(bad + AT_BODY, good + AT_BODY, 8);
        mend_header(bad);
        spill(bad, n);
        expect_damage("vectors with their checksum");
        char name[8] = "";
        memcpy(bad, good, n);
        bad[AT_COUNT] ^= 1;
        spill(bad, n);
        FAILS(ISO_E_FORMAT, iso_vindex_read(file, &source, &v, name, &err));
        assert_string_equal(name, ""); /* of a header that is not sound nothing is told */
        spill(good, n);
        OK(iso_vindex_read(file, &source, &v, name, &err));
        assert_string_equal(name, kinds[kind]);
        assert_int_equal(lowest_free(), before);
        iso_vindex_free(v);
        free(good);
        free(bad);
    }
}

/* Sound headers of what this program does not read: said so, and the kind is still known. */
static void test_of_another_world(void **unused)
{
    (void)unused;
    size_t n;
    char kind[8];
    iso_vindex *v = NULL;
    iso_vindex_info info;
    OK(build("fp16", 500, file, NULL, NULL));
    for (int i = 0; i < 3; i++) {
        static const char *const words[] = {"version 1", "byte order", "another database"};
        char *data = slurp(&n);
        if (i == 0) data[AT_VERSION] = 1;
        if (i == 1)
            for (int b = 0; b < 8; b++) data[AT_ORDER + b] = (char)(b + 1);
        if (i == 2) data[56] = 8; /* stamp */
        mend_header(data);
        spill(data, n);
        free(data);
        memset(kind, 0, sizeof kind);
        assert_int_equal(iso_vindex_read(file, &source, &v, kind, &err), i == 2 ? ISO_E_MISMATCH : ISO_E_FORMAT);
        assert_non_null(strstr(err.message, words[i]));
        assert_string_equal(kind, "fp16");
        if (i < 2) assert_int_equal(iso_vindex_peek(file, &info, &err), ISO_E_FORMAT);
        OK(build("fp16", 500, file, NULL, NULL));
    }
    unlink(file);
    assert_int_equal(iso_vindex_read(file, &source, &v, kind, &err), ISO_E_NOT_FOUND);
}

static void test_where_it_cannot_be_written(void **unused)
{
    (void)unused;
    char nowhere[700];
    float w[DIM];
    iso_vindex *v = NULL;
    iso_error unsaved;
    snprintf(nowhere, sizeof nowhere, "%s/no/such/folder/index.faiss", base);
    assert_int_equal(build("flat", N, nowhere, NULL, &v), ISO_E_IO);
    assert_null(v);
    OK(build("flat", N, nowhere, &unsaved, &v));
    assert_int_equal(unsaved.status, ISO_E_IO);
    random_query(w);
    assert_true(answers(v, N, w));
    iso_vindex_free(v);
    OK(build("flat", N, file, &unsaved, &v));
    assert_int_equal(unsaved.status, ISO_OK);
    /* a disk that is full in the middle of the vectors; the file that was there stands */
    struct rlimit limit, small;
    getrlimit(RLIMIT_FSIZE, &limit);
    small = limit;
    small.rlim_cur = 100000;
    signal(SIGXFSZ, SIG_IGN);
    for (size_t kind = 0; kind < 3; kind++) {
        iso_vindex *full = NULL;
        setrlimit(RLIMIT_FSIZE, &small);
        iso_status refused = build(kinds[kind], N, file, NULL, &full),
                   made = build(kinds[kind], N, file, &unsaved, &full);
        setrlimit(RLIMIT_FSIZE, &limit);
        assert_true(refused == ISO_E_IO && made == ISO_OK && unsaved.status == ISO_E_IO);
        assert_true(answers(full, N, w));
        iso_vindex_free(full);
    }
    signal(SIGXFSZ, SIG_DFL);
    iso_vindex_free(v);
    OK(iso_vindex_read(file, &source, &v, NULL, &err));
    assert_true(answers(v, N, w));
    iso_vindex_free(v);
    unlink(file);
    char command[700];
    snprintf(command, sizeof command, "test -z \"$(ls -A '%s')\"", base); /* no temporary file is left */
    assert_int_equal(system(command), 0);
}

/* Sound, of the same opening for writing, but of a later state: another program has just put it there. Or of another model. */
static void test_another_generation(void **unused)
{
    (void)unused;
    iso_vindex_source before = source, other = source;
    iso_vindex *v = NULL;
    before.generation--;
    other.digest[31] = '0';
    OK(build("flat", 40, file, NULL, NULL));
    FAILS(ISO_E_MISMATCH, iso_vindex_read(file, &before, &v, NULL, &err));
    SAYS("a state of it that is gone");
    FAILS(ISO_E_MISMATCH, iso_vindex_read(file, &other, &v, NULL, &err));
    SAYS("another model");
    assert_null(v);
}

static atomic_bool enough;

static void *take_away(void *ctx)
{
    (void)ctx;
    while (!enough) (void)unlink(file);
    return NULL;
}

/* Whoever builds an index has that one, even if somebody removes or replaces the file at once. */
static void test_taken_away(void **unused)
{
    (void)unused;
    pthread_t thread;
    float w[DIM];
    char fault[sizeof err.message + 32] = "";
    random_query(w);
    enough = false;
    assert_int_equal(pthread_create(&thread, NULL, take_away, NULL), 0);
    for (int i = 0; i < 60; i++) {
        iso_vindex *v = NULL;
        iso_status st = build(kinds[i % 3], 50, file, NULL, &v);
        if (!enough && st != ISO_OK) snprintf(fault, sizeof fault, "%s: %d: %s", kinds[i % 3], st, err.message);
        else if (!enough && !answers(v, 50, w)) snprintf(fault, sizeof fault, "%s: wrong answers", kinds[i % 3]);
        enough = enough || *fault;
        iso_vindex_free(v);
    }
    enough = true;
    pthread_join(thread, NULL);
    if (*fault) fail_msg("%s", fault);
}

/* ---- threads ---- */

typedef struct asked {
    const iso_vindex *v;
    float w[8][DIM];
    uint64_t id[8][K];
    double score[8][K];
    bool same;
} asked;

static void *ask(void *ctx)
{
    asked *a = ctx;
    a->same = true;
    for (int i = 0; i < 80; i++) {
        uint64_t id[K];
        double score[K];
        int64_t found;
        iso_error e;
        omp_set_num_threads(1 + i % 3);
        if (iso_vindex_search(a->v, a->w[i % 8], K, id, score, &found, NULL, &e) != ISO_OK || found != K)
            a->same = false;
        else if (memcmp(id, a->id[i % 8], sizeof id) != 0 || memcmp(score, a->score[i % 8], sizeof score) != 0)
            a->same = false;
    }
    return NULL;
}

/* Many at a time, with any number of threads each, while the file is replaced again and again: the same to the last bit. */
static void test_threads(void **unused)
{
    (void)unused;
    for (size_t kind = 0; kind < 3; kind++) {
        pthread_t thread[4];
        asked a[4];
        iso_vindex *v;
        int64_t found;
        OK(build(kinds[kind], N, file, NULL, &v));
        for (int q = 0; q < 8; q++) {
            random_query(a[0].w[q]);
            OK(iso_vindex_search(v, a[0].w[q], K, a[0].id[q], a[0].score[q], &found, NULL, &err));
        }
        a[0].v = v;
        for (int t = 1; t < 4; t++) a[t] = a[0];
        for (int t = 0; t < 4; t++) assert_int_equal(pthread_create(&thread[t], NULL, ask, &a[t]), 0);
        for (int i = 0; i < 10; i++) OK(build("flat", 100 + i, file, NULL, NULL));
        for (int t = 0; t < 4; t++) {
            pthread_join(thread[t], NULL);
            assert_true(a[t].same);
        }
        iso_vindex_free(v);
    }
}

static int set_up(void **unused)
{
    (void)unused;
    if (begin("vindex", UINT64_C(20223))) return -1;
    omp_set_num_threads(2);
    for (int i = 0; i < N; i++) {
        double square = 0;
        for (int j = 0; j < DIM; j++) vectors[i * DIM + j] = real() / (1 + 0.1f * (float)j);
        for (int j = 0; j < DIM; j++) square += (double)vectors[i * DIM + j] * vectors[i * DIM + j];
        for (int j = 0; j < DIM; j++) vectors[i * DIM + j] /= (float)sqrt(square);
        ids[i] = i ? ids[i - 1] + 1 + (draw() % 20 == 0 ? draw() % 1000 : 0) : 5;
    }
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_and_ids),  cmocka_unit_test(test_the_check_itself),
        cmocka_unit_test(test_faiss_reads_it),   cmocka_unit_test(test_damage), cmocka_unit_test(test_forged),
        cmocka_unit_test(test_of_another_world), cmocka_unit_test(test_where_it_cannot_be_written),
        cmocka_unit_test(test_another_generation), cmocka_unit_test(test_taken_away), cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
