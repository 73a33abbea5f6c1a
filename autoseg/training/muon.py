"""Muon: an optimiser whose updates move a kernel equally far along all its singular directions.

The gradient of a kernel, written as a matrix (outputs x inputs and offsets), is dominated by a few large singular values. Plain
gradient descent learns these directions and hardly the others. Muon replaces the running mean of the gradients by the nearest
orthogonal matrix, in which all singular values are one (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon). The
measured gain: docs/experiments/muon.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch

__all__ = ["Muon", "orthogonalised"]

# a x + b x^3 + c x^5, repeated, brings any singular value in (0, 1] near to 1, most into 0.7 to 1.2: Jordan et al. 2024
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ROUNDS = 5


def orthogonalised(matrices: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """For each matrix approximately the nearest orthogonal one: singular values become 0.7 to 1.2, except tiny ones.

    Every round of the Newton-Schulz iteration multiplies by a polynomial of ``matrix @ matrix.T``. So the rounds are done on
    these square matrices, and the large matrices are multiplied only twice. Square matrices of one size are processed
    together, so that a GPU gets few products instead of a thousand small ones.

    Args:
        matrices: list of (m, n) float32.

    Returns:
        list of (m, n) float32; zeros for zeros.
    """
    wide = [matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T for matrix in matrices]
    by_size: dict[int, list[int]] = defaultdict(list)
    for position, matrix in enumerate(wide):
        by_size[len(matrix)].append(position)
    for positions in by_size.values():
        grams = torch.stack([wide[position] @ wide[position].T for position in positions])
        squares = grams.diagonal(dim1=1, dim2=2).sum(1)[:, None, None].clamp(min=1e-24)  # of the norms
        for position, total in zip(positions, _rounds(grams / squares) / squares.sqrt(), strict=True):
            wide[position] = total @ wide[position]
    return [w if w.shape == matrix.shape else w.T for w, matrix in zip(wide, matrices, strict=True)]


def _rounds(gram: torch.Tensor) -> torch.Tensor:
    """The products of all rounds for square matrices (count, m, m)."""
    a, b, c = COEFFICIENTS
    total = torch.eye(gram.shape[-1], device=gram.device)
    for left in reversed(range(ROUNDS)):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        total = factor @ total
        gram = factor @ gram @ factor if left else gram
    return total


def _rows(tensor: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """A tensor shaped like ``kernel``, with its axes in the memory order of ``kernel``; outputs (rows) stay first."""
    last = kernel.ndim == 5 and not kernel.is_contiguous()  # channels last
    return tensor.permute(0, 2, 3, 4, 1) if last else tensor


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised. ``torch.optim.Muon`` takes only matrices, and needs a newer torch.

    Args:
        params: parameters of two or more dimensions; all but the first are flattened.
        lr: learning rate: the singular values of an update; times the square root of outputs / inputs if that exceeds 1.
        momentum: of the running mean of the gradients, in [0, 1).
    """

    def __init__(self, params: Iterable[torch.nn.Parameter], lr: float, momentum: float = 0.9) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # no closure, which is never passed
        for group in self.param_groups:
            kernels = [kernel for kernel in group["params"] if kernel.grad is not None]
            # the order of columns does not matter, so nothing is transposed
            updates = orthogonalised([_rows(self._update(kernel, group["momentum"]), kernel).flatten(1) for kernel in kernels])
            for kernel, update in zip(kernels, updates, strict=True):
                longer = max(1.0, update.shape[0] / update.shape[1]) ** 0.5
                _rows(kernel, kernel).view_as(update).add_(update, alpha=-group["lr"] * longer)

    def _update(self, kernel: torch.nn.Parameter, momentum: float) -> torch.Tensor:
        assert kernel.grad is not None  # the caller selects only such kernels
        state = self.state[kernel]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(kernel)
        mean = state["momentum_buffer"].lerp_(kernel.grad, 1 - momentum)
        return kernel.grad.lerp(mean, momentum)
