"""Small networks that several test files use, and a dense NumPy reference for them.

The reference starts from raw arrays and imports nothing of the package.
"""

import numpy as np


def random_tree(rng, n_segments):
    """Nodes, segments and node radii of a random tree rooted at node 0; radii fall downstream."""
    parent = np.array([int(rng.integers(0, i + 1)) for i in range(n_segments)])
    segment = np.stack([parent, np.arange(1, n_segments + 1)], axis=1)
    step = rng.standard_normal((n_segments, 3))
    step *= (rng.uniform(2e-3, 2e-2, n_segments) / np.linalg.norm(step, axis=1))[:, None]
    position = np.zeros((n_segments + 1, 3))
    radius = np.full(n_segments + 1, 2e-3)
    for i, (p, c) in enumerate(segment):
        position[c] = position[p] + step[i]
        radius[c] = radius[p] * rng.uniform(0.6, 1.0)
    return position, segment, np.maximum(radius, 2e-4)


def taper_resistance(r0, r1, length, viscosity=3.5e-3, zeta=2.0):
    """Poiseuille resistance of a linear taper, from ∫dx/A²."""
    integral = length * (r0**2 + r0 * r1 + r1**2) / (3 * np.pi**2 * r0**3 * r1**3)
    return 2 * (zeta + 2) * np.pi * viscosity * integral


def dense_steady(n_nodes, segment, resistance, quadratic, inlet, outlets, steps=60):
    """P and Q of a rigid network by a dense Newton method on all unknowns.

    `inlet` maps node to pressure; `outlets` maps node to (resistance, reference pressure).
    """
    n_segments = len(segment)
    x = np.zeros(n_nodes + n_segments)
    x[:n_nodes] = max(inlet.values())
    for _ in range(steps):
        pressure, flow = x[:n_nodes], x[n_nodes:]
        residual, jacobian = np.zeros_like(x), np.zeros((x.size, x.size))
        for e, (a, b) in enumerate(segment):
            row, q = n_nodes + e, n_nodes + e
            loss = resistance[e] * flow[e] + quadratic[e] * abs(flow[e]) * flow[e]
            residual[row] = pressure[a] - pressure[b] - loss
            jacobian[row, a], jacobian[row, b] = 1, -1
            jacobian[row, q] = -resistance[e] - 2 * quadratic[e] * abs(flow[e])
            residual[a] -= flow[e]
            residual[b] += flow[e]
            jacobian[a, q] -= 1
            jacobian[b, q] += 1
        for node, (r, reference) in outlets.items():
            residual[node] -= (pressure[node] - reference) / r
            jacobian[node, node] -= 1 / r
        for node, value in inlet.items():
            residual[node] = pressure[node] - value
            jacobian[node] = 0
            jacobian[node, node] = 1
        # rows in Pa and rows in m³/s: scale so that the dense solve keeps its digits
        size = np.abs(jacobian).max(axis=1)
        step = np.linalg.solve(jacobian / size[:, None], residual / size)
        x = x - step
        if np.abs(step[n_nodes:]).max() <= 1e-15 * np.abs(x[n_nodes:]).max():
            break
    return x[:n_nodes], x[n_nodes:]
