/* test_sweep.c: lists, names of numbers, the table of a sweep and what is refused as one, the log of a training, the plot. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "eval/sweep.h"
#include "tests/check.h"
#include "tests/folder.h"

static char folder[256], path[300];
static iso_error err;

static int setup(void **state)
{
    (void)state;
    if (!make_folder(folder, sizeof folder, "sweep")) return -1;
    snprintf(path, sizeof path, "%s/sweep.csv", folder);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

static void put(const char *text, size_t size)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

static void test_lists(void **state)
{
    (void)state;
    double v[ISO_SWEEP_LIST];
    int n = -1;
    OK(iso_sweep_list("alpha", "10,0,1e3,0.5", "vae", false, v, &n, &err));
    assert_int_equal(n, 4);
    assert_true(v[0] == 10 && v[1] == 0 && v[2] == 1000 && v[3] == 0.5);
    OK(iso_sweep_list("alpha", "vae,1E-3", "vae", false, v, &n, &err));
    assert_true(n == 2 && v[0] == 0 && v[1] == 1e-3);
    OK(iso_sweep_list("seeds", "9007199254740992", NULL, true, v, &n, &err));
    assert_true(n == 1 && v[0] == 9007199254740992.0);
    OK(iso_sweep_list("alpha", "-0", NULL, false, v, &n, &err));
    assert_false(signbit(v[0]));

    static const char *const bad[] = {"",    ",",    "1,",   ",1",    "1,,2",  " 1",  "1 ", "x",   "-1", "nan",
                                      "inf", "0x10", "1e13", "1e999", "1,1.0", "vae", "+1", "1;2", "1e"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        n = -1;
        assert_int_equal(iso_sweep_list("alpha", bad[i], NULL, false, v, &n, &err), ISO_E_ARGUMENT);
        assert_int_equal(n, -1);
        assert_non_null(strstr(err.message, "--alpha"));
    }
    static const char *const bad_whole[] = {"1.5", "1e2", "-1", "9007199254740993", "0,0"};
    for (size_t i = 0; i < sizeof bad_whole / sizeof *bad_whole; i++)
        assert_int_equal(iso_sweep_list("seeds", bad_whole[i], NULL, true, v, &n, &err), ISO_E_ARGUMENT);

    char many[8 * ISO_SWEEP_LIST + 16] = "";
    for (int i = 0; i <= ISO_SWEEP_LIST; i++) snprintf(many + strlen(many), 8, "%s%d", i ? "," : "", i);
    assert_int_equal(iso_sweep_list("alpha", many, NULL, false, v, &n, &err), ISO_E_ARGUMENT);
    *strrchr(many, ',') = 0;
    OK(iso_sweep_list("alpha", many, NULL, false, v, &n, &err));
    assert_int_equal(n, ISO_SWEEP_LIST);
}

static void test_numbers(void **state)
{
    (void)state;
    char text[32];
    assert_string_equal(iso_sweep_number(100, text), "100");
    assert_string_equal(iso_sweep_number(1e6, text), "1000000");
    assert_string_equal(iso_sweep_number(0.1, text), "0.1");
    const double odd[] = {1.0 / 3, 5e-324, 1.7976931348623157e308, 0.1 + 0.2};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        assert_true(strtod(iso_sweep_number(odd[i], text), NULL) == odd[i]);
}

static void test_sample(void **state)
{
    (void)state;
    int64_t a[40], b[12], seen[40] = {0};
    OK(iso_sweep_sample(40, 40, 7, a, &err));
    OK(iso_sweep_sample(40, 12, 7, b, &err));
    for (int i = 0; i < 40; i++) seen[a[i]]++;
    for (int i = 0; i < 40; i++) assert_int_equal(seen[i], 1);
    assert_memory_equal(a, b, sizeof b);
    OK(iso_sweep_sample(40, 12, 8, b, &err));
    assert_memory_not_equal(a, b, sizeof b);
}

static char *copy(const char *text)
{
    char *c = iso_strndup(text, strlen(text));
    assert_non_null(c);
    return c;
}

/* alpha 0 (the VAE), 1, 10 of one method with two seeds; what is not known is left out. */
static iso_sweep_row *make(int64_t *count)
{
    iso_sweep_row *rows = iso_calloc(6, sizeof *rows);
    assert_non_null(rows);
    const double alpha[] = {0, 1, 10};
    for (int i = 0; i < 6; i++) {
        iso_sweep_row *r = &rows[i];
        char name[64];
        *r = iso_sweep_row_empty();
        r->alpha = alpha[i / 2], r->seed = i % 2;
        snprintf(name, sizeof name, "m-a%g-s%d", r->alpha, i % 2);
        r->model = copy(name);
        r->method = copy(r->alpha > 0 ? "isometric" : "vae");
        r->command = copy("indexer train --images 'a, \"b\"\nc' --model=-x");
        if (i == 5) continue; /* a training that broke */
        r->epochs = 3, r->images = 300, r->best_epoch = 2, r->loss = -1.0 / 3, r->ratio = 0.1;
        r->mse = 0.01 + 0.001 * i, r->vor = 100.0 / (i + 1), r->vor_median = r->vor / 2;
        r->mcn = 50, r->mcn_median = 40.0 / (i + 1), r->cn = 0.9, r->vpres = 1e-300, r->iso = 2;
        r->metrics = 499, r->left_out = 1;
        r->measured = copy("0123456789abcdef0123456789abcdef");
    }
    *count = 6;
    return rows;
}

