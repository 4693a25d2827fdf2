"""Presets against the papers' numbers; configurations through JSON and back, whole and broken."""

from __future__ import annotations

import dataclasses
import json

import pytest

from nerf.checkpoint import RunConfig
from nerf.config import ConfigError, LossConfig, TrainConfig, from_json, to_json
from nerf.field import HashFieldConfig, NerfFieldConfig
from nerf.kernels.space import Space
from nerf.model import Geometry, HierarchicalConfig, MarchConfig
from nerf.presets import PRESETS, preset

ALL = [(name, moving, background) for name in PRESETS for moving in (False, True) for background in (False, True)]


def test_the_nerf_preset_is_mildenhall_2020():
    c = preset("nerf", False, True)
    field, sampling, adam = c.model.field, c.model.sampling, c.optimizer
    assert isinstance(field, NerfFieldConfig) and isinstance(sampling, HierarchicalConfig)
    assert c.rays == 4096  # section 5.3: "a batch size of 4096 rays"
    assert c.samples == 0  # ... each
    assert sampling.coarse == 64  # "N_c = 64 coordinates in the coarse volume"
    assert sampling.fine == 128  # "N_f = 128 additional coordinates in the fine volume"
    assert sampling.last == 1e10  # the authors' code
    assert adam.rate == 5e-4  # "a learning rate that begins at 5 x 10^-4"
    assert adam.rate * adam.final == pytest.approx(5e-5)  # "and decays exponentially to 5 x 10^-5"
    assert adam.beta1 == 0.9  # "beta_1 = 0.9"
    assert adam.beta2 == 0.999  # "beta_2 = 0.999"
    assert adam.eps == 1e-7  # "epsilon = 10^-7"
    assert 100_000 <= c.steps <= 300_000  # "around 100-300k iterations"
    assert field.width == 256  # figure 7
    assert field.depth == 8  # "8 fully-connected ReLU layers"
    assert field.skip == 5  # "to the fifth layer's activation"
    assert field.color_width == 128  # "128 channels"
    assert field.position_bands == 10  # section 5.1: "L = 10 for gamma(x)"
    assert field.direction_bands == 4  # "L = 4 for gamma(d)"
    assert field.density_activation == "relu"  # "a ReLU to ensure that the output density is nonnegative"
    assert field.noise == 0  # synthetic scenes have none
    assert preset("nerf", False, False).model.field.noise == 1  # appendix A: "zero mean and unit variance", real scenes
    assert c.model.warp is None and c.model.appearance == 0
    assert (c.loss.elastic, c.loss.background, c.loss.distortion) == (0, 0, 0)


def test_the_nerfies_preset_is_park_2021():
    c = preset("nerfies", True, False)
    field, sampling, warp, adam = c.model.field, c.model.sampling, c.model.warp, c.optimizer
    assert c.steps == 100_000  # google/nerfies, configs/gpu_vrig_paper.gin: max_steps
    assert c.rays == 6144  # section 4: a batch of 6144 rays
    assert sampling.coarse == 128  # gin: num_coarse_samples
    assert sampling.fine == 128  # gin: num_fine_samples
    assert field.position_bands == 8  # gin: num_nerf_point_freqs
    assert field.direction_bands == 4  # gin: num_nerf_viewdir_freqs
    assert field.density_activation == "softplus"  # gin: sigma_activation
    assert field.width == 256 and field.depth == 8
    assert field.skip == 4  # modules.py: skips (4,)
    assert warp.kind == "se3"  # section 3.1
    assert warp.bands == 8  # gin: num_warp_freqs
    assert warp.code == 8  # section 4: latent codes of 8
    assert warp.width == 128  # warping.py: trunk_width
    assert warp.depth == 6  # warping.py: trunk_depth
    assert warp.skip == 4  # warping.py: skips
    assert c.model.appearance == 8
    assert c.loss.elastic == 1e-3  # section 3.3: lambda
    assert c.loss.background == 1  # section 3.4
    assert c.loss.background_points == 16384  # gin: background_points_batch_size
    assert c.loss.anneal * c.steps == 80_000  # section 3.5: N = 80k
    assert c.loss.anneal_from == 0
    assert c.loss.elastic_points == 0  # all of them
    assert [share * c.steps for share in c.loss.elastic_decay] == [
        50_000,
        150_000,
    ]  # gin: constant for 50k, then a cosine over 100k
    assert adam.rate == 1e-3
    assert adam.rate * adam.final**2 == pytest.approx(1e-4)  # falls to a tenth over 200k, of which 100k are trained
    assert (adam.beta1, adam.beta2, adam.eps) == (0.9, 0.999, 1e-8)  # flax's Adam


def test_the_instant_preset_moves_only_where_the_scene_does():
    still, moving = preset("instant", False, True), preset("instant", True, False)
    assert isinstance(still.model.field, HashFieldConfig) and isinstance(still.model.sampling, MarchConfig)
    assert still.model.warp is None and still.model.appearance == 0 and still.loss == LossConfig()
    assert moving.model.warp is not None and moving.model.appearance > 0 and moving.loss.elastic > 0
    assert preset("auto", True, False) == moving and preset("auto", False, True) == still
    adam = still.optimizer  # Mueller et al. 2022, section 4; the rate is ours, tuned for short runs
    assert (adam.beta1, adam.beta2, adam.eps) == (0.9, 0.99, 1e-15)


