"""`pv.seed`: initial weights that repeat, and generators that are put back."""

import pytest
import torch

import pyrovae as pv


def weights():
    return torch.cat([p.flatten() for p in pv.networks.MLP(5, (7,), 3).parameters()]).detach()


def test_a_call_seeds_what_is_built_after():
    pv.seed(3)
    first = weights()
    pv.seed(3)
    assert torch.equal(weights(), first) and not torch.equal(weights(), first)


def test_a_block_leaves_the_generators_as_they_were():
    torch.manual_seed(11)
    expected = torch.rand(4)
    torch.manual_seed(11)
    with pv.seed(0):
        inside = weights()
    assert torch.equal(torch.rand(4), expected)
    with pytest.raises(RuntimeError), pv.seed(0):
        torch.manual_seed(5)
        raise RuntimeError
    pv.seed(0)
    assert torch.equal(weights(), inside)


@pytest.mark.parametrize("wrong", [-1, 1.5, "a", True, None])
def test_other_seeds_are_refused(wrong):
    with pytest.raises(ValueError, match="expected seed to be a whole number >= 0"):
        pv.seed(wrong)
