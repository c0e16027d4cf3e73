"""What is posed: the interface of a problem, and the optional abilities that some problems have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from jaxtyping import Float
from torch import Generator, Tensor

from ._grid import Grid

if TYPE_CHECKING:
    from ._solver import Solver


@dataclass(frozen=True)
class Channel:
    """One physical field: its name (also its variable name in files), unit and a phrase for figures."""

    name: str
    unit: str = "1"
    label: str = ""
    uniform: bool = False  # the same at every node: a scalar parameter of the sample, shown as a constant field

    def __str__(self) -> str:
        return f"{self.label or self.name} [{self.unit}]"


@dataclass(frozen=True)
class Signature:
    """Names and units of what goes in and what comes out.

    A *static* map (``frames == 0``) takes ``batch channel *space`` to ``batch channel *space``. An *evolution*
    (``frames >= 1``) takes the state at time 0 to ``batch time channel *space``: the states at ``spacing``,
    ``2 spacing``, …, ``frames * spacing``. Its inputs begin with its outputs, the state; what follows is *given*:
    fields that do not change in time (a forcing, a coefficient, a parameter).
    """

    inputs: tuple[Channel, ...]
    outputs: tuple[Channel, ...]
    frames: int = 0
    spacing: float = 0.0  # time between frames [time_unit]
    time_unit: str = "1"

    def __post_init__(self) -> None:
        if self.frames < 0 or (self.frames and not self.spacing > 0):
            raise ValueError(
                f"An evolution has frames >= 1 and spacing > 0; got frames {self.frames} and spacing {self.spacing}."
            )
        if self.frames and self.inputs[: len(self.outputs)] != self.outputs:
            raise ValueError(
                "An evolution maps a state to later states: its inputs begin with its outputs, what is given comes "
                f"after; got inputs {[c.name for c in self.inputs]} and outputs {[c.name for c in self.outputs]}."
            )

    @property
    def evolves(self) -> bool:
        return self.frames > 0

    @property
    def given(self) -> tuple[Channel, ...]:
        """What an evolution is told beside its state, constant in time; () for a static map."""
        return self.inputs[len(self.outputs) :] if self.evolves else ()

    @property
    def times(self) -> tuple[float, ...]:
        """The times of the output frames, or () for a static map."""
        return tuple(self.spacing * (i + 1) for i in range(self.frames))

    def with_frames(self, frames: int) -> Signature:
        return replace(self, frames=frames)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; ``uniform`` only where it is true, so that what older versions wrote and hashed stays equal."""
        values = asdict(self)
        for channel in (*values["inputs"], *values["outputs"]):
            if not channel["uniform"]:
                del channel["uniform"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Signature:
        inputs, outputs = (tuple(Channel(**channel) for channel in values[side]) for side in ("inputs", "outputs"))
        return cls(inputs, outputs, values["frames"], values["spacing"], values["time_unit"])


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How a problem is usually judged: the sizes behind ``--preset``.

    resolution   nodes an axis
    train        training samples (trajectories, of an evolution)
    validation   samples that select
    test         samples that judge, and nothing else
    starts       evolutions: frames to judge rollouts from (0 is the initial state); the first is the headline
    horizon      evolutions: frames to judge after a start; 0: all that follow
    seed         of the data and their split: apart from the seed of training, so that all seeds share one test set
    """

    resolution: int
    train: int
    validation: int
    test: int
    starts: tuple[int, ...] = (0,)
    horizon: int = 0
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Problem(ABC):
    """A PDE and a distribution over its inputs. Subclasses are frozen dataclasses of physical parameters."""

    setups: ClassVar[Mapping[str, Setup]]  # "quick" and "paper"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}  # named published parameter sets, for --pde.preset

    @property
    @abstractmethod
    def signature(self) -> Signature: ...

    @abstractmethod
    def grid(self, resolution: int | Sequence[int]) -> Grid:
        """The grid of this problem's domain with the given number of nodes an axis."""

    @abstractmethod
    def sample(self, count: int, grid: Grid, *, generator: Generator) -> Float[Tensor, "batch channel *space"]:
        """Draw inputs from the stated distribution (float64). Same generator state, same samples."""

    @abstractmethod
    def reference(self, **accuracy: Any) -> Solver:
        """The trusted numerical solver. Its docstring states its order."""

    def ladder(self, grid: Grid) -> Mapping[str, Solver]:
        """Cheaper classical solvers of the same problem, by name: the reference on coarser grids and larger steps.

        Each takes and returns fields on ``grid``, so that it stands in a comparison like any other solver.
        The names are what tables and cost-accuracy curves show; order is from cheap to dear.
        """
        return {}

    @property
    def name(self) -> str:
        """The command-line name: the file's."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def kinds(self) -> tuple[type, ...]:
        """The classes whose code the samples follow from, for the key of stored data."""
        return (type(self),)

    def parameters(self) -> dict[str, Any]:
        """The physical parameters, as plain JSON values."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


class WithResidual(ABC):
    """For problems whose equation can be evaluated on a candidate solution."""

    @abstractmethod
    def residual(
        self, inputs: Float[Tensor, "batch channel *space"], outputs: Float[Tensor, "batch *rest"], grid: Grid
    ) -> Float[Tensor, "batch *rest"]:
        """Left side minus right side of the equation, at the nodes; zero for the exact solution."""


class WithExact(ABC):
    """For problems with a solution in closed form for the inputs of their own distribution."""

    @abstractmethod
    def exact(
        self, inputs: Float[Tensor, "batch channel *space"], grid: Grid, times: Sequence[float] | None = None
    ) -> Float[Tensor, "batch *rest"]: ...
