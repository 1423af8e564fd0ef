/* Distances between vessels, and a grid that finds the vessels near a place. */

#include "kernels.h"

/* Square of the distance of the segments a b and c d; where on each (0 to 1) it is reached.
 *
 * The closest points of the two lines where they lie inside both segments, else the closest of the
 * four ends (C. Ericson 2005, Real-Time Collision Detection, section 5.1.9).
 */
double segment_segment(const double *a, const double *b, const double *c, const double *d,
                       double *s, double *t) {
    double ux = b[0] - a[0], uy = b[1] - a[1], uz = b[2] - a[2];
    double vx = d[0] - c[0], vy = d[1] - c[1], vz = d[2] - c[2];
    double wx = a[0] - c[0], wy = a[1] - c[1], wz = a[2] - c[2];
    double uu = ux * ux + uy * uy + uz * uz, vv = vx * vx + vy * vy + vz * vz;
    double uv = ux * vx + uy * vy + uz * vz;
    double uw = ux * wx + uy * wy + uz * wz, vw = vx * wx + vy * wy + vz * wz;
    double cross = uu * vv - uv * uv;
    if (cross > 1e-12 * uu * vv) {
        double p = (uv * vw - vv * uw) / cross, q = (uu * vw - uv * uw) / cross;
        if (0.0 <= p && p <= 1.0 && 0.0 <= q && q <= 1.0) {
            double dx = wx + p * ux - q * vx, dy = wy + p * uy - q * vy, dz = wz + p * uz - q * vz;
            *s = p;
            *t = q;
            return dx * dx + dy * dy + dz * dz;
        }
    }
    double best = 1e300, at;
    *s = *t = 0.0;
    const double *end[4] = {a, b, c, d};
    for (int k = 0; k < 4; k++) {
        double found = k < 2 ? point_segment(end[k], c, d, &at) : point_segment(end[k], a, b, &at);
        if (!(found < best)) continue;
        best = found;
        *s = k < 2 ? (double)k : at;
        *t = k < 2 ? at : (double)(k - 2);
    }
    return best;
}

/* Squares (m²) of the distances of the segment a b from n others, into `found`.
 *
 * - others (n, 7): both ends, and a radius that does not count.
 */
KERNEL void space_distances(const double *a, const double *b, int64_t n, const double *others,
                            double *found) {
    double s, t;
    for (int64_t k = 0; k < n; k++)
        found[k] = segment_segment(a, b, others + 7 * k, others + 7 * k + 3, &s, &t);
}

/* The cell along an axis that a coordinate lies in; outside the grid, the outermost one. */
static int64_t cell_at(const Grid *grid, int axis, double x) {
    int64_t i = (int64_t)floor((x - grid->origin[axis]) / grid->size[0]);
    return kept_inside(i, grid->shape[axis]);
}

/* The cells that a capsule touches, into grid->cells; returns how many, −1 where they are too many.
 *
 * Positions outside the grid count for its outermost cells.
 */
int64_t cells_of(const Grid *grid, const double *a, const double *b, double radius) {
    const int64_t *shape = grid->shape;
    double size = grid->size[0], reach = radius + 0.8661 * size; /* half the diagonal of a cell */
    int64_t low[3], high[3], n = 0;
    for (int k = 0; k < 3; k++) {
        low[k] = cell_at(grid, k, smaller(a[k], b[k]) - radius);
        high[k] = cell_at(grid, k, larger(a[k], b[k]) + radius);
    }
    for (int64_t i = low[0]; i <= high[0]; i++) {
        for (int64_t j = low[1]; j <= high[1]; j++) {
            for (int64_t k = low[2]; k <= high[2]; k++) {
                double x[3] = {grid->origin[0] + ((double)i + 0.5) * size,
                               grid->origin[1] + ((double)j + 0.5) * size,
                               grid->origin[2] + ((double)k + 0.5) * size};
                bool edge = i == 0 || j == 0 || k == 0 || i == shape[0] - 1 ||
                            j == shape[1] - 1 || k == shape[2] - 1;
                double at;
                if (!edge && point_segment(x, a, b, &at) > reach * reach) continue;
                if (n == grid->n_cells) return -1;
                grid->cells[n++] = (i * shape[1] + j) * shape[2] + k;
            }
        }
    }
    return n;
}

/* Enter a vessel in the first n of grid->cells; there must be room for n entries. */
void enter(Grid *grid, int64_t vessel, int64_t n) {
    for (int64_t m = 0; m < n; m++) {
        int32_t entry = (int32_t)grid->free[0], *head = &grid->head[grid->cells[m]];
        grid->free[0] = grid->link[entry];
        grid->free[1]++;
        grid->item[entry] = (int32_t)vessel;
        grid->link[entry] = *head;
        *head = entry;
    }
}

/* Take a vessel out of the first n of grid->cells. */
void leave(Grid *grid, int64_t vessel, int64_t n) {
    for (int64_t m = 0; m < n; m++) {
        int32_t *from = &grid->head[grid->cells[m]]; /* what refers to the entry */
        while (*from >= 0 && grid->item[*from] != vessel) from = &grid->link[*from];
        if (*from < 0) continue;
        int32_t entry = *from;
        *from = grid->link[entry];
        grid->link[entry] = (int32_t)grid->free[0];
        grid->free[0] = entry;
        grid->free[1]--;
    }
}
