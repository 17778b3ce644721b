/* test_vindex_ivf.c: the inverted file: what it finds against looking at everything, its codes, its clusters, a payload that
 * cannot be believed. */
#include "tests/vindex_common.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "base/file.h"
#include "base/isa.h"
#include "base/memory.h"
#include "retriever/vindex_ivf.h"
#include "retriever/vindex_ivf_pool.h"
#include "retriever/vindex_ivf_scan.h"
#include "retriever/vindex_kmeans.h"


static float normal(void)
{
    double sum = 0;
    for (int i = 0; i < 12; i++) sum += (double)(draw() >> 11) / 9007199254740992.0 - 0.5;
    return (float)sum;
}

/* ---- data ---- */

typedef struct data {
    int dim;
    int64_t n, at;
    float *x; /* [n, dim] unit */
    iso_scorer *scorer;
} data;

static void to_unit(float *v, int dim)
{
    double square = 0;
    for (int j = 0; j < dim; j++) square += (double)v[j] * v[j];
    for (int j = 0; j < dim; j++) v[j] = (float)(v[j] / sqrt(square));
}

/* Around `clusters` centres, with numbers of unequal spread; 0: every vector is the same. */
static data make(int64_t n, int dim, int clusters)
{
    data d = {.dim = dim, .n = n, .x = iso_calloc((size_t)n, sizeof(float) * (size_t)dim)};
    float *center = iso_calloc((size_t)clusters + 1, sizeof(float) * (size_t)dim);
    assert_non_null(d.x);
    assert_non_null(center);
    for (int64_t i = 0; i < (clusters ? clusters : 1) * dim; i++) center[i] = normal();
    for (int64_t i = 0; i < n; i++) {
        const float *c = center + (clusters ? (int64_t)(draw() % (uint64_t)clusters) * dim : 0);
        for (int j = 0; j < dim; j++)
            d.x[i * dim + j] = c[j] + (clusters ? normal() * 1.2f / (1 + 0.05f * (float)j) : 0);
        to_unit(d.x + i * dim, dim);
    }
    free(center);
    return d;
}

static void add_scorer(data *d)
{
    iso_moments m = {.dim = d->dim, .count = (uint64_t)d->n};
    m.sum = iso_calloc((size_t)d->dim, sizeof *m.sum);
    m.product = iso_calloc((size_t)d->dim * (size_t)d->dim, sizeof *m.product);
    for (int64_t i = 0; i < d->n; i++)
        for (int j = 0; j < d->dim; j++) {
            m.sum[j] += d->x[i * d->dim + j];
            for (int l = 0; l < d->dim; l++)
                m.product[j * d->dim + l] += (double)d->x[i * d->dim + j] * d->x[i * d->dim + l];
        }
    OK(iso_scorer_create(&m, &d->scorer, &err));
    free(m.sum);
    free(m.product);
}

static void drop(data *d)
{
    free(d->x);
    iso_scorer_free(d->scorer);
}

static iso_status rewind_rows(void *ctx, iso_error *e)
{
    (void)e;
    ((data *)ctx)->at = 0;
    return ISO_OK;
}

static iso_status next_rows(void *ctx, int64_t room, uint64_t *ids, float *unit, int64_t *got, iso_error *e)
{
    data *d = ctx;
    (void)e;
    *got = d->n - d->at < room ? d->n - d->at : room;
    for (int64_t i = 0; i < *got; i++) ids[i] = (uint64_t)(d->at + i) * 3 + 7;
    memcpy(unit, d->x + d->at * d->dim, sizeof *unit * (size_t)(*got * d->dim));
    d->at += *got;
    return ISO_OK;
}

static iso_vindex *build(data *d, const char *path)
{
    iso_vindex *v = NULL;
    iso_vindex_source source = {
        .digest = "0123456789abcdef0123456789abcdef", .stamp = 1, .generation = 2, .dim = d->dim};
    iso_vindex_rows rows = {d, d->n, rewind_rows, next_rows, d->scorer, NULL};
    OK(iso_vindex_build(&source, "ivf", &rows, path, NULL, &v, &err));
    return v;
}

