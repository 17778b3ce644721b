/* Training that goes on: bit for bit after interruptions, in a validation too; its pace and counters; what --resume refuses, and before images are decoded. */
#include "tests/train_common.h"

static void test_resume(void **unused)
{
    (void)unused;
    watcher w;
    iso_error err = {0};
    iso_train_data data = image_data();
    char *a = place("straight"), *b = place("resumed"), *c = place("interrupted"), *d = place("other");
    char *as = iso_format("%s.state", a), *bs = iso_format("%s.state", b), *cs = iso_format("%s.state", c);
    char *ds = iso_format("%s.state", d);
    iso_train_spec spec = image_spec(a, &w);
    must_train(&spec, &data);

    spec = image_spec(b, &w);
    spec.run.epochs = 2;
    must_train(&spec, &data);
    spec = image_spec(b, &w);
    spec.run.resume = true;
    must_train(&spec, &data);
    assert_int_equal(w.epochs, 2);
    must_agree(a, b);
    assert_true(same_tensors(as, bs));

    /* After every second step, and at the end of an epoch: 21 images in batches of 8 are 2 steps an epoch. */
    static const int stops[] = {1, 1, 2, 3, 0};
    for (size_t i = 0; i < sizeof stops / sizeof stops[0]; i++) {
        spec = image_spec(c, &w);
        spec.run.resume = i > 0;
        w.stop_at = stops[i];
        iso_status status = iso_train(&spec, &data, &err);
        assert_int_equal(status, stops[i] ? ISO_E_INTERRUPTED : ISO_OK);
        if (stops[i]) assert_non_null(strstr(err.message, "--resume"));
    }
    must_agree(a, c);
    assert_true(same_tensors(as, cs));

    /* Nothing left to do is fine, too. */
    spec = image_spec(c, &w);
    spec.run.resume = true;
    must_train(&spec, &data);
    assert_int_equal(w.ticks, 0);

    /* Whose rate has fallen to zero by then cannot go on with more epochs. */
    assert_non_null(strstr(w.said, "epochs are done; --epochs can be raised"));
    char *fallen = place("fallen");
    for (int again = 0; again < 2; again++) {
        spec = image_spec(fallen, &w);
        spec.run.schedule = ISO_SCHEDULE_COSINE;
        spec.run.resume = again;
        must_train(&spec, &data);
    }
    assert_non_null(strstr(w.said, "epochs are done"));
    assert_null(strstr(w.said, "can be raised"));
    free(fallen);

    /* What was begun with --force goes on without. */
    for (int forced = 0; forced < 2; forced++) {
        spec = image_spec(d, &w);
        spec.run.force = forced;
        w.stop_at = 1;
        must_refuse(&spec, &data, ISO_E_INTERRUPTED, forced ? "the same command with --resume in place of --force goes on"
                                                            : "the same command with --resume goes on");
    }
    spec.run.force = false;
    spec.run.resume = true;
    spec.run.watch = watch(&w);
    must_train(&spec, &data);
    assert_true(same_tensors(as, ds));

    spec = image_spec(d, &w); /* deliberately wrong: another eta must be seen */
    spec.run.force = true;
    spec.run.eta = 0.25;
    must_train(&spec, &data);
    assert_false(same_tensors(as, ds));
    free(a), free(b), free(c), free(d), free(as), free(bs), free(cs), free(ds);
}

/* The rows of a CSV file, less what they say of time. Free. */
static char *timeless(const char *model)
{
    char *path = iso_format("%s.csv", model), *text = NULL;
    size_t size = 0, used = 0;
    assert_int_equal(iso_file_read(path, 1 << 20, &text, &size, NULL), ISO_OK);
    for (int column = 0, i = 0; text[i]; i++) {
        column = text[i] == '\n' ? 0 : column + (text[i] == ',');
        if (column != 16 && column != 17) text[used++] = text[i];
    }
    text[used] = 0;
    free(path);
    return text;
}

