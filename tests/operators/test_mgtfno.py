"""MG-TFNO: patches in turn have the gradients of all at once, at the memory of one; alone or shared by processes."""

from __future__ import annotations

import copy
import subprocess
import sys
import weakref
from collections.abc import Callable

import pytest
import torch
from resolvent.data import Dataset
from resolvent.operators import fno
from resolvent.operators._patching import patching_of
from resolvent.operators.fno import FNO
from resolvent.operators.mgtfno import Patched, Ranks, build
from resolvent.operators.tfno import FactorizedConv
from resolvent.pde import Grid
from resolvent.pde.darcy import Darcy
from resolvent.pde.navier_stokes import NavierStokes
from resolvent.training import Budget, Recipe
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

pytest.importorskip("tltorch")

SPACE = (16, 24)


def patched(at_once: int = 1, *, levels: int = 1, positions: bool = True, **options) -> Patched:
    """A dense network in windows of a rectangular torus; the same weights whatever the options."""
    torch.manual_seed(0)
    network = FNO((levels + 1) * (2 + 2 * positions), 3, modes=4, width=6, layers=2, coordinates=False)
    cutting = patching_of(Grid.box(SPACE), levels, 0.125, **options)
    return in_double(Patched(network, cutting, positions=positions, at_once=at_once))


def in_double(network: Patched) -> Patched:
    """Spectral weights too, which ``Module.double()`` leaves in single precision."""
    for p in network.parameters():
        p.data = p.data.to(torch.complex128 if p.is_complex() else torch.float64)
    return network


def values_and_truth() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    draw = lambda channels: torch.randn(2, channels, *SPACE, dtype=torch.float64, generator=generator)  # noqa: E731
    return draw(2), draw(3)


def gradients(network: Patched) -> dict[str, Tensor]:
    """Of a loss that couples all nodes of the field: a relative norm, not a mean over patches."""
    values, truth = values_and_truth()
    values.requires_grad_()
    answer = network(values)
    ((answer - truth).norm() / truth.norm() + answer.mean().square()).backward()
    assert values.grad is not None
    return {"values": values.grad, "answer": answer.detach()} | {n: p.grad for n, p in network.named_parameters()}


@pytest.mark.parametrize("at_once", [1, 3])
@pytest.mark.parametrize("options", [{}, {"blend": 1.0, "low_pass": True}, {"levels": 2}], ids=str)
def test_patches_in_turn_have_the_gradients_of_all_at_once(at_once, options):
    together, in_turn = gradients(patched(0, **options)), gradients(patched(at_once, **options))
    for name, expected in together.items():
        assert float(expected.abs().max()) > 0, name
        torch.testing.assert_close(in_turn[name], expected, rtol=1e-12, atol=1e-12, msg=name)


def test_a_single_patch_without_margin_is_the_network_itself():
    network = patched(levels=0, positions=False)
    network = Patched(network.network, patching_of(Grid.box(SPACE), 0, 0.0))
    values, _ = values_and_truth()
    torch.testing.assert_close(network(values), network.network(values), rtol=0, atol=0)


def test_without_positions_a_shift_by_a_patch_shifts_the_answer_and_positions_are_those_of_the_domain():
    values, _ = values_and_truth()
    network = patched(positions=False, levels=2)
    moved = network(values.roll((4, 12), (2, 3)))
    torch.testing.assert_close(moved, network(values).roll((4, 12), (2, 3)), rtol=0, atol=1e-12)
    seen: list[Tensor] = []

    class Watching(nn.Module):
        def forward(self, windows: Tensor) -> Tensor:
            seen.append(windows)
            return windows[:, :3]

    Patched(Watching(), network.patching, positions=True)(values)
    assert len(seen) == 16
    x = torch.cat([window[:1, 2, 2:-2, 3] for window in seen[::4]], dim=1)[0]  # margins of 2 and 3 nodes
    torch.testing.assert_close(x, torch.arange(16, dtype=torch.float64) / 16, rtol=0, atol=0)


# ---------------------------------------------------------------------- memory


