"""The fields against the papers' figures: numbers of parameters, where the position enters again, what colour sees."""

from __future__ import annotations

import math

import pytest
import torch

from nerf.field import HashField, HashFieldConfig, NerfField, NerfFieldConfig, build_field
from nerf.kernels.frame import ask, reference_steps
from nerf.kernels.space import Space, to_unit

SPACE = Space((0.5, -0.5, 1.0), 2.0, False)
TINY = HashFieldConfig(levels=3, features=2, log2_rows=9, base_resolution=4, finest_resolution=30, width=16)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points(count: int = 20, seed: int = 0) -> torch.Tensor:
    return (torch.rand(count, 3, generator=generator(seed)) * 2 - 1) * SPACE.half + torch.tensor(SPACE.center)


def directions(count: int = 20, seed: int = 1) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(count, 3, generator=generator(seed)), dim=-1)


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_nerfs_network_has_the_papers_parameters():
    # Figure 7, inputs of 63 and 27 numbers; a layer of i inputs and o outputs has (i + 1) o parameters.
    layers = [(63, 256)] + [(256, 256)] * 4 + [(256 + 63, 256)] + [(256, 256)] * 2  # eight, the skip after the fifth
    layers += [(256, 1), (256, 256), (256 + 27, 128), (128, 3)]  # density, features, view branch, colour
    assert sum((i + 1) * o for i, o in layers) == 595_844  # that of the authors' released model
    assert parameters(NerfField(NerfFieldConfig(), SPACE)) == 595_844


def test_nerfies_network_has_its_skip_before_the_fifth_layer_and_codes_at_the_colour():
    layers = [(51, 256)] + [(256, 256)] * 3 + [(256 + 51, 256)] + [(256, 256)] * 3
    layers += [(256, 1), (256, 256), (256 + 27 + 8, 128), (128, 3)]
    config = NerfFieldConfig(skip=4, position_bands=8, density_activation="softplus")
    assert parameters(NerfField(config, SPACE, appearance=8)) == sum((i + 1) * o for i, o in layers)


@pytest.mark.parametrize("skip", [4, 5])
def test_the_position_enters_again_at_the_skip_and_nowhere_else(skip):
    field = NerfField(NerfFieldConfig(width=32, color_width=16, skip=skip), SPACE, generator=generator())
    x = points()
    with torch.no_grad():
        field.trunk.weights[0].zero_()  # cut the way through the first layer
        through = field.density(x)[1]
        assert through.std(0).max() > 0
        field.trunk.weights[skip][:, -63:] = 0  # and the one through the skip
        assert field.density(x)[1].std(0).max() == 0


def nerf_slowly(field: NerfField, x: torch.Tensor, d: torch.Tensor, code: torch.Tensor) -> tuple[list, list]:
    """Figure 7 row by row, from the field's own matrices."""

    def wave(v, bands):
        return [*v, *(f(2**k * math.pi * c) for k in range(bands) for f in (math.sin, math.cos) for c in v)]

    def linear(network, k, h):
        return [
            sum(w * v for w, v in zip(row, h)) + b
            for row, b in zip(network.weights[k].tolist(), network.biases[k].tolist())
        ]

    densities, colours = [], []
    for p, u, a in zip(x.tolist(), d.tolist(), code.tolist()):
        inputs = wave([(v - c) / SPACE.half for v, c in zip(p, SPACE.center)], field.config.position_bands)
        h = inputs
        for k in range(field.config.depth):
            if k == field.config.skip:
                h = h + inputs
            h = [max(v, 0.0) for v in linear(field.trunk, k, h)]
        densities.append(max(linear(field.density_head, 0, h)[0], 0.0) / SPACE.half)
        view = linear(field.bottleneck, 0, h) + wave(u, field.config.direction_bands) + a
        view = [max(v, 0.0) for v in linear(field.color_head, 0, view)]
        colours.append([1 / (1 + math.exp(-v)) for v in linear(field.color_head, 1, view)])
    return densities, colours


