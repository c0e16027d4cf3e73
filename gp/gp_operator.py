r"""Gaussian-process regression between functions: a peer for operators where data are few, with error bars.

.. math:: u \sim GP(\bar u,\ k(a, a') \otimes s^2 I),\qquad k =
          \theta_0 + \theta_1 \langle z, z'\rangle + M_{5/2}\big(\textstyle\sum_i (z_i - z'_i)^2 / \ell_i^2\big),
          \quad \ell_i^2 = \ell^2 \lambda_i^{\gamma}

z          principal coordinates of the input function, in units of its standard deviation; lambda_i their variances
M          the Matern covariance with nu = 5/2 of a distance between functions; gamma 0: that of L2, gamma 1: whitened
u          the whole output field: a Kronecker product of inputs' and outputs' covariance, identity on the output grid
rho        variance of what no smooth map explains, relative to s²

The logarithms of l, theta_0, theta_1, rho and gamma maximise the marginal likelihood, whose output part needs the Gram
matrix of the output fields only: -n/2 log tr(K^{-1} Y Y^T) - 1/2 log|K|, gradient in closed form. Answers are
combinations of training fields, kept in principal coordinates of the outputs, each with a scale s_i² of its own for the
error bars. With M left out it is ridge regression on all principal components.

An evolution is learned as the map from one frame to the next and rolled out; its error bars are those of rolled-out
draws. Methods of this kind: Batlle, Darcy, Hosseini, Owhadi, "Kernel methods are competitive for operator learning"
(2024). The cost is the cube of the number of samples, at most ``samples``; the training grid only is served.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ..data import Dataset
from ..pde import Grid, Problem, Signature, check_fields, frame_numbers
from ..training import Budget, Callback, History, Interrupted, LearnedSolver
from ._covariance import Matern
from ._likelihood import Minimiser

LEARNING = 400  # samples from which hyperparameters are learned, at most
NEGLIGIBLE = 1e-12  # of the leading variance: rounding of single-precision fields
NUGGET = 1e-10  # the least rho, for a factor that exists
DRAWS = 64  # behind the standard deviation of an evolution
RANGES = ((-4.0, 6.0), (-12.0, 8.0), (-16.0, 8.0), (-23.0, 3.0), (-2.0, 1.5))  # of the five hyperparameters
HYPER = ("log_length", "log_constant", "log_linear", "log_noise", "gamma")
PARTS = (
    "input_mean", "input_scale", "input_basis", "input_variances", "coordinates", "hyperparameters",
    "output_mean", "output_basis", "weights", "factor", "variances", "remainder",
)  # fmt: skip


class GPOperator(LearnedSolver):
    """Kronecker multi-output regression between principal coordinates.

    components   principal coordinates of inputs and of outputs, at most
    samples      training pairs used, at most; evenly spaced ones beyond
    steps        of L-BFGS on the marginal likelihood
    nonlinear    False: the linear part of the covariance only
    """

    def __init__(
        self,
        signature: Signature,
        grid: Grid,
        *,
        components: int = 256,
        samples: int = 1024,
        steps: int = 40,
        nonlinear: bool = True,
    ) -> None:
        if components < 1 or samples < 2 or steps < 1:
            raise ValueError(
                f"gp_operator needs components >= 1, samples >= 2 and steps >= 1; got {components}, {samples}, {steps}."
            )
        self.signature, self.grid = signature, grid
        self.components, self.samples, self.steps, self.nonlinear = components, samples, steps, nonlinear
        self.parts: dict[str, Tensor] = {}

    @property
    def parameter_count(self) -> int:
        """Numbers that the answer depends on; the factor behind error bars follows from them."""
        return sum(value.numel() for name, value in self.parts.items() if name not in ("factor", "remainder"))

    def state(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.parts.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Raises ``ValueError`` for tensors that are not a fitted model of this grid and these channels."""
        if set(state) != set(PARTS):
            raise ValueError(f"Weights of gp_operator are {PARTS}, got {sorted(state)}.")
        sides = (("input", self.signature.inputs), ("output", self.signature.outputs))
        for side, channels in sides:
            expected, mean, basis = (len(channels), *self.grid.shape), state[f"{side}_mean"], state[f"{side}_basis"]
            if tuple(mean.shape) != expected or len(basis) != mean.numel():
                raise ValueError(f"The {side} mean and basis are of shape {expected} here, got {tuple(mean.shape)}.")
        count = len(state["coordinates"])
        if len(state["weights"]) != count or tuple(state["factor"].shape) != (count, count):
            raise ValueError(f"Weights and factor of gp_operator belong to {count} samples and do not fit them.")
        self.parts = {name: value.clone() for name, value in state.items()}

    # ------------------------------------------------------------------ answering

    def __call__(
        self, inputs: Float[Tensor, "batch channel *space"], grid: Grid, times: Sequence[float] | None = None
    ) -> Float[Tensor, "batch *rest"]:
        self._door(inputs, grid)
        if not self.signature.evolves:
            return self._mean(self._cross(inputs.double())).to(inputs)
        return self._rolled(inputs.double(), times, None).to(inputs)

    def deviation(
        self, inputs: Float[Tensor, "batch channel *space"], grid: Grid, times: Sequence[float] | None = None
    ) -> Float[Tensor, "batch *rest"]:
        """The predictive standard deviation at every node; of an evolution, that of ``DRAWS`` rollouts of draws."""
        self._door(inputs, grid)
        if self.signature.evolves:
            return self.sample(DRAWS, inputs, grid, times, generator=torch.Generator().manual_seed(0)).std(dim=0)
        part, spread = self.parts, self._spread(inputs.double())
        within = part["variances"] @ part["output_basis"].square().T + part["remainder"]
        field = (spread[:, None] * within).sqrt()
        return field.unflatten(1, part["output_mean"].shape).to(inputs)

    def sample(
        self,
        count: int,
        inputs: Float[Tensor, "batch channel *space"],
        grid: Grid,
        times: Sequence[float] | None = None,
        *,
        generator: Generator,
    ) -> Float[Tensor, "count batch *rest"]:
        """Draws of the answer; the frames of an evolution pass their errors on."""
        self._door(inputs, grid)
        draws = []
        for _ in range(count):
            if self.signature.evolves:
                draws.append(self._rolled(inputs.double(), times, generator))
            else:
                draws.append(self._draw(inputs.double(), generator))
        return torch.stack(draws).to(inputs)

    def _door(self, inputs: Tensor, grid: Grid) -> None:
        check_fields(inputs, grid, len(self.signature.inputs))
        if not self.parts:
            raise ValueError("gp_operator has not been fitted.")
        if grid.shape != self.grid.shape:
            raise ValueError(
                f"The coordinates of gp_operator are fields on its training grid {self.grid.shape}; it was asked for "
                f"{grid.shape}. Resample the inputs, or train at that resolution."
            )

    def _coordinates(self, inputs: Tensor) -> Tensor:
        part = self.parts
        scaled = (inputs - part["input_mean"]) / part["input_scale"].reshape(-1, *(1,) * self.grid.dim)
        return scaled.flatten(1) @ part["input_basis"]

    def _cross(self, inputs: Tensor) -> Tensor:
        part = self.parts
        left = self._coordinates(inputs)
        return covariance(left, part["coordinates"], part["input_variances"], part["hyperparameters"], self.nonlinear)

    def _mean(self, cross: Tensor) -> Tensor:
        part = self.parts
        field = (cross @ part["weights"]) @ part["output_basis"].T
        return field.unflatten(1, part["output_mean"].shape) + part["output_mean"]

    def _spread(self, inputs: Tensor) -> Tensor:
        """The posterior variance of a sample in units of s_i², what is unexplained included."""
        part = self.parts
        here, hyper = self._coordinates(inputs), part["hyperparameters"]
        own = torch.cat([covariance(z[None], z[None], part["input_variances"], hyper, self.nonlinear)[0] for z in here])
        solved = torch.linalg.solve_triangular(part["factor"], self._cross(inputs).T, upper=False)
        return (own - solved.square().sum(dim=0)).clamp_min(0) + noise_of(hyper)

    def _draw(self, inputs: Tensor, generator: Generator) -> Tensor:
        part, spread = self.parts, self._spread(inputs).sqrt()
        size = (len(inputs), len(part["variances"]))
        white = torch.randn(size, generator=generator, dtype=torch.float64) * part["variances"].sqrt()
        field = (spread[:, None] * white) @ part["output_basis"].T
        return self._mean(self._cross(inputs)) + field.unflatten(1, part["output_mean"].shape)

    def _rolled(self, state: Tensor, times: Sequence[float] | None, generator: Generator | None) -> Tensor:
        wanted = frame_numbers(self.signature.times if times is None else times, self.signature.spacing)
        frames = [state]
        for _ in range(wanted[-1]):
            now = frames[-1]
            frames.append(self._mean(self._cross(now)) if generator is None else self._draw(now, generator))
        return torch.stack([frames[n] for n in wanted], dim=1)

    # ------------------------------------------------------------------ learning

    def fit(
        self,
        data: Dataset,
        *,
        validation: Dataset | None = None,
        budget: Budget = Budget(),  # noqa: B008 - frozen
        callbacks: Sequence[Callback] = (),
        checkpoint: Path | None = None,
    ) -> History:
        """Learn the hyperparameters, then solve: neither a budget nor a checkpoint applies.

        The marginal likelihood selects, so that a validation split is only reported on. The error on the training split
        is that of leaving one out, in closed form.
        """
        started = time.monotonic()
        if data.grid.shape != self.grid.shape:
            raise ValueError(f"gp_operator was built for a grid {self.grid.shape}, the data have {data.grid.shape}.")
        inputs, outputs = pairs_of(data, self.samples)
        if len(inputs) < 2:
            raise ValueError(f"gp_operator needs at least 2 training pairs, got {len(inputs)}.")
        self._inputs(inputs)
        centred = self._outputs(outputs)
        part = self.parts
        hyper = learned(part["coordinates"], part["input_variances"], centred, self.steps, self.nonlinear, callbacks)
        part["hyperparameters"] = hyper
        left_out = self._solve(centred, outputs)
        row = {
            "epoch": 1,
            "step": 1,
            "seconds": time.monotonic() - started,
            "train": left_out,
            "validation": self._error(validation) if validation is not None and len(validation) else left_out,
            "learning_rate": 0.0,
        }
        for callback in callbacks:
            callback.epoch(row)
        return History(rows=[row], status="complete", best_epoch=1, seconds=time.monotonic() - started)

    def _inputs(self, inputs: Tensor) -> None:
        mean = inputs.mean(dim=0)
        scale = (inputs - mean).square().transpose(0, 1).flatten(1).mean(dim=1).sqrt()
        scale = torch.where(scale > 0, scale, torch.ones_like(scale)) * math.sqrt(mean.numel())
        rows = ((inputs - mean) / scale.reshape(-1, *(1,) * self.grid.dim)).flatten(1)
        basis = principal_directions(rows, self.components)
        coordinates = rows @ basis
        variances = coordinates.square().mean(dim=0)
        self.parts = {"input_mean": mean, "input_scale": scale, "input_basis": basis}
        self.parts |= {"input_variances": variances, "coordinates": coordinates}

    def _outputs(self, outputs: Tensor) -> Tensor:
        mean = outputs.mean(dim=0)
        rows = (outputs - mean).flatten(1)
        self.parts |= {"output_mean": mean, "output_basis": principal_directions(rows, self.components)}
        return rows

    def _solve(self, centred: Tensor, outputs: Tensor) -> float:
        """Weights, factor and scales; returns the mean relative error when one sample is left out."""
        part, count = self.parts, len(centred)
        gram = self._gram()
        part["factor"] = torch.linalg.cholesky(gram)
        inner = centred @ part["output_basis"]
        part["weights"] = torch.cholesky_solve(inner, part["factor"])
        part["variances"] = (inner * part["weights"]).mean(dim=0)
        beyond = (centred - inner @ part["output_basis"].T).square().mean(dim=0)
        # what the kept coordinates miss does not depend on the distance to data: divided by the least spread
        part["remainder"] = beyond / noise_of(part["hyperparameters"]) * (part["output_basis"].shape[1] < count - 1)
        residual = torch.cholesky_solve(centred, part["factor"]) / torch.cholesky_inverse(
            part["factor"]
        ).diagonal().reshape(-1, 1)
        norms = outputs.flatten(1).norm(dim=1).clamp_min(torch.finfo(torch.float64).tiny)
        return float((residual.norm(dim=1) / norms).mean())

    def _gram(self) -> Tensor:
        part = self.parts
        z, hyper = part["coordinates"], part["hyperparameters"]
        gram = covariance(z, z, part["input_variances"], hyper, self.nonlinear)
        return gram + noise_of(hyper) * torch.eye(len(z), dtype=torch.float64)

    def _error(self, data: Dataset) -> float:
        inputs, outputs = pairs_of(data, self.samples)
        predicted = torch.cat([self._mean(self._cross(part)) for part in inputs.split(256)])
        norms = outputs.flatten(1).norm(dim=1).clamp_min(torch.finfo(torch.float64).tiny)
        return float(((predicted - outputs).flatten(1).norm(dim=1) / norms).mean())


