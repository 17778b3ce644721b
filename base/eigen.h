/* eigen.h: eigenvalues and eigenvectors of a symmetric matrix, by LAPACK's dsyevd: accurate to rounding of the largest. */
#ifndef ISO_BASE_EIGEN_H
#define ISO_BASE_EIGEN_H

#include "base/error.h"

/* A [n, n], symmetric: only j >= i is read. It is overwritten by the eigenvectors as rows, orthonormal, in the order of
 * value [n]: ascending. O(n^3), and 2 n^2 numbers of working memory. Any number of threads may call it at a time.
 * ISO_E_NUMERIC: A holds a number that is not finite, or the iteration does not settle; A is lost. */
ISO_CHECK iso_status iso_eigen(int n, double *A, double *value, iso_error *err);

#endif
