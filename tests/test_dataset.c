/* test_dataset.c: listings, CelebA's text files, data sets. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <turbojpeg.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/progress.h"
#include "indexer/dataset.h"
#include "tests/check.h"
#include "tests/descriptors.h"
#include "tests/folder.h"

static char base[512];
static iso_error err;

/* --- scaffolding ------------------------------------------------------------------------------------------------- */

static const char *at(const char *name) /* the last few results stay valid */
{
    static char path[8][1200];
    static int next;
    char *p = path[next++ % 8];
    snprintf(p, sizeof path[0], "%s/%s", base, name);
    return p;
}

static void wipe(void)
{
    if (!remove_folder(base)) fail();
    assert_int_equal(mkdir(base, 0755), 0);
}

static void folder(const char *name)
{
    assert_int_equal(mkdir(at(name), 0755), 0);
}

static void file_bytes(const char *name, const void *data, size_t n)
{
    FILE *f = fopen(at(name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void file(const char *name, const char *text)
{
    file_bytes(name, text, strlen(text));
}

/* A small JPEG whose content depends on n. `held`: and on whether it would be held out, by a number behind its end. */
static void image_held(const char *name, int n, const bool *held)
{
    uint8_t rgb[24 * 20 * 3], whole[4096];
    for (int i = 0; i < 24 * 20; i++) {
        rgb[3 * i] = (uint8_t)(n * 37 + i / 4);
        rgb[3 * i + 1] = (uint8_t)(n * 11);
        rgb[3 * i + 2] = (uint8_t)(255 - n);
    }
    tjhandle tj = tjInitCompress();
    unsigned char *jpeg = NULL;
    unsigned long size = 0;
    assert_int_equal(tjCompress2(tj, rgb, 24, 0, 20, TJPF_RGB, &jpeg, &size, TJSAMP_444, 95, 0), 0);
    assert_true(size + sizeof(int) <= sizeof whole);
    memcpy(whole, jpeg, size);
    for (int more = 0; held && more < 1000; more++) {
        memcpy(whole + size, &more, sizeof more);
        if ((XXH3_128bits(whole, size + sizeof more).low64 % 20 == 0) == *held) break;
    }
    file_bytes(name, whole, held ? size + sizeof(int) : size);
    tjFree(jpeg);
    tjDestroy(tj);
}

static void image(const char *name, int n) { image_held(name, n, NULL); }

/* --- listing ----------------------------------------------------------------------------------------------------- */

static void expect_listing(const iso_listing *l, const char *const *want, size_t n)
{
    for (size_t i = 0; i < n && i < l->count; i++) assert_string_equal(l->path[i], want[i]);
    assert_int_equal(l->count, n);
}

static void listing_is_sorted_and_whole(void **state)
{
    (void)state;
    wipe();
    folder("in");
    folder("in/sub");
    folder("in/sub/deeper");
    folder("in/.hidden");
    folder("in/empty");
    file("in/b.jpg", "");
    file("in/a b\n\xff.png", "");
    file("in/sub.txt", "");
    file("in/sub/z", "");
    file("in/sub/deeper/\xc3\xa4", "");
    file("in/.hidden/x.jpg", "");
    file("in/.dot.jpg", "");
    assert_int_equal(mkfifo(at("in/fifo.jpg"), 0644), 0);
    assert_int_equal(symlink("../b.jpg", at("in/sub/link.jpg")), 0);
    assert_int_equal(symlink("nowhere", at("in/broken.jpg")), 0);
    assert_int_equal(symlink("self.jpg", at("in/self.jpg")), 0);
    assert_int_equal(symlink("..", at("in/sub/up")), 0);      /* a cycle */
    assert_int_equal(symlink("sub/deeper", at("in/again")), 0); /* none */
    const char *want[] = {"a b\n\xff.png", "again/\xc3\xa4", "b.jpg", "sub.txt", "sub/deeper/\xc3\xa4", "sub/link.jpg", "sub/z"};
    iso_listing l;
    OK(iso_listing_read(at("in//"), &l, &err));
    assert_string_equal(l.root, at("in"));
    expect_listing(&l, want, sizeof want / sizeof *want);
    assert_int_equal(l.skipped, 3);
    assert_string_equal(l.skip_path[0], "broken.jpg");
    assert_string_equal(l.skip_reason[0], "broken symbolic link");
    assert_string_equal(l.skip_path[1], "fifo.jpg");
    assert_string_equal(l.skip_reason[1], "not a regular file");
    assert_string_equal(l.skip_path[2], "self.jpg");
    want[0] = "deliberately wrong";
    assert_string_not_equal(l.path[0], want[0]);
    iso_listing_free(&l);
    OK(iso_listing_read(at("in/empty"), &l, &err));
    assert_int_equal(l.count + l.skipped, 0);
    iso_listing_free(&l);
}

static void listing_refuses_what_is_no_folder(void **state)
{
    (void)state;
    wipe();
    file("plain", "");
    iso_listing l = {0};
    FAILS(ISO_E_IO, iso_listing_read(at("missing"), &l, &err));
    SAYS("No such file");
    FAILS(ISO_E_IO, iso_listing_read(at("plain"), &l, &err));
    SAYS("Not a directory");
    FAILS(ISO_E_ARGUMENT, iso_listing_read("", &l, &err));
    FAILS(ISO_E_ARGUMENT, iso_listing_read("", &l, NULL));
    assert_null(l.root);
}

static void listing_can_be_interrupted(void **state)
{
    (void)state;
    wipe();
    file("plain", "");
    fflush(NULL);
    const pid_t child = fork();
    if (!child) { /* an interruption stays for as long as its process */
        iso_listing l = {0};
        iso_interrupt_install();
        raise(SIGTERM);
        _exit(iso_listing_read(base, &l, &err) != ISO_E_INTERRUPTED);
    }
    int how = -1;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
}

static void unreadable_folders_are_told(void **state)
{
    (void)state;
    wipe();
    folder("in");
    folder("in/locked");
    file("in/a", "");
    file("in/locked/b", "");
    assert_int_equal(chmod(at("in/locked"), 0), 0);
    bool root = geteuid() == 0;
    assert_int_equal(chmod(base, 0755), 0);
    if (root) assert_int_equal(seteuid(65534), 0);
    iso_listing l = {0};
    iso_status status = iso_listing_read(at("in"), &l, &err), locked = iso_listing_read(at("in/locked"), &l, NULL);
    if (root) assert_int_equal(seteuid(0), 0);
    assert_int_equal(chmod(at("in/locked"), 0755), 0);
    if (status) { /* the folder of temporary files may itself be closed to nobody */
        assert_int_equal(status, ISO_E_IO);
        return;
    }
    assert_int_equal(locked, ISO_E_IO);
    assert_int_equal(l.count, 1);
    assert_int_equal(l.skipped, 1);
    assert_string_equal(l.skip_path[0], "locked");
    assert_string_equal(l.skip_reason[0], "Permission denied");
    iso_listing_free(&l);
}

static void depth_has_no_limit(void **state)
{
    (void)state;
    enum { DEPTH = 1500 };
    wipe();
    folder("deep");
    int fd = open(at("deep"), O_RDONLY | O_DIRECTORY);
    assert_true(fd >= 0);
    for (int i = 0; i < DEPTH; i++) {
        assert_int_equal(mkdirat(fd, "a_folder", 0755), 0);
        int below = openat(fd, "a_folder", O_RDONLY | O_DIRECTORY);
        assert_true(below >= 0);
        close(fd);
        fd = below;
    }
    image("small.jpg", 3);
    assert_int_equal(linkat(AT_FDCWD, at("small.jpg"), fd, "leaf.jpg", 0), 0);
    close(fd);
    iso_listing l;
    const int before = lowest_free();
    OK(iso_listing_read(at("deep"), &l, &err));
    assert_int_equal(l.count, 1);
    assert_int_equal(l.skipped, 0);
    assert_int_equal(strlen(l.path[0]), DEPTH * 9 + 8);
    iso_listing_free(&l);
    iso_dataset *d;
    OK(iso_dataset_load(at("deep"), 7, 1, NULL, NULL, NULL, &d, &err));
    assert_int_equal(d->count, 1);
    assert_int_equal(lowest_free(), before);
    iso_dataset_free(d);
}

/* --- text files -------------------------------------------------------------------------------------------------- */

static void partition_is_read(void **state)
{
    (void)state;
    wipe();
    file("p", "\xEF\xBB\xBF" "a.jpg 0\r\n\r\nsub/b.jpg\t 2 \nb.jpg 1\n  c.jpg 2");
    iso_partition *p;
    OK(iso_partition_read(at("p"), &p, &err));
    assert_int_equal(iso_partition_find(p, "a.jpg"), 0);
    assert_int_equal(iso_partition_find(p, "x/y/a.jpg"), 0);
    assert_int_equal(iso_partition_find(p, "sub/b.jpg"), 2);
    assert_int_equal(iso_partition_find(p, "b.jpg"), 1);
    assert_int_equal(iso_partition_find(p, "other/b.jpg"), 1);
    assert_int_equal(iso_partition_find(p, "c.jpg"), 2);
    assert_int_equal(iso_partition_find(p, "d.jpg"), -1);
    assert_int_equal(iso_partition_find(p, ""), -1);
    iso_partition_free(p);
    iso_partition_free(NULL);
}

static void bad_partitions_are_refused(void **state)
{
    (void)state;
    static const struct { const char *text, *says; } bad[] = {
        {"a.jpg 0\nb.jpg\n", "line 2: has 1 columns"},    {"a.jpg 3\n", "line 1: the part is '3'"}, {"a.jpg 01\n", "line 1: the part"},
        {"a.jpg 0\n\nb.jpg 1 2\n", "line 3: has 3 columns"}, {"a.jpg 0\na.jpg 0\n", "line 2: a.jpg is listed twice"},
        {"", "lists no files"},                            {"\n \r\n", "lists no files"},            {"a.jpg -1\n", "line 1"},
    };
    wipe();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        iso_partition *p = NULL;
        file("p", bad[i].text);
        FAILS(ISO_E_FORMAT, iso_partition_read(at("p"), &p, &err));
        SAYS(bad[i].says);
        assert_null(p);
    }
    iso_partition *p = NULL;
    file_bytes("p", "a.jpg 0\nb\0jpg 1\n", 16);
    FAILS(ISO_E_FORMAT, iso_partition_read(at("p"), &p, &err));
    SAYS("line 2: a NUL byte");
    FAILS(ISO_E_IO, iso_partition_read(at("missing"), &p, &err));
    SAYS("cannot open");
    FAILS(ISO_E_IO, iso_partition_read("/", &p, &err));
    SAYS("it is a folder");
    file("p", "a.jpg 0\n");
    assert_int_equal(truncate(at("p"), 66 << 20), 0); /* a line of NULs */
    FAILS(ISO_E_FORMAT, iso_partition_read(at("p"), &p, &err));
    SAYS("line 2 is longer than 64 MiB");
    assert_int_equal(truncate(at("p"), (off_t)2 << 30), 0);
    FAILS(ISO_E_FORMAT, iso_partition_read(at("p"), &p, &err));
    SAYS("has 2147483648 bytes, more than the 1073741824 it may have");
}

static void attributes_are_read(void **state)
{
    (void)state;
    wipe();
    file("a", "3\r\nBald  Smiling Young \r\n000001.jpg -1  1 -1\r\n000002.jpg  1 -1  0\r\nd/000001.jpg 1 1 1");
    iso_attributes *a;
    OK(iso_attributes_read(at("a"), &a, &err));
    assert_int_equal(iso_attributes_count(a), 3);
    assert_int_equal(iso_attributes_files(a), 3);
    assert_string_equal(iso_attributes_name(a, 2), "Young");
    assert_memory_equal(iso_attributes_find(a, "000001.jpg"), "\0\1\0", 3);
    assert_memory_equal(iso_attributes_find(a, "e/000002.jpg"), "\1\0\0", 3);
    assert_memory_equal(iso_attributes_find(a, "d/000001.jpg"), "\1\1\1", 3);
    assert_null(iso_attributes_find(a, "000003.jpg"));
    iso_attributes_free(a);
    file("a", "0\nBald\n");
    OK(iso_attributes_read(at("a"), &a, &err));
    assert_null(iso_attributes_find(a, "x"));
    iso_attributes_free(a);
    iso_attributes_free(NULL);
}

static void bad_attributes_are_refused(void **state)
{
    (void)state;
    static const struct { const char *text, *says; } bad[] = {
        {"", "is empty"},
        {"2\n", "names are missing"},
        {"Bald Young\na.jpg 1 1\n", "line 1: expected the number of files"},
        {"-1\nBald\n", "line 1: expected the number"},
        {"1\nBald Bald\na 1 1\n", "line 2: attribute Bald is named twice"},
        {"1\nBald Young\na.jpg 1\n", "line 3: has 2 columns, expected 3"},
        {"1\nBald Young\na.jpg 1 1 1\n", "line 3: has 4 columns, expected 3"},
        {"1\nBald Young\na.jpg 1 2\n", "line 3: Young is '2', expected 1, -1 or 0"},
        {"1\nBald\na.jpg -\n", "line 3"},
        {"1\nBald\na.jpg +1\n", "line 3"},
        {"2\nBald\na.jpg 1\na.jpg 1\n", "line 4: a.jpg is listed twice"},
        {"3\nBald\na.jpg 1\nb.jpg 1\n", "line 1 says 3 files, but 2 follow"},
        {"99999999999999999999999\nBald\na.jpg 1\n", "line 1"},
    };
    wipe();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        iso_attributes *a = NULL;
        file("a", bad[i].text);
        FAILS(ISO_E_FORMAT, iso_attributes_read(at("a"), &a, &err));
        SAYS(bad[i].says);
        assert_null(a);
    }
}

/* As many attributes as a net can tell, and one more. */
static void many_attributes_are_refused(void **state)
{
    (void)state;
    for (int n = 4096; n <= 4097; n++) {
        char *text = malloc(16 * 4097 + 32);
        iso_attributes *a = NULL;
        int k = sprintf(text, "1\n");
        for (int i = 0; i < n; i++) k += sprintf(text + k, "a%d ", i);
        k += sprintf(text + k, "\na.jpg");
        for (int i = 0; i < n; i++) k += sprintf(text + k, " -1");
        sprintf(text + k, "\n");
        wipe();
        file("a", text);
        if (n == 4096) {
            OK(iso_attributes_read(at("a"), &a, &err));
            assert_int_equal(iso_attributes_count(a), n);
        } else {
            FAILS(ISO_E_FORMAT, iso_attributes_read(at("a"), &a, &err));
            SAYS("a: line 2: names 4097 attributes, more than the 4096 allowed");
        }
        iso_attributes_free(a);
        free(text);
    }
}

/* The same file as Unix and as Windows write it, with -1 or 0 for what is not there, with and without what else is allowed. */
static void attribute_files_may_differ_in_form(void **state)
{
    (void)state;
    static const char *const same[] = {
        "2\nBald Smiling Young\na.jpg -1 1 -1\nb.jpg 1 -1 1\n",       "2\r\nBald Smiling Young\r\na.jpg -1 1 -1\r\nb.jpg 1 -1 1\r\n",
        "2\nBald Smiling Young\na.jpg 0 1 0\nb.jpg 1 0 1\n",          "2\nBald Smiling Young\na.jpg 0 1 -1\nb.jpg 1 -1 1",
        ("\xEF\xBB\xBF" "2 \r\n\r\nBald\tSmiling  Young \r\n\r\n a.jpg  0 1 0\r\nb.jpg  1  0  1 \r\n\r\n"),
    };
    wipe();
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        iso_attributes *a = NULL;
        file("a", same[i]);
        OK(iso_attributes_read(at("a"), &a, &err));
        assert_int_equal(iso_attributes_count(a), 3);
        assert_string_equal(iso_attributes_name(a, 2), "Young");
        assert_int_equal(iso_attributes_files(a), 2);
        assert_memory_equal(iso_attributes_find(a, "a.jpg"), "\0\1\0", 3);
        assert_memory_equal(iso_attributes_find(a, "b.jpg"), "\1\0\1", 3);
        iso_attributes_free(a);
    }
    /* Old Macintosh line ends make one line of it all: refused, and not half read. */
    iso_attributes *a = NULL;
    file("a", "2\rBald Smiling Young\ra.jpg -1 1 -1\rb.jpg 1 -1 1\r");
    FAILS(ISO_E_FORMAT, iso_attributes_read(at("a"), &a, &err));
    SAYS("line 1: expected the number of files, then the names on a line of their own");
    file("a", "2\nBald Smiling Young\na.jpg -1 1 -1\nb.jpg 1 -1\n"); /* deliberately wrong: a column is missing */
    FAILS(ISO_E_FORMAT, iso_attributes_read(at("a"), &a, &err));
    SAYS("line 4: has 3 columns, expected 4");
    assert_null(a);
}

