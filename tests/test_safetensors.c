/* test_safetensors.c: what is written is read back; what is damaged is refused, by hand-made cases and by fuzzing. */
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "model/philox.h"
#include "model/safetensors.h"
#include "tests/check.h"
#include "tests/folder.h"

static const uint64_t seed = 4711;
static char folder[256], path[320];

static int setup(void **state)
{
    (void)state;
    if (!make_folder(folder, sizeof folder, "safetensors")) return -1;
    snprintf(path, sizeof path, "%s/file with space.safetensors", folder);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

/* A file from its JSON header and that many bytes of data. */
static char *make(const char *json, size_t data, size_t *size)
{
    uint64_t n = strlen(json);
    *size = 8 + n + data;
    char *bytes = iso_calloc(*size, 1);
    assert_non_null(bytes);
    memcpy(bytes, &n, 8);
    memcpy(bytes + 8, json, n);
    for (size_t i = 0; i < data; i++) bytes[8 + n + i] = (char)(i * 37);
    return bytes;
}

static iso_status parse_json(const char *json, size_t data, iso_error *err)
{
    size_t size;
    iso_st *f = NULL;
    char *bytes = make(json, data, &size);
    iso_status s = iso_st_parse(bytes, size, "x", &f, err);
    assert_true((s == ISO_OK) == (f != NULL));
    iso_st_free(f);
    free(bytes);
    return s;
}

static void save_sample(const char *where)
{
    float a[6] = {1, -2, 3.5f, 0x1p-149f, -0.0f, INFINITY}, s = 7;
    iso_st_out tensor[] = {{"b.weight", iso_shape2(2, 3), a}, {"a", iso_shape0(), &s}, {"name \"with\" \xc3\xa4", iso_shape1(1), &s}};
    iso_st_meta_pair pair[] = {{"key", "value \n \"quoted\""}, {"empty", ""}, {"other", "\xe2\x82\xac"}};
    iso_error err = {0};
    if (iso_st_save(where, 3, tensor, 3, pair, &err)) fail_msg("%s", err.message);
}

static void round_trip(void **state)
{
    (void)state;
    iso_st *f;
    iso_error err = {0};
    float got[6], want[6] = {1, -2, 3.5f, 0x1p-149f, -0.0f, INFINITY};
    double wide[6];
    save_sample(path);
    if (iso_st_load(path, &f, &err)) fail_msg("%s", err.message);
    assert_int_equal(iso_st_count(f), 3);
    assert_string_equal(iso_st_at(f, 0)->name, "b.weight");
    assert_string_equal(iso_st_at(f, 1)->name, "a");
    const iso_st_tensor *t = iso_st_find(f, "b.weight");
    iso_shape shape = iso_shape2(2, 3), other = iso_shape2(3, 2);
    assert_true(t && t->dtype == ISO_ST_F32 && iso_st_is_shape(t, &shape) && !iso_st_is_shape(t, &other));
    assert_int_equal(iso_st_f32(t, got, &err), ISO_OK);
    assert_memory_equal(got, want, sizeof got);
    assert_int_equal(iso_st_f64(t, wide, &err), ISO_OK);
    assert_true(wide[1] == -2 && wide[3] == 0x1p-149 && isinf(wide[5]));
    int64_t index[6];
    assert_int_equal(iso_st_i64(t, index, &err), ISO_E_FORMAT);
    t = iso_st_find(f, "a");
    assert_true(t && t->ndim == 0 && t->count == 1);
    assert_null(iso_st_find(f, "c"));
    assert_non_null(iso_st_find(f, "name \"with\" \xc3\xa4"));
    assert_string_equal(iso_st_meta(f, "key"), "value \n \"quoted\"");
    assert_string_equal(iso_st_meta(f, "other"), "\xe2\x82\xac");
    assert_string_equal(iso_st_meta(f, "empty"), "");
    assert_null(iso_st_meta(f, "nothing"));
    char text[192];
    assert_string_equal(iso_st_shape_text(iso_st_find(f, "b.weight"), text), "[2, 3]");
    iso_st_free(f);

    char *bytes; /* the data begin at a multiple of 8 */
    size_t size;
    uint64_t header;
    assert_int_equal(iso_file_read(path, 1 << 20, &bytes, &size, &err), ISO_OK);
    memcpy(&header, bytes, 8);
    assert_int_equal(header % 8, 0);
    free(bytes);
}

static void save_refuses(void **state)
{
    (void)state;
    float x = 1;
    iso_error err = {0};
    char bad[600];
    iso_st_out twice[] = {{"a", iso_shape0(), &x}, {"a", iso_shape0(), &x}};
    iso_st_meta_pair latin = {"key", "\xe4"};
    assert_int_equal(iso_st_save(path, 2, twice, 0, NULL, &err), ISO_E_ARGUMENT);
    assert_int_equal(iso_st_save(path, 1, twice, 1, &latin, &err), ISO_E_ARGUMENT);
    iso_st_meta_pair same[] = {{"key", "1"}, {"key", "2"}};
    assert_int_equal(iso_st_save(path, 1, twice, 2, same, &err), ISO_E_ARGUMENT);
    assert_int_equal(iso_st_save(path, 1, &(iso_st_out){"\xe4", iso_shape0(), &x}, 0, NULL, &err), ISO_E_ARGUMENT);
    snprintf(bad, sizeof bad, "%s/missing/file", folder);
    assert_int_equal(iso_st_save(bad, 1, twice, 0, NULL, &err), ISO_E_IO);
    assert_non_null(strstr(err.message, "missing"));
    assert_int_equal(iso_st_load(bad, &(iso_st *){NULL}, &err), ISO_E_IO);
    assert_int_equal(iso_st_load(folder, &(iso_st *){NULL}, &err), ISO_E_IO);
}

#define T(shape, begin, end) "{\"a\":{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":[" begin "," end "]}}"

static void good_headers(void **state)
{
    (void)state;
    iso_error err = {0};
    assert_int_equal(parse_json("{}", 0, &err), ISO_OK);
    assert_int_equal(parse_json(T("[2,3]", "0", "24"), 24, &err), ISO_OK);
    assert_int_equal(parse_json(T("[2,3]", "0", "24") "     ", 24, &err), ISO_OK); /* padding */
    assert_int_equal(parse_json(T("[]", "0", "4"), 4, &err), ISO_OK);
    assert_int_equal(parse_json(T("[0,5]", "0", "0"), 0, &err), ISO_OK);
    assert_int_equal(parse_json("{\"a\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[0,6]}}", 6, &err), ISO_OK);
    /* Tensors in any order, as long as they tile the data. */
    assert_int_equal(parse_json("{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[8,11]},"
                                "\"b\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]}}", 11, &err), ISO_OK);
}

/* Every way to write a character. */
static void escapes(void **state)
{
    (void)state;
    size_t size;
    iso_st *f = NULL;
    iso_error err = {0};
    char *bytes = make("{\"__metadata__\":{\"\\u006bey\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t \\u0001\\u007f\\u0080\\u07ff\\u0800\\uFFFF\\ud800\\udc00\\uDBFF\\uDFFF\xc3\xa4\"}}", 0,
                       &size);
    if (iso_st_parse(bytes, size, "x", &f, &err)) fail_msg("%s", err.message);
    assert_non_null(iso_st_meta(f, "key"));
    assert_string_equal(iso_st_meta(f, "key"),
                        "\"\\/\b\f\n\r\t \x01\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xef\xbf\xbf\xf0\x90\x80\x80\xf4\x8f\xbf\xbf\xc3\xa4");
    iso_st_free(f);
    free(bytes);
}

/* Deliberately wrong files, every one. */
static const struct { const char *json; size_t data; } wrong[] = {
    {"[]", 0},
    {"{", 0},
    {"{}x", 0},
    {"{} {}", 0},
    {"{\"a\":1}", 0},
    {"{\"a\":{}}", 0},
    {"{\"a\":[]}", 0},
    {"{\"__metadata__\":[]}", 0},
    {"{\"__metadata__\":{\"a\":1}}", 0},
    {"{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0},
    {"{\"__metadata__\":{},\"__metadata__\":{}}", 0},
    {"{\"__metadata__\":{\"a\":\"1\",}}", 0},
    {"{\"__metadata__\":{\"a\":\"\xed\xa0\x80\"}}", 0},
    {"{\"__metadata__\":{\"a\":\"\t\"}}", 0},
    {"{\"__metadata__\":{\"a\":\"\\x\"}}", 0},
    {"{\"__metadata__\":{\"a\":\"\\u00g0\"}}", 0},
    {"{\"__metadata__\":{\"a\":\"\\ud83d\"}}", 0},            /* half a pair */
    {"{\"__metadata__\":{\"a\":\"\\ud83d\\u0041\"}}", 0},
    {"{\"__metadata__\":{\"a\":\"\\ud83d\\ue000\"}}", 0},
    {"{\"__metadata__\":{\"a\":\"\\ude00\"}}", 0},
    {"{\"__metadata__\":{\"a\":\"\\u00", 0},
    {"{\"__metadata__\":{\"a\":\"\\", 0},
    {"{\"\xff\":1}", 0},
    {"{\"a\\u0000b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4},
    {T("[2,3]", "0", "24"), 23},                                  /* cut short */
    {T("[2,3]", "0", "24"), 25},                                  /* something behind */
    {T("[2,3]", "0", "20"), 24},
    {T("[2,2]", "0", "24"), 24},                                  /* more bytes than numbers */
    {T("[2,3]", "4", "28"), 28},                                  /* a gap */
    {T("[2,3]", "24", "0"), 24},                                  /* end before begin */
    {T("[2,3]", "-24", "0"), 24},
    {T("[-2,-3]", "0", "24"), 24},
    {T("[2.0,3]", "0", "24"), 24},
    {T("[true]", "0", "4"), 4},
    {T("6", "0", "24"), 24},
    {T("[2,3]", "0", "24.0"), 24},
    {T("[2,3]", "\"0\"", "24"), 24},
    {T("[2,3]", "0,0", "24"), 24},
    {T("[2,3]", "0", "24,"), 24},
    {T("[2,3]", "00", "24"), 24},
    {T("[2,3]", "0", "024"), 24},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"more\":1}}", 4},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"shape\":[1],\"data_offsets\":[0,4]}}", 4},
    {T("[9223372036854775807]", "0", "24"), 24},                  /* times 4 overflows */
    {T("[4294967296,4294967296]", "0", "0"), 0},                  /* 2^64 = 0 */
    {T("[4611686018427387904]", "0", "0"), 0},                    /* times 4 = 0 */
    {T("[99999999999999999999]", "0", "0"), 0},
    {T("[18446744073709551617]", "0", "4"), 4},                   /* 2^64 + 1 = 1 */
    {T("[1,1,1,1,1,1,1,1,1]", "0", "4"), 4},                      /* too many axes */
    {T("[2]", "9223372036854775800", "9223372036854775807"), 8},
    {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0]}}", 0},
    {"{\"a\":{\"dtype\":\"F33\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4},
    {"{\"a\":{\"dtype\":32,\"shape\":[1],\"data_offsets\":[0,4]}}", 4},
    {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4},
    {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":{\"0\":4}}}", 4},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
     "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8}, /* one name twice */
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
     "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8}, /* overlap */
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
     "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8}, /* the same bytes twice */
};

