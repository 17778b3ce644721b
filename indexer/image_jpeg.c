/* image_jpeg.c: JPEG through TurboJPEG.
 *
 * TurboJPEG decodes what it can of a damaged file and only warns, with the first warning's text. So the file's segments
 * are surveyed first (is everything there? where is the EXIF block?), and a warning is an error unless it is known to be
 * harmless and to hide no other one behind it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <turbojpeg.h>

#include "indexer/image_codec.h"

#define MARK_SOI 0xD8
#define MARK_EOI 0xD9
#define MARK_SOS 0xDA
#define MARK_APP0 0xE0
#define MARK_APP1 0xE1
#define MAX_PADDING 64 /* bytes before the end marker that may be anything; more must be all alike */

typedef struct survey {
    const uint8_t *exif; /* the block, from "Exif" on; NULL: none */
    size_t exif_size;
    uint8_t component[4]; /* identifiers */
    int components;
    unsigned seen;       /* bit i: some scan brings component i's data */
    size_t scan, end;    /* offsets of the first SOS marker and of EOI */
} survey;

static const char *const TRUNCATED = "truncated JPEG";

/* The next marker at or after *pos, which moves behind it; 0 at the end of the data. */
static int next_marker(const uint8_t *data, size_t size, size_t *pos)
{
    while (*pos < size) {
        const uint8_t *ff = memchr(data + *pos, 0xFF, size - *pos);
        if (!ff) break;
        *pos = (size_t)(ff - data);
        while (*pos < size && data[*pos] == 0xFF) ++*pos;
        if (*pos < size && data[(*pos)++] != 0) return data[*pos - 1];
    }
    *pos = size;
    return 0;
}

static bool is_alone(int marker) /* without a length behind it */
{
    return marker == 0x01 || (marker >= 0xD0 && marker <= MARK_SOI);
}

static bool is_frame(int marker)
{
    return marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
}

static void survey_frame(survey *s, const uint8_t *body, size_t n)
{
    if (n < 6 || body[5] < 1 || body[5] > 4 || n < 6u + 3u * body[5]) return; /* libjpeg says what is wrong */
    s->components = body[5];
    for (int i = 0; i < s->components; i++) s->component[i] = body[6 + 3 * i];
}

static void survey_scan(survey *s, const uint8_t *body, size_t n)
{
    if (n < 1 || n < 4u + 2u * body[0]) return;
    if (body[1 + 2 * body[0]] != 0) return; /* a progressive scan of finer detail only */
    for (int i = 0; i < body[0]; i++)
        for (int c = 0; c < s->components; c++)
            if (s->component[c] == body[1 + 2 * i]) s->seen |= 1u << c;
}

/* NULL, or what is wrong. */
static const char *survey_run(const uint8_t *data, size_t size, survey *s)
{
    size_t pos = 2;
    for (;;) {
        int marker = next_marker(data, size, &pos);
        if (marker == 0) return TRUNCATED;
        if (is_alone(marker)) continue;
        if (marker == MARK_EOI) break;
        if (size - pos < 2) return TRUNCATED;
        size_t length = (size_t)data[pos] << 8 | data[pos + 1];
        if (length < 2) return "corrupt JPEG: a segment of impossible length";
        if (size - pos < length) return TRUNCATED;
        const uint8_t *body = data + pos + 2;
        if (marker == MARK_APP1 && !s->exif && length >= 8 && memcmp(body, "Exif\0\0", 6) == 0) {
            s->exif = body;
            s->exif_size = length - 2;
        }
        if (is_frame(marker)) survey_frame(s, body, length - 2);
        if (marker == MARK_SOS) {
            if (!s->scan) s->scan = pos - 2;
            survey_scan(s, body, length - 2);
        }
        pos += length;
    }
    s->end = pos - 2;
    if (!s->scan) return "corrupt JPEG: no picture in it";
    if (s->components && s->seen != (1u << s->components) - 1) return "corrupt JPEG: no data for one of its components";
    return NULL;
}

