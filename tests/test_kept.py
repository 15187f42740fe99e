"""Nothing that was computed is lost: kills, two processes on one folder, damaged files."""

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

import numpy as np
import pytest
import torch
from PIL import Image

import pyrovae as pv
from pyrovae import runs
from pyrovae.comparing.workers import run_side_by_side
from pyrovae.evidence.data_hash import data_hash
from pyrovae.evidence.sharing.claims import Claims
from pyrovae.inference import compare, evaluate, gaps, sample, train
from pyrovae.inference.running.attending import Attendance, attending, remove
from pyrovae.inference.running.telling import reason_of
from pyrovae.runs import read_evidence
from pyrovae.tensor_files import hash_of_tensors, read_tensors, write_tensors
from pyrovae.training import Checkpoints, loop

from .small import EVALUATE, FLAGS, GRID, QUICK

pytestmark = pytest.mark.usefixtures("unrendered")


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
    assert read_evidence(run / "evidence.nc").attributes["weights_hash"] == former
    assert pv.load(run, device="cpu").stored_evidence is None


def test_evidence_is_kept_and_found_in_a_place_of_its_own(run, tmp_path, capsys):
    """`--reuse --out-dir` left an empty folder; `--reuse` did not look there."""
    asked = [str(run), "--num-samples", "30", "--compile", "off", "--reuse", *FLAGS]
    assert evaluate.main(asked) == 0
    place = tmp_path / "else" / "run"
    for expected in ("from evidence.nc", f"from {place / 'evidence.nc'}"):
        assert evaluate.main([*asked, "--out-dir", str(place.parent)]) == 0
        assert "".join(expected.split()) in "".join(capsys.readouterr().out.split())
        kept, own = (read_evidence(folder / "evidence.nc") for folder in (place, run))
        assert torch.equal(kept["IS"].per_datum, own["IS"].per_datum) and (place / "evidence.png").is_file()
    with pytest.raises(TypeError, match=r"try pv.load\(folder, model=model, guide=guide\)"):
        pv.load(run, lambda x: None, lambda x: None)


@pytest.mark.slow
def test_evidence_of_one_split_does_not_displace_that_of_another(run, capsys):
    """Each figure is held against the split's own data, whose hash and number the files say."""

    def sizes():
        return {p.name: read_evidence(p).attributes["num_data"] for p in run.glob("evidence*.nc")}

    asked = ["--num-samples", "30", "--compile", "off", *FLAGS]
    splits = pv.data.load("digits").spec.splits
    assert evaluate.main([str(run), *asked, "--split", "train"]) == 0
    assert "evidence-train.nc" in "".join(capsys.readouterr().out.split())
    loaded = pv.load(run, device="cpu")
    assert loaded.stored_evidence is None and sizes() == {"evidence-train.nc": splits["train"]}
    assert "none yet of the test split" in repr(loaded) and "of the train split" in repr(loaded)
    assert evaluate.main([str(run), *asked]) == 0
    assert "wrote" not in capsys.readouterr().out
    of_test = data_hash(*loaded.data.arguments("test"))
    assert loaded.stored_evidence.attributes["data_hash"] == of_test and len(loaded.stored_evidence.x) < 1000
    for more in (["--split", "valid"], ["--limit", "9"], ["--split", "train", "--limit", "9"]):
        assert evaluate.main([str(run), *asked, *more]) == 0
    ours = {"evidence.nc": splits["test"], "evidence-train.nc": splits["train"]}
    ours |= {"evidence-valid.nc": splits["valid"], "evidence-9.nc": 9, "evidence-train-9.nc": 9}
    assert sizes() == ours and loaded.stored_evidence.attributes["data_hash"] == of_test
    assert f"N={splits['test']}" in repr(loaded)
    capsys.readouterr()
    for more in (["--split", "train"], ["--split", "train", "--limit", "9"], ["--split", "valid"]):
        assert evaluate.main([str(run), *asked, *more, "--reuse"]) == 0
        assert f"from evidence-{more[1]}" in " ".join(capsys.readouterr().out.split())
    # A folder of before, whose evidence.nc is of the training data.
    for path in run.glob("evidence*"):
        if path.name not in ("evidence-train.nc", "evidence-train.png"):
            path.unlink()
    (run / "evidence-train.nc").rename(run / "evidence.nc")
    assert loaded.stored_evidence is None and "evidence.nc is of the train split" in repr(loaded)
    assert evaluate.main([str(run), *asked, "--split", "train", "--reuse"]) == 0
    assert "from evidence.nc" in " ".join(capsys.readouterr().out.split())
    assert evaluate.main([str(run), *asked]) == 0
    assert sizes() == {"evidence.nc": splits["test"], "evidence-train.nc": splits["train"]}


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


