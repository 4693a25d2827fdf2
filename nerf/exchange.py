"""What ranks tell each other in a training step: counts, losses, and the gradients' sums."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from nerf import together
from nerf.late import Term

ROW = 4  # bytes of a row's number
NUMBERS = 2  # before the flags of the small parameters and the tables' counts
LEVEL = 256  # steps after which parameters are made equal again, which different processors' rounding drives apart


class Told(NamedTuple):
    """What a step came to over all ranks: its terms, counts among them, and the first rank's seconds."""

    terms: list[Term]
    seconds: float


class Exchange:
    """Makes a step of several ranks one: every rank has the sums of all afterwards, the same bits.

    Two messages. The first holds all small gradients and, before them, the numbers; it also says how many rows of each
    table every rank has touched, so that all choose alike how tables travel in the second: whole, or as touched rows.

    Attributes:
        sent: bytes that this rank has handed to others, by what a ring needs (nerf/together.py's libraries use rings):
            2 (n - 1) / n of what is added up among n ranks, n - 1 times what is collected.
        steps: how many steps they are of.
        took: seconds of this rank's last step, told in the next one.
    """

    def __init__(self, model: nn.Module) -> None:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.tables = [p for name, p in named if name.endswith("grid.table")]
        self.small = [p for name, p in named if not name.endswith("grid.table")]
        self.sent = self.steps = 0
        self.took = 0.0

    @property
    def bytes_per_step(self) -> int:
        """Bytes that this rank has sent, a step, in the mean."""
        return round(self.sent / max(self.steps, 1))

    def step(self, terms: list[Term]) -> Told:
        """Add up a step over the ranks: its numbers, returned, and its gradients, in place."""
        names = list(dict.fromkeys(term.name for term in terms))
        device = next(t.value.device for t in terms if isinstance(t.value, Tensor))
        sums = [torch.stack([_share(t, device) for t in terms if t.name == name]).sum() for name in names]
        touched = [None if p.grad is None else touched_rows(p.grad) for p in self.tables]
        head = self._head(touched)
        whole = torch.cat([torch.tensor(head).to(device), torch.stack(sums), *(_flat(p) for p in self.small)])
        sent = whole.to(together.wire(device))
        together.add(sent)
        self.sent += _added(sent)
        whole = sent.to(device)
        told = whole[: len(head)].tolist()
        self._take(told, whole[len(head) + len(names) :])
        for k, table in enumerate(self.tables):
            begin = NUMBERS + len(self.small) + k * together.world()
            counts = told[begin : begin + together.world()]
            if any(counts):
                self._add_table(table, touched[k], [int(count) for count in counts])
        self.steps += 1
        if self.steps % LEVEL == 0:
            self._level(device)
        values = whole[len(head) : len(head) + len(names)].unbind()
        stop.agreed = told[0] > 0
        return Told([Term(n, v) for n, v in zip(names, values)], told[1])

    def _head(self, touched: list[Tensor | None]) -> list[float]:
        """Numbers beside a step's terms. Last, the tables' counts, each rank's at its place."""
        head = [float(stop.asked), self.took if together.first() else 0.0]
        head += [float(p.grad is not None) for p in self.small]
        for rows in touched:
            counts = [0.0] * together.world()
            counts[together.rank()] = 0.0 if rows is None else float(len(rows))
            head += counts
        return head

    def _take(self, told: list[float], flat: Tensor) -> None:
        """Give the small parameters their gradients' sums; one that had none on any rank keeps none."""
        parts = flat.split([p.numel() for p in self.small])
        for p, had, values in zip(self.small, told[NUMBERS:], parts):
            p.grad = values.view_as(p) if had else None

    def _add_table(self, table: nn.Parameter, rows: Tensor | None, counts: list[int]) -> None:
        gradient = torch.zeros_like(table) if table.grad is None else table.grad
        ranks = len(counts)
        a_row = ROW + gradient[0].nbytes
        if (ranks - 1) * max(counts) * a_row < 2 * (ranks - 1) * gradient.nbytes / ranks:
            none = torch.zeros(0, dtype=torch.int64, device=gradient.device)
            self.sent += add_rows(gradient, none if rows is None else rows, counts)
        else:
            sent = gradient.to(together.wire(gradient.device))
            together.add(sent)
            self.sent += _added(sent)
            gradient.copy_(sent)
        table.grad = gradient

    @torch.no_grad()
    def _level(self, device: torch.device) -> None:
        whole = torch.cat([p.flatten() for p in (*self.small, *self.tables)]).to(together.wire(device))
        together.follow_first(whole)
        self.sent += whole.nbytes if together.first() else 0
        parts = whole.to(device).split([p.numel() for p in (*self.small, *self.tables)])
        for p, values in zip((*self.small, *self.tables), parts):
            p.copy_(values.view_as(p))

    def raise_to_highest(self, values: Tensor) -> None:
        """Values such as an occupancy grid's become the highest that any rank has seen."""
        together.raise_to_highest(values)
        self.sent += _added(values)


class Stop:
    """Whether a run has been told to end.

    Ranks are told at different moments, and a rank that left alone would leave the others waiting for it: so all leave
    after the step in which they hear of it.
    """

    def __init__(self) -> None:
        self.asked = self.agreed = False

    def ask(self) -> None:
        """This process is told to end its run."""
        self.asked = True

    def now(self, training: bool) -> bool:
        """Whether to end here; `training`: the ranks take steps together."""
        return self.agreed if training and not together.alone() else self.asked


stop = Stop()


def touched_rows(gradient: Tensor) -> Tensor:
    """Numbers of the rows of a gradient "rows features" that aren't 0 throughout."""
    # Eight bytes at a time: half the time of asking every number.
    wide = gradient.view(torch.int64) if gradient.shape[1] % 2 == 0 and gradient.is_contiguous() else gradient != 0
    any_bit = wide[:, 0]
    for column in wide.unbind(1)[1:]:
        any_bit = any_bit | column
    return any_bit.nonzero().squeeze(1)


def add_rows(gradient: Tensor, rows: Tensor, counts: list[int]) -> int:
    """Add up a gradient of which every rank has touched a few rows. Returns the bytes sent.

    Args:
        gradient: "rows features", float32; 0 outside of `rows`; added to in place.
        rows: the rows that this rank has touched.
        counts: how many each rank has.
    """
    most, width = max(counts), gradient.shape[1]
    mine = torch.zeros(most * (1 + width), dtype=torch.int32, device=gradient.device)
    mine[: len(rows)] = rows.int()
    mine[most : most + len(rows) * width] = gradient[rows].view(torch.int32).flatten()
    found = together.collect(mine.to(together.wire(gradient.device)))
    gradient[rows] = 0
    for values, count in zip(found, counts):  # in the ranks' order on all of them, so that sums have the same bits
        values = values.to(gradient.device)
        index, theirs = values[:count].long(), values[most : most + count * width]
        gradient[index] += theirs.view(gradient.dtype).view(count, width)
    return (len(counts) - 1) * mine.nbytes


def _share(term: Term, device: torch.device) -> Tensor:
    """A term's part of its sum; a float32 holds counts up to 16 million."""
    return torch.as_tensor(term.value, dtype=torch.float32, device=device).detach() * term.share


def _flat(p: nn.Parameter) -> Tensor:
    return torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten()


def _added(values: Tensor) -> int:
    return 2 * (together.world() - 1) * values.nbytes // together.world()
