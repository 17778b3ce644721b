/* test_encode.c: what is new or changed gets in, what is not is left alone, what is no image is told. The encoder is a
 * fake whose vectors say which picture they are of, and a real one of width 2. */
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <turbojpeg.h>
#include <unistd.h>

#include "base/progress.h"
#include "indexer/encode.h"
#include "model/model.h"
#include "model/net/net.h"
#include "tests/check.h"
#include "tests/folder.h"

enum { DIM = 4 };
static char base[512], images[600], db[600];
static iso_error err;

__attribute__((format(printf, 1, 2))) static void shell(const char *fmt, ...)
{
    char command[4000];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(command, sizeof command, fmt, ap);
    va_end(ap);
    if (system(command)) fail_msg("failed: %s", command);
}

/* A flat picture of one colour. */
static void picture(const char *path, int red, int green, int blue)
{
    static uint8_t rgb[70 * 90 * 3];
    for (size_t i = 0; i < sizeof rgb; i++) rgb[i] = (uint8_t)(i % 3 == 0 ? red : i % 3 == 1 ? green : blue);
    tjhandle t = tjInitCompress();
    unsigned char *jpeg = NULL;
    unsigned long n = 0;
    assert_int_equal(tjCompress2(t, rgb, 70, 0, 90, TJPF_RGB, &jpeg, &n, TJSAMP_444, 95, 0), 0);
    char full[1300];
    snprintf(full, sizeof full, "%s/%s", images, path);
    FILE *f = fopen(full, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(jpeg, 1, n, f), n);
    fclose(f);
    tjFree(jpeg);
    tjDestroy(t);
}

typedef struct fake { int64_t images, calls, largest, interrupt_after; bool zero_reds, nan_reds, dead; } fake;

static iso_status encode(void *ctx, const uint8_t *pixels, int64_t n, float *vectors, iso_error *e)
{
    fake *f = ctx;
    f->calls++;
    f->images += n;
    if (n > f->largest) f->largest = n;
    for (int64_t i = 0; i < n; i++) {
        const uint8_t *p = pixels + i * ISO_PIXELS;
        bool red = p[0] > 250 && p[1] < 5;
        if (f->dead || (red && f->nan_reds)) return iso_fail(e, ISO_E_NUMERIC, "its vector is not finite");
        for (int j = 0; j < DIM; j++) vectors[i * DIM + j] = red && f->zero_reds ? 0 : j < 3 ? (float)p[j] : 1;
    }
    if (f->interrupt_after && f->images >= f->interrupt_after) raise(SIGINT);
    return ISO_OK;
}

static char skips[4000];

static void skipped(void *ctx, const char *path, const char *reason)
{
    (void)ctx;
    size_t n = strlen(skips);
    snprintf(skips + n, sizeof skips - n, "%s: %s\n", path, reason);
}

static const char digest[] = "00000000000000000000000000000abc";

static iso_encode_spec spec_of(fake *f)
{
    skips[0] = 0;
    return (iso_encode_spec){.images = images, .db = db, .dim = DIM, .digest = digest, .batch = 3, .threads = 2,
                             .encode = encode, .encode_ctx = f, .skipped = skipped};
}

static void expect(const iso_encode_counts *c, int64_t added, int64_t changed, int64_t unchanged, int64_t skips_, int64_t removed)
{
    if (c->added != added || c->changed != changed || c->unchanged != unchanged || c->skipped != skips_ || c->removed != removed)
        fail_msg("added %d, changed %d, unchanged %d, skipped %d, removed %d\n%s", (int)c->added, (int)c->changed, (int)c->unchanged, (int)c->skipped, (int)c->removed, skips);
}

static void colour_of(const char *path, uint64_t id, int red, int green, int blue)
{
    iso_store *s;
    iso_txn *t;
    iso_item item;
    const float *v;
    OK(iso_store_open(db, ISO_STORE_READ, NULL, &s, &err));
    OK(iso_txn_begin(s, false, &t, &err));
    OK(iso_item_by_path(t, path, &item, &err));
    if (id) assert_int_equal(item.id, id);
    assert_int_equal(item.width, 70);
    assert_int_equal(item.height, 90);
    OK(iso_item_vector(t, item.id, &v, &err));
    assert_true(fabsf(v[0] - (float)red) < 4 && fabsf(v[1] - (float)green) < 4 && fabsf(v[2] - (float)blue) < 4);
    iso_txn_abort(t);
    int64_t faults;
    OK(iso_store_verify(s, NULL, NULL, NULL, &faults, &err));
    assert_int_equal(faults, 0);
    iso_store_close(s);
}

