"""The documentation is true: snippets run, commands are read by the programs that they name, names and links are there.

Every page has a folder of its own in which `data/selfie` and `data/me` are a ball that moves, `lego` one that doesn't, each
24 pixels wide, and both are learned already, so that no page needs another. What is cut short: presets are small, a training
takes STEPS steps, a film has 2 frames, a mesh is 16 cells wide, and no training but a page's first films its orbit.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import tyro

from data import formats
from data.scene import load_scene
from tests.ball import FOCAL, SIZE, look_at
from tests.documents import PAGES, ROOT, SHELL, Command, commands, fences, links, spans
from tests.examples import call, enter, main_of, write_examples

STEPS = 3
RUN = ("train.md", "render.md", "export.md")  # pages of which every command runs; elsewhere they are read
CHEAP = ("data.scene", "nerf.kernels")  # they run wherever they stand
OPTIONS = {  # of a command that runs: what is left out, with its value, and what comes instead
    "nerf.train": (("--steps", "--budget"), ("--steps", str(STEPS))),
    "nerf.render": (("--frames", "--width"), ("--frames", "2", "--width", "16")),
    "nerf.export": (("--resolution",), ()),
}
OTHERS = ("tensorboard", "ssh", "scp", "rsync", "cd", "export", "mkdir", "kill", "sudo", "ip")  # not ours to check
THEIRS = (
    "--logdir", "--nproc-per-node", "--nnodes", "--node-rank", "--max-restarts", "--standalone", "--local-addr",
    "--rdzv-backend", "--rdzv-conf", "--rdzv-endpoint", "--rdzv-id",
)  # fmt: skip


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """The folder that every page's is a copy of."""
    return write_examples(tmp_path_factory.mktemp("docs"), 100)


@pytest.fixture
def here(template, tmp_path, monkeypatch):
    """A page's own."""
    return enter(Path(shutil.copytree(template, tmp_path / "page")), monkeypatch)


class Read(Exception):
    """A command line was understood. Carries what it says."""


def read(module: str, arguments: list[str], monkeypatch, capsys):
    """What a command makes of its arguments, without doing it. Raises AssertionError with its words where it refuses them."""

    def stopping(real):
        def stop(*given, **named):
            raise Read(real(*given, **named))

        return stop

    main = main_of(module)
    with monkeypatch.context() as patch:
        patch.setattr(tyro, "cli", stopping(tyro.cli))
        patch.setattr(argparse.ArgumentParser, "parse_args", stopping(argparse.ArgumentParser.parse_args))
        try:
            call(main, arguments)
        except Read as read:
            return read.args[0]
        except SystemExit as end:
            out = capsys.readouterr()
            if "--help" in arguments:
                return out.out
            raise AssertionError(f"python -m {module} {' '.join(arguments)}: exit {end.code}: {out.err}") from None
    return None  # it takes no arguments


def shortened(module: str, arguments: list[str]) -> list[str]:
    """The arguments with OPTIONS' changes."""
    left_out, added = OPTIONS.get(module, ((), ()))
    kept = [word for k, word in enumerate(arguments) if not {word, arguments[k - 1] if k else ""} & set(left_out)]
    if module == "nerf.export" and not {"depth", "cameras"} & set(arguments):
        added = ("--resolution", "16")
    return [*kept, *added]


