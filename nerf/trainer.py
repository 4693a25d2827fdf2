"""One training step after another: the state of a run and how it moves on."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import Tensor

from data.scene import Scene
from nerf import losses, together
from nerf.config import TrainConfig
from nerf.exchange import Exchange
from nerf.kernels.backends import load
from nerf.kernels.space import constant
from nerf.late import Late, Term
from nerf.model import Geometry, SceneModel
from nerf.optimizer import SceneAdam
from nerf.rays import Batch, PixelSampler, Rays, clip
from nerf.register import register
from nerf.samples import Samples
from nerf.volume import Rendered, render_rays, survey

SLOW = ("warp.", "warp_codes.", "slicing.", "appearance_codes.", "camera_codes.")  # parameters at the warp's rate
# A look on a GPU is given memory for this many times the samples a ray that the last known one kept, in pieces of ROOMS.
SPARE, ROOMS = 1.125, 4096
LONGEST = 16.0  # how much longer than their own length the march's steps may become


class Collapse(RuntimeError):
    """Training has gone nowhere: a loss that is no number, or a scene that stays empty."""


class Trainer:
    """A run's model, optimiser, random numbers and clock.

    Args:
        config: what to do.
        scene: its photos.
    """

    def __init__(self, config: TrainConfig, scene: Scene) -> None:
        self.config, self.scene = config, scene
        self.generator = torch.Generator().manual_seed(config.seed)
        self.model = SceneModel(config.model, Geometry.of(scene), load(config.backend), self.generator)
        if self.model.poses is not None:
            self.model.poses.place([frame.camera for frame in scene.train])
        self.device = self.model.at_home().device
        if self.device.type != "cpu":  # it draws where its numbers are used
            self.generator = _generator(self.device).manual_seed(config.seed)
        self.sampler = PixelSampler(scene.train, scene.masks_are_alpha, self.device)
        lenses = torch.tensor([frame.camera_id for frame in scene.train])  # the camera of each photo
        self.lenses = lenses.to(self.device)
        self.points = None if scene.points is None else scene.points.to(self.device)
        self.late = Late()
        self.exchange = None if together.alone() else Exchange(self.model)
        self.optimizer = self._optimizer()
        self.step, self.seconds, self.rays = 0, 0.0, config.rays
        self.visited = 0  # samples asked for their density, over the whole run
        if config.samples:
            self.coarsen = LONGEST
        self.registering = 0.0  # seconds that went into it before the first step
        self.kept_share = 0.0  # of the samples visited, those that the last pruning kept
        self.empty = 0  # steps in a row that saw nothing
        self.room: int | None = None  # samples that a step's look may keep, where it doesn't wait to be told

    def _optimizer(self) -> SceneAdam:
        chosen = self.config.optimizer
        named = dict(self.model.named_parameters())
        slow = [p for name, p in named.items() if name.startswith(SLOW)]
        tables = [p for name, p in named.items() if chosen.touched_only and name.endswith("grid.table")]
        posed = [] if self.model.poses is None else list(self.model.poses.parameters())
        apart = {id(p) for p in (*slow, *tables, *posed)}
        fast = [p for p in named.values() if id(p) not in apart]
        field = {"base": chosen.rate, "final": chosen.final, "flat": chosen.flat, "hold": 0}
        groups: list[dict[str, Any]] = [{"params": fast, **field}]
        if tables:
            groups.append({"params": tables, "tables": True, **field})
        if slow:
            pace = {"base": chosen.warp_rate, "final": chosen.warp_final, "flat": 0.0, "hold": chosen.warp_hold}
            groups.append({"params": slow, "betas": (chosen.warp_beta1, chosen.beta2), **pace})
        if posed:
            pace = {"base": chosen.pose_rate, "final": chosen.pose_final, "flat": 0.0, "hold": chosen.pose_hold}
            groups.append({"params": posed, **pace})
        betas = (chosen.beta1, chosen.beta2)
        return SceneAdam(groups, self.model.ops, lr=chosen.rate, betas=betas, eps=chosen.eps)

    def register(self) -> str:
        """Bring the photos into register, where the run is told to; says what came of it. Before the first step."""
        config = self.config.register
        if config is None:
            return ""
        began = time.perf_counter()
        said = register(self.model, self.scene, config, self.config.loss.anneal_from, self.generator)
        self.registering = time.perf_counter() - began
        return said

    @property
    def fraction(self) -> float:
        """Share of the run that is done, in [0, 1]: of its steps, or of its time."""
        if self.config.steps is not None:
            return min(self.step / self.config.steps, 1.0)
        return min(self.seconds / (self.config.budget or math.inf), 1.0)

    @property
    def bands(self) -> float | None:
        """Frequency bands that the warp has now (Nerfies, section 3.5, with a linear schedule)."""
        if self.model.warp is None:
            return None
        start, share = self.config.loss.anneal_from, min(self.fraction / max(self.config.loss.anneal, 1e-9), 1.0)
        return start + (self.model.bands - start) * share

    def advance(self) -> dict[str, float]:
        """One optimiser step. Returns its loss terms, opacity and squared error, and counts; on a GPU, those of the step
        before (`Late`)."""
        began = time.perf_counter()
        self._schedule()
        rays = self.rays  # of all ranks
        self.sampler.turn(self.step)
        batch = self.sampler.sample(together.part(rays), self.generator)
        self.optimizer.zero_grad(set_to_none=True)
        numbers: list[Term] = []
        for chunk in self._chunks(batch):
            rendered, terms = self._losses(chunk)
            share = len(chunk.rgb) / rays
            loss: Tensor = torch.stack(list(terms.values())).sum()
            (loss * share).backward()
            terms["opacity"] = rendered.out.opacity.detach().mean()
            terms["squared"] = terms["color"].detach()
            numbers += [Term(name, value, share) for name, value in terms.items()]
            counts = {"visited": rendered.visited, "kept": rendered.kept, "rays": len(chunk.rgb)}
            numbers += [Term(name, value) for name, value in counts.items()]
        if self.exchange is not None:
            numbers, seconds = self.exchange.step(numbers)
        totals = self.late.exchange(numbers)
        self._check(totals)
        self.optimizer.step()
        self._after(*(int(totals[name]) for name in ("visited", "kept", "rays")))
        self.step += 1
        took = time.perf_counter() - began
        if self.exchange is not None:
            self.exchange.took, took = took, seconds
        self.seconds += took
        return totals

    def _schedule(self) -> None:
        """Learning rates, and what the model is let to use by now."""
        for group in self.optimizer.param_groups:
            warmth = (self.step + 1 - group["hold"]) / max(self.config.optimizer.warmup, 1)
            fallen = max(self.fraction - group["flat"], 0.0) / max(1 - group["flat"], 1e-9)
            group["lr"] = group["base"] * group["final"] ** fallen * min(max(warmth, 0.0), 1.0)
        if self.bands is not None:
            self.model.annealed.fill_(self.bands)
        loss, slices = self.config.loss, self.model.slicing
        if loss.plain is not None:
            self.model.sheen.fill_(self._between(loss.plain))
        if loss.anneal_levels is not None:
            first, share = loss.anneal_levels_from, self._between(loss.anneal_levels)
            for field in (self.model.field, self.model.coarse):
                if field is not None:
                    field.detail.fill_(first + (field.levels - first) * share)
        if loss.anneal_slices is not None and slices is not None:
            self.model.sliced.fill_(slices.config.ambient_bands * self._between(loss.anneal_slices))

    def _between(self, shares: tuple[float, float]) -> float:
        """How far the run is on its way between two shares of it, in [0, 1]."""
        return min(max((self.fraction - shares[0]) / max(shares[1] - shares[0], 1e-9), 0.0), 1.0)

    def _chunks(self, batch: Batch) -> list[Batch]:
        if len(batch.rgb) <= self.config.chunk:
            return [batch]
        given = {
            name: tensor.split(self.config.chunk) for name, tensor in batch._asdict().items() if tensor is not None
        }
        return [Batch(**dict(zip(given, parts))) for parts in zip(*given.values())]

    def _losses(self, batch: Batch) -> tuple[Rendered, dict[str, Tensor]]:
        model, weights = self.model, self.config.loss
        rays = self._rays(batch)
        behind, target = self._background(batch)
        rendered = render_rays(model, rays, self.generator, self.bands, behind, self.coarsen, self._prune, self.room)
        terms = {"color": losses.photometric(rendered.out.rgb, target)}
        if rendered.coarse is not None:
            terms["coarse"] = losses.photometric(rendered.coarse.rgb, target)
        if weights.distortion > 0:
            s = rendered.samples
            span = model.geometry.far - model.geometry.near
            s0, s1 = ((s.t + side * s.dt / 2 - model.geometry.near) / span for side in (-1, 1))
            terms["distortion"] = weights.distortion * losses.distortion(rendered.out.weights, s0, s1, s.offsets)
        if model.warp is not None and self.step % weights.warp_every == 0:
            # Seldom but heavier: the same pull on the warp over time.
            terms |= {name: term * weights.warp_every for name, term in self._warp_losses(rays, rendered).items()}
        return rendered, terms

    def _background(self, batch: Batch) -> tuple[Tensor | None, Tensor]:
        """The colours behind a step's rays (None: the scene's own), and what the rays should then show.

        A background that is never the same leaves no fog of its colour. Photos fill their frames: opacity 1 is the way
        out. Cut-out photos say how much of it is seen.
        """
        own = self.model.geometry.background
        if self.model.occupancy is None or (own is not None and batch.opacity is None):
            return None, batch.rgb
        behind = torch.rand(len(batch.rgb), 3, generator=self.generator, device=self.device)
        if own is None or batch.opacity is None:
            return behind, batch.rgb
        return behind, batch.rgb + (1 - batch.opacity)[:, None] * (behind - constant(own, behind))

    def _rays(self, batch: Batch) -> Rays:
        model = self.model
        origins, directions = batch.origins, batch.directions
        if model.poses is not None:
            learning = torch.is_grad_enabled() and self.step >= self.config.optimizer.pose_hold
            with torch.set_grad_enabled(learning):
                origins, directions = model.poses(batch.photo, origins, directions)
        near, far = clip(origins.detach(), directions.detach(), model.geometry)
        warp = model.warp_codes(batch.instant) if model.warp is not None else None
        look = model.look_of(batch.instant, self.lenses[batch.photo])
        return Rays(origins, directions, near, far, warp, look)

    def _warp_losses(self, rays: Rays, rendered: Rendered) -> dict[str, Tensor]:
        model, weights, terms = self.model, self.config.loss, {}
        assert model.warp is not None and rays.warp is not None
        if weights.elastic > 0:
            samples, shares = rendered.regularised
            count = max(together.part(weights.elastic_points), 1)
            if weights.elastic_points > 0 and count < len(shares):
                pick = self._choose(len(shares), count)
                # An unbiased estimate of the whole sum from a uniform choice.
                samples, shares = _pick(samples, pick), shares[pick] * (len(shares) / count)
            x = samples.points(rays.origins.detach(), rays.directions.detach())
            jacobian = model.warp.jacobian(x, rays.warp[samples.ray], self.bands)
            terms["elastic"] = weights.elastic * self._elastic_decay * losses.elastic(jacobian, shares, len(rays.near))
        if weights.background > 0 and self.points is not None and len(self.points):
            count = max(together.part(min(weights.background_points, len(self.points))), 1)
            points = self.points[self._choose(len(self.points), count)]
            codes = model.warp_codes(self._choose(len(model.warp_codes.times), len(points)))
            moved = model.warp(points, codes, self.bands)
            half = model.warp.space.half
            terms["background"] = weights.background * losses.background(moved / half, points / half)
        return terms

    def _choose(self, among: int, count: int) -> Tensor:
        """Random indices."""
        return torch.randint(among, (count,), generator=self.generator, device=self.device)

    @property
    def _elastic_decay(self) -> float:
        if self.config.loss.elastic_decay is None:
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * self._between(self.config.loss.elastic_decay)))

    @property
    def coarsen(self) -> float:
        """How much longer than their own length the march's steps are; kept with the model, whose pictures use it too."""
        return 1.0 if self.model.occupancy is None else float(self.model.occupancy.coarsen)

    @coarsen.setter
    def coarsen(self, value: float) -> None:
        if self.model.occupancy is not None:
            self.model.occupancy.coarsen.fill_(value)

    @property
    def _settled(self) -> bool:
        return self.model.occupancy is not None and self.step >= self.model.occupancy.config.settle

    @property
    def _prune(self) -> bool:
        """A first look without gradients pays where it drops a third of the samples; tried anew every 16 steps."""
        if self._settled and self.model.field.plain:
            return True  # it stops at the first surface, so it pays always
        return self._settled and (self.kept_share < 0.7 or self.step % 16 == 0)

    def _after(self, visited: int, kept: int, rays: int) -> None:
        """What the next steps are to be, from counts of the last step that they are known of."""
        self.visited += visited
        if self._prune:
            self.kept_share = kept / max(visited, 1)
        grid = self.model.occupancy
        if grid is None:
            return

        if self.step % grid.config.every == 0:
            grid.fade()
            if self._settled:
                with torch.no_grad():
                    surveyed = self._rays(self.sampler.sample(together.part(grid.config.survey), self.generator))
                    survey(self.model, surveyed, self.generator, self.bands)
                if self.exchange is not None:
                    self.exchange.raise_to_highest(grid.values)
                grid.decide()
        if self.config.samples:
            # While rays are full of fog, longer steps buy more of them; as it clears, steps shrink to their own length.
            wish = 0.9 * self.coarsen + 0.1 * self.coarsen * kept / (rays * self.config.crowd)
            self.coarsen = 1.0 if wish < 1.05 else min(wish, LONGEST)
            # Work is what the field is asked for: forward for all that were visited, both ways for those kept.
            work = (visited + 3 * kept) / 4 if self._prune else visited
            wanted = rays * self.config.samples / max(work, 1)
            self.rays = int(min(max(0.8 * self.rays + 0.2 * wanted, 256), 2 * self.config.samples))
        if self.device.type != "cpu":
            self.room = math.ceil(SPARE * kept * together.part(self.rays) / rays / ROOMS) * ROOMS

    def _check(self, totals: dict[str, float]) -> None:
        if not all(map(math.isfinite, totals.values())):
            raise Collapse(f"the loss is no number at step {self.step}")
        self.empty = self.empty + 1 if totals["opacity"] < 1e-3 else 0
        if self.empty >= 300:
            raise Collapse(f"the scene has stayed empty for {self.empty} steps")


def _generator(device: torch.device) -> torch.Generator:
    """A device's own random numbers."""
    return torch.Generator(device)


def _pick(samples: Samples, index: Tensor) -> Samples:
    """Some samples of a pack, in any order; only t, dt and ray keep their meaning."""
    return Samples(samples.t[index], samples.dt[index], samples.offsets, samples.ray[index])
