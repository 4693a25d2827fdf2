"""Networks saved, loaded, and spoiled."""

from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from nerf.kernels import load
from siren.loop import FitError
from siren.network import Siren, SirenConfig
from siren.store import load_network, save_network

CONFIG = SirenConfig(inputs=3, outputs=2, width=8, layers=2, omega=20.0, first_omega=7.0)
ABOUT = {"kind": "sound", "rate": 8000, "names": ["left", "right"], "scale": 0.5}


def siren(seed: int = 0) -> Siren:
    return Siren(CONFIG, generator=torch.Generator().manual_seed(seed))


def points() -> torch.Tensor:
    return torch.rand(50, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_a_round_trip_keeps_every_bit(tmp_path):
    path = tmp_path / "deep" / "network.safetensors"
    size = save_network(path, siren(), ABOUT)
    assert size == path.stat().st_size
    found, about = load_network(path)
    assert about == ABOUT and found.config == CONFIG
    assert torch.equal(found(points()), siren()(points()))
    assert os.listdir(path.parent) == ["network.safetensors"]
    if os.name == "posix":
        assert path.stat().st_mode & 0o444 == 0o444 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize(("dtype", "bits"), [("float16", 11), ("bfloat16", 8)])
def test_half_sizes_round_to_their_precision(tmp_path, dtype, bits):
    path = tmp_path / "n.safetensors"
    whole = save_network(path, siren(), ABOUT)
    weights = load_file(path)
    assert save_network(path, siren(), ABOUT, dtype) < whole
    assert {str(value.dtype) for value in load_file(path).values()} == {f"torch.{dtype}"}
    found, _ = load_network(path)
    for name, value in found.state_dict().items():
        assert value.dtype == torch.float32
        # Half a unit in the last place; the absolute part is for float16's subnormals.
        assert ((value - weights[name]).abs() <= weights[name].abs() * 2.0**-bits + 2.0**-25).all()


def test_equal_networks_are_equal_files_and_random_numbers_stay(tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for name in ("a", "b"):
        save_network(tmp_path / name, siren(), ABOUT)
        load_network(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert torch.equal(before, torch.get_rng_state())


def test_the_kernels_asked_for_are_used(tmp_path):
    save_network(tmp_path / "n", siren(), {})
    ops = load("reference")
    assert load_network(tmp_path / "n", ops)[0].ops is ops


def test_what_can_not_be_saved_is_refused_and_the_old_file_stays(tmp_path):
    path = tmp_path / "n"
    save_network(path, siren(), ABOUT)
    old = path.read_bytes()
    large, broken = siren(), siren()
    with torch.no_grad():
        large.weights[1][0, 0] = 1e6
        broken.biases[0][3] = torch.nan
    for bad, about, dtype, word in [
        (large, ABOUT, "float16", "weights.1"),
        (broken, ABOUT, "float32", "biases.0"),
        (siren(), {"x": {1, 2}}, "float32", "about"),
        (siren(), {"x": float("nan")}, "float32", "about"),
        (siren(), ABOUT, "float8", "dtype"),
    ]:
        with pytest.raises(FitError, match=word):
            save_network(path, bad, about, dtype)
    assert path.read_bytes() == old
    (tmp_path / "file").write_text("x")
    with pytest.raises(FitError, match="can be written"):
        save_network(tmp_path / "file" / "n", siren(), ABOUT)


def spoiled(path, change) -> None:
    """Write a good network, then again after `change(tensors, metadata)`."""
    save_network(path, siren(), ABOUT)
    with safe_open(path, "pt") as file:
        metadata = json.loads(file.metadata()["siren"])
    tensors = load_file(path)
    result = change(tensors, metadata)
    save_file(tensors, path, result if isinstance(result, dict) else {"siren": json.dumps(metadata)})


def setting(name, value):
    return lambda tensors, metadata: metadata["config"].__setitem__(name, value)


def tensor(name, change):
    return lambda tensors, metadata: tensors.__setitem__(name, change(tensors[name]))


CHANGES = {
    "no metadata": (lambda t, m: {"other": "1"}, "metadata"),
    "not JSON": (lambda t, m: {"siren": "{"}, "JSON"),
    "a list": (lambda t, m: {"siren": "[]"}, "config"),
    "about is a list": (lambda t, m: m.__setitem__("about", []), "about"),
    "no width": (lambda t, m: m["config"].pop("width") and None, "width"),
    "unknown field": (setting("depth", 3), "depth"),
    "text": (setting("width", "8"), "width"),
    "true": (setting("width", True), "width"),
    "half a layer": (setting("layers", 2.5), "layers"),
    "no layers": (setting("layers", 0), "layers"),
    "negative omega": (setting("omega", -1.0), "omega"),
    "infinite omega": (setting("first_omega", float("inf")), "first_omega"),
    "giant": (setting("width", 10**12), "expected shape"),
    "endless": (setting("layers", 10**12), "layers"),
    "omega of next to nothing": (setting("omega", 1e-300), "omega"),
    "huge omega": (setting("omega", 10**400), "config"),
    "missing tensor": (lambda t, m: t.pop("biases.1") is None or None, "biases.1"),
    "extra tensor": (lambda t, m: t.__setitem__("more", torch.zeros(1)), "more"),
    "another shape": (tensor("weights.1", lambda w: w[:, :4].contiguous()), "weights.1"),
    "another type": (tensor("weights.1", lambda w: w.double()), "float64"),
    "integers": (tensor("weights.1", lambda w: w.int()), "int32"),
    "NaN": (tensor("biases.2", lambda b: b * torch.nan), "biases.2"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_spoiled_files_are_refused_in_a_sentence(tmp_path, name):
    change, word = CHANGES[name]
    path = tmp_path / "n.safetensors"
    spoiled(path, change)
    with pytest.raises(FitError) as error:
        load_network(path)
    sentence = str(error.value)
    assert sentence.startswith(f"{path}: ") and word in sentence and "expected" in sentence and "\n" not in sentence


def test_broken_files_are_refused(tmp_path):
    path = tmp_path / "n.safetensors"
    with pytest.raises(FitError, match="found none"):
        load_network(path)
    with pytest.raises(FitError, match="a folder"):
        load_network(tmp_path)
    save_network(path, siren(), ABOUT)
    whole = path.read_bytes()
    odd = whole.replace(b'"dtype":"F32"', b'"dtype":"\\n "')  # the library's sentence would have two lines
    for broken in (b"", whole[:5], whole[:100], whole[:-1], whole + b"x", b"\xff" * 64, odd):
        path.write_bytes(broken)
        with pytest.raises(FitError, match="whole safetensors file") as error:
            load_network(path)
        assert "\n" not in str(error.value)