def test_partial_results_of_another_version_are_computed_again(run):
    """Their checksum is right, and their content is not what this version writes."""
    loaded = pv.load(run, device="cpu")
    ask = {"estimators": [pv.IS(20)], "resume": run / "partial"}
    first = pv.evidence(loaded.model, loaded.guide, loaded.data.test[:30], **ask)
    (part,) = (run / "partial").iterdir()
    tensors, metadata = read_tensors(part)
    about = json.loads(metadata["pyrovae"])
    for other in (
        [about],
        {},
        {**about, "tree": 3},
        {**about, "tree": {"items": [["IS", {"items": [["a", 1]]}]]}},
    ):
        text = json.dumps(other)
        write_tensors(part, tensors, {"pyrovae": text, "sha256": hash_of_tensors(tensors, text)})
        again = pv.evidence(loaded.model, loaded.guide, loaded.data.test[:30], **ask)
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


@pytest.mark.parametrize("name", ["weights.safetensors", "metrics.csv", "training.png"])
def test_files_of_the_names_of_a_run_are_not_replaced_unasked(tmp_path, capsys, name):
    """The folder holds no run, but something of the user's: they did not ask for it to go."""
    (tmp_path / name).write_text("mine")
    for more in ([], ["--resume"]):
        assert train.main(["--out", str(tmp_path), *QUICK, *more]) == 2
        err = capsys.readouterr().err
        assert name in err and "--overwrite" in err and err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "mine"


def test_a_run_that_ends_before_its_first_checkpoint_leaves_nothing(tmp_path, monkeypatch):
    """So that the next start finds a free folder."""
    real = loop.write_history

    def interrupted(path, history):
        real(path, history)
        raise KeyboardInterrupt

    argv = ["--out", str(tmp_path / "run"), *QUICK, "--checkpoint-every", "0"]
    with monkeypatch.context() as patch:
        patch.setattr(loop, "write_history", interrupted)
        assert train.main(argv) == 130
    assert not (tmp_path / "run").exists()


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


def start_training(out, gate, said):
    pid = os.fork()
    if pid == 0:
        code = 9
        with contextlib.suppress(BaseException):
            text = io.StringIO()
            torch.set_num_threads(1)
            gate.wait(60)
            with contextlib.redirect_stderr(text), contextlib.redirect_stdout(io.StringIO()):
                code = train.main(["--out", str(out), *QUICK, "--epochs", "1"])
            said.write_text(text.getvalue())
        os._exit(code)
    return pid


def test_two_processes_at_once(tmp_path):
    """Of two that start at one moment one runs, and the other is told who holds the folder."""
    for attempt in range(int(os.environ.get("PYROVAE_PAIRS", "3"))):
        out, gate = tmp_path / f"out{attempt}", multiprocessing.get_context("fork").Barrier(2)
        files_said = [tmp_path / f"said-{attempt}-{i}" for i in range(2)]
        pids = [start_training(out, gate, said) for said in files_said]
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        said = [f.read_text() for f in files_said]
        assert sorted(codes) == [0, 2], (codes, said)
        # One that comes when the other has ended, or is about to begin, finds its run.
        assert re.search(r"pid \d+ on|has just started|holds an? (unfinished )?run", said[codes.index(2)]), (
            said
        )
        names = {"checkpoints", "config.json", "weights.safetensors", "metrics.csv", "training.png"}
        assert {p.name for p in out.iterdir()} == names


# Comparisons.


def square(x):
    if x == 3:
        raise ValueError("three is no number")
    if x == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return x * x


@pytest.mark.slow
def test_work_that_fails_or_dies_is_one_result():
    found = dict(run_side_by_side(square, [1, 2, 3, 4, 5], 2, reason=reason_of))
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
        pyro.sample("x", dist.Binomial(16, logits=z.expand(len(x), x.shape[1])).to_event(1), obs=x)

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
    before = {p: p.read_bytes() for p in mine.rglob("*") if p.is_file()}
    assert compare.main(["--out", str(out), *GRID, "--jobs", "1", *QUICK]) == 2
    assert "in the way" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in mine.rglob("*") if p.is_file()} == before


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


