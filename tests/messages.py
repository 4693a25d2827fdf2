"""The sentences that the sources raise, with what raises them, read from the sources."""

from __future__ import annotations

import ast
import builtins
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.documents import ROOT

PACKAGES = ("data", "nerf", "siren", "apps")
GAP = "\0"  # stands where a value will


@dataclass(frozen=True)
class Message:
    """A sentence of the sources: its text with gaps, the class that is raised with it ("" for none), where it stands."""

    text: str
    raised: str
    where: str


@cache
def messages() -> tuple[Message, ...]:
    """All of them: what is raised, what `mismatch` makes, and other strings, which may be part of one."""
    found: list[Message] = []
    for path in (p for package in PACKAGES for p in sorted((ROOT / package).rglob("*.py"))):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found += _of(tree, path)
    return tuple(found)


def _of(tree: ast.Module, path: Path) -> list[Message]:
    constants = {
        name.id: str(value.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        for name, value in zip(_each(node.targets[0]), _each(node.value))
        if isinstance(name, ast.Name) and isinstance(value, ast.Constant)
    }
    found, raised = [], {}
    alone = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            raised[node.exc.args[0]] = _class(node.exc.func)
        where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "mismatch" and len(node.args) == 4:
            file, field, expected, value = (text_of(arg, constants) for arg in node.args)
            found.append(Message(f"{file}: {field}: expected {expected}, found {value}", "SceneError", where))
        elif isinstance(node, (ast.JoinedStr, ast.Constant, ast.BinOp)) and node not in alone:
            text = text_of(node, constants)
            if " " in text and len(text.replace(GAP, "")) > 12:
                found.append(Message(text, raised.get(node, ""), where))
    return found


def _each(node: ast.expr) -> list[ast.expr]:
    return node.elts if isinstance(node, ast.Tuple) else [node]


def text_of(node: ast.expr, constants: dict[str, str]) -> str:
    """What an expression's text is as far as it is written down, with gaps; constants of its module are filled in."""
    match node:
        case ast.Constant(value=str(value)):
            return value
        case ast.Constant(value=int(value)):
            return str(value)
        case ast.Name(id=name) if name in constants:
            return constants[name]
        case ast.JoinedStr(values=values):
            return "".join(text_of(value, constants) for value in values)
        case ast.FormattedValue(value=value, format_spec=None, conversion=-1):
            return text_of(value, constants)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return text_of(left, constants) + text_of(right, constants)
    return GAP


@cache
def reported() -> frozenset[str]:
    """The classes of ours that commands end with: what is caught where an error is printed for a person."""
    found: set[str] = set()
    for path in (p for package in PACKAGES for p in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ExceptHandler) and node.type is not None and node.name is not None:
                prints = [c for c in ast.walk(node) if isinstance(c, ast.Call) and ast.unparse(c.func) == "print"]
                if any("stderr" in ast.unparse(call) and node.name in ast.unparse(call) for call in prints):
                    types = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
                    found |= {_class(kind) for kind in types}
    return frozenset(found - set(vars(builtins)))  # whose words are Python's


def _class(node: ast.expr) -> str:
    """Its name, without its module's."""
    return ast.unparse(node).rpartition(".")[2]
