/* Constrained constructive optimisation: adds terminals to the trees one after the other. */

#include "kernels.h"

/* By level of the search: candidates compared, least length of a vessel over its parent's radius,
 * places tried for the terminal, how far they lie about its site over the distance of sites, and
 * whether they may lie about any site of the tree. In the last one neighbours take any number. */
enum { WIDEST = 4, MOST_CANDIDATES = 240 };
static const int64_t CANDIDATES[] = {16, 40, MOST_CANDIDATES, 60, MOST_CANDIDATES};
static const double LEAST_LENGTH[] = {1.0, 0.6, 0.3, 0.3, 0.3};
static const int64_t PLACES[] = {3, 8, 24, 400, 400};
static const double AWAY[] = {0.4, 0.8, 1.6, 2.0, 2.0};
static const bool ANYWHERE[] = {false, false, false, true, true};
/* The fork is first tried where it adds least volume, then nearer to the vessel it splits. */
static const double PULLS[] = {1.0, 0.3, 0.05};
enum { FOUND = 2048, RINGS = 6 };
/* A tree with fewer vessels is searched whole. */
enum { FEW = 40 };
/* A tree may take over this part of its own terminals from its neighbours, or lose it to them. */
static const double EXCHANGE = 0.04;

/* The site that is inserted: its number, the place tried, its tree, and how it is searched for. */
typedef struct {
    int64_t site, own, level;
    bool conduit;
    double x[3];
} Site;

/* Vessels that were found, and the squares of their distances. */
typedef struct {
    int64_t vessel[FOUND], n;
    double near[FOUND];
} Search;

/* The next of a sequence of uniform 64-bit numbers (S. Vigna's splitmix64), as a fraction from 0 to
 * 1. */
static double next_fraction(uint64_t *state) {
    uint64_t z = *state + 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    *state = z ^ (z >> 31);
    return (double)(*state >> 11) * (1.0 / 9007199254740992.0);
}

/* Indices of the least of n values, the first of equal ones first; returns how many.
 *
 * - order (room,): the indices; room is at least 1.
 */
static int64_t least_of(const double *value, int64_t n, int64_t *order, int64_t room) {
    int64_t kept = 0;
    for (int64_t m = 0; m < n; m++) {
        if (kept == room && value[m] >= value[order[kept - 1]]) continue;
        int64_t k = kept < room ? kept : kept - 1;
        for (; k > 0 && value[m] < value[order[k - 1]]; k--) order[k] = order[k - 1];
        order[k] = m;
        kept = smaller_int(kept + 1, room);
    }
    return kept;
}

/* ln of the planned terminals that each one stands for once there is one more.
 *
 * Vessels so have about their final calibre from the start.
 */
static double share(const Growth *growth, const Plan *plan, int64_t tree) {
    return plan->log[plan->planned[tree]] - plan->log[growth->taken[tree] + 1];
}

/* Radius of a vessel for so many terminals below it. */
static double radius_for(const Plan *plan, int64_t terminals, double scale) {
    return radius_of(plan->log[terminals] + scale, plan->law);
}

/* Whether a tree may take over one more terminal of the tree `own`.
 *
 * It is a neighbour of the same vessel territory, as long as the flows of both stay near the planned
 * ones, or without that condition (`free`).
 */
static bool open_to(const Growth *growth, const Plan *plan, int64_t own, int64_t tree, bool free) {
    if (tree == own) return true;
    if (plan->territory[tree] != plan->territory[own] || growth->taken[tree] == 0) return false;
    return free || ((double)(growth->lost[own] + 1) <= (double)plan->planned[own] * EXCHANGE &&
                    (double)(growth->gained[tree] + 1) <= (double)plan->planned[tree] * EXCHANGE);
}

static void note(Search *search, const Growth *growth, const double *x, int64_t vessel) {
    double at;
    search->vessel[search->n] = vessel;
    search->near[search->n++] =
        point_segment(x, growth->tail[vessel], growth->tip[vessel], &at);
}

/* Note the vessels of one cell that the site may branch off; returns how many are of its tree. */
static int64_t look_into(int64_t cell, Growth *growth, const Grid *grid, const Plan *plan,
                         const Site *of, Search *search) {
    int64_t now = growth->clock[0], n_own = 0;
    for (int32_t entry = grid->head[cell]; entry >= 0; entry = grid->link[entry]) {
        int64_t other = grid->item[entry];
        if (growth->stamp[other] == now || search->n == FOUND) continue;
        growth->stamp[other] = now;
        int64_t tree = growth->tree[other];
        if (tree < 0 || other < growth->n_trees ||
            !open_to(growth, plan, of->own, tree, of->level == WIDEST))
            continue;
        note(search, growth, of->x, other);
        n_own += tree == of->own;
    }
    return n_own;
}

