#include "base/args.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

/* The words of one command line and where we are in them. */
typedef struct cursor {
    const iso_command *command;
    char **word;
    int count, at;
    char *config;
    iso_error err;
} cursor;

static const iso_option common[] = {
    {"help", 'h', ISO_ARG_FLAG, 0, NULL, "print this help and exit", 0, 0},
    {"version", 0, ISO_ARG_FLAG, 0, NULL, "print the version and exit", 0, 0},
    {NULL, 0, ISO_ARG_FLAG, 0, NULL, NULL, 0, 0},
};

/* As the user would write it: -k for an option whose name is one letter. */
static const char *spelled(const iso_option *option, char buf[64])
{
    if (option->name[1])
        snprintf(buf, 64, "--%s", option->name);
    else
        snprintf(buf, 64, "-%s", option->name);
    return buf;
}

static bool is_option(const char *word)
{
    return word[0] == '-' && word[1] != '\0';
}

static const iso_option *find_long(const iso_option *table, const char *name, size_t n)
{
    for (; table && table->name; table++)
        if (strlen(table->name) == n && memcmp(table->name, name, n) == 0) return table;
    return NULL;
}

static const iso_option *find_letter(const iso_option *table, char letter)
{
    for (; table && table->name; table++)
        if (table->letter == letter || (table->name[0] == letter && !table->name[1])) return table;
    return NULL;
}

static iso_status list_add(iso_list *list, const char *word, iso_error *err)
{
    if (!iso_grow(&list->item, &list->capacity, list->count + 1, sizeof *list->item))
        return iso_fail_memory(err);
    list->item[list->count++] = word;
    return ISO_OK;
}

iso_status iso_args_db(const char **db, iso_error *err)
{
    if (!*db || !**db) *db = getenv("ISOFACE_DB");
    return *db && **db ? ISO_OK : iso_fail(err, ISO_E_ARGUMENT, "no database: give --db DB or set ISOFACE_DB (see --help)");
}

bool iso_args_id(const char *text, uint64_t *id)
{
    char *end;
    errno = 0;
    const unsigned long long value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno) return false;
    *id = value;
    return true;
}

void iso_list_free(iso_list *list)
{
    if (!list) return;
    free(list->item);
    *list = (iso_list){NULL, 0, 0};
}

/* Whole numbers in full. */
static const char *bound_text(const iso_option *o, double bound, char buf[32])
{
    snprintf(buf, 32, o->kind == ISO_ARG_INT ? "%.0f" : "%.15g", bound);
    return buf;
}

/* long double holds every int64_t, which double does not. */
static iso_status check_range(cursor *c, const iso_option *o, long double value, const char *text)
{
    char name[64], bound[32];
    if (o->min == 0 && o->max == 0) return ISO_OK;
    if (value < o->min)
        return iso_fail(&c->err, ISO_E_ARGUMENT, "%s must be at least %s, not %s", spelled(o, name), bound_text(o, o->min, bound), text);
    if (value > o->max)
        return iso_fail(&c->err, ISO_E_ARGUMENT, "%s must be at most %s, not %s", spelled(o, name), bound_text(o, o->max, bound), text);
    return ISO_OK;
}

static iso_status set_int(cursor *c, const iso_option *o, const char *text)
{
    char *end, name[64];
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end)
        return iso_fail(&c->err, ISO_E_ARGUMENT, "%s needs a whole number, not '%s'", spelled(o, name), text);
    if (errno == ERANGE)
        return iso_fail(&c->err, ISO_E_ARGUMENT, "%s is too large: %s", spelled(o, name), text);
    iso_status status = check_range(c, o, value, text);
    if (status) return status;
    int64_t stored = value;
    memcpy(c->config + o->offset, &stored, sizeof stored);
    return ISO_OK;
}