def existing(command: Command, options, here: Path) -> None:
    """What a command reads is there, or an example's."""
    for name in ("run", "train", "scene", "source", "path"):
        value = getattr(options, name, None)
        if isinstance(value, (str, Path)) and ":" not in str(value):
            known = (here / value).exists() or value in ("orbit", "spiral")
            assert known, f"{command.page}: {command}: {value} is not among the examples' files"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands(page, here, monkeypatch, capsys):
    films = 0
    for fence in fences(page):
        if fence.file:
            Path(fence.file).write_text(fence.text)
    for command in commands(page):
        where = f"{command.page}:{command.line}: {command}"
        _known_variables(command)
        if command.module is None or command.module == "pytest":
            _not_ours(command)
            continue
        module, arguments = command.module, command.arguments
        options = read(module, arguments, monkeypatch, capsys)
        existing(command, options, here)
        if command.variables or command.words[0] == "torchrun" or not (page.name in RUN or module in CHEAP):
            continue
        arguments = shortened(module, arguments)
        if module == "nerf.train":
            films, arguments = (
                films + 1,
                arguments if not films or "--no-video" in arguments else [*arguments, "--no-video"],
            )
            if "--resume" in arguments:  # so that there is something left
                arguments[arguments.index(str(STEPS))] = str((1 + films) * STEPS)
        try:
            code = call(main_of(module), arguments)
        except SystemExit as end:
            code = end.code
        out = capsys.readouterr()
        assert not code, f"{where}: exit {code}: {out.err[-600:]}"
        made = arguments[arguments.index("--out") + 1] if "--out" in arguments else None
        assert made is None or Path(made).exists(), f"{where}: {made} was not written"


def _known_variables(command: Command) -> None:
    """Variables that a command is given are ones that something reads."""
    sources = " ".join(p.read_text(encoding="utf-8") for p in (ROOT / "nerf").rglob("*.py"))
    for name in (word.split("=")[0] for word in command.variables):
        assert name.startswith("OMP_") or f'"{name}"' in sources, f"{command.page}: nothing reads {name}"


def _not_ours(command: Command) -> None:
    """pip's extras are in pyproject.toml; other programs are known ones."""
    if command.words[0] == "pip":
        project = (ROOT / "pyproject.toml").read_text()
        listed = project.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
        extras = re.findall(r"^(\w+) = ", listed, re.M)
        asked = [name for word in command.words for name in re.findall(r"^\.\[(.+)\]$", word)]
        assert {name for names in asked for name in names.split(",")} <= set(extras), str(command)
    elif command.module is None:
        script = command.words[0] in ("python", "python3") and (ROOT / command.words[1]).is_file()
        assert script or command.words[0] in OTHERS, f"{command.page}:{command.line}: unknown program: {command}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_snippets(page, here, monkeypatch, capsys):
    import nerf.model

    monkeypatch.setattr(nerf.model, "build_field", nerf.model.build_field)  # extend.md puts its own there
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # which these tests' annotations don't know
    names: dict[str, object] = {"__name__": page.stem}
    for fence in fences(page):
        if fence.language == "json":
            json.loads(fence.text)
        if fence.language == "python":
            text = re.sub(r"\bsteps=\d+", f"steps={STEPS}", "\n" * (fence.line - 1) + fence.text)
            exec(compile(text, str(page), "exec"), names)
    if page.name == "extend.md":
        _reader_reads(names["read"], monkeypatch)


def _reader_reads(read, monkeypatch) -> None:
    """The page's reader, in the place that the page names, reads what was written, and refuses what is amiss."""
    line = (lambda path: (path / "poses.csv").is_file(), read)
    monkeypatch.setattr(formats, "_FORMATS", (*formats._FORMATS, line))
    scene = load_scene("data/mine", split_every=0)
    assert (scene.format, len(scene.train)) == ("CSV", 8)
    camera = scene.train[3].camera
    assert (camera.fx, camera.width) == (FOCAL, SIZE)
    turn = scene.transform[:3, :3] / scene.transform[:3, :3].det().pow(1 / 3)
    expected = turn.numpy() @ look_at(np.array([2.5 * np.cos(3), 2.5 * np.sin(3), 0.8]))[:3, :3]
    np.testing.assert_allclose(camera.pose[:, :3].numpy(), expected, atol=1e-5)
    poses = Path("data/mine/poses.csv")
    poses.write_text(poses.read_text().replace("30.0", "wide", 1))
    with pytest.raises(ValueError, match=r"poses.csv: line 1: expected 13 numbers, found .*wide"):
        load_scene("data/mine")