/* A query of kind 0 to 3: a vector, a mean, a mean with counter-examples, contrast. */
static void make_query(const data *d, int kind, float *w)
{
    int count = kind == 0 ? 1 : kind == 3 ? 50 : 5;
    double *like = iso_calloc((size_t)d->dim, 2 * sizeof *like), *out = like + d->dim, offset;
    for (int i = 0; i < count; i++) {
        const float *x = d->x + (int64_t)(draw() % (uint64_t)d->n) * d->dim;
        for (int j = 0; j < d->dim; j++) like[j] += x[j] * (kind == 2 && i < 2 ? -0.25 : 1.0 / count);
    }
    if (kind == 3 && d->scorer) OK(iso_scorer_query(d->scorer, d->dim, count, like, 0, NULL, 0, out, &offset, &err));
    for (int j = 0; j < d->dim; j++)
        w[j] = (float)(kind == 3 && d->scorer ? out[j] : like[j]) * 3; /* no length is special */
    free(like);
}

static double exact_score(const data *d, const float *w, int64_t i)
{
    double sum = 0;
    for (int j = 0; j < d->dim; j++) sum += (double)w[j] * d->x[i * d->dim + j];
    return sum;
}

static int descending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

/* The share of the k best that `ids` has, by score. */
static double recall_of(const data *d, const float *w, int64_t k, const uint64_t *ids, int64_t found)
{
    int64_t hits = 0;
    double *all = iso_calloc((size_t)d->n, sizeof *all);
    for (int64_t i = 0; i < d->n; i++) all[i] = exact_score(d, w, i);
    qsort(all, (size_t)d->n, sizeof *all, descending);
    for (int64_t i = 0; i < found; i++) hits += exact_score(d, w, (int64_t)((ids[i] - 7) / 3)) >= all[k - 1] - 1e-12;
    free(all);
    return (double)hits / (double)k;
}

/* The mean recall of queries of a kind, of candidates as iso_search asks for them and scores them again; whatever is found must be in order,
 * different, and scored right. */
static double recall_at(const iso_vindex *v, const data *d, int kind, int64_t k, int queries)
{
    double sum = 0;
    const int64_t want = k + k / 8 + 2 < d->n ? k + k / 8 + 2 : d->n;
    float *w = iso_calloc((size_t)d->dim, sizeof *w);
    double *scores = iso_calloc((size_t)want, sizeof *scores), slack;
    uint64_t *ids = iso_calloc((size_t)want, sizeof *ids);
    uint8_t *seen = iso_calloc((size_t)d->n, 1);
    if (k > d->n) k = d->n;
    for (int q = 0; q < queries; q++) {
        int64_t found;
        make_query(d, kind, w);
        OK(iso_vindex_search(v, w, want, ids, scores, &found, &slack, &err));
        assert_true(slack <= iso_vindex_slack(v, w));
        assert_int_equal(found, want);
        memset(seen, 0, (size_t)d->n);
        for (int64_t i = 0; i < found; i++) {
            int64_t at = (int64_t)((ids[i] - 7) / 3);
            assert_true(at >= 0 && at < d->n && ids[i] % 3 == 1 && !seen[at]);
            seen[at] = 1;
            assert_true(i == 0 || scores[i - 1] >= scores[i]);
            assert_true(fabs(scores[i] - exact_score(d, w, at)) <= slack);
        }
        sum += fmin(recall_of(d, w, k, ids, found), 1); /* equal ones may be more than k */
    }
    free(w);
    free(scores);
    free(ids);
    free(seen);
    return sum / queries;
}

/* ---- tests ---- */

