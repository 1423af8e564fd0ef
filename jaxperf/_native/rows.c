/* Sparse matrices laid out as rows of one width. */

#include "kernels.h"

/* Rows `mine` of a matrix into `columns` and `entries`.
 *
 * - mine (n,): rows to lay out. first: where each row of the matrix starts in `column` and `entry`.
 * - columns, entries: row r of width w starts at r * row_step, its items lie item_step apart; both
 *   hold what stands where a row is shorter. There a column refers to the row's last one: any that
 *   is near will do.
 */
KERNEL void rows_fill(int64_t n, int64_t width, int64_t row_step, int64_t item_step,
                      const int64_t *mine, const int64_t *first, const int32_t *column,
                      const int32_t *entry, int32_t *columns, int32_t *entries) {
    for (int64_t r = 0; r < n; r++) {
        int64_t start = first[mine[r]], count = first[mine[r] + 1] - start, at = r * row_step;
        for (int64_t t = 0; t < count; t++) {
            columns[at + t * item_step] = column[start + t];
            entries[at + t * item_step] = entry[start + t];
        }
        for (int64_t t = count; count > 0 && t < width; t++)
            columns[at + t * item_step] = column[start + count - 1];
    }
}
