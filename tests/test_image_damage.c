/* test_image_damage.c: every kind of damaged picture is refused with its reason; mutants do not crash. */
#include <stddef.h>
#include <stdint.h>

#include "tests/pictures.h"

/* An index outside the palette, a transparency that does not fit. */
static void misfits_in_a_png(void **state)
{
    (void)state;
    uint8_t rows[16 * 16];
    png_color palette[256] = {{1, 2, 3}};
    memset(rows, 9, sizeof rows);
    bytes b = png(rows, 16, 16, 16, &(png_kind){.colour = PNG_COLOR_TYPE_PALETTE, .depth = 8, .palette = palette, .colours = 10});
    size_t at = png_chunk(&b, "PLTE");
    memmove(b.data + at + 8 + 3 * 5, b.data + at + 8 + 3 * 10, b.size - at - 8 - 3 * 10); /* five colours less */
    b.size -= 15;
    b.data[at + 3] = 15;
    png_mend(&b);
    refuse(&b, "colour 9 of a palette of 5");
    free(b.data);
    png_byte alpha[10] = {0};
    b = png(rows, 16, 16, 16, &(png_kind){.colour = PNG_COLOR_TYPE_PALETTE, .depth = 8, .palette = palette, .colours = 10, .palette_alpha = alpha});
    at = png_chunk(&b, "tRNS");
    bytes_insert(&b, at + 8, alpha, 3); /* longer than the palette */
    b.data[at + 3] += 3;
    png_mend(&b);
    refuse(&b, "tRNS");
    free(b.data);
}

static void every_truncation_is_refused(void **state)
{
    (void)state;
    picture p = paint(40, 30, 255);
    bytes all[] = {jpeg(&p, TJSAMP_420, 0), jpeg(&p, TJSAMP_444, TJFLAG_PROGRESSIVE), png_rgb(&p, 3)};
    for (int i = 0; i < 3; i++) {
        for (size_t n = 0; n < all[i].size; n++) {
            uint8_t *exact = malloc(n + !n); /* so that a sanitizer sees one byte too far */
            assert_non_null(exact);
            memcpy(exact, all[i].data, n);
            bool jpeg_file = i < 2;
            const char *says = n == 0 ? "empty file" : n < (jpeg_file ? 2 : 4) ? "not a JPEG or PNG" : jpeg_file ? "truncated JPEG" : "truncated PNG";
            refuse(&(bytes){exact, n}, says);
            free(exact);
        }
        free(all[i].data);
    }
    free(p.rgb);
}

/* A scan that breaks off before an end marker that is there. */
static void broken_scans_are_refused(void **state)
{
    (void)state;
    picture p = paint(200, 150, 255);
    bytes b = jpeg(&p, TJSAMP_444, 0);
    size_t scan = find_marker(&b, 0xDA), cut = scan + (b.size - scan) / 2;
    memcpy(b.data + cut, "\xFF\xD9", 2);
    b.size = cut + 2;
    refuse(&b, "truncated or corrupt JPEG");
    b.data[scan + 14] = 0xFF; /* a bad marker in the scan's data */
    b.data[scan + 15] = 0xC0;
    refuse(&b, "JPEG");
    free(b.data);
    free(p.rgb);
}

static void every_changed_byte_of_a_png_is_seen(void **state)
{
    (void)state;
    picture p = paint(20, 20, 255);
    bytes b = png_rgb(&p, 6);
    uint8_t out[ISO_PIXELS];
    for (size_t i = 0; i < b.size; i++)
        for (int bit = 0; bit < 8; bit++) {
            b.data[i] ^= (uint8_t)(1 << bit);
            if (decode(b.data, b.size, out, NULL, &err) != ISO_E_FORMAT) fail_msg("byte %zu, bit %d", i, bit);
            b.data[i] ^= (uint8_t)(1 << bit);
        }
    expect(&b, &p, 6, 0, "the PNG itself");
    free(p.rgb);
}

static void enormous_pictures_are_refused(void **state)
{
    (void)state;
    picture p = paint(30, 30, 255);
    bytes b = jpeg(&p, TJSAMP_420, 0);
    memcpy(b.data + find_marker(&b, 0xC0) + 5, "\xEA\x60\xEA\x60", 4);
    refuse(&b, "60000 x 60000 pixels: more than");
    free(b.data);
    b = png_rgb(&p, 0);
    memcpy(b.data + 16, "\0\0\xEA\x60\0\0\xEA\x60", 8);
    png_mend(&b);
    refuse(&b, "60000 x 60000 pixels: more than");
    memcpy(b.data + 16, "\x7F\xFF\xFF\xFF\x7F\xFF\xFF\xFF", 8);
    png_mend(&b);
    refuse(&b, "pixels: more than");
    memcpy(b.data + 16, "\0\0\x28\0\0\0\x28\x01", 8); /* a row more than the most */
    png_mend(&b);
    refuse(&b, "10240 x 10241 pixels: more than the 104 million allowed");
    memcpy(b.data + 16, "\0\0\0\0\0\0\0\x01", 8);
    png_mend(&b);
    refuse(&b, "corrupt PNG");
    free(b.data);
    free(p.rgb);
}

