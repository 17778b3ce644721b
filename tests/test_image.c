/* test_image.c: every kind of JPEG and PNG against the picture it was made from, files, thumbnails, threads. */
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/descriptors.h"
#include "tests/folder.h"
#include "tests/pictures.h"

static char base[512];

/* --- JPEG -------------------------------------------------------------------------------------------------------- */

static void jpegs_of_every_kind(void **state)
{
    (void)state;
    static const int sizes[][2] = {{178, 218}, {200, 200}, {301, 208}, {255, 700}, {300, 256}, {1301, 999}, {1100, 1030}, {17, 9}, {1, 1}};
    static const int samplings[] = {TJSAMP_444, TJSAMP_422, TJSAMP_420, TJSAMP_440, TJSAMP_411};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        picture p = paint(sizes[s][0], sizes[s][1], 255);
        bool small = p.width < 100;
        /* of a small one, subsampling loses too much to compare */
        for (size_t k = 0; k < (small ? 1 : sizeof samplings / sizeof *samplings); k++)
            for (int progressive = 0; progressive < 2; progressive++) {
                bytes b = jpeg(&p, samplings[k], progressive ? TJFLAG_PROGRESSIVE : 0);
                expect(&b, &p, 1, small ? 16 : 8, progressive ? "progressive" : "baseline");
            }
        bytes gray = jpeg(&p, TJSAMP_GRAY, 0);
        for (int64_t i = 0; i < (int64_t)p.width * p.height; i++)
            memset(p.rgb + 3 * i, (int)(0.299 * p.rgb[3 * i] + 0.587 * p.rgb[3 * i + 1] + 0.114 * p.rgb[3 * i + 2] + 0.5), 3);
        expect(&gray, &p, 1, 6, "gray");
        free(p.rgb);
    }
}

/* Adobe's inverted CMYK, as YCCK and as plain CMYK: the latter is the former with the marker's transform set to none. */
static void cmyk_jpegs(void **state)
{
    (void)state;
    enum { BLACK = 204 };
    for (int scaled = 0; scaled < 2; scaled++)
        for (int kind = 0; kind < 4; kind++) {
            bool plain = kind & 1;
            picture p = paint(scaled ? 800 : 200, scaled ? 700 : 180, 255);
            int64_t n = (int64_t)p.width * p.height;
            uint8_t *cmyk = malloc((size_t)n * 4);
            assert_non_null(cmyk);
            for (int64_t i = 0; i < n; i++) {
                double c[3] = {p.rgb[3 * i], p.rgb[3 * i + 1], p.rgb[3 * i + 2]}, r = 255 - c[0], g = 255 - c[1], b = 255 - c[2];
                double ycc[3] = {0.299 * r + 0.587 * g + 0.114 * b, 128 - 0.168736 * r - 0.331264 * g + 0.5 * b,
                                 128 + 0.5 * r - 0.418688 * g - 0.081312 * b};
                for (int k = 0; k < 3; k++) {
                    cmyk[4 * i + k] = (uint8_t)c[k];
                    p.rgb[3 * i + k] = (uint8_t)(fmin(plain ? ycc[k] : c[k], 255) * BLACK / 255 + 0.5);
                }
                cmyk[4 * i + 3] = BLACK;
            }
            bytes b = jpeg_of(cmyk, p.width, p.height, TJPF_CMYK, TJSAMP_444, kind & 2 ? TJFLAG_PROGRESSIVE : 0);
            size_t adobe = find_marker(&b, 0xEE);
            assert_int_equal(b.data[adobe + 15], 2);
            if (plain) b.data[adobe + 15] = 0;
            expect(&b, &p, 1, 6, plain ? "CMYK" : "YCCK");
            free(cmyk);
            free(p.rgb);
        }
}

static void every_orientation(void **state)
{
    (void)state;
    static const int sizes[][2] = {{178, 218}, {218, 178}, {301, 208}, {207, 300}, {1101, 700}};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        picture p = paint(sizes[s][0], sizes[s][1], 255);
        for (int o = 1; o <= 8; o++) {
            bytes b = jpeg(&p, TJSAMP_444, 0);
            jpeg_orient(&b, o, o % 2);
            expect(&b, &p, o, 8, "JPEG");
            b = png_rgb(&p, o);
            expect(&b, &p, o, 0, "PNG"); /* to the byte: the crop lies the same on odd remainders, too */
        }
        free(p.rgb);
    }
    picture p = paint(90, 80, 255);
    static const uint8_t types[] = {1, 3, 4}; /* BYTE and LONG as well as SHORT, which it should be */
    for (size_t k = 0; k < sizeof types; k++) {
        bytes b = jpeg(&p, TJSAMP_444, 0);
        jpeg_orient(&b, 3, false); /* of two blocks the first counts */
        jpeg_orient(&b, 6, false);
        b.data[2 + 10 + 12] = types[k];
        expect(&b, &p, 6, 30, "an orientation of another type");
    }
    /* nonsense is no orientation */
    for (int o = 9; o < 256; o += 41) {
        bytes b = jpeg(&p, TJSAMP_444, 0);
        jpeg_orient(&b, o, false);
        expect(&b, &p, 1, 30, "nonsense");
    }
    free(p.rgb);
}