static void test_recall(void **state)
{
    (void)state;
    static const struct {
        int64_t n;
        int dim, clusters;
    } cases[] = {{8000, 32, 60}, {5000, 27, 1}, {3000, 150, 300}};
    static const int64_t ks[] = {1, 10, 61, 1000};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        data d = make(cases[c].n, cases[c].dim, cases[c].clusters);
        iso_vindex_info info;
        add_scorer(&d);
        iso_vindex *v = build(&d, NULL);
        iso_vindex_info_get(v, &info);
        assert_true(info.approximate && info.width >= 1 && info.recall >= 0.95 && info.error > 0 && info.error < 1e-3);
        for (int kind = 0; kind < 4; kind++)
            for (size_t i = 0; i < sizeof ks / sizeof *ks; i++) {
                double recall = recall_at(v, &d, kind, ks[i], ks[i] == 1 ? 60 : 20);
                if (getenv("ISO_TEST_TALK"))
                    printf("%d: kind %d, k %d: recall %.3f, width %d\n", (int)c, kind, (int)ks[i], recall, info.width);
                if (!(recall >= 0.89))
                    fail_msg("case %d, kind %d, k %d: recall %.3f", (int)c, kind, (int)ks[i], recall);
            }
        assert_true(recall_at(v, &d, 3, d.n, 2) == 1); /* all of them */
        iso_vindex_free(v);
        drop(&d);
    }
}

/* The check must see a wrong answer. */
static void test_the_check_itself(void **state)
{
    (void)state;
    data d = make(500, 16, 20);
    uint64_t ids[10];
    for (uint64_t i = 0; i < 10; i++) ids[i] = i * 3 + 7; /* the first ones are not the best ones of vector 499 */
    assert_true(recall_of(&d, d.x + 499 * 16, 10, ids, 10) < 0.5);
    drop(&d);
}

static void test_few_and_equal(void **state)
{
    (void)state;
    for (int n = 39; n <= 41; n++) {
        data d = make(n, 8, 5);
        iso_vindex_info info;
        iso_vindex *v = build(&d, NULL);
        iso_vindex_info_get(v, &info);
        assert_true(info.approximate == (n >= 40));
        assert_true(recall_at(v, &d, 1, 7, 10) >= 0.95);
        assert_true(recall_at(v, &d, 0, n, 2) == 1);
        iso_vindex_free(v);
        drop(&d);
    }
    data d = make(4000, 16, 0); /* all the same */
    iso_vindex *v = build(&d, NULL);
    assert_true(recall_at(v, &d, 0, 10, 3) == 1);
    assert_true(recall_at(v, &d, 2, 1000, 2) == 1);
    iso_vindex_free(v);
    for (int64_t i = 0; i < d.n * d.dim; i++) d.x[i] = i / d.dim % 2 ? 0 : d.x[i]; /* every other is zeros */
    v = build(&d, NULL);
    assert_true(recall_at(v, &d, 0, 3000, 3) == 1);
    iso_vindex_free(v);
    drop(&d);
}

/* Clusters far tighter than the rounding of their vectors, of their centroids, and of scores of about 1: neighbours are told apart all the same, and what the
 * index states is so. */
static void test_tight_clusters(void **state)
{
    (void)state;
    enum { N = 6000, DIM = 64, CLUSTERS = 12, QUERIES = 60, K = 10, WANT = K + K / 8 + 2 };
    data d = {.dim = DIM, .n = N, .x = iso_calloc(N, sizeof(float) * DIM)};
    float center[CLUSTERS][DIM];
    uint64_t ids[WANT];
    double scores[WANT], slack, sum = 0;
    int64_t found;
    int own = 0;
    iso_vindex_info info;
    for (int i = 0; i < CLUSTERS * DIM; i++) center[i / DIM][i % DIM] = normal();
    for (int64_t i = 0; i < N; i++) {
        for (int j = 0; j < DIM; j++) d.x[i * DIM + j] = center[i % CLUSTERS][j] + normal() * 0.003f;
        to_unit(d.x + i * DIM, DIM);
    }
    iso_vindex *v = build(&d, NULL);
    iso_vindex_info_get(v, &info);
    assert_true(info.least >= 0.95 && info.recall >= info.least);
    for (int q = 0; q < QUERIES; q++) {
        const int64_t item = (int64_t)(draw() % N);
        const float *w = d.x + item * DIM;
        OK(iso_vindex_search(v, w, WANT, ids, scores, &found, &slack, &err));
        assert_int_equal(found, WANT);
        for (int64_t i = 0; i < found; i++) assert_true(fabs(scores[i] - exact_score(&d, w, (int64_t)((ids[i] - 7) / 3))) <= slack);
        assert_true(slack < 1e-6);
        own += ids[0] == (uint64_t)item * 3 + 7;
        sum += fmin(recall_of(&d, w, K, ids, found), 1);
    }
    if (own < QUERIES * 9 / 10 || !(sum / QUERIES >= 0.95)) fail_msg("own vector first: %d of %d; recall %.3f", own, QUERIES, sum / QUERIES);
    iso_vindex_free(v);
    drop(&d);
}

