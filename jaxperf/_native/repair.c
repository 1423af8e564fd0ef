/* Moves the nodes of grown vessels until no two vessels intersect. */

#include "kernels.h"

/* Sweeps after which nodes move aside as well. */
enum { STRAIGHT = 30 };
/* Vessels that may lie near one. */
enum { OTHERS = 1 << 12 };
static const double APART = 1.002;

/* Whether two vessels share a node; a stub also touches the fixed vessels it leaves. */
static bool joined(const Growth *growth, int64_t a, int64_t b) {
    if (b >= growth->n_nodes) return growth->parent[a] < 0;
    int64_t pa = growth->parent[a], pb = growth->parent[b];
    return pa == b || pb == a || (pa == pb && pa >= 0);
}

/* The vessel that ends at a node (k = 0) or one of those that start there; −1 where there is none. */
static int64_t vessel_at(const Growth *growth, int64_t node, int k) {
    return k == 0 ? node : growth->child[node][k - 1];
}

/* Put a node somewhere, with the vessels that end and start there. */
static void relocate(Growth *growth, Grid *grid, int64_t node, const double *x) {
    for (int k = 0; k < 3; k++) {
        int64_t vessel = vessel_at(growth, node, k);
        if (vessel < 0) continue;
        double *tail = growth->tail[vessel], *tip = growth->tip[vessel];
        double radius = growth->entered[vessel];
        leave(grid, vessel, cells_of(grid, tail, tip, radius));
        copy_point(k == 0 ? tip : tail, x);
        enter(grid, vessel, cells_of(grid, tail, tip, radius));
    }
}

/* Move a node, unless a vessel at it would leave the wall; marks the vessels in `again`. */
static void move(Growth *growth, Grid *grid, const Wall *wall, int64_t node, const double *step,
                 bool *again) {
    double before[3], after[3];
    copy_point(before, growth->tip[node]);
    for (int k = 0; k < 3; k++) after[k] = before[k] + step[k];
    relocate(growth, grid, node, after);
    for (int k = 0; k < 3; k++) {
        int64_t vessel = vessel_at(growth, node, k);
        if (vessel >= 0 && !stays_inside(wall, growth->tail[vessel], growth->tip[vessel],
                                         growth->radius[vessel], false)) {
            relocate(growth, grid, node, before);
            return;
        }
    }
    for (int k = 0; k < 3; k++) {
        int64_t vessel = vessel_at(growth, node, k);
        if (vessel >= 0) again[vessel] = true;
    }
}

static double length_of(const double *x) {
    return sqrt(square(x[0]) + square(x[1]) + square(x[2]));
}

/* The direction from vessel b, at t, to vessel a, at s, and in `gap` their distance; false where
 * there is none. */
static bool find_way(const Growth *growth, int64_t a, int64_t b, double s, double t, double *way,
                     double *gap) {
    double u[3], v[3];
    for (int k = 0; k < 3; k++) {
        u[k] = growth->tip[a][k] - growth->tail[a][k];
        v[k] = growth->tip[b][k] - growth->tail[b][k];
        way[k] = (growth->tail[a][k] + s * u[k]) - (growth->tail[b][k] + t * v[k]);
    }
    double size = *gap = length_of(way);
    if (size < 1e-9) {
        /* the axes meet: across both of them */
        for (int k = 0; k < 3; k++) {
            int i = (k + 1) % 3, j = (k + 2) % 3;
            way[k] = u[i] * v[j] - u[j] * v[i];
        }
        size = length_of(way);
        if (size == 0.0) return false;
    }
    for (int k = 0; k < 3; k++) way[k] /= size;
    return true;
}

/* Push two vessels to the distance `apart` by the least displacement of their four ends.
 *
 * Entries into the wall and fixed vessels stay.
 */
