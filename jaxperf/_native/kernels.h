/* What the C files share. Lengths are in m, points are three doubles, arrays lie row by row.
 *
 * The structs are filled in Python, field by field in this order (`structure` in the rooms).
 */

#ifndef JAXPERF_KERNELS_H
#define JAXPERF_KERNELS_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Marks the functions that Python calls. */
#ifdef _WIN32
#define KERNEL __declspec(dllexport)
#else
#define KERNEL __attribute__((visibility("default")))
#endif

/* The smaller and the larger of two numbers; the first one where either is no number. */
static inline double smaller(double a, double b) { return b < a ? b : a; }
static inline double larger(double a, double b) { return b > a ? b : a; }
static inline int64_t smaller_int(int64_t a, int64_t b) { return b < a ? b : a; }
static inline int64_t larger_int(int64_t a, int64_t b) { return b > a ? b : a; }
static inline double square(double x) { return x * x; }
/* The number of a cell along an axis of `n` cells, kept inside it. */
static inline int64_t kept_inside(int64_t i, int64_t n) {
    return smaller_int(n - 1, larger_int(0, i));
}

/* ------------------------------------------------------------------ space.c */

/* Which vessels touch each cell of a regular grid, one linked list per cell; see `Grid` in
 * growth/_space.py. `cells` is scratch for the cells of one vessel. */
typedef struct {
    const double *origin, *size;
    const int64_t *shape;
    int32_t *head, *item, *link;
    int64_t *free, *cells;
    int64_t n_entries, n_cells;
} Grid;

static inline void copy_point(double *to, const double *from) {
    for (int k = 0; k < 3; k++) to[k] = from[k];
}

static inline double distance(const double *a, const double *b) {
    return sqrt(square(a[0] - b[0]) + square(a[1] - b[1]) + square(a[2] - b[2]));
}

/* Square of the distance of point x from the segment a b; where on it (0 to 1) it is reached. */
static inline double point_segment(const double *x, const double *a, const double *b, double *at) {
    double ux = b[0] - a[0], uy = b[1] - a[1], uz = b[2] - a[2];
    double wx = x[0] - a[0], wy = x[1] - a[1], wz = x[2] - a[2];
    double length = ux * ux + uy * uy + uz * uz, t = 0.0;
    if (length > 0.0) t = smaller(1.0, larger(0.0, (wx * ux + wy * uy + wz * uz) / length));
    double dx = wx - t * ux, dy = wy - t * uy, dz = wz - t * uz;
    *at = t;
    return dx * dx + dy * dy + dz * dz;
}

double segment_segment(const double *a, const double *b, const double *c, const double *d,
                       double *s, double *t);
int64_t cells_of(const Grid *grid, const double *a, const double *b, double radius);
void enter(Grid *grid, int64_t vessel, int64_t n);
void leave(Grid *grid, int64_t vessel, int64_t n);

/* ------------------------------------------------------------------ wall.c */

/* The wall on its grid; see `Wall` in growth/_wall.py. */
typedef struct {
    const double *spacing, *clearance, *conduit;
    int64_t shape[3];
} Wall;

double trilinear(const double *field, const int64_t *shape, const double *spacing,
                 const double *x);
bool stays_inside(const Wall *wall, const double *start, const double *end, double radius,
                  bool conduit);

/* ------------------------------------------------------------------ vessels.c */

/* The state of growing trees; see `Growth` in growth/_insert.py. */
typedef struct {
    double (*tip)[3], (*tail)[3], *radius, *entered;
    int64_t *tree, *parent, (*child)[2], *count, *stage, *older, *newest, *taken, *gained, *lost;
    int64_t *stamp, *clock;
    double *known;
    int64_t *path, *used, *terminal;
    int64_t n_nodes, n_trees;
} Growth;

/* What growth works from and does not change; see `Plan` in growth/_insert.py. */
typedef struct {
    const double *law, *log, (*site)[3];
    const int64_t *site_tree, *planned, *territory;
    const double *spread;
} Plan;

/* No node: parents of stubs are −1, −2, … */
#define NOWHERE (-((int64_t)1 << 40))

double radius_of(double log_flow, const double *law);
void enter_vessel(Growth *growth, Grid *grid, int64_t vessel);
void leave_vessel(Growth *growth, Grid *grid, int64_t vessel);
int64_t new_node(Growth *growth, const double *x, int64_t parent, int64_t tree, int64_t stage,
                 int64_t count);
bool keeps_clear(Growth *growth, const Grid *grid, const double *a, const double *b, double r,
                 int64_t skip_at, int64_t split, bool lenient);

#endif