static iso_status set_real(cursor *c, const iso_option *o, const char *text)
{
    char *end, name[64];
    double value = strtod(text, &end);
    if (end == text || *end || !isfinite(value))
        return iso_fail(&c->err, ISO_E_ARGUMENT, "%s needs a finite number, not '%s'", spelled(o, name), text);
    iso_status status = check_range(c, o, value, text);
    if (status) return status;
    memcpy(c->config + o->offset, &value, sizeof value);
    return ISO_OK;
}

static iso_status set_choice(cursor *c, const iso_option *o, const char *text)
{
    char name[64];
    size_t n = strlen(text);
    for (const char *word = o->metavar; word;) {
        size_t length = strcspn(word, "|");
        if (length == n && memcmp(word, text, n) == 0) {
            memcpy(c->config + o->offset, &text, sizeof text);
            return ISO_OK;
        }
        word = word[length] ? word + length + 1 : NULL;
    }
    return iso_fail(&c->err, ISO_E_ARGUMENT, "%s must be one of %s, not '%s'", spelled(o, name), o->metavar, text);
}

static iso_status set_value(cursor *c, const iso_option *o, const char *text)
{
    char name[64];
    if (!*text) return iso_fail(&c->err, ISO_E_ARGUMENT, "%s needs a value, not an empty word", spelled(o, name));
    switch (o->kind) {
    case ISO_ARG_TEXT: memcpy(c->config + o->offset, &text, sizeof text); return ISO_OK;
    case ISO_ARG_INT: return set_int(c, o, text);
    case ISO_ARG_REAL: return set_real(c, o, text);
    case ISO_ARG_CHOICE: return set_choice(c, o, text);
    case ISO_ARG_LIST: return list_add((iso_list *)(void *)(c->config + o->offset), text, &c->err);
    case ISO_ARG_FLAG: break;
    }
    return iso_fail(&c->err, ISO_E_INTERNAL, "%s has no kind", spelled(o, name));
}

/* The words of a list up to the next option, or behind "--" all that are left, whatever they begin with: a file may be called as an option is. */
static iso_status take_list(cursor *c, const iso_option *o)
{
    char name[64];
    bool plain = false, any = false;
    iso_status status = ISO_OK;
    for (; !status && c->at < c->count; c->at++) {
        const char *word = c->word[c->at];
        if (!plain && strcmp(word, "--") == 0) {
            plain = true;
            continue;
        }
        if (!plain && is_option(word)) break;
        status = set_value(c, o, word);
        any = true;
    }
    return any ? status : iso_fail(&c->err, ISO_E_ARGUMENT, "%s needs a value", spelled(o, name));
}

/* `value` is what was glued to the option ("=10", "-k10") or NULL. A word that
 * names an option is not taken for a forgotten value; "--db=--odd" still says it. */
static iso_status take_value(cursor *c, const iso_option *o, const char *value)
{
    char name[64];
    bool number = o->kind == ISO_ARG_INT || o->kind == ISO_ARG_REAL;
    if (value) return set_value(c, o, value);
    if (o->kind == ISO_ARG_LIST) return take_list(c, o);
    const char *next = c->at < c->count ? c->word[c->at] : NULL;
    if (!next || (is_option(next) && !(number && strchr("0123456789.", next[1]))))
        return iso_fail(&c->err, ISO_E_ARGUMENT, "%s needs a value", spelled(o, name));
    c->at++;
    return set_value(c, o, next);
}

static void print_wrapped(FILE *out, const char *text, int indent, int column)
{
    while (*text) {
        int length = (int)strcspn(text, " \n");
        if (column > indent && column + 1 + length > 100) {
            fprintf(out, "\n%*s", indent, "");
            column = indent;
        }
        if (column > indent) column += fprintf(out, " ");
        column += fprintf(out, "%.*s", length, text);
        text += length;
        if (*text) text++;
    }
    putc('\n', out);
}

/* The text of a command, wrapped. A line end stays one where a sentence, a heading or a paragraph ends there; elsewhere it
 * is only how the source was wrapped. */
