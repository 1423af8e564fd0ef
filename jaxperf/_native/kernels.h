/* What the C files share. Lengths are in m, points are three doubles, matrices lie row by row. */

#ifndef JAXPERF_KERNELS_H
#define JAXPERF_KERNELS_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

/* Marks the functions that Python calls. */
#ifdef _WIN32
#define KERNEL __declspec(dllexport)
#else
#define KERNEL __attribute__((visibility("default")))
#endif

/* Of two numbers; the second one only where it is really beyond the first. */
static inline double least(double a, double b) { return b < a ? b : a; }
static inline double most(double a, double b) { return b > a ? b : a; }
static inline int64_t least_int(int64_t a, int64_t b) { return b < a ? b : a; }
static inline int64_t most_int(int64_t a, int64_t b) { return b > a ? b : a; }

#endif
