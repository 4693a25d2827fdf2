"""What kernels for a GPU are compiled from and with, and what is kept of it: no GPU and no driver are needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nerf.kernels import cuda_compile, cuda_sources
from nerf.kernels.cuda_compile import CompileError, Nvrtc, Program, build, key, nvrtc
from nerf.kernels.cuda_sources import SourceError, gather

ROOT = Path(__file__).parent.parent
NEWEST = 120

KERNEL = """
#include "own.h"
extern "C" __global__ void {name}(float* x) {{ x[threadIdx.x] = own(x[threadIdx.x]) * FACTOR; }}
"""


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A folder of sources with one program and one header."""
    for folder in ("gpu", "shared"):
        (tmp_path / "sources" / folder).mkdir(parents=True)
    (tmp_path / "sources/gpu/scale.cu").write_text(KERNEL.format(name="scale"))
    (tmp_path / "sources/gpu/own.h").write_text('#pragma once\n#include "../shared/deep.h"\n')
    (tmp_path / "sources/shared/deep.h").write_text(
        "#pragma once\n#include <cstdint>\n__device__ float own(float x) { return x + uint8_t(1); }\n"
    )
    monkeypatch.setattr(cuda_sources, "root", lambda: tmp_path / "sources")
    monkeypatch.setenv("NERF_KERNEL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "sources"


def found() -> Nvrtc:
    try:
        return nvrtc()
    except CompileError as error:  # a platform for which NVIDIA makes none
        pytest.skip(str(error))


class Counting(Nvrtc):
    """One that opens no library, counts its compilations and makes up what comes out."""

    version, architectures = (13, 0), (75, 86)

    def __init__(self) -> None:
        self.compiled = 0

    def compile(self, name, text, headers, options, target):
        self.compiled += 1
        return Program(f"{target} {self.compiled}".encode() + bytes(range(256)), "Used 8 registers")


def test_a_program_is_gathered_with_all_that_it_includes(sources):
    text, headers = gather("scale.cu")
    assert "scale(float* x)" in text and set(headers) == {"own.h", "../shared/deep.h"}
    with pytest.raises(SourceError, match=r"other.cu: no such file"):
        gather("other.cu")
    (sources / "gpu/own.h").write_text('#include "lost.h"\n')
    with pytest.raises(SourceError, match=r'own.h: #include "lost.h" is not in'):
        gather("scale.cu")


def test_a_name_that_means_two_files_is_refused(sources):
    (sources / "gpu/deep.h").write_text("")
    (sources / "gpu/own.h").write_text('#include "../shared/deep.h"\n#include "deep.h"\n')
    (sources / "shared/deep.h").write_text('#include "twin.h"\n')
    (sources / "gpu/deep.h").write_text('#include "twin.h"\n')
    for folder in ("gpu", "shared"):
        (sources / folder / "twin.h").write_text(folder)
    with pytest.raises(SourceError, match=r'#include "twin.h" means .* here and .* there'):
        gather("scale.cu")


def test_nvrtc_compiles_with_options_and_says_what_a_kernel_takes(sources):
    program = build("scale.cu", (("FACTOR", "2.f"),), 86, found())
    assert program.image.startswith(b"\x7fELF")
    assert list(program.resources()) == ["scale"]
    assert 0 < program.resources()["scale"].registers < 32 and program.resources()["scale"].spills == 0


def test_what_nvrtc_refuses_is_told_in_its_words(sources):
    with pytest.raises(CompileError, match=r'scale.cu for sm_86: .*identifier "FACTOR" is undefined'):
        build("scale.cu", (), 86, found())


def test_spills_are_found_in_the_log():
    log = """ptxas info    : Compiling entry function 'a' for 'sm_86'
ptxas         .     48 bytes stack frame, 24 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 48 bytes cumulative stack size, 512 bytes smem, 384 bytes cmem[0]
ptxas info    : Compiling entry function 'b' for 'sm_86'
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers, 384 bytes cmem[0]"""
    resources = Program(b"", log).resources()
    assert resources["a"] == cuda_compile.Resources(255, 40, 48, 512)
    assert resources["b"] == cuda_compile.Resources(8, 0, 0, 0)


def test_a_gpu_newer_than_the_compiler_gets_ptx_of_the_newest_architecture_before_it(sources):
    compiler = found()
    newest = compiler.architectures[-1]
    assert compiler.target(newest) == f"sm_{newest}" and compiler.target(newest + 40) == f"compute_{newest}"
    program = build("scale.cu", (("FACTOR", 3),), newest + 40, compiler)
    assert b".visible .entry scale" in program.image and program.resources() == {}
    assert Counting().target(87) == "compute_86"
    with pytest.raises(CompileError, match=r"compiles for sm_75 and up; this GPU is sm_61"):
        Counting().target(61)


def test_a_program_is_compiled_once_and_then_read(sources, tmp_path):
    compiler = Counting()
    first = build("scale.cu", (("FACTOR", 2),), 86, compiler)
    assert build("scale.cu", (("FACTOR", 2),), 86, compiler) == first and compiler.compiled == 1
    assert [path.name.startswith("scale-sm_86-") for path in (tmp_path / "cache").iterdir()] == [True]


def test_whatever_changes_compiles_anew(sources):
    compiler, options = Counting(), (("FACTOR", 2),)
    build("scale.cu", options, 86, compiler)
    build("scale.cu", (("FACTOR", 3),), 86, compiler)
    build("scale.cu", options, 75, compiler)
    assert compiler.compiled == 3
    deep = sources / "shared/deep.h"
    deep.write_text(deep.read_text() + "// another header\n")
    build("scale.cu", options, 86, compiler)
    compiler.version = (13, 1)
    build("scale.cu", options, 86, compiler)
    assert compiler.compiled == 5


def test_keys_tell_parts_apart():
    same = ("t", {"h": "1"}, (("A", 1),), "sm_86", (13, 0))
    assert key("s", *same) == key("s", *same)
    assert key("s", "t", {"h": "1"}, (), "sm_86", (13, 0)) != key("s", *same)
    assert key("s", "t", {"h1": ""}, (("A", 1),), "sm_86", (13, 0)) != key("s", *same)


@pytest.mark.parametrize("damage", [b"", b"nerf kernels 1\n", None], ids=["empty", "cut off", "one bit"])
def test_a_damaged_image_is_made_again(sources, tmp_path, damage):
    compiler = Counting()
    build("scale.cu", (), 86, compiler)
    (path,) = (tmp_path / "cache").iterdir()
    stored = bytearray(path.read_bytes())
    stored[-1] ^= 1
    path.write_bytes(stored if damage is None else damage)
    again = build("scale.cu", (), 86, compiler)
    assert compiler.compiled == 2 and again.image.startswith(b"sm_86 2")
    assert build("scale.cu", (), 86, compiler) == again and compiler.compiled == 2


def test_a_folder_that_cannot_be_written_to_costs_time_and_nothing_else(sources, tmp_path, monkeypatch):
    compiler = Counting()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NERF_KERNEL_CACHE", str(tmp_path / "file" / "under"))
    build("scale.cu", (), 86, compiler)
    assert build("scale.cu", (), 86, compiler).image.startswith(b"sm_86 2")


def test_a_full_disk_leaves_no_half_an_image(sources, tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device")

    make = cuda_compile.tempfile.NamedTemporaryFile

    def file(**given):
        handle = make(**given)
        handle.write = full.__get__(handle)
        return handle

    monkeypatch.setattr(cuda_compile.tempfile, "NamedTemporaryFile", file)
    assert build("scale.cu", (), 86, Counting()).image.startswith(b"sm_86 1")
    assert list((tmp_path / "cache").iterdir()) == []


def test_the_cache_is_where_the_system_keeps_such_things(monkeypatch, tmp_path):
    monkeypatch.delenv("NERF_KERNEL_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert cuda_compile.cache_folder() == tmp_path / "nerf-siren" / "kernels"


def test_a_compiler_newer_than_the_driver_is_not_taken(monkeypatch):
    major, minor = found().version
    nvrtc.cache_clear()
    try:
        with pytest.raises(CompileError, match=rf"NVRTC {major}.{minor} is newer than the driver \({major - 1}\)"):
            nvrtc((major - 1) * 1000 + 90)
        assert nvrtc(major * 1000).version == (major, minor)
        monkeypatch.setattr(cuda_compile, "libraries", list)
        monkeypatch.setattr(cuda_compile, "Nvrtc", missing)
        nvrtc.cache_clear()
        with pytest.raises(CompileError, match=r"NVRTC is not installed \(pip install nvidia-cuda-nvrtc"):
            nvrtc()
    finally:
        nvrtc.cache_clear()


def missing(path):
    raise CompileError(f"NVRTC does not load: {path}")


def test_the_newest_library_goes_first(monkeypatch, tmp_path):
    for name in ("cuda_nvrtc/lib/libnvrtc.so.12", "cu13/lib/libnvrtc.so.13", "cu13/lib/libnvrtc.alt.so.13"):
        path = tmp_path / "nvidia" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    monkeypatch.setattr(cuda_compile.sys, "path", [str(tmp_path)])
    assert [path.name for path in cuda_compile.libraries()] == ["libnvrtc.so.13", "libnvrtc.so.12"]


def test_an_installed_package_has_every_source(tmp_path):
    """As pip copies it into site-packages: without the checkout, each program gathers the same texts."""
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    script = (
        "import json; from nerf.kernels import cuda_sources as s;"
        "print(json.dumps({name: s.gather(name) for name in s.names()}))"
    )
    away = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": "1"}
    answer = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=away, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    installed = json.loads(answer.stdout)
    assert set(installed) == set(cuda_sources.names()) and installed
    assert all(tuple(installed[name]) == gather(name) for name in installed)
    assert not list(tmp_path.rglob("emulation")) and not (tmp_path / "cuda").exists()
