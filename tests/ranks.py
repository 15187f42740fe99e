"""What several ranks do, in processes of their own: `tests/test_distributed.py` looks at what this leaves.

    python -m tests.ranks FOLDER

Forks the ranks of each scenario from a process that has imported everything and computed nothing.
"""

import contextlib
import functools
import json
import os
import socket
import sys
import time
import traceback
import warnings
from pathlib import Path
from unittest import mock

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import TraceMeanField_ELBO
from torch.fx.experimental.proxy_tensor import make_fx

import pyrovae as pv
from pyrovae.distributed import Elsewhere, Split, joined

from .pairs import D, L, Pair

N = 50  # 50 data in batches of 16: three full ones and one of 2


class Scaled(Pair):
    """A plate that stands for all data, whatever batch it is given."""

    def model(self, x):
        pyro.module("dec", self.dec)
        with pyro.plate("data", N, subsample_size=len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(L), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.dec(z)).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("enc", self.enc)
        with pyro.plate("data", N, subsample_size=len(x)):
            loc, raw = self.enc(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))


class Coupled(Pair):
    """Its data know of each other: a batch is no sum of its parts."""

    def guide(self, x):
        pyro.module("enc", self.enc)
        with pyro.plate("data", len(x)):
            loc, raw = self.enc(x - x.mean(0)).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))


class Branching(Pair):
    """No graph: its course depends on a value."""

    def model(self, x):
        if self.dec.weight.sum() > -1e9:
            super().model(x)


def rows(seed=1):
    return (torch.rand(N, D, generator=torch.Generator().manual_seed(seed)) > 0.5).float()


def fit(pair=None, data=None, split=None, **options):
    pair = Pair() if pair is None else pair
    options = {"epochs": 3, "batch_size": 16, "seed": 2, "compile": False, "restore_best": False} | options
    return pv.fit(pair.model, pair.guide, rows() if data is None else data, split=split, **options)


# Every option of a fit that divides a batch or looks at it; two to a fit where they do not meet.
FITS = {
    "plain": {},
    "particles": {"objective": pv.objectives.DReG(4)},
    "clipped, averaged": {"clip_norm": 1.0, "ema": 0.9, "beta": pv.Warmup(2)},
    "SGD by groups": {
        **{"optim": functools.partial(torch.optim.SGD, lr=1e-3), "groups": {"dec*": {"lr": 1e-4}}},
        "compile": True,
    },
    "mean field": {
        **{"objective": TraceMeanField_ELBO(), "valid": rows(3), "restore_best": True, "patience": 2},
    },
    "scaled plate": {"pair": Scaled},
    "one batch an epoch": {"batch_size": 50, "lr": pv.Exponential(1e-2, 1e-3, 3)},
}


def made(options):
    """Options of a fit, its objects made afresh."""
    return {k: v() if k == "pair" else v for k, v in options.items()}


def save(path, run):
    history = [{k: repr(v) for k, v in row.items()} for row in run.history]
    path.write_text(json.dumps(history))
    torch.save(run.store.state_dict(), path.with_suffix(".pt"))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def launch(size, body, port=None, limit=900.0):
    """Runs `body()` in `size` processes as torchrun would start them; (exit code, last line of stderr) of each."""
    port = free_port() if port is None else port
    pids, logs = [], []
    for rank in range(size):
        read, write = os.pipe()
        logs.append(read)
        pid = os.fork()
        if pid == 0:
            code = 9
            os.dup2(write, 2)
            given = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1"}
            os.environ.update({k: str(v) for k, v in {**given, "MASTER_PORT": port}.items()})
            try:
                warnings.simplefilter("ignore")
                code = body() or 0
            except Elsewhere:
                code = 2
            except Exception as error:
                print(f"{type(error).__name__}: {' '.join(str(error).split())}", file=sys.stderr)
                if os.environ.get("RANKS_DEBUG"):
                    traceback.print_exc()
                code = 1
            finally:
                sys.stderr.flush()
                os._exit(code)
        os.close(write)
        pids.append(pid)
    codes = []
    until = time.monotonic() + limit
    for pid in pids:
        done, status = 0, 0
        while not done and time.monotonic() < until:
            done, status = os.waitpid(pid, os.WNOHANG)
            time.sleep(0.02)
        if not done:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
        codes.append(os.waitstatus_to_exitcode(status) if done else "hangs")
    texts = []
    for log in logs:
        with os.fdopen(log) as f:
            lines = [line for line in f.read().strip().splitlines() if not line.startswith(("[W", "[rank"))]
        texts.append(lines[-1] if lines else "")
    return [list(pair) for pair in zip(codes, texts, strict=True)]


def ranks(body, timeout=300.0):
    """`body(world)` in a process group."""

    def run():
        with joined("cpu", timeout) as world:
            return body(world)

    return run


def equal(folder):
    """Each fit by one process and by two ranks; the first leaves what it has."""

    def two(world):
        for name, options in FITS.items():
            began = time.perf_counter()
            run = fit(split=Split(world), **made(options))
            if os.environ.get("RANKS_DEBUG"):
                print(world.rank, name, time.perf_counter() - began, flush=True)
            if world.first:
                save(folder / f"{name}, two.json", run)

    # Graphs run as they were traced: three processes would generate the same code.
    with mock.patch(
        "pyrovae.programs.compile.compiled_loss.compile_module", lambda module, *rest, **more: module
    ):
        codes = launch(2, ranks(two))
        for name, options in FITS.items():
            save(folder / f"{name}, one.json", fit(**made(options)))
    return codes


