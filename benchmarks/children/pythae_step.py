"""A training step of Pythae, as `BaseTrainer.train_step` makes it, data loading and callbacks left out."""

from __future__ import annotations

import sys
from typing import Any

from pythae_model import build
from serve import Block, serve


def make(request: dict[str, Any]) -> tuple[Block, dict[str, Any]]:
    """Model output, zero_grad, backward, Adam, the loss read back."""
    model, data, about = build(request)
    import torch

    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    inputs = {"data": data}

    def block(calls: int) -> None:
        for _ in range(calls):
            loss = model(inputs, epoch=1, dataset_size=len(data), uses_ddp=False).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()

    return block, about


if __name__ == "__main__":
    sys.exit(serve(make))
