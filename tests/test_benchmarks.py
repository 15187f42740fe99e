"""The benchmarks run: every case builds and gives a row for each of its runs. No time is asserted."""

import json
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks"
# A child that needs no library: a block takes no time, and the fourth one fails.
CHILD = """
import sys
sys.path.insert(0, {folder!r})
from serve import serve
def make(request):
    print("noise on stdout")
    {body}
    blocks = []
    def block(calls):
        blocks.append(calls)
        if len(blocks) > 3:
            raise RuntimeError("tired")
    return block, {{"version": "1.0"}}
sys.exit(serve(make))
"""


@pytest.fixture
def bench(monkeypatch):
    """`import` in a test finds the files of benchmarks/, and no trace of them stays."""
    monkeypatch.syspath_prepend(str(FOLDER))
    names = [p.stem for p in FOLDER.glob("*.py")]
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def nothing_compiles(interpreted, monkeypatch):
    """Generating code takes some ten seconds; one step below does so."""
    monkeypatch.setattr(torch, "compile", lambda function, **settings: function)


def tiny(**fields):
    from settings import Settings

    # An interpreter without the peers, wherever the tests run.
    return Settings(**{"repeats": 1, "calls": 1, "quick": True, "peers": "no-such-python", **fields})


def whole(rows, absent=()):
    """Every row has its times, but for the peers that are not here."""
    for row in rows:
        if row.what in absent:
            assert row.least is None and "no interpreter" in row.note, row
        else:
            assert row.note is None and row.least is not None and math.isfinite(row.least), row
            assert row.ratio is not None and row.ratio > 0, row
        json.dumps(row.as_json())


def test_the_command_parses(bench, capsys):
    import run

    assert set(run.parse([]).only) == set(run.CASES) - run.EXTRA - run.GPU_ONLY
    chosen = run.parse(["--growth", "--figure", "g.png", "--quick", "--peers", "python"])
    assert chosen.only == ["growth"] and chosen.repeats == 3
    for wrong in (["--repeats", "0"], ["--only", "nothing"], ["--only", "memory", "--figure", "g.png"]):
        with pytest.raises(SystemExit, match="2"):
            run.parse(wrong)
    assert "expected --repeats >= 1, got 0" in capsys.readouterr().err


def test_the_command_writes_its_figures(bench, tmp_path, monkeypatch, capsys):
    import run

    monkeypatch.setitem(run.CASES, "memory", lambda s: run.bench_memory(run.TINY, s, (130, 260)))
    path = tmp_path / "bench.json"
    assert run.main(["--only", "memory", "--quick", "--json", str(path)]) == 0
    kept = json.loads(path.read_text())
    first, second = kept["rows"]
    assert (first["what"], first["ratio"]) == ("K = 130", 1.0)
    assert second["ratio"] == pytest.approx(1.0, abs=0.1)
    assert torch.__version__ in kept["machine"] and "K = 130" in capsys.readouterr().out


def test_a_case_that_fails_or_takes_too_long_costs_its_own_row(bench, tmp_path, monkeypatch, capsys):
    import run
    from timing import Row

    path, seen = tmp_path / "bench.json", []

    def fails(settings):
        raise RuntimeError("no such kernel")

    def waits(settings):
        seen.append(json.loads(path.read_text())["rows"])
        time.sleep(30)

    good = [Row("a step", "ours", "ms", (1.0, 2.0), 1.0)]
    for name, case in {
        "step-64": lambda s: good,
        "memory": fails,
        "stream": waits,
        "epoch": lambda s: good,
    }.items():
        monkeypatch.setitem(run.CASES, name, case)
    chosen = [word for name in ("step-64", "memory", "stream", "epoch") for word in ("--only", name)]
    assert run.main([*chosen, "--limit", "0.2", "--json", str(path), "--quick"]) == 0
    rows = json.loads(path.read_text())["rows"]
    assert [r["note"] for r in rows] == [None, "RuntimeError: no such kernel", "not done within 0.2 s", None]
    assert [r["min"] for r in rows] == [1.0, None, None, 1.0]
    assert [len(kept) for kept in seen] == [2]  # what was measured before was there
    assert "no such kernel" in capsys.readouterr().out


