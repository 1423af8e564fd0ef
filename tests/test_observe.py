"""What is observed of a solution, on arrays small enough to check by hand."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from helpers import central_difference

from jaxperf.network import build_network
from jaxperf.observe import (
    branch_summary,
    coronary_flow_reserve,
    fractional_flow_reserve,
    segment_means,
)

P_AORTIC = 12000.0


def _network():
    """A main (two segments given out of order), two daughters, and a name without segments."""
    position = 1e-3 * np.array(
        [[0.0, 0, 0], [10.0, 0, 0], [30.0, 0, 0], [30.0, 40.0, 0], [60.0, 0, 0]]
    )
    return build_network(
        position,
        np.array([[2, 3], [1, 2], [0, 1], [2, 4]]),
        1e-3 * np.array([[1.0, 0.5], [1.8, 1.5], [2.0, 1.8], [1.2, 0.9]]),
        root=np.array([0]),
        frame="model",
        branch=np.array([1, 0, 0, 2]),
        branch_name=("LM", "LAD", "LCx", "RCA"),
    )


FLOW = jnp.array([1e-6, 3e-6, 3e-6, 2e-6])
PRESSURE = jnp.array(
    [[11000.0, 9000.0], [11700.0, 11500.0], [12000.0, 11800.0], [11200.0, 10000.0]]
)


def test_reserves_are_ratios():
    pressure = jnp.array([[12000.0, 9600.0]])
    np.testing.assert_allclose(fractional_flow_reserve(pressure, P_AORTIC), [[1.0, 0.8]])
    rest, stress = jnp.array([1.0, 2.0, 0.0]), jnp.array([3.0, 5.0, 1.0])
    np.testing.assert_allclose(coronary_flow_reserve(rest, stress), [3.0, 2.5, np.nan])
    slope = jax.grad(lambda r: jnp.nansum(coronary_flow_reserve(r, stress)))(rest)
    np.testing.assert_allclose(slope, [-3.0, -1.25, 0.0])


class TestSegmentMeans:
    mbf = jnp.array([1.0, 3.0, 10.0, 7.0, 8.0])
    volume = jnp.array([1.0, 3.0, 2.0, 5.0, 6.0])
    segment = jnp.array([1, 1, 3, 0, -1])

    def test_weighted_by_volume_and_nan_where_empty(self):
        found = segment_means(self.mbf, self.volume, self.segment, 4)
        np.testing.assert_allclose(found, [2.5, np.nan, 10.0, np.nan])
        assert segment_means(self.mbf, self.volume, self.segment).shape == (17,)

    def test_numbers_outside_count_nowhere(self):
        outside = jnp.array([1, 1, 3, 18, -17])
        expected = segment_means(self.mbf, self.volume, self.segment)
        np.testing.assert_array_equal(segment_means(self.mbf, self.volume, outside), expected)

    def test_gradients_beside_empty_segments(self):
        def loss(mbf, volume):
            return jnp.nansum(segment_means(mbf, volume, self.segment, 4) ** 2)

        slopes = jax.grad(loss, (0, 1))(self.mbf, self.volume)
        for i, x in enumerate((self.mbf, self.volume)):
            others = [self.mbf, self.volume]

            def of_one(x, i=i, others=others):
                return loss(*[x if j == i else other for j, other in enumerate(others)])

            expected = central_difference(of_one, x, 1e-6)
            np.testing.assert_allclose(slopes[i], expected, rtol=1e-7, atol=1e-9)

    def test_a_constant_map_has_constant_means_in_float32(self):
        volume = jnp.asarray(np.linspace(1e-9, 2e-9, 5), jnp.float32)
        means = segment_means(jnp.full(5, 2.5, jnp.float32), volume, self.segment, 3)
        assert means.dtype == jnp.float32
        np.testing.assert_allclose(means, [2.5, np.nan, 2.5], rtol=1e-6)

    def test_shapes_are_enforced(self):
        with pytest.raises(jaxtyping.TypeCheckError):
            segment_means(self.mbf, self.volume[:2], self.segment)


def test_branch_summary():
    found = branch_summary(_network(), FLOW, PRESSURE, P_AORTIC)
    assert found.branch_name == ("LM", "LAD", "LCx", "RCA")
    np.testing.assert_allclose(found.flow, [3e-6, 1e-6, 2e-6, 0.0])
    ratio = np.array([11500.0, 9000.0, 10000.0, np.nan]) / P_AORTIC
    np.testing.assert_allclose(found.ffr_min, ratio, rtol=1e-15)
    np.testing.assert_allclose(found.length, [0.03, 0.04, 0.03, 0.0], rtol=1e-14)
    np.testing.assert_allclose(found.radius_min, [1.5e-3, 0.5e-3, 0.9e-3, np.nan], rtol=1e-15)
    np.testing.assert_allclose(found.radius_max, [2e-3, 1e-3, 1.2e-3, np.nan], rtol=1e-15)


def test_branch_summary_gradient_beside_an_empty_branch():
    network = _network()

    def loss(pressure):
        return jnp.nansum(branch_summary(network, FLOW, pressure, P_AORTIC).ffr_min)

    slope = jax.grad(loss)(PRESSURE)
    expected = np.zeros((4, 2))
    expected[[0, 1, 3], 1] = 1.0 / P_AORTIC
    np.testing.assert_allclose(slope, expected, rtol=1e-15)
