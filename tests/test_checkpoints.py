"""Training that survives: killed runs, damaged files, full disks, Ctrl-C and steps that go wrong."""

import errno
import functools
import math
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path

import pyro
import pytest
import torch
from pyro.infer import RenyiELBO, Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from safetensors.torch import save_file

import pyrovae as pv
from pyrovae import runs
from pyrovae.inference import evaluate, train
from pyrovae.training import BadStep, Checkpoints
from pyrovae.training.optimizers import Adam
from pyrovae.training.state.checkpoint import DamagedCheckpoint, read_checkpoint, write_checkpoint
from pyrovae.training.state.packing import pack, unpack
from tests import killing
from tests.training_pair import VALID, Pair, X, assert_equal

pytestmark = pytest.mark.usefixtures("unrendered")

torch.set_num_threads(1)
OPTIONS = {"valid": VALID, "batch_size": 16, "lr": 0.02, "epochs": 5, "ema": 0.9, "clip_norm": 5.0}


def fit(folder=None, pair=None, **options):
    pair = pair or Pair(norm=True)
    if folder is not None:
        options = {"checkpoint": folder, "log": folder.parent / "metrics.csv", **options}
    return pv.fit(pair.model, pair.guide, X, **{**OPTIONS, **options}), pair


def state_of(result, pair):
    buffers = {k: v for k, v in pair.named_buffers()}
    return {"parameters": result.store.state_dict(), "buffers": buffers}


def assert_same(first, second):
    assert_equal(state_of(*first), state_of(*second))
    # As text, in which NaN equals itself.
    assert repr(first[0].history) == repr(second[0].history) and first[0].best_epoch == second[0].best_epoch


class Killed(BaseException):
    """As SIGKILL: nothing of the run's own runs after it."""


def killed_at(step, monkeypatch, folder, **options):
    """A run that ends after so many steps of its process."""
    done, own = 0, pv.Trainer.step

    def count(self):
        nonlocal done
        if done == step:
            raise Killed
        done += 1
        return own(self)

    with monkeypatch.context() as patch:
        patch.setattr(pv.Trainer, "step", count)
        with pytest.raises(Killed):
            fit(folder, **options)


# Killed and resumed --------------------------------------------------------------------------------


