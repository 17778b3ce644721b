/* test_model.c: model files, good and damaged; digests; parameters to and from a backend. */
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/text.h"
#include "model/safetensors.h"
#include "tests/check.h"
#include "tests/folder.h"
#include "tests/models.h"

static const uint64_t seed = 31;
static char folder[256], path[320];

static int setup(void **state)
{
    (void)state;
    if (!make_folder(folder, sizeof folder, "model")) return -1;
    snprintf(path, sizeof path, "%s/a model.safetensors", folder);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

/* --- files */
static void check_round_trip(const iso_net *net)
{
    iso_error err = {0};
    iso_model *m = fresh(net, seed), *back = NULL;
    assert_int_equal(iso_model_set_meta(m, "method", "isometric", &err), ISO_OK);
    assert_int_equal(iso_model_set_meta(m, "history", "1\t2\n3 \xc3\xa4", &err), ISO_OK);
    if (net->classes) {
        assert_int_equal(iso_model_save(m, path, &err), ISO_E_ARGUMENT);
        SAYS("does not name the 3 attributes");
        assert_int_equal(iso_model_set_meta(m, "attributes", "Bald Gr\xc3\xbcn Young", &err), ISO_OK);
    }
    if (iso_model_save(m, path, &err)) fail_msg("%s", err.message);
    if (iso_model_load(path, &back, &err)) fail_msg("%s", err.message);
    assert_true(same_parameters(m, back));
    assert_string_equal(iso_model_digest(m), iso_model_digest(back));
    assert_int_equal(strlen(iso_model_digest(m)), 32);
    assert_int_equal(strspn(iso_model_digest(m), "0123456789abcdef"), 32);
    assert_memory_equal(iso_model_net(m), iso_model_net(back), sizeof *net);
    assert_int_equal(iso_model_dim(back), net->latent);
    assert_string_equal(iso_model_meta(back, "method"), "isometric");
    assert_string_equal(iso_model_meta(back, "history"), "1\t2\n3 \xc3\xa4");
    assert_string_equal(iso_model_meta(back, "format"), "isoface");
    assert_string_equal(iso_model_meta(back, "version"), ISO_VERSION);
    assert_null(iso_model_meta(back, "nothing"));
    iso_model_free(m);
    /* Saved over itself: nothing changes. */
    char *first, *second;
    size_t n, k;
    assert_int_equal(iso_file_read(path, 1 << 28, &first, &n, &err), ISO_OK);
    assert_int_equal(iso_model_save(back, path, &err), ISO_OK);
    assert_int_equal(iso_file_read(path, 1 << 28, &second, &k, &err), ISO_OK);
    assert_true(n == k && memcmp(first, second, n) == 0);
    free(first);
    free(second);
    iso_model_free(back);
}

static void round_trip(void **state)
{
    (void)state;
    check_round_trip(&celeba);
    check_round_trip(&mlp);
    check_round_trip(&supervised);
}

/* Parameters stay where the file's memory has them, if they are aligned there; large files are read by all threads into huge pages. */
static void large_and_unaligned(void **state)
{
    (void)state;
    iso_error err = {0};
    iso_net large = celeba;
    large.width = 32;
    check_round_trip(&large);
    char *bytes;
    size_t n;
    assert_int_equal(iso_file_read(path, 1 << 28, &bytes, &n, &err), ISO_OK);
    assert_true(n > 4 << 20);
    for (uint64_t more = 1; more <= 4; more++) { /* spaces behind the header, which is JSON */
        uint64_t header;
        iso_model *m = NULL, *moved = NULL;
        iso_file *f = NULL;
        memcpy(&header, bytes, sizeof header);
        const uint64_t longer = header + more;
        if (iso_model_load(path, &m, &err)) fail_msg("%s", err.message);
        char *other = iso_format("%s/moved", folder);
        assert_int_equal(iso_file_create(other, &f, &err), ISO_OK);
        fwrite(&longer, sizeof longer, 1, iso_file_stream(f));
        fwrite(bytes + 8, 1, header, iso_file_stream(f));
        fwrite("    ", 1, more, iso_file_stream(f));
        fwrite(bytes + 8 + header, 1, n - 8 - header, iso_file_stream(f));
        assert_int_equal(iso_file_commit(f, &err), ISO_OK);
        if (iso_model_load(other, &moved, &err)) fail_msg("%s", err.message);
        assert_true(same_parameters(m, moved));
        assert_string_equal(iso_model_digest(m), iso_model_digest(moved));
        iso_model_data(moved, 1)[0] += 1;
        assert_string_not_equal(iso_model_digest(m), iso_model_digest(moved));
        assert_int_equal(truncate(other, (off_t)n - 5), 0);
        assert_int_equal(iso_model_load(other, &(iso_model *){NULL}, &err), ISO_E_FORMAT);
        iso_model_free(m);
        iso_model_free(moved);
        unlink(other);
        free(other);
    }
    free(bytes);
}

/* The names of a supervised model's attributes fit its classifier, and no other model has any. */
static void attribute_names(void **state)
{
    (void)state;
    iso_error err = {0};
    static const char *const bad[] = {"", "a", "a b", "a b c d", " a b c", "a b c ", "a  b c", "a b \xff"};
    iso_model *m = fresh(&supervised, seed), *other = fresh(&celeba, seed), *flowing = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(iso_model_set_meta(m, "attributes", bad[i], &err), ISO_E_ARGUMENT);
        assert_null(iso_model_meta(m, "attributes"));
    }
    SAYS("not UTF-8");
    assert_int_equal(iso_model_set_meta(m, "attributes", "a b c", &err), ISO_OK);
    assert_int_equal(iso_model_set_meta(m, "classes", "3", &err), ISO_E_ARGUMENT);
    assert_string_equal(iso_model_meta(m, "classes"), "3");
    assert_int_equal(iso_model_set_meta(other, "attributes", "a b c", &err), ISO_E_ARGUMENT);
    SAYS("not a supervised one");
    assert_int_equal(iso_model_with_flow(m, 2, 4, &flowing, &err), ISO_E_ARGUMENT);
    SAYS("no decoder");
    assert_null(flowing);
    assert_int_equal(iso_net_check_decoder(&supervised, &err), ISO_E_UNSUPPORTED);
    SAYS("a supervised model has no decoder");
    assert_int_equal(iso_net_check_decoder(&celeba, &err), ISO_OK);
    assert_int_equal(iso_net_check_decoder(&mlp, &err), ISO_OK);
    iso_model_free(m);
    iso_model_free(other);
}

