"""The factorised FNO: its ranks and counts, its first weights, full rank = dense, factors = dense weight."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import pytest
import torch
from resolvent.kernels import CP, TT, Tucker
from resolvent.kernels._factors import to_dense
from resolvent.operators._fourier import SpectralConv
from resolvent.operators.fno import FNO
from resolvent.operators.tfno import FactorizedConv, build, greatest_ranks, parsed_rank, ranks_of
from resolvent.pde.darcy import Darcy
from resolvent.pde.navier_stokes import NavierStokes
from torch import Tensor

pytest.importorskip("tltorch")

KINDS = ["tucker", "cp", "tt"]


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def exact_tucker(dense: Tensor) -> Tucker:
    return Tucker(dense, tuple(torch.eye(n, dtype=dense.dtype) for n in dense.shape))


def exact_tt(dense: Tensor) -> TT:
    """By singular value decompositions of the unfoldings, one after another, nothing cut off."""
    cores, rest, rank = [], dense, 1
    for n in dense.shape[:-1]:
        u, s, v = torch.linalg.svd(rest.reshape(rank * n, -1), full_matrices=False)
        cores.append(u.reshape(rank, n, -1))
        rest, rank = s[:, None] * v, len(s)
    return TT((*cores, rest.reshape(rank, dense.shape[-1], 1)))


def exact_cp(dense: Tensor) -> CP:
    """Fibres along the longest mode, each times unit vectors of the others: as many terms as there are fibres."""
    longest = max(range(dense.ndim), key=lambda i: dense.shape[i])
    fibres = dense.movedim(longest, -1).flatten(0, -2)
    others = [range(n) for i, n in enumerate(dense.shape) if i != longest]
    where = torch.tensor(list(itertools.product(*others)))
    factors = [torch.eye(len(r), dtype=dense.dtype)[:, where[:, i]] for i, r in enumerate(others)]
    factors.insert(longest, fibres.t())
    return CP(torch.ones(len(fibres), dtype=dense.dtype), tuple(factors))


EXACT = {"tucker": exact_tucker, "cp": exact_cp, "tt": exact_tt}


@torch.no_grad()
def with_weight(convolution: FactorizedConv, weight: CP | Tucker | TT, bias: Tensor) -> None:
    parts = weight.cores if isinstance(weight, TT) else weight.factors
    if convolution.core is not None:
        convolution.core.copy_(weight.core if isinstance(weight, Tucker) else weight.weights)
    for mine, given in zip(convolution.factors, parts, strict=True):
        mine.copy_(given)
    convolution.bias.copy_(bias)


# ---------------------------------------------------------------------- ranks and counts


@pytest.mark.parametrize(
    ("shape", "rank", "expected"),
    [
        ((32, 32, 16, 9), 0.42, (26, 26, 13, 7)),
        ((32, 32, 16, 9), 0.1, (18, 18, 9, 5)),
        ((32, 32, 16, 9), 0.01, (9, 9, 4, 2)),
        ((64, 64, 64, 33), 0.1, (36, 36, 36, 19)),
        ((64, 64, 64, 33), 1.0, (64, 64, 64, 33)),
        ((2, 2, 4, 3), 1.0, (2, 2, 3, 2)),
        ((32, 32, 16, 9), 1, (1, 1, 1, 1)),
        ((32, 32, 16, 9), (3, 4, 5, 6), (3, 4, 5, 6)),
        ((32, 32, 16, 9), "3,4,5,6", (3, 4, 5, 6)),
        ((32, 32, 16, 9), "8", (8, 8, 8, 8)),
    ],
)
def test_tucker_ranks_are_the_documented_ones(shape, rank, expected):
    assert ranks_of(shape, rank, "tucker") == expected


def test_a_share_gives_about_that_share_of_the_parameters():
    """CP: R = round(share prod / sum); trains solve a quadratic; both checked by counting what is held."""
    shape = (32, 32, 16, 9)
    assert ranks_of(shape, 0.42, "cp") == (round(0.42 * math.prod(shape) / sum(shape)),)
    for kind in KINDS:
        held = count(FactorizedConv(32, (16, 9), factorization=kind, rank=0.42)) - 32
        assert abs(held / math.prod(shape) - 0.42) < 0.02, kind


def test_the_published_tucker_layer_has_its_count():
    """Complex numbers: prod r + sum r_n I_n = 63,451 of 147,456; the network as neuraloperator counts it: 266,957."""
    layer = FactorizedConv(32, (16, 9), factorization="tucker", rank=0.42)
    assert count(layer) - 32 == 63_451 == 26 * 26 * 13 * 7 + 32 * 26 * 2 + 16 * 13 + 9 * 7
    problem = Darcy()
    solver = build(problem, problem.grid(61), modes=16, width=32, rank=0.42)
    theirs = pytest.importorskip("neuralop.models").TFNO(
        n_modes=(16, 16), in_channels=1, out_channels=1, hidden_channels=32, rank=0.42
    )
    assert solver.parameter_count == count(theirs) == 266_957


@pytest.mark.parametrize(
    ("kind", "rank", "admissible"),
    [
        ("tucker", 10, "from 1 to 3"),
        ("tucker", 0, "from 1 to 3"),
        ("tucker", (4, 4, 5, 3), r"from 1 to \(4, 4, 4, 3\)"),
        ("tucker", (4, 4), "4, 4, 4, 3"),
        ("cp", 49, "from 1 to 48"),
        ("cp", (3, 3), "from 1 to 48"),
        ("tt", 4, "from 1 to 3"),
        ("tt", (1, 4, 13, 3, 1), r"from 1 to \(1, 4, 12, 3, 1\)"),
        ("tt", (2, 4, 12, 3, 1), r"from 1 to \(1, 4, 12, 3, 1\)"),
        ("tucker", 0.0, r"\(0, 1\]"),
        ("tucker", 1.5, r"\(0, 1\]"),
        ("tucker", "many", "a share like 0.42"),
        ("tucker", "", "a share like 0.42"),
    ],
)
def test_a_rank_out_of_range_is_refused_with_the_admissible_one(kind, rank, admissible):
    with pytest.raises(ValueError, match=admissible):
        ranks_of((4, 4, 4, 3), rank, kind)


def test_the_greatest_ranks_are_enough():
    """Every tensor has them: the exact forms of a random one do not need more."""
    dense = torch.randn(3, 5, 4, 2, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    assert len(exact_cp(dense).weights) == greatest_ranks(dense.shape, "cp")[0]
    assert tuple(core.shape[2] for core in exact_tt(dense).cores) == greatest_ranks(dense.shape, "tt")[1:]
    assert tuple(exact_tucker(dense).core.shape) == greatest_ranks(dense.shape, "tucker")


def test_a_written_rank_keeps_its_kind():
    assert isinstance(parsed_rank("1"), int)
    assert isinstance(parsed_rank("1.0"), float)
    assert parsed_rank("1e-2") == 0.01
    assert parsed_rank([3, 4]) == (3, 4)


# ---------------------------------------------------------------------- the function


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("implementation", ["factorized", "reconstructed"])
def test_full_rank_is_the_dense_network(kind, implementation):
    """Identity factors, SVD, fibres: the same outputs as the FNO with the weight they stand for."""
    torch.manual_seed(0)
    dense = FNO(2, 3, modes=(4, 6), width=4, layers=2).double()
    rank = greatest_ranks((4, 4, 4, 4), kind)
    tensor = FNO(
        2, 3, modes=(4, 6), width=4, layers=2,
        convolution=lambda width, modes, basis: FactorizedConv(
            width, modes, basis, factorization=kind, rank=rank if len(rank) > 1 else rank[0],
            implementation=implementation,
        ),
    ).double()  # fmt: skip
    shared = {name: p for name, p in dense.state_dict().items() if ".convolution." not in name}
    assert not tensor.load_state_dict(shared, strict=False).unexpected_keys
    for ours, theirs in zip(tensor.blocks, dense.blocks, strict=True):
        assert isinstance(theirs.convolution, SpectralConv)
        with_weight(ours.convolution, EXACT[kind](theirs.convolution.weight.detach()), theirs.convolution.bias)
    values = torch.randn(2, 2, 10, 12, dtype=torch.float64)
    # spectral weights stay complex64 under .double(): products of factors round at 1e-7
    torch.testing.assert_close(tensor(values), dense(values), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("basis", [("fourier", "fourier"), ("sine", "cosine")])
def test_factorized_is_reconstructed_in_values_and_gradients(kind, separable, basis):
    torch.manual_seed(1)
    options = {"factorization": kind, "rank": 0.5, "separable": separable}
    one = FactorizedConv(6, (4, 3), basis, **options)
    other = FactorizedConv(6, (4, 3), basis, implementation="reconstructed", **options)
    other.load_state_dict(one.state_dict())
    values = torch.randn(3, 6, 9, 10)
    answers = [layer(values) for layer in (one, other)]
    torch.testing.assert_close(*answers, rtol=1e-5, atol=1e-5)
    for answer in answers:
        answer.square().sum().backward()
    for (name, p), q in zip(one.named_parameters(), other.parameters(), strict=True):
        assert float(p.grad.abs().max()) > 0, name
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-5 * float(q.grad.abs().max()))


def test_a_separable_layer_is_diagonal_in_channels():
    torch.manual_seed(2)
    layer = FactorizedConv(3, (5,), rank=0.8, separable=True).double()
    values = torch.randn(1, 3, 12, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(layer, values)[0, :, :, 0]  # c_out x c_in x'
    size = jacobian.abs().amax(dim=(1, 3))
    assert float((size - size.diag().diag()).max()) == 0
    assert float(size.diag().min()) > 0
    mixing = FactorizedConv(3, (5,), rank=0.8).double()
    assert float(torch.autograd.functional.jacobian(mixing, values)[0, 0, :, 0, 1].abs().max()) > 0


@pytest.mark.parametrize(("kind", "start"), [("tucker", "tensorly"), ("cp", "tensorly"), ("tt", "even")])
def test_first_weights_have_the_dense_network_s_deviation(kind, start):
    """Within 10 % of sqrt(2 / (C + C)), over many draws: the factors of one are shared by all of its entries."""
    torch.manual_seed(3)
    squares = [
        to_dense(FactorizedConv(16, (8, 5), factorization=kind, rank=0.2, start=start).weight).abs().square().mean()
        for _ in range(60)
    ]
    assert abs(float(torch.stack(squares).detach().mean().sqrt()) * math.sqrt(16) - 1) < 0.1


def test_first_weights_of_a_published_train_are_smaller_by_the_root_of_its_ranks():
    torch.manual_seed(4)
    made = [FactorizedConv(16, (8, 5), factorization="tt", rank=0.2) for _ in range(60)]
    mean = torch.stack([to_dense(layer.weight).abs().square().mean() for layer in made]).detach().mean().sqrt()
    assert abs(float(mean) * math.sqrt(16 * math.prod(made[0].ranks)) - 1) < 0.1


def test_the_same_function_at_twice_the_resolution():
    """Of a band-limited input, without coordinates; what differs is the aliasing of GELU."""
    torch.manual_seed(5)
    x = torch.arange(64, dtype=torch.float64) / 64
    values = torch.sin(2 * math.pi * (x[:, None] + 2 * x))[None, None]
    network = FNO(1, 1, modes=8, width=8, layers=2, coordinates=False, convolution=FactorizedConv).double()
    fine, coarse = network(values), network(values[..., ::2, ::2])
    assert float((fine[..., ::2, ::2] - coarse).detach().abs().max()) < 1e-5 * float(fine.detach().abs().max())


@pytest.mark.parametrize("kind", KINDS)
def test_weights_survive_a_state_dict_of_tensors(kind):
    problem = NavierStokes(frames=2)
    solvers = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        solvers.append(build(problem, problem.grid(16), modes=8, width=6, factorization=kind, rank="0.3"))
    inputs = problem.sample(2, problem.grid(16), generator=torch.Generator().manual_seed(0)).float()
    first, second = solvers
    assert all(isinstance(value, Tensor) for value in first.state().values())
    with torch.no_grad():
        assert not torch.equal(first(inputs, problem.grid(16)), second(inputs, problem.grid(16)))
        second.restore(first.state())
        assert torch.equal(first(inputs, problem.grid(16)), second(inputs, problem.grid(16)))


def test_more_modes_than_nodes_are_refused_with_the_grid_that_works():
    problem = Darcy()
    with pytest.raises(ValueError, match=r"--model\.modes 13"):
        build(problem, problem.grid(13), modes=16)


COMPILED = """
import torch
from resolvent.operators.fno import FNO
from resolvent.operators.tfno import FactorizedConv

torch.manual_seed(0)
network = FNO(1, 1, modes=4, width=4, layers=1, convolution=FactorizedConv).eval()
values = torch.randn(2, 1, 8, 10)
expected = network(values)
torch.testing.assert_close(torch.compile(network, backend="aot_eager")(values), expected, rtol=1e-5, atol=1e-5)
batch = torch.export.Dim("batch", min=1, max=64)
program = torch.export.export(network, (values,), dynamic_shapes=({0: batch},), strict=False)
torch.testing.assert_close(program.module()(values[:1]), expected[:1], rtol=1e-5, atol=1e-5)
torch.testing.assert_close(program.module()(values.repeat(3, 1, 1, 1)), expected.repeat(3, 1, 1, 1), rtol=1e-5, atol=1e-5)
print("same")
"""


@pytest.mark.slow
def test_compiled_and_exported_networks_answer_alike():
    """In a process of its own, without the shape checker, which no compiler can follow; the batch may have any size."""
    told = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, timeout=300, check=False)
    assert told.stdout == "same\n", told.stderr[-3000:]