def test_a_run_that_fails_costs_its_own_row(bench):
    from timing import Here, interleaved, rows

    def fails():
        raise RuntimeError("out of memory")

    calls = []

    def tires():
        calls.append(1)
        if len(calls) > 4:
            raise RuntimeError("tired")

    runs = {"good": Here(lambda: None), "bad": Here(fails), "tired": Here(tires)}
    found = rows("case", runs, interleaved(runs, 2, 1), "bad")
    assert [r.note for r in found] == [None, "RuntimeError: out of memory", "RuntimeError: tired"]
    assert found[0].least is not None and math.isnan(found[0].ratio)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler: nothing compiles here")
def test_a_last_smaller_chunk_is_served(bench):
    import importance
    from nets import TINY

    program = importance.program_of(TINY.vae(torch.device("cpu")), TINY.data(torch.device("cpu"), 7))
    importance.compiled(program, importance.pv.Chunk(4, 8), 16)()


@pytest.mark.slow
@pytest.mark.parametrize("hidden", [(16,), ()], ids=["mlp", "conv"])
def test_a_step_has_all_rows(bench, hidden, request):
    import steps
    from nets import Net

    if not hidden:
        request.getfixturevalue("nothing_compiles")
    rows = steps.bench_step(Net(64, hidden, 2, 4), tiny())
    whole(rows, absent={"NumPyro, jitted", "Pythae, its trainer's step"})
    assert len(rows) == 11 and {r.ratio for r in rows if r.what == "pv.SVI, compiled"} == {1.0}


def test_an_epoch_has_all_rows(bench, nothing_compiles):
    import steps
    from nets import Net

    rows = steps.bench_epoch(Net(16, (8,), 2, 4), tiny(), size=10)
    whole(rows, absent={"NumPyro, lax.scan over the epoch"})


# A process of its own, whose graphs run as they were traced too.
RANKS = """
import runpy, sys
from pyrovae.programs.compile import compiled_loss
compiled_loss.compile_module = lambda module, *rest, **more: module
runpy.run_path({child!r}, run_name="__main__")
"""


@pytest.mark.slow
def test_streaming_and_scaling_have_all_rows(bench, nothing_compiles, tmp_path, monkeypatch):
    import scaling
    import streaming
    from nets import Net

    child = tmp_path / "ranks.py"
    child.write_text(RANKS.format(child=str(scaling.CHILD)))
    monkeypatch.setattr(scaling, "CHILD", child)
    net = Net(16, (8,), 2, 4)
    rows = streaming.bench_streaming(net, tiny(), size=40)
    whole(rows)
    assert [r.what for r in rows] == [
        *(streaming.MEMORY, streaming.MAPPED, streaming.BYTES, streaming.WORKER)
    ]
    rows = scaling.bench_scaling(net, tiny(), sizes=(1,))
    whole(rows)
    assert {r.what for r in rows} >= {scaling.CEILING, scaling.TOGETHER, scaling.REDUCE}
    assert "gloo" in next(r.detail for r in rows if r.what == scaling.REDUCE)


def test_families_are_the_same_loss_by_hand(bench, monkeypatch):
    """What is timed side by side is one computation: its mean over noise is ours, for a ladder and a diffusion."""
    import families
    from pyro.infer import Trace_ELBO, TraceMeanField_ELBO

    import pyrovae as pv

    monkeypatch.setattr(families, "by_hand", lambda loss, draws, *_: lambda: float(loss(*draws()).detach()))
    monkeypatch.setattr(families, "Here", lambda run, _: run)
    monkeypatch.setattr(families, "ours", lambda pair, x, objective, _: (pair, x, objective))
    found = {}
    monkeypatch.setattr(families, "interleaved", lambda runs, *_: found.update(runs))
    monkeypatch.setattr(families, "rows", lambda *_: [])
    for make, objective in (
        (lambda: families.bench_ladder(3, tiny()), TraceMeanField_ELBO),
        (lambda: families.bench_diffusion(tiny()), Trace_ELBO),
    ):
        make()
        pair, x, elbo = found["pv.SVI, compiled"]
        assert isinstance(elbo, objective)
        torch.manual_seed(1)
        by_hand = torch.tensor([found["PyTorch by hand, eager"]() for _ in range(60)])
        with pv.ParameterStore().active():
            ours = torch.tensor([float(elbo.loss(pair.model, pair.guide, x)) for _ in range(60)])
        error = float((by_hand.var() / 60 + ours.var() / 60).sqrt())
        assert abs(float(by_hand.mean() - ours.mean())) < 4 * error + 1e-5 * float(ours.mean())
        assert error < 2e-3 * float(ours.mean())