static void test_threads_agree(void **state)
{
    (void)state;
    enum { QUERIES = 40, K = 25 };
    data d = make(6000, 24, 40);
    add_scorer(&d);
    iso_vindex *v = build(&d, NULL);
    float w[QUERIES][24];
    uint64_t want[QUERIES][K], got[QUERIES][K];
    int wrong = 0;
    for (int q = 0; q < QUERIES; q++) {
        double scores[K];
        int64_t found;
        make_query(&d, q % 4, w[q]);
        OK(iso_vindex_search(v, w[q], K, want[q], scores, &found, NULL, &err));
    }
    omp_set_num_threads(4);
#pragma omp parallel for reduction(+ : wrong)
    for (int q = 0; q < QUERIES; q++) {
        double scores[K];
        int64_t found;
        iso_error mine;
        wrong += iso_vindex_search(v, w[q], K, got[q], scores, &found, NULL, &mine) != ISO_OK ||
                 memcmp(got[q], want[q], sizeof got[q]) != 0;
    }
    assert_int_equal(wrong, 0);
    omp_set_num_threads(1);
    iso_vindex_free(v);
    drop(&d);
}

static void test_file(void **state)
{
    (void)state;
    data d = make(900, 20, 30);
    char *good = NULL;
    size_t size;
    iso_vindex *v = build(&d, file), *bad = NULL;
    float vector[20];
    assert_true(recall_at(v, &d, 1, 10, 10) >= 0.9);
    iso_vindex_info info;
    iso_vindex_info_get(v, &info);
    for (int64_t i = 0; i < d.n; i++) { /* each vector, as exactly as it is kept */
        double square = 0;
        OK(iso_vindex_vector(v, i, vector, &err));
        for (int j = 0; j < d.dim; j++) square += pow((double)vector[j] - d.x[i * d.dim + j], 2);
        assert_true(sqrt(square) <= info.error);
    }
    iso_vindex_free(v);
    OK(iso_file_read(file, SIZE_MAX / 2, &good, &size, &err));
    for (int i = 0; i < 60; i++) {
        size_t length = i < 20 ? (size_t)(draw() % size) : size, at = (size_t)(draw() % size);
        FILE *f = fopen(file, "wb");
        assert_non_null(f);
        if (i >= 20) good[at] ^= 1;
        assert_int_equal(fwrite(good, 1, length, f), length);
        assert_int_equal(fclose(f), 0);
        if (i >= 20) good[at] ^= 1;
        iso_status st = iso_vindex_read(file, NULL, &bad, NULL, &err);
        if (st != ISO_E_FORMAT) fail_msg("byte %zu, length %zu of %zu: status %d", at, length, size, st);
    }
    free(good);
    drop(&d);
}