static bool same(const iso_sweep_row *a, const iso_sweep_row *b)
{
    for (int i = 0; i < iso_sweep_columns(); i++) {
        double x = 0, y = 0;
        const char *s = iso_sweep_field(a, i, &x), *t = iso_sweep_field(b, i, &y);
        if (s ? strcmp(s, t) != 0 : !(x == y || (isnan(x) && isnan(y)))) return false;
    }
    return true;
}

static void test_table(void **state)
{
    (void)state;
    int64_t count, n;
    iso_sweep_row *rows = make(&count), *back;
    OK(iso_sweep_save(path, rows, count, &err));
    OK(iso_sweep_load(path, &back, &n, &err));
    assert_int_equal(n, count);
    for (int i = 0; i < n; i++) assert_true(same(&rows[i], &back[i]));
    assert_null(back[5].measured);
    assert_false(same(&rows[0], &back[1])); /* deliberately wrong */
    iso_sweep_rows_free(back, n);

    /* Windows line ends, and no line end at the end, are fine. */
    char *data, *crlf;
    size_t size, m = 0;
    OK(iso_file_read(path, 1 << 20, &data, &size, &err));
    assert_non_null(crlf = iso_calloc(2 * size, 1));
    bool quoted = false;
    for (size_t i = 0; i + 1 < size; i++) {
        if (data[i] == '"') quoted = !quoted;
        if (data[i] == '\n' && !quoted) crlf[m++] = '\r';
        crlf[m++] = data[i];
    }
    put(crlf, m);
    OK(iso_sweep_load(path, &back, &n, &err));
    assert_int_equal(n, count);
    for (int i = 0; i < n; i++) assert_true(same(&rows[i], &back[i]));
    iso_sweep_rows_free(back, n);

    /* Cut anywhere it is a shorter table or none; never a crash, and nothing is set on failure. */
    for (size_t cut = 0; cut < size; cut++) {
        iso_sweep_row *none = NULL;
        int64_t got = -1;
        put(data, cut);
        iso_status status = iso_sweep_load(path, &none, &got, &err);
        assert_true(status == ISO_OK ? got >= 0 && got <= count : status == ISO_E_FORMAT && !none && got == -1);
        if (status == ISO_OK) iso_sweep_rows_free(none, got);
    }
    static const char *const bad[] = {"", "a,b\n1,2\n", "\n", "\"", "model"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        put(bad[i], strlen(bad[i]));
        assert_int_equal(iso_sweep_load(path, &back, &n, &err), ISO_E_FORMAT);
    }
    unlink(path);
    assert_int_equal(iso_sweep_load(path, &back, &n, &err), ISO_E_IO);
    iso_sweep_rows_free(rows, count);
    free(data);
    free(crlf);
}

static void test_training(void **state)
{
    (void)state;
    iso_sweep_row row = iso_sweep_row_empty();
    OK(iso_sweep_training(path, 2, &row, &err)); /* no such file */
    assert_true(row.best_epoch == 2 && isnan(row.epochs) && isnan(row.loss));
    static const char log[] =
        "epoch,step,images,loss,R,val_loss,val_R,best\n1,10,100,5,0.5,6,0.6,1\n2,20,200,4,0.4,,,0\n3,30,300,3,0.3,7,0.7,0\n";
    put(log, strlen(log));
    OK(iso_sweep_training(path, 1, &row, &err));
    assert_true(row.epochs == 3 && row.images == 300 && row.loss == 6 && row.best_epoch == 1);
    OK(iso_sweep_training(path, 2, &row, &err)); /* without validation images */
    assert_true(row.loss == 4);
    OK(iso_sweep_training(path, 9, &row, &err));
    assert_true(row.epochs == 3 && isnan(row.loss));
    put("x,y\n", 4);
    assert_int_equal(iso_sweep_training(path, 1, &row, &err), ISO_E_FORMAT);
}

static bool is_png(const char *file)
{
    char *data;
    size_t size;
    if (iso_file_read(file, 1 << 24, &data, &size, &err)) return false;
    bool good = size > 1000 && memcmp(data, "\x89PNG\r\n\x1a\n", 8) == 0;
    free(data);
    return good;
}

static void test_chart(void **state)
{
    (void)state;
    char png[300];
    int64_t count;
    bool drawn = false;
    iso_sweep_row *rows = make(&count);
    snprintf(png, sizeof png, "%s/sweep.png", folder);
    OK(iso_sweep_chart(png, rows, count, false, &drawn, &err));
    assert_true(drawn && is_png(png));
    for (int i = 0; i < count; i++) rows[i].beta = i < 2 ? NAN : i;
    OK(iso_sweep_chart(png, rows, count, true, &drawn, &err));
    assert_true(drawn && is_png(png));
    unlink(png);
    OK(iso_sweep_chart(png, rows + 5, 1, false, &drawn, &err)); /* the broken one alone */
    assert_true(!drawn && access(png, F_OK) != 0);
    OK(iso_sweep_chart(png, rows, 0, false, &drawn, &err));
    assert_false(drawn);
    OK(iso_sweep_chart(png, rows, 1, true, &drawn, &err)); /* a model before any flow */
    assert_true(drawn && is_png(png));
    unlink(png);
    snprintf(png, sizeof png, "%s/none/sweep.png", folder);
    assert_int_equal(iso_sweep_chart(png, rows, count, false, &drawn, &err), ISO_E_IO);
    iso_sweep_rows_free(rows, count);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_lists),    cmocka_unit_test(test_numbers),
                                       cmocka_unit_test(test_sample),   cmocka_unit_test(test_table),
                                       cmocka_unit_test(test_training), cmocka_unit_test(test_chart)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
