"""Speed of fields: derivatives against the plain forward pass, and a fit of 512² values against the published SIREN.

Goals: value, gradient and Laplacian cost at most twice the plain forward pass for each array that they return, and no
more than by nested reverse passes; a step of our fit costs no more than one of the published network, equal settings.

    python benchmarks/fields_speed.py [--check] [--quick] [--only TABLE ...] [--json FILE]

One thread, single precision, processor seconds; the two that are compared run in turn, and the median of the ratios
counts. Rows go to ``benchmarks/results/fields_speed.json`` as they come, the table to ``fields_speed.md``.

derivatives   256 x 4 sines of two and of three coordinates at 16,384 points: u, its dim slopes and its Laplacian are
              2 + dim arrays; ``forward``: u alone. With and without the gradient by the weights of the mean square of
              all that was computed. ``nested``: by reverse passes over positions, twice, as the published code does
fit           198,401 weights (256 sines, 1 + 3 layers, omega 30), all 262,144 nodes at once, Adam of 1e-4, mean
              square error: by ``resolvent.fields.fit``, and the published network as a user of plain torch runs it
"""

from __future__ import annotations

import functools
import itertools
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import _rows
import torch
from resolvent.evaluation._machine import machine, versions
from resolvent.fields import siren
from resolvent.fields._fit import Plan, fit, gridded
from resolvent.pde import Grid
from torch import Tensor, nn

REPEATS = 5
TWICE = 2.0  # times a plain forward pass, for each array
TABLES = ("derivatives", "fit")


class Published(nn.Module):
    """The layers of the release in plain torch: sin(30 (W x + b)), its bounds of the weights, torch's of biases."""

    def __init__(self, dim: int, width: int, hidden: int) -> None:
        super().__init__()
        sizes = [dim, *[width] * (hidden + 1), 1]
        self.layers = nn.ModuleList()
        for level, (c_in, c_out) in enumerate(itertools.pairwise(sizes)):
            layer, limit = nn.Linear(c_in, c_out), math.sqrt(6 / c_in) / 30 if level else 1 / dim
            nn.init.uniform_(layer.weight, -limit, limit)
            self.layers.append(layer)

    def forward(self, points: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            points = torch.sin(30 * layer(points))
        return self.layers[-1](points)


def seconds(function: Callable[[], Any]) -> float:
    begun = time.process_time()
    function()
    return time.process_time() - begun


def ratios(ours: Callable[[], Any], theirs: Callable[[], Any], repeats: int) -> dict[str, Any]:
    """Medians, of one after the other; the first pair is not counted."""
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(repeats + 1)][1:]
    of_each = [a / b for a, b in pairs]
    spread = max(of_each) - min(of_each)
    told = {"ours": statistics.median(a for a, _ in pairs), "theirs": statistics.median(b for _, b in pairs)}
    where = {"machine": machine(), "torch": versions().get("torch")}
    return {"ratio": statistics.median(of_each), "spread": spread, **told, **where}


def derivatives(dim: int, learn: bool, rival: str, quick: bool) -> dict[str, Any]:
    """Our pass against the plain one, or against nested reverse passes."""
    count = 256 if quick else 16_384
    field = siren.field(Grid.box((8,) * dim, dim=dim, lower=-1.0, boundary="dirichlet"), width=256, layers=4)
    points = 2 * torch.rand(count, dim, generator=torch.Generator().manual_seed(0)) - 1

    def told(parts: tuple[Tensor, ...]) -> None:
        if learn:
            sum(part.square().mean() for part in parts).backward()  # type: ignore[union-attr] # there is one at least

    def run(parts: Callable[[], tuple[Tensor, ...]], gradients: bool) -> None:
        field.zero_grad()
        with torch.set_grad_enabled(gradients):
            told(parts())

    def nested() -> tuple[Tensor, ...]:
        x = points.clone().requires_grad_()
        u = field.jet(x).value
        slope = torch.autograd.grad(u.sum(), x, create_graph=True)[0]
        bends = [torch.autograd.grad(slope[:, j].sum(), x, create_graph=True)[0][:, j] for j in range(dim)]
        return u, slope, torch.stack(bends).sum(dim=0)

    def plain() -> tuple[Tensor, ...]:
        return (field.jet(points).value,)

    theirs = functools.partial(run, nested, True) if rival == "nested" else functools.partial(run, plain, learn)
    row = ratios(functools.partial(run, lambda: field.value_gradient_laplacian(points), learn), theirs, REPEATS)
    return {**row, "arrays": 2 + dim}


