/* The wall the trees grow in: what lies inside, its territories, and the sites in them. */

#include "kernels.h"

/* A field between the voxels' centres; −1 outside the grid. */
double trilinear(const double *field, const int64_t *shape, const double *spacing,
                 const double *x) {
    double u = x[0] / spacing[0], v = x[1] / spacing[1], w = x[2] / spacing[2];
    int64_t i = (int64_t)floor(u), j = (int64_t)floor(v), k = (int64_t)floor(w);
    if (i < 0 || j < 0 || k < 0) return -1.0;
    if (i + 1 >= shape[0] || j + 1 >= shape[1] || k + 1 >= shape[2]) return -1.0;
    u -= (double)i;
    v -= (double)j;
    w -= (double)k;
    int64_t row = shape[2], sheet = shape[1] * shape[2];
    const double *f = field + i * sheet + j * row + k, *g = f + sheet;
    double low = (f[0] * (1 - w) + f[1] * w) * (1 - v) + (f[row] * (1 - w) + f[row + 1] * w) * v;
    double high = (g[0] * (1 - w) + g[1] * w) * (1 - v) + (g[row] * (1 - w) + g[row + 1] * w) * v;
    return low * (1 - u) + high * u;
}

/* Whether a vessel lies in the wall, and its axis among the conduits where asked for.
 *
 * The clearance changes by no more than the way gone, so the next sample lies as far ahead as the
 * last one leaves room for, and at least a quarter of a voxel.
 */
bool stays_inside(const Wall *wall, const double *start, const double *end, double radius,
                  bool conduit) {
    const double *spacing = wall->spacing;
    double d0 = end[0] - start[0], d1 = end[1] - start[1], d2 = end[2] - start[2];
    double length = sqrt(d0 * d0 + d1 * d1 + d2 * d2);
    double least = 0.25 * smaller(smaller(spacing[0], spacing[1]), spacing[2]), at = 0.0;
    for (;;) {
        double t = length > 0.0 ? at / length : 0.0;
        double x[3] = {start[0] + t * d0, start[1] + t * d1, start[2] + t * d2};
        double room = trilinear(wall->clearance, wall->shape, spacing, x) - radius;
        if (room < 0.0) return false;
        if (conduit) {
            double free = trilinear(wall->conduit, wall->shape, spacing, x);
            if (free < 0.0) return false;
            room = smaller(room, free);
        }
        if (at >= length) return true;
        at = smaller(length, at + larger(least, 0.5 * room));
    }
}

/* Bring the cell at place k of a heap by distance up to where it belongs. */
static void rise(const double *distance, int64_t *heap, int64_t *slot, int64_t k) {
    int64_t x = heap[k];
    for (; k > 0 && distance[x] < distance[heap[(k - 1) / 2]]; k = (k - 1) / 2) {
        heap[k] = heap[(k - 1) / 2];
        slot[heap[k]] = k;
    }
    heap[k] = x;
    slot[x] = k;
}

/* Take the nearest cell out of a heap of n. */
static int64_t nearest(const double *distance, int64_t *heap, int64_t *slot, int64_t n) {
    int64_t first = heap[0], x = heap[n - 1], k = 0;
    for (int64_t next = 1; next < n - 1; next = 2 * k + 1) {
        if (next + 1 < n - 1 && distance[heap[next + 1]] < distance[heap[next]]) next++;
        if (distance[x] <= distance[heap[next]]) break;
        heap[k] = heap[next];
        slot[heap[k]] = k;
        k = next;
    }
    heap[k] = x;
    slot[x] = k;
    return first;
}

/* Length of the shortest way from the cell `start` to all others over their 26 neighbours
 * (E. W. Dijkstra 1959, Numer. Math. 1:269).
 *
 * - cell: number of the cell in each voxel of the grid, −1 outside; with a margin of one voxel.
 * - place (c, 3): voxel of each cell.
 * - heap (c,): scratch. slot (c,): scratch, filled with −1. distance (c,): filled with ∞.
 */
KERNEL void wall_ways(const int32_t *cell, const int64_t *shape, const double *spacing,
                      const int64_t *place, int64_t start, int64_t *heap, int64_t *slot,
                      double *distance) {
    int64_t n = 1;
    distance[start] = 0.0;
    heap[0] = start;
    while (n > 0) {
        int64_t x = nearest(distance, heap, slot, n--);
        const int64_t *at = place + 3 * x;
        for (int a = -1; a < 2; a++) {
            for (int b = -1; b < 2; b++) {
                for (int c = -1; c < 2; c++) {
                    int32_t y = cell[((at[0] + a) * shape[1] + at[1] + b) * shape[2] + at[2] + c];
                    if (y < 0 || y == x) continue;
                    double way = distance[x] + sqrt(square(a * spacing[0]) + square(b * spacing[1]) +
                                                    square(c * spacing[2]));
                    if (way >= distance[y]) continue;
                    distance[y] = way;
                    if (slot[y] < 0) {
                        slot[y] = n;
                        heap[n++] = y;
                    }
                    rise(distance, heap, slot, slot[y]);
                }
            }
        }
    }
}