static void push(Growth *growth, Grid *grid, const Wall *wall, int64_t a, int64_t b, double s,
                 double t, double apart, int64_t sweep, bool *again) {
    double way[3], gap, total = 0.0;
    if (!find_way(growth, a, b, s, t, way, &gap)) return;
    bool fixed = b >= growth->n_nodes;
    int64_t nodes[4] = {growth->parent[a], a, fixed ? -1 : growth->parent[b], fixed ? -1 : b};
    double weight[4] = {1.0 - s, s, t - 1.0, -t};
    for (int k = 0; k < 4; k++) {
        if (nodes[k] < growth->n_trees) weight[k] = 0.0;
        total += square(weight[k]);
    }
    if (total == 0.0) return;
    /* where the way is barred, later sweeps go beyond the mark, and then aside as well */
    double size = (apart - gap) / total * (1.0 + 0.02 * (double)sweep);
    if (sweep > STRAIGHT) {
        double turn = 2.399963 * (double)sweep; /* the golden angle meets every direction */
        double aside[3] = {cos(turn), sin(turn), cos(1.7 * turn)};
        double part = smaller(1.5, 0.02 * (double)(sweep - STRAIGHT));
        for (int k = 0; k < 3; k++) way[k] += aside[k] * part;
    }
    for (int k = 0; k < 4; k++) {
        if (weight[k] == 0.0) continue;
        double step[3];
        for (int i = 0; i < 3; i++) step[i] = size * weight[k] * way[i];
        move(growth, grid, wall, nodes[k], step, again);
    }
}

/* Vessels near vessel a that it is to be compared with; returns how many, and adds to `missed`
 * those that found no room. */
static int64_t find_others(Growth *growth, const Grid *grid, int64_t a, const bool *touched,
                           int64_t *others, int64_t *missed) {
    int64_t n = cells_of(grid, growth->tail[a], growth->tip[a], growth->radius[a]);
    int64_t now = ++growth->clock[0], n_others = 0;
    for (int64_t c = 0; c < n; c++) {
        for (int32_t entry = grid->head[grid->cells[c]]; entry >= 0; entry = grid->link[entry]) {
            int64_t b = grid->item[entry];
            if (b == a || growth->stamp[b] == now || joined(growth, a, b)) continue;
            if (b < a && touched[b]) continue;
            growth->stamp[b] = now;
            if (n_others == OTHERS)
                ++*missed;
            else
                others[n_others++] = b;
        }
    }
    return n_others;
}

/* Push every intersecting pair with a touched vessel apart; returns how many there were.
 *
 * Vessels of such pairs, and all that are moved, are marked in `again`. A vessel that there was no
 * room to look at counts as a pair: it is never taken to be apart.
 */
KERNEL int64_t repair_sweep(Growth *growth, Grid *grid, const Wall *wall, int64_t sweep,
                            const bool *touched, bool *again) {
    int64_t n_pairs = 0, used = growth->used[0], others[OTHERS];
    for (int64_t a = 0; a < used; a++) {
        if (!touched[a]) continue;
        int64_t n = find_others(growth, grid, a, touched, others, &n_pairs);
        for (int64_t k = 0; k < n; k++) {
            int64_t b = others[k];
            double s, t, apart = growth->radius[a] + growth->radius[b];
            if (segment_segment(growth->tail[a], growth->tip[a], growth->tail[b], growth->tip[b],
                                &s, &t) >= apart * apart)
                continue;
            n_pairs++;
            again[a] = true;
            if (b < used) again[b] = true;
            push(growth, grid, wall, a, b, s, t, APART * apart, sweep, again);
        }
    }
    return n_pairs;
}

/* How many vessels, stubs apart, reach out of the wall by more than `allowed` (m). */
KERNEL int64_t repair_outside(const Growth *growth, const Wall *wall, double allowed) {
    int64_t n = 0;
    for (int64_t k = growth->n_trees; k < growth->used[0]; k++)
        n += !stays_inside(wall, growth->tail[k], growth->tip[k], growth->radius[k] - allowed,
                           false);
    return n;
}