/* What checksums do not see: a payload made by somebody else. Whatever it says, nothing outside of it is read. */
static void test_forged_payload(void **state)
{
    (void)state;
    data d = make(700, 12, 20);
    iso_vindex *v = build(&d, NULL);
    size_t size = v->payload_size, small = iso_vindex_ivf_size(0, 12, 17, 12);
    uint8_t *copy = aligned_alloc(64, (size + 63) / 64 * 64);
    iso_vindex forged = {.info = v->info, .payload = copy, .payload_size = size};
    const iso_vindex_ivf *real = v->state;
    assert_int_equal(real->lists, 17);
    const size_t offset = (size_t)((const uint8_t *)real->offset - v->payload),
                 radius = (size_t)((const uint8_t *)real->radius - v->payload),
                 scale = (size_t)((const uint8_t *)real->scale - v->payload),
                 tight = (size_t)(real->tight - v->payload),
                 position = (size_t)((const uint8_t *)real->position - v->payload);
    const struct {
        size_t at;
        uint32_t value;
    } forgeries[] = {{0, 0},
                     {0, 18},
                     {0, 0xffffffff},
                     {4, 0},
                     {4, 13},
                     {20, 0x7ff80000},
                     {36, 0xbff00000},
                     {offset, 1},
                     {offset + 4, 0xffffffff},
                     {offset + 4 * 17, 699},
                     {radius, 0x7fc00000},
                     {radius, 0xbf800000},
                     {8, 0},
                     {8, 0xffffffff},
                     {scale, 0xbf800000},
                     {tight, 2},
                     {64, 0x7f800000}};
    for (size_t i = 0; i < sizeof forgeries / sizeof *forgeries; i++) {
        const char *fault = NULL;
        memcpy(copy, v->payload, size);
        memcpy(copy + forgeries[i].at, &forgeries[i].value, 4);
        if (iso_vindex_inverted.open(&forged, &fault, &err) != ISO_E_FORMAT || !fault)
            fail_msg("forgery %d passed", (int)i);
        assert_null(forged.state);
    }
    for (int i = 0; i < 300; i++) {
        const char *fault = NULL;
        iso_ranked out[30];
        iso_vindex_scale known;
        int64_t found;
        float w[12], vector[12];
        memcpy(copy, v->payload, size);
        for (int j = 0; j < 3; j++) copy[draw() % (i % 2 ? size : small)] = (uint8_t)draw();
        forged.payload_size = i % 10 == 9 ? (size_t)(draw() % size) : size;
        iso_status st = iso_vindex_inverted.open(&forged, &fault, &err);
        if (st != ISO_OK) {
            assert_true(st == ISO_E_FORMAT && fault);
            continue;
        }
        make_query(&d, i % 3, w);
        st = iso_vindex_inverted.search(&forged, w, 30, out, &found, &known, &err);
        assert_true(st == ISO_E_FORMAT || (st == ISO_OK && found <= 30));
        OK(iso_vindex_inverted.vector(&forged, i, vector, &err));
        iso_vindex_inverted.close(&forged);
    }
    const char *fault = NULL;
    uint32_t far = 700;
    iso_ranked out[700];
    iso_vindex_scale known;
    int64_t found;
    memcpy(copy, v->payload, size);
    memcpy(copy + position, &far, 4);
    forged.payload_size = size;
    OK(iso_vindex_inverted.open(&forged, &fault, &err));
    assert_int_equal(iso_vindex_inverted.search(&forged, d.x, 700, out, &found, &known, &err), ISO_E_FORMAT);
    iso_vindex_inverted.close(&forged);
    free(copy);
    iso_vindex_free(v);
    drop(&d);
}

/* With every way of multiplying bytes that this processor has. */
static const char *const byte_ways[] = {"portable", "avx2", "avx512vnni"};

static void scores_of_codes(void)
{
    static const int dims[] = {1, 3, 16, 63, 64, 65, 127, 128, 200, 512, 1024, 1025};
    for (size_t c = 0; c < sizeof dims / sizeof *dims; c++) {
        enum { ROWS = 9 };
        int dim = dims[c];
        uint8_t *rows = iso_calloc(ROWS, (size_t)dim);
        float *w = iso_calloc((size_t)dim, 3 * sizeof *w), *low = w + dim, *step = low + dim, scores[ROWS], plain[ROWS];
        void *room = aligned_alloc(64, (iso_ivf_query_room(dim) + 63) / 64 * 64);
        double most = 0;
        for (int i = 0; i < ROWS * dim; i++) rows[i] = i < dim ? 255 : (uint8_t)draw();
        for (int j = 0; j < dim; j++) {
            w[j] = c % 2 ? normal() : 1.5f; /* all at the limit: no sum overflows */
            low[j] = normal();
            step[j] = c % 2 ? 0.01f + 0.001f * (float)(j % 7) : 0.02f;
            most = fmax(most, fabs((double)w[j] * step[j]));
        }
        iso_ivf_query q = iso_ivf_query_make(dim, w, low, step, room), slow = q;
        slow.high = NULL;
        for (int n = 1; n <= ROWS; n++) {
            scores[n < ROWS ? n : 0] = -77;
            iso_ivf_scores(&q, 1, 0.25f, rows, n, scores, NULL);
            iso_ivf_scores(&slow, 1, 0.25f, rows, n, plain, NULL);
            assert_true(n == ROWS || scores[n] == -77);
            for (int i = 0; i < n; i++) {
                double want = 0.25, sum = 0;
                for (int j = 0; j < dim; j++) {
                    want += (double)w[j] * (low[j] + (double)rows[i * dim + j] * step[j]);
                    sum += rows[i * dim + j];
                }
                assert_true(fabs(scores[i] - want) <= most / 8128 * 0.51 * sum + 1e-3 * most * dim);
                assert_true(fabs(plain[i] - want) <= 1e-3 * most * dim);
            }
        }
        free(rows);
        free(w);
        free(room);
    }
}

