"""Muon for matrices and AdamW for the rest, on float32 masters of the model's weights.

Muon replaces a matrix' momentum by the nearest orthogonal matrix, so that all its directions are
learnt at one speed; at this project's sizes it needs less than half of AdamW's tokens.
Source: Keller Jordan et al., "Muon" (2024); the polynomial's coefficients are theirs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_NOT_MATRICES = ("embed", "router", "parametrizations")
"""What goes to AdamW in spite of its shape; the last are low-rank adapters, half of them zero."""

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrix: Tensor, steps: int = 5) -> Tensor:
    """The nearest (semi-)orthogonal matrix to `matrix` [..., m, n], roughly, by Newton–Schulz."""
    a, b, c = _COEFFICIENTS
    x = matrix.to(torch.bfloat16)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * 1.01 + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrix.dtype)


class MixedOptimizer:
    """Updates float32 masters and copies them into the model's (bfloat16) parameters.

    Matrices of the layers go to Muon; embeddings, norms, routers and scales to AdamW.
    """

    def __init__(
        self,
        model: nn.Module,
        muon_lr: float,
        adam_lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        decay: float = 0.01,
    ) -> None:
        self.muon_lr, self.adam_lr = muon_lr, adam_lr
        self.momentum, self.betas, self.decay = momentum, betas, decay
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.masters = {n: p.detach().float().clone() for n, p in self.parameters.items()}
        self.first = {n: torch.zeros_like(m) for n, m in self.masters.items()}
        self.second = {
            n: torch.zeros_like(m) for n, m in self.masters.items() if not _is_matrix(n, m)
        }
        self.steps = 0

    @torch.no_grad()
    def step(self, lr_scale: float, clip: float = 1.0) -> float:
        """One update; returns the norm of the gradient. Clears the gradients."""
        self.steps += 1
        norm = float(_norm(p.grad for p in self.parameters.values() if p.grad is not None))
        shrink = min(1.0, clip / (norm + 1e-6))
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                continue
            grad = parameter.grad.float() * shrink
            update = self._adam if name in self.second else self._muon
            update(name, grad, lr_scale)
            parameter.copy_(self.masters[name])
            parameter.grad = None
        return norm

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs, masters included."""
        return {
            "masters": self.masters,
            "first": self.first,
            "second": self.second,
            "steps": self.steps,
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over a saved state and writes the masters into the model."""
        self.steps = state["steps"]
        for mine, theirs in (
            (self.masters, state["masters"]),
            (self.first, state["first"]),
            (self.second, state["second"]),
        ):
            for name, tensor in mine.items():
                tensor.copy_(theirs[name])
        for name, parameter in self.parameters.items():
            parameter.copy_(self.masters[name])

    def _muon(self, name: str, grad: Tensor, lr_scale: float) -> None:
        momentum, master = self.first[name], self.masters[name]
        momentum.mul_(self.momentum).add_(grad)
        update = orthogonalize(grad + self.momentum * momentum)
        lr = self.muon_lr * lr_scale
        # A tall matrix' update has smaller entries; this keeps its effect on the output the same.
        stretch = max(1.0, master.shape[-2] / master.shape[-1]) ** 0.5
        master.mul_(1 - lr * self.decay).sub_(update, alpha=lr * stretch)

    def _adam(self, name: str, grad: Tensor, lr_scale: float) -> None:
        first, second, master = self.first[name], self.second[name], self.masters[name]
        beta1, beta2 = self.betas
        first.lerp_(grad, 1 - beta1)
        second.lerp_(grad.square(), 1 - beta2)
        corrected = first / (1 - beta1**self.steps)
        spread = (second / (1 - beta2**self.steps)).sqrt().add_(1e-8)
        master.sub_(corrected / spread, alpha=self.adam_lr * lr_scale)


def _is_matrix(name: str, tensor: Tensor) -> bool:
    return tensor.ndim >= 2 and not any(part in name for part in _NOT_MATRICES)


def _norm(tensors: Iterable[Tensor]) -> Tensor:
    return torch.stack([t.float().norm() for t in tensors]).norm()
