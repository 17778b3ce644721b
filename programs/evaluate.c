/* evaluate: how well a database answers, and how far a model is from an isometry. */
#include "programs/evaluate.h"

#include <signal.h>

#include "base/args.h"

static const iso_subcommand commands[] = {
    {"precision", iso_evaluate_precision, "precision at K of single and double attributes"},
    {"compare", iso_evaluate_compare, "the same for several models, side by side"},
    {"geometry", iso_evaluate_geometry, "how far a model's decoder is from an isometry, and its latent space in pictures"},
    {"sweep", iso_evaluate_sweep, "train over a list of alpha or beta: what isometry costs"},
    {NULL, NULL, NULL},
};
static const iso_program program = {"evaluate", "How well a database answers, and how far a model's decoder is from an isometry.", commands};

int main(int argc, char **argv)
{
    signal(SIGXFSZ, SIG_IGN); /* a file size limit is an error to report, not to die of */
    return iso_program_run(&program, argc, argv);
}
