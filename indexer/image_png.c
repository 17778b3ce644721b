/* image_png.c: PNG through libpng, every kind turned into 8-bit RGB over white. */
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <png.h>

#include "base/memory.h"
#include "indexer/image_codec.h"

/* Everything that must survive libpng's longjmp lives here, outside the frame that setjmp returns to. */
typedef struct work {
    const uint8_t *data;
    size_t size, pos;
    png_structp png;
    png_infop info;
    png_bytep *rows;
    uint8_t *pixels;
    int64_t stride;     /* of the finished RGB rows */
    uint32_t width, height;
    int channels;       /* as libpng delivers them: 1 for indices into a palette, 3, or 4 with alpha */
    uint8_t colour[256][3]; /* the palette, over white */
    int colours;
    int orientation;
    iso_status status;
    iso_error *err;
} work;

static void on_error(png_structp png, png_const_charp text)
{
    work *w = png_get_error_ptr(png);
    if (strstr(text, "ut of memory") || strstr(text, "nsufficient memory")) w->status = iso_fail_memory(w->err);
    else w->status = iso_fail(w->err, ISO_E_FORMAT, "corrupt PNG: %s", text);
    png_longjmp(png, 1);
}

/* Surplus data behind the picture and a bad EXIF block do no harm. All else that libpng would only warn of (a palette or
 * transparency that does not fit) changes the picture. */
static void on_warning(png_structp png, png_const_charp text)
{
    static const char *const harmless[] = {"IDAT: Extra compressed data", "IDAT: Too much image data", "Extra compressed data",
                                           "Too much image data", "Extra data in", "eXIf"};
    for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++)
        if (strncmp(text, harmless[i], strlen(harmless[i])) == 0) return;
    on_error(png, text);
}

static void on_read(png_structp png, png_bytep out, size_t n)
{
    work *w = png_get_io_ptr(png);
    if (n > w->size - w->pos) {
        w->status = iso_fail(w->err, ISO_E_FORMAT, "truncated PNG");
        png_longjmp(png, 1);
    }
    memcpy(out, w->data + w->pos, n);
    w->pos += n;
}

/* Colour management and texts play no part: their contents are not even parsed (their checksums are). */
static void ignore_chunks(png_structp png)
{
    static const png_byte names[] = "bKGD\0cHRM\0gAMA\0hIST\0iCCP\0iTXt\0oFFs\0pCAL\0pHYs\0sBIT\0sCAL\0sPLT\0sRGB\0tEXt\0tIME\0zTXt";
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, NULL, 0);
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, names, sizeof names / 5);
}