/* Few pixels, but more rows than memory should be spent on. */
static void long_pictures_are_refused(void **state)
{
    (void)state;
    static const char *const sizes[] = {"\0\0\0\x01\x06\x40\0\0", "\0\0\0\x01\0\x01\0\0", "\0\x01\0\0\0\0\0\x01"};
    picture p = paint(1, 65535, 255);
    uint8_t out[ISO_PIXELS];
    bytes b = png_rgb(&p, 0);
    OK(decode(b.data, b.size, out, NULL, &err));
    for (int i = 0; i < 3; i++) {
        memcpy(b.data + 16, sizes[i], 8);
        png_mend(&b);
        refuse(&b, i == 2 ? "65536 x 1 pixels: more than the 65535 allowed on a side" : "pixels: more than the 65535 allowed on a side");
    }
    free(b.data);
    free(p.rgb);
}

static void what_is_no_picture_is_refused(void **state)
{
    (void)state;
    static const struct { const char *data; size_t size; const char *says; } bad[] = {
        {"", 0, "empty file"},
        {"hello, this is text", 19, "not a JPEG or PNG"},
        {"GIF89a\1\0\1\0", 10, "not a JPEG or PNG"},
        {"\x89PNG\n\n\x1a\n", 8, "not a JPEG or PNG"},
        {"\xFF\xD8\xFF\xD9", 4, "corrupt JPEG: no picture in it"},
        {"\xFF\xD8\xFF\xE0\0\1xx", 8, "corrupt JPEG: a segment of impossible length"},
        {"\xFF\xD8 not at all", 13, "truncated JPEG"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) refuse(&(bytes){(uint8_t *)(uintptr_t)bad[i].data, bad[i].size}, bad[i].says);
    picture p = paint(30, 30, 255);
    bytes b = jpeg(&p, TJSAMP_444, 0);
    b.data[find_marker(&b, 0xC0) + 4] = 12; /* bits */
    refuse(&b, "unsupported JPEG: ");
    free(b.data);
    free(p.rgb);
}

/* Random changes: any answer is right but a crash, a hang, or an error without words. */
static void mutants_do_not_crash(void **state)
{
    (void)state;
    picture p = paint(37, 29, 255);
    uint8_t index[32 * 32], cmyk[24 * 20 * 4];
    png_color palette[256];
    png_byte alpha[256];
    for (size_t i = 0; i < sizeof index; i++) index[i] = (uint8_t)(draw() % 40);
    for (size_t i = 0; i < sizeof cmyk; i++) cmyk[i] = (uint8_t)(i / 3);
    for (int i = 0; i < 256; i++) {
        palette[i] = (png_color){(png_byte)i, (png_byte)(3 * i), (png_byte)(7 * i)};
        alpha[i] = (png_byte)i;
    }
    png_kind busy = {.colour = PNG_COLOR_TYPE_PALETTE, .depth = 8, .interlaced = true, .orientation = 5, .palette = palette, .colours = 40, .palette_alpha = alpha};
    bytes all[] = {jpeg(&p, TJSAMP_420, 0), jpeg(&p, TJSAMP_444, TJFLAG_PROGRESSIVE), jpeg_of(cmyk, 24, 20, TJPF_CMYK, TJSAMP_444, 0),
                   many_scans(&p, 3),       png_rgb(&p, 0),                         png(index, 32, 32, 32, &busy)};
    enum { KINDS = sizeof all / sizeof *all, ROUNDS = 1000 };
    jpeg_orient(&all[0], 6, true);
    int decoded = 0, refused = 0;
    for (int kind = 0; kind < KINDS; kind++) {
        for (int round = 0; round < ROUNDS; round++) {
            uint64_t s = seed + (uint64_t)(kind * ROUNDS + round) * 7919;
            bytes m = {0};
            bytes_insert(&m, 0, all[kind].data, all[kind].size);
            for (int changes = 1 + (int)(draw_from(&s) % 4); changes > 0; changes--) {
                size_t at = draw_from(&s) % m.size, n = 1 + draw_from(&s) % 8;
                switch (draw_from(&s) % 5) {
                case 0: m.data[at] ^= (uint8_t)(1 << draw_from(&s) % 8); break;
                case 1: m.data[at] = (uint8_t)draw_from(&s); break;
                case 2: m.data[at] = draw_from(&s) % 2 ? 0xFF : 0; break;
                case 3: bytes_insert(&m, at, all[kind].data + draw_from(&s) % (all[kind].size - n), n); break;
                case 4:
                    if (at + n >= m.size) break;
                    memmove(m.data + at, m.data + at + n, m.size - at - n);
                    m.size -= n;
                    break;
                }
            }
            if (kind >= 4 && draw_from(&s) % 4) png_mend(&m);
            uint8_t *exact = malloc(m.size), out[ISO_PIXELS];
            assert_non_null(exact);
            memcpy(exact, m.data, m.size);
            free(m.data);
            err.message[0] = 0;
            iso_status status = decode(exact, m.size, out, NULL, &err);
            free(exact);
            if (status) assert_true(err.message[0] != 0);
            if (status) refused++;
            else decoded++;
        }
        free(all[kind].data);
    }
    printf("%d mutants: %d decoded, %d refused\n", decoded + refused, decoded, refused);
    assert_true(refused > 0 && decoded > 0);
    free(p.rgb);
}

int main(void)
{
    begin_random(20221);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(misfits_in_a_png),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(broken_scans_are_refused),
        cmocka_unit_test(every_changed_byte_of_a_png_is_seen),
        cmocka_unit_test(enormous_pictures_are_refused),
        cmocka_unit_test(long_pictures_are_refused),
        cmocka_unit_test(what_is_no_picture_is_refused),
        cmocka_unit_test(mutants_do_not_crash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