class Held(TorchDispatchMode):
    """The most bytes that tensors made under it held at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for x in tree_leaves(made):
            if isinstance(x, Tensor) and x.untyped_storage()._cdata not in self.known:
                storage = x.untyped_storage()
                self._count(storage._cdata, storage.nbytes())
                weakref.finalize(storage, self._free, storage._cdata, storage.nbytes())
        return made

    def _count(self, key: int, size: int) -> None:
        self.known.add(key)
        self.now += size
        self.most = max(self.most, self.now)

    def _free(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def held_by(step: Callable[[], None]) -> int:
    with Held() as held:
        step()
    return held.most


def test_the_meter_counts_what_is_held():
    def step() -> None:
        a = torch.ones(1000)  # 4000 bytes
        b = a + 1  # 8000
        del a
        b = b * 2  # 8000 while both are there
        b.view(10, 100)  # no memory of its own

    assert held_by(step) == 8000


def test_sixteen_patches_in_turn_hold_a_seventh_of_the_whole_network_s_activations():
    """At 128², L = 2 and margins of 4 nodes: windows of 40² nodes, 10.2 times fewer; the field itself is in common."""
    torch.manual_seed(0)
    grid = Grid.box(128, dim=2)
    common = {"modes": 12, "width": 16, "layers": 3}
    whole = FNO(1, 1, **common)
    network = FNO(9, 1, **common, coordinates=False, convolution=FactorizedConv)
    cutting = patching_of(grid, 2, 1 / 32)
    values = torch.randn(2, 1, 128, 128)

    def step_of(one: nn.Module) -> Callable[[], None]:
        return lambda: one(values).square().mean().backward()

    one_by_one, at_once = (Patched(network, cutting, positions=True, at_once=n) for n in (1, 0))
    for one in (whole, one_by_one):  # what is remembered once for all is not of the step
        step_of(one)()
    most = {name: held_by(step_of(one)) for name, one in (("whole", whole), ("turn", one_by_one), ("once", at_once))}
    assert most["whole"] > 7 * most["turn"], most
    assert most["once"] > most["whole"], most  # overlapping windows together hold more than the field


# ---------------------------------------------------------------------- in the training loop, and across processes


def small_data(problem: NavierStokes, grid: Grid) -> Dataset:
    inputs = problem.sample(4, grid, generator=torch.Generator().manual_seed(0))
    outputs = problem.reference()(inputs, grid)
    return Dataset.from_tensors(
        inputs.float(), outputs.float(), grid=grid, signature=problem.signature, problem=problem.name
    )


PROCESS = """
import sys
import torch
import torch.distributed as dist
from resolvent.data import Dataset
from resolvent.operators._patching import patching_of
from resolvent.operators.fno import FNO
from resolvent.operators.mgtfno import Patched, Ranks, build
from resolvent.pde import Grid
from resolvent.pde.navier_stokes import NavierStokes
from resolvent.training import Budget, Recipe

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
found = {}
for reduction in ("sum", "average"):
    network, values, truth = torch.load(f"{folder}/given.pt", weights_only=False)
    network.ranks = Ranks(reduction=reduction)
    wrapped = network if reduction == "sum" else torch.nn.parallel.DistributedDataParallel(network)
    values.requires_grad_()
    state = wrapped(values)
    twice = wrapped(torch.cat([values[:, :1], state[:, :1]], dim=1)) if reduction == "sum" else state
    ((twice - truth).norm() / truth.norm()).backward()
    found[reduction] = {n: p.grad for n, p in network.named_parameters()} | {"values": values.grad}