/* Cells that are looked at together, so that memory is read in its order. */
enum { TOGETHER = 512 };

/* The tree of least distance − offset for each of c cells, the first one of equal ones.
 *
 * - distance (r, c), offset (r,): m.
 */
KERNEL void wall_owners(int64_t r, int64_t c, const double *distance, const double *offset,
                        int64_t *owner) {
    double best[TOGETHER];
    for (int64_t begin = 0; begin < c; begin += TOGETHER) {
        int64_t n = smaller_int(TOGETHER, c - begin), *own = owner + begin;
        for (int64_t x = 0; x < n; x++) {
            best[x] = INFINITY;
            own[x] = 0;
        }
        for (int64_t i = 0; i < r; i++) {
            const double *of = distance + i * c + begin;
            for (int64_t x = 0; x < n; x++) {
                double value = of[x] - offset[i];
                bool nearer = value < best[x];
                best[x] = nearer ? value : best[x];
                own[x] = nearer ? i : own[x];
            }
        }
    }
}

/* Whether each of n points keeps its distance from the wall's surface and all blocked vessels.
 *
 * - blocked (n_blocked, 7): ends and radius. clearance: least distance, m.
 */
KERNEL void sites_fit(const Wall *wall, int64_t n, const double *point, double clearance,
                      int64_t n_blocked, const double *blocked, bool *fit) {
    for (int64_t p = 0; p < n; p++) {
        const double *x = point + 3 * p;
        double at;
        fit[p] = trilinear(wall->clearance, wall->shape, wall->spacing, x) >= clearance;
        for (int64_t f = 0; fit[p] && f < n_blocked; f++) {
            const double *vessel = blocked + 7 * f;
            double reach = vessel[6] + clearance;
            fit[p] = point_segment(x, vessel, vessel + 3, &at) >= reach * reach;
        }
    }
}

/* The nearest site of the same tree for each of n points, into `owner` (filled with −1).
 *
 * - tree (n,), site_tree (s,): tree of each point and site.
 * - low (3,), size, shape (3,): lower end, width (m) and number of the cells of a grid over all
 *   sites. Cell c holds the sites member[start[c]:start[c + 1]].
 */
KERNEL void sites_nearest(int64_t n, const double *point, const int64_t *tree, const double *site,
                          const int64_t *site_tree, const double *low, double size,
                          const int64_t *shape, const int64_t *start, const int64_t *member,
                          int64_t *owner) {
    int64_t longest = larger_int(larger_int(shape[0], shape[1]), shape[2]);
    for (int64_t p = 0; p < n; p++) {
        const double *x = point + 3 * p;
        double best = INFINITY;
        int64_t at[3];
        for (int k = 0; k < 3; k++)
            at[k] = kept_inside((int64_t)((x[k] - low[k]) / size), shape[k]);
        /* cells of a ring lie at least one width less than its number away */
        for (int64_t ring = 0; ring <= longest; ring++) {
            if (ring > 0 && best <= square((double)(ring - 1) * size)) break;
            int64_t a1 = smaller_int(shape[0], at[0] + ring + 1);
            int64_t b1 = smaller_int(shape[1], at[1] + ring + 1);
            for (int64_t a = larger_int(0, at[0] - ring); a < a1; a++) {
                for (int64_t b = larger_int(0, at[1] - ring); b < b1; b++) {
                    bool shell = a == at[0] - ring || a == at[0] + ring || b == at[1] - ring ||
                                 b == at[1] + ring;
                    int64_t step = shell || ring == 0 ? 1 : 2 * ring;
                    for (int64_t c = at[2] - ring; c <= at[2] + ring; c += step) {
                        if (c < 0 || c >= shape[2]) continue;
                        int64_t cell = (a * shape[1] + b) * shape[2] + c;
                        for (int64_t m = start[cell]; m < start[cell + 1]; m++) {
                            int64_t s = member[m];
                            if (site_tree[s] != tree[p]) continue;
                            const double *y = site + 3 * s;
                            double d = square(x[0] - y[0]) + square(x[1] - y[1]) +
                                       square(x[2] - y[2]);
                            if (d < best || (d == best && s < owner[p])) {
                                best = d;
                                owner[p] = s;
                            }
                        }
                    }
                }
            }
        }
    }
}