static void many_names_are_found(void **state)
{
    (void)state;
    wipe();
    FILE *f = fopen(at("p"), "w");
    assert_non_null(f);
    for (int i = 0; i < 20000; i++) fprintf(f, "%06d.jpg %d\n", i, i % 3);
    assert_int_equal(fclose(f), 0);
    iso_partition *p;
    OK(iso_partition_read(at("p"), &p, &err));
    for (int i = 0; i < 20000; i++) {
        char name[32];
        snprintf(name, sizeof name, "q/%06d.jpg", i);
        assert_int_equal(iso_partition_find(p, name), i % 3);
    }
    iso_partition_free(p);
}

/* Lists are read in pieces of some hundred KiB: lines of all lengths and forms cross their ends. */
static void long_lists_are_read_whole(void **state)
{
    (void)state;
    enum { FILES = 30000, COUNT = 19 };
    wipe();
    FILE *f = fopen(at("a"), "w");
    assert_non_null(f);
    fprintf(f, "%d\n", FILES);
    for (int j = 0; j < COUNT; j++) fprintf(f, "a%d%s", j, j + 1 < COUNT ? " " : "\n");
    uint32_t seed = 1;
    for (int i = 0; i < FILES; i++) {
        fprintf(f, "%0*d.jpg", 6 + i % 23, i);
        for (int j = 0; j < COUNT; j++) {
            seed = seed * 1664525 + 1013904223;
            fprintf(f, i % 7 == 3 ? " %d" : " %2d", seed >> 31 ? 1 : -1);
        }
        if (i + 1 < FILES) fputs(i % 5 == 2 ? "\r\n" : i % 11 == 4 ? " \n\n" : "\n", f);
    }
    assert_int_equal(fclose(f), 0);
    iso_attributes *a;
    OK(iso_attributes_read(at("a"), &a, &err));
    assert_int_equal(iso_attributes_files(a), FILES);
    seed = 1;
    for (int i = 0; i < FILES; i++) {
        char name[64];
        snprintf(name, sizeof name, "%0*d.jpg", 6 + i % 23, i);
        assert_int_equal(iso_attributes_row_near(a, name, -1), i);
        for (int j = 0; j < COUNT; j++) {
            seed = seed * 1664525 + 1013904223;
            assert_int_equal(iso_attributes_at(a, i)[j], seed >> 31);
        }
    }
    iso_attributes_free(a);
}

