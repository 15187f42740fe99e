"""Nothing that was computed is lost: full disks, kills, two processes on one folder, damaged files."""

import contextlib
import errno
import io
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import pyrovae as pv
from pyrovae import files, runs
from pyrovae.inference import compare, evaluate, gaps, sandwich, train
from pyrovae.inference.workers import run_side_by_side
from pyrovae.training import Checkpoints

FLAGS = ["--device", "cpu", "--quiet"]
QUICK = ["--epochs", "2", "--hidden", "8", "--latent-dim", "2", "--compile", "off", *FLAGS]
EVALUATE = ["--num-samples", "30", "--limit", "40", "--compile", "off", *FLAGS]
GRID = [
    "--priors",
    "standard",
    "mixture",
    "--guides",
    "diagonal",
    "--objectives",
    "trace-elbo",
    "--num-samples",
    "20",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "run"
    assert train.main(["--out", str(folder), *QUICK]) == 0
    return folder


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


# Evidence is of the weights that were loaded.


def test_weights_are_hashed_as_they_were_loaded(run, monkeypatch):
    """Another process replaces the weights while they are evaluated: the figures stay those of the former ones."""
    former = pv.load(run, device="cpu").weights_hash
    real = pv.evidence

    def replaced_meanwhile(*args, **kwargs):
        ev = real(*args, **kwargs)
        loaded = pv.load(run, device="cpu")
        with torch.no_grad():
            next(iter(loaded.store.unconstrained().values())).add_(0.1)
        runs.save_weights(run / "weights.safetensors", loaded.store, loaded.modules)
        return ev

    monkeypatch.setattr(pv, "evidence", replaced_meanwhile)
    assert evaluate.main([str(run), *EVALUATE]) == 0
    from pyrovae.export import read_evidence

    assert read_evidence(run / "evidence.nc").attributes["weights_hash"] == former
    assert pv.load(run, device="cpu").evidence is None


def test_equal_weights_are_equal_files(run, tmp_path):
    loaded = pv.load(run, device="cpu")
    contents = set()
    for i in range(8):
        runs.save_weights(tmp_path / f"{i}.safetensors", loaded.store, loaded.modules)
        contents.add((tmp_path / f"{i}.safetensors").read_bytes())
    assert len(contents) == 1 and runs.read_weights(tmp_path / "0.safetensors")[1] == loaded.weights_hash


def test_a_flipped_bit_is_seen(run, capsys):
    """In the weights and in partial results, wherever it is."""
    file = run / "weights.safetensors"
    whole = file.read_bytes()
    for place in (len(whole) // 2, len(whole) - 3):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 64]) + whole[place + 1 :])
        assert evaluate.main([str(run), *EVALUATE]) == 2
        assert "checksum" in capsys.readouterr().err
    file.write_bytes(whole)
    loaded = pv.load(run, device="cpu")
    ask = {"estimators": [pv.IS(20)], "resume": run / "partial"}
    x = loaded.data.test[:30]
    first = pv.evidence(loaded.model, loaded.guide, x, **ask)
    (part,) = (run / "partial").iterdir()
    content = part.read_bytes()
    for place in (len(content) - 9, len(content) // 2, 60):
        part.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        again = pv.evidence(loaded.model, loaded.guide, x, **ask)
        assert torch.equal(again["IS"].per_datum, first["IS"].per_datum)


def test_a_passing_read_error_is_no_damage(tmp_path, monkeypatch):
    """Too many open files say nothing of a checkpoint: it keeps its name, and nothing starts anew."""
    store = Checkpoints(tmp_path)
    store.save({"value": torch.arange(3.0)})
    real = Path.read_bytes

    def refuse(path):
        raise OSError(errno.EMFILE, "Too many open files", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        store.load()
    monkeypatch.setattr(Path, "read_bytes", real)
    assert len(store.files()) == 1 and torch.equal(store.load()["value"], torch.arange(3.0))


def test_checkpoints_are_in_the_order_of_their_numbers(tmp_path):
    store = Checkpoints(tmp_path, keep=3)
    store.save({"n": 1})
    for name in ("999999", "1000000"):
        shutil.copy(tmp_path / "checkpoint-000001.safetensors", tmp_path / f"checkpoint-{name}.safetensors")
    (tmp_path / "checkpoint-mine.safetensors").write_text("not one of ours")
    assert store.save({"n": 2}).name == "checkpoint-1000001.safetensors"
    assert store.load()["n"] == 2 and (tmp_path / "checkpoint-mine.safetensors").exists()


# Full disks.


class FullDisk:
    """The write of this number fails half way, as on a full disk; so do all later ones."""

    def __init__(self, monkeypatch, at):
        self.count, self.at = 0, at
        real = Path.write_bytes

        def write(path, content):
            self.count += 1
            if self.count > self.at:
                real(path, bytes(content)[: len(content) // 2])
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
            return real(path, content)

        monkeypatch.setattr(Path, "write_bytes", write)


def whole_files(folder):
    """Every file that is there can be read, and none is half written."""
    for file in folder.rglob("*"):
        assert not re.match(r"\.(?!lock)", file.name), file
        if file.suffix == ".safetensors":
            assert files and pv.tensor_files.read_tensors(file)
        elif file.suffix == ".json":
            json.loads(file.read_text())
        elif file.suffix == ".nc":
            pv.export.read_evidence(file)
        elif file.suffix == ".png":
            assert file.read_bytes().endswith(b"IEND\xaeB`\x82")


def commands(run, other):
    """Each command, and words of its figures that must be seen whatever the disk does."""
    return {
        "train": (lambda: train.main(["--out", str(other), *QUICK]), None),
        "evaluate": (lambda: evaluate.main([str(run), *EVALUATE]), "│ IS"),
        "evaluate --resume": (lambda: evaluate.main([str(run), "--resume", *EVALUATE]), "│ IS"),
        "gaps": (lambda: gaps.main([str(run), "--limit", "3", "--steps", "3", *FLAGS]), "amortisation"),
        "sandwich": (
            lambda: sandwich.main(
                [
                    str(run),
                    "--simulate",
                    "3",
                    "--temperatures",
                    "3",
                    "--chains",
                    "2",
                    "--leapfrog",
                    "1",
                    *FLAGS,
                ]
            ),
            "3 data simulated",
        ),
        "compare": (lambda: compare.main(["--out", str(other), *GRID, "--jobs", "1", *QUICK]), "IS evidence"),
        "compare --runs": (
            lambda: compare.main(
                ["--only-runs", "--runs", str(run), "--out", str(other), *EVALUATE[:2], *FLAGS]
            ),
            "IS evidence",
        ),
    }


@pytest.mark.parametrize("command", list(commands(Path(), Path())))
def test_a_full_disk_costs_files_and_no_figures(made, tmp_path, monkeypatch, capsys, command):
    """At every write of every command: figures are shown, what was there is whole, and one line says what is lost."""
    at, seen = 0, []
    while True:
        run, other = tmp_path / f"run{at}", tmp_path / f"out{at}"
        shutil.copytree(made, run)
        before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
        main, words = commands(run, other)[command]
        with monkeypatch.context() as patch:
            disk = FullDisk(patch, at)
            code = main()
        out, err = capsys.readouterr()
        if disk.count <= at:  # it never came to that write
            assert code == 0
            break
        seen.append(code)
        assert code in (1, 2) or "not kept" in err, err
        assert "Traceback" not in err and "internal error" not in err, err
        assert "No space left" in err
        assert words is None or re.sub(r"\s+", " ", words) in re.sub(r"\s+", " ", out), (at, out, err)
        if command == "train" and at >= 5:
            assert "kept: validation ELBO" in out
        whole_files(run)
        whole_files(other) if other.exists() else None
        assert {p: p.read_bytes() for p in before} == before
        at += 1
    assert len(seen) >= 2


def small_disk(folder, size):
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


@pytest.mark.skipif(os.name != "posix", reason="there are no such disks here")
def test_a_real_full_disk(made, tmp_path, capsys):
    """A small tmpfs, where one can be mounted; a limit on file sizes elsewhere. HDF5 crashed the process there."""
    place = tmp_path / "small"
    if small_disk(place, 64):
        try:
            code = evaluate.main([str(made), *EVALUATE, "--out-dir", str(place)])
            out, err = capsys.readouterr()
            assert code == 1 and "│ IS" in out and "No space left" in err and not list(place.rglob("*.nc*"))
        finally:
            subprocess.run(["umount", str(place)], check=True)
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000));"
        "from pyrovae.inference import evaluate; sys.exit(evaluate.main(sys.argv[1:]))"
    )
    place = tmp_path / "limited"
    done = subprocess.run(
        [sys.executable, "-c", program, str(made), *EVALUATE, "--out-dir", str(place)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "│ IS" in done.stdout and "File too large" in done.stderr, done
    assert not list(place.rglob("*.nc"))


def test_the_place_is_probed_before_the_work(run, monkeypatch, capsys):
    def refuse(*_, dir=None, **__):
        raise OSError(errno.EROFS, "Read-only file system", str(dir))

    monkeypatch.setattr(files.tempfile, "NamedTemporaryFile", refuse)
    monkeypatch.setattr(pv, "evidence", lambda *_, **__: pytest.fail("work was done"))
    assert evaluate.main([str(run), *EVALUATE]) == 2
    err = capsys.readouterr().err
    assert "Read-only file system" in err and "--out-dir" in err and err.count("\n") == 1


def test_out_dir(run, tmp_path, capsys):
    before = {p.name for p in run.iterdir()}
    assert evaluate.main([str(run), *EVALUATE, "--resume", "--out-dir", str(tmp_path / "else")]) == 0
    assert {p.name for p in run.iterdir()} == before
    assert {p.name for p in (tmp_path / "else" / "run").iterdir()} == {"evidence.nc", "evidence.png"}


# Locks.


def hold(folder, ready, done):
    with runs.occupied(folder):
        ready.set()
        done.wait(60)


def test_a_live_holder_is_named_and_a_dead_one_taken_over(tmp_path, capsys):
    out = tmp_path / "run"
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=hold, args=(out, ready, done))
    process.start()
    assert ready.wait(60)
    for more in ([], ["--overwrite"], ["--resume"]):
        assert train.main(["--out", str(out), *QUICK, *more]) == 2
        err = capsys.readouterr().err
        assert f"pid {process.pid} on " in err and "since 2" in err and err.count("\n") == 1
    assert (
        compare.main(["--out", str(out), *GRID, *QUICK]) == 2
        and f"pid {process.pid}" in capsys.readouterr().err
    )
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert (out / ".lock").exists()
    assert train.main(["--out", str(out), *QUICK]) == 0
    assert not (out / ".lock").exists()


def test_two_processes_at_once(tmp_path):
    """Of two that start at one moment one runs, and the other is told who does; twenty times."""
    for attempt in range(20):
        out = tmp_path / f"out{attempt}"
        gate, results = multiprocessing.get_context("fork").Barrier(2), []
        pids = []
        for i in range(2):
            pid = os.fork()
            if pid == 0:
                code = 9
                with contextlib.suppress(BaseException):
                    text = io.StringIO()
                    gate.wait(60)
                    torch.set_num_threads(1)
                    with contextlib.redirect_stderr(text), contextlib.redirect_stdout(io.StringIO()):
                        code = train.main(["--out", str(out), *QUICK])
                    (tmp_path / f"said-{attempt}-{i}").write_text(text.getvalue())
                os._exit(code)
            pids.append(pid)
        results = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        said = [(tmp_path / f"said-{attempt}-{i}").read_text() for i in range(2)]
        # A second one that came when the first had ended finds its run.
        assert sorted(results) == [0, 2], (results, said)
        told = said[results.index(2)]
        assert re.search(r"pid \d+ on|just started|holds a(n unfinished)? run", told), told
        assert {p.name for p in out.iterdir()} == {p: 0 for p in runs_files()}.keys()


def runs_files():
    return ["config.json", "weights.safetensors", "metrics.csv", "training.png"]


# Comparisons.


def square(x):
    if x == 3:
        raise ValueError("three is no number")
    if x == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return x * x


def test_work_that_fails_or_dies_is_one_result():
    found = dict(run_side_by_side(square, [1, 2, 3, 4, 5], 2))
    assert {k: v for k, v in found.items() if k not in (3, 4)} == {1: 1, 2: 4, 5: 25}
    assert found[3].reason.startswith("three is no number (") and "SIGKILL" in found[4].reason


MINE = """
import pyro, torch
import pyro.distributions as dist

calls = []

def model(x):
    calls.append(1)
    if len(calls) > 60:
        raise RuntimeError("no more of this")
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z.expand(len(x), x.shape[1]), 9.0).to_event(1), obs=x)

def guide(x):
    loc = pyro.param("loc", torch.zeros(1))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

pair = (model, guide)
"""


def test_a_cell_that_fails_is_one_row(tmp_path, capsys):
    """One that raises and one that diverges beside one that is well; the reason says whose code it was."""
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    out = tmp_path / "cmp"
    argv = ["--out", str(out), *GRID, "--jobs", "1", *QUICK, "--programs", f"{file}:pair"]
    assert compare.main(argv) == 0
    rows = [r for r in (out / "table.md").read_text().splitlines() if r.startswith("|")]
    assert sum("failed" in r for r in rows) == 1 and sum("best" in r for r in rows) == 2  # and the head
    assert f"no more of this ({file}, line 10)" in (out / "table.md").read_text()
    capsys.readouterr()

    argv = ["--out", str(tmp_path / "nan"), *GRID, "--jobs", "1", *QUICK, "--lr", "1e30", "--lr-end", "1e30"]
    assert compare.main([*argv, "--max-returns", "0"]) == 1
    done = capsys.readouterr()
    assert done.out.count("failed: ") == 2 and "finite" in done.out and "at least one cell" in done.err


def test_a_run_in_the_way_is_never_overwritten(tmp_path, capsys):
    out = tmp_path / "cmp"
    mine = out / "standard-diagonal-trace-elbo"
    assert train.main(["--out", str(mine), *QUICK, "--seed", "7"]) == 0
    before = {p: p.read_bytes() for p in mine.iterdir()}
    assert compare.main(["--out", str(out), *GRID, "--jobs", "1", *QUICK]) == 2
    assert "in the way" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in mine.iterdir()} == before


def table_of(out):
    """Rows without seconds."""
    rows = [r for r in (out / "table.md").read_text().splitlines() if r.startswith("|")]
    return [r.rsplit("|", 2)[0] for r in rows]


def start_compare(out):
    pid = os.fork()
    if pid == 0:
        code = 3
        try:
            torch.set_num_threads(1)
            with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
                code = compare.main(["--out", str(out), *GRID, "--jobs", "1", *QUICK])
        finally:
            os._exit(code)
    return pid


def test_comparisons_survive_kills(tmp_path):
    """Killed at random moments and started again: finished cells are not trained again, the table is the same."""
    assert compare.main(["--out", str(tmp_path / "whole"), *GRID, "--jobs", "1", *QUICK]) == 0
    whole, rng, killed = table_of(tmp_path / "whole"), random.Random(0), 0
    kills = int(os.environ.get("PYROVAE_KILLS", "8"))
    while killed < kills:
        out = tmp_path / f"killed{killed}"
        finished = {}
        while True:
            pid = start_compare(out)
            if killed < kills:
                time.sleep(rng.uniform(0.0, 3.0))
                os.kill(pid, signal.SIGKILL)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            for cell in out.glob("*/config.json"):
                now = (cell.parent / "weights.safetensors").stat().st_mtime_ns
                if not (cell.parent / "unfinished.json").exists():
                    assert finished.setdefault(cell, now) == now, "a finished cell was trained again"
            if code == 0:
                break
            assert code == -signal.SIGKILL
            killed += 1
        assert table_of(out) == whole
