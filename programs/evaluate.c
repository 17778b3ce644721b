/* evaluate: how well a database answers. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "isoface.h"
#include "programs/evaluate.h"

static const struct subcommand {
    const char *name, *about;
    int (*run)(int argc, char **argv);
} subcommand[] = {
    {"precision", "precision at K of single and double attributes", iso_evaluate_precision},
    {"compare", "the same for several models, side by side", iso_evaluate_compare},
    {"geometry", "how far a model's decoder is from an isometry, and its latent space in pictures", iso_evaluate_geometry},
    {"sweep", "train over a list of alpha or beta: what isometry costs", iso_evaluate_sweep},
};
enum { SUBCOMMANDS = sizeof subcommand / sizeof *subcommand };

static void usage(FILE *out)
{
    fputs("usage: evaluate COMMAND [options]\n\n", out);
    for (int i = 0; i < SUBCOMMANDS; i++) fprintf(out, "  %-10s %s\n", subcommand[i].name, subcommand[i].about);
    fputs("\nevaluate COMMAND --help says more; --version prints the version.\n", out);
}

/* What was printed has arrived. */
static int finish(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout)) return 0;
    fputs("evaluate: cannot write to standard output\n", stderr);
    return 1;
}

int main(int argc, char **argv)
{
    signal(SIGXFSZ, SIG_IGN); /* a file size limit is an error to report, not to die of */
    if (argc < 2) {
        usage(stderr);
        return 2;
    }
    for (int i = 0; i < SUBCOMMANDS; i++)
        if (strcmp(argv[1], subcommand[i].name) == 0) return subcommand[i].run(argc, argv);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        usage(stdout);
        return finish();
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("evaluate " ISO_VERSION);
        return finish();
    }
    fprintf(stderr, "evaluate: there is no command '%.100s'\n", argv[1]);
    usage(stderr);
    return 2;
}