/* --- data sets --------------------------------------------------------------------------------------------------- */

static int64_t in_part(const iso_dataset *d, int part)
{
    int64_t n = 0;
    for (int64_t i = 0; i < d->count; i++) n += d->part[i] == part;
    return n;
}

static void same_sets(const iso_dataset *a, const iso_dataset *b)
{
    assert_int_equal(a->count, b->count);
    assert_int_equal(a->skipped, b->skipped);
    for (int64_t i = 0; i < a->count; i++) assert_string_equal(a->path[i], b->path[i]);
    for (int64_t i = 0; i < a->skipped; i++) assert_string_equal(a->skip_path[i], b->skip_path[i]);
    for (int64_t i = 0; i < a->skipped; i++) assert_string_equal(a->skip_reason[i], b->skip_reason[i]);
    assert_memory_equal(a->part, b->part, (size_t)a->count);
    assert_memory_equal(a->pixels, b->pixels, (size_t)a->count * ISO_PIXELS);
}

static iso_status note_parts(void *ctx, int64_t train, int64_t valid, iso_error *e)
{
    (void)e;
    int64_t *told = ctx;
    told[0] = train, told[1] = valid;
    return ISO_OK;
}

/* One of twenty by content, always the same ones, so that a training that is gone on with by a later version has the same; at least one, and not all;
 * copies stay together, unless there is nothing else. */
