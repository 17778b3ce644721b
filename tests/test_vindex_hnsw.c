/* test_vindex_hnsw.c: FAISS's graph: a file that somebody forged, with checksums that agree, reaches FAISS only where FAISS can
 * search it; and one thread makes the same file again. */
#include "tests/vindex_common.h"

#include <math.h>
#include <omp.h>
#include <signal.h>
#include <sys/resource.h>

#include "base/file.h"
#include "base/memory.h"

enum { DIM = 12, N = 700 };
static float vectors[N * DIM];

static iso_status rewind_rows(void *ctx, iso_error *e)
{
    (void)e;
    *(int64_t *)ctx = 0;
    return ISO_OK;
}

static iso_status next_rows(void *ctx, int64_t room, uint64_t *ids, float *unit, int64_t *got, iso_error *e)
{
    int64_t *at = ctx;
    (void)e;
    *got = N - *at < room ? N - *at : room;
    for (int64_t i = 0; i < *got; i++) ids[i] = (uint64_t)(*at + i + 1);
    memcpy(unit, vectors + *at * DIM, sizeof *unit * (size_t)*got * DIM);
    *at += *got;
    return ISO_OK;
}

/* The file of an index of all vectors. */
static uint8_t *make(size_t *size)
{
    const iso_vindex_source source = {.digest = "0123456789abcdef0123456789abcdef", .stamp = 1, .generation = 2, .dim = DIM};
    int64_t at = 0;
    const iso_vindex_rows rows = {&at, N, rewind_rows, next_rows, NULL, NULL};
    char *data = NULL;
    OK(iso_vindex_build(&source, "hnsw", &rows, file, NULL, NULL, &err));
    OK(iso_file_read(file, 1 << 28, &data, size, &err));
    return (uint8_t *)data;
}

