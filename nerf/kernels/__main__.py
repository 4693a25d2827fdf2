"""`python -m nerf.kernels`: which backends this machine has; on a GPU, what was compiled for it and how it was verified."""

from __future__ import annotations

import torch

from nerf.kernels.backends import available, choose


def main() -> None:
    """Print a row a backend, then what `auto` takes, then what a GPU's kernels came to."""
    for backend, why in available().items():
        print(f"{backend:10}  {'available' if not why else 'not available: ' + why}")
    print(f"auto takes: {choose()[0]}")
    if not available()["cuda"]:
        print("\n".join(report()))


def report() -> list[str]:
    """Lines on the GPU at hand: its name and architecture; each op, with how far its kernels are from `reference`; each
    program that was compiled, with what its kernels take."""
    from nerf.kernels import cuda_check, cuda_compile, cuda_driver

    driver = cuda_driver.driver()
    index = torch.cuda.current_device() if driver.device_type == "cuda" else 0
    architecture, version = driver.architecture(index), driver.version()
    lines = [f"{driver.name(index)}, sm_{architecture}, driver for CUDA {version // 1000}.{version % 1000 // 10}"]
    if driver.image is None:
        compiler = cuda_compile.nvrtc(version)
        target = compiler.target(architecture)
        lines[0] += f", NVRTC {compiler.version[0]}.{compiler.version[1]} compiles for {target}"
    _try_all(torch.device(driver.device_type, index) if driver.device_type == "cuda" else torch.device("cpu"))
    for verdict in cuda_check.verdicts():
        how = f"reference is used: {verdict.trouble}" if verdict.trouble else f"verified, error {verdict.error:.0e}"
        lines.append(f"  {verdict.op:12}  {how}")
    lines.append(f"  {'mlp_jet':12}  reference is used: it has no kernel")
    for (source, options), program in driver.programs.items():
        named = " ".join(f"{name}={value}" for name, value in options)
        for kernel, taken in program.resources().items():
            spilled = f", {taken.spills} bytes spilled" if taken.spills else ""
            lines.append(f"  {source} {kernel}: {taken.registers} registers{spilled}  {named}".rstrip())
    return lines


def _try_all(device: torch.device) -> None:
    """Try every op as a static scene's training uses it (`nerf.field.HashFieldConfig`)."""
    from nerf.kernels import cuda_driver, cuda_field_trial, cuda_mlp, cuda_trials
    from nerf.kernels.cuda_field_trial import Field
    from nerf.kernels.cuda_ops import grid_numbers
    from nerf.kernels.hash_encode import GridGeometry

    geometry = GridGeometry(levels=8, features=4, log2_rows=17)
    rows, seen = ((64, 16), (64, 64, 3)), 16
    dtype = cuda_mlp.format_of("auto", ("relu", "none"), cuda_driver.capability(device))
    for inputs, network, last in ((32, rows[0], "none"), (rows[0][-1] + seen, rows[1], "sigmoid")):
        cuda_trials.mlp(cuda_trials.Network(inputs, network, ("relu", last), 30.0, dtype, (), True, False), device)
    cuda_trials.hash_encode(tuple(grid_numbers(geometry)), device)
    for trial in (cuda_trials.composite, cuda_trials.march, cuda_trials.harmonics, cuda_trials.adam):
        trial(device)
    for colors in (0, seen):
        cuda_field_trial.field(Field(geometry, rows, colors, dtype), device)
    cuda_field_trial.shade(Field(geometry, rows, seen, dtype), device)


if __name__ == "__main__":
    main()