static void content_says_who_is_held_out(void **state)
{
    (void)state;
    static const struct {
        const char *held; /* of each image: '1' or '0' */
        int copies;       /* of each */
        int valid, train;
    } folders[] = {{"010001", 1, 2, 4}, {"10", 2, 2, 2}, {"000", 1, 1, 2}, {"000", 2, 2, 4}, {"111", 1, 2, 1}, {"111", 2, 4, 2}, {"0", 3, 1, 2}, {"1", 3, 2, 1}, {"1", 1, 0, 1}};
    for (size_t k = 0; k < sizeof folders / sizeof *folders; k++) {
        iso_dataset *d;
        const int images = (int)strlen(folders[k].held), copies = folders[k].copies;
        bool some = false, others = false;
        wipe();
        folder("in");
        for (int i = 0; i < images; i++)
            for (int c = 0; c < copies; c++) {
                char name[32];
                const bool held = folders[k].held[i] == '1';
                some = some || held, others = others || !held;
                snprintf(name, sizeof name, "in/%d-%d.jpg", i, c);
                image_held(name, i, &held);
            }
        OK(iso_dataset_load(at("in"), 1 << ISO_PART_TRAIN | 1 << ISO_PART_VALID, 2, NULL, NULL, NULL, &d, &err));
        assert_int_equal(in_part(d, ISO_PART_VALID), folders[k].valid);
        assert_int_equal(in_part(d, ISO_PART_TRAIN), folders[k].train);
        for (int i = 0; i < images * copies; i++) {
            if (images > 1) assert_int_equal(d->part[i], d->part[i / copies * copies]);
            if (some && others) assert_int_equal(d->part[i] == ISO_PART_VALID, folders[k].held[i / copies] == '1');
        }
        iso_dataset_free(d);
    }
}

