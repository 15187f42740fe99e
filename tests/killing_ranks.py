"""Kills ranks of a training, and workers of an evaluation, again and again; compares with runs left alone.

    python -m tests.killing_ranks FOLDER KILLS [SEED]

The engine is torchrun's own (`elastic_launch`), its workers forked from a process that has imported
everything and computed nothing, so that an attempt costs its training only.
"""

import contextlib
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import pyrovae as pv
from pyrovae import plots
from pyrovae.evidence.sharing.partial_results import Partials
from pyrovae.inference import evaluate, train
from pyrovae.runs import read_evidence

from .ranks import warm

TIMEOUT = 60.0  # seconds a rank is waited for
LIMIT = 600.0  # seconds after which something hangs
OPTIONS = [
    *("--epochs", "5", "--hidden", "16", "--latent-dim", "2", "--warmup", "3", "--ema", "0.98"),
    *("--compile", "off", "--device", "cpu", "--quiet", "--bitwise", "--rank-timeout", str(TIMEOUT)),
]
SAMPLES = ["--num-samples", "500", "--compile", "off", "--device", "cpu", "--quiet"]


def worker(out, pids, options):
    """A rank: leaves its number, then trains."""
    (pids / f"{os.environ['TORCHELASTIC_RESTART_COUNT']}-{os.environ['RANK']}").write_text(str(os.getpid()))
    code = train.main(["--out", str(out), *options])
    if code:
        sys.exit(code)


def engine(size, restarts, out, pids, options=OPTIONS):
    """Forks torchrun's engine with `size` ranks; returns its process."""
    pid = os.fork()
    if pid:
        return pid
    config = LaunchConfig(
        *(1, 1, size),
        run_id=f"killing-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=restarts,
        monitor_interval=0.1,
        start_method="fork",
    )
    code = 3
    try:
        with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
            if "RANKS_DEBUG" not in os.environ:
                os.dup2(nothing.fileno(), 2)
            elastic_launch(config, worker)(out, pids, options)
        code = 0
    finally:
        os._exit(code)


def wait(pid, limit=LIMIT):
    """Exit code of a process.

    Raises:
        AssertionError: it hangs.
    """
    until = time.monotonic() + limit
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    raise AssertionError(f"nothing ended within {limit:g} s")


def result(out):
    """What a run leaves: weights and history."""
    names = {"config.json", "weights.safetensors", "metrics.csv", "training.png"}
    assert names <= {p.name for p in out.iterdir()}, list(out.iterdir())
    return load_file(out / "weights.safetensors"), (out / "metrics.csv").read_bytes()


def same(first, second):
    """Whether weights and history are equal, bit for bit."""
    return all(torch.equal(first[0][k], second[0][k]) for k in first[0]) and first[1] == second[1]


def kill_ranks(folder, kills, rng):
    """Trains on two ranks until so many of them were killed; each run ends with the weights of the whole one."""
    pids = folder / "pids"
    pids.mkdir()
    began = time.perf_counter()
    assert wait(engine(2, 0, folder / "whole", pids)) == 0, "the undisturbed run"
    length, whole = time.perf_counter() - began, result(folder / "whole")
    shutil.rmtree(pids)
    done, runs, waits = 0, 0, []
    while done < kills:
        pids.mkdir()
        # An engine with a few restarts: some runs end within it, others are started anew with --resume.
        out, more = folder / "killed", 3
        out.mkdir(exist_ok=True)
        pid = engine(2, more, out, pids, [*OPTIONS, "--resume"])
        restart = 0
        while done < kills:
            rank = rng.randrange(2)
            target = pids / f"{restart}-{rank}"
            while not target.exists() and not ended(pid):
                time.sleep(0.02)
            time.sleep(rng.uniform(0, 0.5 * length))
            if ended(pid) or not target.exists() or not alive(int(target.read_text())):
                break
            os.kill(int(target.read_text()), signal.SIGKILL)
            done += 1
            restart += 1
            print(f"kill {done}: rank {rank} of attempt {restart}", flush=True)
            if restart > more:
                break
        killed = time.monotonic()
        code = wait(pid)
        waits.append(time.monotonic() - killed)
        shutil.rmtree(pids)
        if code == 0:
            assert same(result(out), whole), "a restarted run differs"
            shutil.rmtree(out)
            runs += 1
            print(f"run {runs} ended like the whole one", flush=True)
    if (folder / "killed").exists():
        pids.mkdir()
        assert wait(engine(2, 0, folder / "killed", pids, [*OPTIONS, "--resume"])) == 0
        assert same(result(folder / "killed"), whole), "a resumed run differs"
        runs += 1
    print(
        f"{done} kills of a rank, {runs} runs ended, weights and history equal bit for bit; an undisturbed run "
        f"takes {length:.1f} s, the longest wait for an end was {max(waits):.1f} s"
    )


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def ended(pid):
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def evaluator(run, log, more=()):
    """Forks a process that evaluates `run`, writing down which units it computes."""
    pid = os.fork()
    if pid:
        return pid
    save = Partials.save

    def noted(self, part, results):
        with open(log, "a") as f:
            f.write(f"{part}\n")
        save(self, part, results)

    Partials.save = noted
    code = 3
    try:
        with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
            code = evaluate.main([str(run), *SAMPLES, *more])
    finally:
        os._exit(code)


def lines(*logs):
    return [line for log in logs if log.exists() for line in log.read_text().split()]


def kill_workers(folder, run, kills, rng):
    """One worker alone; two that share a folder; two of which one is killed, until that happened `kills` times."""
    copies = []

    def fresh():
        copies.append(folder / f"evaluated-{len(copies)}")
        shutil.copytree(run, copies[-1])
        return copies[-1], [folder / f"units-{len(copies)}-{i}" for i in range(3)]

    out, logs = fresh()
    began = time.perf_counter()
    assert wait(evaluator(out, logs[0])) == 0
    length, whole = time.perf_counter() - began, read_evidence(out / "evidence.nc")

    def equal(out):
        found = read_evidence(out / "evidence.nc")
        return all(torch.equal(found[n].per_datum, whole[n].per_datum) for n in whole)

    out, logs = fresh()
    pids = [evaluator(out, log, ["--shared"]) for log in logs[:2]]
    assert [wait(p) for p in pids] == [0, 0] and equal(out)
    units = lines(*logs)
    assert len(set(units)) == len(units), "a unit was computed twice"
    shares = [len(lines(log)) for log in logs[:2]]
    for _ in range(kills):
        out, logs = fresh()
        shared = ["--shared", "--claim-expiry", "2"]
        pids = [evaluator(out, log, shared) for log in logs[:2]]
        time.sleep(rng.uniform(0.3, 0.6 * length))
        os.kill(pids[1], signal.SIGKILL)
        wait(pids[1])
        again = evaluator(out, logs[2], shared)
        assert [wait(pids[0]), wait(again)] == [0, 0] and equal(out), "a shared evaluation differs"
        left = [p.name for p in (out / "partial").iterdir() if ".claim" in p.name]
        assert not left, left
    print(
        f"{len(units)} units, {shares[0]} and {shares[1]} by two workers, none twice; {kills} kills of one of two, "
        f"restarted: all equal bit for bit ({length:.1f} s alone)"
    )


def main(folder, kills, seed=0):
    pv.data.load("digits")
    plots.save(plots.plot_training([{"epoch": 1, "elbo": 0.0}]), folder / "warm.png")
    warm()
    rng = random.Random(seed)
    kill_ranks(folder, kills, rng)
    kill_workers(folder, folder / "whole", max(1, kills // 4), rng)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
