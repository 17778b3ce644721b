/* test_base.c: errors, memory, command lines, progress, text. */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/args.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/progress.h"
#include "base/text.h"
#include "tests/check.h"

/* ------------------------------------------------------------ errors */

static void test_status_text(void **state)
{
    (void)state;
    for (int s = 0; s >= ISO_E_INTERNAL; s--) assert_true(strlen(iso_status_text((iso_status)s)) > 1);
    assert_string_equal(iso_status_text(ISO_E_MEMORY), "out of memory");
    assert_non_null(iso_status_text((iso_status)42));
}

static void test_fail(void **state)
{
    (void)state;
    iso_error err;
    assert_int_equal(iso_fail(&err, ISO_E_FORMAT, "bad %s: %d", "a\nb\033[1m", 7), ISO_E_FORMAT);
    assert_int_equal(err.status, ISO_E_FORMAT);
    assert_string_equal(err.message, "bad a?b?[1m: 7");
    assert_int_equal(iso_fail(NULL, ISO_E_FORMAT, "bad"), ISO_E_FORMAT);

    errno = ENOENT;
    assert_int_equal(iso_fail_errno(&err, "cannot open %s", "x"), ISO_E_IO);
    assert_string_equal(err.message, "cannot open x: No such file or directory");
    errno = ENOMEM;
    assert_int_equal(iso_fail_errno(&err, "cannot open %s", "x"), ISO_E_MEMORY);

    assert_int_equal(iso_fail_memory(&err), ISO_E_MEMORY);
    assert_int_equal(iso_fail_prefix(&err, ISO_E_IO, "image %d", 3), ISO_E_IO);
    assert_string_equal(err.message, "image 3: out of memory");
    assert_int_equal(iso_fail_prefix(NULL, ISO_E_IO, "image"), ISO_E_IO);
}

