"""Several ranks, micro-batches and workers: what they make is what one process makes.

The ranks run in processes of their own (`tests/ranks.py`), which write down what they have; here it is compared.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyrovae as pv
from pyrovae.distributed import Elsewhere, Split, World, joined
from pyrovae.distributed.bucket import Bucket
from pyrovae.distributed.noise import datum_dims
from pyrovae.evidence import Sharing, status
from pyrovae.evidence.sharing.claims import Claims
from pyrovae.evidence.sharing.partial_results import Partials
from pyrovae.inference import evaluate, train
from pyrovae.inference.running.attending import attending
from pyrovae.programs import inspect_program
from pyrovae.programs.compile.noise import Noise
from pyrovae.runs import read_evidence

from .ranks import FITS, Pair, fit, made, rows

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """What the scenarios of tests/ranks.py leave."""
    folder = tmp_path_factory.mktemp("ranks")
    names = ["equal", "bitwise", "wrong", "lost", "interrupted"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.ranks", str(folder), *names],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads((folder / "results.json").read_text())


def read(folder, name):
    history = json.loads((folder / f"{name}.json").read_text())
    return torch.load(folder / f"{name}.pt", weights_only=True), history


@pytest.mark.slow
@pytest.mark.parametrize("name", FITS)
def test_two_ranks_are_one_to_rounding(left, name):
    """Losses, metrics and parameters; without slices of the noise they would differ from the first step on."""
    folder, results = left
    assert results["equal"] == [[0, ""], [0, ""]]
    (one, history), (two, other) = read(folder, f"{name}, one"), read(folder, f"{name}, two")
    for key, value in one.items():
        assert float((value - two[key]).norm()) <= 1e-5 * float(value.norm()), key
    assert len(history) == len(other) > 0
    for row, again in zip(history, other, strict=True):
        for key in row:
            assert float(row[key]) == pytest.approx(float(again[key]), rel=1e-5, nan_ok=True), key


@pytest.mark.slow
def test_bitwise_and_from_two_ranks_to_one_and_back(left):
    folder, results = left
    assert results["bitwise"] == [[0, ""]] * 5
    one, history = read(folder, "bitwise, one")
    for name in ("bitwise, two", "bitwise, back"):
        other, again = read(folder, name)
        assert history == again
        assert all(torch.equal(value, other[key]) for key, value in one.items()), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "text"),
    [
        ("data", "expected the same data on all 2 ranks"),
        ("seed", "expected the same seed on all 2 ranks, got 2 on rank 0 and 3 on rank 1"),
        ("objective", "expected the same objective on all 2 ranks"),
        ("epochs", "expected the same epochs on all 2 ranks, got 1 on rank 0 and 2 on rank 1"),
        ("model", "expected the same initial weights on all 2 ranks"),
        ("batch", "at least one datum for each of 2 micro-batches"),
        ("free bits", "free bits"),
        ("coupled", "its data know of each other"),
        ("no graph", "its course depends on values"),
        ("Pyro's optimizer", "expected an optimizer of torch"),
        ("one rank's data", "on rank 1 of 2: expected"),
        ("folder", "expected a folder that all ranks share"),
    ],
)
def test_what_is_refused(left, case, text):
    """One clear error on the first rank; the other ends in silence, or with the same one."""
    folder, results = left
    assert results["wrong"]["ended"] == [[0, ""], [0, ""]]
    first, second = (json.loads((folder / f"refused-{r}.json").read_text())[case] for r in range(2))
    assert first.startswith("ValueError") and text in first and "\n" not in first, first
    assert second.startswith("Elsewhere"), second


@pytest.mark.slow
def test_a_port_in_use(left):
    ((code, text),) = left[1]["wrong"]["port"]
    assert code == 1 and "expected a free port for the ranks to meet at, got 127.0.0.1" in text


@pytest.mark.slow
def test_a_rank_that_dies_or_hangs_ends_the_run(left):
    lost = left[1]["lost"]
    for how in ("dies", "hangs"):
        code, text = lost[how][0]
        assert code == 1 and text.startswith("RankLost: expected to hear of every rank"), (how, code, text)
    assert lost["dies"][1][0] == 7


@pytest.mark.slow
def test_an_interrupted_rank_stops_all_after_one_step(left):
    """A checkpoint of that step, from which one process makes the run that was never interrupted."""
    folder, results = left
    assert results["interrupted"] == [[0, ""], [0, ""]]
    (whole, history), (resumed, again) = (read(folder, f"interrupt, {n}") for n in ("whole", "resumed"))
    assert history == again and all(torch.equal(v, resumed[k]) for k, v in whole.items())


@pytest.mark.parametrize(
    ("name", "accumulate"),
    [("plain", 1), ("plain", 3), ("particles", 3), ("scaled plate", 3), ("clipped, averaged", 1)],
)
def test_micro_batches_are_the_batch(name, accumulate):
    """16 data in three pieces of unlike size, a last batch of two in two."""
    whole, pieces = fit(**made(FITS[name])), fit(split=Split(accumulate=accumulate), **made(FITS[name]))
    for key, value in whole.store.state_dict().items():
        other = pieces.store.state_dict()[key]
        assert float((value - other).norm()) <= 1e-5 * float(value.norm()), key


def test_single_steps_are_those_of_an_epoch():
    trainers = []
    for _ in range(2):
        pair = Pair()
        trainers.append(pv.Trainer(pair.model, pair.guide, rows(), batch_size=16, split=Split(accumulate=2)))
    losses = [trainers[0].step() for _ in range(trainers[0].batches_per_epoch)]
    row = trainers[1].run_epoch()
    sizes = [trainers[1].batches.size(0, batch) for batch in range(len(losses))]
    assert row["loss"] == pytest.approx(sum(n * v for n, v in zip(sizes, losses, strict=True)) / sum(sizes))
    assert all(torch.equal(a, b) for a, b in zip(*(t.parameters() for t in trainers), strict=True))


def test_pieces_cover_a_batch_and_do_not_depend_on_who_has_them():
    for size in (1, 2, 7, 128):
        pieces = Split(World(0, 4), 2).pieces(size)
        assert len(pieces) == 8 and sum(n for _, n in pieces) == size
        assert [s for s, _ in pieces] == [sum(n for _, n in pieces[:i]) for i in range(8)]
        assert [p for r in range(4) for p in Split(World(r, 4), 2).own(size)] == pieces
        assert Split(World(1, 2), 4).own(size) == pieces[4:]
    with pytest.raises(ValueError, match="expected accumulate to be a whole number >= 1, got 0"):
        Split(accumulate=0)


def test_the_dim_of_the_data_in_draws():
    def noise(*shape, dtype=torch.float32):
        return Noise(torch.empty(shape, dtype=dtype), torch.Tensor.normal_)

    small, large = [noise(4, 3, 2), noise(5), noise(3)], [noise(4, 6, 2), noise(5), noise(6)]
    assert datum_dims(small, large, (3, 6)) == [1, None, 0]
    for one, other in ((noise(3, 3), noise(6, 6)), (noise(12), noise(24)), (noise(3), noise(6, 1))):
        with pytest.raises(ValueError, match="expected draws with one dim for the data"):
            datum_dims([one], [other], (3, 6))
    with pytest.raises(ValueError, match="one dim for the data"):  # a permutation of a batch has no part
        datum_dims([noise(3, dtype=torch.long)], [noise(6, dtype=torch.long)], (3, 6))
    with pytest.raises(ValueError, match="got 1 and 2 of them"):
        datum_dims(small[:1], large[:2], (3, 6))


@pytest.mark.parametrize("ordered", [False, True])
def test_a_bucket_adds_up(ordered):
    parameters = [torch.zeros(3, 5), torch.zeros(()), torch.zeros(7)]
    bucket = Bucket(parameters, World(), 3, ordered)
    for _ in range(2):  # nothing of a former step stays
        bucket.clear()
        total = [torch.zeros_like(p) for p in parameters]
        for part in (0, 2):  # the middle one has no data
            grads = [torch.randn_like(p) for p in parameters]
            bucket.add(part, torch.tensor(2.0), grads, 0.5)
            total = [t + 0.5 * g for t, g in zip(total, grads, strict=True)]
        bucket.reduce()
        for got, wanted in zip(bucket.gradients, total, strict=True):
            torch.testing.assert_close(got, wanted)
        assert float(bucket.loss) == 2.0 and float(bucket.stop) == 0.0
    with pytest.raises(ValueError, match=r"expected parameters of one dtype.*float32, torch.float64"):
        Bucket([torch.zeros(1), torch.zeros(1, dtype=torch.float64)], World(), 1, False)


def test_plates_with_a_size_of_their_own_are_refused():
    class Indexed(Pair):
        def model(self, x):
            pyro.module("dec", self.dec)
            with pyro.plate("data", len(x), subsample_size=10) as i:
                z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
                pyro.sample("x", dist.Bernoulli(logits=self.dec(z)).to_event(1), obs=x[i])

        def guide(self, x):
            pyro.module("enc", self.enc)
            with pyro.plate("data", len(x), subsample_size=10) as i:
                loc, raw = self.enc(x[i]).chunk(2, -1)
                pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))

    with pytest.raises(ValueError, match="expected a program that takes a slice of the data"):
        fit(Indexed(), split=Split(accumulate=2))


def test_outside_of_torchrun_there_is_no_world(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with joined("cpu") as world:
        assert world is None
    alone = World()
    assert alone.first and alone.every({"a": 1}) == [{"a": 1}] and alone.share_json([1.5]) == [1.5]
    with pytest.raises(KeyError), alone.together():
        raise KeyError("as it is")
    assert issubclass(Elsewhere, RuntimeError)


def test_a_world_of_its_own_does_not_speak_to_the_group():
    """A rank may fit something of its own while the others do not: nothing it does may wait for them."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        calls = []
        with pytest.MonkeyPatch.context() as patch:
            for name in ("all_reduce", "all_gather_into_tensor", "broadcast", "barrier"):
                patch.setattr(torch.distributed, name, lambda *_, n=name, **__: calls.append(n))
            fit(Pair(), split=Split(accumulate=2))
            fit(Pair())
            assert not calls
            World(grouped=True).sum(torch.zeros(1))
            assert calls == ["all_reduce"]
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_train_with_micro_batches(tmp_path, capsys):
    flags = ["--epochs", "1", "--hidden", "8", "--latent-dim", "2", "--compile", "off", "--device", "cpu"]
    for name, more in (("a", []), ("b", ["--accumulate", "4"]), ("c", ["--accumulate", "65"])):
        code = train.main(["--out", str(tmp_path / name), *flags, "--quiet", *more])
        assert code == (2 if name == "c" else 0)
    assert "expected a batch of at least one datum for each of 65 micro-batches" in capsys.readouterr().err
    one, other = ((tmp_path / n / "metrics.csv").read_text().splitlines()[1].split(",") for n in "ab")
    assert [float(v) for v in one] == pytest.approx([float(v) for v in other], rel=1e-5)
    assert not (tmp_path / "c").exists()


