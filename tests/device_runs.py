"""Training and rendering on a device that is not the CPU: everything that they touch lies there, and little is waited for.

tests/test_nerf_device.py runs these in a process of their own.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from data.scene import load_scene
from nerf import checkpoint, trainer
from nerf.kernels.backends import Ops, load
from nerf.late import Late, Term
from nerf.picture import render_image
from nerf.presets import preset
from nerf.trainer import Trainer
from tests import elsewhere
from tests.ball import write_ball
from tests.elsewhere import Elsewhere
from tests.test_nerf_train import small

elsewhere.register()  # before anything is differentiated: autograd's threads are started once


class There(Ops):
    """The reference's ops, of a backend whose tensors lie elsewhere."""

    @property
    def device(self):
        return torch.device(elsewhere.NAME)


@pytest.fixture
def there(monkeypatch):
    """The device, where all backends run."""
    reference, device = load("reference"), Elsewhere()

    def own(name: str) -> Any:
        """The op; what the reference waits for isn't the caller's."""

        def op(*given: Any, **named: Any) -> Any:
            device.paused = True
            try:
                return getattr(reference, name)(*given, **named)
            finally:
                device.paused = False

        return op

    named = {field.name: own(field.name) for field in dataclasses.fields(Ops)}
    ops = There(**(named | {"name": "elsewhere"}))
    monkeypatch.setattr(trainer, "load", lambda name: ops)
    monkeypatch.setattr(checkpoint, "load", lambda name: ops)
    monkeypatch.setattr(trainer, "_generator", lambda device: torch.Generator())  # such devices have none of their own
    with device:
        yield device


@pytest.fixture(scope="module", params=[False, True], ids=["still", "moving"])
def scene(request, tmp_path_factory):
    return load_scene(write_ball(tmp_path_factory.mktemp("scene"), moving=request.param))


def run(scene: Any, name: str, **changes: Any) -> Trainer:
    config = preset(name, scene.moving, scene.background is not None)
    return Trainer(small(config, rays=8, **changes), scene)


def numbers_here(scene: Any, name: str, steps: int) -> list[float]:
    """A run's first losses on the CPU, with the random numbers that another device's run starts from."""
    home = run(scene, name)
    home.generator = torch.Generator().manual_seed(home.config.seed)
    return [home.advance()["color"] for _ in range(steps)]


@pytest.mark.parametrize("name", ["instant", "nerfies"])
def test_a_run_lies_there_and_gives_what_it_gives_here(request, scene, name):
    if name == "nerfies" and not scene.moving:
        pytest.skip("for moving scenes")
    steps = 6 if name == "instant" else 2  # from the fifth on, a step looks before it shades
    expected = numbers_here(scene, name, steps)
    there = request.getfixturevalue("there")
    away, found = run(scene, name), []
    for step in range(steps):
        there.waits.clear()
        found.append(away.advance()["color"])
        if name == "instant" and not scene.moving:
            # `look`, inside of it, finds how many samples there are; nothing else of a step has to be known to the host.
            ours = {wait for wait in there.waits if " in " in wait}
            assert ours <= ({"aten::_to_copy in _kept"} if step == 0 else set()), f"step {step}: {ours}"
    picture = render_image(away.model.eval(), scene.train[0].camera.scaled(0.1), scene.train[0].time)
    assert picture.rgb.device.type == picture.depth.device.type == "cpu"
    everything = [*away.model.parameters(), *away.model.buffers(), away.sampler.pixels, away.lenses]
    assert {tensor.device.type for tensor in everything if tensor.ndim} == {elsewhere.NAME}
    assert {tensor.device.type for tensor in everything if not tensor.ndim} <= {"cpu"}
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert found[1:] == pytest.approx(expected[:-1], rel=1e-4)  # read a step late


def test_numbers_come_a_step_late_from_elsewhere_and_at_once_from_here(there):
    terms = [[Term("a", torch.tensor(value), 0.25), Term("a", torch.tensor(1.0), 0.5)] for value in (2.0, 4.0)]
    late = Late()
    assert [late.exchange(part) for part in terms] == [{"a": 1.0}, {"a": 1.5}]
    away, late = [[term._replace(value=term.value.to(elsewhere.NAME)) for term in part] for part in terms], Late()
    there.waits.clear()
    assert [late.exchange(part) for part in away] == [{"a": 1.0}, {"a": 1.0}]
    assert not there.waits


def test_tensors_of_two_devices_are_an_error(there):
    x = torch.ones(3).to(elsewhere.NAME)
    with pytest.raises(RuntimeError, match="aten::add: tensors of two devices"):
        x + torch.ones(3)
    assert (x + torch.tensor(1.0)).device.type == elsewhere.NAME
    there.waits.clear()
    assert float(x.sum()) == 3 and len(x[x > 2]) == 0
    assert sum(there.waits.values()) == 2