static void test_fail_long(void **state)
{
    (void)state;
    iso_error err;
    char path[3000];
    memset(path, 'p', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    errno = EACCES;
    iso_fail_errno(&err, "cannot open %s", path);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
    const char *tail = ": Permission denied";
    assert_string_equal(err.message + strlen(err.message) - strlen(tail), tail);
    iso_fail_prefix(&err, ISO_E_IO, "%s", path);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
}

/* ------------------------------------------------------------ memory */

static void test_memory(void **state)
{
    (void)state;
    unsigned char *p = iso_calloc(3, 5);
    for (int i = 0; i < 15; i++) assert_int_equal(p[i], 0);
    free(p);
    volatile size_t huge = SIZE_MAX / 2; /* volatile: gcc warns of the size it can see */
    assert_null(iso_calloc(huge, 3));
    void *none = iso_calloc(0, 8);
    assert_non_null(none);
    free(none);
    for (size_t size = ISO_HUGE_PAGE - 1; size <= ISO_HUGE_PAGE + 1; size++) {
        unsigned char *pages = iso_huge_alloc(size);
        assert_non_null(pages);
        assert_int_equal((uintptr_t)pages % ISO_HUGE_PAGE, 0);
        assert_int_equal(pages[0] | pages[size - 1], 0);
        memset(pages, 1, size);
        iso_huge_free(pages, size);
    }
    assert_null(iso_huge_alloc(SIZE_MAX));
    iso_huge_free(NULL, 1);

    int *list = NULL;
    size_t capacity = 0;
    for (int i = 0; i < 1000; i++) {
        assert_true(iso_grow(&list, &capacity, (size_t)i + 1, sizeof *list));
        list[i] = i;
    }
    assert_true(capacity >= 1000 && capacity < 4000);
    for (int i = 0; i < 1000; i++) assert_int_equal(list[i], i);
    int *before = list;
    size_t room = capacity;
    assert_false(iso_grow(&list, &capacity, huge, sizeof *list));
    assert_ptr_equal(list, before);
    assert_int_equal(capacity, room);
    free(list);

    char *text = iso_strndup("abcdef", 3);
    assert_string_equal(text, "abc");
    free(text);
    text = iso_format("%d-%s", 4, "x");
    assert_string_equal(text, "4-x");
    free(text);
}

/* ------------------------------------------------------------ command lines */

typedef struct config {
    const char *db, *format;
    int64_t k, seed;
    double alpha;
    iso_list query;
    bool quiet, nul;
} config;

static const iso_option options[] = {
    {"db", 0, ISO_ARG_TEXT, offsetof(config, db), "DB", "the database", 0, 0},
    {"format", 0, ISO_ARG_CHOICE, offsetof(config, format), "table|tsv|json", "how to print (default table)", 0, 0},
    {"k", 'k', ISO_ARG_INT, offsetof(config, k), "N", "how many answers (default 10)", 1, 1e6},
    {"seed", 0, ISO_ARG_INT, offsetof(config, seed), "S", "of random numbers", -9007199254740992.0, 9007199254740992.0},
    {"alpha", 'a', ISO_ARG_REAL, offsetof(config, alpha), "X", "weight", 0, 0},
    {"query", 'q', ISO_ARG_LIST, offsetof(config, query), "PATH", "example images", 0, 0},
    {"quiet", 0, ISO_ARG_FLAG, offsetof(config, quiet), NULL, "say nothing", 0, 0},
    {"null", '0', ISO_ARG_FLAG, offsetof(config, nul), NULL, "NUL ends paths", 0, 0},
    {NULL, 0, ISO_ARG_FLAG, 0, NULL, NULL, 0, 0},
};
static const iso_command command = {"prog sub", "prog sub --db DB [options]", "About.", options, "Examples."};

/* Parses words (NULL ends them) with stdout and stderr caught in `said`. */
static int parse_caught(config *c, iso_list *rest, char said[8192], const char **words)
{
    char *argv[32] = {"prog", "sub"};
    int argc = 2;
    for (; *words; words++) argv[argc++] = (char *)(uintptr_t)*words;
    FILE *caught = tmpfile();
    fflush(stdout);
    fflush(stderr);
    int out = dup(1), bad = dup(2);
    dup2(fileno(caught), 1);
    dup2(fileno(caught), 2);
    int code = iso_args_parse(&command, argc, argv, 2, c, rest);
    fflush(stdout);
    fflush(stderr);
    dup2(out, 1);
    dup2(bad, 2);
    close(out);
    close(bad);
    rewind(caught);
    size_t n = fread(said, 1, 8191, caught);
    said[n] = '\0';
    fclose(caught);
    return code;
}

static void test_args_all_kinds(void **state)
{
    (void)state;
    config c = {.k = 10, .format = "table"};
    iso_list rest = {0};
    char said[8192];
    const char *words[] = {"--query", "a b", "-", "--db=x=y", "-k5", "--seed=9007199254740992", "-q", "c", "-0", "--alpha", "-1.5e-3",
                           "--format", "tsv", "--quiet", "r1", "--", "--db", NULL};
    assert_int_equal(parse_caught(&c, &rest, said, words), ISO_ARGS_RUN);
    assert_string_equal(said, "");
    assert_int_equal(c.query.count, 3);
    assert_string_equal(c.query.item[0], "a b");
    assert_string_equal(c.query.item[1], "-");
    assert_string_equal(c.query.item[2], "c");
    assert_string_equal(c.db, "x=y");
    assert_string_equal(c.format, "tsv");
    assert_int_equal(c.k, 5);
    assert_int_equal(c.seed, 9007199254740992);
    assert_true(fabs(c.alpha + 1.5e-3) < 1e-18);
    assert_true(c.quiet && c.nul);
    assert_int_equal(rest.count, 2);
    assert_string_equal(rest.item[0], "r1");
    assert_string_equal(rest.item[1], "--db");
    iso_list_free(&c.query);
    iso_list_free(&rest);
    iso_list_free(NULL);
}

/* A file may be called as an option is. */
static void test_args_list_behind_dashes(void **state)
{
    (void)state;
    static const char *const want[] = {"a", "-b", "--quiet", "--", "c"};
    for (int first = 0; first < 2; first++) { /* "--" behind a value, or behind the option */
        config c = {.k = 10};
        char said[8192];
        const char *words[] = {"-k", "5", "--query", "a", "--", "-b", "--quiet", "--", "c", NULL}, *begun[] = {"-k", "5", "--query", "--", "a", "-b", "--quiet", "--", "c", NULL};
        assert_int_equal(parse_caught(&c, NULL, said, first ? begun : words), ISO_ARGS_RUN);
        assert_string_equal(said, "");
        assert_false(c.quiet);
        assert_int_equal(c.query.count, 5);
        for (int i = 0; i < 5; i++) assert_string_equal(c.query.item[i], want[i]);
        iso_list_free(&c.query);
    }
}

static void test_args_usage_errors(void **state)
{
    (void)state;
    const struct {
        const char *words[4], *message;
    } bad[] = {
        {{"-k", "0"}, "-k must be at least 1, not 0"},
        {{"-k", "-3"}, "-k must be at least 1, not -3"},
        {{"-k", "ten"}, "-k needs a whole number, not 'ten'"},
        {{"-k", "5x"}, "-k needs a whole number, not '5x'"},
        {{"-k", "99999999999999999999"}, "-k is too large"},
        {{"-k", "2000000"}, "-k must be at most 1000000"},
        {{"--seed", "9007199254740993"}, "--seed must be at most 9007199254740992, not 9007199254740993"}, /* as a double it would fit */
        {{"--seed", "-9007199254740993"}, "--seed must be at least -9007199254740992, not -9007199254740993"},
        {{"--seed", "9223372036854775807"}, "--seed must be at most"},
        {{"-k"}, "-k needs a value"},
        {{"--db", "--quiet"}, "--db needs a value"},
        {{"--db", ""}, "--db needs a value, not an empty word"},
        {{"--db="}, "--db needs a value, not an empty word"},
        {{"--query"}, "--query needs a value"},
        {{"--query", "--"}, "--query needs a value"},
        {{"--query", "--", ""}, "--query needs a value, not an empty word"},
        {{"--query=a", "--", "b"}, "'b' belongs to no option"},
        {{"--alpha", "nan"}, "--alpha needs a finite number"},
        {{"--alpha", "inf"}, "--alpha needs a finite number"},
        {{"--alpha", "1,5"}, "--alpha needs a finite number"},
        {{"--format", "xml"}, "--format must be one of table|tsv|json, not 'xml'"},
        {{"--format", "table|tsv"}, "--format must be one of"},
        {{"--quiet=yes"}, "--quiet takes no value"},
        {{"--what\n"}, "unknown option --what?"},
        {{"-z"}, "unknown option -z"},
        {{"-d", "x"}, "unknown option -d"}, /* --db has no letter */
        {{"word"}, "'word' belongs to no option"},
        {{""}, "'' belongs to no option"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        config c = {.k = 10};
        char said[8192];
        assert_int_equal(parse_caught(&c, NULL, said, (const char **)(uintptr_t)bad[i].words), 2);
        if (!strstr(said, bad[i].message)) fail_msg("said: %s", said);
        assert_non_null(strstr(said, "prog sub: "));
        assert_non_null(strstr(said, "usage: prog sub --db DB"));
        assert_int_equal(c.k, 10);
        iso_list_free(&c.query);
    }
}

/* Bounds are allowed themselves. */
static void test_args_bounds(void **state)
{
    (void)state;
    config c = {.k = 10};
    char said[8192];
    assert_int_equal(parse_caught(&c, NULL, said, (const char *[]){"-k", "1", "--seed", "-9007199254740992", "--alpha", "-.5", NULL}), ISO_ARGS_RUN);
    assert_true(c.k == 1 && c.seed == -9007199254740992 && c.alpha == -0.5);
    assert_int_equal(parse_caught(&c, NULL, said, (const char *[]){"-k", "1000000", "--seed", "9007199254740992", NULL}), ISO_ARGS_RUN);
    assert_true(c.k == 1000000 && c.seed == 9007199254740992);
}

/* Ids are of 64 bits; one that is larger is no other item's. */
static void test_args_id(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "-1", "+1", " 1", "1 ", "0x1", "18446744073709551616", "x"};
    uint64_t id = 7;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (iso_args_id(bad[i], &id)) fail_msg("'%s' is taken for an id", bad[i]);
    assert_int_equal(id, 7);
    assert_true(iso_args_id("18446744073709551615", &id) && id == UINT64_MAX);
    assert_true(iso_args_id("0", &id) && id == 0);
}

static void test_args_help(void **state)
{
    (void)state;
    config c = {0};
    char said[8192];
    assert_int_equal(parse_caught(&c, NULL, said, (const char *[]){"--help", "--nonsense", NULL}), 0);
    assert_non_null(strstr(said, "usage: prog sub"));
    assert_non_null(strstr(said, "  -q, --query PATH ..."));
    assert_non_null(strstr(said, "  -k N "));
    assert_non_null(strstr(said, "--version"));
    assert_non_null(strstr(said, "Examples."));
    assert_int_equal(parse_caught(&c, NULL, said, (const char *[]){"--version", NULL}), 0);
    assert_string_equal(said, "prog " ISO_VERSION "\n");
}

/* ------------------------------------------------------------ progress */

static void test_progress(void **state)
{
    (void)state;
    char buf[32];
    assert_string_equal(iso_duration(12.2, buf), "12 s");
    assert_string_equal(iso_duration(185, buf), "3 min 05 s");
    assert_string_equal(iso_duration(3720, buf), "1 h 02 min");
    assert_string_equal(iso_duration(59.7, buf), "1 min 00 s");
    assert_string_equal(iso_duration(NAN, buf), "?");
    iso_progress p;
    iso_progress_open(&p, true);
    assert_null(p.show);
    iso_progress_pass(&p, "decoding", "images", 10);
    iso_progress_step(&p, 3);
    assert_true(p.done == 3 && p.total == 10);
    iso_progress_end(&p);
    iso_progress_pass(NULL, "decoding", "images", 10);
    iso_progress_step(NULL, 3);
    iso_progress_end(NULL);
    double before = iso_now();
    assert_true(iso_now() >= before);
}

static void test_interrupt(void **state)
{
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        iso_interrupt_install();
        if (iso_interrupted()) _exit(3);
        raise(SIGTERM);
        if (!iso_interrupted()) _exit(4);
        raise(SIGINT); /* the second one kills, whichever it is */
        _exit(5);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGINT);
}

