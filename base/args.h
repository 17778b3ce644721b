/* args.h: command lines of the programs: one table per command gives parsing, checks and --help.
 *
 *     static const iso_option options[] = {
 *         {"db",    0,   ISO_ARG_TEXT,  offsetof(struct cfg, db),   "DB",  "database (default: $ISOFACE_DB)", 0, 0},
 *         {"query", 'q', ISO_ARG_LIST,  offsetof(struct cfg, query),"PATH","example images or folders", 0, 0},
 *         {NULL}
 *     };
 */
#ifndef ISO_BASE_ARGS_H
#define ISO_BASE_ARGS_H

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"

typedef enum iso_arg_kind {
    ISO_ARG_FLAG,   /* bool */
    ISO_ARG_TEXT,   /* const char *, points into argv */
    ISO_ARG_INT,    /* int64_t within [min, max] */
    ISO_ARG_REAL,   /* double, finite, within [min, max] */
    ISO_ARG_LIST,   /* iso_list: the value and every following word up to the next option, or behind "--" to the end; may be given again */
    ISO_ARG_CHOICE  /* const char *, one of metavar's words, which are separated by '|' */
} iso_arg_kind;

typedef struct iso_list {
    const char **item; /* free with iso_list_free */
    size_t count, capacity;
} iso_list;

typedef struct iso_option {
    const char *name;    /* long name without dashes; NULL ends the table */
    char letter;         /* short name or 0 */
    iso_arg_kind kind;
    size_t offset;       /* of the field in the caller's struct */
    const char *metavar; /* for --help; the choices of ISO_ARG_CHOICE */
    const char *help;    /* one line; say the default */
    double min, max;     /* for INT and REAL; both 0: no bound */
} iso_option;

typedef struct iso_command {
    const char *program;  /* "indexer encode" */
    const char *usage;    /* "indexer encode --images DIR --model M --db DB [options]" */
    const char *about;    /* paragraphs for --help */
    const iso_option *options;
    const char *epilogue; /* examples, exit codes; may be NULL */
} iso_command;

/* The outcome of parsing: go on, or leave main with this exit code. */
#define ISO_ARGS_RUN (-1)

/* Fills `config` (defaults already in it) from argv[first ...]. Long options take "--name value" and "--name=value".
 * "--" ends options; the words behind it belong to the list that it stands in, and else, as those that belong to no option, to `rest` (an error if
 * rest is NULL).
 * --help and --version print on stdout and give 0; a usage error prints one line and the usage on stderr and gives 2.
 * Every command has --help, --version. An option given as "" where a value is needed is an error. */
int iso_args_parse(const iso_command *command, int argc, char **argv, int first, void *config, iso_list *rest);

/* A program of several commands. */
typedef struct iso_subcommand {
    const char *name; /* NULL ends the table */
    int (*run)(int argc, char **argv); /* what main has; the exit code */
    const char *about; /* a line */
} iso_subcommand;

typedef struct iso_program {
    const char *name, *about; /* about: a paragraph */
    const iso_subcommand *commands;
} iso_program;

/* Runs the command that argv[1] names. --help, -h, `help` (`help COMMAND`: that command's --help) and --version are answered on stdout, with 0; another
 * word or none is a usage error, a line and the usage on stderr, with 2. */
int iso_program_run(const iso_program *program, int argc, char **argv);

void iso_list_free(iso_list *list);

/* The database: the one that was given, else $ISOFACE_DB. ISO_E_ARGUMENT where there is neither. */
ISO_CHECK iso_status iso_args_db(const char **db, iso_error *err);

/* Whether it is a whole number, as items have for ids: of digits alone, at most 18446744073709551615. */
bool iso_args_id(const char *text, uint64_t *id);

/* The exit code of a status: 0, 1, or 2 for ISO_E_ARGUMENT; prints "program: message" on stderr when not ISO_OK. */
int iso_exit(const char *program, iso_status status, const iso_error *err);

#endif
