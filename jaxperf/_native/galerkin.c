/* The plan by which a coarse matrix follows its fine one: which products make which entry.
 *
 * Matrices are given by rows: `start` (n + 1,) says where each row's columns begin. The sizes of
 * what is found come first, by a function of their own, so that the caller makes room.
 */

#include "kernels.h"

/* How many products make A P; where each of the n rows of A P starts, into `start`.
 *
 * - slot (columns of P,): scratch, filled with −1.
 */
KERNEL int64_t galerkin_first_sizes(int64_t n, const int64_t *a_start, const int32_t *a_column,
                                    const int64_t *p_start, const int32_t *p_column, int64_t *slot,
                                    int64_t *start) {
    int64_t total = 0;
    start[0] = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t width = 0;
        for (int64_t t = a_start[i]; t < a_start[i + 1]; t++) {
            int32_t j = a_column[t];
            total += p_start[j + 1] - p_start[j];
            for (int64_t u = p_start[j]; u < p_start[j + 1]; u++) {
                if (slot[p_column[u]] != i) {
                    slot[p_column[u]] = i;
                    width++;
                }
            }
        }
        start[i + 1] = start[i] + width;
    }
    return total;
}

/* Columns of one row of A P, and in count[k + 1] how many products make its k-th entry. */
static void first_row(int64_t i, const int64_t *a_start, const int32_t *a_column,
                      const int64_t *p_start, const int32_t *p_column, int64_t begin,
                      int64_t *slot, int64_t *count, int32_t *column) {
    int64_t found = 0;
    for (int64_t t = a_start[i]; t < a_start[i + 1]; t++) {
        int32_t j = a_column[t];
        for (int64_t u = p_start[j]; u < p_start[j + 1]; u++) {
            int32_t c = p_column[u];
            /* what other rows have left in `slot` does not lead to c */
            int64_t at = slot[c] - begin;
            if (at < 0 || at >= found || column[begin + at] != c) {
                at = found++;
                slot[c] = begin + at;
                column[begin + at] = c;
            }
            count[at + 1]++;
        }
    }
}

/* Products that make A P, in the order of the entries of A P that they add up to.
 *
 * - a_entry: numbers the values of A. start: as `galerkin_first_sizes` found it.
 * - slot (columns of P,), count (longest row of A P + 1,): scratch.
 * - column: of A P. source, coefficient, target: for each product the number of A's value, the
 *   value of P, and the entry of A P.
 */
KERNEL void galerkin_first(int64_t n, const int64_t *a_start, const int32_t *a_column,
                           const int32_t *a_entry, const int64_t *p_start, const int32_t *p_column,
                           const float *p_value, const int64_t *start, int64_t *slot,
                           int64_t *count, int32_t *column, int32_t *source, float *coefficient,
                           int32_t *target) {
    int64_t done = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t begin = start[i], width = start[i + 1] - begin;
        for (int64_t k = 0; k <= width; k++) count[k] = 0;
        first_row(i, a_start, a_column, p_start, p_column, begin, slot, count, column);
        for (int64_t k = 0; k < width; k++) count[k + 1] += count[k];
        for (int64_t t = a_start[i]; t < a_start[i + 1]; t++) {
            int32_t j = a_column[t];
            for (int64_t u = p_start[j]; u < p_start[j + 1]; u++) {
                int64_t entry = slot[p_column[u]], to = done + count[entry - begin]++;
                source[to] = a_entry[t];
                coefficient[to] = p_value[u];
                target[to] = (int32_t)entry;
            }
        }
        /* Each counter now stands where the next one's products begin. */
        done += width ? count[width - 1] : 0;
    }
}

/* How many edges (k, l), k < l, PᵀA P has; where each row's edges start, into `start`.
 *
 * - r_start, r_column: Pᵀ by rows. slot (n_coarse,): scratch, filled with −1.
 */
KERNEL int64_t galerkin_edges(int64_t n_coarse, const int64_t *r_start, const int32_t *r_column,
                              const int64_t *ap_start, const int32_t *ap_column, int64_t *slot,
                              int64_t *start) {
    start[0] = 0;
    for (int64_t k = 0; k < n_coarse; k++) {
        int64_t width = 0;
        for (int64_t t = r_start[k]; t < r_start[k + 1]; t++) {
            int32_t i = r_column[t];
            for (int64_t u = ap_start[i]; u < ap_start[i + 1]; u++) {
                int32_t c = ap_column[u];
                if (c > k && slot[c] != k) {
                    slot[c] = k;
                    width++;
                }
            }
        }
        start[k + 1] = start[k] + width;
    }
    return start[n_coarse];
}

/* The columns of those edges, and how many products make each value: of the edges, then of the
 * diagonal.
 *
 * - slot (n_coarse,): scratch, filled with −1. number (edges + n_coarse,): filled with 0.
 */
KERNEL void galerkin_second_sizes(int64_t n_coarse, const int64_t *r_start,
                                  const int32_t *r_column, const int64_t *ap_start,
                                  const int32_t *ap_column, const int64_t *start, int64_t *slot,
                                  int32_t *column, int64_t *number) {
    for (int64_t k = 0; k < n_coarse; k++) {
        int64_t found = start[k];
        for (int64_t t = r_start[k]; t < r_start[k + 1]; t++) {
            int32_t i = r_column[t];
            for (int64_t u = ap_start[i]; u < ap_start[i + 1]; u++) {
                int32_t c = ap_column[u];
                if (c == k) {
                    number[start[n_coarse] + k]++;
                } else if (c > k) {
                    if (slot[c] < start[k]) {
                        slot[c] = found;
                        column[found++] = c;
                    }
                    number[slot[c]]++;
                }
            }
        }
    }
}

/* Products that make PᵀA P from A P: its upper triangle without the diagonal, then that.
 *
 * - to (edges + n_coarse + 1,): where each value's products begin; moved on.
 * - slot (n_coarse,): scratch.
 * - source, coefficient, target: for each product the entry of A P, the value of P, and the value,
 *   in the order of the values.
 */
KERNEL void galerkin_second(int64_t n_coarse, const int64_t *r_start, const int32_t *r_column,
                            const float *r_value, const int64_t *ap_start,
                            const int32_t *ap_column, const int64_t *start, const int32_t *column,
                            int64_t *to, int64_t *slot, int32_t *source, float *coefficient,
                            int32_t *target) {
    for (int64_t k = 0; k < n_coarse; k++) {
        for (int64_t e = start[k]; e < start[k + 1]; e++) slot[column[e]] = e;
        for (int64_t t = r_start[k]; t < r_start[k + 1]; t++) {
            int32_t i = r_column[t];
            for (int64_t u = ap_start[i]; u < ap_start[i + 1]; u++) {
                int32_t c = ap_column[u];
                if (c < k) continue;
                int64_t value = c == k ? start[n_coarse] + k : slot[c], at = to[value]++;
                source[at] = (int32_t)u;
                coefficient[at] = r_value[t];
                target[at] = (int32_t)value;
            }
        }
    }
}