static void print_text(FILE *out, const char *text)
{
    while (*text) {
        char line[2048];
        size_t n = 0;
        for (; *text && n + 1 < sizeof line; text++) {
            if (*text == '\n' && (n == 0 || strchr(".:)", line[n - 1]) || text[1] == '\n' || text[1] == ' ')) break;
            line[n++] = *text == '\n' ? ' ' : *text;
        }
        line[n] = 0;
        text += *text == '\n';
        if (n > 100 && *line != ' ')
            print_wrapped(out, line, 0, 0);
        else
            fprintf(out, "%s\n", line);
    }
}

static void print_option(FILE *out, const iso_option *o)
{
    char head[160];
    const char *dots = o->kind == ISO_ARG_LIST ? " ..." : "";
    const char *space = o->kind == ISO_ARG_FLAG ? "" : " ";
    const char *meta = o->kind == ISO_ARG_FLAG ? "" : o->metavar ? o->metavar : "VALUE";
    if (!o->name[1])
        snprintf(head, sizeof head, "  -%s%s%s%s", o->name, space, meta, dots);
    else if (o->letter)
        snprintf(head, sizeof head, "  -%c, --%s%s%s%s", o->letter, o->name, space, meta, dots);
    else
        snprintf(head, sizeof head, "      --%s%s%s%s", o->name, space, meta, dots);
    int column = fprintf(out, "%s", head);
    if (column > 28) {
        putc('\n', out);
        column = 0;
    }
    fprintf(out, "%*s", 30 - column, "");
    print_wrapped(out, o->help ? o->help : "", 30, 30);
}

static void print_help(const iso_command *command)
{
    printf("usage: %s\n", command->usage);
    if (command->about) {
        putchar('\n');
        print_text(stdout, command->about);
    }
    printf("\noptions:\n");
    for (const iso_option *o = command->options; o && o->name; o++) print_option(stdout, o);
    for (const iso_option *o = common; o->name; o++) {
        iso_option shown = *o;
        if (find_letter(command->options, o->letter)) shown.letter = 0;
        if (!find_long(command->options, o->name, strlen(o->name))) print_option(stdout, &shown);
    }
    if (command->epilogue) {
        putchar('\n');
        print_text(stdout, command->epilogue);
    }
}

/* 0, or 1 when stdout could not take it. */
static int finish_stdout(const char *program)
{
    if (fflush(stdout) == 0 && !ferror(stdout)) return 0;
    fprintf(stderr, "%s: cannot write to standard output\n", program);
    return 1;
}

static int usage_error(cursor *c, iso_status status)
{
    fprintf(stderr, "%s: %s\n", c->command->program, c->err.message);
    if (status != ISO_E_ARGUMENT) return 1;
    fprintf(stderr, "usage: %s\n(%s --help says more)\n", c->command->usage, c->command->program);
    return 2;
}

/* --help and --version give their exit code in *code. */
static iso_status take_option(cursor *c, const iso_option *o, const char *value, int *code)
{
    char name[64];
    if (o->kind != ISO_ARG_FLAG) return take_value(c, o, value);
    if (value) return iso_fail(&c->err, ISO_E_ARGUMENT, "%s takes no value", spelled(o, name));
    if (o == &common[0]) {
        print_help(c->command);
        *code = finish_stdout(c->command->program);
    } else if (o == &common[1]) {
        printf("%.*s %s\n", (int)strcspn(c->command->program, " "), c->command->program, ISO_VERSION);
        *code = finish_stdout(c->command->program);
    } else {
        *(bool *)(void *)(c->config + o->offset) = true;
    }
    return ISO_OK;
}

static iso_status take_long(cursor *c, const char *word, int *code)
{
    size_t n = strcspn(word, "=");
    const iso_option *o = find_long(c->command->options, word, n);
    if (!o) o = find_long(common, word, n);
    if (!o) return iso_fail(&c->err, ISO_E_ARGUMENT, "unknown option --%.*s", (int)(n > 200 ? 200 : n), word);
    return take_option(c, o, word[n] ? word + n + 1 : NULL, code);
}