# Streams


class Items(torch.utils.data.Dataset):
    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], i


class Endless(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield from rows()


def sources(folder):
    np.save(folder / "x.npy", rows().numpy())
    np.save(folder / "bytes.npy", (255 * rows()).to(torch.uint8).numpy())
    yield pv.data.Stream(folder / "x.npy")
    yield pv.data.Stream(folder / "bytes.npy", scale=1 / 255)
    yield pv.data.Stream(Items(rows()), workers=1)


@pytest.mark.parametrize(
    "split",
    [
        pytest.param(None, id="steps"),
        pytest.param(Split(accumulate=2), id="micro-batches", marks=pytest.mark.slow),
    ],
)
def test_streamed_data_make_the_run_of_those_in_memory(tmp_path, split):
    """Bit for bit: the order is a function of (seed, epoch), wherever rows come from."""
    whole = fit(split=split)
    for source in sources(tmp_path):
        run = fit(data=source, split=split)
        assert [r["loss"] for r in run.history] == [r["loss"] for r in whole.history], source
        for key, value in whole.store.state_dict().items():
            assert torch.equal(value, run.store.state_dict()[key]), (source, key)


def test_a_streamed_run_resumes_where_it_was(tmp_path):
    np.save(tmp_path / "x.npy", rows().numpy())
    whole = fit(data=pv.data.Stream(tmp_path / "x.npy"), epochs=4)
    for epochs in (2, 4):
        kept = {"checkpoint": tmp_path / "kept", "resume": True, "epochs": epochs}
        run = fit(data=pv.data.Stream(tmp_path / "x.npy"), **kept)
    for key, value in whole.store.state_dict().items():
        assert torch.equal(value, run.store.state_dict()[key])
    np.save(tmp_path / "other.npy", rows(2).numpy())
    with pytest.raises(ValueError, match="got one with data"):
        fit(data=pv.data.Stream(tmp_path / "other.npy"), **kept)


def test_streams_that_are_none(tmp_path):
    (tmp_path / "short.npy").write_bytes(b"\x93NUMPY\x01\x00v")
    np.save(tmp_path / "flat.npy", np.zeros(5))
    np.save(tmp_path / "words.npy", np.array([["a"]]))
    with pytest.raises(FileNotFoundError, match="found none"):
        pv.data.Stream(tmp_path / "missing.npy")
    with pytest.raises(ValueError, match="cut short or no array"):
        pv.data.Stream(tmp_path / "short.npy")
    for name in ("flat", "words"):
        with pytest.raises(ValueError, match=r"expected real numbers of shape \[N, \*event\]"):
            pv.data.Stream(tmp_path / f"{name}.npy")
    with pytest.raises(ValueError, match="with a length, got an iterable one"):
        pv.data.Stream(Endless())
    with pytest.raises(ValueError, match="at least one datum"):
        pv.data.Stream(Items(rows()[:0]))
    with pytest.raises(TypeError, match="expected items that are tensors"):
        pv.data.Stream(["a", "b"])
    with pytest.raises(ValueError, match="for streamed data"):

        class Whole(Pair):
            def model(self, x):
                pyro.module("dec", self.dec)
                with pyro.plate("data", 50):
                    z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
                    pyro.sample("x", dist.Bernoulli(logits=self.dec(z)).to_event(1), obs=x)

        fit(Whole(), data=pv.data.Stream(Items(rows())))


# Evidence


def ask(folder, sharing=Sharing(poll=0.02), seed=0):  # noqa: B008 - frozen
    pair = Pair()
    return pv.evidence(
        pair.model,
        pair.guide,
        rows(),
        estimators=[pv.ELBO(20), pv.IS(20)],
        chunk=pv.Chunk(7, 10),
        resume=folder,
        sharing=sharing,
        seed=seed,
        label="fifty rows",
    )


def test_workers_that_share_a_folder_do_no_unit_twice(tmp_path, monkeypatch):
    """Two evaluations run at once, one in the middle of a unit of the other; each returns the whole."""
    whole = ask(tmp_path / "alone", sharing=None)
    saved, found = [], []
    save = Partials.save

    def meeting(self, part, results):
        if len(saved) == 2 and not found:
            found.append(None)  # the other one meets the claim of this unit, and does all the rest
            monkeypatch.setattr(time, "sleep", stop)
            with pytest.raises(TimeoutError):
                ask(tmp_path / "shared")
            monkeypatch.undo()
            monkeypatch.setattr(Partials, "save", meeting)
        saved.append(part)
        save(self, part, results)

    def stop(seconds):
        raise TimeoutError  # it would wait for the unit that this one is at

    monkeypatch.setattr(Partials, "save", meeting)
    ev = ask(tmp_path / "shared")
    assert sorted(saved) == [f"{j:06d}" for j in range(8)] and saved != sorted(saved)
    for name in whole:
        assert torch.equal(ev[name].per_datum, whole[name].per_datum)
    assert not list((tmp_path / "shared").glob("*.claim-*")) and not list((tmp_path / "shared").glob(".*"))
    (state,) = status(tmp_path / "shared")
    assert (state.done, state.total, state.workers) == (8, 8, {}) and "fifty rows: 8 of 8" in str(state)


def test_chunks_of_ais_are_units(tmp_path):
    """Each of its chunks is kept by itself, and the chunks are what one run over all data is made of."""
    pair = Pair()
    given = {"estimators": [pv.AIS(4, 2, leapfrog=2)], "budget": 6000}
    whole = pv.evidence(pair.model, pair.guide, rows(), **given)["AIS"]
    shared = {"resume": tmp_path, "sharing": Sharing(poll=0.02)}
    units = {f"AIS-{j:06d}" for j in range(given["estimators"][0].num_chunks(program_of(pair), 6000))}
    for _ in range(2):  # the second time they are all there
        found = pv.evidence(pair.model, pair.guide, rows(), **given, **shared)["AIS"]
        assert torch.equal(found.per_datum, whole.per_datum) and torch.equal(found.variance, whole.variance)
        assert torch.equal(found.details["acceptance"], whole.details["acceptance"])
        kept = {p.stem.partition("-")[2] for p in tmp_path.glob("*.safetensors")}
        assert kept == units and len(units) > 2


def program_of(pair):
    return inspect_program(pair.model, pair.guide, rows())


def test_a_claim_is_one_process_s_until_it_dies(tmp_path):
    first, second, third = (Claims(tmp_path, "key", expiry=30.0) for _ in range(3))
    assert first.take("000001") and not second.take("000001")
    (claim,) = tmp_path.glob("*.claim-*")
    old = time.time() - 100
    os.utime(claim, (old, old))  # no sign of life since
    assert second.take("000001") and not third.take("000001") and not first.take("000001")
    second.release("000001")
    assert not list(tmp_path.glob("*.claim-*"))


def test_claims_are_kept_alive(tmp_path):
    claims = Claims(tmp_path, "key", expiry=0.2)
    with claims.beating():
        assert claims.take("1")
        (path,) = tmp_path.glob("*.claim-*")
        os.utime(path, (0, 0))
        until = time.monotonic() + 20
        while path.stat().st_mtime < 1 and time.monotonic() < until:
            time.sleep(0.02)
        assert path.stat().st_mtime > 1
    assert not list(tmp_path.iterdir())


def test_a_unit_that_is_truncated_or_of_another_evaluation(tmp_path):
    ask(tmp_path)
    ask(tmp_path, seed=1)
    keys = sorted({p.name.split("-")[0] for p in tmp_path.glob("*.safetensors")})
    one, other = (tmp_path / f"{k}-000003.safetensors" for k in keys)
    content = one.read_bytes()
    one.write_bytes(content[:100])
    with pytest.raises(
        ValueError, match=r"expected a whole unit, got .*000003.* truncated or damaged.*delete it"
    ):
        [ask(tmp_path, seed=s) for s in (0, 1)]
    one.write_bytes(other.read_bytes())
    with pytest.raises(ValueError, match=r"expected a unit of this evaluation, got .*of another"):
        [ask(tmp_path, seed=s) for s in (0, 1)]
    with pytest.raises(ValueError, match="expected a folder and no shard"):
        ask(None)
    for wrong in ({"expiry": 0.0}, {"poll": -1.0}):
        with pytest.raises(ValueError, match="expected expiry and poll > 0"):
            Sharing(**wrong)
    with pytest.raises(FileNotFoundError, match="partial results"):
        status(tmp_path / "nowhere")
    next(tmp_path.glob("*.json")).write_text("{}")
    with pytest.raises(ValueError, match="damaged file"):
        status(tmp_path)


def test_a_unit_that_has_gone_is_an_error(tmp_path, monkeypatch):
    """Not zeros in its place."""
    pair = Pair()

    def ask():
        shared = {"resume": tmp_path, "sharing": Sharing(poll=0.02)}
        return pv.evidence(
            pair.model, pair.guide, rows()[:9], estimators=[pv.IS(5)], chunk=pv.Chunk(3, 5), **shared
        )

    ask()
    load = Partials.load
    monkeypatch.setattr(Partials, "load", lambda self, part: None if part == "000001" else load(self, part))
    with pytest.raises(ValueError, match=r"results of all 3 units .* got none of 1 \(the first is 1\)"):
        ask()


def test_a_world_of_several_without_a_group_says_so():
    with pytest.raises(ValueError, match="expected a world of 2 ranks that speaks to a process group"):
        World(0, 2).sum(torch.zeros(1))


@pytest.mark.slow
def test_evaluate_shared_and_its_status(tmp_path, capsys):
    flags = ["--compile", "off", "--device", "cpu", "--quiet"]
    small = ["--epochs", "1", "--hidden", "8", "--latent-dim", "2"]
    run = tmp_path / "run"
    assert train.main(["--out", str(run), *small, *flags]) == 0
    more = ["--num-samples", "50", "--estimators", "is", "mlmc", "ais", "--limit", "8", "--replicates", "4"]
    argv = [str(run), *more, "--temperatures", "3", "--chains", "2", "--leapfrog", "1", *flags]
    assert evaluate.main(argv) == 0
    whole = read_evidence(run / "evidence.nc")
    (run / "evidence.nc").unlink()  # which a shared evaluation would take
    partial = run / "partial"
    with attending(partial, 60):  # another process is at it, and may need the parts still
        assert evaluate.main([*argv, "--shared"]) == 0
        assert status(partial)
    shared = read_evidence(run / "evidence.nc")
    for name in ("IS", "MLMC", "AIS"):
        assert np.array_equal(shared[name].per_datum, whole[name].per_datum, equal_nan=True), name
    capsys.readouterr()
    assert evaluate.main([str(run), "--status"]) == 0
    said = capsys.readouterr().out
    assert ", MLMC: 1 of 1 units" in said and ", AIS: " in said and "digits" in said
    # Who comes late takes what the others have kept; and the last one to leave cleans up.
    assert evaluate.main([*argv, "--shared"]) == 0 and "from evidence.nc" in capsys.readouterr().out
    (run / "evidence.nc").unlink()
    assert evaluate.main([*argv, "--shared"]) == 0 and not partial.exists()
    assert np.array_equal(read_evidence(run / "evidence.nc")["AIS"].per_datum, whole["AIS"].per_datum)
    capsys.readouterr()
    assert evaluate.main([str(run), "--status"]) == 0
    assert "no shared evaluation" in capsys.readouterr().out
    assert evaluate.main([*argv, "--shared", "--resume", "--shard", "0/2"]) == 2
    assert "expected --shared or --shard" in capsys.readouterr().err


@pytest.mark.cuda
def test_one_rank_by_nccl_captures_its_all_reduce(monkeypatch):
    """The same code path as several ranks; the CUDA graph holds the step with the all-reduce in it."""
    for name, value in {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("MASTER_PORT", "0")

    def on_cuda(pair):
        pair.enc, pair.dec = (nn.Module.to(m, "cuda") for m in (pair.enc, pair.dec))
        return pair

    x = rows().cuda()
    plain = fit(on_cuda(Pair()), data=x, epochs=6, compile=True)
    with joined("cuda", 60.0) as world:
        pair = on_cuda(Pair())
        options = {"batch_size": 16, "seed": 2, "compile": True}
        trainer = pv.Trainer(pair.model, pair.guide, x, split=Split(world), **options)
        for _ in range(6):
            trainer.run_epoch()
        assert torch.distributed.get_backend_config() and trainer.static.refused is None
        assert all(s.run._graph is not None for s in trainer.static._steps[:1])
    for key, value in plain.store.state_dict().items():
        torch.testing.assert_close(trainer.store.state_dict()[key], value, rtol=1e-4, atol=1e-5)
