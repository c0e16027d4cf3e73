r"""The symbolic code of an almost-linear recurrence, and what is exact about it because every piece is affine.

A state's symbol is the number whose bits say which rectified units are active; in the region of symbol s the map is
:math:`z \mapsto J_s z + h`, :math:`J_s = \mathrm{diag}(a) + W D_s`. So

    fixed points   z = (I - J_s)^{-1} h, real where z lies in the region it was computed for, virtual elsewhere
    cycles         the same of a product of the J along a word; words come from close returns of an orbit
    exponents      QR along the orbit: the Jacobians are known exactly, nothing is differentiated

    block entropies H_L of words of length L; the entropy rate H_L - H_{L-1} (bits a step) falls to that of the source.
    topological entropy: log2 of the spectral radius of the graph of words that were seen to follow each other.

An orbit visits few of the 2^P regions; shares and transitions are estimates from it, not properties of the map.
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex, Float, Int64
from torch import Tensor

from ._al_rnn import Recurrence

CANDIDATES, KEPT = 60, 3  # close returns of each length that are looked at, and tried
INSIDE = 1e-9  # by how much, relative to the state, a point may be beyond the border of its region


@dataclass(frozen=True)
class Code:
    """An orbit as symbols.

    symbols       one a step
    visited       those that occur, the most frequent first; ``shares`` of the time; ``transitions``: probabilities,
                  row to column, in this order
    regions       that the map has, 2^P
    """

    symbols: Int64[Tensor, " time"]
    visited: tuple[int, ...]
    shares: tuple[float, ...]
    transitions: Float[Tensor, "symbol symbol2"]
    regions: int

    def entropy_rate(self, length: int) -> float:
        """H_L - H_{L-1} of the words of the orbit [bits a step]; needs many more steps than there are words."""
        if not 1 <= length < len(self.symbols):
            raise ValueError(f"Words of 1 to {len(self.symbols) - 1} symbols can be counted, not {length}.")
        return block_entropy(self.symbols, length) - block_entropy(self.symbols, length - 1)

    def topological_entropy(self, length: int = 1) -> float:
        """log2 of the growth of the number of words, from which words of this length follow which [bits a step]."""
        words = self._words(length)
        follow = set(zip(words, words[1:], strict=False))
        seen = {word: i for i, word in enumerate(sorted(set(words)))}
        graph = np.zeros((len(seen), len(seen)))
        for one, next_ in follow:
            graph[seen[one], seen[next_]] = 1
        return float(np.log2(max(1.0, np.abs(np.linalg.eigvals(graph)).max())))

    def _words(self, length: int) -> list[tuple[int, ...]]:
        values = self.symbols.tolist()
        return [tuple(values[i : i + length]) for i in range(len(values) - length + 1)]


def block_entropy(symbols: Int64[Tensor, " time"], length: int) -> float:
    """Of the words of this length [bits]."""
    if length == 0:
        return 0.0
    windows = symbols.unfold(0, length, 1)
    _, counts = windows.unique(dim=0, return_counts=True)
    shares = counts.double() / counts.sum()
    return float(-(shares * shares.log2()).sum())


def symbols_of(recurrence: Recurrence, states: Float[Tensor, "*batch unit"]) -> Int64[Tensor, "*batch"]:
    """The number of the region of each state; the last unit is the lowest bit."""
    if recurrence.rectified > 60:
        raise ValueError(f"Symbols are numbers below 2^60, and there are {recurrence.rectified} rectified units.")
    powers = 2 ** torch.arange(recurrence.rectified - 1, -1, -1)
    return (recurrence.regions(states).long() * powers).sum(dim=-1)


def code_of(recurrence: Recurrence, states: Float[Tensor, "time unit"]) -> Code:
    """The symbolic code of one orbit."""
    symbols = symbols_of(recurrence, states)
    counted = Counter(symbols.tolist()).most_common()
    visited = tuple(symbol for symbol, _ in counted)
    place = {symbol: i for i, symbol in enumerate(visited)}
    steps = torch.zeros(len(visited), len(visited), dtype=torch.float64)
    sequence = symbols.tolist()
    for one, next_ in zip(sequence, sequence[1:], strict=False):
        steps[place[one], place[next_]] += 1
    transitions = steps / steps.sum(dim=1, keepdim=True).clamp_min(1)
    shares = tuple(count / len(states) for _, count in counted)
    return Code(symbols, visited, shares, transitions, 2**recurrence.rectified)


@dataclass(frozen=True)
class Cycle:
    """A periodic orbit (of length 1: a fixed point) with its word of symbols.

    multipliers   eigenvalues of the product of Jacobians: it repels where one is larger than 1
    real          whether its states lie in the regions of its word; elsewhere it is virtual: it shapes the flow of a
                  region from outside
    """

    word: tuple[int, ...]
    states: Float[Tensor, "length unit"]
    multipliers: Complex[Tensor, " unit"]
    real: bool


@torch.no_grad()
def cycle_of(recurrence: Recurrence, word: tuple[int, ...], push: Tensor | None = None) -> Cycle | None:
    """The cycle that runs through these regions in turn; None where the word has none (an eigenvalue 1)."""
    exact = _double(recurrence)
    offset = exact.offset if push is None else push.double()
    jacobians = [exact.jacobian(region_of(exact, symbol)) for symbol in word]
    total, shift = torch.eye(exact.units, dtype=torch.float64), torch.zeros(exact.units, dtype=torch.float64)
    for jacobian in jacobians:
        total, shift = jacobian @ total, jacobian @ shift + offset
    matrix = torch.eye(exact.units, dtype=torch.float64) - total
    if float(torch.linalg.cond(matrix)) > 1e12:
        return None
    states = [torch.linalg.solve(matrix, shift)]
    for jacobian in jacobians[:-1]:
        states.append(jacobian @ states[-1] + offset)
    path = torch.stack(states)
    return Cycle(word, path, torch.linalg.eigvals(total), _inside(exact, path, word))


def fixed_points(recurrence: Recurrence, symbols: tuple[int, ...], push: Tensor | None = None) -> list[Cycle]:
    """Of each of these regions, real or virtual."""
    found = (cycle_of(recurrence, (symbol,), push) for symbol in symbols)
    return [cycle for cycle in found if cycle is not None]


def cycles(
    recurrence: Recurrence,
    states: Float[Tensor, "time unit"],
    *,
    shortest: int,
    longest: int,
    tries: int = 200,
    push: Tensor | None = None,
) -> list[Cycle]:
    """Real cycles near an orbit: words of its closest returns after ``shortest`` ... ``longest`` steps, solved exactly.

    The shortest first; each of a family of shifted words once, and none that is a shorter one repeated.
    """
    if not 1 <= shortest <= longest < len(states):
        raise ValueError(f"Returns after 1 to {len(states) - 1} steps can be seen, not {shortest} to {longest}.")
    symbols = symbols_of(recurrence, states).tolist()
    found: dict[tuple[int, ...], Cycle] = {}
    tried: set[tuple[int, ...]] = set()
    for start, length in _returns(states, symbols, shortest, longest, tries):
        word = tuple(symbols[start : start + length])
        name = _rotated(word)
        if name in tried:
            continue
        tried.add(name)
        cycle = cycle_of(recurrence, word, push)
        if cycle is not None and cycle.real:
            found[name] = cycle
    return sorted(found.values(), key=lambda cycle: len(cycle.word))


def _returns(states: Tensor, symbols: list[int], shortest: int, longest: int, count: int) -> list[tuple[int, int]]:
    """(start, length) of the closest returns of each length, closest first over all lengths."""
    each: list[tuple[float, int, int]] = []
    scale = float(states.std(dim=0).norm()) or 1.0
    for length in range(shortest, longest + 1):
        gaps = (states[length:] - states[:-length]).norm(dim=1) / scale
        near = gaps.topk(min(CANDIDATES, len(gaps)), largest=False)
        pairs = [(float(v), int(i), length) for v, i in zip(near.values, near.indices, strict=True)]
        each += [pair for pair in pairs if len(_root(tuple(symbols[pair[1] : pair[1] + length]))) == length][:KEPT]
    return [(start, length) for _, start, length in sorted(each)[:count]]


def _root(word: tuple[int, ...]) -> tuple[int, ...]:
    """The shortest word whose repetition this is: their cycles are one."""
    lengths = (n for n in range(1, len(word) + 1) if len(word) % n == 0)
    return next(word[:n] for n in lengths if word[:n] * (len(word) // n) == word)


def _rotated(word: tuple[int, ...]) -> tuple[int, ...]:
    """The least of a word's rotations: a cycle's name wherever it is entered."""
    return min(word[i:] + word[:i] for i in range(len(word)))


def region_of(recurrence: Recurrence, symbol: int) -> Float[Tensor, " rectified"]:
    """Which rectified units are active, from the symbol."""
    if not 0 <= symbol < 2**recurrence.rectified:
        raise ValueError(f"Symbols lie between 0 and {2**recurrence.rectified - 1}, got {symbol}.")
    bits = [(symbol >> (recurrence.rectified - 1 - i)) & 1 for i in range(recurrence.rectified)]
    return torch.tensor(bits, dtype=recurrence.offset.dtype)


def _inside(recurrence: Recurrence, states: Tensor, word: tuple[int, ...]) -> bool:
    margin = INSIDE * float(states.abs().max().clamp_min(1e-300))
    tails = states[:, recurrence.units - recurrence.rectified :]
    wanted = torch.stack([region_of(recurrence, symbol) for symbol in word])
    return bool(((tails * (2 * wanted - 1)) >= -margin).all())


@torch.no_grad()
def lyapunov_exponents(
    recurrence: Recurrence, states: Float[Tensor, "time unit"], *, count: int, skip: int = 100
) -> Float[Tensor, " exponent"]:
    """The ``count`` largest, per step, along an orbit; ``skip`` steps turn the directions first.

    From a long orbit: the error falls as one over the root of its number of Lyapunov times.
    """
    exact = _double(recurrence)
    if not 1 <= count <= exact.units or len(states) <= skip + 1:
        raise ValueError(
            f"1 to {exact.units} exponents need more than {skip + 1} steps; got count {count} and {len(states)} steps."
        )
    jacobians = {s: exact.jacobian(region_of(exact, s)) for s in set(symbols_of(exact, states.double()).tolist())}
    directions = torch.eye(exact.units, count, dtype=torch.float64)
    total = torch.zeros(count, dtype=torch.float64)
    for i, symbol in enumerate(symbols_of(exact, states.double()).tolist()):
        directions, stretch = torch.linalg.qr(jacobians[symbol] @ directions)
        if i >= skip:
            total += stretch.diagonal().abs().log()
    return total / (len(states) - skip)


def _double(recurrence: Recurrence) -> Recurrence:
    """A copy in double precision: products of many Jacobians lose digits."""
    return copy.deepcopy(recurrence).double()