static void a_wrong_orientation_is_seen(void **state)
{
    (void)state;
    picture p = paint(178, 218, 255);
    uint8_t out[ISO_PIXELS];
    for (int o = 1; o <= 8; o++) {
        bytes b = png_rgb(&p, o);
        OK(decode(b.data, b.size, out, NULL, &err));
        for (int other = 1; other <= 8; other++) assert_true((distance(&p, other, ISO_SIDE, out) > 20) == (other != o));
        free(b.data);
    }
    free(p.rgb);
}

/* What libjpeg warns of and is harmless gives the same picture; what merely looks like it does not pass. */
static void harmless_quirks(void **state)
{
    (void)state;
    picture p = paint(120, 100, 255);
    uint8_t clean[ISO_PIXELS], out[ISO_PIXELS], junk[400];
    bytes b = jpeg(&p, TJSAMP_420, 0);
    OK(decode(b.data, b.size, clean, NULL, &err));
    for (size_t i = 0; i < sizeof junk; i++) junk[i] = (uint8_t)(i % 200);
    static const size_t paddings[][2] = {{3, 1}, {64, 1}, {300, 0}};
    for (size_t i = 0; i < 3; i++) {
        bytes c = jpeg(&p, TJSAMP_420, 0);
        uint8_t zeros[300] = {0};
        bytes_insert(&c, c.size - 2, paddings[i][1] ? junk : zeros, paddings[i][0]);
        OK(decode(c.data, c.size, out, NULL, &err));
        assert_memory_equal(out, clean, sizeof out);
        free(c.data);
    }
    bytes c = jpeg(&p, TJSAMP_420, 0); /* JFIF 2.7, junk between the header's segments, junk behind the end */
    c.data[11] = 2;
    c.data[12] = 7;
    bytes_insert(&c, find_marker(&c, 0xC0), junk, 5);
    bytes_insert(&c, find_marker(&c, 0xDA), junk, 9);
    bytes_insert(&c, c.size, junk, 100);
    OK(decode(c.data, c.size, out, NULL, &err));
    assert_memory_equal(out, clean, sizeof out);
    bytes_insert(&c, c.size - 102, junk, 200); /* and then too much before it */
    refuse(&c, "corrupt JPEG");
    free(c.data);
    free(b.data);
    free(p.rgb);
}

static void scans_must_be_complete(void **state)
{
    (void)state;
    picture p = paint(150, 140, 255);
    bytes b = many_scans(&p, 3);
    expect(&b, &p, 1, 8, "three scans");
    for (int scans = 1; scans < 3; scans++) {
        b = many_scans(&p, scans);
        refuse(&b, "no data for one of its components");
        free(b.data);
    }
    free(p.rgb);
}

/* --- PNG --------------------------------------------------------------------------------------------------------- */

static void put_sample(uint8_t *row, int i, int depth, unsigned value)
{
    if (depth == 16) {
        row[2 * i] = (uint8_t)(value >> 8);
        row[2 * i + 1] = (uint8_t)value;
    } else if (depth == 8) {
        row[i] = (uint8_t)value;
    } else {
        row[i * depth / 8] |= (uint8_t)(value << (8 - depth - i * depth % 8));
    }
}

static uint8_t over_white(double c, double a, double max)
{
    return (uint8_t)(255 * (c * a / max / max + 1 - a / max) + 0.5);
}

