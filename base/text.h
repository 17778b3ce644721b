/* text.h: paths are bytes; this writes them so that every byte survives. */
#ifndef ISO_BASE_TEXT_H
#define ISO_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* TSV escapes: tab \t, newline \n, carriage return \r, backslash \\. Nothing else changes. */
void iso_text_tsv(FILE *out, const char *bytes, size_t n);

bool iso_text_is_utf8(const char *bytes, size_t n);

/* A JSON string with its quotes; bytes that are not UTF-8 become U+FFFD. */
void iso_text_json(FILE *out, const char *bytes, size_t n);

/* "key": "path" and, where the path is not UTF-8, , "key_bytes": "base64 (RFC 4648)" behind it. */
void iso_text_json_path(FILE *out, const char *key, const char *path);

/* In base64 (RFC 4648), padded at the end. */
void iso_text_base64(FILE *out, const void *bytes, size_t n);

/* A number in the fewest digits, of `least` to 17, that give it back when they are read, as %g writes them. Returns `text`. */
enum { ISO_TEXT_REAL = 32 };
const char *iso_text_real(double value, int least, char text[ISO_TEXT_REAL]);

/* A finite number with the digits it needs, null otherwise. */
void iso_text_json_number(FILE *out, double value);

/* A path for a person on a terminal or in a picture: control characters, bad UTF-8 and what Unicode says is no character
 * (which cairo refuses) as \xHH. Fresh memory. */
char *iso_text_printable(const char *path);

/* The same of n bytes straight to a stream, which takes no memory; NULL: nowhere. How many letters that is. */
int iso_text_show(FILE *out, const char *bytes, size_t n);

/* In place: control characters become '?', so that a line stays one and a terminal obeys nothing in it. */
void iso_text_harmless(char *text);

/* UTF-8 text of more than `keep` bytes without its middle, "first…last", since names differ at both ends: whole characters,
 * at most `keep` bytes of the text; shorter text as it is. Fresh memory; NULL when memory is out. */
char *iso_text_middle(const char *text, size_t keep);

#endif