/* Validation tells how far it is and can be stopped: what goes on then trains no step again, and validates as a whole. */
static void test_stopped_validation(void **unused)
{
    (void)unused;
    watcher w;
    iso_train_data data = image_data(); /* in batches of 2: 10 steps an epoch, and three batches of validation */
    char *a = place("validated"), *b = place("unvalidated"), *as = iso_format("%s.state", a), *bs = iso_format("%s.state", b);
    iso_train_spec spec = image_spec(a, &w);
    spec.run.batch = 2;
    must_train(&spec, &data);
    assert_int_equal(w.validations, 4);
    assert_int_equal(w.total, 4 * (20 + VALID));
    assert_int_equal(w.done, w.total - VALID);
    for (int i = 0; i < 4; i++) assert_true(i < 3 ? w.row[i].left > 0 : w.row[i].left == 0);

    static const struct { int validation, epoch, ticks, rows; const char *said; } runs[] = {
        {1, 0, 10, 0, "interrupted at step 10 (epoch 1, still to be validated); "}, {1, 0, 0, 0, "interrupted at step 10 (epoch 1, still to be validated); "},
        {0, 1, 0, 1, "interrupted after epoch 1 (step 10); "}, {3, 0, 30, 2, "interrupted at step 40 (epoch 4, still to be validated); "}, {0, 0, 0, 1, NULL}};
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        spec.run.path = b;
        spec.run.resume = i > 0;
        spec.run.watch = watch(&w);
        w.stop_validation = runs[i].validation, w.stop_epoch = runs[i].epoch;
        if (runs[i].said) must_refuse(&spec, &data, ISO_E_INTERRUPTED, runs[i].said);
        else must_train(&spec, &data);
        assert_int_equal(w.ticks, runs[i].ticks);
        assert_int_equal(w.epochs, runs[i].rows);
    }
    must_agree(a, b);
    assert_true(same_tensors(as, bs));
    char *one = timeless(a), *other = timeless(b);
    assert_string_equal(one, other);
    free(one), free(other), free(a), free(b), free(as), free(bs);
}

/* The clock of the steps runs from before the first of them. */
static void test_pace(void **unused)
{
    (void)unused;
    watcher w;
    iso_train_data data = image_data();
    char *path = place("pace");
    iso_train_spec spec = image_spec(path, &w);
    w.stop_at = 1;
    must_refuse(&spec, &data, ISO_E_INTERRUPTED, "interrupted at step 1 (epoch 1); ");
    assert_true(w.seconds > 1e-4);
    free(path);
}

/* What lies where the best model was is not taken for it: another model, something else, nothing. */
static void test_replaced_model(void **unused)
{
    (void)unused;
    static const char *const said[] = {"was replaced by another file", "was replaced by another file", "is gone"};
    watcher w;
    iso_train_data data = mlp_data();
    char *path = place("replaced"), *other = place("replacing");
    for (size_t i = 0; i < sizeof said / sizeof *said; i++) {
        iso_train_spec spec = mlp_spec(other, &w);
        spec.run.force = true;
        spec.run.seed = 12;
        must_train(&spec, &data);
        spec = mlp_spec(path, &w);
        spec.run.force = true;
        must_train(&spec, &data);
        if (i == 0) assert_int_equal(rename(other, path), 0);
        else if (i == 1) assert_int_equal(truncate(path, 100), 0);
        else assert_int_equal(unlink(path), 0);
        spec.run.force = false;
        spec.run.resume = true;
        must_refuse(&spec, &data, ISO_E_MISMATCH, said[i]);
        must_refuse(&spec, &data, ISO_E_MISMATCH, "all 4 epochs are done: raise --epochs, or start anew with --force");
        spec.run.schedule = ISO_SCHEDULE_COSINE;
        must_refuse(&spec, &data, ISO_E_ARGUMENT, "--schedule");
        spec.run.schedule = ISO_SCHEDULE_CONSTANT;
        spec.run.epochs = 5;
        spec.run.watch = watch(&w);
        must_train(&spec, &data);
        assert_non_null(strstr(w.said, said[i]));
        assert_true(w.epochs == 1 && w.row[0].best);
        spec.run.watch = watch(&w); /* now it is the best one */
        must_train(&spec, &data);
        assert_non_null(strstr(w.said, "nothing to do"));
        assert_null(strstr(w.said, said[i]));
    }
    free(path), free(other);
}

