"""Solvers that learn: the interface, and what those of one module share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..data import Dataset
from ..pde import Solver
from ._callback import Callback
from ._loop import History
from ._recipe import Budget


class LearnedSolver(Solver):
    """A solver that is fitted to data before it answers."""

    @abstractmethod
    def fit(
        self,
        data: Dataset,
        *,
        validation: Dataset | None = None,
        budget: Budget = Budget(),  # noqa: B008 - frozen
        callbacks: Sequence[Callback] = (),
        checkpoint: Path | None = None,
    ) -> History:
        """Learn from the training split; ``validation`` selects, test data never come here."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Everything that fitting has determined, as named tensors (what ``model.safetensors`` holds)."""

    @abstractmethod
    def restore(self, state: dict[str, Tensor]) -> None:
        """The inverse of :meth:`state`; refuses tensors that do not fit."""

    @property
    @abstractmethod
    def parameter_count(self) -> int:
        """Learned numbers; a complex one counts as one."""


class ModuleSolver(LearnedSolver):
    """A learned solver whose whole state is that of one torch ``module``."""

    module: nn.ModuleDict

    def to(self, device: torch.device | str) -> ModuleSolver:
        self.module.to(device)
        return self

    def state(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.module.state_dict().items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        try:
            self.module.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f"These weights do not fit the model: {str(error).splitlines()[-1].strip()}") from error
        self.module.eval()