static iso_status jpeg_fail(const char *text, iso_error *err)
{
    static const char prefix[] = "Corrupt JPEG data: ";
    if (strstr(text, "Insufficient memory") || strstr(text, "Memory allocation failure")) return iso_fail_memory(err);
    if (strstr(text, "Premature end") || strstr(text, "premature end")) return iso_fail(err, ISO_E_FORMAT, "truncated or corrupt JPEG");
    if (strncmp(text, "Unsupported", 11) == 0 || strncmp(text, "Sorry", 5) == 0 || strstr(text, "not supported"))
        return iso_fail(err, ISO_E_FORMAT, "unsupported JPEG: %s", text);
    if (strncmp(text, prefix, sizeof prefix - 1) == 0) text += sizeof prefix - 1;
    return iso_fail(err, ISO_E_FORMAT, "corrupt JPEG: %s", text);
}

/* A few bytes, or many that are all alike, between the picture's data and the end marker. It is the last thing libjpeg
 * can warn of, and only a file's first warning is told, so no other one was given. */
static bool is_padding(const char *warning, const uint8_t *data, const survey *s)
{
    unsigned count, marker;
    if (sscanf(warning, "Corrupt JPEG data: %u extraneous bytes before marker 0x%x", &count, &marker) != 2) return false;
    if (marker != MARK_EOI || count > s->end) return false;
    if (count <= MAX_PADDING) return true;
    const uint8_t *padding = data + s->end - count;
    return memcmp(padding, padding + 1, count - 1) == 0;
}

/* Warnings from the header, which says enough all the same. */
static bool is_header_quirk(const char *warning)
{
    unsigned count, marker;
    if (sscanf(warning, "Corrupt JPEG data: %u extraneous bytes before marker 0x%x", &count, &marker) == 2) return marker != MARK_EOI;
    return strstr(warning, "unknown JFIF revision") != NULL;
}

/* The same file with nothing between its header's segments and JFIF's revision as 1.01, so that a second attempt tells
 * whether the header's quirk was all that was wrong. NULL: out of memory. */
static uint8_t *clean_header(const uint8_t *data, size_t size, const survey *s, size_t *clean_size)
{
    uint8_t *out = malloc(size);
    if (!out) return NULL;
    memcpy(out, data, 2);
    size_t n = 2, pos = 2;
    for (int marker; (marker = next_marker(data, s->scan, &pos)) != 0;) {
        if (is_alone(marker)) continue;
        size_t length = (size_t)data[pos] << 8 | data[pos + 1];
        out[n++] = 0xFF;
        out[n++] = (uint8_t)marker;
        memcpy(out + n, data + pos, length);
        if (marker == MARK_APP0 && length >= 16 && memcmp(out + n + 2, "JFIF", 5) == 0) out[n + 7] = out[n + 8] = 1;
        n += length;
        pos += length;
    }
    memcpy(out + n, data + s->scan, size - s->scan);
    *clean_size = n + size - s->scan;
    return out;
}

/* Halves, quarters, eighths are the scales that libjpeg-turbo has fast code for. */
static int choose_scale(int width, int height, int orientation, int least)
{
    int x, y, side;
    if (iso_exif_swaps(orientation)) iso_crop(height, width, &x, &y, &side);
    else iso_crop(width, height, &x, &y, &side);
    for (int eighths = 1; eighths < 8; eighths *= 2)
        if ((int64_t)side * eighths >= 8 * (int64_t)least) return eighths;
    return 8;
}

/* Adobe's CMYK, the only kind in use, stores 255 for no ink. */
static void cmyk_to_rgb(uint8_t *pixels, size_t count)
{
    const uint8_t *in = pixels;
    for (uint8_t *out = pixels, *end = pixels + 3 * count; out < end; out += 3, in += 4) {
        unsigned k = in[3], r = in[0] * k, g = in[1] * k, b = in[2] * k;
        out[0] = (uint8_t)((r + 127) / 255);
        out[1] = (uint8_t)((g + 127) / 255);
        out[2] = (uint8_t)((b + 127) / 255);
    }
}