problem = NavierStokes(frames=2)
grid = problem.grid(16)
inputs, outputs = torch.load(f"{folder}/data.pt")
data = Dataset.from_tensors(inputs, outputs, grid=grid, signature=problem.signature, problem=problem.name)
torch.manual_seed(5)
solver = build(problem, grid, modes=6, width=6, layers=2, across_ranks=True, recipe=Recipe(epochs=2, batch=2, unroll=2))
solver.fit(data, validation=data)
found["fitted"] = solver.state()
torch.save(found, f"{folder}/found{rank}.pt")
dist.destroy_process_group()
"""


def test_two_processes_that_share_the_patches_have_the_gradients_of_one(tmp_path):
    """Summed here, or left to DistributedDataParallel; through one step and through two; and the same trained weights."""
    values, truth = values_and_truth()
    network = patched()
    torch.save((network, values, truth), tmp_path / "given.pt")
    problem = NavierStokes(frames=2)
    grid = problem.grid(16)
    data = small_data(problem, grid)
    torch.save(data.read(range(4)), tmp_path / "data.pt")
    command = [sys.executable, "-c", PROCESS]
    started = [
        subprocess.Popen([*command, str(rank), str(tmp_path)], stderr=subprocess.PIPE, text=True) for rank in range(2)
    ]
    for process in started:
        told = process.communicate(timeout=300)[1]
        assert process.returncode == 0, told[-3000:]
    found = [torch.load(tmp_path / f"found{rank}.pt") for rank in range(2)]

    for reduction in ("sum", "average"):
        alone = copy.deepcopy(network)
        values = values_and_truth()[0].requires_grad_()
        state = alone(values)
        state = alone(torch.cat([values[:, :1], state[:, :1]], dim=1)) if reduction == "sum" else state
        ((state - truth).norm() / truth.norm()).backward()
        expected = {n: p.grad for n, p in alone.named_parameters()} | {"values": values.grad}
        for rank in range(2):
            for name, gradient in expected.items():
                torch.testing.assert_close(found[rank][reduction][name], gradient, rtol=1e-10, atol=1e-12, msg=name)
    torch.manual_seed(5)
    solver = build(problem, grid, modes=6, width=6, layers=2, recipe=Recipe(epochs=2, batch=2, unroll=2))
    solver.fit(data, validation=data)
    for name, weight in solver.state().items():
        assert torch.equal(found[0]["fitted"][name], found[1]["fitted"][name]), name
        torch.testing.assert_close(found[0]["fitted"][name], weight, rtol=1e-4, atol=1e-5, msg=name)


def test_without_a_group_one_process_answers_all_patches():
    network = patched()
    values, _ = values_and_truth()
    alone = network(values)
    network.ranks = Ranks()
    assert torch.equal(network(values), alone)


def test_it_fits_in_the_one_loop_whatever_the_patches_at_once():
    problem = NavierStokes(frames=2)
    grid = problem.grid(16)
    data = small_data(problem, grid)
    weights = []
    for at_once in (1, 0):
        torch.manual_seed(2)
        recipe = Recipe(epochs=2, batch=4, clip=0.0)
        solver = build(problem, grid, modes=6, width=6, layers=2, at_once=at_once, blend=0.5, recipe=recipe)
        history = solver.fit(data, validation=data, budget=Budget(epochs=2))
        assert len(history.rows) == 2
        weights.append(solver.state())
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-4, atol=1e-5, msg=name)


# ---------------------------------------------------------------------- grids


def test_other_resolutions_keep_the_windows_physical_size_and_the_answer():
    """Without positions (a saw-tooth on a torus): a smooth field at 32, 64 and 128 nodes; the answers converge."""
    problem = NavierStokes(frames=2)
    torch.manual_seed(3)
    solver = build(problem, problem.grid(32), modes=6, width=6, layers=2, coordinates="none", rank=0.5)
    fields = {}
    for n in (32, 64, 128):
        x, y = problem.grid(n).mesh()
        values = torch.sin(2 * torch.pi * (x + 2 * y)) + 0.5 * torch.cos(2 * torch.pi * (2 * x - y))
        with torch.no_grad():
            fields[n] = solver.network(values[None, None].float())
    errors = [float((fields[2 * n][..., ::2, ::2] - fields[n]).norm() / fields[n].norm()) for n in (32, 64)]
    # windows are not periodic: the network's wrap-around leaves an error of first order in the spacing
    assert errors[1] < 0.65 * errors[0] < 0.65 * 0.1, errors


def test_walls_are_extended_by_the_boundary_condition():
    problem = Darcy()
    solver = build(problem, problem.grid(33), modes=6, width=6, layers=1)
    assert solver.network.patching.edges == (("zero", "zero"),) * 2
    chosen = build(problem, problem.grid(33), modes=6, width=6, layers=1, boundary="reflect")
    assert chosen.network.patching.edges == (("reflect", "reflect"),) * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modes": 20}, r"12 nodes .* works has \(32, 32\) nodes; or use --model.modes 12"),
        ({"levels": 3, "modes": 2}, None),
        ({"levels": 5, "modes": 2}, "16 -> 32"),
        ({"at_once": -1, "modes": 2}, "0 for all"),
        ({"rank": "50"}, "from 1 to"),
    ],
)
def test_what_cannot_be_served_is_refused_with_what_can(options, message):
    problem = NavierStokes(frames=2)
    if message is None:
        build(problem, problem.grid(16), width=4, layers=1, **options)
        return
    with pytest.raises(ValueError, match=message):
        build(problem, problem.grid(16), width=4, layers=1, **options)


def test_more_processes_than_patches_are_refused(monkeypatch):
    monkeypatch.setattr(Ranks, "count", property(lambda ranks: 5))
    with pytest.raises(ValueError, match="at most 4"):
        Ranks().share(list(range(4)))


def test_a_dense_network_in_windows_is_an_option():
    problem = NavierStokes(frames=2)
    dense = build(problem, problem.grid(16), factorization="dense", modes=6, width=6)
    tensor = build(problem, problem.grid(16), rank=0.1, modes=6, width=6)
    assert dense.parameter_count > 3 * tensor.parameter_count
    whole = fno.build(problem, problem.grid(16), modes=6, width=6)
    # one network: only the lifting sees more channels, 2 (1 + 2) instead of 1 + 2
    assert dense.parameter_count - whole.parameter_count == 3 * 2 * 6


EXPORTED = """
import torch
from resolvent.operators.mgtfno import build
from resolvent.pde.navier_stokes import NavierStokes

problem = NavierStokes(frames=2)
network = build(problem, problem.grid(8), modes=2, width=4, layers=1, blend=1.0, low_pass=True).network.eval()
values = torch.randn(2, 1, 8, 8)
expected = network(values)
batch = torch.export.Dim("batch", min=1, max=64)
program = torch.export.export(network, (values,), dynamic_shapes=({0: batch},), strict=False)
torch.testing.assert_close(program.module()(values[:1]), expected[:1], rtol=1e-5, atol=1e-5)
torch.testing.assert_close(network(values), expected)
torch.testing.assert_close(torch.compile(network, backend="aot_eager")(values), expected, rtol=1e-5, atol=1e-5)
print("same")
"""


@pytest.mark.slow
def test_exported_and_compiled_networks_answer_alike():
    told = subprocess.run([sys.executable, "-c", EXPORTED], capture_output=True, text=True, timeout=300, check=False)
    assert told.stdout == "same\n", told.stderr[-3000:]
