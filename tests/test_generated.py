"""Generated programs: every pair of features that can be combined, against references that share no code with us."""

from itertools import combinations

import numpy as np
import pytest

from .generated.checks import CHECKS, COMPILED, run_checks
from .generated.covering import combinable, covering_array, pairs
from .generated.rows import ROWS, MaskedSite

PROGRAMS = covering_array()
# Few, as each compiles for seconds; `python -m tests.generated --compiled` takes them all.
COMPILE = PROGRAMS[::12]


def name_of(rows):
    return " + ".join(r.name for r in rows)


def test_every_pair_that_can_be_combined_is_in_a_program():
    able, never = combinable()
    assert able <= set().union(*map(pairs, PROGRAMS))
    assert not any(p & never.keys() for p in map(pairs, PROGRAMS))
    assert len(able) + len(never) == len(list(combinations(ROWS, 2)))
    assert all(sum(r.law is not None for r in rows) == 1 for rows in PROGRAMS)


@pytest.mark.parametrize("rows", PROGRAMS, ids=name_of)
def test_a_generated_program_has_its_exact_answers(rows):
    assert run_checks(rows) == {}


@pytest.mark.parametrize("rows", COMPILE, ids=name_of)
def test_a_generated_program_compiled_is_the_same(rows):
    assert run_checks(rows, names=COMPILED) == {}


def test_a_fault_in_one_row_is_found():
    """The checks can fail: here the model forgets its mask, and the reference does not."""

    class Forgets(MaskedSite):
        def model(self, s):
            s.args["site_seen"] = s.args["site_seen"] | True
            super().model(s)

        def guide(self, s):
            pass

    rows = (next(r for r in ROWS if r.law), Forgets())
    found = run_checks(rows)
    assert {n for n in CHECKS if "exact guide" in n} <= found.keys()
    assert np.isin("Exact", list(found))