static void wrong_headers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        iso_error err = {0};
        iso_status s = parse_json(wrong[i].json, wrong[i].data, &err);
        if (s != ISO_E_FORMAT) fail_msg("case %zu gave %d: %s", i, s, wrong[i].json);
        assert_true(err.message[0] && !strchr(err.message, '\n'));
    }
}

/* Lengths of the header that the file does not have; files of a few bytes. */
static void wrong_lengths(void **state)
{
    (void)state;
    size_t size;
    iso_st *f = NULL;
    iso_error err = {0};
    char *bytes = make(T("[2,3]", "0", "24"), 24, &size);
    const uint64_t lengths[] = {0, 1, 2, strlen(T("[2,3]", "0", "24")) - 1, size - 7, size, 100000001, 1ull << 32, 1ull << 63, UINT64_MAX,
                                UINT64_MAX - 7};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        memcpy(bytes, &lengths[i], 8);
        assert_int_equal(iso_st_parse(bytes, size, "x", &f, &err), ISO_E_FORMAT);
        if (lengths[i] >= size - 7) assert_non_null(strstr(err.message, "its header would be")); /* known before anything is read of it */
    }
    uint64_t n = strlen(T("[2,3]", "0", "24"));
    memcpy(bytes, &n, 8);
    for (size_t cut = 0; cut < size; cut++) { /* truncated anywhere; in memory of its own, so that a byte too far is seen */
        char *part = malloc(cut ? cut : 1);
        memcpy(part, bytes, cut);
        assert_int_equal(iso_st_parse(part, cut, "x", &f, &err), ISO_E_FORMAT);
        free(part);
        unlink(path); /* truncating in place makes some file systems sync */
        FILE *out = fopen(path, "wb");
        assert_true(out && fwrite(bytes, 1, cut, out) == cut && fclose(out) == 0);
        assert_int_equal(iso_st_load(path, &f, &err), ISO_E_FORMAT);
    }
    assert_int_equal(iso_st_parse(bytes, size, "x", &f, &err), ISO_OK);
    iso_st_free(f);
    free(bytes);
}