static void metadata(void **state)
{
    (void)state;
    iso_error err = {0};
    iso_model *m = fresh(&mlp, seed);
    assert_int_equal(iso_model_set_meta(m, "arch", "celeba", &err), ISO_E_ARGUMENT);
    assert_int_equal(iso_model_set_meta(m, "a", "1", &err), ISO_OK);
    assert_int_equal(iso_model_set_meta(m, "b", "2", &err), ISO_OK);
    assert_int_equal(iso_model_set_meta(m, "a", "3", &err), ISO_OK);
    assert_string_equal(iso_model_meta(m, "a"), "3");
    assert_int_equal(iso_model_set_meta(m, "a", NULL, &err), ISO_OK);
    assert_int_equal(iso_model_set_meta(m, "a", NULL, &err), ISO_OK);
    assert_null(iso_model_meta(m, "a"));
    assert_string_equal(iso_model_meta(m, "b"), "2");
    assert_int_equal(iso_model_set_meta(m, "b", "\xff", &err), ISO_OK);
    assert_int_equal(iso_model_save(m, path, &err), ISO_E_ARGUMENT); /* not UTF-8 */
    assert_int_equal(iso_model_set_meta(m, "b", NULL, &err), ISO_OK);
    iso_model_data(m, 2)[0] = NAN;
    assert_int_equal(iso_model_save(m, path, &err), ISO_E_NUMERIC);
    iso_model_free(m);
}