static void fresh(void)
{
    shell("rm -rf '%s' '%s' && mkdir -p '%s/sub'", images, db, images);
}

static void ten(void)
{
    char name[64];
    fresh();
    for (int i = 0; i < 10; i++) {
        snprintf(name, sizeof name, "%s%d.jpg", i % 2 ? "sub/" : "", i);
        picture(name, 20 * i, 255 - 20 * i, 40);
    }
}

static iso_store_info info_of(void)
{
    iso_store *s;
    iso_txn *t;
    iso_store_info info;
    OK(iso_store_open(db, ISO_STORE_READ, NULL, &s, &err));
    OK(iso_txn_begin(s, false, &t, &err));
    info = iso_store_info_get(t);
    iso_txn_abort(t);
    iso_store_close(s);
    return info;
}

static void test_incremental(void **state)
{
    (void)state;
    ten();
    fake f = {0};
    iso_encode_spec spec = spec_of(&f);
    iso_encode_counts c;
    OK(iso_encode(&spec, &c, &err));
    expect(&c, 10, 0, 0, 0, 0);
    assert_true(f.images == 10 && f.largest == 3);
    colour_of("0.jpg", 1, 0, 255, 40); /* ids in the order of the paths */
    colour_of("sub/1.jpg", 6, 20, 235, 40);

    char was[64] = "", is[64] = ""; /* a second run touches nothing, not even the database's file */
    char data[700];
    struct stat a, b;
    snprintf(data, sizeof data, "%s/data.mdb", db);
    stat(data, &a);
    snprintf(was, sizeof was, "%lld.%09ld %lld", (long long)a.st_mtim.tv_sec, a.st_mtim.tv_nsec, (long long)a.st_size);
    OK(iso_encode(&spec, &c, &err));
    expect(&c, 0, 0, 10, 0, 0);
    assert_int_equal(f.images, 10);
    stat(data, &b);
    snprintf(is, sizeof is, "%lld.%09ld %lld", (long long)b.st_mtim.tv_sec, b.st_mtim.tv_nsec, (long long)b.st_size);
    assert_string_equal(was, is);

    uint64_t generation = info_of().generation;
    shell("touch -d 2001-01-01 '%s/2.jpg'", images); /* the same content: noted, not encoded */
    OK(iso_encode(&spec, &c, &err));
    expect(&c, 0, 0, 10, 0, 0);
    assert_true(f.images == 10 && info_of().generation == generation);
    picture("2.jpg", 200, 100, 50); /* another content: a new id */
    shell("cp '%s/4.jpg' '%s/copy.jpg'; mv '%s/6.jpg' '%s/moved.jpg'", images, images, images, images);
    OK(iso_encode(&spec, &c, &err));
    expect(&c, 2, 1, 8, 0, 0);
    assert_int_equal(f.images, 11);
    colour_of("2.jpg", 11, 200, 100, 50);
    colour_of("copy.jpg", 0, 80, 175, 40);
    colour_of("6.jpg", 0, 120, 135, 40); /* gone, still answerable */
    spec.prune = true;
    OK(iso_encode(&spec, &c, &err));
    expect(&c, 0, 0, 11, 0, 1);
    assert_int_equal(info_of().count, 11);
    shell("cd '%s' && printf x >>0.jpg && touch -r 4.jpg 0.jpg", images);
    OK(iso_encode(&spec, &c, &err));
    expect(&c, 0, 1, 10, 0, 0);
    shell("cd '%s' && truncate -s -1 0.jpg && printf y >>0.jpg && touch -d 2002-02-02 0.jpg", images); /* as long as before */
    OK(iso_encode(&spec, &c, &err));
    expect(&c, 0, 1, 10, 0, 0);
    shell("cd '%s' && printf z >>0.jpg && touch -d 2002-02-02 0.jpg", images); /* as old as before */
    OK(iso_encode(&spec, &c, &err));
    expect(&c, 0, 1, 10, 0, 0);
    shell("cd '%s' && rm 4.jpg && mkfifo 4.jpg && rm -r sub && ln -s sub sub", images); /* what may just not be reachable stays */
    OK(iso_encode(&spec, &c, &err));
    assert_int_equal(c.removed, 0);
    assert_int_equal(info_of().count, 11);
    shell("rm -rf '%s'/*", images);
    assert_int_equal(iso_encode(&spec, &c, &err), ISO_E_ARGUMENT); /* an empty folder never empties the database */
    assert_int_equal(info_of().count, 11);
}

