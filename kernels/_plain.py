"""Where a hand-written gradient must step aside for the plain form that torch differentiates itself."""

from __future__ import annotations

import torch


def tracing() -> bool:
    """Whether something other than ordinary reverse mode looks at the operations.

    torch.compile and torch.export want the plain operations, torch.func (vmap, jvp, jacrev …) and forward-mode
    derivatives want operations with rules of their own, and autocast chooses the precision operation by operation.
    """
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
        or torch.is_autocast_enabled("cpu")
    )
