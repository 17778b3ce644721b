/* pictures.h: pictures made for tests, written as JPEG and PNG of every kind into memory, and checks of their decoding.
 *
 * Included by the tests of image decoding only; cmocka.h and what it wants come before it. */
#ifndef TESTS_PICTURES_H
#define TESTS_PICTURES_H

#include <math.h>
#include <png.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <turbojpeg.h>
#include <xxhash.h>

#include "indexer/image.h"
#include "tests/check.h"
#include "tests/random.h"

static iso_error err;

/* --- pictures ---------------------------------------------------------------------------------------------------- */

typedef struct picture { int width, height; uint8_t *rgb; } picture;

/* Smooth, so that JPEG keeps it, and alike in no two directions. */
static inline picture paint(int width, int height, int brightest)
{
    picture p = {width, height, malloc((size_t)width * (size_t)height * 3)};
    assert_non_null(p.rgb);
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            uint8_t *q = p.rgb + 3 * ((int64_t)y * width + x);
            double u = (double)x / width, v = (double)y / height;
            q[0] = (uint8_t)(brightest * u);
            q[1] = (uint8_t)(brightest * v);
            q[2] = (uint8_t)(brightest * (0.5 + 0.45 * sin(5 * u + 9 * v * v)));
        }
    return p;
}

/* What a viewer shows of a stored picture: EXIF's eight cases, spelled out. */
static inline picture upright(const picture *p, int orientation)
{
    int w = p->width, h = p->height;
    picture out = {orientation > 4 ? h : w, orientation > 4 ? w : h, malloc((size_t)w * (size_t)h * 3)};
    assert_non_null(out.rgb);
    for (int y = 0; y < out.height; y++)
        for (int x = 0; x < out.width; x++) {
            int sx = x, sy = y;
            switch (orientation) {
            case 2: sx = w - 1 - x; break;
            case 3: sx = w - 1 - x; sy = h - 1 - y; break;
            case 4: sy = h - 1 - y; break;
            case 5: sx = y; sy = x; break;
            case 6: sx = y; sy = h - 1 - x; break;
            case 7: sx = w - 1 - y; sy = h - 1 - x; break;
            case 8: sx = w - 1 - y; sy = x; break;
            }
            memcpy(out.rgb + 3 * ((int64_t)y * out.width + x), p->rgb + 3 * ((int64_t)sy * w + sx), 3);
        }
    return out;
}

/* The largest distance from the picture's own centre square at n x n. */
static inline int distance(const picture *p, int orientation, int n, const uint8_t *got)
{
    picture up = upright(p, orientation);
    uint8_t *want = malloc((size_t)(3 * n * n));
    assert_non_null(want);
    int x, y, side, worst = 0;
    iso_crop(up.width, up.height, &x, &y, &side);
    iso_resample_eighths(up.rgb, 3 * (int64_t)up.width, 8 * x, 8 * y, 8 * side, n, want);
    for (int i = 0; i < 3 * n * n; i++) worst = abs(want[i] - got[i]) > worst ? abs(want[i] - got[i]) : worst;
    free(want);
    free(up.rgb);
    return worst;
}

/* --- files in memory --------------------------------------------------------------------------------------------- */

typedef struct bytes { uint8_t *data; size_t size; } bytes;

static inline void bytes_insert(bytes *b, size_t at, const void *data, size_t n)
{
    b->data = realloc(b->data, b->size + n + 1);
    assert_non_null(b->data);
    memmove(b->data + at + n, b->data + at, b->size - at);
    memcpy(b->data + at, data, n);
    b->size += n;
}

static inline bytes jpeg_of(const uint8_t *pixels, int width, int height, int format, int subsampling, int flags)
{
    bytes b = {0};
    unsigned char *jpeg = NULL;
    unsigned long size = 0;
    tjhandle tj = tjInitCompress();
    assert_int_equal(tjCompress2(tj, pixels, width, 0, height, format, &jpeg, &size, subsampling, 97, flags), 0);
    bytes_insert(&b, 0, jpeg, size);
    tjFree(jpeg);
    tjDestroy(tj);
    return b;
}

static inline bytes jpeg(const picture *p, int subsampling, int flags)
{
    return jpeg_of(p->rgb, p->width, p->height, TJPF_RGB, subsampling, flags);
}