static void test_bad_files(void **state)
{
    (void)state;
    ten();
    shell("cd '%s' && : > zero.jpg && echo hello > text.jpg && head -c 300 0.jpg > short.jpg && mkfifo pipe.jpg", images);
    picture("red.jpg", 255, 0, 0);
    picture("a\nb\xff.jpg", 1, 2, 3);
    fake f = {.nan_reds = true};
    iso_encode_spec spec = spec_of(&f);
    iso_encode_counts c;
    OK(iso_encode(&spec, &c, &err));
    expect(&c, 11, 0, 0, 5, 0);
    assert_non_null(strstr(skips, "zero.jpg: "));
    assert_non_null(strstr(skips, "text.jpg: "));
    assert_non_null(strstr(skips, "short.jpg: "));
    assert_non_null(strstr(skips, "red.jpg: its vector is not finite"));
    assert_non_null(strstr(skips, "pipe.jpg: not a regular file"));
    colour_of("a\nb\xff.jpg", 0, 1, 2, 3);
    f = (fake){.zero_reds = true};
    skips[0] = 0;
    OK(iso_encode(&spec, &c, &err));
    expect(&c, 0, 0, 11, 5, 0);
    assert_non_null(strstr(skips, "red.jpg: its vector is zero"));
    shell("echo junk > '%s/0.jpg'", images); /* as docs/files.md says, its item stays */
    spec.prune = true;
    OK(iso_encode(&spec, &c, &err));
    expect(&c, 0, 0, 10, 6, 0);
    colour_of("0.jpg", 1, 0, 255, 40);
    spec.prune = false;
    fresh();
    picture("red.jpg", 255, 0, 0);
    f = (fake){.dead = true};
    assert_int_equal(iso_encode(&spec, &c, &err), ISO_E_NUMERIC);
    shell("rm -rf '%s'", images);
    assert_int_equal(iso_encode(&spec, &c, &err), ISO_E_IO);
}

/* The deliberately wrong cases: another model, another folder. */
static void test_mismatch(void **state)
{
    (void)state;
    ten();
    fake f = {0};
    iso_encode_spec spec = spec_of(&f);
    iso_encode_counts c;
    OK(iso_encode(&spec, &c, &err));
    spec.digest = "10000000000000000000000000000abc";
    assert_int_equal(iso_encode(&spec, &c, &err), ISO_E_MISMATCH);
    assert_non_null(strstr(err.message, digest));
    assert_non_null(strstr(err.message, spec.digest));
    spec.digest = digest;
    char sub[1000];
    snprintf(sub, sizeof sub, "%s/sub", images);
    spec.images = sub;
    assert_int_equal(iso_encode(&spec, &c, &err), ISO_E_MISMATCH);
    shell("mv '%s' '%s.new'", images, images);
    snprintf(sub, sizeof sub, "%s.new", images);
    assert_int_equal(iso_encode(&spec, &c, &err), ISO_E_MISMATCH);
    spec.relocate = true;
    OK(iso_encode(&spec, &c, &err));
    expect(&c, 0, 0, 10, 0, 0);
    spec.relocate = false;
    OK(iso_encode(&spec, &c, &err));
    shell("rm -rf '%s'", sub);
}

static void test_celeba_layout(void **state)
{
    (void)state;
    ten();
    shell("cd '%s' && mkdir img_align_celeba && mv 0.jpg 2.jpg img_align_celeba && touch list_attr_celeba.txt", images);
    fake f = {0};
    iso_encode_spec spec = spec_of(&f);
    iso_encode_counts c;
    OK(iso_encode(&spec, &c, &err));
    expect(&c, 2, 0, 0, 0, 0);
    colour_of("2.jpg", 2, 40, 215, 40);
}

/* The data set's own lists lie among the images: they are no damaged ones. */
static void test_lists(void **state)
{
    (void)state;
    ten();
    shell("cd '%s' && touch list_attr_celeba.txt list_eval_partition.txt sub/list_attr_celeba.txt", images);
    fake f = {0};
    iso_encode_spec spec = spec_of(&f);
    iso_encode_counts c;
    OK(iso_encode(&spec, &c, &err));
    expect(&c, 10, 0, 0, 1, 0);
    assert_int_equal(c.found, 11);
    assert_non_null(strstr(skips, "sub/list_attr_celeba.txt: "));
}