static void test_scores_of_codes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof byte_ways / sizeof *byte_ways; i++)
        if (iso_isa_use(byte_ways[i])) scores_of_codes();
    assert_true(iso_isa_use(NULL));
}

/* Beside each other the rows score what they do one behind the other. */
static void packed_codes(void)
{
    static const int dims[] = {1, 3, 4, 63, 128, 130, 1024};
    for (size_t c = 0; c < sizeof dims / sizeof *dims; c++) {
        enum { ROWS = 150 };
        const int dim = dims[c];
        uint8_t *rows = iso_calloc(ROWS, (size_t)dim);
        float *w = iso_calloc((size_t)dim, 3 * sizeof *w), scores[ROWS + 1], plain[ROWS];
        void *room = aligned_alloc(64, (iso_ivf_query_room(dim) + 63) / 64 * 64);
        for (int i = 0; i < ROWS * dim; i++) rows[i] = (uint8_t)draw();
        for (int j = 0; j < 3 * dim; j++) w[j] = normal();
        iso_ivf_query q = iso_ivf_query_make(dim, w, w + dim, w + 2 * dim, room);
        for (int n = 1; n <= ROWS; n += n < 20 ? 1 : 13) {
            uint8_t *packed = iso_ivf_pack(rows, n, dim);
            scores[n] = -77;
            iso_ivf_scores_packed(&q, packed, rows, n, scores);
            iso_ivf_scores(&q, 1, 0, rows, n, plain, NULL);
            assert_true(scores[n] == -77);
            assert_memory_equal(scores, plain, sizeof *plain * (size_t)n);
            iso_ivf_scores_packed(&q, NULL, rows, n, scores);
            assert_memory_equal(scores, plain, sizeof *plain * (size_t)n);
            if (packed && q.high) { /* another code is another score */
                rows[0] ^= 128;
                iso_ivf_scores(&q, 1, 0, rows, n, plain, NULL);
                iso_ivf_scores_packed(&q, packed, rows, n, scores);
                assert_true(q.plain.weight[0] == 0 || plain[0] != scores[0]);
                rows[0] ^= 128;
            }
            free(packed);
        }
        free(rows);
        free(w);
        free(room);
    }
}

static void test_packed_codes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof byte_ways / sizeof *byte_ways; i++)
        if (iso_isa_use(byte_ways[i])) packed_codes();
    assert_true(iso_isa_use(NULL));
}

/* Sorted or a heap, a pool keeps what iso_best does: ties, scores below zero, those that are no numbers. */
static void test_pool(void **state)
{
    (void)state;
    static const int64_t sizes[] = {1, 7, 8, 24, 127, 128, 129, 300};
    enum { N = 1000, MOST = 300 };
    for (size_t c = 0; c < 3 * sizeof sizes / sizeof *sizes; c++) {
        const int64_t k = sizes[c / 3];
        float scores[N];
        int32_t got[MOST];
        iso_ranked heap[MOST];
        iso_best best = {.k = k, .heap = heap};
        iso_ivf_pool pool;
        void *room = iso_calloc(1, iso_ivf_pool_room(k));
        iso_ivf_pool_start(&pool, k, room);
        for (int i = 0; i < N; i++) {
            scores[i] = c % 3 == 2 ? (float)(i / 3) : c % 3 ? (float)(int)(draw() % 21) - 10 : normal();
            if (c % 3 == 1 && scores[i] == 0 && i % 2) scores[i] = -0.0f;
            if (i % 97 == 5) scores[i] = NAN;
        }
        for (int piece = 4; piece >= 0; piece--) { /* as lists are searched: not by position */
            const int64_t first = piece * 200, n = 200 - piece;
            iso_best_offer(&best, scores + first, n, first, NULL);
            iso_ivf_pool_offer(&pool, scores + first, n, first);
            assert_true(iso_ivf_pool_least(&pool) == iso_best_least(&best));
        }
        iso_best_sort(&best);
        iso_ivf_pool_positions(&pool, got);
        assert_int_equal(pool.count, best.count);
        for (int64_t i = 0; i < best.count; i++) assert_int_equal(got[i], heap[i].position);
        free(room);
    }
}