static bool read_header(work *w)
{
    if (setjmp(png_jmpbuf(w->png))) return false;
    png_set_crc_action(w->png, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
    png_set_user_limits(w->png, PNG_UINT_31_MAX, PNG_UINT_31_MAX); /* iso_picture_check decides */
    ignore_chunks(w->png);
    png_read_info(w->png, w->info);
    w->width = png_get_image_width(w->png, w->info);
    w->height = png_get_image_height(w->png, w->info);
    return true;
}

static uint8_t over_white(unsigned colour, unsigned alpha)
{
    return (uint8_t)((colour * alpha + 255 * (255 - alpha) + 127) / 255);
}

static void take_palette(work *w)
{
    png_colorp palette = NULL;
    png_bytep alpha = NULL;
    int alphas = 0;
    png_get_PLTE(w->png, w->info, &palette, &w->colours);
    png_get_tRNS(w->png, w->info, &alpha, &alphas, NULL);
    for (int i = 0; i < w->colours; i++) {
        unsigned a = i < alphas ? alpha[i] : 255;
        w->colour[i][0] = over_white(palette[i].red, a);
        w->colour[i][1] = over_white(palette[i].green, a);
        w->colour[i][2] = over_white(palette[i].blue, a);
    }
}

static bool set_transforms(work *w)
{
    if (setjmp(png_jmpbuf(w->png))) return false;
    if (png_get_color_type(w->png, w->info) == PNG_COLOR_TYPE_PALETTE) {
        take_palette(w); /* libpng's own expansion takes an index outside the palette for black */
        png_set_check_for_invalid_index(w->png, 0); /* we look ourselves: only newer versions see it, and do not say which */
        png_set_packing(w->png);
    } else {
        png_set_expand(w->png);
        png_set_scale_16(w->png);
        png_set_gray_to_rgb(w->png);
    }
    png_set_interlace_handling(w->png);
    png_read_update_info(w->png, w->info);
    w->channels = png_get_channels(w->png, w->info);
    return true;
}

static bool read_pixels(work *w)
{
    if (setjmp(png_jmpbuf(w->png))) return false;
    png_read_image(w->png, w->rows);
    png_read_end(w->png, w->info);
    return true;
}

static bool read_orientation(work *w)
{
    if (setjmp(png_jmpbuf(w->png))) return false;
    png_uint_32 n = 0;
    png_bytep exif = NULL;
    if (png_get_eXIf_1(w->png, w->info, &n, &exif) != PNG_INFO_eXIf || n > 1u << 20) return true;
    uint8_t *block = malloc((size_t)n + 6);
    if (!block) return true;
    memcpy(block, "Exif\0\0", 6); /* which JPEG has and PNG has not */
    memcpy(block + 6, exif, n);
    w->orientation = iso_exif_orientation(block, (size_t)n + 6);
    free(block);
    return true;
}

/* RGBA over white, in place, to RGB in rows of the same stride. */
static void blend(const work *w, size_t stride)
{
    for (uint32_t y = 0; y < w->height; y++) {
        uint8_t *row = w->pixels + y * stride, *out = row;
        for (const uint8_t *in = row, *end = row + stride; in < end; in += 4)
            for (int c = 0; c < 3; c++) *out++ = over_white(in[c], in[3]);
    }
}

/* Indices to RGB, in place, from the right end of each row: a pixel's colour lies at or behind its index. */
static iso_status look_up(const work *w, size_t stride)
{
    for (uint32_t y = 0; y < w->height; y++) {
        uint8_t *row = w->pixels + y * stride;
        for (size_t x = w->width; x-- > 0;) {
            if (row[x] >= w->colours)
                return iso_fail(w->err, ISO_E_FORMAT, "corrupt PNG: colour %d of a palette of %d", row[x], w->colours);
            memcpy(row + 3 * x, w->colour[row[x]], 3);
        }
    }
    return ISO_OK;
}

static iso_status decode(work *w)
{
    if (!read_header(w)) return w->status;
    iso_status status = iso_picture_check(w->width, w->height, w->err);
    if (status) return status;
    if (!set_transforms(w)) return w->status;

    size_t stride = (size_t)w->width * (w->channels == 4 ? 4 : 3);
    w->pixels = iso_calloc(w->height, stride);
    w->rows = iso_calloc(w->height, sizeof *w->rows);
    if (!w->pixels || !w->rows) return iso_fail_memory(w->err);
    for (uint32_t y = 0; y < w->height; y++) w->rows[y] = w->pixels + y * stride;
    iso_picture_enter(w->width, w->height);
    bool good = read_pixels(w);
    iso_picture_leave(w->width, w->height);
    if (!good || !read_orientation(w)) return w->status;
    w->stride = (int64_t)stride;
    if (w->channels == 4) blend(w, stride);
    return w->channels == 1 ? look_up(w, stride) : ISO_OK;
}

iso_status iso_png_decode(const uint8_t *data, size_t size, iso_picture *out, iso_error *err)
{
    work w = {.data = data, .size = size, .orientation = 1, .err = err};
    iso_status status = ISO_E_MEMORY;
    w.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &w, on_error, on_warning);
    if (w.png) w.info = png_create_info_struct(w.png);
    if (!w.info) {
        status = iso_fail_memory(err);
    } else {
        png_set_read_fn(w.png, &w, on_read);
        status = decode(&w);
    }
    if (w.png) png_destroy_read_struct(&w.png, &w.info, NULL);
    free(w.rows);
    if (status) {
        free(w.pixels);
        return status;
    }
    *out = (iso_picture){.rgb = w.pixels, .stride = w.stride, .width = (int)w.width, .height = (int)w.height,
                         .eighths = 8, .orientation = w.orientation};
    return ISO_OK;
}