def pairs_of(data: Dataset, limit: int) -> tuple[Tensor, Tensor]:
    """Evenly spaced (input, output) fields; of an evolution, successive frames."""
    frames = data.signature.frames
    per_sample = max(1, frames)
    total = len(data) * per_sample
    chosen = torch.linspace(0, total - 1, min(limit, total), dtype=torch.float64).round().long()
    if not frames:
        inputs, outputs = data.read(chosen)
        return inputs.double(), outputs.double()
    samples, where = (chosen // per_sample).unique(return_inverse=True)
    states = data.trajectories(samples)
    return states[where, chosen % per_sample].double(), states[where, 1 + chosen % per_sample].double()


def principal_directions(rows: Float[Tensor, "sample node"], count: int) -> Float[Tensor, "node direction"]:
    """Leading orthonormal directions of centred rows, most variance first."""
    small, flipped = (rows @ rows.T, True) if len(rows) <= rows.shape[1] else (rows.T @ rows, False)
    values, vectors = torch.linalg.eigh(small)
    kept = int((values > NEGLIGIBLE * values[-1]).sum()) if float(values[-1]) > 0 else 0
    kept = min(kept, count, len(rows) - 1)
    vectors = vectors[:, len(vectors) - kept :].flip(1)
    # directions of little variance have lost some orthogonality to rounding
    return torch.linalg.qr(rows.T @ vectors)[0] if flipped else vectors.contiguous()


def noise_of(hyper: Tensor) -> Tensor:
    return hyper[3].exp() + NUGGET


def covariance(left: Tensor, right: Tensor, variances: Tensor, hyper: Tensor, nonlinear: bool) -> Tensor:
    """The covariance k between two sets of principal coordinates (see the head of the file)."""
    length, constant, linear, _, gamma = hyper.unbind()
    total = constant.exp() + linear.exp() * left @ right.T
    if not nonlinear or not left.shape[1]:
        return total
    rates = (variances / variances[0]).pow(-0.5 * gamma) * (-length).exp()
    a, b = left * rates, right * rates
    squares = a.square().sum(dim=1)[:, None] + b.square().sum(dim=1) - 2 * a @ b.T
    # rounding below zero is zero distance; there the covariance is flat, whatever the root's slope
    return total + Matern(2.5).lag(squares.clamp_min(1e-24).sqrt())


class _Evidence(torch.autograd.Function):
    """n/2 log tr(K^{-1} G) + 1/2 log|K| for the Gram matrix G of the outputs: minus the profiled log likelihood."""

    @staticmethod
    def forward(ctx, gram: Tensor, outputs: Tensor) -> Tensor:
        factor = torch.linalg.cholesky(gram)
        weighted = torch.cholesky_solve(outputs, factor)
        trace = weighted.diagonal().sum()
        ctx.save_for_backward(factor, weighted, trace)
        return 0.5 * len(gram) * trace.log() + factor.diagonal().log().sum()

    @staticmethod
    def backward(ctx, by: Tensor):
        factor, weighted, trace = ctx.saved_tensors
        both = torch.cholesky_solve(weighted.T, factor)  # K^{-1} G K^{-1}
        return by * 0.5 * (torch.cholesky_inverse(factor) - len(factor) / trace * both), None


def evidence(gram: Tensor, outputs: Tensor) -> Tensor:
    return _Evidence.apply(gram, outputs)


def learned(
    coordinates: Tensor,
    variances: Tensor,
    outputs: Tensor,
    steps: int,
    nonlinear: bool,
    callbacks: Sequence[Callback] = (),
) -> Tensor:
    """The hyperparameters of the largest marginal likelihood on a subset, from two starts (near linear, near local)."""
    chosen = torch.linspace(0, len(coordinates) - 1, min(LEARNING, len(coordinates))).round().long()
    z, rows = coordinates[chosen], outputs[chosen]
    gram = rows @ rows.T
    if not float(gram.diagonal().sum()) > 0:  # all outputs are the same: the mean says everything
        return torch.zeros(len(HYPER), dtype=torch.float64)
    gram = gram / gram.diagonal().mean()
    # rescaled logistic maps keep the search inside the ranges, where the factor exists
    low, high = torch.tensor(RANGES, dtype=torch.float64).T

    def inside(free: Tensor) -> Tensor:
        return low + (high - low) * free.sigmoid()

    def loss(free: Tensor) -> Tensor:
        if any(callback.stop() for callback in callbacks):
            raise Interrupted("Learning was stopped; it starts over when run again.")
        hyper = inside(free)
        matrix = covariance(z, z, variances, hyper, nonlinear)
        return evidence(matrix + noise_of(hyper) * torch.eye(len(z), dtype=torch.float64), gram)

    best: tuple[float, Tensor] | None = None
    for start in ((0.5, -6.0, -2.0, -9.0, 0.3), (2.5, -6.0, 2.0, -9.0, 0.0)):
        share = (torch.tensor(start, dtype=torch.float64) - low) / (high - low)
        free = share.logit().requires_grad_()
        Minimiser([free]).run(functools.partial(loss, free), steps, tolerance=1e-9)
        found = float(loss(free).detach())
        if best is None or found < best[0]:
            best = (found, inside(free.detach()))
    assert best is not None
    return best[1]


def build(
    problem: Problem,
    grid: Grid,
    *,
    components: int = 256,
    samples: int = 1024,
    steps: int = 40,
    nonlinear: bool = True,
) -> GPOperator:
    """Gaussian-process regression between functions.

    components   principal coordinates of inputs and of outputs, at most
    samples      training pairs used, at most
    steps        of the search for hyperparameters
    nonlinear    False: a linear map, ridge regression with its strength from the marginal likelihood
    """
    return GPOperator(problem.signature, grid, components=components, samples=samples, steps=steps, nonlinear=nonlinear)
