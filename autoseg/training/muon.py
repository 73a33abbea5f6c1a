"""Muon: descent whose every update of a kernel moves it equally far in all the directions that it has.

The gradient of a kernel, written as a matrix (outputs x inputs and offsets), is mostly a few large singular values; plain
descent learns those directions and hardly the others. Here the running mean of the gradients is replaced by the nearest
orthogonal matrix, in which all singular values are one (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon). What
it is worth: EXPERIMENTS.md.
"""

import torch

__all__ = ["Muon", "orthogonalised"]

# a x + b x^3 + c x^5, repeated, brings any singular value in (0, 1] near to 1, most into 0.7 to 1.2: Jordan et al. 2024
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ROUNDS = 5


def orthogonalised(matrix):
    """The nearest orthogonal matrix, approximately: singular values of 0.7 to 1.2 for all that are not minute.

    Every round of the Newton-Schulz iteration multiplies by a polynomial of ``matrix @ matrix.T``, so the rounds are done on
    that small square, and the large matrix is multiplied twice in all.

    Args:
        matrix: (m, n) float32.

    Returns:
        (m, n) float32; zeros for zeros.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonalised(matrix.T).T
    a, b, c = COEFFICIENTS
    matrix = matrix / matrix.norm().clamp(min=1e-12)
    gram = matrix @ matrix.T
    total = torch.eye(len(gram), device=gram.device)
    for _ in range(ROUNDS):
        factor = b * gram + c * gram @ gram
        factor.diagonal().add_(a)
        total = factor @ total
        gram = factor @ gram @ factor
    return total @ matrix


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised. ``torch.optim.Muon`` takes matrices only, and needs a newer torch.

    Args:
        params: parameters of two dimensions or more, of which the first stays and the others are joined.
        lr: length of a step: the singular values of what is added; times the root of outputs / inputs where that is above 1.
        momentum: of the running mean of the gradients, in [0, 1).
    """

    def __init__(self, params, lr, momentum=0.9):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for kernel in (p for p in group["params"] if p.grad is not None):
                state = self.state[kernel]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(kernel)
                mean = state["momentum_buffer"].lerp_(kernel.grad, 1 - group["momentum"])
                matrix = kernel.grad.lerp(mean, group["momentum"]).flatten(1)
                longer = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
                kernel.add_(orthogonalised(matrix).reshape(kernel.shape), alpha=-group["lr"] * longer)