static void plain_folder_holds_some_out(void **state)
{
    (void)state;
    wipe();
    folder("in");
    folder("in/sub");
    for (int i = 0; i < 100; i++) {
        char name[64];
        snprintf(name, sizeof name, "in/%s%03d.jpg", i % 2 ? "sub/" : "", i);
        image(name, i);
    }
    file("in/notes.txt", "hello");
    file("in/empty.jpg", "");
    iso_dataset *one, *four, *valid, *train;
    OK(iso_dataset_load(at("in/"), 7, 1, NULL, NULL, NULL, &one, &err));
    OK(iso_dataset_load(at("in"), 7, 4, NULL, NULL, NULL, &four, &err));
    same_sets(one, four);
    assert_int_equal(one->count, 100);
    assert_string_equal(one->image_dir, at("in"));
    assert_null(one->attribute_file);
    assert_null(one->partition_file);
    assert_int_equal(one->skipped, 2);
    assert_string_equal(one->skip_path[0], "empty.jpg");
    assert_string_equal(one->skip_reason[0], "empty file");
    assert_string_equal(one->skip_reason[1], "not a JPEG or PNG");
    int64_t held = in_part(one, ISO_PART_VALID);
    IN_RANGE(held, 1, 15);
    assert_int_equal(in_part(one, ISO_PART_TRAIN), 100 - held);
    int64_t told[2] = {0, 0}; /* before any is decoded, when nobody knows who validates: what there is room for must do */
    OK(iso_dataset_load(at("in"), 1 << ISO_PART_TRAIN | 1 << ISO_PART_VALID, 2, NULL, note_parts, told, &train, &err));
    iso_dataset_free(train);
    IN_RANGE(told[0], 100 - held, 102); /* two are no images */
    IN_RANGE(told[1], held, 15);
    OK(iso_dataset_load(at("in"), 1 << ISO_PART_TRAIN, 2, NULL, note_parts, told, &train, &err));
    iso_dataset_free(train);
    assert_true(told[0] == 102 && told[1] == 0);
    OK(iso_dataset_load(at("in"), 1 << ISO_PART_VALID, 2, NULL, NULL, NULL, &valid, &err));
    OK(iso_dataset_load(at("in"), 1 << ISO_PART_TRAIN, 2, NULL, NULL, NULL, &train, &err));
    assert_int_equal(valid->count, held);
    assert_int_equal(train->count, 100 - held);
    for (int64_t i = 0, v = 0, t = 0; i < one->count; i++) {
        const iso_dataset *d = one->part[i] == ISO_PART_VALID ? valid : train;
        int64_t *k = d == valid ? &v : &t;
        assert_string_equal(d->path[*k], one->path[i]);
        assert_memory_equal(d->pixels + *k * ISO_PIXELS, one->pixels + i * ISO_PIXELS, ISO_PIXELS);
        ++*k;
    }
    iso_dataset_free(one);
    iso_dataset_free(four);
    iso_dataset_free(valid);
    iso_dataset_free(train);
}

