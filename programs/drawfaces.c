/* drawfaces: a data set of drawn faces in CelebA's layout. */
#include <omp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>

#include "base/args.h"
#include "base/progress.h"
#include "demo/faces.h"

typedef struct config {
    const char *output;
    int64_t count, seed, threads;
    double train, valid;
    bool force, quiet;
} config;

static const iso_option options[] = {
    {"output", 'o', ISO_ARG_TEXT, offsetof(config, output), "DIR", "folder to write, new or empty", 0, 0},
    {"count", 'n', ISO_ARG_INT, offsetof(config, count), "N", "how many faces (default: 2000)", 1, ISO_FACES_MAX},
    {"seed", 0, ISO_ARG_INT, offsetof(config, seed), "N", "another number gives other people (default: 0)", 0, 9e15},
    {"train", 0, ISO_ARG_REAL, offsetof(config, train), "X", "share that trains, partition 0 (default: 0.8)", 0, 1},
    {"valid", 0, ISO_ARG_REAL, offsetof(config, valid), "X", "share that validates, partition 1; the rest tests (default: 0.05)", 0, 1},
    {"force", 'f', ISO_ARG_FLAG, offsetof(config, force), NULL, "replace the drawn faces that are there", 0, 0},
    {"threads", 0, ISO_ARG_INT, offsetof(config, threads), "N", "threads to use (default: all)", 1, 1024},
    {"quiet", 0, ISO_ARG_FLAG, offsetof(config, quiet), NULL, "no progress", 0, 0},
    {NULL, 0, 0, 0, NULL, NULL, 0, 0}};

static const iso_command command = {
    "drawfaces",
    "drawfaces --output DIR [--count 2000] [--seed 0] [options]",
    "Draws faces with known attributes in CelebA's layout: img_align_celeba/000001.jpg ... (178 x 218), list_attr_celeba.txt with "
    "CelebA's 40 attributes, and list_eval_partition.txt. The same seed gives the same files, whatever the count and the threads.\n"
    "All attributes but one are drawn; Attractive is a label that goes with others.",
    options,
    "Exit codes: 0 done; 1 failed; 2 wrong usage.\n"
    "Example: drawfaces --output faces --count 5000 --seed 7"};

int main(int argc, char **argv)
{
    config c = {.count = 2000, .train = 0.8, .valid = 0.05};
    signal(SIGXFSZ, SIG_IGN); /* a file size limit is an error to report, not to die of */
    int code = iso_args_parse(&command, argc, argv, 1, &c, NULL);
    if (code != ISO_ARGS_RUN) return code;
    iso_error err = {0};
    if (!c.output) return iso_exit("drawfaces", iso_fail(&err, ISO_E_ARGUMENT, "no folder to write: give --output DIR (see --help)"), &err);
    if (c.threads > 0) omp_set_num_threads((int)c.threads);
    iso_interrupt_install();
    double start = iso_now();
    iso_faces_spec spec = {.count = c.count, .seed = (uint64_t)c.seed, .train = c.train, .valid = c.valid, .force = c.force, .quiet = c.quiet};
    iso_status status = iso_faces_write(c.output, &spec, &err);
    char took[32];
    if (status == ISO_OK && !c.quiet)
        fprintf(stderr, "drew %lld faces into %s in %s\n", (long long)c.count, c.output, iso_duration(iso_now() - start, took));
    return iso_exit("drawfaces", status, &err);
}