def test_importance_has_all_rows(bench, nothing_compiles):
    import importance
    from nets import Net

    import pyrovae as pv

    net = Net(16, (8,), 2, 4)
    rows = importance.bench_importance(net, tiny(), pv.Chunk(2, 8), components=5, nll=10)
    whole(rows, absent={importance.PYTHAE})
    assert {r.what for r in rows} >= {importance.VAMP_EAGER, importance.VAMP_COMPILED, importance.FLOOR}
    whole(importance.bench_test_set(net, tiny(), size=4, num_samples=256))


def test_growth_and_its_figure(bench, nothing_compiles, tmp_path):
    import growth
    from nets import Net

    net = Net(16, (8,), 2, 4)
    rows = growth.bench_growth(net, tiny(quick=False), batches=(2,), widths=(8,))
    whole(rows)
    assert len({r.case for r in rows}) == 2
    growth.figure(rows, net, "pv.SVI, compiled", "CPU", tmp_path / "growth.png")
    assert 1000 < (tmp_path / "growth.png").stat().st_size < 300_000


def test_the_floor_has_the_products_of_the_step(bench):
    import floor

    net = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.Flatten(), torch.nn.Linear(12, 5))
    layers = floor.products(net, torch.zeros(2, 1, 4, 4))
    assert [(type(m).__name__, tuple(x.shape), tuple(y.shape)) for m, x, y in layers] == [
        ("Conv2d", (2, 1, 4, 4), (2, 3, 2, 2)),
        ("Linear", (2, 12), (2, 5)),
    ]


@pytest.mark.parametrize(
    ("body", "note"),
    [
        ("pass", "failed: RuntimeError: tired"),
        ("import no_such_library", "not installed (uv sync --extra bench)"),
        ("raise ValueError('two\\nlines')", "failed: ValueError: two lines"),
        ("import os; os._exit(3)", "failed: its process ended"),
    ],
    ids=["tires", "missing", "raises", "dies"],
)
def test_a_peer_is_timed_or_says_why_not(bench, tmp_path, body, note):
    import peers
    from timing import Here, interleaved, rows

    script = tmp_path / "child.py"
    script.write_text(CHILD.format(folder=str(FOLDER / "children"), body=body))
    child = peers.Child(sys.executable, script, {"threads": 1})
    try:
        if body == "pass":
            assert child.note is None and child.detail == "version 1.0" and child.block(2) >= 0
        runs = {"here": Here(lambda: None), "peer": child}
        table = rows("case", runs, interleaved(runs, 2, 1), "here")
    finally:
        child.close()
    assert child.note == note
    assert [(r.what, r.least is None) for r in table] == [("here", False), ("peer", True)]


@pytest.mark.parametrize("script", ["numpyro_step", "pythae_step", "pythae_nll"])
def test_the_children_answer_one_line(script):
    """With the peers installed they are ready, without them they say so; never a traceback."""
    net = {"data_dim": 16, "hidden": [8], "latent_dim": 2, "batch": 4, "side": 4}
    request = {"net": net, "threads": 1, "device": "cpu", "images": 1, "samples": 10}
    done = subprocess.run(
        [sys.executable, str(FOLDER / "children" / f"{script}.py")],
        input=json.dumps(request) + "\n" + json.dumps({"calls": 1}) + "\n",
        capture_output=True,
        text=True,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    if "missing" in answers[0]:
        assert answers[0]["missing"] in {"jax", "numpyro", "pythae"} and len(answers) == 1
    else:
        assert answers[0]["ready"] and answers[1]["seconds"] > 0


def test_targets_are_ratios_of_minima(bench):
    from targets import Target
    from timing import Row

    rows = [
        Row("SVI step, a", "x", "ms", (4.0, 3.0)),
        Row("SVI step, a", "y", "ms", (2.0, 2.5)),
        Row("SVI step, b", "x", "ms", note="not installed"),
        Row("SVI step, b", "y", "ms", (1.0,)),
    ]
    target = Target("x / y", "SVI step", "x", "y", 1.4)
    assert list(target.measured(rows)) == [("SVI step, a", 1.5)]
    assert not target.met(1.5) and Target("x / y", "SVI step", "x", "y", 1.4, at_most=False).met(1.5)