static void small_folders_hold_one_out(void **state)
{
    (void)state;
    iso_dataset *d;
    for (int n = 1; n <= 6; n++) {
        wipe();
        folder("in");
        for (int i = 0; i < n; i++) {
            char name[32];
            snprintf(name, sizeof name, "in/%d.jpg", i);
            image(name, 50 + i);
        }
        OK(iso_dataset_load(at("in"), 7, 2, NULL, NULL, NULL, &d, &err));
        assert_int_equal(d->count, n);
        if (n == 1) assert_int_equal(in_part(d, ISO_PART_TRAIN), 1);
        else IN_RANGE(in_part(d, ISO_PART_VALID), 1, n - 1);
        iso_dataset_free(d);
    }
    wipe(); /* copies of one image only: still one of each */
    folder("in");
    for (int i = 0; i < 3; i++) image(i == 0 ? "in/a.jpg" : i == 1 ? "in/b.jpg" : "in/c.jpg", 9);
    OK(iso_dataset_load(at("in"), 7, 2, NULL, NULL, NULL, &d, &err));
    IN_RANGE(in_part(d, ISO_PART_VALID), 1, 2);
    iso_dataset_free(d);
}

static void celeba_layout_is_followed(void **state)
{
    (void)state;
    wipe();
    folder("set");
    folder("set/img_align_celeba");
    for (int i = 0; i < 12; i++) {
        char name[64];
        snprintf(name, sizeof name, "set/img_align_celeba/%02d.jpg", i);
        image(name, i);
    }
    file("set/img_align_celeba/04.jpg", "\xff\xd8\xff");
    file("set/list_attr_celeba.txt", "1\nBald\n00.jpg 1\n");
    file("set/list_eval_partition.txt", "00.jpg 0\n01.jpg 1\n02.jpg 2\n03.jpg 0\n04.jpg 0\n05.jpg 2\n06.jpg 1\n07.jpg 0\n08.jpg 0\n09.jpg 0\n10.jpg 0\n");
    iso_dataset *d;
    OK(iso_dataset_load(at("set"), 7, 2, NULL, NULL, NULL, &d, &err));
    assert_string_equal(d->image_dir, at("set/img_align_celeba"));
    assert_string_equal(d->attribute_file, at("set/list_attr_celeba.txt"));
    assert_string_equal(d->partition_file, at("set/list_eval_partition.txt"));
    assert_int_equal(d->count, 10);
    assert_int_equal(in_part(d, ISO_PART_TRAIN), 6);
    assert_int_equal(in_part(d, ISO_PART_VALID), 2);
    assert_int_equal(d->skipped, 2);
    assert_string_equal(d->skip_path[0], "04.jpg");
    assert_string_equal(d->skip_reason[0], "truncated JPEG");
    assert_string_equal(d->skip_path[1], "11.jpg");
    assert_string_equal(d->skip_reason[1], "not listed in the partition file");
    iso_dataset_free(d);

    OK(iso_dataset_load(at("set"), 1 << ISO_PART_TEST, 2, NULL, NULL, NULL, &d, &err));
    assert_int_equal(d->count, 2);
    assert_string_equal(d->path[1], "05.jpg");
    iso_dataset_free(d);

    /* No validation part: some of the training images are held out, and none of the test images. */
    file("set/list_eval_partition.txt", "00.jpg 0\n01.jpg 0\n02.jpg 2\n03.jpg 0\n05.jpg 2\n06.jpg 0\n07.jpg 0\n");
    OK(iso_dataset_load(at("set"), 7, 2, NULL, NULL, NULL, &d, &err));
    assert_int_equal(in_part(d, ISO_PART_TEST), 2);
    IN_RANGE(in_part(d, ISO_PART_VALID), 1, 4);
    assert_int_equal(d->count, 7);
    iso_dataset_free(d);

    file("set/list_eval_partition.txt", "00.jpg 7\n");
    d = NULL;
    FAILS(ISO_E_FORMAT, iso_dataset_load(at("set"), 7, 2, NULL, NULL, NULL, &d, &err));
    SAYS("line 1");
    assert_null(d);
}