/* A path longer than any call takes: found, encoded, unchanged, gone. */
static void test_long_path(void **state)
{
    (void)state;
    fresh();
    picture("deep.jpg", 10, 20, 30);
    char name[201], from[700];
    snprintf(name, sizeof name, "%0200d", 0);
    snprintf(from, sizeof from, "%s/deep.jpg", images);
    int at = open(images, O_PATH | O_DIRECTORY);
    for (int i = 0; i < 25; i++) {
        assert_int_equal(mkdirat(at, name, 0777), 0);
        int in = openat(at, name, O_PATH | O_DIRECTORY);
        close(at);
        at = in;
    }
    assert_int_equal(renameat(AT_FDCWD, from, at, "deep.jpg"), 0);
    close(at);
    fake f = {0};
    iso_encode_spec spec = spec_of(&f);
    iso_encode_counts c;
    OK(iso_encode(&spec, &c, &err));
    expect(&c, 1, 0, 0, 0, 0);
    OK(iso_encode(&spec, &c, &err));
    expect(&c, 0, 0, 1, 0, 0);
    picture("other.jpg", 30, 20, 10);
    shell("cd '%s' && rm -r 0*", images);
    spec.prune = true;
    OK(iso_encode(&spec, &c, &err));
    expect(&c, 1, 0, 0, 0, 1);
}

/* A machine that runs out of files to open says nothing of the images. */
static void test_no_files_left(void **state)
{
    (void)state;
    ten();
    fake f = {0};
    iso_encode_spec spec = spec_of(&f);
    iso_encode_counts c;
    struct rlimit old, small;
    getrlimit(RLIMIT_NOFILE, &old);
    bool refused = false;
    for (rlim_t n = 3; n < 30 && !refused; n++) { /* with few enough not even the database opens */
        small = (struct rlimit){n, old.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &small), 0);
        iso_status status = iso_encode(&spec, &c, &err);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
        assert_string_equal(skips, "");
        refused = status == ISO_E_MEMORY && strstr(err.message, ".jpg: ");
        if (!status) break;
    }
    assert_true(refused);
    OK(iso_encode(&spec, &c, &err));
    expect(&c, 10, 0, 0, 0, 0);
}

/* A database inside the folder of images is not taken for images. */
static void test_inside(void **state)
{
    (void)state;
    ten();
    fake f = {0};
    iso_encode_spec spec = spec_of(&f);
    iso_encode_counts c;
    char inside[700];
    static const char *const places[] = {"/own.db", ".sub"}; /* the second only begins as the folder's name does, and goes on as one in it */
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        snprintf(inside, sizeof inside, "%s%s", images, places[i]);
        spec.db = inside;
        OK(iso_encode(&spec, &c, &err));
        expect(&c, 10, 0, 0, 0, 0);
        OK(iso_encode(&spec, &c, &err));
        expect(&c, 0, 0, 10, 0, 0);
        assert_int_equal(c.found, 10);
        shell("rm -r '%s'", inside);
    }
}

/* Ctrl-C in the middle: what was done is kept, the next run does the rest. */
static void test_interrupt(void **state)
{
    (void)state;
    ten();
    pid_t child = fork();
    if (child == 0) {
        iso_interrupt_install();
        fake f = {.interrupt_after = 4};
        iso_encode_spec spec = spec_of(&f);
        iso_encode_counts c = {0};
        iso_status status = iso_encode(&spec, &c, &err);
        bool right = status == ISO_E_INTERRUPTED && c.added == 6 && info_of().count == 6;
        if (!right) fprintf(stderr, "%d, %d added, %s\n", status, (int)c.added, err.message);
        _exit(right ? 0 : 1);
    }
    int code;
    assert_int_equal(waitpid(child, &code, 0), child);
    assert_true(WIFEXITED(code) && WEXITSTATUS(code) == 0);
    fake f = {0};
    iso_encode_spec spec = spec_of(&f);
    iso_encode_counts c;
    OK(iso_encode(&spec, &c, &err));
    expect(&c, 4, 0, 6, 0, 0);
    assert_int_equal(f.images, 4);
}

