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
error bars, and all with one factor by which 95 % of the errors on samples held out in turn lie within 1.96 deviations.
With M left out it is ridge regression on all principal components.

An evolution is learned as the map from one frame to the next and rolled out; its error bars are those of rolled-out
draws. Methods of this kind: Batlle, Darcy, Hosseini, Owhadi, "Kernel methods are competitive for operator learning"
(2024). The cost is the cube of the number of samples, at most ``samples``; the training grid only is served.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ..data import Dataset
from ..pde import Grid, Problem, Signature, check_fields, frame_numbers
from ..pde._solver import advanced
from ..training import Budget, Callback, History, LearnedSolver
from ._posterior import half_width
from ._regression import covariance, learned, noise_of, principal_directions

LEVEL, FOLDS = 0.95, 5  # of the bands whose width held-out samples set, in so many turns
DRAWS = 64  # behind the standard deviation of an evolution
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
        return self._widths(inputs.double()).to(inputs)

    def _widths(self, inputs: Tensor) -> Tensor:
        part, spread = self.parts, self._spread(inputs)
        within = part["variances"] @ part["output_basis"].square().T + part["remainder"]
        return (spread[:, None] * within).sqrt().unflatten(1, part["output_mean"].shape)

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

    def _rolled(self, inputs: Tensor, times: Sequence[float] | None, generator: Generator | None) -> Tensor:
        wanted = frame_numbers(self.signature.times if times is None else times, self.signature.spacing)
        frames = []
        for _ in range(wanted[-1]):
            frames.append(self._mean(self._cross(inputs)) if generator is None else self._draw(inputs, generator))
            inputs = advanced(inputs, frames[-1])
        return torch.stack([frames[n - 1] for n in wanted], dim=1)

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
        self._solve(centred)
        left_out = self._calibrate(inputs, outputs)
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

    def _solve(self, centred: Tensor) -> None:
        """Weights, factor and scales."""
        part, count = self.parts, len(centred)
        part["factor"] = torch.linalg.cholesky(self._gram())
        inner = centred @ part["output_basis"]
        part["weights"] = torch.cholesky_solve(inner, part["factor"])
        part["variances"] = (inner * part["weights"]).mean(dim=0)
        beyond = (centred - inner @ part["output_basis"].T).square().mean(dim=0)
        # what the kept coordinates miss does not depend on the distance to data: divided by the least spread
        part["remainder"] = beyond / noise_of(part["hyperparameters"]) * (part["output_basis"].shape[1] < count - 1)

    def _calibrate(self, inputs: Tensor, outputs: Tensor) -> float:
        """Widen or narrow the bands by what held-out samples show; returns the mean relative error of these.

        Everything but the five hyperparameters is computed anew without each fold. (Leaving one out in closed form
        keeps the sample in the mean and in the principal directions: with fewer samples than directions it is then
        foretold exactly, and errors ten times too small were measured.) Folds are blocks: frames that follow each other
        stay together.
        """
        folds = torch.arange(len(inputs)) * min(FOLDS, len(inputs)) // len(inputs)
        errors, sizes = [], []
        for fold in folds.unique():
            rest, out = folds != fold, folds == fold
            model = GPOperator(
                self.signature, self.grid, components=self.components, samples=self.samples, nonlinear=self.nonlinear
            )
            model._inputs(inputs[rest])
            centred = model._outputs(outputs[rest])
            model.parts["hyperparameters"] = self.parts["hyperparameters"]
            model._solve(centred)
            difference = model._mean(model._cross(inputs[out])) - outputs[out]
            errors.append(_relative(difference, outputs[out]))
            deviation = model._widths(inputs[out])
            sizes.append((difference.abs() / deviation)[deviation > 0])
        seen = torch.cat(sizes)
        if len(seen):
            rank = math.ceil(LEVEL * len(seen))
            factor = (float(seen.kthvalue(rank).values) / half_width(LEVEL)) ** 2
            self.parts["variances"] *= factor
            self.parts["remainder"] *= factor
        return float(torch.cat(errors).mean())

    def _gram(self) -> Tensor:
        part = self.parts
        z, hyper = part["coordinates"], part["hyperparameters"]
        gram = covariance(z, z, part["input_variances"], hyper, self.nonlinear)
        return gram + noise_of(hyper) * torch.eye(len(z), dtype=torch.float64)

    def _error(self, data: Dataset) -> float:
        inputs, outputs = pairs_of(data, self.samples)
        predicted = torch.cat([self._mean(self._cross(part)) for part in inputs.split(256)])
        return float(_relative(predicted - outputs, outputs).mean())


def _relative(difference: Tensor, truth: Tensor) -> Tensor:
    norms = truth.flatten(1).norm(dim=1).clamp_min(torch.finfo(torch.float64).tiny)
    return difference.flatten(1).norm(dim=1) / norms


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
    states, count = data.trajectories(samples, given=True), len(data.signature.outputs)
    return states[where, chosen % per_sample].double(), states[where, 1 + chosen % per_sample][:, :count].double()


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