/* The attribute file misses images, and has some that are not there. */
static void labels_follow_the_images(void **state)
{
    (void)state;
    wipe();
    folder("in");
    folder("in/sub");
    image("in/a.jpg", 1);
    image("in/b.jpg", 2);
    image("in/sub/c.jpg", 3);
    file("list", "3\r\nBald Young\r\nc.jpg 1 0\r\nextra.jpg 1 1\r\na.jpg -1 1\r\n");
    iso_dataset *d;
    iso_attributes *a;
    iso_labels l = {0};
    OK(iso_dataset_load(at("in"), 7, 1, NULL, NULL, NULL, &d, &err));
    OK(iso_attributes_read(at("list"), &a, &err));
    OK(iso_labels_make(d, a, &l, &err));
    iso_attributes_free(a);
    assert_int_equal(l.classes, 2);
    assert_string_equal(l.names, "Bald Young");
    assert_int_equal(d->count, 3);
    assert_true(l.listed[0] && !l.listed[1] && l.listed[2]);
    assert_memory_equal(l.row, "\0\1\0\0\1\0", 6);
    iso_labels_free(&l);
    assert_null(l.row);
    iso_labels_free(&l);
    iso_dataset_free(d);
}

static void lists_among_the_images_are_no_images(void **state)
{
    (void)state;
    wipe();
    folder("in");
    image("in/a.jpg", 1);
    image("in/b.jpg", 2);
    file("in/list_eval_partition.txt", "a.jpg 0\nb.jpg 1\n");
    iso_dataset *d;
    OK(iso_dataset_load(at("in"), 7, 1, NULL, NULL, NULL, &d, &err));
    assert_int_equal(d->count, 2);
    assert_int_equal(d->skipped, 0);
    iso_dataset_free(d);
}