static void digest(void **state)
{
    (void)state;
    iso_error err = {0};
    char before[33];
    iso_model *m = fresh(&celeba, seed), *other;
    for (int i = 0; i < iso_model_count(m); i++)
        for (int64_t k = 0; k < count_of(m, i); k++) iso_model_data(m, i)[k] = (float)((k + i) % 17) / 16;
    strcpy(before, iso_model_digest(m));
    assert_string_equal(before, "4f5c8cadd2c002dcfbcc7eccd2fd848a"); /* databases of other machines and times must keep theirs */
    assert_int_equal(iso_model_set_meta(m, "seed", "12", &err), ISO_OK);
    assert_string_equal(before, iso_model_digest(m));
    for (int i = 0; i < iso_model_count(m); i++) { /* the lowest bit of any tensor's last number counts */
        float *x = iso_model_data(m, i) + count_of(m, i) - 1, old = *x;
        *x = nextafterf(old, 2);
        assert_string_not_equal(before, iso_model_digest(m));
        *x = old;
        assert_string_equal(before, iso_model_digest(m));
    }
    iso_model_free(m);
    /* Another kind of net, and another number of classes, are another model; what the attributes are called is not. */
    iso_net four = supervised;
    four.classes = 4;
    m = fresh(&supervised, seed);
    other = fresh(&four, seed);
    strcpy(before, iso_model_digest(m));
    assert_string_not_equal(before, iso_model_digest(other));
    assert_int_equal(iso_model_set_meta(m, "attributes", "a b c", &err), ISO_OK);
    assert_string_equal(before, iso_model_digest(m));
    iso_model_free(m);
    iso_model_free(other);
    /* The same tensors mean something else under another activation. */
    iso_net relu = mlp;
    strcpy(relu.act, "relu");
    m = fresh(&mlp, seed);
    other = fresh(&relu, seed);
    assert_true(same_parameters(m, other));
    assert_string_not_equal(iso_model_digest(m), iso_model_digest(other));
    iso_model_free(m);
    iso_model_free(other);
}

/* Writes model m's file with one thing changed: metadata `key` set to `value` (NULL: left out), or tensor `tensor`
 * left out, or its shape replaced, or a number of it; or a tensor more. */
typedef struct change {
    const char *key, *value;
    const char *tensor;
    bool reshape, extra;
    float put;
    iso_status want;
} change;

/* A safetensors file without the library's care, and without its syncing. */
static void write_file(int tensors, const iso_st_out *tensor, int pairs, const iso_st_meta_pair *pair)
{
    char *header = NULL;
    size_t length;
    int64_t at = 0;
    unlink(path);
    FILE *text = open_memstream(&header, &length), *f = fopen(path, "wb");
    assert_true(text && f);
    fprintf(text, "{\"__metadata__\":{");
    for (int i = 0; i < pairs; i++) fprintf(text, "%s\"%s\":\"%s\"", i ? "," : "", pair[i].key, pair[i].value);
    fprintf(text, "}");
    for (int i = 0; i < tensors; i++) {
        int64_t end = at + iso_shape_count(&tensor[i].shape) * 4;
        char shape[96];
        fprintf(text, ",\"%s\":{\"dtype\":\"F32\",\"shape\":%s,\"data_offsets\":[%lld,%lld]}", tensor[i].name,
                iso_shape_text(&tensor[i].shape, shape), (long long)at, (long long)end);
        at = end;
    }
    fprintf(text, "}");
    assert_int_equal(fclose(text), 0);
    uint64_t n = length;
    fwrite(&n, 8, 1, f);
    fwrite(header, 1, length, f);
    for (int i = 0; i < tensors; i++) fwrite(tensor[i].data, 4, (size_t)iso_shape_count(&tensor[i].shape), f);
    assert_int_equal(fclose(f), 0);
    free(header);
}