@pytest.mark.parametrize(("page", "downscale"), [("train.md", 1), ("capture.md", 2)])
def test_what_the_selfie_says_is_what_is_printed(page, downscale):
    said = load_scene(ROOT / "data" / "selfie", downscale).summary()
    assert any(said in fence.text for fence in fences(ROOT / "docs" / page) if fence.language == "text")


def test_every_block_says_what_it_is():
    kinds = {f"{page.name}:{f.line}": f.language for page in PAGES for f in fences(page)}
    odd = {place: kind for place, kind in kinds.items() if kind not in (*SHELL, "python", "json", "text")}
    assert odd == {}, "a block that isn't checked: bash, python, json, or text for what a program prints"


def test_options_in_prose_are_options(monkeypatch, capsys):
    known: dict[str, set[str]] = {}

    def options(module: str, *sub: str) -> set[str]:
        key = " ".join([module, *sub])
        if key not in known:
            said = read(module, [*sub, "--help"], monkeypatch, capsys) or ""
            known[key] = set(re.findall(r"--[a-z][a-z0-9.-]*", said))
        return known[key]

    wrong, loose = [], []
    for page in PAGES:
        for span in spans(page):
            words = re.sub(r"[\[\]|\\]", " ", span).split()
            asked = {word for word in words if re.fullmatch(r"--[a-z][a-z0-9.-]*", word)}
            if words[:2] == ["python", "-m"] and words[2] != "pytest":
                sub = [word for word in words[3:4] if words[2] in ("siren.prior", "siren.pde") and word.isalpha()]
                wrong += [f"{page.name}: {span}: {o}" for o in asked if o not in options(words[2], *sub)]
            elif asked and words[0] not in (*OTHERS, "torchrun", "pip"):
                loose += [(page.name, span, o) for o in asked if o not in THEIRS]
    for module in (
        "nerf.train",
        "nerf.render",
        "nerf.export",
        "nerf.evaluate",
        "data.capture",
        "apps.viewer",
        "siren.fit",
    ):
        options(module)
    options("siren.prior", "complete")
    every = set().union(*known.values())
    wrong += [f"{page}: {span}: {option}" for page, span, option in loose if option not in every]
    assert wrong == []


def test_files_and_links_are_there():
    wrong = []
    for page in PAGES:
        for link in links(page):
            file = (page.parent / link.split("#")[0]).resolve()
            if not link.startswith("http") and not file.exists():
                wrong.append(f"{page.name}: {link}")
        for span in spans(page):
            named = re.fullmatch(
                r"(?:data|nerf|siren|apps|cuda|tests|docs)/[\w/.*-]+\.(?:py|cpp|cu|h|md|js|toml)", span
            )
            if named and not list(ROOT.glob(span)):
                wrong.append(f"{page.name}: {span}")
    assert wrong == []


def test_the_index_lists_every_page():
    index = set(links(ROOT / "docs" / "README.md"))
    assert {page.name for page in PAGES[1:]} - {"README.md"} <= index
    assert "docs/README.md" in links(ROOT / "README.md")


def test_mistakes_would_be_noticed(here, monkeypatch, capsys):
    with pytest.raises(AssertionError, match="--frmes"):
        read("nerf.render", ["--run", "runs/selfie", "--out", "a.png", "--frmes", "3"], monkeypatch, capsys)
    with pytest.raises(AssertionError, match="no such module"):
        read("nerf.trian", [], monkeypatch, capsys)
    with pytest.raises(AssertionError, match="not among"):
        command = Command((), ("python", "-m", "nerf.render", "--run", "runs/hand", "--out", "a.png"), "page.md", 1)
        existing(command, read("nerf.render", command.arguments, monkeypatch, capsys), here)
    with pytest.raises(AssertionError, match="unknown program"):
        _not_ours(Command((), ("pyhton", "-m", "nerf.train"), "page.md", 1))
    assert sys.modules["tyro"].cli is tyro.cli