def test_other_presets_are_refused():
    with pytest.raises(ValueError, match="--preset: expected one of auto, instant, nerf, nerfies, found 'fast'"):
        preset("fast", False, False)


@pytest.mark.parametrize("name, moving, background", ALL)
def test_presets_come_back_from_json_as_they_were(name, moving, background):
    config = dataclasses.replace(preset(name, moving, background), scene="data/selfie", budget=300.0, steps=None)
    text = to_json(config)
    assert from_json(TrainConfig, text, "config.json") == config
    assert to_json(from_json(TrainConfig, text, "config.json")) == text


def altered(value):
    """A configuration in which no number, word or tuple is what it was."""
    match value:
        case bool() | None:
            return value
        case int() | float():
            return value * 2 + 1
        case str():
            return value + " größer"
        case tuple():
            return tuple(map(altered, value))
    fields = dataclasses.fields(value)
    return dataclasses.replace(value, **{f.name: altered(getattr(value, f.name)) for f in fields})


@pytest.mark.parametrize("name", ["instant", "nerfies"])
def test_every_field_comes_back_changed(name):
    config = altered(dataclasses.replace(preset(name, True, False), scene="x"))
    assert config.model.warp.kind == "se3 größer" and config.optimizer.beta1 == 2.8
    found = from_json(TrainConfig, to_json(config), "x")
    assert found == config
    assert type(found.model.warp.width) is int and type(found.optimizer.rate) is float


def test_a_run_comes_back_with_its_geometry_to_the_last_bit():
    subject = Space((0.0, 0.1, 0.2), 0.5, True)
    geometry = Geometry(Space((0.1, 1 / 3, -1e-17), 2 / 3, True), 0.1, 1e4, 3.3, None, subject, (0.0, 1 / 7, 1.0))
    run = RunConfig(preset("nerfies", True, False), geometry)
    found = from_json(RunConfig, to_json(run), "config.json")
    assert found == run and isinstance(found.geometry.space, Space)


def change(path: str, value: object) -> str:
    """A saved preset with one field replaced, or taken away where `value` is ...; path as "model.field.width"."""
    tree = json.loads(to_json(dataclasses.replace(preset("nerfies", True, False), scene="s")))
    *way, last = path.split(".")
    at = tree
    for step in way:
        at = at[step]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return json.dumps(tree)


@pytest.mark.parametrize(
    "path, value, words",
    [
        ("rays", ..., ["TrainConfig", "rays", "missing"]),
        ("model.field.width", ..., ["model", "field", "NerfFieldConfig", "width"]),
        ("speed", 3, ["TrainConfig", "speed", "unknown"]),
        ("model.warp.twist", 3, ["model", "warp", "WarpConfig", "twist"]),
        ("rays", "many", ["rays", "int", "'many'"]),
        ("rays", 1.5, ["rays", "int", "1.5"]),
        ("rays", True, ["rays", "int", "True"]),
        ("seed", None, ["seed", "int", "None"]),
        ("optimizer.rate", "fast", ["optimizer", "rate", "float", "'fast'"]),
        ("optimizer.rate", False, ["optimizer", "rate", "float", "False"]),
        ("optimizer", 5, ["optimizer", "OptimizerConfig", "5"]),
        ("scene", 5, ["scene", "str", "5"]),
        ("model.warp.kind", 5, ["model", "warp", "kind", "str", "5"]),
        ("model.field", [1], ["model", "field", "[1]"]),
    ],
)
def test_what_is_amiss_is_named(path, value, words):
    with pytest.raises(ConfigError) as caught:
        from_json(TrainConfig, change(path, value), "runs/x/config.json")
    message = str(caught.value)
    assert message.startswith("runs/x/config.json: ") and "expected" in message and "found" in message
    assert "\n" not in message
    for word in words:
        assert word in message


def test_another_class_is_named():
    text = change("rays", 1).replace("NerfFieldConfig", "VoxelFieldConfig")
    with pytest.raises(
        ConfigError, match=r"x: model: field: expected .* HashFieldConfig or NerfFieldConfig, found 'VoxelFieldConfig'"
    ):
        from_json(TrainConfig, text, "x")


@pytest.mark.parametrize("text", ["", "{", '{"a": 1,}', "[1, 2]", "null", "3", '"TrainConfig"'])
def test_what_isnt_a_configuration_is_said(text):
    with pytest.raises(ConfigError, match=r"^broken.json: expected"):
        from_json(TrainConfig, text, "broken.json")


@pytest.mark.parametrize("center", [[0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, "a", 0.0], 0.0], ids=str)
def test_tuples_have_their_length(center):
    space = Space((0.5, 0.0, 0.0), 1.0, True)
    geometry = Geometry(space, 0.1, 10.0, 3.0, (1.0, 1.0, 1.0), space, (0.0,))
    tree = json.loads(to_json(geometry))
    tree["space"]["center"] = center
    with pytest.raises(ConfigError, match=r"^g.json: space: center"):
        from_json(Geometry, json.dumps(tree), "g.json")