static void save_changed(const iso_model *m, change c)
{
    static const char *const keys[] = {"format", "format_version", "preprocessing", "arch", "latent", "width", "sizes",
                                       "act",    "out",            "flow_depth",    "flow_length", "classes", "attributes"};
    iso_st_meta_pair pair[16];
    iso_st_out tensor[64];
    float copy[4096], zero = 0;
    int pairs = 0, tensors = 0;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *value = c.key && strcmp(c.key, keys[i]) == 0 ? c.value : iso_model_meta(m, keys[i]);
        if (value) pair[pairs++] = (iso_st_meta_pair){keys[i], value};
    }
    for (int i = 0; i < iso_model_count(m); i++) {
        iso_st_out t = {iso_model_name(m, i), iso_model_shape(m, i), iso_model_data_const(m, i)};
        if (c.tensor && strcmp(c.tensor, t.name) == 0) {
            int64_t n = iso_shape_count(&t.shape);
            if (!c.reshape && c.put == 0) continue;
            assert_true(n <= 4096);
            memcpy(copy, t.data, (size_t)n * sizeof *copy);
            if (c.reshape) t.shape = iso_shape1(n);
            else copy[n - 1] = c.put;
            t.data = copy;
        }
        tensor[tensors++] = t;
    }
    if (c.extra) tensor[tensors++] = (iso_st_out){"decoder.99.weight", iso_shape0(), &zero};
    write_file(tensors, tensor, pairs, pair);
}

