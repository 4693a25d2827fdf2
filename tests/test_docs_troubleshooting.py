"""The troubleshooting page is of this code: its sentences are in the sources, and what commands say is on it."""

from __future__ import annotations

import re
from functools import cache

import pytest

from tests.documents import ROOT
from tests.examples import call, enter, main_of, write_examples
from tests.messages import GAP, Message, messages, reported

PAGE = ROOT / "docs" / "troubleshooting.md"
PLACEHOLDER = re.compile(r"\.\.\.|\b[A-Z][A-Z]*\b")
SUBCLASSES = ("CaptureError", "TcnnError")  # caught as SceneError and BackendError


def entries() -> list[str]:
    """The sentences in the first cells of the page's tables."""
    rows = re.findall(r"^\| (`.*?`) \|", PAGE.read_text(encoding="utf-8"), re.M)
    return [sentence for row in rows for sentence in re.findall(r"`([^`]+)`", row)]


@cache
def pattern(sentence: str, gap: str) -> re.Pattern[str]:
    """A sentence with its placeholders as what `gap` says; or as they are, since some capitals are no placeholders."""
    spelt = re.sub(r"^[A-Z.]+: ", "", sentence)  # what stands first is the file or the place, in most of them
    parts = re.split(f"({PLACEHOLDER.pattern})", spelt)
    return re.compile(
        "".join(re.escape(p) if k % 2 == 0 else f"(?:{re.escape(p)}|{gap})" for k, p in enumerate(parts)), re.S
    )


def says(message: Message, sentence: str) -> bool:
    """Whether a sentence is one of the sources': word for word but for its placeholders, where the sources have gaps."""
    fixed = max(PLACEHOLDER.split(sentence), key=len)
    assert len(fixed) >= 10, f"{sentence}: too little of it stands in the sources as it is"
    return fixed in message.text and bool(pattern(sentence, rf"[^{GAP}]{{0,40}}{GAP}.*?").search(message.text))


@pytest.mark.parametrize("sentence", entries())
def test_the_sentence_is_in_the_sources(sentence):
    assert any(says(message, sentence) for message in messages()), "no source says so any more"


def test_every_class_of_errors_has_an_entry():
    told = {message.raised for sentence in entries() for message in messages() if says(message, sentence)}
    assert {"SceneError", "ConfigError", "Collapse", "FitError"} <= reported()
    assert (reported() | set(SUBCLASSES)) - told == set(), "the page has no sentence of theirs"


PROVOKED = [
    "nerf.train --scene nowhere",
    "nerf.train --scene photos",
    "nerf.train --scene lego --budget soon",
    "nerf.train --scene lego --budget 5m --steps 3",
    "nerf.train --scene lego --out runs/new --resume",
    "nerf.train --scene data/selfie --out runs/selfie --resume --downscale 2",
    "nerf.train --scene lego --backend gpu",
    "nerf.train --scene lego --slicing plane",
    "nerf.train --scene lego --register",
    "nerf.evaluate --run nowhere",
    "nerf.render --run runs/selfie --photo 7777 --out a.png",
    "nerf.render --run runs/lego --freeze person --out a.mp4",
    "nerf.render --run runs/lego --out a.avi",
    "nerf.render --run runs/lego --path circle --out a.mp4",
    "nerf.export --run runs/lego --format points --out a.glb",
    "nerf.export --run runs/lego --format depth --faces 9 --out depth",
    "nerf.export --run runs/lego --crop 7 7 7 8 8 8 --out a.ply",
    "data.scene nowhere",
    "data.scene lego --downscale 0",
    "data.capture nothing.mp4 data/new",
    "data.capture photos data/new",
    "data.capture photos lego",
    "siren.fit nothing.png",
]


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    return write_examples(tmp_path_factory.mktemp("troubleshooting"), 1)


@pytest.mark.parametrize("line", PROVOKED)
def test_what_a_command_says_is_on_the_page(line, examples, monkeypatch, capsys):
    enter(examples, monkeypatch)
    module, *arguments = line.split()
    try:
        code = call(main_of(module), arguments)
    except SystemExit as end:
        code = end.code
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2, said
    assert any(pattern(sentence, ".*").search(said) for sentence in entries()), said


def test_mistakes_would_be_noticed():
    whole = Message(f"{GAP}: expected a run with {GAP}, found none; train one", "ConfigError", "")
    assert says(whole, "RUN: expected a run with ..., found none")
    assert not says(whole, "RUN: expected a run with ..., found nothing")
    assert not says(whole, "RUN: found none; expected a run with")
    with pytest.raises(AssertionError, match="too little"):
        says(whole, "...: ...")
