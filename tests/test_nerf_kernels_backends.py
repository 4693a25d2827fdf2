"""The choice of a backend, with machines that have and lack things."""

from __future__ import annotations

import pytest
import torch

from nerf.kernels import backends, cpu
from nerf.kernels.__main__ import main
from nerf.kernels.backends import BACKENDS, BackendError, available, choose, load


@pytest.fixture(params=["", "no compiler was found"], ids=["built", "not built"])
def cpu_reason(request, monkeypatch):
    """A machine with the C++ twin, and one without."""
    monkeypatch.setattr(cpu, "why_not", lambda: request.param)
    available.cache_clear()
    yield request.param
    available.cache_clear()


def test_the_reference_is_always_there(cpu_reason):
    assert tuple(available()) == BACKENDS
    assert available()["reference"] == "" and available()["cpu"] == cpu_reason
    assert choose("reference") == ("reference", "backend reference")


def test_auto_takes_the_fastest_and_says_why_not_the_others(cpu_reason):
    chosen, line = choose()
    assert chosen == ("reference" if cpu_reason else "cpu")
    assert line.startswith(f"backend {chosen} (") and "\n" not in line
    for backend, why in available().items():
        assert (f"no {backend}: {why}" in line) == bool(why)


def test_what_was_asked_for_by_name_is_had_or_refused(cpu_reason):
    for backend in BACKENDS:
        why = available()[backend]
        if why:
            with pytest.raises(BackendError) as caught:
                choose(backend)
            assert str(caught.value) == f"--backend {backend}: {why}"
        else:
            assert choose(backend)[0] == backend


def test_unknown_names_are_listed_against():
    with pytest.raises(BackendError, match="expected auto or one of reference, cpu, cuda, tcnn, found 'metal'"):
        choose("metal")


def test_the_table_has_a_row_a_backend(cpu_reason, capsys):
    main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*BACKENDS, "auto"]
    assert lines[0].endswith("available") and lines[-1] == f"auto takes: {choose()[0]}"
    assert ("not available: " + cpu_reason in lines[1]) == bool(cpu_reason)


def test_the_references_ops_compute_what_they_are_called():
    ops = load("reference")
    x = torch.tensor([[1.0, -2.0]])
    assert ops.mlp(x, [torch.tensor([[1.0, 0.0], [0.0, 1.0]])], None, "relu", "relu").tolist() == [[1, 0]]
    light = ops.transmittance(torch.ones(2), torch.ones(2), torch.tensor([0, 2]))
    assert light.tolist() == pytest.approx([1, 0.36787944])
    assert load("reference") is ops
    assert ops.name == "reference"


def test_a_backend_that_is_not_here_is_never_silently_another():
    absent = next(name for name in reversed(BACKENDS) if available()[name])
    with pytest.raises(BackendError):
        load(absent)


def test_every_op_of_every_backend_here_is_callable():
    for name in (name for name, why in available().items() if not why):
        ops = load(name)
        assert ops.name == name
        for op in ("hash_encode", "mlp", "composite", "transmittance", "march"):
            assert callable(getattr(ops, op))
    assert backends.Ops.__dataclass_params__.frozen