static void damaged(void **state)
{
    (void)state;
    const change celeba_changes[] = {
        {.want = ISO_OK},
        {.key = "format", .want = ISO_E_FORMAT},
        {.key = "format", .value = "pt", .want = ISO_E_FORMAT},
        {.key = "format_version", .want = ISO_E_UNSUPPORTED},
        {.key = "format_version", .value = "2", .want = ISO_E_UNSUPPORTED},
        {.key = "preprocessing", .value = "crop=all", .want = ISO_E_UNSUPPORTED},
        {.key = "arch", .want = ISO_E_FORMAT},
        {.key = "arch", .value = "resnet", .want = ISO_E_FORMAT},
        {.key = "arch", .value = "mlp", .want = ISO_E_FORMAT},
        {.key = "width", .want = ISO_E_FORMAT},
        {.key = "width", .value = "", .want = ISO_E_FORMAT},
        {.key = "width", .value = "0", .want = ISO_E_FORMAT},
        {.key = "width", .value = "-2", .want = ISO_E_FORMAT},
        {.key = "width", .value = "3", .want = ISO_E_FORMAT},
        {.key = "width", .value = "2x", .want = ISO_E_FORMAT},
        {.key = "width", .value = " 2", .want = ISO_E_FORMAT},
        {.key = "width", .value = "4096", .want = ISO_E_FORMAT},
        {.key = "width", .value = "4294967298", .want = ISO_E_FORMAT},
        {.key = "latent", .want = ISO_E_FORMAT},
        {.key = "latent", .value = "6", .want = ISO_E_FORMAT},
        {.key = "latent", .value = "99999", .want = ISO_E_FORMAT},
        {.key = "flow_depth", .want = ISO_E_FORMAT},
        {.key = "flow_depth", .value = "2", .want = ISO_E_FORMAT},
        {.key = "flow_depth", .value = "4", .want = ISO_E_FORMAT},
        {.key = "flow_depth", .value = "65", .want = ISO_E_FORMAT},
        {.key = "flow_length", .want = ISO_E_FORMAT},
        {.key = "flow_length", .value = "8", .want = ISO_E_FORMAT},
        {.key = "flow_length", .value = "0", .want = ISO_E_FORMAT},
        {.tensor = "encoder.0.bias", .want = ISO_E_FORMAT},
        {.tensor = "sigma", .want = ISO_E_FORMAT},
        {.tensor = "flow.t.2.2.bias", .want = ISO_E_FORMAT},
        {.tensor = "encoder.0.weight", .reshape = true, .want = ISO_E_FORMAT},
        {.tensor = "decoder.9.bias", .put = NAN, .want = ISO_E_FORMAT},
        {.tensor = "decoder.9.bias", .put = INFINITY, .want = ISO_E_FORMAT},
        {.tensor = "decoder.9.bias", .put = 0.5f, .want = ISO_OK},
        {.extra = true, .want = ISO_E_FORMAT},
    };
    const change mlp_changes[] = {
        {.want = ISO_OK},
        {.key = "sizes", .want = ISO_E_FORMAT},
        {.key = "sizes", .value = "", .want = ISO_E_FORMAT},
        {.key = "sizes", .value = "3", .want = ISO_E_FORMAT},
        {.key = "sizes", .value = "3,6,8,", .want = ISO_E_FORMAT},
        {.key = "sizes", .value = "3,,8", .want = ISO_E_FORMAT},
        {.key = "sizes", .value = "3,6,9", .want = ISO_E_FORMAT},
        {.key = "sizes", .value = "3,0,8", .want = ISO_E_FORMAT},
        {.key = "sizes", .value = "3,999999999,8", .want = ISO_E_FORMAT},
        {.key = "sizes", .value = "3,1000000,1000000,8", .want = ISO_E_FORMAT},
        {.key = "sizes", .value = "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1", .want = ISO_E_FORMAT},
        {.key = "act", .want = ISO_E_FORMAT},
        {.key = "act", .value = "gelu", .want = ISO_E_FORMAT},
        {.key = "out", .value = "a name that is far too long for a field", .want = ISO_E_FORMAT},
        {.key = "latent", .value = "2", .want = ISO_E_FORMAT},
    };
    const change supervised_changes[] = {
        {.want = ISO_OK},
        {.key = "classes", .want = ISO_E_FORMAT},
        {.key = "classes", .value = "0", .want = ISO_E_FORMAT},
        {.key = "classes", .value = "4", .want = ISO_E_FORMAT},
        {.key = "classes", .value = "-3", .want = ISO_E_FORMAT},
        {.key = "classes", .value = "4097", .want = ISO_E_FORMAT},
        {.key = "attributes", .want = ISO_E_FORMAT},
        {.key = "attributes", .value = "", .want = ISO_E_FORMAT},
        {.key = "attributes", .value = "a b", .want = ISO_E_FORMAT},
        {.key = "attributes", .value = "a b c d", .want = ISO_E_FORMAT},
        {.key = "attributes", .value = "a b  c", .want = ISO_E_FORMAT},
        {.key = "attributes", .value = "x y z", .want = ISO_OK},
        {.key = "arch", .value = "pca", .want = ISO_E_FORMAT},
        {.key = "latent", .value = "4", .want = ISO_E_FORMAT},
        {.tensor = "classifier.weight", .want = ISO_E_FORMAT},
        {.tensor = "classifier.bias", .want = ISO_E_FORMAT},
        {.tensor = "classifier.weight", .reshape = true, .want = ISO_E_FORMAT},
        {.tensor = "classifier.bias", .put = NAN, .want = ISO_E_FORMAT},
        {.extra = true, .want = ISO_E_FORMAT},
    };
    const struct { const iso_net *net; const change *list; size_t n; } sets[] = {
        {&celeba, celeba_changes, sizeof celeba_changes / sizeof *celeba_changes},
        {&mlp, mlp_changes, sizeof mlp_changes / sizeof *mlp_changes},
        {&supervised, supervised_changes, sizeof supervised_changes / sizeof *supervised_changes},
    };
    for (int k = 0; k < 3; k++) {
        iso_model *m = fresh(sets[k].net, seed);
        if (sets[k].net->classes) assert_int_equal(iso_model_set_meta(m, "attributes", "a b c", NULL), ISO_OK);
        for (size_t i = 0; i < sets[k].n; i++) {
            iso_model *back = NULL;
            iso_error err = {0};
            save_changed(m, sets[k].list[i]);
            iso_status s = iso_model_load(path, &back, &err);
            if (s != sets[k].list[i].want) fail_msg("change %zu gave %d: %s", i, s, err.message);
            assert_true((s == ISO_OK) == (back != NULL));
            assert_true(s == ISO_OK || strstr(err.message, "a model.safetensors"));
            iso_model_free(back);
        }
        iso_model_free(m);
    }
}

static void write_bytes(const char *bytes, size_t n)
{
    unlink(path); /* truncating in place makes some file systems sync */
    FILE *f = fopen(path, "wb");
    assert_true(f && fwrite(bytes, 1, n, f) == n && fclose(f) == 0);
}

static void not_a_model(void **state)
{
    (void)state;
    iso_model *m = NULL;
    iso_error err = {0};
    const char *const files[] = {"", "x", "\x89PNG\r\n\x1a\n and so on", "{\"json\": true, \"but\": \"no safetensors\"}",
                                 "\x02\0\0\0\0\0\0\0{}"};
    const size_t sizes[] = {0, 1, 18, 39, 10};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        write_bytes(files[i], sizes[i]);
        assert_int_equal(iso_model_load(path, &m, &err), ISO_E_FORMAT);
        assert_non_null(strstr(err.message, "not an Isoface model"));
    }
    assert_int_equal(iso_model_load(folder, &m, &err), ISO_E_IO);
    assert_int_equal(iso_model_load("/nonexistent/m", &m, &err), ISO_E_IO);
    assert_null(m);
}

