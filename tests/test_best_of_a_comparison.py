"""The best of a comparison has all of its seeds; data frames are data like any other."""

import numpy as np
import pandas as pd
import pytest
import torch

from pyrovae.comparing.columns import best_of
from pyrovae.inference.running import asked

from .test_compare import SMALL, build, pv


def test_a_program_that_lost_its_worst_seed_is_not_the_best():
    data = pv.data.load((torch.rand(120, 6, generator=torch.Generator().manual_seed(0)) < 0.4).float())

    def fails_at_first(data):
        if torch.initial_seed() == 0:
            raise RuntimeError("no seed 0")
        return build(data)

    result = pv.compare({"whole": build, "part": fails_at_first}, data, seeds=2, **SMALL)
    part = next((e for e in result.entries if "part" in e.title), None)
    assert result.best.name.startswith("whole")
    assert part is None or (part.lost and best_of([part]) is part)


def test_frames_are_taken():
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 2)), columns=["a", "b"])
    assert asked.data_of(frame).spec.columns == ("a", "b")
    with pytest.raises(TypeError, match="or what it takes, got int"):
        asked.data_of(3)
