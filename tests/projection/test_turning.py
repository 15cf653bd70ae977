"""Maps laid onto others: only what the two share decides, and nothing but the whole is moved."""

import numpy as np
import pytest

from stage3.projection import layouts

XY = np.random.default_rng(0).normal(size=(30, 2)) * [3.0, 1.0]
TURN = np.array([[0.6, -0.8], [0.8, 0.6]])  # no mirror, so that it is not its own transpose


def test_only_shared_panels_decide_and_all_are_moved():
    shared = np.arange(30) % 3 > 0
    onto = 0.5 * XY @ TURN + [4.0, -7.0]
    wrong = np.where(shared[:, None], onto, np.nan)
    found = layouts.aligned(XY, wrong, shared)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, onto, atol=1e-5)
    # not one point onto another: distances among all keep their ratio
    apart = np.linalg.norm(XY[0] - XY[1:], axis=1)
    np.testing.assert_allclose(np.linalg.norm(found[0] - found[1:], axis=1), apart / 2, rtol=1e-5)


def test_without_a_direction_there_is_a_move_and_without_a_panel_nothing():
    one = np.arange(30) == 4
    found = layouts.aligned(XY, XY + np.array([1.0, 2.0]), one)
    np.testing.assert_allclose(found, XY + np.array([1.0, 2.0]), atol=1e-5)
    np.testing.assert_allclose(layouts.aligned(XY, XY + 1, np.zeros(30, bool)), XY, atol=1e-6)
    assert layouts.aligned(XY[:0], XY[:0]).shape == (0, 2)


@pytest.mark.parametrize("signs", [(1, 1), (-1, 1), (1, -1), (-1, -1)])
@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_axes_are_exchanged_and_mirrored_and_never_turned(order, signs):
    onto = XY[:, order] * np.array(signs) + [5.0, -3.0]
    onto[3:9] = np.nan
    onto[20:] += 0.05 * np.random.default_rng(1).normal(size=(10, 2))
    np.testing.assert_allclose(layouts.oriented(XY, onto), XY[:, order] * np.array(signs), rtol=1e-6)


def test_where_nothing_is_known_the_axes_stay():
    np.testing.assert_allclose(layouts.oriented(XY, np.full((30, 2), np.nan)), XY, rtol=1e-6)


def test_a_sample_holds_each_group_s_share_in_ascending_rows():
    groups = np.array([1, 0, 1, 1, 0, 1, 1, 1])  # two of 0 in rows 1 and 4, six of 1
    assert layouts.stratified(groups, 4).tolist() == [2, 4, 5, 7]
    assert layouts.stratified(groups, 3).tolist() == [3, 4, 6]  # the middles of three equal parts: 1.3, 4 and 6.7
    assert layouts.stratified(groups, 8).tolist() == list(range(8))
    assert layouts.stratified(groups, 9).tolist() == list(range(8))
