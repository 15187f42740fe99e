"""Noise of a whole batch, and what of it belongs to some of its data."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..programs.compile.noise import Noise


def datum_dims(small: Sequence[Noise], large: Sequence[Noise], sizes: tuple[int, int]) -> list[int | None]:
    """The dim that runs over the data in each draw; None for a draw that all data share.

    Told by the shapes of the same program's draws for two numbers of data.

    Raises:
        ValueError: a draw in which no dim, or more than one, is that of the data.
    """
    if len(small) != len(large):
        raise ValueError(
            f"expected the same draws for {sizes[0]} and {sizes[1]} data, got {len(small)} and {len(large)} of them"
        )
    dims: list[int | None] = []
    for one, other in zip(small, large, strict=True):
        shapes = tuple(one.like.shape), tuple(other.like.shape)
        alike = len(shapes[0]) == len(shapes[1])
        grown = [d for d, (a, b) in enumerate(zip(*shapes, strict=False)) if a != b]
        if alike and not grown:
            dims.append(None)
        elif (
            alike
            and len(grown) == 1
            and (shapes[0][grown[0]], shapes[1][grown[0]]) == sizes
            and one.like.is_floating_point()
        ):
            dims.append(grown[0])
        else:
            raise ValueError(
                f"expected draws with one dim for the data, got one of shape {shapes[0]} for {sizes[0]} data and "
                f"{shapes[1]} for {sizes[1]}: what belongs to which datum cannot be told"
            )
    return dims


class WholeNoise:
    """Draws for all data of a batch, the same on every rank, in the order of an undivided step.

    Args:
        specs: the draws of a graph for any number of data.
        dims: of `datum_dims`.
        size: data in the batch.
    """

    def __init__(self, specs: Sequence[Noise], dims: Sequence[int | None], size: int) -> None:
        self.specs, self.dims = specs, dims
        self.values = []
        for spec, dim in zip(specs, dims, strict=True):
            shape = list(spec.like.shape)
            if dim is not None:
                shape[dim] = size
            self.values.append(spec.buffer().new_empty(shape))

    def draw(self) -> None:
        """Fresh noise, of torch's generator as it stands."""
        for spec, value in zip(self.specs, self.values, strict=True):
            spec.draw(value)

    def into(self, buffers: Sequence[Tensor], start: int, size: int) -> None:
        """The noise of data `start` to `start + size`."""
        for buffer, value, dim in zip(buffers, self.values, self.dims, strict=True):
            buffer.copy_(value if dim is None else value.narrow(dim, start, size))