/* "-0q" is two flags, "-k10" a value. */
static iso_status take_letters(cursor *c, const char *letters, int *code)
{
    iso_status status = ISO_OK;
    while (!status && *code == ISO_ARGS_RUN && *letters) {
        const iso_option *o = find_letter(c->command->options, *letters);
        if (!o && *letters == common[0].letter) o = &common[0];
        if (!o) return iso_fail(&c->err, ISO_E_ARGUMENT, "unknown option -%c", *letters);
        letters++;
        if (o->kind == ISO_ARG_FLAG) {
            status = take_option(c, o, NULL, code);
        } else {
            const char *glued = *letters == '=' ? letters + 1 : letters;
            return take_option(c, o, *letters ? glued : NULL, code);
        }
    }
    return status;
}

int iso_args_parse(const iso_command *command, int argc, char **argv, int first, void *config, iso_list *rest)
{
    cursor c = {.command = command, .word = argv, .count = argc, .at = first, .config = config};
    bool plain = false;
    int code = ISO_ARGS_RUN;
    while (c.at < c.count && code == ISO_ARGS_RUN) {
        const char *word = c.word[c.at++];
        iso_status status;
        if (!plain && strcmp(word, "--") == 0) {
            plain = true;
            continue;
        }
        if (plain || !is_option(word))
            status = rest ? list_add(rest, word, &c.err)
                          : iso_fail(&c.err, ISO_E_ARGUMENT, "'%s' belongs to no option", word);
        else if (word[1] == '-')
            status = take_long(&c, word + 2, &code);
        else
            status = take_letters(&c, word + 1, &code);
        if (status) return usage_error(&c, status);
    }
    return code;
}

int iso_exit(const char *program, iso_status status, const iso_error *err)
{
    if (status == ISO_OK) return 0;
    const char *message = err && err->status != ISO_OK && err->message[0] ? err->message : iso_status_text(status);
    fprintf(stderr, "%s: %s\n", program, message);
    return status == ISO_E_ARGUMENT ? 2 : 1;
}

static void program_usage(FILE *out, const iso_program *p)
{
    fprintf(out, "usage: %s COMMAND [options]\n", p->name);
}

static int program_help(const iso_program *p)
{
    program_usage(stdout, p);
    printf("\n%s\n\ncommands:\n", p->about);
    for (const iso_subcommand *c = p->commands; c->name; c++) printf("  %-10s%s\n", c->name, c->about);
    printf("\n%s COMMAND --help says more. --db falls back to $ISOFACE_DB.\nExit codes: 0 done; 1 failed; 2 wrong usage.\n", p->name);
    return finish_stdout(p->name);
}

static int run_command(const iso_program *p, const char *name, int argc, char **argv)
{
    for (const iso_subcommand *c = p->commands; name && c->name; c++)
        if (!strcmp(name, c->name)) return c->run(argc, argv);
    if (name) fprintf(stderr, "%s: there is no command '%.100s'\n", p->name, name);
    else fprintf(stderr, "%s: a command is missing\n", p->name);
    program_usage(stderr, p);
    fprintf(stderr, "(%s --help lists the commands)\n", p->name);
    return 2;
}

int iso_program_run(const iso_program *p, int argc, char **argv)
{
    const char *first = argc > 1 ? argv[1] : NULL;
    const bool help = first && !strcmp(first, "help");
    if (help && argc > 2) return run_command(p, argv[2], 3, (char *[]){argv[0], argv[2], "--help", NULL});
    if (help || (first && (!strcmp(first, "--help") || !strcmp(first, "-h")))) return program_help(p);
    if (first && !strcmp(first, "--version")) {
        printf("%s %s\n", p->name, ISO_VERSION);
        return finish_stdout(p->name);
    }
    return run_command(p, first, argc, argv);
}