/* What --resume cannot go on with is known before there are images, but for what is known of these alone. */
static void must_not_go_on(const iso_train_spec *spec, iso_status status, const char *part)
{
    iso_error err = {0};
    assert_int_equal(iso_train_check(spec, &err), status);
    if (!strstr(err.message, part)) fail_msg("\"%s\" does not say \"%s\"", err.message, part);
}

static void test_checked_early(void **unused)
{
    (void)unused;
    watcher w;
    iso_error err = {0};
    iso_train_data data = image_data();
    char *path = place("early"), *flat = place("early-flow"), *other = place("early-other"), *state = iso_format("%s.state", path);
    iso_train_spec spec = image_spec(path, &w);
    must_train(&spec, &data);
    spec.run.resume = true;
    assert_int_equal(iso_train_check(&spec, &err), ISO_OK);
    spec.alpha = 20;
    must_not_go_on(&spec, ISO_E_ARGUMENT, "--alpha 10, now it is 20");
    spec.alpha = 10;
    spec.run.warmup = 5;
    must_not_go_on(&spec, ISO_E_ARGUMENT, "trained without --warmup 5");
    must_not_go_on(&spec, ISO_E_ARGUMENT, "--resume: ");
    spec.run.repeated = true; /* by a command without that option */
    assert_int_equal(iso_train_check(&spec, &err), ISO_E_ARGUMENT);
    assert_memory_equal(err.message, state, strlen(state));
    spec.run.repeated = false;
    spec.run.warmup = 0;
    spec.net.views = 2; /* the program's default, of which a state from before it says nothing */
    must_not_go_on(&spec, ISO_E_ARGUMENT, "trained with --views 1, now it is 2");
    spec.net.views = 1;
    spec.method = "magic";
    must_not_go_on(&spec, ISO_E_ARGUMENT, "magic");
    spec.method = "isometric";

    iso_model *model = NULL;
    assert_int_equal(iso_model_load(path, &model, NULL), ISO_OK);
    iso_flow_spec flow = {.model = model, .beta = 1, .depth = 2, .length = 4,
                          .run = {.path = flat, .epochs = 1, .batch = 8, .lr = 1e-3, .eta = 0.2, .threads = 1, .watch = watch(&w)}};
    must_flow(&flow, &data);
    flow.run.resume = true;
    assert_int_equal(iso_flow_check(&flow, &err), ISO_OK);
    flow.beta = 2;
    assert_int_equal(iso_flow_check(&flow, &err), ISO_E_ARGUMENT);
    assert_non_null(strstr(err.message, "--beta 1, now it is 2"));
    iso_model_free(model);

    assert_int_equal(rename(path, other), 0);
    must_not_go_on(&spec, ISO_E_MISMATCH, "is gone");
    must_not_go_on(&spec, ISO_E_MISMATCH, "--resume: ");
    spec.run.repeated = true;
    assert_int_equal(iso_train_check(&spec, &err), ISO_E_MISMATCH);
    assert_memory_equal(err.message, path, strlen(path));
    spec.run.repeated = false;
    spec.run.epochs++; /* the best is looked for anew */
    assert_int_equal(iso_train_check(&spec, &err), ISO_OK);
    assert_int_equal(truncate(state, 1000), 0);
    must_not_go_on(&spec, ISO_E_FORMAT, "early.state");
    free(path), free(flat), free(other), free(state);
}