@pytest.mark.slow
def test_sigkill_at_random_moments(tmp_path):
    """The whole script, killed five times by the system, ends with the same weights and metrics.csv."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.killing", str(tmp_path), "5"],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "5 kills" in done.stdout and "all equal to the whole one" in done.stdout


@pytest.mark.parametrize("kind", ["torch", "pyro"])
def test_resumed_anywhere(tmp_path, monkeypatch, kind):
    """Whole epochs, pieces of epochs, one resumption after another; torch's optimizers and Pyro's."""

    def options(resume=False):
        made = {"checkpoint_steps": 3, "resume": resume, "beta": pv.Warmup(2)}
        if kind == "pyro":
            made |= {"optim": pyro.optim.Adam({"lr": 0.02}), "lr": None}
        return made

    whole = fit(tmp_path / "a" / "checkpoints", **{**options(), "log": tmp_path / "a.csv"})
    folder = tmp_path / "b" / "checkpoints"
    folder.parent.mkdir()
    for i, step in enumerate((1, 5, 2, 4)):
        killed_at(step, monkeypatch, folder, **options(resume=i > 0))
        folder.mkdir(exist_ok=True)
        (folder / ".checkpoint-000009-x.safetensors").write_bytes(b"half a file")
        (folder.parent / ".metrics-x.csv").write_bytes(b"half a file")
    assert Checkpoints(folder).load()["trainer"]["batch"] != 0, "one of them is from within an epoch"
    resumed = fit(folder, **options(resume=True))
    assert_same(whole, resumed)
    assert (tmp_path / "a.csv").read_bytes() == (folder.parent / "metrics.csv").read_bytes()
    assert sorted(p.name for p in folder.parent.iterdir()) == ["checkpoints", "metrics.csv"]
    assert len(list(folder.iterdir())) == 2
    # What has ended is resumed to the same end; more epochs continue it.
    assert_same(whole, fit(folder, **options(resume=True)))
    more = fit(folder, **{**options(resume=True), "epochs": 7})
    assert_same(more, fit(**{k: v for k, v in options().items() if k != "checkpoint_steps"}, epochs=7))


def test_patience_and_returns_survive(tmp_path, monkeypatch):
    """The count of epochs without a better one, and the learning rate after a bad step, are state."""
    own = pv.Trainer.step

    def wrong(self):
        if self.global_step == 6 and self.lr_factor == 1:
            self.peak = -1.0  # no loss is fine
        return own(self)

    monkeypatch.setattr(pv.Trainer, "step", wrong)
    options = {
        "lr": pv.Exponential(0.04, 1.4, 10),
        "epochs": 12,
        "patience": 2,
        "clip_norm": None,
        "ema": None,
    }
    with pytest.warns(RuntimeWarning, match="Back to the start"):
        whole = fit(**options)
    history = whole[0].history
    assert (
        4 <= len(history) < 12 and history[1]["lr"] < history[0]["lr"] and whole[0].best_epoch < len(history)
    )
    for i, step in enumerate((2, 4, 3, 6)):
        with pytest.warns(RuntimeWarning) if i == 2 else nullcontext():
            killed_at(step, monkeypatch, tmp_path / "c", checkpoint_steps=1, resume=True, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(whole, fit(tmp_path / "c", checkpoint_steps=1, resume=True, **options))


class Stateful(Trace_ELBO):
    """An objective with a memory of its own."""

    def __init__(self):
        super().__init__()
        self.memory = torch.zeros(())

    def loss_and_grads(self, model, guide, *args):
        self.memory = self.memory + 1
        return super().loss_and_grads(model, guide, *args)

    def state_dict(self):
        return {"memory": self.memory}

    def load_state_dict(self, state):
        self.memory = state["memory"]


def test_objectives_with_a_state_travel(tmp_path, monkeypatch):
    killed_at(6, monkeypatch, tmp_path / "c", objective=Stateful())
    objective = Stateful()
    fit(tmp_path / "c", objective=objective, resume=True, beta=1.0)
    assert objective.memory == 5 * 4
    with pytest.raises(ValueError, match="objective"):
        fit(tmp_path / "c", resume=True)


PYROS = {
    "Trace": Trace_ELBO,
    "MeanField": TraceMeanField_ELBO,
    "Graph": TraceGraph_ELBO,
    "Enum": TraceEnum_ELBO,
}
OWN = {"IWAE": pv.objectives.IWAE, "DReG": pv.objectives.DReG, "STL": pv.objectives.STL}
RENYI = {"RenyiELBO": RenyiELBO, "Renyi": pv.objectives.Renyi}
EXTRAS = {
    "plain": {},
    "beta": {"beta": pv.Warmup(2)},
    "free bits": {"free_bits": 0.1},
    "both": {"beta": 0.5, "free_bits": 0.1},
    "no average": {"ema": None, "clip_norm": None},
}


def ways():
    for number, vectorised in ((1, False), (3, False), (3, True)):
        how = {"num_particles": number, "vectorize_particles": vectorised}
        for name, kind in (PYROS | OWN).items():
            if number == 1 and name in ("IWAE", "DReG"):
                continue
            for extra in EXTRAS if vectorised and name != "Graph" else ("plain",):
                if extra in ("free bits", "both") and name not in ("Trace", "MeanField"):
                    continue
                yield f"{name} {number} {vectorised} {extra}", functools.partial(kind, **how), EXTRAS[extra]
        for name, kind in RENYI.items() if number > 1 else ():
            yield f"{name} {number} {vectorised}", functools.partial(kind, 0.5, **how), {}


WAYS = {name: (make, extra) for name, make, extra in ways()}


@pytest.mark.filterwarnings("ignore:TraceEnum_ELBO found no sample sites")
@pytest.mark.parametrize("way", WAYS)
def test_every_objective_goes_on_as_if_never_killed(tmp_path, monkeypatch, way):
    """Whatever an objective finds out in the first step of a process: it moves no generator."""
    make, extra = WAYS[way]
    options = {"epochs": 2, "batch_size": 25, "checkpoint_steps": 1, **extra}
    whole = fit(tmp_path / "a" / "checkpoints", objective=make(), **options)
    folder = tmp_path / "b" / "checkpoints"
    killed_at(3, monkeypatch, folder, objective=make(), **options)
    assert_same(whole, fit(folder, objective=make(), resume=True, **options))


def test_the_depth_of_plates_is_what_pyro_would_guess():
    given = Trace_ELBO(num_particles=2, vectorize_particles=True)
    for plate in (False, True):

        def draw(scale, plate=plate):
            z = pyro.sample("z", pyro.distributions.Normal(0.0, scale))
            if plate:
                with pyro.plate("pixels", 4, dim=-2):
                    pyro.sample("w", pyro.distributions.Normal(0.0, scale))
            return z

        def model(x, draw=draw):
            scale = pyro.param("scale", torch.ones(()))
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("x", pyro.distributions.Normal(draw(scale), 1.0), obs=x)

        def guide(x, draw=draw):
            with pyro.plate("data", len(x), dim=-1):
                draw(torch.ones(()))

        theirs = Trace_ELBO(num_particles=2, vectorize_particles=True)
        theirs._guess_max_plate_nesting(model, guide, (torch.zeros(4),), {})
        for wrapped in (given, pv.objectives.FreeBits(given, 0.1)):
            trainer = pv.Trainer(model, guide, torch.zeros(4), objective=wrapped, beta=pv.Warmup(2))
            assert trainer.objective.base is not given and given.max_plate_nesting == math.inf
            own = trainer.objective.base if wrapped is given else trainer.objective.base.base
            assert own.max_plate_nesting == theirs.max_plate_nesting == 2 + plate


# Files ---------------------------------------------------------------------------------------------


def test_packing():
    state = {"a": {0: (1, 2.5, None), "b": [True, "x", math.inf]}, "t": torch.ones(2), "e": {}, "n": ()}
    skeleton, tensors = pack(state)
    back = unpack(skeleton, tensors)
    assert repr(back) == repr(state) and list(tensors) == ["state/t"]
    with pytest.raises(TypeError, match=r"set at state/a/0"):
        pack({"a": [{1}]})
    with pytest.raises(TypeError, match="keys"):
        pack({1.5: 0})


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64, torch.bool])
def test_checkpoints_keep_bits(tmp_path, dtype):
    shared = torch.tensor([[0, 1], [2, 3]]).to(dtype)
    state = {"x": shared, "y": shared.T, "zero": shared[0, 0], "none": shared[:0], "pi": math.pi / 3}
    write_checkpoint(tmp_path / "c", state)
    back = read_checkpoint(tmp_path / "c")
    assert back["pi"] == state["pi"]
    for name in ("x", "y", "zero", "none"):
        assert torch.equal(back[name], state[name]) and back[name].dtype == dtype


def damage(kind, file):
    content = bytearray(file.read_bytes())
    if kind == "empty":
        content = b""
    elif kind == "truncated":
        content = content[: len(content) // 2]
    elif kind == "a bit of a tensor":
        content[-5] ^= 1
    elif kind == "a digit of the state":
        at = content.index(b"global_step")
        at = next(i for i in range(at, len(content)) if chr(content[i]).isdigit())
        content[at] = ord("1") if content[at] != ord("1") else ord("2")
    elif kind == "foreign":
        save_file({"a": torch.zeros(1)}, file)
        return
    elif kind == "no file at all":
        content = b"\x00" * 100
    file.write_bytes(content)


DAMAGES = ["empty", "truncated", "a bit of a tensor", "a digit of the state", "foreign", "no file at all"]


@pytest.fixture(scope="module")
def whole():
    return fit()


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_checkpoints_fall_back(tmp_path, kind, whole):
    folder = tmp_path / "c"
    fit(folder, epochs=4)
    newest = Checkpoints(folder).files()[-1]
    damage(kind, newest)
    with pytest.raises(DamagedCheckpoint, match="foreign" if kind == "foreign" else "checkpoint"):
        read_checkpoint(newest)
    with pytest.warns(UserWarning, match=newest.name):
        assert_same(fit(folder, resume=True), whole)
    assert newest.with_suffix(".damaged").exists() and len(Checkpoints(folder).files()) == 2


def test_all_checkpoints_damaged(tmp_path, whole):
    fit(tmp_path / "c", epochs=2)
    for file in Checkpoints(tmp_path / "c").files():
        file.write_bytes(b"")
    with pytest.warns(UserWarning, match="damaged"):
        assert_same(fit(tmp_path / "c", resume=True), whole)


OTHERS = {
    "nothing": lambda s: {},
    "a list": lambda s: [s],
    "no arguments": lambda s: {k: v for k, v in s.items() if k != "arguments"},
    "no trainer": lambda s: {k: v for k, v in s.items() if k != "trainer"},
    "less progress": lambda s: s | {"progress": None},
    "more progress": lambda s: s | {"progress": {**s["progress"], "moon": 3}},
    "less of the trainer": lambda s: s | {"trainer": {k: v for k, v in s["trainer"].items() if k != "peak"}},
    "another optimizer": lambda s: s | {"trainer": {**s["trainer"], "optimizer": {"param_groups": 3}}},
    "other versions": lambda s: s | {"versions": "2.11"},
}


@pytest.mark.parametrize("kind", OTHERS)
def test_checkpoints_of_other_versions_are_one_error(tmp_path, kind):
    """Whole, with a checksum that is right, and not what this version writes: they say so, and stay."""
    folder = tmp_path / "c"
    fit(folder, epochs=1)
    file = Checkpoints(folder).files()[-1]
    write_checkpoint(file, OTHERS[kind](read_checkpoint(file)))
    before = {p: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(ValueError, match="expected"):
        fit(folder, resume=True)
    assert {p: p.read_bytes() for p in folder.iterdir()} == before


def test_another_run_is_refused(tmp_path):
    folder = tmp_path / "c"
    fit(folder, epochs=1)
    before = [f.read_bytes() for f in Checkpoints(folder).files()]
    smaller = Pair(norm=True)
    smaller.decoder[0], smaller.decoder[2] = (
        torch.nn.Linear(2, 6, dtype=X.dtype),
        torch.nn.Linear(6, 4, dtype=X.dtype),
    )
    for options, match in (
        ({"seed": 1}, "seed = 0, here 1"),
        ({"batch_size": 8}, "batch_size = 16, here 8"),
        ({"beta": 0.5}, "objective|beta"),
        ({"beta": pv.Warmup(3)}, "objective|beta"),
        ({"lr": 0.01}, "lr = "),
        ({"ema": None}, "ema = 0.9, here None"),
        ({"optim": torch.optim.SGD}, "optimizer = .*Adam.*SGD"),
        ({"valid": VALID[:10]}, "data = "),
        ({"patience": 3}, "patience = None, here 3"),
        ({"pair": smaller}, r"another architecture.*\(6, 2\), got \(8, 2\)"),
    ):
        with pytest.raises(ValueError, match=match):
            fit(folder, resume=True, **options)
    assert [f.read_bytes() for f in Checkpoints(folder).files()] == before
    with pytest.raises(FileExistsError, match="resume=True"):
        fit(folder)
    with pytest.raises(ValueError, match="folder of checkpoints"):
        fit(resume=True)
    for bad in ({"keep": 0}, {"checkpoint_every": 0}, {"checkpoint_steps": 0}, {"max_returns": -1}):
        with pytest.raises(ValueError, match="expected"):
            fit(tmp_path / "d", **bad)


def test_a_full_disk(tmp_path, whole, monkeypatch):
    """The system refuses to write on in the middle of a checkpoint: the one before it stays."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # Python would keep cut files
    folder = tmp_path / "c"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(row):
        if row["epoch"] == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))

    try:
        with pytest.raises(OSError, match="last whole one is checkpoint-000002") as error:
            fit(folder, on_epoch=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.errno == errno.EFBIG
    assert [p.name for p in sorted(folder.iterdir())] == [f"checkpoint-00000{i}.safetensors" for i in (1, 2)]
    assert_same(fit(folder, resume=True), whole)


# The script ----------------------------------------------------------------------------------------

QUICK = ["--epochs", "3", "--hidden", "16", "--latent-dim", "2", "--device", "cpu", "--quiet"]


@pytest.fixture
def _listening():
    """Python's own handler of Ctrl-C: a shell starts what it puts in the background with SIGINT ignored."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.mark.usefixtures("_listening")
def test_ctrl_c_and_resume(tmp_path, capsys, monkeypatch):
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert train.main(["--out", str(whole), *QUICK]) == 0
    own = pv.Trainer.step

    def pressed(self):
        if self.global_step == 30:
            os.kill(os.getpid(), signal.SIGINT)  # in the middle of a step, and of an epoch
        return own(self)

    with monkeypatch.context() as patch:
        patch.setattr(pv.Trainer, "step", pressed)
        assert train.main(["--out", str(out), *QUICK]) == 130
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    err = capsys.readouterr().err
    command = shlex.split(re.search(r"to continue: (.*)", err)[1])
    assert command == ["pyrovae", "train", "--out", str(out), "--resume", "--device", "cpu"]
    assert Checkpoints(out / "checkpoints").load()["trainer"]["global_step"] == 31
    # An unfinished run is no run, and is not lost by accident.
    assert evaluate.main([str(out), "--quiet", "--device", "cpu"]) == 2
    assert "--resume" in capsys.readouterr().err
    assert train.main(["--out", str(out), *QUICK]) == 2
    assert "unfinished" in capsys.readouterr().err
    assert train.main([*command[2:], "--epochs", "4"]) == 2
    assert "epochs = 4, then 3" in capsys.readouterr().err
    assert train.main([*command[2:], "--quiet"]) == 0
    assert killing.same(killing.result(out), killing.result(whole))
    # The same command again finds a whole run.
    assert train.main(command[2:]) == 0
    assert "has ended" in capsys.readouterr().out


def test_ctrl_c_while_overwriting(tmp_path, capsys, monkeypatch):
    """A run that is overwritten stays whole until the first epoch of the new one."""
    out = tmp_path / "out"
    assert train.main(["--out", str(out), *QUICK]) == 0
    assert train.main(["--out", str(out), *QUICK, "--overwrite", "--patience", "0"]) == 2
    assert runs.read_config(out)["train"]["patience"] is None
    killing.result(out)

    def broken(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pv.Trainer, "run_epoch", lambda self, after_step: broken(self))
        assert train.main(["--out", str(out), *QUICK, "--overwrite"]) == 130
    killing.result(out, checkpoints=False)  # the new run's would be mistaken for them
    assert "to continue" not in capsys.readouterr().err


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize("at", ["before the first epoch", "after it, without a checkpoint"])
def test_a_stopped_overwriting_leaves_a_run_or_none(tmp_path, capsys, monkeypatch, ended, at):
    """Nothing is left that the next start would stumble over, whatever was there: --resume starts, or says it ended."""
    out, mine = tmp_path / "out", tmp_path / "out" / "notes.txt"
    argv = ["--out", str(out), *QUICK]
    real, done = pv.Trainer.run_epoch, []

    def stopped(self, after_step):
        if len(done) == (at != "before the first epoch"):
            raise KeyboardInterrupt
        done.append(real(self, after_step))
        return done[-1]

    if ended:
        assert train.main(argv) == 0
    else:
        with monkeypatch.context() as patch:
            patch.setattr(
                pv.Trainer, "run_epoch", lambda self, after: (real(self, after), os.kill(os.getpid(), 2))[0]
            )
            assert train.main(argv) == 130
        assert (out / "unfinished.json").exists() and (out / "metrics.csv").exists()
    mine.write_text("mine")
    every = [] if at == "before the first epoch" else ["--checkpoint-every", "0"]
    with monkeypatch.context() as patch:
        patch.setattr(pv.Trainer, "run_epoch", stopped)
        assert train.main([*argv, "--overwrite", *every]) == 130
    whole = ended and at == "before the first epoch"
    assert (out / "config.json").exists() == whole and not (out / "unfinished.json").exists()
    assert whole or [p.name for p in out.iterdir() if p.is_file()] == ["notes.txt"]
    capsys.readouterr()
    assert train.main([*argv, "--resume"]) == 0
    said = capsys.readouterr().out
    assert ("has ended" in said) == whole and ("a new one starts" in said) == (not whole)
    assert pv.load(out, device="cpu").history and mine.read_text() == "mine"


# Learning rates, averages, clipping ----------------------------------------------------------------


def test_schedules_of_rates():
    stages = pv.IWAEStages()
    assert stages.epochs == 3280
    starts = [(3**i - 1) / 2 for i in range(8)]
    for i, start in enumerate(starts):
        assert stages(start) == stages(start + 3**i - 0.01) == pytest.approx(1e-3 * 10 ** (-i / 7))
    assert stages(1e5) == pytest.approx(1e-4) and pv.IWAEStages(unit=0.1)(0.45) == stages(4.5)
    cosine = pv.Cosine(1.0, 10, end=0.2, warmup=2)
    assert [cosine(e) for e in (0, 1, 2, 6, 10, 20)] == pytest.approx([0, 0.5, 1, 0.6, 0.2, 0.2])
    for bad in (
        lambda: pv.IWAEStages(start=0),
        lambda: pv.IWAEStages(stages=1),
        lambda: pv.Cosine(1.0, 0),
        lambda: pv.Cosine(-1.0, 5),
        lambda: pv.Cosine(1.0, 5, warmup=5),
    ):
        with pytest.raises(ValueError, match="expected"):
            bad()


def trainer(**options):
    pair = Pair()
    return pv.Trainer(pair.model, pair.guide, X, **{"batch_size": 16, "lr": 0.01, **options})


def test_groups_have_rates_of_their_own():
    groups = {"scale": {"lr": 0.0}, "encoder.0.*": {"lr": pv.Exponential(0.1, 0.001, 2)}, "enc*": {"lr": 0.5}}
    t = trainer(groups=groups, lr=pv.Cosine(0.2, 4), optim=Adam)
    start = t.weights()["parameters"]
    for _ in range(5):
        t.step()
    rates = [g["lr"] for g in t.svi.optimizer.param_groups]
    assert rates == pytest.approx([pv.Cosine(0.2, 4)(1), 0.0, 0.01, 0.5])
    assert [len(g["params"]) for g in t.svi.optimizer.param_groups] == [4, 1, 2, 2]
    end = t.weights()["parameters"]
    assert {k for k in start if torch.equal(start[k], end[k])} == {"scale"}
    for bad, match in (
        ({"groups": {"prior*": {"lr": 1.0}}}, r"groups that fit.*prior.*decoder\.0\.bias"),
        ({"groups": {"*": {"lr": 1.0}}, "optim": pyro.optim.Adam({"lr": 0.1}), "lr": None}, "with groups"),
        ({"groups": {"*": {"lr": -1.0}}}, "learning rate >= 0"),
        ({"lr": -1.0}, "learning rate >= 0"),
        ({"clip_norm": 0.0}, "clip_norm > 0"),
        ({"ema": 1.0}, "EMA decay"),
        ({"beta": -0.1}, "beta >= 0"),
    ):
        with pytest.raises(ValueError, match=match):
            trainer(**bad)
    t = trainer(beta=pv.Warmup(1, 0.5, -0.5))
    with pytest.raises(ValueError, match=r"beta >= 0, got -0\.25 at epoch 0\.75"):
        t.run_epoch()
    for bad in ("adam", 3, lambda parameters: None):
        with pytest.raises(TypeError, match="torch optimizer"):
            trainer(optim=bad)


def test_options_of_groups_reach_the_optimizer():
    t = trainer(groups={"dec*": {"weight_decay": 0.3}}, optim=torch.optim.AdamW)
    assert [g["weight_decay"] for g in t.svi.optimizer.param_groups] == [0.01, 0.3]
    # A rate that is the optimizer's own is kept; that of a group is set.
    t = trainer(groups={"dec*": {"lr": 0.3}}, optim=lambda p: torch.optim.SGD(p, lr=0.7), lr=None)
    t.step(), t.step()
    assert [g["lr"] for g in t.svi.optimizer.param_groups] == [0.7, 0.3]


def test_clipping():
    """The step of plain gradient descent is as long as the clipped gradient."""
    for norm in (None, 1e-3):
        t = trainer(optim=torch.optim.SGD, lr=1.0, clip_norm=norm)
        before = torch.cat([p.detach().flatten() for p in t.parameters()])
        t.step()
        length = (torch.cat([p.detach().flatten() for p in t.parameters()]) - before).norm()
        assert length > 1 if norm is None else length == pytest.approx(norm, rel=1e-4)


def test_moving_average():
    t = trainer(ema=0.6)
    expected = t.weights()["parameters"]
    for step in range(6):
        t.step()
        d = min(0.6, (1 + step) / (10 + step))
        expected = {k: d * v + (1 - d) * t.store.state_dict()[k] for k, v in expected.items()}
    averaged, own = t.weights(averaged=True)["parameters"], t.weights()["parameters"]
    for name in expected:
        assert torch.allclose(averaged[name], expected[name], rtol=1e-12, atol=0)
        assert torch.equal(own[name], t.store.state_dict()[name]) and not torch.equal(
            averaged[name], own[name]
        )


@pytest.mark.parametrize("valid", [None, VALID])
def test_the_average_is_evaluated_and_returned(valid):
    result, _ = fit(valid=valid, epochs=3)
    t = pv.Trainer(result.model, result.guide, X, valid=valid)
    last = result.history[result.best_epoch - 1]
    limit = None if valid is None else len(valid)
    assert t.metrics(t.program, limit or 2048).elbo == pytest.approx(last["elbo"], abs=1e-12)
    raw, _ = fit(valid=valid, epochs=3, ema=None)
    assert raw.history[-1]["loss"] == result.history[-1]["loss"], "averaging does not change the training"
    assert raw.history[-1]["elbo"] != result.history[-1]["elbo"]


# Bad steps -----------------------------------------------------------------------------------------


def poisoned(monkeypatch, value, times, step=6):
    """SVI steps that report `value` at a global step, so many times."""
    own, left = pv.Trainer.step, times

    def wrong(self):
        nonlocal left
        if self.global_step == step and left:
            left -= 1
            with monkeypatch.context() as patch:
                patch.setattr(self.svi, "step", lambda *rows: value)
                with torch.no_grad():
                    for p in self.parameters():
                        p.fill_(math.nan)
                return own(self)
        return own(self)

    monkeypatch.setattr(pv.Trainer, "step", wrong)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e12])
def test_bad_steps_are_taken_back(monkeypatch, value):
    poisoned(monkeypatch, value, times=1)
    with pytest.warns(RuntimeWarning, match=r"epoch 1, batch 2 \(step 6, data .* and 8 more\).*0.5 times"):
        result, _ = fit()
    assert [r["lr"] for r in result.history] == [0.02, 0.01, 0.01, 0.01, 0.01]
    assert all(math.isfinite(r["elbo"]) for r in result.history) and len(result.history) == 5


def test_returns_are_bounded(monkeypatch):
    poisoned(monkeypatch, math.nan, times=10)
    pair = Pair(norm=True)
    with (
        pytest.warns(RuntimeWarning) as warned,
        pytest.raises(FloatingPointError, match="after 2 returns") as e,
    ):
        fit(pair=pair)
    assert len(warned) == 2 and "2 of 2" in str(warned[1].message)
    assert isinstance(e.value, BadStep) and (e.value.epoch, e.value.batch) == (1, 2)
    order = pv.Trainer(Pair().model, Pair().guide, X, batch_size=16).batches
    assert e.value.indices == order.indices(1, 2).tolist()
    assert all(p.isfinite().all() for p in pair.parameters()), "left at the last good epoch"


def test_weights_ruined_by_the_last_step_of_an_epoch(monkeypatch):
    """Its loss is that of the weights before it, so it does not show there."""
    poisoned(monkeypatch, 10.0, times=1, step=7)
    with pytest.warns(RuntimeWarning, match="weights that are not in epoch 1, batch 3"):
        result, _ = fit()
    assert len(result.history) == 5 and result.history[1]["lr"] == 0.01


@pytest.mark.parametrize("step", [2, 6])
def test_bad_steps_of_pyro_optimizers(monkeypatch, step):
    """Their rates are within reach from the first step on only."""
    poisoned(monkeypatch, math.nan, times=1, step=step)
    options = {"optim": pyro.optim.Adam({"lr": 0.02}), "lr": None}
    if step < 4:
        with pytest.raises(FloatingPointError):
            fit(**options)
        return
    with pytest.warns(RuntimeWarning):
        fit(**options)
    rates = {o.param_groups[0]["lr"] for o in options["optim"].optim_objs.values()}
    assert rates == {0.01}