static void fuzz(void **state)
{
    (void)state;
    iso_model *m = fresh(&mlp, seed);
    iso_error err = {0};
    char *bytes;
    size_t size;
    uint64_t header;
    assert_int_equal(iso_model_save(m, path, &err), ISO_OK);
    iso_model_free(m);
    assert_int_equal(iso_file_read(path, 1 << 24, &bytes, &size, &err), ISO_OK);
    memcpy(&header, bytes, 8);
    for (uint32_t round = 0; round < 3000; round++) {
        iso_draw d = {seed, 77, round};
        char *copy = malloc(size);
        memcpy(copy, bytes, size);
        for (uint64_t c = 0, n = 1 + iso_draw_below(d, 0, 3); c < n; c++) {
            size_t where = iso_draw_below(d, 2 * c + 1, 10) ? iso_draw_below(d, 2 * c + 2, 8 + header) : iso_draw_below(d, 2 * c + 2, size);
            copy[where] = (char)(iso_draw_below(d, 100 + c, 2) ? '0' + iso_draw_below(d, 200 + c, 10) : iso_draw_below(d, 200 + c, 256));
        }
        write_bytes(copy, size);
        m = NULL;
        iso_status s = iso_model_load(path, &m, &err);
        assert_true((s == ISO_OK) == (m != NULL));
        assert_true(s == ISO_OK || s == ISO_E_FORMAT || s == ISO_E_UNSUPPORTED);
        if (m) assert_int_equal(strlen(iso_model_digest(m)), 32);
        iso_model_free(m);
        free(copy);
    }
    free(bytes);
}

/* --- vars */

static void vars_round_trip(void **state)
{
    (void)state;
    iso_error err = {0};
    iso_vars *vars = NULL;
    iso_model *m = fresh(&mlp, 1), *other = fresh(&mlp, 2);
    int last = iso_model_count(m) - 1;
    assert_string_equal(iso_model_name(m, last), "sigma");
    assert_int_equal(iso_vars_create(iso_backend_cpu(), &vars, &err), ISO_OK);
    for (int i = 0; i < last; i++) assert_int_equal(iso_vars_add(vars, iso_model_name(m, i), iso_model_shape(m, i), &err), ISO_OK);
    assert_int_equal(iso_vars_add(vars, "adam.m", iso_shape1(3), &err), ISO_OK); /* not of the model */
    iso_model_data(m, last)[0] = 5;
    assert_int_equal(iso_model_to_vars(m, vars, &err), ISO_OK);
    char before[33];
    strcpy(before, iso_model_digest(other));
    assert_int_equal(iso_model_from_vars(other, vars, &err), ISO_OK);
    assert_string_not_equal(before, iso_model_digest(other));
    assert_true(iso_model_data_const(other, last)[0] == 1); /* the vars have no sigma */
    iso_model_data(other, last)[0] = 5;
    assert_true(same_parameters(m, other));
    float bad[6] = {0, 0, NAN, 0, 0, 0};
    assert_int_equal(iso_vars_write(vars, "decoder.0.bias", bad, 6, &err), ISO_OK);
    assert_int_equal(iso_model_from_vars(other, vars, &err), ISO_E_NUMERIC);
    assert_true(same_parameters(m, other));
    iso_vars_free(vars);
    iso_model_free(m);
    iso_model_free(other);
}

int main(void)
{
    printf("seed %llu\n", (unsigned long long)seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip), cmocka_unit_test(large_and_unaligned),  cmocka_unit_test(metadata),       cmocka_unit_test(digest),
        cmocka_unit_test(attribute_names),
        cmocka_unit_test(damaged),     cmocka_unit_test(not_a_model),    cmocka_unit_test(fuzz),
        cmocka_unit_test(vars_round_trip),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
