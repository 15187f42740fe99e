"""Steps that went wrong: recognised by their loss, and named."""

from __future__ import annotations

import math

# Times the largest loss of the epoch before, in size and nats per datum, plus one.
EXPLOSION = 1000.0


class BadStep(FloatingPointError):
    """A loss that is NaN, infinite or exploding.

    Attributes:
        epoch, batch, step: where, from 0.
        indices: of the batch's data; None where the program draws them itself.
    """

    def __init__(
        self, found: str, epoch: int, batch: int, step: int, indices: list[int] | None, note: str = ""
    ) -> None:
        super().__init__(found, epoch, batch, step, indices, note)
        self.found, self.epoch, self.batch, self.step = found, epoch, batch, step
        self.indices, self.note = indices, note

    def __str__(self) -> str:
        where = f"epoch {self.epoch}, batch {self.batch} (step {self.step}"
        if self.indices:
            some = ", ".join(map(str, self.indices[:8]))
            where += f", data {some}{f' and {len(self.indices) - 8} more' if len(self.indices) > 8 else ''}"
        # At the first step no learning rate has had a say.
        remedy = "a lower learning rate, clip_norm or a KL warm-up"
        if self.step == 0:
            remedy = "data inside of the law's support, another likelihood, or other initial parameters"
        return f"expected a finite loss, got {self.found} in {where}){self.note}; try {remedy}"


def fault_of(loss: float, peak: float | None) -> str | None:
    """Fault of a loss, in words, or None.

    Args:
        loss: in nats per datum.
        peak: the largest size of a loss in the epoch before, if there was one.
    """
    if not math.isfinite(loss):
        return str(loss)
    if peak is not None and loss > EXPLOSION * (1 + peak):
        return f"an exploding one of {loss:.4g} nats per datum (at most {peak:.4g} in the epoch before)"
    return None
