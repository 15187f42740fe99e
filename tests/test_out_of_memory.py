"""Devices without memory, by injected errors; files that say cuda; data on two devices; devices without code."""

import pyro
import pytest
import torch

import pyrovae as pv
from pyrovae.evidence.core.chunks import Chunk
from pyrovae.inference import train
from pyrovae.programs import Program
from pyrovae.training.state.checkpoint import Checkpoints

from .pairs import D, Pair

FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.fixture(autouse=True)
def fresh():
    pyro.clear_param_store()


def bits(n=24):
    return (torch.rand(n, D, generator=torch.Generator().manual_seed(1)) > 0.5).float()


def test_training_names_the_batch_size_and_the_checkpoint_stands(monkeypatch, tmp_path):
    pair, own, steps = Pair(), pv.SVI.step, []

    def step(self, *args):
        steps.append(1)
        if len(steps) > 5:
            raise FULL
        return own(self, *args)

    monkeypatch.setattr(pv.SVI, "step", step)
    options = {"epochs": 4, "batch_size": 8, "seed": 1}
    with pytest.raises(torch.OutOfMemoryError, match=r"batch_size=8 on cpu.*smaller.*checkpoint stands"):
        pv.fit(pair.model, pair.guide, bits(), checkpoint=tmp_path, **options)
    assert Checkpoints(tmp_path).load()["trainer"]["epoch"] == 1
    monkeypatch.undo()
    resumed = Pair()
    fit = pv.fit(resumed.model, resumed.guide, bits(), checkpoint=tmp_path, resume=True, **options)
    whole = Pair()
    expected = pv.fit(whole.model, whole.guide, bits(), **options)
    for name, value in expected.store.state_dict().items():
        assert torch.equal(fit.store.state_dict()[name], value)


def memory_for_pairs(monkeypatch, most):
    """More (datum, sample) pairs at once do not fit."""
    own = Program.run

    def run(self, indices, num_samples):
        if len(indices) * num_samples > most:
            raise FULL
        return own(self, indices, num_samples)

    monkeypatch.setattr(Program, "run", run)


def test_an_evaluation_halves_its_chunk_and_says_so_once(monkeypatch):
    pair, x, told = Pair(), bits(10), []
    expected = pv.log_weights(pair.model, pair.guide, x, num_samples=32, chunk=Chunk(5, 8))
    memory_for_pairs(monkeypatch, 45)
    with pytest.warns(RuntimeWarning, match="out of memory: from here on 8 samples") as caught:
        found = pv.log_weights(
            pair.model,
            pair.guide,
            x,
            num_samples=32,
            chunk=Chunk(5, 16),
            progress=lambda done, total: told.append(done / total),
        )
    assert len([w for w in caught if "out of memory" in str(w.message)]) == 1
    assert torch.equal(found, expected) and told[-1] == 1.0 and max(told) == 1.0


def test_an_evaluation_of_one_sample_that_does_not_fit_says_what_to_try(monkeypatch):
    pair = Pair()
    memory_for_pairs(monkeypatch, 0)
    with (
        pytest.warns(RuntimeWarning, match="out of memory"),
        pytest.raises(torch.OutOfMemoryError, match=r"smaller chunk \(pv\.Chunk\(2, 128\)\)"),
    ):
        pv.log_weights(pair.model, pair.guide, bits(10), num_samples=4, chunk=Chunk(5, 2))


def test_data_on_two_devices_are_refused():
    pair = Pair()

    def model(x, scale):
        pair.model(x)

    def guide(x, scale):
        pair.guide(x)

    there = torch.zeros(24, device="meta")
    for context in (there, pv.shared(there), pv.per_datum(there)):
        with pytest.raises(ValueError, match=r"on one device, cpu, got .* on meta; try \.to\('cpu'\)"):
            pv.log_weights(model, guide, bits(), context, num_samples=2)
    with pytest.raises(ValueError, match="on the device meta"):
        pv.fit(pair.model, pair.guide, (bits(), there), epochs=1)


def said_once(caught):
    return len([w for w in caught if "no code is generated" in str(w.message)]) == 1


def test_a_device_that_no_code_is_generated_for_runs_eagerly_and_says_so_once(monkeypatch):
    """As MPS: here the CPU stands for it."""
    monkeypatch.setattr("pyrovae.devices.COMPILES", {"cuda"})
    pair, x = Pair(), bits()
    svi = pv.SVI(pair.model, pair.guide, torch.optim.Adam, pyro.infer.Trace_ELBO(), compile=True)
    with pytest.warns(UserWarning, match="runs eagerly: no code is generated for the device cpu") as caught:
        for _ in range(4):
            svi.step(x)
    assert said_once(caught) and svi.compiled_steps == 0
    with pytest.warns(UserWarning, match="no code is generated for the device cpu") as caught:
        ours = pv.log_weights(pair.model, pair.guide, x, num_samples=8, chunk=Chunk(4, 2), compile=True)
    assert said_once(caught)
    assert torch.equal(ours, pv.log_weights(pair.model, pair.guide, x, num_samples=8, chunk=Chunk(4, 2)))


def test_a_run_saved_on_cuda_loads_where_there_is_none(tmp_path):
    """Files hold values, and no device; that a run's options ask for one binds nobody who loads it."""
    argv = ["--epochs", "1", "--latent-dim", "2", "--hidden", "4", "--batch-size", "629", "--quiet"]
    folder = tmp_path / "run"
    assert train.main([*argv, "--out", str(folder), "--device", "cpu"]) == 0

    for path in folder.rglob("*.json"):
        text = path.read_text()

        path.write_text(text.replace('"device": "cpu"', '"device": "cuda"'))
    run = pv.load(folder)
    assert {p.device.type for p in run.store.unconstrained().values()} == {"cpu"}
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="expected a CUDA device for device='cuda', got none"):
            pv.load(folder, device="cuda")
