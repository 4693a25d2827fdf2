"""Adam for a scene's parameters: hash tables take steps only where they have a gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nerf.kernels.backends import Ops


class SceneAdam(torch.optim.Adam):
    """torch's fused Adam; the parameters of a group with "tables": True go through the kernel `adam`.

    The state of both is torch's own, so checkpoints don't depend on which backend wrote them.
    """

    def __init__(self, groups: list[dict[str, Any]], ops: Ops, **settings: Any) -> None:
        super().__init__([{"tables": False} | group for group in groups], fused=True, **settings)
        self.ops = ops

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of every parameter that has a gradient."""
        tables = [
            (group, p, p.grad)
            for group in self.param_groups
            for p in group["params"]
            if group["tables"] and p.grad is not None
        ]
        for _, table, _ in tables:
            table.grad = None  # so that torch's step leaves it alone
        super().step(closure)
        for group, table, gradient in tables:
            self._step_table(group, table, gradient)
            table.grad = gradient

    def _step_table(self, group: dict[str, Any], table: Tensor, gradient: Tensor) -> None:
        state = self.state[table]
        if not state:
            state["step"] = torch.zeros(())  # on the CPU: the host computes with it
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(table), torch.zeros_like(table)
        state["step"] = state["step"].cpu() + 1  # torch takes what a checkpoint gives it to the parameter's device
        means = state["exp_avg"], state["exp_avg_sq"]
        self.ops.adam(
            table, gradient, *means, int(state["step"]), float(group["lr"]), tuple(group["betas"]), group["eps"]
        )