/* Reads everything a parsed file offers: the sanitizers see a byte too far. */
static void touch(const iso_st *f)
{
    for (int i = 0; i < iso_st_count(f); i++) {
        const iso_st_tensor *t = iso_st_at(f, i);
        void *room = iso_calloc((size_t)t->count, 8);
        assert_non_null(room);
        iso_status a = iso_st_f32(t, room, NULL), b = iso_st_f64(t, room, NULL), c = iso_st_i64(t, room, NULL);
        assert_true((a == ISO_OK) == (b == ISO_OK) && !(a == ISO_OK && c == ISO_OK));
        assert_ptr_equal(iso_st_find(f, t->name), t);
        free(room);
    }
}

static void fuzz(void **state)
{
    (void)state;
    char *bytes;
    size_t size, accepted = 0;
    uint64_t header;
    iso_error err = {0};
    save_sample(path);
    assert_int_equal(iso_file_read(path, 1 << 20, &bytes, &size, &err), ISO_OK);
    memcpy(&header, bytes, 8);
    static const char interesting[] = "0123456789,:[]{}\"- e.\\\0\xff";
    for (uint32_t round = 0; round < 20000; round++) {
        iso_draw d = {seed, 1, round};
        uint64_t at = 0;
        size_t length = iso_draw_below(d, at++, 8) == 0 ? iso_draw_below(d, at, size + 1) : size;
        char *copy = malloc(length ? length : 1);
        memcpy(copy, bytes, length);
        uint64_t changes = 1 + iso_draw_below(d, ++at, 4);
        for (uint64_t c = 0; length && c < changes; c++) {
            size_t where = iso_draw_below(d, ++at, c == 0 && length > 8 + header ? 8 + header : length);
            uint64_t how = iso_draw_below(d, ++at, 3);
            if (how == 0) copy[where] = (char)iso_draw_below(d, ++at, 256);
            else if (how == 1) copy[where] ^= (char)(1 << iso_draw_below(d, ++at, 8));
            else copy[where] = interesting[iso_draw_below(d, ++at, sizeof interesting - 1)];
        }
        iso_st *f = NULL;
        iso_status s = iso_st_parse(copy, length, "x", &f, &err);
        assert_true(s == ISO_OK || s == ISO_E_FORMAT);
        if (s == ISO_OK) {
            accepted++;
            touch(f);
        }
        iso_st_free(f);
        free(copy);
    }
    free(bytes);
    /* A changed letter in a name or a value leaves a valid file: some pass, most do not. */
    assert_true(accepted > 0 && accepted < 10000);
}

/* Looked at without waiting for one who writes. */
static void pipes(void **state)
{
    (void)state;
    iso_st *f = NULL;
    iso_error err = {0};
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    alarm(60);
    assert_int_equal(iso_st_load(path, &f, &err), ISO_E_IO);
    alarm(0);
    assert_non_null(strstr(err.message, "it is a named pipe"));
    assert_int_equal(iso_st_load("/dev/null", &f, &err), ISO_E_IO);
    assert_non_null(strstr(err.message, "it is no regular file"));
    assert_null(f);
}

int main(void)
{
    printf("seed %llu\n", (unsigned long long)seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),    cmocka_unit_test(save_refuses),  cmocka_unit_test(good_headers),
        cmocka_unit_test(escapes),
        cmocka_unit_test(wrong_headers), cmocka_unit_test(wrong_lengths), cmocka_unit_test(fuzz),
        cmocka_unit_test(pipes),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
