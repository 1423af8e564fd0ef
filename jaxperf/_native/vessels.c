/* Vessels of growing trees: their calibre, their place in the grid, and the first ones. */

#include "kernels.h"

/* Vessels are entered in the grid this much wider than they are, so that they may widen in place. */
static const double ENTERED_WIDER = 1.3;
/* Surfaces keep this part of the sum of two radii apart while the trees grow. */
static const double APART = 1.05;
/* Squared distance to a vessel's old neighbours that its parts keep, over the old one. */
static const double AS_BEFORE = 0.96;

/* The radius (m) that goes with ln of a flow; the inverse of `log_flow` (growth/_murray.py).
 *
 * - law (7,): see `BranchingLaw.coefficients`.
 */
double radius_of(double log_flow, const double *law) {
    double start = law[0], low = law[1], high = law[2], small = law[3], large = law[4];
    double slope = law[5], top = law[6], y = log_flow - start;
    if (y <= 0.0) return exp(low + y / small);
    if (y >= top) return exp(high + (y - top) / large);
    return exp(low + 2.0 * y / (small + sqrt(small * small + 2.0 * slope * y)));
}

/* The radius of each of n flows. */
KERNEL void vessels_radii(int64_t n, const double *log_flow, const double *law, double *radius) {
    for (int64_t k = 0; k < n; k++) radius[k] = radius_of(log_flow[k], law);
}

static int64_t cells_of_vessel(const Growth *growth, const Grid *grid, int64_t vessel,
                               double radius) {
    return cells_of(grid, growth->tail[vessel], growth->tip[vessel], radius);
}

void enter_vessel(Growth *growth, Grid *grid, int64_t vessel) {
    growth->entered[vessel] = ENTERED_WIDER * growth->radius[vessel];
    enter(grid, vessel, cells_of_vessel(growth, grid, vessel, growth->entered[vessel]));
}

void leave_vessel(Growth *growth, Grid *grid, int64_t vessel) {
    leave(grid, vessel, cells_of_vessel(growth, grid, vessel, growth->entered[vessel]));
}

/* Enter n vessels in the grid. */
KERNEL void vessels_enter(Growth *growth, Grid *grid, int64_t n, const int64_t *vessels) {
    for (int64_t k = 0; k < n; k++) enter_vessel(growth, grid, vessels[k]);
}

/* Take a vessel out of the grid. */
KERNEL void vessels_leave(Growth *growth, Grid *grid, int64_t vessel) {
    leave_vessel(growth, grid, vessel);
}

/* How many entries n vessels need in the grid. */
KERNEL int64_t vessels_entries(const Growth *growth, const Grid *grid, int64_t n,
                               const int64_t *vessels) {
    int64_t total = 0;
    for (int64_t k = 0; k < n; k++) {
        double reach = ENTERED_WIDER * growth->radius[vessels[k]];
        total += cells_of_vessel(growth, grid, vessels[k], reach);
    }
    return total;
}

/* A node below another one, without a radius and not yet in the grid. */
int64_t new_node(Growth *growth, const double *x, int64_t parent, int64_t tree, int64_t stage,
                 int64_t count) {
    int64_t node = growth->used[0]++;
    copy_point(growth->tip[node], x);
    copy_point(growth->tail[node], growth->tip[parent]);
    growth->parent[node] = parent;
    growth->tree[node] = tree;
    growth->stage[node] = stage;
    growth->count[node] = count;
    growth->older[node] = growth->newest[tree];
    growth->newest[tree] = node;
    return node;
}

/* Whether a new vessel a b keeps clear of all others.
 *
 * Left out are the vessels that end or start at the node `skip_at`, which it joins, and the vessel
 * `split` that it takes the place of. In a wider search (`lenient`), what that one was already as
 * near to may stay so: where vessels have widened beside a junction nothing could ever branch off
 * otherwise, and they are moved apart in the end.
 */
