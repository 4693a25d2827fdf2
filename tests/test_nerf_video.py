"""Colours and depths as bytes that a person can read."""

from __future__ import annotations

import pytest
import torch

from nerf.video import colormap, depth_colors, depth_range, to_bytes


def test_colours_as_bytes():
    picture = to_bytes(torch.tensor([[[0.0, 1.0, 0.5], [-1.0, 2.0, 0.999]]]))
    assert picture.tolist() == [[[0, 255, 128], [0, 255, 255]]]


def test_nearer_is_brighter_and_nothing_is_black():
    depth = torch.tensor([[1.0, 1.5, 2.0, 4.0, 9.0, 1.0]])
    opacity = torch.tensor([[1.0, 1.0, 1.0, 1.0, 1.0, 0.0]])
    colours = depth_colors(depth, opacity, 1.0, 4.0)
    light = colours @ torch.tensor([0.2126, 0.7152, 0.0722])
    assert (light[0, :4].diff() < 0).all() and light[0, 3] == light[0, 4] > 0 and light[0, 5] == 0
    # Half way in disparity, 1 / d = (1 + 1/4) / 2, is half way on the map's used part.
    middle = depth_colors(torch.tensor([[1.6]]), torch.ones(1, 1), 1.0, 4.0)
    assert torch.equal(middle, colormap(torch.tensor([[0.56]])))


def test_depth_range_leaves_out_strays_and_what_is_not_seen():
    depth, opacity = torch.linspace(1, 2, 1001), torch.ones(1001)
    depth, opacity = torch.cat([depth, torch.tensor([0.0, 90.0])]), torch.cat([opacity, torch.tensor([0.0, 0.2])])
    near, far = depth_range(depth, opacity, (3.0, 4.0))
    assert near == pytest.approx(1.02, abs=1e-3) and far == pytest.approx(1.98, abs=1e-3)
    assert depth_range(depth, torch.zeros_like(depth), (3.0, 4.0)) == (3.0, 4.0)