def one_fit(quick: bool) -> dict[str, Any]:
    """Steps of both; the values are waves, which the time does not depend on."""
    n, width, steps = (32, 16, 2) if quick else (512, 256, 2)
    grid = Grid.box((n, n), dim=2, lower=-1.0, boundary="dirichlet")
    values = torch.sin(9 * grid.mesh(dtype=torch.float32)).prod(dim=0)[None]
    samples = gridded(values, grid)
    field = siren.field(grid, width=width, layers=4)
    network = Published(2, width, 3)
    if (ours := sum(p.numel() for p in field.parameters())) != (theirs := sum(p.numel() for p in network.parameters())):
        raise ValueError(f"The two networks have {ours} and {theirs} weights: these are not equal settings.")
    plan = Plan(steps=steps, learning_rate=1e-4, schedule="constant", holdout=0)

    def published() -> None:
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
        for _ in range(steps):
            optimizer.zero_grad()
            (network(samples.points) - samples.values).square().mean().backward()
            optimizer.step()

    return ratios(lambda: fit(field, samples, plan), published, 1 if quick else 3)


CASES: dict[str, Callable[[bool], dict[str, Any]]] = {
    f"derivatives/{dim}-d {kind} {rival}": functools.partial(derivatives, dim, kind == "learning", rival)
    for dim in (2, 3)
    for kind in ("evaluating", "learning")
    for rival in ("forward", "nested")
} | {"fit/512² published": one_fit}


def goals(runs: Mapping[str, Any]) -> list[str]:
    """Those that fall short."""
    short = []
    for key, row in runs.items():
        limit = TWICE * row["arrays"] if key.endswith("forward") else 1.0
        if row["ratio"] > limit:
            short.append(f"{key}: {row['ratio']:.2f} times, the goal is {limit:g}")
    return short


def page(runs: Mapping[str, Any]) -> str:
    first = next(iter(runs.values()))
    lines = ["| case | ours [s] | against [s] | ratio (spread) | for each array |", "|---" * 5 + "|"]
    for key, row in runs.items():
        each = f"{row['ratio'] / row['arrays']:.2f}" if key.endswith("forward") else ""
        ratio = f"{row['ratio']:.2f} ({row['spread']:.2g})"
        lines.append(f"| {key} | {row['ours']:.3g} | {row['theirs']:.3g} | {ratio} | {each} |")
    short = "\n".join(f"Falls short: {line}." for line in goals(runs)) or "All goals are met by the rows that are here."
    head = f"# Speed of fields\n\n`python benchmarks/fields_speed.py`; {first['machine']}, torch {first['torch']}"
    return "\n".join([f"{head}, one thread, processor seconds.\n", *lines, "", short, ""])


def main() -> int:
    quick = "few points, small networks: whether it runs at all"
    options = _rows.parser(__doc__, quick, [0], only=TABLES).parse_args()
    torch.set_num_threads(1)
    rows = _rows.Rows(_rows.place("fields_speed", options), page)
    for key, measure in CASES.items():
        if key.partition("/")[0] in options.only:
            rows.once(key, functools.partial(measure, options.quick), lambda row: f"{row['ratio']:.2f} times")
    print(page(rows.kept))
    return _rows.verdict(goals(rows.kept), options)


if __name__ == "__main__":
    sys.exit(main())
