"""Builds the CPU kernels: one shared library per instruction-set level, all from the same C++ sources. The kernels for
GPUs are compiled where they run: their texts are installed beside nerf/kernels (an editable install reads them from cuda/).

Everything else is in pyproject.toml. A machine without a C++ compiler gets a working install without them: each library
is optional, and the backend `reference` needs none.
"""

import copy
import os
import platform
import shutil
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

COMMON = [
    "-std=c++17",
    "-O3",
    "-g0",
    "-fvisibility=hidden",
    "-fvisibility-inlines-hidden",
    "-ffp-contract=off",  # sums of products are fused where the sources say so, and nowhere else
    "-fno-math-errno",
    "-fno-trapping-math",
    "-Wno-psabi",
]
V3 = ["-mavx2", "-mfma", "-mbmi", "-mbmi2", "-mlzcnt", "-mf16c", "-mpopcnt"]
V4 = [*V3, "-mavx512f", "-mavx512bw", "-mavx512cd", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"]
V4BF16 = [*V4, "-mavx512bf16"]
AMX = [*V4BF16, "-mamx-tile", "-mamx-bf16"]


def levels() -> dict[str, list[str]]:
    """Compiler flags of every level that this kind of machine may have; nerf/kernels/cpu.py picks one when it loads."""
    if os.name == "nt":  # the sources speak GCC's and Clang's vector types, which MSVC doesn't have
        return {}
    if platform.machine() in ("x86_64", "AMD64"):
        return {"v2": ["-msse4.2", "-mpopcnt"], "v3": V3, "v4": V4, "v4bf16": V4BF16, "amx": AMX}
    return {"generic": []}


class BuildLevels(build_ext):
    """Compiles the levels side by side, each into a folder of its own, since they share their sources' names."""

    def finalize_options(self) -> None:
        super().finalize_options()
        if not self.parallel:
            self.parallel = 1 + (os.cpu_count() or 1)  # levels take unequal times: one more keeps all cores busy

    def build_extension(self, ext: Extension) -> None:
        own = copy.copy(self)
        own.build_temp = os.path.join(self.build_temp, ext.name)
        build_ext.build_extension(own, ext)


class ShipSources(build_py):
    """Copies the texts of the kernels for GPUs, for nerf/kernels/cuda_sources.py to find."""

    def run(self) -> None:
        super().run()
        if getattr(self, "editable_mode", False):
            return
        for pattern in ("*.h", "gpu/*.h", "gpu/*.cu", "shared/*.h"):
            for path in sorted((ROOT / "cuda").glob(pattern)):
                target = Path(self.build_lib, "nerf/kernels/sources", path.relative_to(ROOT / "cuda"))
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)


ROOT = Path(__file__).parent
setup(
    ext_modules=[
        Extension(
            f"nerf.kernels._cpu_{level}",
            sources=sorted(str(path.relative_to(ROOT)) for path in (ROOT / "cuda/cpu").glob("*.cpp")),
            depends=sorted(str(path.relative_to(ROOT)) for path in (ROOT / "cuda").glob("*/*.h")),
            define_macros=[("NERF_CPU_LEVEL", level)],
            extra_compile_args=COMMON + flags,
            extra_link_args=["-pthread"],
            language="c++",
            optional=True,
        )
        for level, flags in levels().items()
    ],
    cmdclass={"build_ext": BuildLevels, "build_py": ShipSources},
)
