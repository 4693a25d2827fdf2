"""The reference can be built, nothing public is silent, and what docstrings name is there."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

from apps import reference
from apps.reference import main
from tests.documents import PAGES, ROOT, spans
from tests.test_architecture import files

PACKAGES = ("data", "nerf", "siren", "apps")
DEFINED = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
NAME = re.compile(r"(?:data|nerf|siren|apps)(?:\.[A-Za-z_]\w*)+")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def silent(body: list[ast.stmt], where: str) -> list[str]:
    """Public classes and functions without a docstring, members too."""
    found = []
    for node in body:
        if not isinstance(node, DEFINED) or node.name.startswith("_"):
            continue
        name = f"{where}.{node.name}"
        setter = any(ast.unparse(decorator).endswith(".setter") for decorator in node.decorator_list)
        if not ast.get_docstring(node) and not setter:
            found.append(name)
        # What autograd calls by its own names is not called by anybody else.
        if isinstance(node, ast.ClassDef) and "torch.autograd.Function" not in map(ast.unparse, node.bases):
            found += silent(node.body, name)
    return found


def test_nothing_public_is_silent():
    quiet = []
    for package in PACKAGES:
        for path in files(package):
            if not path.name.startswith("_") or path.name == "__main__.py":
                quiet += silent(tree(path).body, ".".join(path.relative_to(ROOT).with_suffix("").parts))
    assert quiet == []


def members(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """What a module or a class has by name: definitions, assignments, imports, also those under an `if`."""
    found: dict[str, ast.stmt] = {}
    for node in body:
        if isinstance(node, DEFINED):
            found[node.name] = node
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {(alias.asname or alias.name).partition(".")[0]: node for alias in node.names}
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {name.id: node for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
        elif isinstance(node, ast.If):
            found |= members(node.body)
    return found


def exists(name: str) -> bool:
    """Whether a dotted name is that of a module, or of something in one."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:count])
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if file.is_file():
            break
    else:
        return False
    body = tree(file).body
    for part in parts[count:]:
        found = members(body).get(part)
        if found is None:
            return False
        if not isinstance(found, ast.ClassDef):
            return True  # what a value or a function has is not written down
        own = {node.attr for node in ast.walk(found) if isinstance(node, ast.Attribute)}
        body = [*found.body, *(ast.parse(f"{attribute} = 0").body[0] for attribute in own)]
    return True


def named_in(text: str) -> list[str]:
    """The dotted names of this project among a text's code spans, calls without what they are given."""
    return [match[0] for span in re.findall(r"`([^`\n]+)`", text) if (match := NAME.fullmatch(span.partition("(")[0]))]


def test_names_in_docstrings_and_pages_are_there():
    lost = []
    for package in PACKAGES:
        for path in files(package):
            for node in ast.walk(tree(path)):
                if isinstance(node, (*DEFINED, ast.Module)):
                    lost += [f"{path.name}: {n}" for n in named_in(ast.get_docstring(node) or "") if not exists(n)]
    for page in PAGES:
        lost += [f"{page.name}: {n}" for span in spans(page) for n in named_in(f"`{span}`") if not exists(n)]
    assert lost == []


def test_mistakes_would_be_noticed():
    assert exists("nerf.rays.sample_rays") is False and exists("nerf.model.SceneModel.codes")
    assert not exists("nerf.model.SceneModel.cods") and not exists("nerf.modle")
    assert named_in("see `nerf.modle.SceneModel(x)` and `python -m nerf.train`") == ["nerf.modle.SceneModel"]
    body = ast.parse("class A:\n    'text'\n    def f(self): pass\n    def _g(self): pass\ndef h(): pass").body
    assert silent(body, "m") == ["m.A.f", "m.h"]


def test_the_pages_are_built(tmp_path):
    # As a person starts it; here, everything that it imports would be checked for its shapes too, for twice the time.
    line = [sys.executable, "-m", "apps.reference", "--no-source", "--out", str(tmp_path / "api")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    modules = {".".join(p.relative_to(ROOT).with_suffix("").parts) for package in PACKAGES for p in files(package)}
    public = {name for name in modules if not re.search(r"\._", name) and "selfie" not in name} | set(PACKAGES)
    pages = {
        ".".join(p.relative_to(tmp_path / "api").with_suffix("").parts) for p in (tmp_path / "api").rglob("*.html")
    }
    assert public <= pages
    text = (tmp_path / "api" / "nerf" / "train.html").read_text()
    assert "yielding after every step" in text and 'href="../data/scene.html#Scene"' in text


def test_a_fault_of_a_page_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(reference, "PACKAGES", ("data.errors", "no_such_module"))
    assert main(["--no-source", "--out", str(tmp_path)]) == 2
    assert "no_such_module" in capsys.readouterr().err
