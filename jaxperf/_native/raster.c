/* The nearest triangle in each pixel of a picture, and its colour laid over the picture. */

#include "kernels.h"

/* Pixels on an edge belong to both triangles, so that round-off opens no gap between them. */
static const double EDGE = 1e-5;

/* Enter one triangle in the pixels where it lies before what is there. */
static void cover(int64_t number, const int64_t *corner, const double (*xy)[2], const double *z,
                  int64_t width, int64_t height, double *depth, int64_t *owner,
                  double (*weight)[2]) {
    const double *a = xy[corner[0]], *b = xy[corner[1]], *c = xy[corner[2]];
    double bx = b[0] - a[0], by = b[1] - a[1], cx = c[0] - a[0], cy = c[1] - a[1];
    double area = bx * cy - by * cx;
    /* Rows count downwards, so triangles that face the viewer turn clockwise: negative area. */
    if (!(area < -1e-9))
        return;
    double low_x = fmax(ceil(fmin(fmin(a[0], b[0]), c[0]) - 0.5 - EDGE), 0.0);
    double low_y = fmax(ceil(fmin(fmin(a[1], b[1]), c[1]) - 0.5 - EDGE), 0.0);
    double high_x = fmin(floor(fmax(fmax(a[0], b[0]), c[0]) - 0.5 + EDGE), (double)width - 1.0);
    double high_y = fmin(floor(fmax(fmax(a[1], b[1]), c[1]) - 0.5 + EDGE), (double)height - 1.0);
    if (high_x < low_x || high_y < low_y)
        return;
    int64_t left = (int64_t)low_x, top = (int64_t)low_y;
    int64_t columns = (int64_t)high_x - left + 1, rows = (int64_t)high_y - top + 1;
    double x = low_x + 0.5 - a[0], y = low_y + 0.5 - a[1], over = 1.0 / area;
    /* Both weights are linear in column and row of the triangle's box. */
    double b_x = (float)(cy * over), b_y = (float)(-cx * over);
    double b_0 = (float)((x * cy - y * cx) * over);
    double c_x = (float)(-by * over), c_y = (float)(bx * over);
    double c_0 = (float)((bx * y - by * x) * over);
    double at = z[corner[0]], rise_b = z[corner[1]] - at, rise_c = z[corner[2]] - at;
    for (int64_t row = 0; row < rows; row++)
        for (int64_t column = 0; column < columns; column++) {
            double w_b = b_x * (double)column + b_y * (double)row + b_0;
            double w_c = c_x * (double)column + c_y * (double)row + c_0;
            if (w_b < -EDGE || w_c < -EDGE || w_b + w_c > 1.0 + EDGE)
                continue;
            double reached = at + w_b * rise_b + w_c * rise_c;
            int64_t pixel = (top + row) * width + left + column;
            if (reached > depth[pixel]) {
                depth[pixel] = reached;
                owner[pixel] = number;
                weight[pixel][0] = w_b;
                weight[pixel][1] = w_c;
            }
        }
}

/* Lay one surface over a picture.
 *
 * - triangle (n, 3). xy (p, 2): pixels, y downwards. z (p,): towards the viewer. shade (p, 3).
 * - depth (height, width): behind it nothing shows; the surface's own, where it shows, replaces it.
 * - owner (height, width), -1 throughout before and after, weight (height, width, 2): room to work.
 * - image (height, width, 3).
 */
KERNEL void raster_lay(int64_t n, const int64_t (*triangle)[3], const double (*xy)[2],
                       const double *z, const double (*shade)[3], double opacity, int64_t width,
                       int64_t height, double *depth, int64_t *owner, double (*weight)[2],
                       double (*image)[3]) {
    for (int64_t i = 0; i < n; i++)
        cover(i, triangle[i], xy, z, width, height, depth, owner, weight);
    for (int64_t pixel = 0; pixel < width * height; pixel++) {
        if (owner[pixel] < 0)
            continue;
        const int64_t *corner = triangle[owner[pixel]];
        double w_b = weight[pixel][0], w_c = weight[pixel][1], w_a = 1.0 - (w_b + w_c);
        for (int i = 0; i < 3; i++) {
            double colour = w_a * shade[corner[0]][i] + w_b * shade[corner[1]][i] +
                            w_c * shade[corner[2]][i];
            image[pixel][i] += opacity * (colour - image[pixel][i]);
        }
        owner[pixel] = -1;
    }
}