static inline size_t find_marker(const bytes *b, int marker) /* offset of its 0xFF */
{
    for (size_t i = 2; i + 1 < b->size; i++)
        if (b->data[i] == 0xFF && b->data[i + 1] == marker) return i;
    fail_msg("no marker %02x", marker);
    return 0;
}

/* A TIFF with one entry; returns its size. */
static inline size_t tiff(uint8_t out[26], int orientation, bool big_endian)
{
    static const uint8_t little[26] = {'I', 'I', 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 0, 0, 0, 0};
    static const uint8_t big[26] = {'M', 'M', 0, 42, 0, 0, 0, 8, 0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0};
    memcpy(out, big_endian ? big : little, 26);
    out[big_endian ? 19 : 18] = (uint8_t)orientation;
    return 26;
}

static inline void jpeg_orient(bytes *b, int orientation, bool big_endian)
{
    uint8_t app1[36] = {0xFF, 0xE1, 0, 34, 'E', 'x', 'i', 'f', 0, 0};
    tiff(app1 + 10, orientation, big_endian);
    bytes_insert(b, 2, app1, sizeof app1);
}

static inline void on_write(png_structp png, png_bytep data, size_t n)
{
    bytes *b = png_get_io_ptr(png);
    bytes_insert(b, b->size, data, n);
}

typedef struct png_kind {
    int colour, depth;
    bool interlaced;
    int orientation;
    png_color *palette;
    int colours;
    png_byte *palette_alpha;
    png_color_16 *transparent;
} png_kind;

static inline bytes png(const uint8_t *rows, size_t stride, int width, int height, const png_kind *k)
{
    bytes b = {0};
    png_structp w = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(w);
    assert_non_null(info);
    assert_int_equal(setjmp(png_jmpbuf(w)), 0);
    png_set_write_fn(w, &b, on_write, NULL);
    png_set_IHDR(w, info, (png_uint_32)width, (png_uint_32)height, k->depth, k->colour, k->interlaced, 0, 0);
    if (k->palette) png_set_PLTE(w, info, k->palette, k->colours);
    if (k->palette_alpha) png_set_tRNS(w, info, k->palette_alpha, k->colours, NULL);
    if (k->transparent) png_set_tRNS(w, info, NULL, 0, k->transparent);
    uint8_t exif[26];
    if (k->orientation) png_set_eXIf_1(w, info, (png_uint_32)tiff(exif, k->orientation, true), exif);
    png_text text = {.compression = PNG_TEXT_COMPRESSION_NONE, .key = (char *)"Title", .text = (char *)"a picture", .text_length = 9};
    png_set_text(w, info, &text, 1);
    png_bytep *row = malloc((size_t)height * sizeof *row);
    assert_non_null(row);
    for (int y = 0; y < height; y++) row[y] = (png_bytep)(uintptr_t)(rows + (size_t)y * stride);
    png_write_info(w, info);
    png_write_image(w, row);
    png_write_end(w, NULL);
    free(row);
    png_destroy_write_struct(&w, &info);
    return b;
}

static inline bytes png_rgb(const picture *p, int orientation)
{
    return png(p->rgb, 3 * (size_t)p->width, p->width, p->height, &(png_kind){.colour = PNG_COLOR_TYPE_RGB, .depth = 8, .orientation = orientation});
}

static inline uint32_t crc32_of(const uint8_t *data, size_t n)
{
    uint32_t crc = ~UINT32_C(0);
    for (size_t i = 0; i < n; i++) {
        crc ^= data[i];
        for (int k = 0; k < 8; k++) crc = crc >> 1 ^ (crc & 1 ? UINT32_C(0xEDB88320) : 0);
    }
    return ~crc;
}

/* Makes the checksums right again, as far as the chunks hang together. */
static inline void png_mend(bytes *b)
{
    for (size_t at = 8; at + 12 <= b->size;) {
        size_t n = (size_t)b->data[at] << 24 | (size_t)b->data[at + 1] << 16 | (size_t)b->data[at + 2] << 8 | b->data[at + 3];
        if (n > b->size - at - 12) return;
        uint32_t crc = crc32_of(b->data + at + 4, n + 4);
        for (int i = 0; i < 4; i++) b->data[at + 8 + n + (size_t)i] = (uint8_t)(crc >> (24 - 8 * i));
        at += n + 12;
    }
}

