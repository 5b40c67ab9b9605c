"""The head that tasks with labels or numbers have: a linear layer of which nothing is drawn."""

import torch


def linear(hidden: int, outputs: int, bias: float = 0.0) -> torch.nn.Linear:
    """(rows, hidden) -> (rows, outputs); a fresh one answers `bias` to everything."""
    head = torch.nn.Linear(hidden, outputs)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.constant_(head.bias, bias)
    return head