def test_density_and_colour_are_those_of_figure_7():
    config = NerfFieldConfig(width=12, depth=4, skip=2, color_width=6, position_bands=3, direction_bands=2)
    field = NerfField(config, SPACE, 2, generator=generator(3))
    x, d, code = points(6), directions(6), torch.randn(6, 2, generator=generator(2))
    density, features = field.density(x)
    expected = nerf_slowly(field, x, d, code)
    assert any(v > 0 for v in expected[0])
    assert density.tolist() == pytest.approx(expected[0], abs=1e-5)
    torch.testing.assert_close(field.color(features, field.view(d, code)), torch.tensor(expected[1]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("activation", ["relu", "softplus"])
def test_density_is_per_scene_unit_and_noise_comes_before_the_activation(activation):
    config = NerfFieldConfig(width=8, depth=2, skip=1, color_width=4, density_activation=activation)
    field = NerfField(config, SPACE, generator=generator())
    with torch.no_grad():
        field.density_head.weights[0].zero_()
        field.density_head.biases[0].fill_(0.75)
    noise = torch.tensor([0.0, 2.0, -2.0])
    raw = [0.75, 2.75, -1.25]
    expected = [max(v, 0) if activation == "relu" else math.log1p(math.exp(v)) for v in raw]
    density, _ = field.density(points(3), noise)
    assert density.tolist() == pytest.approx([v / SPACE.half for v in expected], rel=1e-6)


@pytest.mark.parametrize("config", [NerfFieldConfig(width=16, color_width=8), TINY], ids=["nerf", "hash"])
def test_density_is_the_same_from_everywhere_and_colour_is_not(config):
    field = build_field(config, SPACE, 3, generator=generator())
    x, code = points(1).expand(20, 3), torch.randn(20, 3, generator=generator(4))
    with torch.no_grad():
        if config is TINY:
            field.grid.table.mul_(1e4)
        density, features = field.density(x)
        assert density.std() <= 1e-6 * density.mean()
        still = field.view(directions(1).expand(20, 3), code[:1].expand(20, 3))
        for view in (field.view(directions(), code[:1].expand(20, 3)), field.view(directions(1).expand(20, 3), code)):
            rgb = field.color(features, view)
            assert rgb.std(0).min() > 1e-4 and rgb.min() >= 0 and rgb.max() <= 1
        assert field.color(features, still).std(0).max() < 1e-6


def test_the_hash_field_is_exp_of_its_first_feature():
    biased = HashFieldConfig(**{**TINY.__dict__, "density_bias": 1.5})
    field = HashField(biased, SPACE, generator=generator())
    x = points(50)
    raw = field.density_network(field.grid((x - torch.tensor(SPACE.center)) / (2 * SPACE.half) + 0.5))
    density, features = field.density(x)
    assert density.tolist() == pytest.approx([math.exp(v + 1.5) / SPACE.half for v in raw[:, 0].tolist()], rel=1e-5)
    torch.testing.assert_close(features, raw)


@pytest.mark.parametrize("raw", [-200.0, -15.0, 0.0, 15.0, 20.0, 80.0, 500.0])
def test_wild_densities_stay_finite_and_their_gradients_bounded(raw):
    field = HashField(TINY, SPACE, generator=generator())
    with torch.no_grad():
        field.density_network.weights[-1].zero_()
        field.density_network.biases[-1][0] = raw
    density, _ = field.density(points(3))
    density.sum().backward()
    slope = float(field.density_network.biases[-1].grad[0]) * SPACE.half / 3
    assert torch.isfinite(density).all()
    assert slope == pytest.approx(math.exp(min(max(raw, -15), 15)), rel=1e-5)
    if raw <= 60:
        assert density[0].item() == pytest.approx(math.exp(raw) / SPACE.half, rel=1e-5)


def test_a_hash_field_learns_a_ball():
    field = HashField(TINY, SPACE, generator=generator())
    optimizer = torch.optim.Adam(field.parameters(), 1e-2)
    g = generator(8)
    for _ in range(150):
        x = (torch.rand(512, 3, generator=g) * 2 - 1) * SPACE.half
        wanted = (x.norm(dim=-1) < 1.2).float()
        inside = 1 - torch.exp(-field.density(x + torch.tensor(SPACE.center))[0])
        loss = torch.nn.functional.binary_cross_entropy(inside.clamp(1e-5, 1 - 1e-5), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    radius = torch.linspace(0, 2, 200)
    found = 1 - torch.exp(-field.density(directions(200, 9) * radius[:, None] + torch.tensor(SPACE.center))[0])
    right = ((found > 0.5) == (radius < 1.2)).float().mean()
    assert right > 0.93


def test_gradients_reach_every_parameter():
    for config in (NerfFieldConfig(width=16, color_width=8), TINY):
        field = build_field(config, SPACE, 2, generator=generator())
        x = points(400).requires_grad_()
        density, features = field.density(x)
        view = field.view(directions(400), torch.randn(400, 2, generator=generator(1)))
        (density.sum() + field.color(features, view).sum()).backward()
        assert all(p.grad is not None and p.grad.any() for p in field.parameters())
        assert torch.isfinite(x.grad).all() and x.grad.any()


@pytest.mark.parametrize("detail", [0.0, 1.0, 2.4])
def test_a_grids_detail_is_its_levels_let_in_one_after_another(detail):
    field = HashField(TINY, SPACE, generator=generator())
    torch.nn.init.normal_(field.grid.table, generator=generator(3))
    x = points()
    shares = [0.5 * (1 - math.cos(math.pi * min(max(detail - level, 0), 1))) for level in range(TINY.levels)]
    expected = HashField(TINY, SPACE, generator=generator())
    expected.load_state_dict(field.state_dict())
    offsets = field.grid.geometry.offsets
    with torch.no_grad():
        for level, share in enumerate(shares):
            expected.grid.table[offsets[level] : offsets[level + 1]] *= share
    field.detail.fill_(detail)
    torch.testing.assert_close(field.density(x)[0], expected.density(x)[0])
    # What the kernels without gradients are given says the same.
    features = ask(to_unit(x, SPACE), field.grid_field(), reference_steps())[1]
    torch.testing.assert_close(features, expected.density(x)[1])
    full = HashField(TINY, SPACE, generator=generator())
    full.load_state_dict({**field.state_dict(), "detail": torch.tensor(3.0)})
    assert not torch.allclose(features, full.density(x)[1])


def test_nerfs_detail_is_its_frequency_bands_let_in():
    config = NerfFieldConfig(width=16, depth=3, skip=1, color_width=8, position_bands=3)
    field, expected = (NerfField(config, SPACE, generator=generator()) for _ in range(2))
    with torch.no_grad():
        expected.trunk.weights[0][:, 3 + 6 :] = 0  # x, then the first band's sines and cosines
        expected.trunk.weights[1][:, 16 + 3 + 6 :] = 0
    field.detail.fill_(1.0)
    torch.testing.assert_close(field.density(points())[0], expected.density(points())[0])