static iso_status read_back(uint8_t *data, size_t size, iso_vindex **v)
{
    mend(data);
    unlink(file);
    FILE *f = fopen(file, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
    *v = NULL;
    return iso_vindex_read(file, NULL, v, NULL, &err);
}

/* Asks an index that was opened: whatever it is, nothing but items that it has. */
static void ask(const iso_vindex *v)
{
    uint64_t ids[N];
    float w[DIM];
    double scores[N];
    int64_t found;
    for (int q = 0; q < 4; q++) {
        for (int j = 0; j < DIM; j++) w[j] = (float)(draw() % 2001) / 1000 - 1;
        OK(iso_vindex_search(v, w, q ? 10 : N, ids, scores, &found, NULL, &err));
        assert_true(found <= (q ? 10 : N));
        for (int64_t i = 0; i < found; i++) assert_true(ids[i] >= 1 && ids[i] <= N);
    }
}

/* Where the parts of the payload lie. */
typedef struct parts {
    size_t head, share, below, level, offset, link, numbers, flat, vectors, end;
    size_t high; /* a vector on more than the lowest level */
} parts;

static parts find_parts(const uint8_t *d)
{
    parts p = {.head = number_at(d + AT_PAYLOAD_AT)};
    p.share = p.head + 37;
    p.below = p.share + 8 + 8 * number_at(d + p.share);
    p.level = p.below + 8 + 4 * number_at(d + p.below);
    p.offset = p.level + 8 + 4 * number_at(d + p.level);
    p.link = p.offset + 8 + 8 * number_at(d + p.offset);
    p.numbers = p.link + 8 + 4 * number_at(d + p.link);
    p.flat = p.numbers + 20;
    p.vectors = p.flat + 37;
    p.end = p.vectors + 8 + 4 * number_at(d + p.vectors);
    assert_int_equal(p.end, p.head + number_at(d + AT_PAYLOAD));
    while ((uint32_t)number_at(d + p.level + 8 + 4 * p.high) < 2) p.high++;
    assert_true(p.high < N);
    return p;
}

/* Each field with a value that it must not have. */
static void test_each_field(void **unused)
{
    (void)unused;
    size_t size;
    uint8_t *good = make(&size), *bad = malloc(size);
    iso_vindex *v;
    const parts p = find_parts(good);
    const uint64_t links = number_at(good + p.link), levels = number_at(good + p.share),
                   room = number_at(good + p.offset + 8 + 8 * p.high);
    const uint32_t entry = (uint32_t)number_at(good + p.numbers), top = (uint32_t)number_at(good + p.numbers + 4);
    uint32_t low = 0; /* a vector on the lowest level alone */
    while ((uint32_t)number_at(good + p.level + 8 + 4 * low) != 1) low++;
    const struct {
        const char *name;
        size_t at;
        int bytes;
        uint64_t value;
    } fields[] = {
        {"dim", AT_DIM, 4, DIM + 1}, {"count", AT_COUNT, 8, N - 1}, {"count", AT_COUNT, 8, N + 1}, {"width", AT_WIDTH, 4, 1},
        {"letters", p.head, 4, 0x66494849}, {"letters of another graph", p.head + 3, 1, 's'},
        {"letters of an inverted file", p.head, 4, 0x6c467749}, {"d", p.head + 4, 4, DIM * 2}, {"d", p.head + 4, 4, 0},
        {"d", p.head + 4, 4, UINT32_MAX}, {"ntotal", p.head + 8, 8, N - 1}, {"ntotal", p.head + 8, 8, UINT64_MAX},
        {"reserved", p.head + 16, 8, 0}, {"reserved", p.head + 24, 8, 1}, {"is_trained", p.head + 32, 1, 0},
        {"is_trained", p.head + 32, 1, 7}, {"metric", p.head + 33, 4, 1}, {"metric", p.head + 33, 4, 2},
        {"probabilities", p.share, 8, 0}, {"probabilities", p.share, 8, levels - 1},
        {"probabilities", p.share, 8, UINT64_C(1) << 39}, {"probabilities", p.share, 8, UINT64_MAX},
        {"a probability", p.share + 8, 8, UINT64_C(0x7ff8000000000000)}, {"a probability", p.share + 8, 8, UINT64_C(0xbff0000000000000)},
        {"bounds", p.below, 8, levels}, {"bounds", p.below, 8, UINT64_C(1) << 39}, {"a bound", p.below + 8, 4, 1},
        {"a bound", p.below + 12, 4, 1 << 30}, {"a bound", p.below + 12, 4, UINT32_MAX}, {"a bound", p.below + 16, 4, 64},
        {"levels", p.level, 8, N - 1}, {"levels", p.level, 8, UINT64_C(1) << 39}, {"a level", p.level + 8, 4, 0},
        {"a level", p.level + 8 + 4 * p.high, 4, 1}, {"a level", p.level + 8, 4, levels + 1}, {"a level", p.level + 8, 4, UINT32_MAX},
        {"offsets", p.offset, 8, N}, {"offsets", p.offset, 8, UINT64_C(1) << 39}, {"an offset", p.offset + 8, 8, 1},
        {"an offset", p.offset + 16, 8, 0}, {"an offset", p.offset + 16, 8, links + 1}, {"an offset", p.offset + 16, 8, UINT64_MAX - 3},
        {"the last offset", p.offset + 8 + 8 * N, 8, links - 1}, {"the last offset", p.offset + 8 + 8 * N, 8, UINT64_MAX},
        {"links", p.link, 8, links - 1}, {"links", p.link, 8, UINT64_C(1) << 39}, {"a link", p.link + 8, 4, N},
        {"a link", p.link + 8, 4, INT32_MAX}, {"a link", p.link + 8, 4, (uint32_t)-2}, {"the last link", p.numbers - 4, 4, N},
        {"a link to a lower level", p.link + 8 + 4 * (room + 64), 4, low}, {"entry point", p.numbers, 4, N},
        {"entry point", p.numbers, 4, UINT32_MAX}, {"entry point", p.numbers, 4, low}, {"highest level", p.numbers + 4, 4, top + 1},
        {"highest level", p.numbers + 4, 4, UINT32_MAX}, {"highest level", p.numbers + 4, 4, INT32_MAX},
        {"efConstruction", p.numbers + 8, 4, 0}, {"efSearch", p.numbers + 12, 4, 0}, {"efSearch", p.numbers + 12, 4, INT32_MAX},
        {"beam", p.numbers + 16, 4, 0}, {"beam", p.numbers + 16, 4, INT32_MAX}, {"letters of the vectors", p.flat, 4, 0x32467849},
        {"letters of the vectors", p.flat, 4, 0x664e4849}, {"d of the vectors", p.flat + 4, 4, DIM - 1}, {"ntotal of the vectors", p.flat + 8, 8, N - 1},
        {"reserved of the vectors", p.flat + 16, 8, 0}, {"is_trained of the vectors", p.flat + 32, 1, 0},
        {"metric of the vectors", p.flat + 33, 4, 1}, {"floats", p.vectors, 8, N * DIM - 1}, {"floats", p.vectors, 8, UINT64_C(1) << 39},
        {"floats", p.vectors, 8, UINT64_MAX},
    };
    assert_true(entry < N && top >= 1 && entry != low);
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        memcpy(bad, good, size);
        memcpy(bad + fields[i].at, &fields[i].value, (size_t)fields[i].bytes);
        const iso_status st = read_back(bad, size, &v);
        if (st != ISO_E_FORMAT || v) fail_msg("%s = %" PRIx64 ": status %d: %s", fields[i].name, fields[i].value, st, st ? err.message : "opened");
        assert_non_null(strstr(err.message, "is damaged: "));
    }
    for (int huge = 0; huge < 2; huge++) { /* the two that say how far a search goes agree, and are too far */
        const uint32_t width = huge ? INT32_MAX : 0;
        memcpy(bad, good, size);
        memcpy(bad + AT_WIDTH, &width, 4);
        memcpy(bad + p.numbers + 12, &width, 4);
        assert_int_equal(read_back(bad, size, &v), ISO_E_FORMAT);
    }
    memcpy(bad, good, size);
    OK(read_back(bad, size, &v)); /* the mending is not what was refused */
    ask(v);
    iso_vindex_free(v);
    free(good);
    free(bad);
}