/* Random samples of every colour type and depth, with and without a transparent colour, interlaced or not. */
static void check_png(int colour, int depth, bool keyed, bool interlaced)
{
    int width = 70 + (int)(draw() % 9), height = 66 + (int)(draw() % 9), channels = (colour & 2 && colour != 3 ? 3 : 1) + (colour & 4 ? 1 : 0);
    size_t stride = ((size_t)(width * channels * depth) + 7) / 8;
    unsigned max = (1u << depth) - 1;
    double top = colour == 3 ? 255 : max;
    uint8_t *rows = calloc((size_t)height, stride);
    picture p = paint(width, height, 255);
    png_color palette[256];
    png_byte alpha[256];
    png_color_16 key = {.gray = (png_uint_16)(max / 2), .red = (png_uint_16)(max / 2), .green = (png_uint_16)(max / 3), .blue = 7};
    assert_non_null(rows);
    for (int i = 0; i < 256; i++) {
        palette[i] = (png_color){(png_byte)draw(), (png_byte)draw(), (png_byte)draw()};
        alpha[i] = (png_byte)draw();
    }
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            unsigned v[4];
            bool hit = draw() % 3 == 0; /* the transparent colour itself */
            for (int c = 0; c < channels; c++) {
                v[c] = draw() & max;
                if (hit && keyed) v[c] = channels == 1 ? key.gray : c == 0 ? key.red : c == 1 ? key.green : key.blue;
                put_sample(rows + (size_t)y * stride, x * channels + c, depth, v[c]);
            }
            bool clear = keyed && colour != 3 && (channels == 1 ? v[0] == key.gray : v[0] == key.red && v[1] == key.green && v[2] == key.blue);
            double a = colour & 4 ? v[channels - 1] : clear ? 0 : top, c[3];
            for (int k = 0; k < 3; k++) c[k] = channels >= 3 ? v[k] : v[0];
            if (colour == 3) {
                c[0] = palette[v[0]].red;
                c[1] = palette[v[0]].green;
                c[2] = palette[v[0]].blue;
                if (keyed) a = alpha[v[0]];
            }
            for (int k = 0; k < 3; k++) p.rgb[3 * (y * width + x) + k] = over_white(c[k], a, top);
        }
    png_kind k = {.colour = colour, .depth = depth, .interlaced = interlaced};
    if (colour == 3) {
        k.palette = palette;
        k.colours = (int)max + 1;
        if (keyed) k.palette_alpha = alpha;
    } else if (keyed) {
        k.transparent = &key;
    }
    bytes b = png(rows, stride, width, height, &k);
    char what[80];
    snprintf(what, sizeof what, "PNG colour %d, %d bits, %s%s", colour, depth, keyed ? "tRNS" : "", interlaced ? " interlaced" : "");
    expect(&b, &p, 1, depth == 16 && colour & 4 ? 2 : 0, what); /* 16 bits are rounded before they are blended */
    free(rows);
    free(p.rgb);
}

static void pngs_of_every_kind(void **state)
{
    (void)state;
    for (int interlaced = 0; interlaced < 2; interlaced++)
        for (int keyed = 0; keyed < 2; keyed++) {
            for (int depth = 1; depth <= 16; depth *= 2) check_png(PNG_COLOR_TYPE_GRAY, depth, keyed, interlaced);
            for (int depth = 1; depth <= 8; depth *= 2) check_png(PNG_COLOR_TYPE_PALETTE, depth, keyed, interlaced);
            for (int depth = 8; depth <= 16; depth *= 2) {
                check_png(PNG_COLOR_TYPE_RGB, depth, keyed, interlaced);
                if (keyed) continue;
                check_png(PNG_COLOR_TYPE_GRAY_ALPHA, depth, false, interlaced);
                check_png(PNG_COLOR_TYPE_RGB_ALPHA, depth, false, interlaced);
            }
        }
}

/* An index is one of the palette's, or refused. */
static void palettes_have_an_end(void **state)
{
    (void)state;
    uint8_t index[40 * 40], out[ISO_PIXELS];
    png_color palette[40];
    for (int i = 0; i < 40; i++) palette[i] = (png_color){(png_byte)i, 7, 9};
    for (int most = 39; most <= 40; most++) {
        for (int i = 0; i < 40 * 40; i++) index[i] = (uint8_t)(i % (most + 1));
        bytes b = png(index, 40, 40, 40, &(png_kind){.colour = PNG_COLOR_TYPE_PALETTE, .depth = 8, .palette = palette, .colours = 40});
        if (most < 40) OK(decode(b.data, b.size, out, NULL, &err));
        else refuse(&b, "colour 40 of a palette of 40");
        free(b.data);
    }
}

/* --- files ------------------------------------------------------------------------------------------------------- */

static const char *store(const bytes *b, const char *name)
{
    static char path[700];
    snprintf(path, sizeof path, "%s/%s", base, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(b->data, 1, b->size, f), b->size);
    assert_int_equal(fclose(f), 0);
    return path;
}

