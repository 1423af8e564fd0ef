/* Coarse levels of a graph: aggregates, and the products that make a coarse matrix. */

#include "kernels.h"

/* Disjoint neighbourhoods of n strongly coupled control volumes; returns how many.
 *
 * In `order`, a control volume none of whose neighbours is taken yet becomes a root and takes them;
 * what is left joins the aggregate to which it is coupled most.
 *
 * - start, column, value: neighbours and couplings, by rows.
 * - aggregate (n,): filled with −1. root (n,): the first ones are set.
 * - first (n,), total (n,): scratch; total filled with 0.
 */
KERNEL int64_t aggregate_greedy(int64_t n, const int64_t *order, const int64_t *start,
                                const int32_t *column, const double *value, int64_t *aggregate,
                                int64_t *root, int64_t *first, double *total) {
    int64_t found = 0;
    for (int64_t k = 0; k < n; k++) {
        int64_t i = order[k];
        bool free = aggregate[i] < 0;
        for (int64_t t = start[i]; t < start[i + 1]; t++)
            free = free && aggregate[column[t]] < 0;
        if (!free) continue;
        aggregate[i] = found;
        for (int64_t t = start[i]; t < start[i + 1]; t++) aggregate[column[t]] = found;
        root[found++] = i;
    }
    /* What joins does so by the aggregates of the first pass, or the order would matter. A control
     * volume that was not free has a neighbour in one of them. */
    for (int64_t i = 0; i < n; i++) first[i] = aggregate[i];
    for (int64_t k = 0; k < n; k++) {
        int64_t i = order[k];
        if (first[i] >= 0) continue;
        double largest = 0.0;
        for (int64_t t = start[i]; t < start[i + 1]; t++)
            if (first[column[t]] >= 0) total[first[column[t]]] += value[t];
        for (int64_t t = start[i]; t < start[i + 1]; t++) {
            int64_t a = first[column[t]];
            if (a < 0) continue;
            if (total[a] > largest * (1.0 + 1e-9)) {
                aggregate[i] = a;
                largest = total[a];
            }
            total[a] = 0.0;
        }
    }
    return found;
}

/* (value of A, entry of P, entry of A P) for every product in A P, row by row.
 *
 * - a_entry: numbers the values of A. slot (columns of P,): scratch.
 * - source, factor, target: room for all products.
 */
KERNEL void aggregate_first(int64_t n, const int64_t *a_start, const int32_t *a_column,
                            const int32_t *a_entry, const int64_t *p_start,
                            const int32_t *p_column, const int64_t *ap_start,
                            const int32_t *ap_column, int32_t *slot, int32_t *source,
                            int32_t *factor, int32_t *target) {
    int64_t at = 0;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t v = ap_start[i]; v < ap_start[i + 1]; v++) slot[ap_column[v]] = (int32_t)v;
        for (int64_t t = a_start[i]; t < a_start[i + 1]; t++) {
            int32_t j = a_column[t];
            for (int64_t u = p_start[j]; u < p_start[j + 1]; u++, at++) {
                source[at] = a_entry[t];
                factor[at] = (int32_t)u;
                target[at] = slot[p_column[u]];
            }
        }
    }
}

/* (entry of P, entry of A P, coarse edge) for every product above the diagonal of PᵀA P.
 *
 * - t_start, t_row, t_entry: Pᵀ by rows, and which entry of P each of its entries is.
 * - c_start, c_column: coarse edges by rows. slot (n_coarse,): scratch.
 * - source, factor, target: room for those below the diagonal too. Returns how many there are.
 */
KERNEL int64_t aggregate_second(int64_t n_coarse, const int64_t *t_start, const int32_t *t_row,
                                const int32_t *t_entry, const int64_t *ap_start,
                                const int32_t *ap_column, const int64_t *c_start,
                                const int32_t *c_column, int32_t *slot, int32_t *source,
                                int32_t *factor, int32_t *target) {
    int64_t at = 0;
    for (int64_t a = 0; a < n_coarse; a++) {
        for (int64_t e = c_start[a]; e < c_start[a + 1]; e++) slot[c_column[e]] = (int32_t)e;
        for (int64_t t = t_start[a]; t < t_start[a + 1]; t++) {
            for (int64_t v = ap_start[t_row[t]]; v < ap_start[t_row[t] + 1]; v++) {
                if (ap_column[v] <= a) continue;
                source[at] = t_entry[t];
                factor[at] = (int32_t)v;
                target[at++] = slot[ap_column[v]];
            }
        }
    }
    return at;
}