bool keeps_clear(Growth *growth, const Grid *grid, const double *a, const double *b, double r,
                 int64_t skip_at, int64_t split, bool lenient) {
    int64_t now = ++growth->clock[0], n = cells_of(grid, a, b, APART * r);
    double s, t;
    for (int64_t c = 0; c < n; c++) {
        for (int32_t entry = grid->head[grid->cells[c]]; entry >= 0; entry = grid->link[entry]) {
            int64_t other = grid->item[entry];
            if (growth->stamp[other] == now) continue;
            growth->stamp[other] = now;
            if (other == split || other == skip_at ||
                (other < growth->n_nodes && growth->parent[other] == skip_at))
                continue;
            const double *tail = growth->tail[other], *tip = growth->tip[other];
            double apart = APART * (r + growth->radius[other]);
            double near = segment_segment(a, b, tail, tip, &s, &t);
            if (near >= apart * apart) continue;
            if (!lenient) return false;
            double before =
                segment_segment(growth->tail[split], growth->tip[split], tail, tip, &s, &t);
            if (near < AS_BEFORE * before) return false;
        }
    }
    return true;
}

/* Part of a tree's first vessel; the last part ends in the terminal of `site`. */
static int64_t first_vessel(Growth *growth, Grid *grid, int64_t site, int64_t parent,
                            const double *x, double r, int64_t stage, bool ends) {
    int64_t own = growth->tree[parent], node = new_node(growth, x, parent, own, stage, 1);
    growth->radius[node] = r;
    growth->child[parent][0] = node;
    enter_vessel(growth, grid, node);
    if (ends) {
        growth->count[own] = 1;
        growth->taken[own] = 1;
        growth->terminal[site] = node;
    }
    return node;
}

/* The first vessel of a tree: straight from its entry to the first of n sites that it reaches. */
KERNEL bool vessels_plant(Growth *growth, Grid *grid, const Wall *wall, const Plan *plan,
                          int64_t n, const int64_t *sites, bool conduit) {
    for (int64_t k = 0; k < n; k++) {
        int64_t own = plan->site_tree[sites[k]];
        const double *entry = growth->tip[own], *x = plan->site[sites[k]];
        double r = radius_of(plan->log[plan->planned[own]], plan->law);
        if (distance(entry, x) < 2.0 * r || !stays_inside(wall, entry, x, r, conduit) ||
            !keeps_clear(growth, grid, entry, x, r, own, NOWHERE, false))
            continue;
        first_vessel(growth, grid, sites[k], own, x, r, conduit ? 1 : 2, true);
        return true;
    }
    return false;
}

/* The first vessel of a tree with one of n_bends bends: the shortest way to the first site that it
 * reaches.
 *
 * - bends (n_bends, 3): m.
 */
KERNEL bool vessels_plant_bent(Growth *growth, Grid *grid, const Wall *wall, const Plan *plan,
                               int64_t n, const int64_t *sites, int64_t n_bends,
                               const double *bends) {
    for (int64_t m = 0; m < n; m++) {
        int64_t own = plan->site_tree[sites[m]];
        const double *entry = growth->tip[own], *x = plan->site[sites[m]], *chosen = NULL;
        double r = radius_of(plan->log[plan->planned[own]], plan->law), best = INFINITY;
        for (int64_t k = 0; k < n_bends; k++) {
            const double *bend = bends + 3 * k;
            double one = distance(entry, bend), two = distance(bend, x), ahead = 0.0;
            for (int i = 0; i < 3; i++) ahead += (bend[i] - entry[i]) * (x[i] - bend[i]);
            if (one + two >= best || one < 2.0 * r || two < 2.0 * r || ahead < 0.0) continue;
            if (stays_inside(wall, entry, bend, r, false) &&
                stays_inside(wall, bend, x, r, false) &&
                keeps_clear(growth, grid, entry, bend, r, own, NOWHERE, false) &&
                keeps_clear(growth, grid, bend, x, r, NOWHERE, NOWHERE, false)) {
                best = one + two;
                chosen = bend;
            }
        }
        if (chosen == NULL) continue;
        int64_t middle = first_vessel(growth, grid, -1, own, chosen, r, 2, false);
        first_vessel(growth, grid, sites[m], middle, x, r, 2, true);
        return true;
    }
    return false;
}
