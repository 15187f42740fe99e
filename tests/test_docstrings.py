"""Examples in docstrings: what is exported has one, and each gives what it shows."""

import doctest
import importlib
import inspect

import pytest
import torch

import pyrovae as pv

from .test_imports import FILES

WITH_EXAMPLES = sorted(m for m, path in FILES.items() if ">>> " in path.read_text() and ".inference" not in m)


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_give_what_they_show(module):
    torch.manual_seed(0)
    failed, _ = doctest.testmod(
        importlib.import_module(module), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )
    assert not failed


@pytest.mark.parametrize("name", [n for n in pv.__all__ if not inspect.ismodule(getattr(pv, n))])
def test_what_is_exported_has_an_example(name):
    assert ">>> " in inspect.getdoc(inspect.unwrap(getattr(pv, name)))