def bitwise(folder):
    """Two ranks, and one with two micro-batches; a run that goes from two ranks to one and back."""
    options = {"ema": 0.9, "clip_norm": 5.0}

    def two(world):
        run = fit(split=Split(world, bitwise=True), **options)
        if world.first:
            save(folder / "bitwise, two.json", run)
        kept = {"checkpoint": folder / "kept", "resume": True, "checkpoint_steps": 1}
        fit(split=Split(world, bitwise=True), **kept, **options, epochs=1)
        world.every(None)

    def again(world):
        kept = {"checkpoint": folder / "kept", "resume": True}
        run = fit(split=Split(world, bitwise=True), **kept, **options)
        if world.first:
            save(folder / "bitwise, back.json", run)

    def one():
        kept = {"checkpoint": folder / "kept", "resume": True}
        fit(split=Split(accumulate=2, bitwise=True), **kept, **options, epochs=2)
        save(folder / "bitwise, one.json", fit(split=Split(accumulate=2, bitwise=True), **options))

    # In processes of their own: one that has computed gradients must not fork.
    return launch(2, ranks(two)) + launch(1, one) + launch(2, ranks(again))


def wrong(folder):
    """What is refused: what each rank says of each case."""
    cases = {
        "data": lambda r: {"data": rows(1 + r)},
        "seed": lambda r: {"seed": 2 + r},
        "objective": lambda r: {"objective": pv.objectives.IWAE(2 + r)},
        "epochs": lambda r: {"epochs": 1 + r},
        "model": lambda r: {"pair": Pair if r else shifted},
        "batch": lambda r: {"batch_size": 1},
        "free bits": lambda r: {"free_bits": 0.5},
        "coupled": lambda r: {"pair": Coupled},
        "no graph": lambda r: {"pair": Branching},
        "Pyro's optimizer": lambda r: {"optim": pyro.optim.Adam({"lr": 1e-3})},
        "one rank's data": lambda r: {"data": rows() if r == 0 else rows().fill_(torch.nan)},
    }

    def refused(world):
        said = {}
        for name, give in cases.items():
            try:
                fit(split=Split(world), **made(give(world.rank)))
                said[name] = "nothing"
            except Exception as error:
                said[name] = f"{type(error).__name__}: {error}"
        try:
            world.check_shared(folder / str(world.rank))
        except Exception as error:
            said["folder"] = f"{type(error).__name__}: {error}"
        (folder / f"refused-{world.rank}.json").write_text(json.dumps(said))

    for rank in range(2):
        (folder / str(rank)).mkdir()
    busy = socket.socket()
    busy.bind(("127.0.0.1", 0))
    busy.listen()
    port = launch(1, ranks(lambda world: None), port=busy.getsockname()[1])
    busy.close()
    return {"ended": launch(2, ranks(refused)), "port": port}


def shifted():
    pair = Pair()
    with torch.no_grad():
        pair.dec.bias.add_(1.0)
    return pair


def lost(folder):
    """A rank that dies, and one that hangs: the other ends within the timeout."""

    def dies(world, how):
        def each(row):
            pass

        trainer = pv.Trainer(*pair_of(Pair()), rows(), batch_size=16, split=Split(world))
        for step in range(100):
            if world.rank == 1 and step == 3:
                how()
            trainer.step()

    started = time.monotonic()
    died = launch(2, ranks(lambda w: dies(w, lambda: os._exit(7)), timeout=60.0))
    first = time.monotonic() - started
    hung = launch(2, ranks(lambda w: dies(w, lambda: time.sleep(8)), timeout=2.0))
    return {"dies": died, "hangs": hung, "seconds": first}


def pair_of(pair):
    return pair.model, pair.guide


def interrupted(folder):
    """Ctrl-C on one rank ends all of them after one step, with a checkpoint; resumed, the run is the whole one."""
    import signal

    options = {"epochs": 4, "checkpoint": folder / "stopped", "resume": True}

    def stops(world):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        seen = 0
        original = pv.Trainer._static_step

        def step(self, *args, **kwargs):
            nonlocal seen
            seen += 1
            if world.rank == 1 and seen == 6:
                os.kill(os.getpid(), signal.SIGINT)
            return original(self, *args, **kwargs)

        pv.Trainer._static_step = step
        with contextlib.suppress(KeyboardInterrupt):
            fit(split=Split(world, bitwise=True), **options)
            return 5
        return 0

    codes = launch(2, ranks(stops))
    save(folder / "interrupt, whole.json", fit(split=Split(accumulate=2, bitwise=True), epochs=4))
    run = fit(split=Split(accumulate=2, bitwise=True), **options)
    save(folder / "interrupt, resumed.json", run)
    return codes


SCENARIOS = {"equal": equal, "bitwise": bitwise, "wrong": wrong, "lost": lost, "interrupted": interrupted}


def warm():
    """What is imported where it is used first; without gradients, which a fork would not survive."""
    make_fx(lambda x: (x + 1).exp(), tracing_mode="fake")(torch.zeros(2))
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    pair = Pair()
    pv.log_weights(pair.model, pair.guide, rows(), num_samples=2)


def main(folder, names):
    """Runs scenarios one after the other; results.json says how their ranks ended."""
    warnings.simplefilter("ignore")
    warm()
    results = {}
    for name in names or SCENARIOS:
        pid_result = folder / f"{name}.result"
        pid = os.fork()  # what a scenario computes itself must not be in the process that forks the next
        if pid == 0:
            code = 1
            try:
                pid_result.write_text(json.dumps(SCENARIOS[name](folder)))
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, name
        results[name] = json.loads(pid_result.read_text())
    (folder / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