static void useless_folders_are_refused(void **state)
{
    (void)state;
    iso_dataset *d = NULL;
    wipe();
    folder("in");
    FAILS(ISO_E_ARGUMENT, iso_dataset_load(at("in"), 7, 1, NULL, NULL, NULL, &d, &err));
    SAYS("no images in");
    file("in/x", "text");
    FAILS(ISO_E_ARGUMENT, iso_dataset_load(at("in"), 7, 1, NULL, NULL, NULL, &d, &err));
    SAYS("no usable image in");
    SAYS("x: not a JPEG or PNG");
    image("in/x", 1);
    FAILS(ISO_E_ARGUMENT, iso_dataset_load(at("in"), 1 << ISO_PART_TEST, 1, NULL, NULL, NULL, &d, &err));
    SAYS("belongs to the part");
    FAILS(ISO_E_ARGUMENT, iso_dataset_load(at("in"), 0, 1, NULL, NULL, NULL, &d, &err));
    FAILS(ISO_E_ARGUMENT, iso_dataset_load("", 7, 1, NULL, NULL, NULL, &d, &err));
    FAILS(ISO_E_IO, iso_dataset_load(at("missing"), 7, 1, NULL, NULL, NULL, &d, &err));
    assert_null(d);
    iso_dataset_free(NULL);
}

static int set_up(void **state)
{
    (void)state;
    return make_folder(base, sizeof base, "dataset") ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    return !remove_folder(base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(listing_is_sorted_and_whole),
        cmocka_unit_test(listing_refuses_what_is_no_folder),
        cmocka_unit_test(listing_can_be_interrupted),
        cmocka_unit_test(unreadable_folders_are_told),
        cmocka_unit_test(depth_has_no_limit),
        cmocka_unit_test(partition_is_read),
        cmocka_unit_test(bad_partitions_are_refused),
        cmocka_unit_test(attributes_are_read),
        cmocka_unit_test(bad_attributes_are_refused), cmocka_unit_test(many_attributes_are_refused),
        cmocka_unit_test(attribute_files_may_differ_in_form),
        cmocka_unit_test(many_names_are_found), cmocka_unit_test(long_lists_are_read_whole),
        cmocka_unit_test(content_says_who_is_held_out),
        cmocka_unit_test(plain_folder_holds_some_out),
        cmocka_unit_test(small_folders_hold_one_out),
        cmocka_unit_test(celeba_layout_is_followed),
        cmocka_unit_test(labels_follow_the_images),
        cmocka_unit_test(lists_among_the_images_are_no_images),
        cmocka_unit_test(useless_folders_are_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
