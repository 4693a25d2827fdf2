"""The house rules that a machine can hold: who may import whom, how long a file may be, what must not exist."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("data", "cuda", "nerf", "siren", "apps", "tests")
# Who may import what of ours, beside itself. `nerf.kernels` is a floor of its own, below `nerf`.
MAY = {
    "data": set(),
    "nerf.kernels": set(),
    "nerf": {"data", "nerf.kernels"},
    "siren": {"data", "nerf.kernels"},
    "apps": {"data", "nerf", "nerf.kernels", "siren"},
}


def files(package: str) -> list[Path]:
    return sorted(p for p in (ROOT / package).rglob("*.py") if "__pycache__" not in p.parts)


def floor_of(module: str) -> str | None:
    """The entry of MAY that a module belongs to; None: not ours."""
    if module == "nerf.kernels" or module.startswith("nerf.kernels."):
        return "nerf.kernels"
    top = module.partition(".")[0]
    return top if top in PACKAGES else None


def imports(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it, with relative ones spelled out."""
    here, found = path.relative_to(ROOT).with_suffix("").parts, set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = ".".join(here[: len(here) - node.level]) if node.level else ""
            base = ".".join(part for part in (start, node.module) if part)
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("package", ["data", "nerf", "siren", "apps"])
def test_imports_run_one_way(package):
    wrong = []
    for path in files(package):
        own = floor_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for module in imports(path):
            other = floor_of(module)
            if other is None or other == own or other in MAY[own]:
                continue
            # `from nerf.kernels import x` names `nerf.kernels.x` too: same floor. `from nerf import x` doesn't.
            wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert wrong == []


def test_the_rule_would_notice_a_wrong_import(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    (tmp_path / "nerf" / "kernels").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "bad.py").write_text("def f():\n    from nerf.model import SceneModel\n")
    with pytest.raises(AssertionError, match=r"data/bad.py imports nerf.model"):
        test_imports_run_one_way("data")
    (tmp_path / "nerf" / "kernels" / "bad.py").write_text("from ..samples import pack\n")
    with pytest.raises(AssertionError, match=r"nerf/kernels/bad.py imports nerf.samples"):
        test_imports_run_one_way("nerf")


def test_no_package_of_ours_is_called_cuda():
    # torch imports NVIDIA's namespace package of that name.
    assert list((ROOT / "cuda").rglob("*.py")) == []


@pytest.mark.parametrize("package", ["data", "nerf", "siren", "apps", "tests"])
def test_a_file_holds_one_idea(package):
    long = {str(p.relative_to(ROOT)): len(p.read_text(encoding="utf-8").splitlines()) for p in files(package)}
    assert {name: lines for name, lines in long.items() if lines > 320} == {}


@pytest.mark.parametrize("package", ["data", "nerf", "siren", "apps"])
def test_every_file_says_what_it_is(package):
    silent = []
    for path in files(package):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if tree.body and not ast.get_docstring(tree):
            silent.append(str(path.relative_to(ROOT)))
    assert silent == []


def test_shapes_are_checked_in_these_tests():
    from nerf.kernels.space import Space, to_unit

    space = Space((0.0, 0.0, 0.0), 1.0, False)
    assert to_unit(torch.zeros(4, 3), space).tolist() == [[0.5] * 3] * 4
    with pytest.raises(Exception, match="to_unit"):
        to_unit(torch.zeros(4, 2), space)
