"""Workers side by side share the cores: each takes its part instead of all of them."""

import atexit
import io
import os
import shutil
import signal
import sys
import tempfile

# Where Python is told to keep no bytecode, each process of a test would compile all of torch's sources, which takes
# longer than most tests: these processes keep it, in a place of their own.
if sys.dont_write_bytecode:
    sys.dont_write_bytecode = False
    sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = os.path.join(sys.prefix, "pycache")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Read by torch when it is imported, and by the processes that tests start: they have the threads of their worker.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    os.environ.setdefault(
        "OMP_NUM_THREADS",
        str(max(1, (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))),
    )

import matplotlib
import pyro
import pytest
import torch
from _pytest import runner
from matplotlib._pylab_helpers import Gcf
from matplotlib.figure import Figure

from pyrovae.programs import ParameterStore

# A suite that was started in the background ignores the signal that tests send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Records of code that tests train with are no business of the user's.
os.environ["PYROVAE_STATE"] = tempfile.mkdtemp(prefix="pyrovae-state-")
atexit.register(shutil.rmtree, os.environ["PYROVAE_STATE"], ignore_errors=True)


FORKING = ("test_kept", "test_estimators", "test_checkpoints", "test_distributed")


def pytest_addoption(parser):
    """`--share K/N` takes every N-th test, from the K-th on."""
    parser.addoption("--share", metavar="K/N", help="run every N-th test of those chosen, from the K-th on")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Tests that fork come first, then the longest, so that none is left alone at the end; `cuda` ones wait.

    A process in which autograd has started threads, as a few tests make it do, can fork no child that trains.
    """
    items.sort(key=lambda item: (item.path.stem not in FORKING, item.get_closest_marker("slow") is None))
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device: nothing to capture on"))
    if share := config.getoption("share"):
        first, _, every = share.partition("/")
        if not (first.isdigit() and every.isdigit() and 1 <= int(first) <= int(every)):
            raise pytest.UsageError(f"expected --share K/N with K from 1 to N, got {share}")
        kept = items[int(first) - 1 :: int(every)]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


def _call(function, *args):
    return function(*args)


# CPython keeps frames in blocks of 16 KB. At the depth of a test, some call that is made ten thousand times is the
# first of a block, which is taken from the system and given back each time: half of the time of a trace. A frame that
# pretends to be large makes a block with room for all that a test calls.
_call.__code__ = _call.__code__.replace(co_stacksize=70_000)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    """pytest's own, in a frame with room."""
    return _call(runner.pytest_runtest_protocol, item, nextitem)


@pytest.fixture(autouse=True)
def own_state():
    """Each test has a parameter store of its own, whatever Pyro's global one holds, and draws what it draws alone."""
    pyro.set_rng_seed(0)
    with ParameterStore().active():
        yield


@pytest.fixture
def interpreted(monkeypatch):
    """Graphs run as they were traced, for tests of anything but the code that is generated: that takes seconds each."""
    for room in ("compiled_loss", "compiled_weights", "compiled_densities", "compiled_gradients"):
        place = f"pyrovae.programs.compile.{room}.compile_module"
        monkeypatch.setattr(place, lambda module, *rest, **more: module)


@pytest.fixture
def unrendered(monkeypatch):
    """Pictures are files of one pixel, for tests of where files go: to draw takes most of the time of a command."""

    def drawn(figure, suffix, weights_hash=None):
        content = io.BytesIO()
        metadata = {"weights_hash": weights_hash} if suffix == ".png" and weights_hash else None
        Figure(figsize=(1, 1), dpi=1).savefig(content, format=suffix[1:], metadata=metadata)
        return content.getvalue()

    monkeypatch.setattr("pyrovae.plots.saving.drawn", drawn)


@pytest.fixture
def pyplot_untouched():
    """Figures go past pyplot, and leave its settings."""
    before, figures = dict(matplotlib.rcParams), set(Gcf.figs)
    yield
    assert set(Gcf.figs) == figures, "a figure was registered with pyplot"
    assert dict(matplotlib.rcParams) == before
