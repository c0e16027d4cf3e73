r"""What joins a spectral convolution to a block of a neural operator, in one pass over the nodes.

.. math:: u = \tau\big(W_2\,\sigma(W_1\,\tau(p) + b_1) + b_2 + g\odot v\big),\qquad p = y + S v + s

v     values ``batch width *space``: the input of the block
y     their spectral convolution; its memory is taken over for p
S, s  linear skip;  W, b  channel MLP;  g  factor per channel of the second skip
sigma GELU; tau: GELU, in the last block of a network nothing

Done one after the other these write six fields and, for the gradient, seven, each beyond 32 MiB paid for page by page
(:mod:`.pointwise`); in one pass they are three and a half (p, the hidden layer, u and what it was before its
activation) and two: the parts of v's gradient meet where they lie in the cache.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ._plain import tracing
from .pointwise import Layer, _gelu, _gelu_gradient, _parts, _room, channel_mix, channel_mlp_reference


def fourier_block(
    values: Float[Tensor, "batch width *space"],
    spectral: Float[Tensor, "batch width *space"],
    skip: tuple[Float[Tensor, "width width"], Float[Tensor, " width"] | None],
    first: Layer,
    second: Layer,
    gate: Float[Tensor, " width"],
    *,
    activate: bool,
) -> Float[Tensor, "batch width *space"]:
    """The block u; ``spectral`` is used up: it must be nobody else's. ``activate``: whether tau is GELU."""
    if values.device.type != "cpu" or values.dtype not in (torch.float32, torch.float64) or tracing():
        return fourier_block_reference(values, spectral, skip, first, second, gate, activate=activate)
    weight, bias = skip
    flat = values.flatten(2), spectral.flatten(2)
    out, _ = _Block.apply(activate, *flat, weight, bias, *first, *second, gate)
    return out.unflatten(2, values.shape[2:])


def fourier_block_reference(
    values: Tensor,
    spectral: Tensor,
    skip: tuple[Tensor, Tensor | None],
    first: Layer,
    second: Layer,
    gate: Tensor,
    *,
    activate: bool,
) -> Tensor:
    """The plain form."""
    mixed = channel_mix(values, *skip, plus=spectral)
    mixed = F.gelu(mixed) if activate else mixed
    return channel_mlp_reference(mixed, first, second, values, gate, activate=activate)


class _Block(torch.autograd.Function):
    """u and p. Kept for the gradient beside the operands: p, the hidden layer h and what an activated result was.

    p is a result so that a gradient to be differentiated again finds the way from it to y and v.
    """

    @staticmethod
    def forward(
        ctx: Any,
        activate: bool,
        v: Tensor,
        y: Tensor,
        s: Tensor,
        bs: Tensor | None,
        w1: Tensor,
        b1: Tensor,
        w2: Tensor,
        b2: Tensor,
        gate: Tensor,
    ) -> tuple[Tensor, Tensor]:
        p = y.detach()
        h, q = v.new_empty(len(v), len(w1), v.shape[2]), torch.empty_like(v)
        out = torch.empty_like(q) if activate else q
        room_p, room_h = _room(v), _room(h)
        for here in _parts(v):
            mixed, inner, result = p[here], h[here], q[here]
            nodes = mixed.shape[1]
            if bs is not None:
                mixed += bs[:, None]
            mixed.addmm_(s, v[here])
            active = _gelu(mixed, out=room_p[:, :nodes]) if activate else mixed
            torch.addmm(b1[:, None], w1, active, out=inner)
            torch.addcmul(b2[:, None], gate[:, None], v[here], out=result)
            result.addmm_(w2, _gelu(inner, out=room_h[:, :nodes]))
            if activate:
                _gelu(result, out=out[here])
        ctx.activate = activate
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(v, s, bs, w1, b1, w2, b2, gate, p, h, q if activate else None)
        return out, p

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, of_p: Tensor | None) -> tuple[Tensor | None, ...]:
        *operands, p, h, q = ctx.saved_tensors
        if torch.is_grad_enabled() or of_p is not None or grad is None:  # to be differentiated again, or that itself
            return None, *_plain_gradient(operands, p, grad, of_p, activate=ctx.activate)
        return None, *_fused_gradient(operands, grad, p, h, q)


def _plain_gradient(
    operands: list[Any], p: Tensor, grad: Tensor | None, of_p: Tensor | None, *, activate: bool
) -> list[Tensor | None]:
    """By torch's own rules: of u as a function of p and the others, then of p."""
    v, s, bs, w1, b1, w2, b2, gate = operands
    through = [p, v, w1, b1, w2, b2, gate]
    found: list[Tensor | None] = [None] * len(through)
    again = torch.is_grad_enabled()
    if grad is not None:
        with torch.enable_grad():
            # stand-ins: p depends on v, and what goes that way is added below
            through = [x.view_as(x) if x.requires_grad else x.detach().requires_grad_() for x in through]
            mixed = F.gelu(through[0]) if activate else through[0]
            w1, b1, w2, b2, gate = through[2:]
            out = channel_mlp_reference(mixed, (w1, b1), (w2, b2), through[1], gate, activate=activate)
            found = list(torch.autograd.grad(out, through, grad, create_graph=again))
    of_p, of_v, *others = _sum(found[0], of_p), *found[1:]
    if of_p is None:
        return [None] * 9
    of_v = _sum(of_v, s.t() @ of_p)
    of_s = torch.einsum("bon,bin->oi", of_p, v)
    return [of_v, of_p, of_s, None if bs is None else of_p.sum(dim=(0, 2)), *others]


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


def _fused_gradient(operands: list[Any], grad: Tensor, p: Tensor, h: Tensor, q: Tensor | None) -> list[Tensor | None]:
    v, s, bs, w1, b1, w2, b2, gate = operands
    of_v, of_y = torch.empty_like(v), torch.empty_like(v)
    of_s, of_bs, of_w1, of_b1, of_w2, of_b2, of_gate = (
        torch.zeros_like(x) for x in (s, gate if bs is None else bs, w1, b1, w2, b2, gate)
    )
    room_q, room_p, room_h, room_a = _room(v), _room(v), _room(h), _room(h)
    for here in _parts(v):
        inner, g, mixed, of_mixed, into = h[here], grad[here], p[here], of_y[here], of_v[here]
        nodes = g.shape[1]
        active = mixed
        if q is not None:
            g = _gelu_gradient(g, q[here], grad_input=room_q[:, :nodes])
            active = _gelu(mixed, out=room_p[:, :nodes])
        of_b2 += g.sum(dim=1)
        of_w2.addmm_(g, _gelu(inner, out=room_a[:, :nodes]).t())
        of_inner = torch.mm(w2.t(), g, out=room_h[:, :nodes])
        _gelu_gradient(of_inner, inner, grad_input=of_inner)
        of_b1 += of_inner.sum(dim=1)
        of_w1.addmm_(of_inner, active.t())
        torch.mm(w1.t(), of_inner, out=of_mixed)
        if q is not None:
            _gelu_gradient(of_mixed, mixed, grad_input=of_mixed)
        of_bs += of_mixed.sum(dim=1)
        of_s.addmm_(of_mixed, v[here].t())
        of_gate += torch.mul(g, v[here], out=into).sum(dim=1)
        torch.mul(g, gate[:, None], out=into).addmm_(s.t(), of_mixed)
    return [of_v, of_y, of_s, None if bs is None else of_bs, of_w1, of_b1, of_w2, of_b2, of_gate]