/* Vessels near a site that it may branch off, nearest first: at most so many as its level wants. */
static void find_candidates(Growth *growth, const Grid *grid, const Plan *plan, const Site *of,
                            Search *search) {
    const int64_t *shape = grid->shape, wanted = CANDIDATES[of->level];
    double size = grid->size[0];
    int64_t now = ++growth->clock[0], at[3], n_own = 0;
    for (int k = 0; k < 3; k++)
        at[k] = kept_inside((int64_t)((of->x[k] - grid->origin[k]) / size), shape[k]);
    search->n = 0;
    for (int64_t ring = 0; ring < RINGS; ring++) {
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
                    n_own += look_into(cell, growth, grid, plan, of, search);
                }
            }
        }
        /* all vessels nearer than this are found; half of those wanted is enough */
        double certain = square((double)ring * size);
        int64_t inside = 0;
        for (int64_t m = 0; m < search->n; m++) inside += search->near[m] <= certain;
        if (2 * inside >= wanted && search->n >= wanted) break;
    }
    if (n_own == 0 || growth->taken[of->own] < FEW) {
        int64_t other = growth->newest[of->own];
        for (; other >= 0 && search->n < FOUND; other = growth->older[other]) {
            if (growth->stamp[other] == now) continue;
            growth->stamp[other] = now;
            note(search, growth, of->x, other);
        }
    }
    int64_t order[MOST_CANDIDATES], chosen[MOST_CANDIDATES];
    search->n = least_of(search->near, search->n, order, wanted);
    for (int64_t m = 0; m < search->n; m++) chosen[m] = search->vessel[order[m]];
    for (int64_t m = 0; m < search->n; m++) search->vessel[m] = chosen[m];
}

/* The point of least Σ w |b − ·|, into b (E. Weiszfeld 1937, Tôhoku Math. J. 43:355).
 *
 * The three points are not one: a terminal is only tried where it meets no vessel.
 */
static void find_fork(const double *p, const double *c, const double *x, double w0, double w1,
                      double w2, double *b) {
    for (int k = 0; k < 3; k++) b[k] = (w0 * p[k] + w1 * c[k] + w2 * x[k]) / (w0 + w1 + w2);
    double scale = distance(p, c) + distance(p, x);
    for (int round = 0; round < 16; round++) {
        double v0 = w0 / (distance(b, p) + 1e-6 * scale);
        double v1 = w1 / (distance(b, c) + 1e-6 * scale);
        double v2 = w2 / (distance(b, x) + 1e-6 * scale), moved = 0.0;
        for (int k = 0; k < 3; k++) {
            double to = (v0 * p[k] + v1 * c[k] + v2 * x[k]) / (v0 + v1 + v2);
            moved = larger(moved, fabs(to - b[k]));
            b[k] = to;
        }
        if (moved < 1e-3 * scale) break;
    }
}

/* Move b to where the three vessels have their least lengths; false where it cannot be. */
static bool kept_apart(const double *p, const double *c, const double *x, double *b, double at_p,
                       double at_c, double at_x) {
    const double *ends[3] = {p, c, x}, least[3] = {at_p, at_c, at_x};
    double middle[3];
    for (int k = 0; k < 3; k++) middle[k] = (p[k] + c[k] + x[k]) / 3.0;
    for (int round = 0; round < 3; round++) {
        bool too_short = false;
        for (int e = 0; e < 3; e++) {
            if (distance(b, ends[e]) >= least[e]) continue;
            too_short = true;
            double whole = distance(middle, ends[e]);
            if (whole <= least[e]) return false;
            for (int k = 0; k < 3; k++)
                b[k] = ends[e][k] + (middle[k] - ends[e][k]) * (1.01 * least[e] / whole);
        }
        if (!too_short) return true;
    }
    return distance(b, p) >= at_p && distance(b, c) >= at_c && distance(b, x) >= at_x;
}

/* Increase of the volume (over π) of a vessel and all above it by one more terminal.
 *
 * What is found on the way up stays in `known` (−1: not yet) for the other candidates.
 */
static double widening(Growth *growth, const Plan *plan, int64_t node, double scale) {
    int64_t n = 0;
    for (; node >= 0 && growth->known[node] < 0.0; node = growth->parent[node])
        growth->path[n++] = node;
    double total = node >= 0 ? growth->known[node] : 0.0;
    for (int64_t k = n - 1; k >= 0; k--) {
        node = growth->path[k];
        double before = radius_for(plan, growth->count[node], scale);
        double after = radius_for(plan, growth->count[node] + 1, scale);
        total += distance(growth->tail[node], growth->tip[node]) *
                 (after * after - before * before);
        growth->known[node] = total;
    }
    return total;
}

