/* test_faces.c: drawn faces: the same bytes from the same seed, labels that agree with one another and with the picture,
 * and a folder in CelebA's layout that the rest of Isoface reads. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/memory.h"
#include "demo/faces.h"
#include "indexer/dataset.h"
#include "model/preprocess.h"
#include "tests/check.h"
#include "tests/folder.h"

static char base[512];
static iso_error err;

/* ---- labels ---- */

/* Labels that cannot go together. */
static int contradictions(const uint8_t *h)
{
    int n = 0;
    n += h[ISO_FACE_BLACK] + h[ISO_FACE_BLOND] + h[ISO_FACE_BROWN] + h[ISO_FACE_GRAY] > 1;
    n += h[ISO_FACE_STRAIGHT] && h[ISO_FACE_WAVY];
    n += h[ISO_FACE_NO_BEARD] != !(h[ISO_FACE_SHADOW] || h[ISO_FACE_GOATEE] || h[ISO_FACE_MUSTACHE]);
    n += !h[ISO_FACE_NO_BEARD] && !h[ISO_FACE_MALE];
    n += h[ISO_FACE_BALD] && (h[ISO_FACE_BANGS] || h[ISO_FACE_RECEDING] || h[ISO_FACE_BLACK] || h[ISO_FACE_WAVY] || h[ISO_FACE_SIDEBURNS]);
    n += h[ISO_FACE_HAT] && (h[ISO_FACE_BALD] || h[ISO_FACE_BANGS] || h[ISO_FACE_RECEDING]);
    n += h[ISO_FACE_BIG_NOSE] && h[ISO_FACE_POINTY];
    n += h[ISO_FACE_NECKTIE] && h[ISO_FACE_NECKLACE];
    n += h[ISO_FACE_OVAL] && h[ISO_FACE_CHUBBY];
    return n;
}

static void labels_agree_and_vary(void **unused)
{
    (void)unused;
    int count[ISO_FACE_ATTRIBUTES] = {0}, bearded = 0, made_up = 0;
    for (int i = 1; i <= 4000; i++) {
        uint8_t h[ISO_FACE_ATTRIBUTES];
        iso_face_traits(3, i, h);
        assert_int_equal(contradictions(h), 0);
        for (int a = 0; a < ISO_FACE_ATTRIBUTES; a++) count[a] += h[a];
        bearded += h[ISO_FACE_MALE] && !h[ISO_FACE_NO_BEARD];
        made_up += !h[ISO_FACE_MALE] && h[ISO_FACE_MAKEUP];
    }
    for (int a = 0; a < ISO_FACE_ATTRIBUTES; a++)
        if (count[a] < 80 || count[a] > 3400) fail_msg("%s: %d of 4000", iso_face_attribute[a], count[a]);
    assert_true(bearded > 0.3 * count[ISO_FACE_MALE]);
    assert_int_equal(made_up, count[ISO_FACE_MAKEUP]);
    uint8_t wrong[ISO_FACE_ATTRIBUTES] = {[ISO_FACE_BLACK] = 1, [ISO_FACE_BLOND] = 1, [ISO_FACE_NO_BEARD] = 1};
    assert_int_equal(contradictions(wrong), 1); /* the check sees a wrong label */
}

/* ---- pictures ---- */

static void small(uint64_t seed, int64_t number, const uint8_t *has, uint8_t out[ISO_PIXELS])
{
    static uint8_t rgb[ISO_FACE_BYTES];
    int x, y, side;
    OK(iso_face_draw(seed, number, has, rgb, &err));
    iso_crop(ISO_FACE_WIDTH, ISO_FACE_HEIGHT, &x, &y, &side);
    iso_resample_eighths(rgb, ISO_FACE_WIDTH * 3, 8 * x, 8 * y, 8 * side, ISO_SIDE, out);
}

/* Pixels of two 64 x 64 pictures that differ by more than a glance would miss. */
static int changed(const uint8_t *a, const uint8_t *b)
{
    int n = 0;
    for (int i = 0; i < ISO_SIDE * ISO_SIDE; i++) {
        int d = 0;
        for (int c = 0; c < 3; c++) d += abs(a[3 * i + c] - b[3 * i + c]);
        n += d > 24;
    }
    return n;
}

/* At 64 x 64, in the crop that is encoded, each attribute changes the same person's picture. */
static void attributes_are_visible(void **unused)
{
    (void)unused;
    for (int a = 0; a < ISO_FACE_ATTRIBUTES; a++) {
        if (a == ISO_FACE_ATTRACTIVE || a == ISO_FACE_NO_BEARD) continue; /* a label, and the absence of the beards */
        int seen = 0, tried = 0;
        for (int64_t i = 1; tried < 3 && i < 2000; i++) {
            uint8_t with[ISO_FACE_ATTRIBUTES], without[ISO_FACE_ATTRIBUTES], x[ISO_PIXELS], y[ISO_PIXELS];
            iso_face_traits(11, i, with);
            if (!with[a] || (with[ISO_FACE_BLURRY] && a != ISO_FACE_BLURRY)) continue;
            tried++;
            memcpy(without, with, sizeof with);
            without[a] = 0;
            small(11, i, with, x);
            small(11, i, without, y);
            assert_int_equal(changed(x, x), 0);
            seen += changed(x, y) >= 12;
        }
        assert_int_equal(tried, 3);
        if (seen < 2) fail_msg("%s shows in %d of 3 faces", iso_face_attribute[a], seen);
    }
}