static void files_are_read(void **state)
{
    (void)state;
    picture p = paint(178, 218, 255);
    bytes b = png_rgb(&p, 1);
    uint8_t out[ISO_PIXELS], again[ISO_PIXELS];
    iso_image_info info, memory;
    const char *path = store(&b, "a \n\xff.jpg"); /* by content, not by name */
    OK(iso_image_read(path, out, &info, &err));
    OK(iso_image_read(path, out, NULL, &err));
    OK(decode(b.data, b.size, again, &memory, &err));
    assert_memory_equal(out, again, sizeof out);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_true(info.mtime_ns == (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec);
    assert_int_equal(memory.mtime_ns, 0);
    assert_int_equal(info.size, st.st_size);
    assert_true(info.hash[0] == memory.hash[0] && info.hash[1] == memory.hash[1] && info.hash[0] != info.hash[1]);
    b.data[b.size - 1] ^= 1;
    assert_int_equal(iso_image_read(store(&b, "damaged.png"), out, NULL, &err), ISO_E_FORMAT);
    assert_null(strchr(err.message, '/'));
    free(b.data);
    free(p.rgb);
}

static void expect_io(const char *path, const char *says)
{
    uint8_t out[ISO_PIXELS];
    alarm(20); /* nothing may block */
    iso_status status = iso_image_read(path, out, NULL, &err);
    alarm(0);
    if (status != ISO_E_IO || !strstr(err.message, says)) fail_msg("%s: %d %s, expected \"%s\"", path, status, err.message, says);
}

static void what_is_no_file_is_refused(void **state)
{
    (void)state;
    char fifo[700];
    const int before = lowest_free();
    snprintf(fifo, sizeof fifo, "%s/fifo.jpg", base);
    assert_int_equal(mkfifo(fifo, 0644), 0);
    expect_io(fifo, "not a regular file");
    expect_io("/dev/null", "not a regular file");
    expect_io(base, "a folder");
    expect_io("/nowhere/at/all.jpg", "No such file");
    expect_io("", "No such file");
    char *name = malloc(6000);
    assert_non_null(name);
    memset(name, 'x', 5999);
    name[5999] = 0;
    expect_io(name, "File name too long");
    free(name);
    assert_int_equal(lowest_free(), before);
}

static void thumbnails(void **state)
{
    (void)state;
    picture p = paint(1301, 999, 255);
    bytes b = jpeg(&p, TJSAMP_444, 0);
    jpeg_orient(&b, 6, true);
    const char *path = store(&b, "thumbnail.jpg");
    static const int sides[] = {1, 48, 128, 300, 1200};
    uint8_t *rgb = NULL;
    for (size_t i = 0; i < sizeof sides / sizeof *sides; i++) {
        OK(iso_image_thumbnail(path, sides[i], &rgb, &err));
        IN_RANGE(distance(&p, 6, sides[i], rgb), 0, 8);
        free(rgb);
        rgb = NULL;
    }
    assert_int_equal(iso_image_thumbnail(path, 0, &rgb, &err), ISO_E_ARGUMENT);
    assert_int_equal(iso_image_thumbnail(path, ISO_IMAGE_MAX_THUMBNAIL + 1, &rgb, &err), ISO_E_ARGUMENT);
    assert_int_equal(iso_image_thumbnail("/nowhere.jpg", 64, &rgb, &err), ISO_E_IO);
    b.size /= 2;
    assert_int_equal(iso_image_thumbnail(store(&b, "half.jpg"), 64, &rgb, &err), ISO_E_FORMAT);
    assert_null(rgb);
    free(b.data);
    free(p.rgb);
}

static void threads_decode_the_same(void **state)
{
    (void)state;
    picture p = paint(300, 200, 255);
    bytes b[] = {jpeg(&p, TJSAMP_420, TJFLAG_PROGRESSIVE), png_rgb(&p, 7)};
    uint8_t want[2][ISO_PIXELS];
    int wrong = 0;
    for (int k = 0; k < 2; k++) OK(decode(b[k].data, b[k].size, want[k], NULL, &err));
#pragma omp parallel for num_threads(4) reduction(+ : wrong)
    for (int i = 0; i < 80; i++) {
        uint8_t out[ISO_PIXELS];
        iso_status status = decode(b[i % 2].data, b[i % 2].size, out, NULL, NULL);
        wrong += status != ISO_OK || memcmp(out, want[i % 2], sizeof out) != 0;
    }
    assert_int_equal(wrong, 0);
    free(b[0].data);
    free(b[1].data);
    free(p.rgb);
}

static int set_up(void **state)
{
    (void)state;
    return make_folder(base, sizeof base, "image") ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    return !remove_folder(base);
}

int main(void)
{
    begin_random(20221);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jpegs_of_every_kind),
        cmocka_unit_test(cmyk_jpegs),
        cmocka_unit_test(every_orientation),
        cmocka_unit_test(a_wrong_orientation_is_seen),
        cmocka_unit_test(harmless_quirks),
        cmocka_unit_test(scans_must_be_complete),
        cmocka_unit_test(pngs_of_every_kind),
        cmocka_unit_test(palettes_have_an_end),
        cmocka_unit_test(files_are_read),
        cmocka_unit_test(what_is_no_file_is_refused),
        cmocka_unit_test(thumbnails),
        cmocka_unit_test(threads_decode_the_same),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
