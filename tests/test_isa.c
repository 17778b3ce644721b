/* test_isa.c: that all kernels heed what the environment's ISO_CPU asks for, or a test. */
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/isa.h"
#include "eval/protocol.h"
#include "indexer/store_sums.h"
#include "model/cpu/gemm.h"
#include "retriever/vindex_ivf_scan.h"
#include "tests/check.h"
#include "tests/random.h"

enum { DIM = 100, ROWS = 64, STEPS = 6 };

/* Everybody's choice, as far as it shows. */
typedef struct choices {
    const char *gemm, *rank;
    void (*sums)(iso_sums *s, bool minus, int n);
    float scores[ROWS]; /* sums of products, rounded in each kernel's own order */
    bool bytes;         /* multiplied as such */
} choices;

static const char *const names[STEPS] = {"portable", "avx2", "avx512f", "avx512", "avx512vnni", "amx"};
static choices with[STEPS], without, with_empty, with_unknown; /* ISO_CPU */
static float weight[DIM], rows[ROWS * DIM];

static choices look(void)
{
    choices c = {.gemm = iso_gemm_isa_get()->name, .rank = iso_rank_kernel_name()};
    iso_sums *s = iso_sums_new(DIM);
    assert_non_null(s);
    c.sums = s->by.add;
    iso_sums_free(s);
    iso_scan_scores(&(iso_scan_query){ISO_CODE_F32, DIM, weight, 0}, rows, ROWS, c.scores);
    _Alignas(64) char room[DIM * 16];
    assert_true(iso_ivf_query_room(DIM) <= sizeof room);
    const iso_ivf_query q = iso_ivf_query_make(DIM, weight, rows, rows + DIM, room);
    uint8_t codes[DIM] = {0}, *packed = iso_ivf_pack(codes, 1, DIM);
    c.bytes = q.high != NULL;
    assert_int_equal(packed != NULL, c.bytes);
    free(packed);
    return c;
}

static bool same(const choices *a, const choices *b)
{
    return !strcmp(a->gemm, b->gemm) && !strcmp(a->rank, b->rank) && a->sums == b->sums && a->bytes == b->bytes &&
           !memcmp(a->scores, b->scores, sizeof a->scores);
}

/* What a process chooses that begins with that wish (NULL: none). */
static choices look_with(const char *wish)
{
    int ends[2], status;
    choices c;
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (wish ? setenv("ISO_CPU", wish, 1) : unsetenv("ISO_CPU")) _exit(1);
        c = look();
        _exit(write(ends[1], &c, sizeof c) != (ssize_t)sizeof c);
    }
    close(ends[1]);
    assert_int_equal(read(ends[0], &c, sizeof c), sizeof c);
    close(ends[0]);
    assert_true(waitpid(child, &status, 0) == child && status == 0);
    return c;
}

/* Before this process has looked. */
static int set_up(void **state)
{
    (void)state;
    begin_random(20261);
    for (int j = 0; j < DIM; j++) weight[j] = (float)either();
    for (int i = 0; i < ROWS * DIM; i++) rows[i] = (float)either();
    for (int i = 0; i < STEPS; i++) with[i] = look_with(names[i]);
    without = look_with(NULL);
    with_empty = look_with("");
    with_unknown = look_with("abacus");
    return 0;
}

/* At each step that is there all choose what they are to, whoever asks for it; what is not there, or is no word, counts for no wish. */
static void test_heeded(void **state)
{
    (void)state;
    static const char *const gemm[STEPS] = {"portable", "avx2", "avx512", "avx512", "avx512", "amx"};
    static const char *const rank[STEPS] = {"portable", "avx2", "avx512", "avx512", "avx512vnni", "avx512vnni"};
    static const bool new_scan[STEPS] = {true, true, false, true, false, false}, new_sums[STEPS] = {true, true, true, false, false, true};
    choices before = {.gemm = NULL};
    for (int i = 0; i < STEPS; i++) {
        if (!iso_isa_use(names[i])) {
            assert_true(same(&with[i], &without));
            continue;
        }
        const choices now = look();
        for (int what = 0; what < STEPS; what++) assert_int_equal(iso_isa_has((iso_isa)what), what <= i);
        assert_string_equal(now.gemm, gemm[i]);
        assert_string_equal(now.rank, rank[i]);
        assert_int_equal(now.bytes, i > 0);
        assert_int_equal(now.sums != before.sums, new_sums[i]);
        assert_int_equal(memcmp(now.scores, before.scores, sizeof now.scores) != 0, new_scan[i]);
        assert_true(same(&with[i], &now));
        assert_int_equal(i > 0 && same(&with[0], &now), false); /* the comparison sees a difference */
        before = now;
    }
    assert_true(iso_isa_use(NULL));
    const choices all = look();
    assert_true(same(&all, &before) && same(&all, &without) && same(&all, &with_empty) && same(&all, &with_unknown));
}

static void test_refused(void **state)
{
    (void)state;
    assert_true(iso_isa_use("portable"));
    assert_false(iso_isa_use("") || iso_isa_use("avx") || iso_isa_use("avx5121") || iso_isa_use("PORTABLE"));
    assert_true(iso_isa_has(ISO_ISA_PORTABLE) && !iso_isa_has(ISO_ISA_AVX2));
    assert_true(iso_isa_use(NULL));
    for (int what = 0; what < ISO_ISA_AMX; what++) assert_int_equal(iso_isa_has((iso_isa)what), what <= (int)iso_isa_of_processor());
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_heeded), cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, set_up, NULL);
}
