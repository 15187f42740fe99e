"""Bars of long calls: there where somebody watches, elsewhere silent, and of no effect on the numbers."""

import inspect
import io
import os
import subprocess
import sys
import threading
import types

import pytest
import torch

import pyrovae as pv
from pyrovae import progress as progress_module
from pyrovae.models import ground_truths as gt
from pyrovae.models.boltzmann import RBM
from pyrovae.progress import NotebookBar, TerminalBar, shown, silenced

PAIR = gt.linear_gaussian(6, latent_dim=2)
MACHINE = RBM(6, num_hidden=4)


class Recorder:
    """A bar that remembers what it was told."""

    made: list = []  # noqa: RUF012

    def __init__(self, description):
        self.description, self.shown, self.closed = description, [], False
        self.made.append(self)

    def show(self, done, total, note):
        self.shown.append((done, total, note))

    def close(self):
        self.closed = True


@pytest.fixture
def watched(monkeypatch):
    """Somebody watches, and sees every step."""
    monkeypatch.setattr(progress_module, "_kind", lambda: Recorder)
    monkeypatch.setattr(progress_module, "DELAY", 0.0)
    monkeypatch.setattr(progress_module, "PAUSE", 0.0)
    monkeypatch.setattr(Recorder, "made", [])
    return Recorder.made


def train(**options):
    torch.manual_seed(0)
    mean = torch.nn.Linear(3, 2)

    def guide(x):
        import pyro
        import pyro.distributions as dist

        pyro.module("mean", mean)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(mean(x.float()).double(), 1.0).to_event(1))

    x = torch.randn(40, PAIR.x.shape[1], dtype=torch.float64)
    mean = torch.nn.Linear(x.shape[1], 2)
    return pv.fit(PAIR.model, guide, x, epochs=3, compile=False, **options)


CALLS = {
    "evidence": lambda **o: (
        pv.evidence(PAIR.model, PAIR.guide, PAIR.x, estimators=[pv.IS(50)], **o)["IS"].per_datum
    ),
    "sandwich": lambda **o: (
        pv.sandwich(PAIR.model, PAIR.guide, PAIR.x, simulate=4, ais=pv.AIS(4, 2), num_samples=5, **o).lower
    ),
    "gaps": lambda **o: (
        pv.gaps(
            PAIR.model,
            PAIR.guide,
            PAIR.x,
            estimators=[pv.IS(20)],
            fit=pv.LocalFit(steps=3, num_particles=2),
            flow=False,
            num_samples=10,
            compile=False,
            **o,
        ).elbo_local.per_datum
    ),
    "weights": lambda **o: pv.log_weights(PAIR.model, PAIR.guide, PAIR.x, num_samples=50, **o),
    "chains": lambda **o: (
        pv.work_distributions(
            PAIR.model, PAIR.guide, PAIR.x, simulate=2, ais=pv.AIS(3, 2), moves=1, **o
        ).forward
    ),
    "temperatures": lambda **o: pv.log_partition(MACHINE.model, betas=5, num_chains=4, **o).log_weights,
    "epochs": lambda **o: torch.tensor([row["loss"] for row in train(**o).history]),
}


def test_all_public_functions_show_progress_in_one_way():
    spaces = (pv, pv.thermodynamics, pv.divergences)
    found = {n: getattr(space, n) for space in spaces for n in dir(space) if n[0] != "_"}
    kinds = {}
    for name, fn in found.items():
        if inspect.isfunction(fn) and "progress" in (parameters := inspect.signature(fn).parameters):
            kinds[name] = parameters["progress"].default
    assert len(kinds) >= 10 and set(kinds.values()) == {True}, kinds


@pytest.mark.parametrize("name", CALLS)
def test_one_bar_a_call_and_the_same_numbers(name, watched):
    call = CALLS[name]
    silent = call(progress=False)
    assert not watched
    assert torch.equal(call(), silent)
    assert [bar.description for bar in watched] == [name] and watched[0].closed
    done, total, note = watched[0].shown[-1]
    assert done == total > 1 and (("loss" in note or "elbo" in note) == (name == "epochs"))


@pytest.mark.parametrize("name", CALLS)
def test_a_function_is_told_in_place_of_a_bar(name, watched):
    told = []
    CALLS[name](progress=lambda done, total: told.append((done, total)))
    assert told and told[-1][0] == told[-1][1] and not watched


@pytest.mark.parametrize("name", CALLS)
def test_anything_else_is_refused(name):
    with pytest.raises(TypeError, match="expected progress to be a function, got 'yes'"):
        CALLS[name](progress="yes")


def test_bars_end_with_errors(watched):
    with pytest.raises(RuntimeError), shown(True, "work") as tell:
        tell(1, 2)
        raise RuntimeError
    assert watched[0].closed


def test_one_at_a_time(watched):
    with silenced(), shown(True, "inner") as tell:
        assert tell is None
    with shown(True, "outer"), shown(True, "inner") as tell:
        assert tell is None


def test_no_bar_where_nobody_watches(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert progress_module._kind() is None
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    assert progress_module._kind() is TerminalBar
    found = []
    thread = threading.Thread(target=lambda: found.append(progress_module._kind()))
    thread.start()
    thread.join()
    assert found == [None]
    monkeypatch.setenv("RANK", "1")
    assert progress_module._kind() is None


def test_the_bar_of_a_terminal():
    """Seen through a terminal, and gone at its end."""
    pty = pytest.importorskip("pty")
    code = (
        "from pyrovae import progress as p; p.DELAY = p.PAUSE = 0.0\n"
        "with p.shown(True, 'counting') as tell:\n    tell(1, 4, 'a note')\n    tell(4, 4, '[b]done')\n"
    )
    leader, follower = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stderr=follower,
        stdout=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(follower)
    seen = b""
    while True:
        try:
            part = os.read(leader, 4096)
        except OSError:
            break
        if not part:
            break
        seen += part
    os.close(leader)
    assert child.wait() == 0 and child.stdout.read() == b""
    text = seen.decode()
    assert "counting" in text and "[b]done" in text and "100%" in text
    assert text.rstrip().endswith("\x1b[2K") or "\x1b[2K" in text[-40:]


def test_the_bar_of_a_notebook(monkeypatch):
    """Plain HTML in the cell's output, and an empty output at the end; no widgets."""
    seen = []

    class Handle:
        def update(self, value):
            seen.append(value)

    shell = types.SimpleNamespace(kernel=object())
    page = types.ModuleType("IPython.display")
    page.HTML, page.display = str, lambda value, display_id: Handle()
    ipython = types.ModuleType("IPython")
    ipython.get_ipython, ipython.display = lambda: shell, page
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", page)
    assert progress_module._kind() is NotebookBar
    monkeypatch.setattr(progress_module, "DELAY", 0.0)
    with shown(True, "<b>counting</b>") as tell:
        tell(1, 4)
    assert seen[-1] == "" and 'value="1.0" max="4.0"' in seen[0]
    assert "&lt;b&gt;counting" in seen[0] and "<b>" not in seen[0]