/* With batches made by a thread of their own: the same items with the same ids, and the same files skipped. */
static void test_overlap(void **state)
{
    (void)state;
    ten();
    shell("cd '%s' && echo hello > 0.text && echo hello > sub/8.text && cp 0.jpg copy.jpg", images);
    fake f = {0};
    iso_encode_spec spec = spec_of(&f);
    iso_encode_counts c;
    spec.overlap = true;
    OK(iso_encode(&spec, &c, &err));
    expect(&c, 11, 0, 0, 2, 0);
    assert_true(f.images == 11 && f.largest == 3);
    colour_of("0.jpg", 1, 0, 255, 40);
    colour_of("sub/9.jpg", 11, 180, 75, 40);
    OK(iso_encode(&spec, &c, &err));
    expect(&c, 0, 0, 11, 2, 0);
    f.dead = true;
    picture("2.jpg", 9, 9, 9);
    OK(iso_encode(&spec, &c, &err)); /* one without a vector among many that have one */
    expect(&c, 0, 0, 10, 3, 0);
}

static iso_status encode_real(void *ctx, const uint8_t *pixels, int64_t n, float *vectors, iso_error *e)
{
    return iso_encoder_run(ctx, pixels, n, vectors, e);
}

static void test_real_model(void **state)
{
    (void)state;
    ten();
    iso_net net = {.arch = ISO_ARCH_CELEBA, .width = 2, .latent = 8};
    iso_model *m;
    iso_encoder *e;
    OK(iso_model_create(&net, &m, &err));
    OK(iso_net_init(m, 7, &err));
    char file[600], copy[700];
    snprintf(file, sizeof file, "%s/m.safetensors", base);
    OK(iso_model_save(m, file, &err));
    OK(iso_encoder_create(m, 4, &e, &err));
    iso_encode_spec spec = {.images = images, .db = db, .dim = iso_model_dim(m), .digest = iso_model_digest(m), .model = file,
                            .batch = 4, .encode = encode_real, .encode_ctx = e};
    iso_encode_counts c;
    OK(iso_encode(&spec, &c, &err));
    expect(&c, 10, 0, 0, 0, 0);
    snprintf(copy, sizeof copy, "%s/model.safetensors", db);
    iso_model *again;
    OK(iso_model_load(copy, &again, &err));
    assert_string_equal(iso_model_digest(again), iso_model_digest(m));
    iso_model_free(again);
    iso_encoder_free(e);
    iso_model_free(m);
}

#if defined(__SANITIZE_ADDRESS__)
enum { STACK = 2 << 20 }; /* locals have room between them */
#else
enum { STACK = 256 << 10 }; /* isoface.h says that so much is enough */
#endif

static void *encode_here(void *ctx)
{
    enum { IMAGES = 3 };
    static uint8_t pixels[IMAGES * ISO_PIXELS];
    static float vectors[IMAGES * 8];
    return iso_encoder_run(ctx, pixels, IMAGES, vectors, NULL) ? ctx : NULL;
}

/* A host's thread may have little room. Of 16 channels: convolutions and what follows on them go by the ways of large models. */
static void test_small_stack(void **state)
{
    (void)state;
    iso_net net = {.arch = ISO_ARCH_CELEBA, .width = 16, .latent = 8};
    iso_model *m;
    OK(iso_model_create(&net, &m, &err));
    OK(iso_net_init(m, 7, &err));
    for (int64_t batch = 1; batch <= 32; batch *= 32) {
        iso_encoder *e;
        pthread_attr_t small;
        pthread_t thread;
        void *failed = NULL;
        OK(iso_encoder_create(m, batch, &e, &err));
        assert_int_equal(pthread_attr_init(&small), 0);
        assert_int_equal(pthread_attr_setstacksize(&small, STACK), 0);
        assert_int_equal(pthread_create(&thread, &small, encode_here, e), 0);
        assert_int_equal(pthread_join(thread, &failed), 0);
        assert_null(failed);
        pthread_attr_destroy(&small);
        iso_encoder_free(e);
    }
    iso_model_free(m);
}

int main(void)
{
    if (!make_folder(base, sizeof base, "encode")) return 1;
    snprintf(images, sizeof images, "%s/faces", base);
    snprintf(db, sizeof db, "%s/faces.db", base);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_interrupt), /* first: it forks, and OpenMP's threads do not come along */
        cmocka_unit_test(test_incremental), cmocka_unit_test(test_bad_files), cmocka_unit_test(test_mismatch),
        cmocka_unit_test(test_celeba_layout), cmocka_unit_test(test_lists), cmocka_unit_test(test_long_path), cmocka_unit_test(test_no_files_left), cmocka_unit_test(test_inside), cmocka_unit_test(test_overlap), cmocka_unit_test(test_real_model), cmocka_unit_test(test_small_stack)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return remove_folder(base) ? failed : 1;
}