static void people_differ(void **unused)
{
    (void)unused;
    static uint8_t face[12][ISO_PIXELS];
    uint8_t has[ISO_FACE_ATTRIBUTES] = {[ISO_FACE_NO_BEARD] = 1, [ISO_FACE_YOUNG] = 1, [ISO_FACE_BROWN] = 1};
    for (int i = 0; i < 12; i++) {
        small((uint64_t)(i % 2), 1 + i / 2, has, face[i]);
        for (int j = 0; j < i; j++) assert_true(changed(face[i], face[j]) > 500);
    }
}

/* ---- the data set ---- */

static char *path_of(const char *dir, const char *name)
{
    char *p = iso_path_join(dir, name);
    assert_non_null(p);
    return p;
}

static void same_file(const char *dir_a, const char *dir_b, const char *name)
{
    char *a = path_of(dir_a, name), *b = path_of(dir_b, name), *x, *y;
    size_t n, m;
    OK(iso_file_read(a, 1 << 20, &x, &n, &err));
    OK(iso_file_read(b, 1 << 20, &y, &m, &err));
    assert_int_equal(n, m);
    assert_memory_equal(x, y, n);
    free(a), free(b), free(x), free(y);
}

static void a_data_set_is_written_and_read(void **unused)
{
    (void)unused;
    char *a = path_of(base, "a"), *b = path_of(base, "b b");
    iso_faces_spec spec = {.count = 40, .seed = 5, .train = 0.5, .valid = 0.25, .quiet = true};
    omp_set_num_threads(1);
    OK(iso_faces_write(a, &spec, &err));
    omp_set_num_threads(3);
    spec.count = 17; /* another count, more threads: the same faces */
    OK(iso_faces_write(b, &spec, &err));
    same_file(a, b, "img_align_celeba/000001.jpg");
    same_file(a, b, "img_align_celeba/000017.jpg");

    iso_dataset *d;
    OK(iso_dataset_load(a, 7, 2, NULL, NULL, NULL, &d, &err));
    assert_int_equal(d->count, 40);
    assert_int_equal(d->skipped, 0);
    int64_t part[3] = {0};
    for (int64_t i = 0; i < d->count; i++) part[d->part[i]]++;
    assert_true(part[0] == 20 && part[1] == 10 && part[2] == 10);
    iso_attributes *at;
    OK(iso_attributes_read(d->attribute_file, &at, &err));
    assert_int_equal(iso_attributes_count(at), ISO_FACE_ATTRIBUTES);
    assert_int_equal(iso_attributes_files(at), 40);
    for (int i = 0; i < ISO_FACE_ATTRIBUTES; i++) assert_string_equal(iso_attributes_name(at, i), iso_face_attribute[i]);
    uint8_t has[ISO_FACE_ATTRIBUTES];
    iso_face_traits(5, 33, has);
    assert_memory_equal(iso_attributes_find(at, "000033.jpg"), has, sizeof has);
    iso_attributes_free(at);
    iso_dataset_free(d);

    char *picture = path_of(a, "img_align_celeba/000002.jpg");
    uint8_t pixels[ISO_PIXELS];
    iso_image_info info;
    OK(iso_image_read(picture, pixels, &info, &err));
    assert_true(info.width == ISO_FACE_WIDTH && info.height == ISO_FACE_HEIGHT);
    free(picture), free(a), free(b);
}

static void folders_in_use_are_kept(void **unused)
{
    (void)unused;
    char *dir = path_of(base, "kept"), *own = path_of(base, "own"), *note = path_of(base, "own/000001.jpg"), *last = path_of(base, "kept/img_align_celeba/000004.jpg");
    iso_faces_spec spec = {.count = 4, .train = 0.8, .valid = 0.05, .quiet = true};
    OK(iso_faces_write(dir, &spec, &err));
    assert_int_equal(iso_faces_write(dir, &spec, &err), ISO_E_ARGUMENT);
    assert_non_null(strstr(err.message, "--force"));
    spec.force = true, spec.count = 2;
    assert_int_equal(access(last, F_OK), 0);
    OK(iso_faces_write(dir, &spec, &err));
    assert_int_not_equal(access(last, F_OK), 0); /* no picture without attributes is left */
    assert_int_equal(mkdir(own, 0777), 0);
    FILE *f = fopen(note, "w");
    assert_non_null(f);
    fclose(f);
    assert_int_equal(iso_faces_write(own, &spec, &err), ISO_E_ARGUMENT); /* force does not reach into other folders */
    assert_int_equal(access(note, F_OK), 0);
    assert_int_equal(iso_faces_write(note, &spec, &err), ISO_E_ARGUMENT);
    assert_int_equal(iso_faces_write("/nowhere/faces", &spec, &err), ISO_E_IO);
    assert_int_equal(iso_faces_write("/dev/full/faces", &spec, &err), ISO_E_IO);
    spec.count = 0;
    assert_int_equal(iso_faces_write(dir, &spec, &err), ISO_E_ARGUMENT);
    spec.count = ISO_FACES_MAX + 1;
    assert_int_equal(iso_faces_write(dir, &spec, &err), ISO_E_ARGUMENT);
    spec.count = 1, spec.train = 0.9, spec.valid = 0.2;
    assert_int_equal(iso_faces_write(dir, &spec, &err), ISO_E_ARGUMENT);
    spec.train = NAN;
    assert_int_equal(iso_faces_write(dir, &spec, &err), ISO_E_ARGUMENT);
    free(dir), free(own), free(note), free(last);
}

int main(void)
{
    if (!make_folder(base, sizeof base, "faces")) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(labels_agree_and_vary), cmocka_unit_test(attributes_are_visible),  cmocka_unit_test(people_differ),
        cmocka_unit_test(a_data_set_is_written_and_read), cmocka_unit_test(folders_in_use_are_kept),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return !remove_folder(base) || failed;
}
