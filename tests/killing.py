"""Kills training again and again, resumes it, and compares with a run that was left alone.

    python -m tests.killing FOLDER KILLS [SEED] [--compile on --epochs 200]

What follows the seed goes to `train`. A compiled run is killed after its first new checkpoint, when it has
compiled. Each attempt is a fork of a process that has imported
everything and run nothing, so that an attempt costs its training only.
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

import pyrovae as pv
from pyrovae import plots
from pyrovae.inference import train

OPTIONS = [
    *("--epochs", "8", "--hidden", "16", "--latent-dim", "2", "--warmup", "3", "--prior", "mixture"),
    *("--components", "3", "--ema", "0.98", "--clip-norm", "50", "--device", "cpu", "--quiet", "--resume"),
]


def start(out, more=()):
    """Forks a process that trains into `out`, which --resume wants to be there."""
    out.mkdir(parents=True, exist_ok=True)
    pid = os.fork()
    if pid == 0:
        code = 3
        try:
            with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
                code = train.main(["--out", str(out), *OPTIONS, *more])
        finally:
            os._exit(code)
    return pid


def wait(pid):
    """Exit code; minus the signal for a killed process."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def checkpoints(out):
    """Names of the checkpoints that a run has written so far."""
    return {p.name for p in (out / "checkpoints").glob("checkpoint-*")}


def until_it_trains(out, pid):
    """Waits for a new checkpoint; the process may have ended before."""
    before = checkpoints(out)
    while (
        checkpoints(out) <= before and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    ):
        time.sleep(0.05)


def result(out, checkpoints=True):
    """What a run leaves: weights and history, and the checkpoint that more epochs go on from."""
    files = {"config.json", "weights.safetensors", "metrics.csv", "training.png"}
    expected = files | {"checkpoints"} if checkpoints else files
    assert {p.name for p in out.iterdir()} == expected, list(out.iterdir())
    return load_file(out / "weights.safetensors"), (out / "metrics.csv").read_bytes()


def same(first, second):
    """Whether weights and history are equal, bit for bit."""
    equal = all(torch.equal(first[0][k], second[0][k]) for k in first[0])
    return first[0].keys() == second[0].keys() and equal and first[1] == second[1]


def main(folder, kills, seed=0, more=()):
    """Returns after so many kills of living runs, all of whose ends are those of the whole run."""
    # What is imported where it is used first.
    pv.data.load("digits")
    plots.save(plots.plot_training([{"epoch": 1, "elbo": 0.0}]), folder / "warm.png")
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    rng, out = random.Random(seed), folder / "killed"
    compiled = "--compile" in more
    began = time.perf_counter()
    pid = start(folder / "whole", more)
    if compiled:
        until_it_trains(folder / "whole", pid)
        began = time.perf_counter()
    assert wait(pid) == 0
    length = time.perf_counter() - began
    whole = result(folder / "whole")
    done, runs, states = 0, 0, []
    while done < kills or out.exists():
        pid = start(out, more)
        if done < kills:
            if compiled:
                until_it_trains(out, pid)
            time.sleep(rng.uniform(0, (0.3 if compiled else 0.8) * length))
            os.kill(pid, signal.SIGKILL)
        code = wait(pid)
        if code == -signal.SIGKILL:
            done += 1
            found = sorted(p.name for p in (out / "checkpoints").glob("checkpoint-*"))
            states.append(int(found[-1][11:17]) if found else 0)
        else:
            assert code == 0, code
        if (out / "config.json").exists() and not (out / "unfinished.json").exists():
            assert same(result(out), whole), "a resumed run differs"
            shutil.rmtree(out)
            runs += 1
    print(
        f"{done} kills after epochs {states}; {runs} runs ended, all equal to the whole one ({length:.1f} s)"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0, sys.argv[4:])