@pytest.mark.slow
def test_comparisons_survive_kills(tmp_path):
    """Killed at random moments and started again: finished cells are not trained again, the table is the same."""
    # In this process, so that forks of it need not import anything.
    assert compare.main(["--out", str(tmp_path / "warm"), *GRID, "--jobs", "1", *QUICK]) == 0
    began = time.perf_counter()
    assert os.waitstatus_to_exitcode(os.waitpid(start_compare(tmp_path / "whole"), 0)[1]) == 0
    length = time.perf_counter() - began
    whole, rng, killed, kept = table_of(tmp_path / "whole"), random.Random(0), 0, 0
    kills = int(os.environ.get("PYROVAE_KILLS", "3"))
    while killed < kills:
        out, finished = tmp_path / f"killed{killed}", {}
        while True:
            pid = start_compare(out)
            if killed < kills:
                time.sleep(rng.uniform(0.0, 0.9 * length))
                os.kill(pid, signal.SIGKILL)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            for cell in out.glob("*/config.json"):
                now = (cell.parent / "weights.safetensors").stat().st_mtime_ns
                if not (cell.parent / "unfinished.json").exists():
                    kept += cell in finished
                    assert finished.setdefault(cell, now) == now, "a finished cell was trained again"
            assert code in (0, -signal.SIGKILL)
            killed += code != 0
            if (out / "config.json").exists():  # all is written, whether or not the process came to its end
                break
        assert table_of(out) == whole
        out.rename(tmp_path / f"ended{len(list(tmp_path.glob('ended*')))}")
    print(f"{killed} kills, {kept} times a finished cell was found and taken ({length:.1f} s undisturbed)")


