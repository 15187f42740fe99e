"""Hashes of the code and values that a program computes by: equal for equal ones, others where numbers may change."""

import collections
import decimal
import functools
import types

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from pyrovae.comparing.code import hash_of_code


class Scaled(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self._scale = scale
        self.linear = nn.Linear(2, 2)


def scaled(scale):
    torch.manual_seed(0)
    return Scaled(scale)


def module(scale):
    made = types.ModuleType("helpers_of_a_user")
    made.SCALE = scale
    return made


def with_attribute(values):
    return type("Own", (), {"WEIGHTS": np.array(values)})


def with_property(value):
    kind = type("Own", (), {})
    kind.width = functools.cached_property(lambda self: value)
    return kind


@pytest.mark.parametrize(
    ("make", "first", "second"),
    [
        (module, 1.0, 2.0),
        (scaled, 1.0, 2.0),
        (with_attribute, [1, 2], [1, 3]),
        (with_property, 1, 2),
        (np.float32, 1, 2),
        (np.int64, 1, 2),
        (np.array, [1.0], [2.0]),
        (decimal.Decimal, 1, 2),
        (range, 3, 4),
        (collections.deque, [1], [2]),
        (lambda values: pd.DataFrame({"a": values}), [1, 2], [1, 3]),
        (lambda value: functools.partial(max, value), 1, 2),
    ],
)
def test_what_a_closure_holds_counts(make, first, second):
    def using(value):
        return lambda: value

    assert hash_of_code(using(make(first))) == hash_of_code(using(make(first)))
    assert hash_of_code(using(make(first))) != hash_of_code(using(make(second)))
