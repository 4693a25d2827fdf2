"""What one of two ranks does for tests/test_nerf_together.py: `python -m tests.ranks FOLDER`, with torchrun's variables set.

Everything that it sees goes into FOLDER/<rank>.json and FOLDER/<rank>.safetensors; the test judges it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from data.scene import load_scene
from nerf import exchange, together
from nerf.cli import Options, open_run
from nerf.config import TrainConfig
from nerf.exchange import add_rows, stop, touched_rows
from nerf.presets import preset
from nerf.train import train
from nerf.trainer import Trainer
from nerf.volume import render_rays
from tests.test_nerf_train import small

ROOT = Path(__file__).parent.parent


def start(folder: Path) -> None:
    """Run both ranks to their end; raises with what they said where one fails."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "a job", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.ranks", str(folder)], text=True, stderr=subprocess.STDOUT,
            stdout=subprocess.PIPE, env=os.environ | shared | {"RANK": str(k), "LOCAL_RANK": str(k)},
        )
        for k in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=200)[0] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], "\n".join(said)


def rows_of(rank: int, rows: int = 4000, touched: int = 300) -> Tensor:
    """A gradient of which a rank has touched a few rows; the first ten are both ranks'."""
    generator = torch.Generator().manual_seed(rank)
    gradient = torch.zeros(rows, 4)
    where = torch.randint(10, rows, (touched + 50 * rank,), generator=generator)
    where[:10] = torch.arange(10)
    gradient[where] = torch.randn(len(where), 4, generator=generator)
    return gradient


def one_step(config: TrainConfig, folder: Path) -> tuple[dict[str, float], dict[str, Tensor]]:
    """A step without anything random on a batch of 256 rays, of which a rank takes its share: its terms and gradients."""
    trainer = Trainer(config, load_scene(folder))
    whole = trainer.sampler.sample(config.rays, torch.Generator().manual_seed(5))
    mine = type(whole)(*(None if v is None else v[together.rank() :: together.world()] for v in whole))
    trainer.sampler = mock.Mock(sample=lambda count, _: mine)
    trainer._background = lambda batch: (None, batch.rgb)

    def plain(model, rays, generator, *rest):
        return render_rays(model, rays, None, *rest)

    with mock.patch("nerf.trainer.render_rays", plain):
        terms = trainer.advance()
    return terms, {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}


def without_chance(folder: Path) -> TrainConfig:
    """A preset on the moving ball whose losses look at all samples and at no random points."""
    config = small(preset("instant", True, False), scene=str(folder), rays=256)
    loss = dataclasses.replace(config.loss, elastic_points=0, background=0.0, warp_every=1)
    return dataclasses.replace(config, loss=loss)


def _messages(seen: dict[str, Any], folder: Path) -> None:
    rank = together.rank()
    seen["gathered"] = [data.decode() for data in together.gather(b"x" * (1 + 2 * rank))]
    seen["merged"] = together.merged([f"{item} by {rank}" for item in together.own(["a", "b", "c"])])
    pictures = together.in_turns([0, 1, 2], lambda item: np.full((2, 3), 10 * item + rank, np.uint8))
    seen["pictures"] = [picture.tolist() for picture in pictures]
    seen["anyone"] = [together.anyone(rank == 1), together.anyone(False)]
    seen["part"] = [together.part(count) for count in (7, 8)]
    seen["new"] = together.goes_on(folder, there=rank == 1)
    if rank == 1:
        together.mark(folder)
    together.wait()
    seen["known"] = [together.goes_on(folder, there=rank == 1), together.goes_on(folder, there=False)]


def _sums(tensors: dict[str, Tensor], seen: dict[str, Any]) -> None:
    gradient = rows_of(together.rank())
    touched = touched_rows(gradient)
    counts = [int(data) for data in together.gather(str(len(touched)).encode())]
    seen["row bytes"] = add_rows(gradient, touched, counts)
    whole = rows_of(together.rank())
    together.add(whole)
    tensors |= {"rows": gradient, "whole": whole}


def _runs(seen: dict[str, Any], tensors: dict[str, Tensor], folder: Path) -> None:
    """Stop a run that one rank is told to stop; then the other's folder goes on with it, to its end."""
    rank, scene = together.rank(), load_scene(folder / "still")
    config = small(preset("instant", False, True), rays=64, steps=34)
    at_start, kept = folder / "first run", {0: 0.0, 1: 0.0}
    for progress in (steps := train(config, scene, at_start)):
        kept[progress.step] = progress.terms["kept"]
        if progress.step == 20 and rank == 1:
            stop.ask()
        if stop.now(training=True):
            seen["stopped"] = progress.step
            steps.close()
    together.wait()
    seen["seconds"], seen["kept"] = progress.seconds, list(kept.values())
    seen["drawn"] = float(torch.rand(1, generator=_generator(progress)))
    stop.asked = stop.agreed = False
    other = folder / "second run"  # of the second rank alone: it has the checkpoint, the first rank hasn't
    if rank == 1:
        at_start.rename(other)
    mine = other if rank == 1 else folder / "third run"
    together.wait()
    options = Options(folder / "still", out=mine, resume=True, backend="reference")
    seen["opened"] = open_run(options, lambda _: None)[0].steps
    began = None
    with mock.patch.object(exchange, "LEVEL", 8):
        for progress in train(config, scene, mine, resume=True):
            began = progress.step if began is None else began
    seen["went on at"], seen["ended at"], seen["metrics"] = began, progress.step, progress.metrics
    seen["own bytes"] = progress.metrics["bytes_per_step"]
    tensors |= {f"model.{name}": value for name, value in progress.model.state_dict().items()}


def _generator(progress: Any) -> torch.Generator:
    return progress.model._tests_generator


def main(folder: Path) -> None:
    """Everything that takes two ranks."""
    together.join()
    seen: dict[str, Any] = {"threads": torch.get_num_threads(), "processors": together.processors()}
    tensors: dict[str, Tensor] = {}
    _messages(seen, folder)
    _sums(tensors, seen)
    seen["terms"], gradients = one_step(without_chance(folder / "moving"), folder / "moving")
    tensors |= {f"gradient.{name}": value for name, value in gradients.items()}
    begin = Trainer.__init__

    def watched(self: Trainer, *arguments: Any) -> None:
        begin(self, *arguments)
        object.__setattr__(self.model, "_tests_generator", self.generator)

    no_events = mock.patch("nerf.train._events", lambda _: None)  # slow to import
    with mock.patch.object(Trainer, "__init__", watched), no_events:
        _runs(seen, tensors, folder)
    (folder / f"{together.rank()}.json").write_text(json.dumps(seen))
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / f"{together.rank()}.safetensors")
    together.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