# Interruptions.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_checkpoint_and_says_how_to_go_on(tmp_path, capsys, monkeypatch, number):
    out = tmp_path / "run"
    real = Checkpoints.save

    def save(store, state):  # the signal comes in the middle of the second epoch's first step
        path = real(store, state)
        if len(state["progress"]["history"]) == 1:
            os.kill(os.getpid(), number)
        return path

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save)
        code = train.main(["--out", str(out), *QUICK])
    err = capsys.readouterr().err
    assert code == 128 + number and f"pyrovae train --out {out} --resume" in err
    assert ("terminated" if number == signal.SIGTERM else "interrupted") in err
    assert (out / "unfinished.json").exists() and not (out / ".lock").exists()
    resume = ["--out", str(out), "--resume", "--device", "cpu", "--quiet"]
    # Without checkpoints it would start anew, in silence.
    assert train.main([*resume, "--checkpoint-every", "0"]) == 2
    assert "--checkpoint-every" in capsys.readouterr().err
    assert train.main(resume) == 0
    whole = tmp_path / "whole"
    assert train.main(["--out", str(whole), *QUICK]) == 0
    assert (out / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()
    # Resumed once more there is nothing to do, and it says so; with other options it is refused.
    capsys.readouterr()
    assert train.main(resume) == 0 and "has ended" in capsys.readouterr().out
    assert train.main([*resume, "--lr", "0.5"]) == 2
    assert (out / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()


def test_an_interrupted_evaluation_says_how_to_go_on(run, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(pv, "evidence", interrupted)
    assert evaluate.main([str(run), "--resume", *EVALUATE]) == 130
    assert f"to continue: pyrovae evaluate {run} --resume --num-samples 30" in capsys.readouterr().err
    assert evaluate.main([str(run), *EVALUATE]) == 130
    assert "to continue" not in capsys.readouterr().err


SLOW = "import time\n\ndef sleep(x):\n    open(f'{x}', 'w').close()\n    time.sleep(600)\n"
PARENT = (
    "import sys; sys.path.insert(0, '.')\n"
    "if __name__ == '__main__':\n"
    "    from contextlib import closing\n"
    "    from slow import sleep\n"
    "    from pyrovae.comparing.workers import run_side_by_side\n"
    "    with closing(run_side_by_side(sleep, ['a', 'b'], 2)) as found:\n"
    "        list(found)\n"
)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_parent(tmp_path, number):
    """Killed or interrupted, none of them stays, and it does not take until their work is done."""
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "parent.py").write_text(PARENT)
    parent = subprocess.Popen([sys.executable, "parent.py"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("[ab]"))) < 2:
        assert time.monotonic() < deadline and parent.poll() is None
        time.sleep(0.1)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    if not children.exists():
        parent.kill()
        pytest.skip("no /proc to look for processes in")
    workers = [int(p) for p in children.read_text().split()]
    assert len(workers) >= 2
    os.kill(parent.pid, number)
    parent.wait(60)
    while any(alive(p) for p in workers):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# What kills leave behind.


def test_left_overs_are_cleaned(run):
    loaded = pv.load(run, device="cpu")
    place = run / "partial"
    ask = {"estimators": [pv.IS(20)], "resume": place}
    pv.evidence(loaded.model, loaded.guide, loaded.data.test[:30], **ask)
    old, new = place / ".a-1.safetensors", place / ".b-2.safetensors"
    for file in (old, new):
        file.write_text("half")
    os.utime(old, (1, 1))
    again = pv.evidence(loaded.model, loaded.guide, loaded.data.test[:30], **ask)
    assert not old.exists() and new.exists(), "another process may be writing the new one"
    assert [p.name for p in again.partials] == [p.name for p in place.glob("[!.]*")]
    new.unlink()
    assert evaluate.main([str(run), "--resume", *EVALUATE]) == 0
    assert [p.name for p in place.iterdir()] == [p.name for p in again.partials], (
        "of another question: they stay"
    )


def test_partial_results_go_when_they_are_put_together(run, capsys):
    """Of gaps, alone and shared; who comes late to a shared command is shown what the others have kept."""
    argv = [str(run), "--limit", "3", "--steps", "3", "--draws", "20", "--compile", "off", *FLAGS]
    assert gaps.main([*argv, "--resume"]) == 0 and not (run / "partial").exists()

    def figures():
        return {k: v for k, v in json.loads((run / "gaps.json").read_text()).items() if k != "attributes"}

    kept = figures()
    (run / "gaps.json").unlink()
    with attending(run / "partial", 60):
        assert gaps.main([*argv, "--shared"]) == 0 and list((run / "partial").glob("*.safetensors"))
    assert figures() == kept
    capsys.readouterr()
    assert gaps.main([*argv, "--shared"]) == 0
    assert "of these very weights" in capsys.readouterr().out
    (run / "gaps.json").unlink()
    assert gaps.main([*argv, "--shared"]) == 0 and not (run / "partial").exists()
    assert figures() == kept


def test_the_last_to_leave_is_alone(tmp_path):
    first, second, dead = (Attendance(tmp_path, 5.0) for _ in range(3))
    for one in (first, second, dead):
        one.sign()
    old = time.time() - 60
    (last,) = [p for p in tmp_path.glob(".*.here") if p == dead._own]
    os.utime(last, (old, old))
    assert not first.leave() and second.leave()
    remove([], first)


def test_claims_dated_in_the_future_expire(tmp_path):
    first, second = (Claims(tmp_path, "p", 5.0) for _ in range(2))
    assert first.take("a") and not second.take("a")
    later = time.time() + 10_000
    os.utime(tmp_path / "p-a.claim-0", (later, later))
    assert second.take("a")


def test_results_carry_the_hash_of_their_weights(run):
    assert gaps.main([str(run), "--limit", "3", "--steps", "3", "--compile", "off", *FLAGS]) == 0
    assert sample.main([str(run), "--num", "2", "--only", "samples", "--device", "cpu"]) == 0
    digest = pv.load(run, device="cpu").weights_hash
    assert json.loads((run / "gaps.json").read_text())["weights_hash"] == digest
    with np.load(run / "samples.npz", allow_pickle=False) as arrays:
        assert str(arrays["weights_hash"]) == digest


def test_results_of_former_weights_go_with_them(run):
    """Trained anew, a folder shows nothing that was found of its former weights; files of the user's stay."""
    small = ["--limit", "3", "--steps", "3", "--compile", "off", *FLAGS]
    assert gaps.main([str(run), *small]) == 0 and evaluate.main([str(run), *EVALUATE]) == 0
    assert sample.main([str(run), "--num", "2", "--only", "samples", "--device", "cpu"]) == 0
    digest = pv.load(run, device="cpu").weights_hash
    found = ["evidence.nc", "evidence.png", "gaps.json", "gaps.md", "gaps.png", "samples.npz", "samples.png"]
    for name in ("evidence.png", "gaps.png", "samples.png"):
        with Image.open(run / name) as picture:
            assert picture.info["weights_hash"] == digest, name
    found += ["report.html", "samples.csv", "imputed.csv", "imputed_values.csv", "classes.png", "noising.svg"]
    found += ["evidence-train.nc", "evidence-valid-9.png"]
    for name in found[-8:]:
        (run / name).write_text("of the former weights")
    mine = ["evidence-of-mine.nc", "notes.md", "gaps.txt"]
    for name in mine:
        (run / name).write_text("mine")
    (run / "evidence-40.nc").write_bytes((run / "evidence.nc").read_bytes())
    assert train.main(["--out", str(run), *QUICK, "--seed", "1", "--overwrite", "--format", "svg"]) == 0
    left = {p.name for p in run.iterdir()}
    assert not left & {*found, "evidence-40.nc", "training.png"} and {*mine, "training.svg"} < left


@pytest.mark.slow
def test_an_unwritable_compile_cache_costs_only_time(made, tmp_path):
    """torch cannot be imported as a whole without its folder: another one serves, with the reason."""
    (tmp_path / "file").write_text("")
    program = "import sys; from pyrovae.inference import train; sys.exit(train.main(sys.argv[1:]))"
    argv = ["--out", str(tmp_path / "run"), *QUICK, "--epochs", "1"]
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "file" / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", program, *argv], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0 and "for this process alone" in done.stderr, done.stderr
