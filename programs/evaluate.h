/* evaluate.h: the subcommands of the `evaluate` program. Each gets main's arguments (argv[1] is its own name) and
 * returns the exit code. */
#ifndef ISO_PROGRAMS_EVALUATE_H
#define ISO_PROGRAMS_EVALUATE_H

int iso_evaluate_precision(int argc, char **argv);
int iso_evaluate_compare(int argc, char **argv);
int iso_evaluate_geometry(int argc, char **argv);
int iso_evaluate_sweep(int argc, char **argv);

#endif