/* Decodes at p's scale into fresh p->rgb. *quirk: failed only for what clean_header can mend. */
static iso_status decompress(tjhandle tj, const uint8_t *data, size_t size, const survey *s, bool cmyk, iso_picture *p, bool *quirk,
                             iso_error *err)
{
    tjscalingfactor scale = {p->eighths, 8};
    int width = TJSCALED(p->width, scale), height = TJSCALED(p->height, scale), bytes = cmyk ? 4 : 3;
    uint8_t *pixels = malloc((size_t)width * (size_t)height * (size_t)bytes); /* at most ISO_IMAGE_MAX_PIXELS of them */
    if (!pixels) return iso_fail_memory(err);
    int rc = tjDecompress2(tj, data, size, pixels, width, width * bytes, height, cmyk ? TJPF_CMYK : TJPF_RGB, TJFLAG_LIMITSCANS);
    if (rc != 0) {
        bool warned = tjGetErrorCode(tj) == TJERR_WARNING;
        const char *text = tjGetErrorStr2(tj);
        if (!warned || !is_padding(text, data, s)) {
            free(pixels);
            *quirk = warned && is_header_quirk(text);
            return jpeg_fail(text, err);
        }
    }
    if (cmyk) cmyk_to_rgb(pixels, (size_t)width * (size_t)height);
    p->rgb = pixels;
    p->stride = (int64_t)width * 3;
    return ISO_OK;
}

static iso_status decode_cleaned(tjhandle tj, const uint8_t *data, size_t size, const survey *s, bool cmyk, iso_picture *p, iso_error *err)
{
    size_t clean_size;
    uint8_t *clean = clean_header(data, size, s, &clean_size);
    if (!clean) return iso_fail_memory(err);
    survey moved = *s;
    moved.end -= size - clean_size;
    bool quirk;
    iso_status status = decompress(tj, clean, clean_size, &moved, cmyk, p, &quirk, err);
    free(clean);
    return status;
}

iso_status iso_jpeg_decode(const uint8_t *data, size_t size, int least, iso_picture *out, iso_error *err)
{
    survey s = {0};
    iso_picture p = {.orientation = 1};
    int subsampling, colours; /* not to be relied on: see below */
    const char *reason = survey_run(data, size, &s);
    if (reason) return iso_fail(err, ISO_E_FORMAT, "%s", reason);

    tjhandle tj = tjInitDecompress();
    if (!tj) return iso_fail_memory(err);
    /* It also fails, with the size set, on warnings and on rare subsamplings that tjDecompress2 copes with. */
    int rc = tjDecompressHeader3(tj, data, size, &p.width, &p.height, &subsampling, &colours);
    iso_status status;
    if (rc != 0 && (p.width < 1 || p.height < 1)) {
        status = jpeg_fail(tjGetErrorStr2(tj), err);
        goto done;
    }
    status = iso_picture_check(p.width, p.height, err);
    if (status) goto done;
    if (s.exif) p.orientation = iso_exif_orientation(s.exif, s.exif_size);
    p.eighths = choose_scale(p.width, p.height, p.orientation, least);

    bool cmyk = s.components == 4, quirk = false; /* or YCCK, which TurboJPEG turns into CMYK */
    int64_t width = p.width, height = p.height;
    iso_picture_enter(width, height);
    status = decompress(tj, data, size, &s, cmyk, &p, &quirk, err);
    if (quirk) status = decode_cleaned(tj, data, size, &s, cmyk, &p, err);
    iso_picture_leave(width, height);
    if (!status) *out = p;
done:
    tjDestroy(tj);
    return status;
}
