/* sheet_html.c: the sheet as one HTML file: no scripts, nothing fetched, pictures inside as PNG. */
#include "retriever/sheet_parts.h"

#include <stdlib.h>

#include "base/text.h"

enum { RESULT = 160, EXAMPLE = 96, BATCH = 64 /* pictures in memory at a time */ };

static const char style[] =
    ":root{color-scheme:light dark;--ink:#212428;--soft:#6d737d;--paper:#fbfbfa;--tile:#dcdee0;--red:#b82626}\n"
    "@media(prefers-color-scheme:dark){:root{--ink:#e8e9ea;--soft:#9aa0a8;--paper:#17191b;--tile:#33363a;--red:#e06060}}\n"
    "body{margin:28px auto;max-width:880px;padding:0 16px;font:14px/1.4 system-ui,sans-serif;color:var(--ink);background:var(--paper)}\n"
    "h1{font-size:22px;margin:0;overflow-wrap:anywhere}p{color:var(--soft);margin:4px 0 0}\n"
    "h2{font-size:14px;margin:24px 0 8px}h2 span{font-weight:normal;color:var(--soft);margin-left:4px}\n"
    "div.row{display:grid;grid-template-columns:repeat(auto-fill,minmax(72px,1fr));gap:12px;align-items:center}\n"
    "div.results{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:16px}\n"
    "figure{margin:0;min-width:0}img,.none{width:100%;aspect-ratio:1;border-radius:8px;display:block;object-fit:cover}\n"
    ".none{background:var(--tile);color:var(--soft);display:flex;align-items:center;justify-content:center;text-align:center;font-size:12px}\n"
    ".unlike img,.unlike .none{outline:2px solid var(--red)}\n"
    "figcaption b{float:left}figcaption{text-align:right;margin-top:4px}\n"
    "figcaption span{display:block;clear:both;text-align:left;color:var(--soft);font-size:12px;white-space:nowrap;overflow:hidden;text-overflow:ellipsis}\n";

static void put_escaped(FILE *out, const char *text)
{
    for (; *text; text++) {
        switch (*text) {
        case '&': fputs("&amp;", out); break;
        case '<': fputs("&lt;", out); break;
        case '>': fputs("&gt;", out); break;
        case '"': fputs("&quot;", out); break;
        case '\'': fputs("&#39;", out); break;
        default: putc((unsigned char)*text, out);
        }
    }
}

/* Any bytes, first made readable. */
static iso_status put_text(FILE *out, const char *bytes, iso_error *err)
{
    char *text = iso_text_printable(bytes);
    if (!text) return iso_fail_memory(err);
    put_escaped(out, text);
    free(text);
    return ISO_OK;
}

typedef struct base64 {
    FILE *out;
    unsigned char rest[3];
    size_t left;
} base64;

static cairo_status_t base64_write(void *closure, const unsigned char *data, unsigned n)
{
    base64 *b = closure;
    for (unsigned i = 0; i < n; i++) {
        b->rest[b->left++] = data[i];
        if (b->left < sizeof b->rest) continue;
        iso_text_base64(b->out, b->rest, b->left);
        b->left = 0;
    }
    return ferror(b->out) ? CAIRO_STATUS_WRITE_ERROR : CAIRO_STATUS_SUCCESS;
}

static iso_status put_picture(FILE *out, cairo_surface_t *picture, const char *name, iso_error *err)
{
    base64 b = {.out = out};
    if (!picture) {
        fputs("<div class=\"none\">no picture<br>here now</div>", out);
        return ISO_OK;
    }
    fputs("<img alt=\"", out);
    iso_status st = put_text(out, name, err);
    if (st != ISO_OK) return st;
    fputs("\" src=\"data:image/png;base64,", out);
    cairo_status_t status = cairo_surface_write_to_png_stream(picture, base64_write, &b);
    iso_text_base64(out, b.rest, b.left);
    fputs("\">", out);
    return status == CAIRO_STATUS_SUCCESS ? ISO_OK : iso_cairo_fail(err, status);
}

static iso_status put_caption(FILE *out, size_t rank, const iso_sheet_image *image, iso_error *err)
{
    fprintf(out, "<figcaption><b>%zu</b>%.3f<span title=\"", rank, image->score);
    iso_status st = put_text(out, image->name, err);
    fputs("\">", out);
    if (st == ISO_OK) st = put_text(out, image->name, err);
    fputs("</span></figcaption>", out);
    return st;
}

/* Figures; with captions when they are results. */
static iso_status put_figures(FILE *out, const iso_sheet_image *images, size_t n, int side, bool results, iso_error *err)
{
    cairo_surface_t *tiles[BATCH];
    iso_status st = ISO_OK;
    for (size_t at = 0; st == ISO_OK && at < n; at += BATCH) {
        size_t some = n - at < BATCH ? n - at : BATCH;
        st = iso_tiles_load(images + at, some, side, tiles, err);
        if (st != ISO_OK) break;
        for (size_t i = 0; st == ISO_OK && i < some; i++) {
            fputs("<figure>", out);
            st = put_picture(out, tiles[i], images[at + i].name, err);
            if (st == ISO_OK && results) st = put_caption(out, at + i + 1, &images[at + i], err);
            fputs("</figure>\n", out);
        }
        iso_tiles_free(tiles, some);
    }
    return st;
}

static iso_status put_examples(FILE *out, const char *heading, const char *class, const iso_sheet_image *images, size_t n, iso_error *err)
{
    if (n == 0) return ISO_OK;
    size_t shown = n <= ISO_SHEET_EXAMPLES ? n : ISO_SHEET_EXAMPLES - 1;
    fprintf(out, "<h2>%s <span>%zu</span></h2>\n<div class=\"row %s\">\n", heading, n, class);
    iso_status st = put_figures(out, images, shown, EXAMPLE, false, err);
    if (shown < n) fprintf(out, "<p>+ %zu more</p>\n", n - shown);
    fputs("</div>\n", out);
    return st;
}

iso_status iso_sheet_html(const iso_sheet *s, FILE *out, iso_error *err)
{
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n<title>", out);
    iso_status st = put_text(out, s->title, err);
    fprintf(out, "</title>\n<style>\n%s</style>\n</head>\n<body>\n<h1>", style);
    if (st == ISO_OK) st = put_text(out, s->title, err);
    fputs("</h1>\n", out);
    if (st == ISO_OK && s->note) {
        fputs("<p>", out);
        st = put_text(out, s->note, err);
        fputs("</p>\n", out);
    }
    if (st == ISO_OK) st = put_examples(out, "Examples", "like", s->like, s->likes, err);
    if (st == ISO_OK) st = put_examples(out, "Not like these", "unlike", s->unlike, s->unlikes, err);
    if (st != ISO_OK) return st;
    fprintf(out, "<h2>Answers <span>%zu</span></h2>\n<div class=\"results\">\n", s->results);
    st = put_figures(out, s->result, s->results, RESULT, true, err);
    fputs("</div>\n</body>\n</html>\n", out);
    return st;
}