/* Undo what `widening` has left on the way up. */
static void forget(Growth *growth, int64_t node) {
    for (; node >= 0 && growth->known[node] >= 0.0; node = growth->parent[node])
        growth->known[node] = -1.0;
}

/* Bring the fork b nearer to the vessel as it is, which lies inside the wall. */
static bool pulled(const Growth *growth, const Plan *plan, int64_t vessel, const Site *of,
                   double pull, double *b) {
    const double *p = growth->tail[vessel], *c = growth->tip[vessel];
    double t;
    point_segment(b, p, c, &t);
    for (int k = 0; k < 3; k++) {
        double on = p[k] + t * (c[k] - p[k]);
        b[k] = on + pull * (b[k] - on);
    }
    double scale = share(growth, plan, growth->tree[vessel]);
    double r0 = radius_for(plan, growth->count[vessel] + 1, scale);
    double least = LEAST_LENGTH[of->level] * r0;
    return distance(b, p) >= least && distance(b, c) >= least && distance(b, of->x) >= 1.2 * r0;
}

/* Whether the three vessels at a fork b stay in the wall and meet no other. */
static bool fits(Growth *growth, const Grid *grid, const Wall *wall, const Plan *plan,
                 int64_t vessel, const double *b, const Site *of) {
    double scale = share(growth, plan, growth->tree[vessel]);
    int64_t below = growth->count[vessel], parent = growth->parent[vessel];
    double r0 = radius_for(plan, below + 1, scale), r1 = radius_for(plan, below, scale);
    double r2 = radius_of(scale, plan->law);
    const double *p = growth->tail[vessel], *c = growth->tip[vessel], *x = of->x;
    bool lenient = of->level > 0, conduit_above = of->conduit && growth->stage[vessel] == 1;
    return stays_inside(wall, b, x, r2, of->conduit) &&
           stays_inside(wall, p, b, r0, conduit_above) &&
           stays_inside(wall, b, c, r1, conduit_above) &&
           keeps_clear(growth, grid, b, x, r2, NOWHERE, vessel, false) &&
           keeps_clear(growth, grid, p, b, r0, parent, vessel, lenient) &&
           keeps_clear(growth, grid, b, c, r1, vessel, vessel, lenient);
}

/* Put node b into a vessel and hang the terminal on it; widen everything above. */
static void split(Growth *growth, Grid *grid, const Plan *plan, int64_t vessel, const double *b,
                  const Site *of) {
    int64_t tree = growth->tree[vessel], parent = growth->parent[vessel];
    leave_vessel(growth, grid, vessel);
    int64_t fork =
        new_node(growth, b, parent, tree, growth->stage[vessel], growth->count[vessel]);
    int64_t leaf = new_node(growth, of->x, fork, tree, of->conduit ? 1 : 2, 1);
    growth->child[parent][growth->child[parent][0] == vessel ? 0 : 1] = fork;
    growth->child[fork][0] = vessel;
    growth->child[fork][1] = leaf;
    growth->parent[vessel] = fork;
    copy_point(growth->tail[vessel], growth->tip[fork]);
    growth->taken[tree]++;
    if (tree != of->own) {
        growth->lost[of->own]++;
        growth->gained[tree]++;
    }
    growth->terminal[of->site] = leaf;
    double scale = plan->log[plan->planned[tree]] - plan->log[growth->taken[tree]];
    growth->radius[vessel] = radius_for(plan, growth->count[vessel], scale);
    growth->radius[leaf] = radius_of(scale, plan->law);
    enter_vessel(growth, grid, vessel);
    enter_vessel(growth, grid, leaf);
    for (int64_t node = fork; node >= 0; node = growth->parent[node]) {
        growth->count[node]++;
        growth->radius[node] = radius_for(plan, growth->count[node], scale);
        if (node == fork) {
            enter_vessel(growth, grid, node);
        } else if (growth->radius[node] > growth->entered[node]) {
            leave_vessel(growth, grid, node);
            enter_vessel(growth, grid, node);
        }
    }
}

/* The volume (over π) that a fork at b adds to a vessel; ∞ where it finds no place. */
static double cost_of(Growth *growth, const Plan *plan, int64_t vessel, const Site *of,
                      double *b) {
    double scale = share(growth, plan, growth->tree[vessel]), ratio = LEAST_LENGTH[of->level];
    double old = radius_for(plan, growth->count[vessel], scale);
    double r0 = radius_for(plan, growth->count[vessel] + 1, scale);
    double r2 = radius_of(scale, plan->law);
    const double *p = growth->tail[vessel], *c = growth->tip[vessel], *x = of->x;
    find_fork(p, c, x, r0 * r0, old * old, r2 * r2, b);
    if (!kept_apart(p, c, x, b, ratio * r0, ratio * r0, 1.2 * r0)) return INFINITY;
    return r0 * r0 * distance(p, b) + old * old * (distance(b, c) - distance(p, c)) +
           r2 * r2 * distance(b, x) + widening(growth, plan, growth->parent[vessel], scale);
}

