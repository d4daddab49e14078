"""Reparameterised prompts: the prompt is a small network's output while it is trained, and a plain matrix afterwards.

`mlp`: S2 (https://arxiv.org/abs/2402.03782): LayerNorm(W2 relu(W1 P + b1) + b2), no residual; papers.md 2.2.
`lstm`: P-tuning (Liu et al. 2021, https://arxiv.org/abs/2103.10385): bi-LSTM and a two-layer MLP; papers.md 5.3.
"""

import torch
from torch import Tensor, nn


class PromptMLP(nn.Module):
    """Two linear layers over each prompt vector; optional residual and layer norm.

    Args:
        width: d.
        hidden: Width h of the inner layer.
        residual: Add the input (Razdaibiedina et al. 2023).
        layer_norm: Norm the output; its affine part trains only if `train_norm` (S2 froze it).
    """

    def __init__(self, width: int, hidden: int, *, residual: bool, layer_norm: bool, train_norm: bool) -> None:
        super().__init__()
        self.inner = nn.Linear(width, hidden)
        self.outer = nn.Linear(hidden, width)
        self.residual = residual
        self.norm = nn.LayerNorm(width) if layer_norm else None
        if self.norm is not None and not train_norm:
            self.norm.requires_grad_(False)

    def forward(self, prompt: Tensor) -> Tensor:
        """[L, d] -> [L, d]."""
        out = self.outer(torch.relu(self.inner(prompt)))
        if self.residual:
            out = out + prompt
        return out if self.norm is None else self.norm(out)  # type: ignore[no-any-return]


class PromptLSTM(nn.Module):
    """A two-layer bidirectional LSTM over the prompt positions, then a two-layer MLP."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, hidden, num_layers=2, bidirectional=True, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(2 * hidden, 2 * hidden), nn.ReLU(), nn.Linear(2 * hidden, width))

    def forward(self, prompt: Tensor) -> Tensor:
        """[L, d] -> [L, d]."""
        states, _ = self.lstm(prompt.unsqueeze(0))
        return self.mlp(states.squeeze(0))  # type: ignore[no-any-return]