/* Gives one item of a state's metadata another value; NULL: takes it away. The state has no checksum then, as those of earlier versions. */
static void change_state(const char *path, const char *key, const char *value)
{
    iso_error err = {0};
    iso_st *f = NULL;
    iso_st_meta_pair pair[64];
    iso_st_out tensor[64];
    int pairs = 0, tensors = 0, found = 0;
    assert_int_equal(iso_st_load(path, &f, &err), ISO_OK);
    assert_true(iso_st_meta_count(f) <= 64 && iso_st_count(f) <= 64);
    for (int i = 0; i < iso_st_meta_count(f); i++) {
        const char *name = iso_st_meta_key(f, i);
        bool here = strcmp(name, key) == 0;
        found += here;
        if (strcmp(name, "checksum") == 0) continue;
        if (!here || value) pair[pairs++] = (iso_st_meta_pair){name, here ? value : iso_st_meta(f, name)};
    }
    assert_int_equal(found, 1);
    for (; tensors < iso_st_count(f); tensors++) {
        const iso_st_tensor *x = iso_st_at(f, tensors);
        iso_shape shape = {.ndim = x->ndim};
        for (int d = 0; d < x->ndim; d++) shape.dim[d] = x->dim[d];
        tensor[tensors] = (iso_st_out){x->name, shape, (const float *)x->data};
    }
    assert_int_equal(iso_st_save(path, tensors, tensor, pairs, pair, &err), ISO_OK);
    iso_st_free(f);
}

/* A state of a run that began before ISO_TERM_ACCURACY was summed, or before the best model's digest was kept, is gone on with; one that lacks
 * another sum is damaged. */
static void test_older_state(void **unused)
{
    (void)unused;
    watcher w;
    iso_error err = {0};
    iso_train_data data = mlp_data();
    char *a = place("newer"), *b = place("older"), *as = iso_format("%s.state", a), *bs = iso_format("%s.state", b);
    iso_train_spec spec = mlp_spec(a, &w);
    must_train(&spec, &data);
    for (int t = ISO_TERM_ACCURACY; t >= ISO_TERM_LOSS; t -= ISO_TERM_ACCURACY - ISO_TERM_LOSS) {
        char gone[16];
        spec = mlp_spec(b, &w);
        spec.run.epochs = 2;
        spec.run.force = true;
        must_train(&spec, &data);
        snprintf(gone, sizeof gone, "sum.%d", t);
        change_state(bs, gone, NULL);
        spec = mlp_spec(b, &w);
        spec.run.resume = true;
        assert_int_equal(iso_train(&spec, &data, &err), t == ISO_TERM_ACCURACY ? ISO_OK : ISO_E_FORMAT);
        if (t == ISO_TERM_ACCURACY) {
            must_agree(a, b);
            assert_true(same_tensors(as, bs));
        }
    }
    spec = mlp_spec(b, &w);
    spec.run.force = true;
    spec.run.epochs = 2;
    must_train(&spec, &data);
    change_state(bs, "model", NULL);
    spec = mlp_spec(b, &w);
    spec.run.resume = true;
    must_train(&spec, &data);
    must_agree(a, b);
    change_state(bs, "version", "2");
    must_not_go_on(&spec, ISO_E_UNSUPPORTED, "another Isoface (format 2");
    free(a), free(b), free(as), free(bs);
}

/* The log of a state from before there were the columns of accuracy: its rows get them, empty, so that every line of the CSV has as many. */
static void test_older_log(void **unused)
{
    (void)unused;
    watcher w;
    iso_train_data data = mlp_data();
    char *path = place("older-log"), *state = iso_format("%s.state", path), *csv = iso_format("%s.csv", path), line[1024];
    iso_train_spec spec = mlp_spec(path, &w);
    spec.run.epochs = 2;
    must_train(&spec, &data);
    change_state(state, "log", "1,2,16,,,,,,,,,,,,,,0.5,32,1\n2,4,32,,,,,,,,,,,,,,0.5,32,0\n");
    spec.run.epochs = 3;
    spec.run.resume = true;
    must_train(&spec, &data);
    static const char *const begins[] = {"epoch,", "1,2,16,,,,,,,,,,,,,,0.5,32,1,,\n", "2,4,32,,,,,,,,,,,,,,0.5,32,0,,\n", "3,6,"};
    FILE *f = fopen(csv, "r");
    assert_non_null(f);
    int lines = 0;
    for (; fgets(line, sizeof line, f); lines++) {
        int commas = 0;
        for (const char *c = line; *c; c++) commas += *c == ',';
        assert_int_equal(commas, 20);
        assert_true(lines < 4);
        assert_memory_equal(line, begins[lines], strlen(begins[lines]));
    }
    assert_int_equal(lines, 4);
    fclose(f);
    free(path), free(state), free(csv);
}