/* Cut off anywhere: what follows the payload then follows sooner. */
static void test_cut_payload(void **unused)
{
    (void)unused;
    size_t size;
    uint8_t *good = make(&size), *bad = malloc(size);
    const parts p = find_parts(good);
    const size_t at[] = {p.head, p.share, p.below, p.level, p.offset, p.link, p.numbers, p.flat, p.vectors, p.end};
    for (size_t i = 0; i < 3 * sizeof at / sizeof *at; i++) {
        iso_vindex *v;
        const size_t end = at[i / 3] + i % 3 * 4 - 4, runs = (end + 7) / 8 * 8, rest = 16 + (runs + 16 - 256 + PIECE - 1) / PIECE * 8;
        if (end < p.head || end >= p.end) continue;
        const uint64_t payload = end - p.head;
        memcpy(bad, good, size);
        memcpy(bad + AT_PAYLOAD, &payload, 8);
        memmove(bad + runs, good + (p.end + 7) / 8 * 8, 16);
        assert_int_equal(read_back(bad, runs + rest, &v), ISO_E_FORMAT);
    }
    free(good);
    free(bad);
}

/* Any numbers anywhere: refused, or searched without harm. */
static void test_random_damage(void **unused)
{
    (void)unused;
    static const uint64_t values[] = {0, 1, 2, 63, 64, N - 1, N, 0x7fffffff, 0x80000000u, 0xffffffffu, UINT64_MAX, 0x7fc00000, 0xff800000};
    size_t size;
    uint8_t *good = make(&size), *bad = malloc(size);
    const parts p = find_parts(good);
    int opened = 0, refused = 0;
    for (int i = 0; i < 200; i++) {
        iso_vindex *v;
        memcpy(bad, good, size);
        for (int n = 1 + (int)(draw() % 3); n > 0; n--) {
            const uint64_t value = draw() % 2 ? values[draw() % (sizeof values / sizeof *values)] : draw() % N;
            const size_t from = i % 4 == 0 ? p.head : i % 4 == 1 ? p.vectors : i % 4 == 2 ? p.link : p.level, to = i % 4 == 0 ? p.level : i % 4 == 3 ? p.link : p.end;
            memcpy(bad + from + draw() % ((to - from - 8) / 4) * 4, &value, 4 + 4 * (draw() % 2));
        }
        const iso_status st = read_back(bad, size, &v);
        assert_true(st == ISO_OK || st == ISO_E_FORMAT);
        st == ISO_OK ? opened++ : refused++;
        if (v) ask(v);
        iso_vindex_free(v);
    }
    assert_true(opened > 20 && refused > 20);
    free(good);
    free(bad);
}

