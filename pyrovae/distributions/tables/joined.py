"""One law made of laws of groups of columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Size, Tensor
from torch.distributions import constraints

from ...programs.elements import check_elements, elements_of
from .elements import Restricted, moments_of, name_of_law, parts_of
from .of_elements import OfElements

__all__ = ["Joined"]


class Joined(OfElements):
    r"""Law of a row whose groups of columns have laws of their own: :math:`\ln p(x) = \sum_g \ln p_g(x_g)`.

    Args:
        laws: One for each group, of independent numbers, event shape (its number of columns,).
        columns: Places of each group's columns in the row; together 0 ... D - 1, each once.
        names: Whether the numbers of a group are names of categories, which have no mean: default, none.

    Raises:
        ValueError: columns that are not each in one group, or as many as their law has.
    """

    def __init__(
        self,
        laws: Sequence[Any],
        columns: Sequence[Sequence[int]],
        names: Sequence[bool] | None = None,
        validate_args: bool | None = None,
    ) -> None:
        for law, places in zip(laws, columns, strict=True):
            check_elements(law)
            if law.event_shape != (len(places),):
                raise ValueError(
                    f"expected a law of {len(places)} columns, got event shape {tuple(law.event_shape)}"
                )
        flat = [i for places in columns for i in places]
        if sorted(flat) != list(range(len(flat))):
            raise ValueError(f"expected each of {len(flat)} columns in one group, got {flat}")
        self.laws, self.columns = list(laws), [list(places) for places in columns]
        self.names = [False] * len(laws) if names is None else list(names)
        self.order = sorted(range(len(flat)), key=flat.__getitem__)
        batch = torch.broadcast_shapes(*(law.batch_shape for law in laws))
        super().__init__(batch, Size((len(flat),)), validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> Any:
        """Support of each group's law, side by side."""
        parts = [p for law in self.laws for p in parts_of(law.support)]
        return Restricted(_All(), self._inside, parts)

    def _inside(self, value: Tensor) -> Tensor:
        checks = [law.support.check(x) for law, x in zip(self.laws, self.split(value), strict=True)]
        return torch.stack(torch.broadcast_tensors(*checks), -1)

    def split(self, value: Tensor) -> list[Tensor]:
        """The columns of each group."""
        return [value[..., places] for places in self.columns]

    def _join(self, parts: Sequence[Tensor]) -> Tensor:
        lead = torch.broadcast_shapes(*(p.shape[:-1] for p in parts))
        dtype = parts[0].dtype
        for p in parts[1:]:
            dtype = torch.promote_types(dtype, p.dtype)
        return torch.cat([p.to(dtype).expand(*lead, p.shape[-1]) for p in parts], -1)[..., self.order]

    def expand(self, batch_shape: Any, _instance: Any = None) -> Joined:
        """Returns the distribution with another batch shape."""
        new = self._get_checked_instance(Joined, _instance)
        new.laws = [law.expand(batch_shape) for law in self.laws]
        new.columns, new.names, new.order = self.columns, self.names, self.order
        super(Joined, new).__init__(Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def moments(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and variance of each column, and whether its law is normal (of others the variance is left at 0)."""
        found = [moments_of(law) for law in self.laws]
        normal = self._join([n.expand(v.shape).to(v.dtype) for _, v, n in found]) > 0
        return self.mean, self._join([v for _, v, _ in found]), normal

    @property
    def mean(self) -> Tensor:
        """Means of all columns; of categories, whose numbers are names, that is the most probable one."""
        parts = zip(self.laws, self.names, strict=True)
        return self._join([law.mode if names else law.mean for law, names in parts])

    def sample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008
        """Draws rows `[*sample, *batch, D]`."""
        with torch.no_grad():
            return self._join([law.sample(sample_shape) for law in self.laws])

    def log_prob_of_groups(self, value: Tensor) -> Tensor:
        """Log-probability of each group in nats, `[*sample, *batch, groups]`."""
        elements = self.log_prob_of_elements(value)
        return torch.stack([x.sum(-1) for x in self.split(elements)], -1)

    def log_prob_of_elements(self, value: Tensor) -> Tensor:
        """Log-probability of each number in nats."""
        parts = zip(self.laws, self.split(value), strict=True)
        return self._join([elements_of(law, x) for law, x in parts])

    @property
    def column_kinds(self) -> list[str]:
        """Whether each column has a "mass" or a "density"."""
        found = [""] * len(self.order)
        for law, places in zip(self.laws, self.columns, strict=True):
            discrete = all(p.is_discrete for p in parts_of(law.support))
            for i in places:
                found[i] = "mass" if discrete else "density"
        return found

    @property
    def law_name(self) -> str:
        """Names of the laws, for messages."""
        return ", ".join(dict.fromkeys(map(name_of_law, self.laws)))

    def __repr__(self) -> str:
        return f"Joined({', '.join(map(repr, self.laws))})"


class _All(constraints.Constraint):
    """Constraint on bools: all are true."""

    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        """Whether all are."""
        return value.all(-1)