/* Branch off the vessel where that adds the least volume and nothing is in the way. */
static bool branch(Growth *growth, Grid *grid, const Wall *wall, const Plan *plan, const Site *of,
                   Search *search) {
    double cost[MOST_CANDIDATES], fork[MOST_CANDIDATES][3];
    int64_t order[MOST_CANDIDATES];
    find_candidates(growth, grid, plan, of, search);
    int64_t n = search->n;
    for (int64_t m = 0; m < n; m++)
        cost[m] = cost_of(growth, plan, search->vessel[m], of, fork[m]);
    for (int64_t m = 0; m < n; m++) forget(growth, growth->parent[search->vessel[m]]);
    least_of(cost, n, order, MOST_CANDIDATES);
    for (int pull = 0; pull < 3; pull++) {
        for (int64_t k = 0; k < n && cost[order[k]] != INFINITY; k++) {
            int64_t vessel = search->vessel[order[k]];
            double b[3];
            copy_point(b, fork[order[k]]);
            if (pull > 0 && !pulled(growth, plan, vessel, of, PULLS[pull], b)) continue;
            if (!fits(growth, grid, wall, plan, vessel, b, of)) continue;
            split(growth, grid, plan, vessel, b, of);
            return true;
        }
    }
    return false;
}

/* Whether another terminal of the tree is near; what counts as near shrinks as tries go on. */
static bool crowded(const Growth *growth, const Plan *plan, const Site *of, int64_t attempt) {
    double near = plan->spread[0] * (attempt < 150 ? 0.9 : 0.6);
    for (int64_t node = growth->newest[of->own]; node >= 0; node = growth->older[node])
        if (growth->child[node][0] < 0 && distance(growth->tip[node], of->x) < near) return true;
    return false;
}

/* Move the place of a terminal to somewhere about its site, or any site of its tree. */
static void move_place(const Plan *plan, Site *of, uint64_t *seed) {
    int64_t about = of->site;
    if (ANYWHERE[of->level]) {
        /* sites are numbered tree by tree: the first one of this tree by bisection */
        int64_t first = 0, last = of->site;
        while (first < last) {
            int64_t middle = (first + last) / 2;
            if (plan->site_tree[middle] < of->own)
                first = middle + 1;
            else
                last = middle;
        }
        about = first + (int64_t)(next_fraction(seed) * (double)plan->planned[of->own]);
    }
    for (int k = 0; k < 3; k++)
        of->x[k] = plan->site[about][k] +
                   AWAY[of->level] * plan->spread[0] * (next_fraction(seed) - 0.5);
}

static bool insert_site(Growth *growth, Grid *grid, const Wall *wall, const Plan *plan, Site *of,
                        Search *search) {
    uint64_t seed = (uint64_t)(of->site * 64 + 1);
    copy_point(of->x, plan->site[of->site]);
    for (int64_t attempt = 0; attempt < PLACES[of->level]; attempt++) {
        if (attempt > 0) {
            move_place(plan, of, &seed);
            if (ANYWHERE[of->level] && crowded(growth, plan, of, attempt)) continue;
            if (trilinear(wall->clearance, wall->shape, wall->spacing, of->x) <
                radius_of(0.0, plan->law))
                continue;
        }
        double r = radius_of(share(growth, plan, of->own), plan->law);
        if (!keeps_clear(growth, grid, of->x, of->x, r, NOWHERE, NOWHERE, false)) continue;
        if (branch(growth, grid, wall, plan, of, search)) return true;
    }
    return false;
}

/* Insert the sites queue[start:stop] at a level of the search, as conduits or not.
 *
 * - headroom: free entries of the grid that one insertion may need.
 * - failed: the sites without a place; n_failed (1,): how many there are.
 *
 * Returns the next index of the queue, below `stop` where the grid is full.
 */
KERNEL int64_t insert_sites(Growth *growth, Grid *grid, const Wall *wall, const Plan *plan,
                            const int64_t *queue, int64_t start, int64_t stop, int64_t level,
                            bool conduit, int64_t headroom, int64_t *failed, int64_t *n_failed) {
    Search search;
    n_failed[0] = 0;
    for (int64_t q = start; q < stop; q++) {
        if (grid->n_entries - grid->free[1] < headroom) return q;
        Site of = {queue[q], plan->site_tree[queue[q]], level, conduit, {0.0, 0.0, 0.0}};
        if (!insert_site(growth, grid, wall, plan, &of, &search)) failed[n_failed[0]++] = of.site;
    }
    return stop;
}