static inline size_t png_chunk(const bytes *b, const char *name) /* offset of its length */
{
    for (size_t i = 8; i + 8 <= b->size; i++)
        if (memcmp(b->data + i + 4, name, 4) == 0) return i;
    fail_msg("no chunk %s", name);
    return 0;
}

/* A sequential JPEG with a scan for each component, put together from gray ones; `scans` of the three. */
static inline bytes many_scans(const picture *p, int scans)
{
    bytes out = {0};
    int64_t n = (int64_t)p->width * p->height;
    uint8_t *plane = malloc((size_t)n);
    assert_non_null(plane);
    for (int c = 0; c < scans; c++) {
        for (int64_t i = 0; i < n; i++) {
            const uint8_t *q = p->rgb + 3 * i;
            double v = c == 0 ? 0.299 * q[0] + 0.587 * q[1] + 0.114 * q[2]
                     : c == 1 ? 128 - 0.168736 * q[0] - 0.331264 * q[1] + 0.5 * q[2]
                              : 128 + 0.5 * q[0] - 0.418688 * q[1] - 0.081312 * q[2];
            plane[i] = (uint8_t)fmin(v + 0.5, 255);
        }
        bytes gray = jpeg_of(plane, p->width, p->height, TJPF_GRAY, TJSAMP_GRAY, 0);
        size_t scan = find_marker(&gray, 0xDA);
        if (c == 0) {
            size_t frame = find_marker(&gray, 0xC0);
            static const uint8_t others[] = {2, 0x11, 0, 3, 0x11, 0};
            bytes_insert(&gray, frame + 13, others, 6);
            gray.data[frame + 3] += 6;
            gray.data[frame + 9] = 3;
            bytes_insert(&out, 0, gray.data, gray.size - 2);
        } else {
            gray.data[scan + 5] = (uint8_t)(c + 1);
            bytes_insert(&out, out.size, gray.data + scan, gray.size - 2 - scan);
        }
        free(gray.data);
    }
    free(plane);
    bytes_insert(&out, out.size, "\xFF\xD9", 2);
    return out;
}

/* --- checks ------------------------------------------------------------------------------------------------------ */

/* A file that was never one; info's mtime is 0. */
static inline iso_status decode(const void *data, size_t size, uint8_t out[ISO_PIXELS], iso_image_info *info, iso_error *e)
{
    const XXH128_hash_t hash = XXH3_128bits(data, size);
    const iso_image_file file = {.data = (uint8_t *)(uintptr_t)data, .size = size, .hash = {hash.low64, hash.high64}};
    return iso_image_file_decode(&file, out, info, e);
}

static inline void expect(bytes *b, const picture *p, int orientation, int tolerance, const char *what)
{
    uint8_t out[ISO_PIXELS];
    iso_image_info info;
    if (decode(b->data, b->size, out, &info, &err)) fail_msg("%s: %s", what, err.message);
    int d = distance(p, orientation, ISO_SIDE, out);
    if (d > tolerance) fail_msg("%s, orientation %d: off by %d", what, orientation, d);
    assert_int_equal(info.width, orientation > 4 ? p->height : p->width);
    assert_int_equal(info.height, orientation > 4 ? p->width : p->height);
    assert_int_equal(info.size, b->size);
    free(b->data);
    *b = (bytes){0};
}

static inline void refuse(const bytes *b, const char *says)
{
    uint8_t out[ISO_PIXELS];
    memset(out, 0x5A, sizeof out);
    iso_image_info info = {.width = -7};
    iso_status status = decode(b->data, b->size, out, &info, &err);
    if (status != ISO_E_FORMAT || !strstr(err.message, says)) fail_msg("%d \"%s\", expected \"%s\"", status, status ? err.message : "", says);
    assert_int_equal(info.width, -7);
    for (int i = 0; i < ISO_PIXELS; i++) assert_int_equal(out[i], 0x5A);
    assert_int_equal(decode(b->data, b->size, out, NULL, NULL), ISO_E_FORMAT);
}

#endif
