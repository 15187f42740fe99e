"""The examples of docs/programs.md, as they stand, and held against a loop by hand."""

import re
from pathlib import Path

import pytest
import torch

import pyrovae as pv
from pyrovae.programs import ParameterStore

from .test_idioms import check_by_hand

PAGE = Path(__file__).parents[1] / "docs" / "programs.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)


@pytest.fixture(scope="module")
def scope():
    found = {"__name__": "page"}
    with ParameterStore().active():
        exec(compile("\n".join(BLOCKS), str(PAGE), "exec"), found)
    return found


def test_a_deep_markov_model_of_sequences_of_different_lengths(scope):
    found, markov = scope["markov_evidence"], scope["markov"]
    assert found["IS"].log_evidence >= found["ELBO"].log_evidence - 4 * found["ELBO"].se_mc
    with ParameterStore().active():
        program = check_by_hand(markov.model, markov.guide, scope["x"][:6], scope["lengths"][:6], seeds=(0,))
    assert program.vectorised


def test_own_guides_of_a_deep_markov_model(scope):
    """They win over the amortised guide; weights from both have one mean, p(x); padding does not count."""
    gaps = scope["markov_gaps"]
    assert gaps.amortisation.mean > 4 * gaps.amortisation.se_mc
    assert gaps.conditional == ("z1", "z2", "z3", "z4")
    amortised, own = (e for e in gaps.bounds)
    error = (amortised.variance + own.variance).sqrt()
    assert ((amortised.per_datum - own.per_datum).abs() < 4 * error + 0.3).all()


def test_padding_does_not_count(scope):
    markov, x, lengths = scope["markov"], scope["x"].clone(), scope["lengths"]
    with ParameterStore().active():
        before = pv.log_weights(markov.model, markov.guide, x, lengths, num_samples=3)
        seen = torch.arange(5) < lengths.unsqueeze(-1)
        x[~seen] = 7.0
        after = pv.log_weights(markov.model, markov.guide, x, lengths, num_samples=3)
    assert (before - after).abs().max() < 1e-4


def test_a_vae_with_a_transformer(scope):
    found, gaps, words = scope["words_evidence"], scope["words_gaps"], scope["words"]
    assert found["IS"].log_evidence >= found["ELBO"].log_evidence - 4 * found["ELBO"].se_mc
    assert (
        gaps.amortisation.mean > -0.1
    )  # a datum for which its own guide did not help keeps the amortised one
    with ParameterStore().active():
        program = check_by_hand(words.model, words.guide, scope["sentences"][:5], seeds=(0,))
    assert program.is_folded
