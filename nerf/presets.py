"""The configurations that `--preset` names, and what options make of them."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

from nerf.config import ConfigError, LossConfig, OptimizerConfig, TrainConfig
from nerf.field import HashFieldConfig, NerfFieldConfig
from nerf.model import HierarchicalConfig, MarchConfig, ModelConfig
from nerf.register import RegisterConfig
from nerf.slicing import SliceConfig
from nerf.warp import WarpConfig

PRESETS = ("auto", "instant", "nerf", "nerfies")


def preset(name: str, moving: bool, background: bool) -> TrainConfig:
    """The configuration called `name`; `auto` is `instant`.

    Args:
        moving: whether the photos show different instants: `instant` then has a warp.
        background: whether the photos have a plain background, as synthetic ones do; NeRF adds density noise where not.
    """
    if name not in PRESETS:
        raise ValueError(f"--preset: expected one of {', '.join(PRESETS)}, found {name!r}")
    if name == "nerf":
        return _nerf(background)
    if name == "nerfies":
        return _nerfies()
    return _instant(moving, background)


def _instant(moving: bool, background: bool) -> TrainConfig:
    """Hash grid and occupancy (Mueller et al. 2022), with a small warp where the scene moves."""
    # Before a plain background the picture itself says where nothing is; in a photo fog is a solution, so there is little
    # of it at first, and it costs.
    field = HashFieldConfig(density_bias=0.0 if background else -1.5)
    config = TrainConfig(
        "", model=ModelConfig(field), loss=LossConfig(distortion=0.0 if background else 0.01),
        # Dark photos lost their colour for good where the first steps were taken at the full rate.
        optimizer=OptimizerConfig(warmup=100),
    )  # fmt: skip
    if not moving:
        return _before_a_plain_background(config) if background else config
    fade = 0.0 if background else 0.25
    return replace(
        config,
        model=replace(
            config.model, warp=WarpConfig(width=64, depth=3, skip=3, bands=6, code=12, start="time", fade=fade),
            appearance=4,
        ),
        # Each photo pulls its own part of the warp with a few rays a step: the mean of many steps says where to.
        optimizer=replace(config.optimizer, warp_rate=2e-3, warp_final=0.3, warp_beta1=0.97),
        # What is out of register is a haze at first, and to pull it together early seems to freeze it (docs/nerfies.md).
        # Photos come into register on what is coarse before there is anything finer to be misled by (docs/nerfies.md).
        # A colour that may depend on the camera explains a moving person as a still one with a strange sheen, and the warp
        # then has nothing left to explain.
        loss=replace(
            config.loss,
            distortion=0.0 if background else 0.004,
            elastic=1e-3, elastic_points=1024, background=0.1, background_points=1024, warp_every=4,
            anneal=0.6, anneal_from=2.0, anneal_levels=(0.0, 0.5), anneal_levels_from=5.0, plain=(0.6, 0.8),
        ),
        # Photos come into register by the number of rays rather than by samples along each.
        crowd=14,
    )  # fmt: skip


def _before_a_plain_background(config: TrainConfig) -> TrainConfig:
    """What paid on cut-out and synthetic objects, and cost photographs 0 to 2 dB (docs/tuning.md)."""
    field, sampling = config.model.field, config.model.sampling
    assert isinstance(field, HashFieldConfig) and isinstance(sampling, MarchConfig)
    model = replace(config.model, field=replace(field, log2_rows=19), sampling=replace(sampling, stop=1e-3))
    return replace(config, model=model, optimizer=replace(config.optimizer, flat=0.4, final=0.05, touched_only=True))


def on_gpu(config: TrainConfig) -> TrainConfig:
    """An `instant` run on a GPU: eight times the samples a step, which cost it little more.

    On an H100 a step of 2^18 samples took as long as one of 2^15, which waits for the host that launches it
    (docs/cuda.md); 2^18 points a step are instant-ngp's and tiny-cuda-nn's, too.
    """
    return replace(config, samples=1 << 18, rays=1 << 15, chunk=1 << 19) if config.preset == "instant" else config


def registered(config: TrainConfig) -> TrainConfig:
    """An `instant` run on moving photos whose warp starts from points followed through them.

    Rigid parts are fitted to the points first. Then the warp waits until a field has formed around it, and moves slowly:
    at the rate of a warp that starts from nothing the fit was lost within a hundred steps.
    """
    warp = config.model.warp
    if config.preset != "instant" or warp is None or not warp.fade:
        raise ConfigError(
            "--register: expected the instant preset and photos of something that moves, before no plain colour"
        )
    if importlib.util.find_spec("cv2") is None:
        raise ConfigError("--register: expected OpenCV, found none; pip install opencv-python-headless")
    return replace(
        config,
        model=replace(config.model, warp=replace(warp, parts=8)),
        optimizer=replace(config.optimizer, warp_rate=5e-4, warp_hold=300),
        loss=replace(config.loss, anneal=0.8),
        register=RegisterConfig(),
    )


def sliced(config: TrainConfig, kind: str) -> TrainConfig:
    """A run on moving photos whose scene also has ambient coordinates (HyperNeRF): "plane" or "sheet"."""
    warp = config.model.warp
    if warp is None:
        raise ConfigError("--slicing: expected photos of something that moves, and a warp; found neither or no warp")
    if config.preset == "instant":
        slices, let_in = SliceConfig(kind, width=32, depth=2, skip=2, bands=4), (0.1, 0.3)
    else:
        slices, let_in = SliceConfig(kind), (0.004, 0.044)  # steps 1000 to 11 000 of 250 thousand
    return replace(
        config,
        model=replace(config.model, warp=replace(warp, slicing=slices)),
        loss=replace(config.loss, anneal_slices=let_in),
    )


def posed(config: TrainConfig, photos: int) -> TrainConfig:
    """A run that learns corrections of its photos' poses, `photos` of them, while detail comes in from coarse to fine.

    Only what is blurred says of a photo that lies a few pixels off which way to move it (BARF, section 3.2).
    """
    if photos < 2:
        raise ConfigError(f"--refine-poses: expected at least 2 training photos, found {photos}")
    grid, optimizer = config.preset == "instant", config.optimizer
    if grid:
        # Before there is a scene to lie in, photos would be moved at random, and not all of it is undone later.
        optimizer = replace(optimizer, pose_rate=2e-3, pose_final=0.02, pose_hold=200)
    return replace(
        config,
        model=replace(config.model, poses=photos),
        optimizer=optimizer,
        loss=replace(config.loss, anneal_levels=(0.1, 0.5), anneal_levels_from=1.0 if grid else 0.0),
    )


def _nerf(background: bool) -> TrainConfig:
    """Mildenhall et al. 2020: section 5.3 (4096 rays, N_c = 64, N_f = 128, Adam 5e-4 to 5e-5, betas 0.9 and 0.999,
    eps 1e-7, 100 to 300 thousand iterations), figure 7 (network), appendix A (density noise on real scenes)."""
    field = NerfFieldConfig(noise=0.0 if background else 1.0)
    return TrainConfig(
        "", preset="nerf", steps=200_000, model=ModelConfig(field, HierarchicalConfig()),
        optimizer=OptimizerConfig(rate=5e-4, final=0.1, beta2=0.999, eps=1e-7),
        rays=4096, samples=0, chunk=512,
    )  # fmt: skip


def _nerfies() -> TrainConfig:
    """Park et al. 2021, section 4 and google/nerfies' gpu_vrig_paper.gin: 100 thousand steps of 6144 rays, 128 + 128
    samples, 8 position bands, softplus density, SE(3) warp with 8 bands annealed over the first 80 thousand steps,
    codes of 8, elastic weight 1e-3 (cosine decay from step 50 to 150 thousand), background weight 1 on 16384 points,
    Adam 1e-3 falling to 1e-4 over 200 thousand steps."""
    field = NerfFieldConfig(skip=4, position_bands=8, density_activation="softplus")
    model = ModelConfig(field, HierarchicalConfig(coarse=128, fine=128), WarpConfig(), appearance=8)
    loss = LossConfig(elastic=1e-3, elastic_decay=(0.5, 1.5), background=1.0, anneal=0.8)
    return TrainConfig(
        "", preset="nerfies", steps=100_000, model=model, loss=loss,
        optimizer=OptimizerConfig(
            rate=1e-3, final=0.1**0.5, warp_rate=1e-3, warp_final=0.1**0.5, beta2=0.999, eps=1e-8
        ),
        rays=6144, samples=0, chunk=384,
    )  # fmt: skip