enum { MANY = 10 * N }; /* more bytes than are held back before they are written */

static iso_status next_many(void *ctx, int64_t room, uint64_t *ids, float *unit, int64_t *got, iso_error *e)
{
    int64_t *at = ctx;
    (void)e;
    *got = MANY - *at < room ? MANY - *at : room;
    for (int64_t i = 0; i < *got; i++, ++*at) {
        ids[i] = (uint64_t)*at + 1;
        for (int j = 0; j < DIM; j++) unit[i * DIM + j] = vectors[*at % N * DIM + (j + *at / N) % DIM];
    }
    return ISO_OK;
}

/* FAISS writes through us, and says nothing of why it could not: a full disk is told as such. */
static void test_full_disk(void **unused)
{
    (void)unused;
    const iso_vindex_source source = {.digest = "0123456789abcdef0123456789abcdef", .stamp = 1, .generation = 2, .dim = DIM};
    int64_t at = 0;
    const iso_vindex_rows rows = {&at, MANY, rewind_rows, next_many, NULL, NULL};
    struct rlimit limit, small;
    getrlimit(RLIMIT_FSIZE, &limit);
    small = limit;
    small.rlim_cur = 10000;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    const iso_status status = iso_vindex_build(&source, "hnsw", &rows, file, NULL, NULL, &err);
    setrlimit(RLIMIT_FSIZE, &limit);
    signal(SIGXFSZ, SIG_DFL);
    assert_int_equal(status, ISO_E_IO);
    SAYS("File too large");
}

/* One thread makes the same file again, as the documents say. */
static void test_one_thread(void **unused)
{
    (void)unused;
    size_t size, again;
    omp_set_num_threads(1);
    uint8_t *want = make(&size), *got = make(&again);
    omp_set_num_threads(2);
    assert_int_equal(again, size);
    assert_memory_equal(got, want, size);
    free(got);
    free(want);
}

static int set_up(void **unused)
{
    (void)unused;
    if (begin("hnsw", UINT64_C(20226))) return -1;
    omp_set_num_threads(2);
    for (int i = 0; i < N; i++) {
        double square = 0;
        for (int j = 0; j < DIM; j++) vectors[i * DIM + j] = (float)(draw() % 2001) / 1000 - 1;
        for (int j = 0; j < DIM; j++) square += (double)vectors[i * DIM + j] * vectors[i * DIM + j];
        for (int j = 0; j < DIM; j++) vectors[i * DIM + j] = (float)(vectors[i * DIM + j] / sqrt(square));
    }
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_field),
        cmocka_unit_test(test_cut_payload),
        cmocka_unit_test(test_random_damage),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_one_thread),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