/* ------------------------------------------------------------ text */

typedef void (*writer)(FILE *out, const char *bytes, size_t n);

static void assert_written(writer write, const char *bytes, size_t n, const char *want)
{
    char *got = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&got, &size);
    write(out, bytes, n);
    fclose(out);
    assert_string_equal(got, want);
    free(got);
}

static void write_number(FILE *out, const char *bytes, size_t n)
{
    (void)n;
    iso_text_json_number(out, strtod(bytes, NULL));
}

static void write_path(FILE *out, const char *bytes, size_t n)
{
    (void)n;
    iso_text_json_path(out, "path", bytes);
}

static void test_text(void **state)
{
    (void)state;
    assert_written(iso_text_tsv, "a\tb\nc\rd\\e\xff", 10, "a\\tb\\nc\\rd\\\\e\xff");
    assert_written(iso_text_json, "a\"\\\n\x01\xc3\xa9\xff\xe2\x82", 10,
                   "\"a\\\"\\\\\\n\\u0001\xc3\xa9\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
    assert_written(iso_text_json, "\xc3\xa9", 1, "\"\xef\xbf\xbd\""); /* what follows is no part of it */
    assert_written(iso_text_json, "a\x7f", 2, "\"a\\u007f\"");
    assert_written(write_path, "ok.jpg", 0, "\"path\": \"ok.jpg\"");
    assert_written(write_path, "\xff", 0, "\"path\": \"\xef\xbf\xbd\", \"path_bytes\": \"/w==\"");
    assert_written(write_path, "a\xff", 0, "\"path\": \"a\xef\xbf\xbd\", \"path_bytes\": \"Yf8=\"");
    assert_written(write_path, "a\xff\xfe", 0, "\"path\": \"a\xef\xbf\xbd\xef\xbf\xbd\", \"path_bytes\": \"Yf/+\"");
    assert_written(write_number, "0.1", 0, "0.1");
    assert_written(write_number, "-3", 0, "-3");
    static const char *const fewest[] = {"0.1234567", "0.12345678", "0.123456789", "0.1234567891", "0.12345678901", "0.123456789012", "0.1234567890123", "0.12345678901234",
                                         "0.123456789012345", "0.1234567890123456", "0.30000000000000004", "1.7976931348623157e+308"};
    for (size_t i = 0; i < sizeof fewest / sizeof *fewest; i++) assert_written(write_number, fewest[i], 0, fewest[i]);
    assert_written(write_number, "nan", 0, "null");
    assert_written(write_number, "-inf", 0, "null");
}

static void test_utf8(void **state)
{
    (void)state;
    assert_true(iso_text_is_utf8("", 0));
    assert_true(iso_text_is_utf8("z\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xed\x9f\xbf\xf4\x8f\xbf\xbf", 17));
    const char *bad[] = {"\x80", "\xc0\xaf", "\xc1\xbf", "\xe0\x80\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                         "\xf5\x80\x80\x80", "\xf0\x8f\xbf\xbf", "\xc3", "\xe2\x82", "\xf0\x9f\x98", "\xc3(", "\xff"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_false(iso_text_is_utf8(bad[i], strlen(bad[i])));
}

static void test_middle(void **state)
{
    (void)state;
    const struct {
        const char *text;
        size_t keep;
        const char *want;
    } c[] = {{"abcdef", 6, "abcdef"}, {"abcdef", 4, "ab…ef"}, {"abcdef", 3, "ab…f"}, {"abcdef", 0, "…"}, {"", 0, ""},
             {"éa\xe2\x82\xac", 3, "é…"}, {"\xe2\x82\xac\xe2\x82\xac", 5, "\xe2\x82\xac…"}, {"\xe2\x82\xacxyz", 3, "…z"}};
    for (size_t i = 0; i < sizeof c / sizeof c[0]; i++) {
        char *text = iso_text_middle(c[i].text, c[i].keep);
        assert_string_equal(text, c[i].want);
        free(text);
    }
}

static void test_noncharacters(void **state)
{
    (void)state;
    char *text = iso_text_printable("\xef\xbf\xbe\xef\xbf\xbd\xef\xb7\x90\xef\xb7\xaf\xef\xb7\xb0\xef\xb7\x8f\xf0\x9f\xbf\xbf\xf0\x9f\xbf\xbd");
    assert_string_equal(text, "\\xEF\\xBF\\xBE\xef\xbf\xbd\\xEF\\xB7\\x90\\xEF\\xB7\\xAF\xef\xb7\xb0\xef\xb7\x8f\\xF0\\x9F\\xBF\\xBF\xf0\x9f\xbf\xbd");
    free(text);
}

static void test_printable(void **state)
{
    (void)state;
    static const char wild[] = "a\n\033[0m\xc3\xa9\xff\xc2\x9b";
    char *shown = NULL;
    size_t size;
    FILE *out = open_memstream(&shown, &size);
    assert_int_equal(iso_text_show(NULL, wild, strlen(wild)), 25);
    assert_int_equal(iso_text_show(out, wild, strlen(wild)), 25);
    assert_int_equal(iso_text_show(out, wild + 5, 1), 1);
    fclose(out);
    assert_string_equal(shown, "a\\x0A\\x1B[0m\xc3\xa9\\xFF\\xC2\\x9Bm");
    free(shown);
    char *text = iso_text_printable("a\n\033[0m\xc3\xa9\xff\xc2\x9b");
    assert_string_equal(text, "a\\x0A\\x1B[0m\xc3\xa9\\xFF\\xC2\\x9B");
    free(text);
}

static void test_harmless(void **state)
{
    (void)state;
    char text[] = "a\n\033[0m\xc3\xa9\xc2\x9b\x9b\xff\xe4\x7f \xe2\x82\xac"; /* Latin-1 stays */
    iso_text_harmless(text);
    assert_string_equal(text, "a??[0m\xc3\xa9???\xff\xe4? \xe2\x82\xac");
}

/* The checks themselves must be able to fail: a base64 that is wrong is seen as wrong. */
static void test_wrong_is_seen(void **state)
{
    (void)state;
    char *got = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&got, &size);
    iso_text_json_path(out, "path", "\xff");
    fclose(out);
    assert_string_not_equal(got, "\"path\": \"\xef\xbf\xbd\", \"path_bytes\": \"/w=\"");
    free(got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_status_text),
        cmocka_unit_test(test_fail),
        cmocka_unit_test(test_fail_long),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_args_all_kinds),
        cmocka_unit_test(test_args_list_behind_dashes),
        cmocka_unit_test(test_args_usage_errors),
        cmocka_unit_test(test_args_bounds),
        cmocka_unit_test(test_args_id),
        cmocka_unit_test(test_args_help),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_interrupt),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_printable), cmocka_unit_test(test_harmless),
        cmocka_unit_test(test_middle),
        cmocka_unit_test(test_noncharacters),
        cmocka_unit_test(test_wrong_is_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
