"""HTML tables: escaped, well formed, without scripts or colours of their own."""

import dataclasses
import math
from html.parser import HTMLParser

import pytest

import pyrovae as pv
from pyrovae.comparing.rendering import terminal
from pyrovae.comparing.table import Table
from pyrovae.models import ground_truths as gt
from pyrovae.pages.curves import svg_curves
from pyrovae.pages.tables import html_table
from pyrovae.programs import ParameterStore
from pyrovae.training import Fit


class Reader(HTMLParser):
    """Texts of an HTML fragment, and whether its tags are balanced."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


HOSTILE = "<script>alert('x')</script> & \"q\" \x1b[31m"


def test_text_is_shown_and_does_not_act():
    made = html_table([HOSTILE, "b"], [[HOSTILE, 1.5]], HOSTILE, [HOSTILE], [HOSTILE])
    read = Reader(made)
    assert "script" not in read.tags and "\x1b" not in made
    shown = HOSTILE.replace("\x1b", "\\x1b")
    assert sum(shown in text for text in read.texts) == 5
    assert "1.5" in read.texts


def test_warnings_are_told_from_notes():
    read = Reader(html_table(["a"], [["b"]], notes=["this is a note"], warnings=["this warns"]))
    assert read.texts[-3:] == ["this is a note", "Warning:", " this warns"]


def test_colours_are_those_of_the_page():
    made = html_table(["a"], [["b"]], "c", ["d"], ["e"]).replace(" ", "")
    assert "background:#" not in made and ";color:#" not in made and '"color:#' not in made


def test_head_is_left_out_where_it_is_empty():
    assert "thead" not in Reader(html_table(["", ""], [["a", "b"]])).tags


def test_rows_have_a_cell_a_column():
    with pytest.raises(ValueError, match=r"expected 2 cells in each row, got 1"):
        html_table(["a", "b"], [["c"]])


def faces():
    """Results with hostile text wherever a user can put text."""
    truth = gt.linear_gaussian(5, latent_dim=2)
    data = pv.data.load("digits")
    data = dataclasses.replace(data, spec=dataclasses.replace(data.spec, name=HOSTILE))
    ev = pv.evidence(truth.model, truth.guide, truth.x, estimators=[pv.ELBO(), pv.IS(50)], label=HOSTILE)
    gaps = pv.gaps(
        truth.model,
        truth.guide,
        truth.x,
        estimators=[pv.IS(20)],
        fit=pv.LocalFit(steps=2, num_particles=2),
        flow=False,
        num_samples=10,
        compile=False,
        label=HOSTILE,
    )
    sandwich = pv.sandwich(truth.model, truth.guide, truth.x, simulate=3, ais=pv.AIS(3, 2), num_samples=5)
    history = [
        {"epoch": i + 1.0, "elbo": -9.0 + i, "valid_elbo": math.nan if i == 1 else -8.0 + i} for i in range(4)
    ]
    fit = Fit(truth.model, truth.guide, ParameterStore(), history, [], 4, [], 1.0, refused=HOSTILE, data=data)
    return {"Dataset": data, "Evidence": ev, "Gaps": gaps, "Sandwich": sandwich, "Fit": fit}


@pytest.fixture(scope="module")
def made():
    return {name: face._repr_html_() for name, face in faces().items()}


@pytest.mark.parametrize("name", ["Dataset", "Evidence", "Gaps", "Sandwich", "Fit"])
def test_faces_are_safe_and_well_formed(name, made):
    read = Reader(made[name])
    assert "table" in read.tags and "script" not in read.tags and "\x1b" not in made[name]
    assert name == "Sandwich" or any("<script>" in text for text in read.texts)
    assert ("svg" in read.tags) == (name == "Fit")


def test_directions_and_warnings_are_there(made):
    assert "≥ -" in made["Evidence"] and "Warning:" in made["Gaps"] and "ln p(x) ≤" in made["Sandwich"]
    assert "ln p(x) ≥ -5.000 nats (valid_elbo)" in made["Fit"]


def test_curves_of_what_is_no_number_are_refused():
    with pytest.raises(ValueError, match="1 to 3 curves with finite values, got 0"):
        svg_curves([1.0], {"a": [math.nan]})
    assert "circle" in svg_curves([1.0], {"a": [2.0]})


def test_text_stays_text_in_a_notebook(monkeypatch):
    """There rich shows tables by itself, and leaves the text empty: each would appear twice, or not at all."""
    import rich.console
    import rich.jupyter

    shown = []
    monkeypatch.setattr(rich.console, "_is_jupyter", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")  # as ipykernel does
    monkeypatch.setattr(rich.jupyter, "display", lambda *a, **k: shown.append(a))
    case = gt.linear_gaussian(6, latent_dim=2)
    ev = pv.evidence(case.model, case.guide, case.x, estimators=[pv.ELBO(), pv.IS(20)])
    free = pv.thermodynamics.free_energy(case.model, case.guide, case.x, num_samples=20)
    table = Table(("program", "ELBO"), [("a", "-1.0")], ["a note"])
    for text in (ev.table(), free.table(), terminal(table, "title")):
        assert "┃" in text and "│" in text and "\x1b" not in text
    assert not shown