static void test_clusters(void **state)
{
    (void)state;
    enum { N = 3000, DIM = 10, K = 120 };
    data d = make(N, DIM, 30);
    float *centroids = iso_calloc(K, sizeof(float) * DIM), *again = iso_calloc(K, sizeof(float) * DIM);
    uint32_t *list = iso_calloc(N, sizeof *list);
    iso_vindex_nearest *f;
    double inside = 0, all = 0;
    int used = 0;
    uint8_t has[K] = {0};
    OK(iso_vindex_kmeans(DIM, N, d.x, K, centroids, NULL, &err));
    OK(iso_vindex_kmeans(DIM, N, d.x, K, again, NULL, &err));
    assert_memory_equal(centroids, again, K * DIM * sizeof *again);
    OK(iso_vindex_nearest_create(DIM, K, centroids, &f, &err));
    OK(iso_vindex_nearest_find(f, N, d.x, list, &err));
    for (int i = 0; i < N; i++) {
        double best = INFINITY, mine = 0;
        assert_true(list[i] < K);
        has[list[i]] = 1;
        for (int c = 0; c < K; c++) {
            double square = 0;
            for (int j = 0; j < DIM; j++) square += pow((double)d.x[i * DIM + j] - centroids[c * DIM + j], 2);
            if (c == (int)list[i]) mine = square;
            best = fmin(best, square);
        }
        assert_true(mine <= best + 1e-5);
        inside += mine;
        for (int j = 0; j < DIM; j++) all += pow((double)d.x[i * DIM + j] - d.x[j], 2);
    }
    for (int c = 0; c < K; c++) used += has[c];
    assert_true(used >= K * 9 / 10);
    assert_true(inside < 0.4 * all);
    for (int i = 0; i < N * DIM; i++) d.x[i] = i / DIM % 10 ? d.x[i % DIM] : d.x[i]; /* nine of ten are the same: one centroid would do for them */
    OK(iso_vindex_kmeans(DIM, N, d.x, K, centroids, NULL, &err));
    for (int i = 0; i < K * DIM; i++) assert_true(isfinite(centroids[i]));
    OK(iso_vindex_kmeans(DIM, 5, d.x, 5, centroids, NULL, &err));
    OK(iso_vindex_kmeans(DIM, N, d.x, 1, centroids, NULL, &err));
    assert_int_equal(iso_vindex_kmeans(DIM, 4, d.x, 5, centroids, NULL, &err), ISO_E_ARGUMENT);
    assert_int_equal(iso_vindex_kmeans(DIM, 4, d.x, 0, centroids, NULL, &err), ISO_E_ARGUMENT);
    iso_vindex_nearest_free(f);
    free(centroids);
    free(again);
    free(list);
    drop(&d);
}

static int set_up(void **state)
{
    (void)state;
    if (begin("ivf", UINT64_C(20224))) return -1;
    omp_set_num_threads(1);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scores_of_codes),
        cmocka_unit_test(test_packed_codes),
        cmocka_unit_test(test_pool),
        cmocka_unit_test(test_clusters),
        cmocka_unit_test(test_the_check_itself),
        cmocka_unit_test(test_recall),
        cmocka_unit_test(test_tight_clusters),
        cmocka_unit_test(test_few_and_equal),
        cmocka_unit_test(test_threads_agree),
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_forged_payload),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