/* Counters that no run leaves: two steps an epoch, two epochs. */
static void test_counters(void **unused)
{
    (void)unused;
    static const struct { const char *key, *value, *was; } bad[] = {
        {"step", "9223372036854775807", "4"}, {"step", "9223372036854775806", "4"}, {"step", "3", "4"},
        {"step", "0", "4"},                   {"epoch", "9223372036854775807", "2"}, {"epoch", "4611686018427387906", "2"},
        {"epoch", "1", "2"},                  {"position", "9223372036854775807", "0"}, {"position", "1", "0"},
        {"position", "2", "0"},               {"best_epoch", "3", "2"},             {"best_epoch", "9223372036854775807", "2"},
        {"best_epoch", "0", "2"},             {"best", "inf", NULL},
    };
    watcher w;
    iso_train_data data = mlp_data();
    char *path = place("counters"), *state = iso_format("%s.state", path);
    iso_train_spec spec = mlp_spec(path, &w);
    spec.run.epochs = 2;
    must_train(&spec, &data);
    assert_int_equal(w.row[1].best, 1);
    spec.run.resume = true;
    spec.run.epochs = 4;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        change_state(state, bad[i].key, bad[i].value);
        must_refuse(&spec, &data, ISO_E_FORMAT, "no usable training state (counters): start anew with --force");
        if (bad[i].was) change_state(state, bad[i].key, bad[i].was);
    }
    spec.run.resume = false;
    spec.run.force = true;
    spec.run.epochs = 2;
    must_train(&spec, &data);
    /* As many epochs as there are numbers: nothing is left to do, and nothing overflows. */
    spec.run.force = false;
    spec.run.resume = true;
    change_state(state, "step", "9223372036854775806");
    change_state(state, "epoch", "4611686018427387903");
    must_train(&spec, &data);
    assert_int_equal(w.ticks, 8);
    free(path), free(state);
}

/* One bit of a number, or of the metadata, that has become another: it would be gone on with, and lead elsewhere. */
static void test_damaged_state(void **unused)
{
    (void)unused;
    watcher w;
    iso_train_data data = mlp_data();
    char *path = place("damaged"), *state = iso_format("%s.state", path);
    iso_train_spec spec = mlp_spec(path, &w);
    spec.run.epochs = 2;
    must_train(&spec, &data);
    spec.run.resume = true;
    spec.run.epochs = 3;
    FILE *f = fopen(state, "r+b");
    assert_non_null(f);
    char header[2048];
    const size_t read = fread(header, 1, sizeof header, f);
    const char *sum = memmem(header, read, "\"sum.0\":\"0x", 11);
    assert_non_null(sum);
    const long at[] = {sum - header + 11, -4}; /* a digit; the lowest bits of the last float */
    for (int i = 0; i < 2; i++) {
        for (int back = 0; back < 2; back++) {
            assert_int_equal(fseek(f, at[i], at[i] < 0 ? SEEK_END : SEEK_SET), 0);
            const int byte = fgetc(f);
            assert_int_equal(fseek(f, -1, SEEK_CUR), 0);
            fputc(byte ^ 1, f);
            assert_int_equal(fflush(f), 0);
            if (!back) must_not_go_on(&spec, ISO_E_FORMAT, "no usable training state (its checksum is wrong): start anew with --force");
        }
    }
    fclose(f);
    must_train(&spec, &data);
    free(path), free(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_damaged_state),
        cmocka_unit_test(test_resume),         cmocka_unit_test(test_stopped_validation), cmocka_unit_test(test_pace),
        cmocka_unit_test(test_replaced_model), cmocka_unit_test(test_checked_early),      cmocka_unit_test(test_older_state),
        cmocka_unit_test(test_older_log),      cmocka_unit_test(test_counters),
    };
    return cmocka_run_group_tests_name("train, resumed", tests, set_up, tear_down);
}
