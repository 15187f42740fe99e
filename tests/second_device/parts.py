"""The parts of the check: each yields (what, what is wrong with it or None)."""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO

import pyrovae as pv
from pyrovae.inference import evaluate, reconstruct, sample, train
from pyrovae.inference.options.building import build
from pyrovae.inference.options.options import ModelOptions

from ..small import FAMILIES, PROGRAM, SMALL
from . import NAME, Extent
from .placed import Placed, imported_there
from .questions import ASKED, THOROUGH, answer, asked_of, difference

Found = Iterator[tuple[str, str | None]]
MODELS = FAMILIES | {
    "couplings": {**SMALL, "prior": "flow-coupling", "flow_hidden": (4,)},
    "low rank": {**SMALL, "guide": "low-rank"},
}


def pairs(extent: Extent) -> Found:
    """Hand-written pairs of every shape, asked for all there is."""
    here, there = importlib.import_module("tests.handwritten"), imported_there("tests.handwritten")
    for name in list(here.CASES)[:: 3 if extent.few else 1]:
        on_cpu = here.CASES[name]()
        with Placed():
            on_device = there.CASES[name]()
        asked = ASKED | (THOROUGH if extent.thorough or name == "enumerated in the model" else {})
        for question, wrong in asked_of(on_device, on_cpu, asked, Placed):
            yield f"{name} | {question}", wrong


def default(extent: Extent) -> Found:
    """A few of the pairs, where torch.set_default_device says where the program's tensors lie."""
    here, there = importlib.import_module("tests.handwritten"), imported_there("tests.handwritten")
    for name in ["plain", "enumerated in the guide"][: 1 if extent.few else 2]:
        on_cpu = here.CASES[name]()
        with Placed():
            on_device = there.CASES[name]()
        for question, wrong in asked_of(on_device, on_cpu, ASKED | THOROUGH, lambda: torch.device(NAME)):
            yield f"{name} | {question}", wrong


def generated(extent: Extent) -> Found:
    """Programs that are made of features, against their references in NumPy."""
    with Placed(), _read_by_tests():
        from tests.generated.checks import CHECKS, run_checks
        from tests.generated.covering import covering_array

        for rows in covering_array()[:: 5 if extent.few else 1]:
            wrong = run_checks(rows, 0, list(CHECKS))
            yield " + ".join(r.name for r in rows), "; ".join(map(str, wrong.items())) or None


@contextlib.contextmanager
def _read_by_tests() -> Iterator[None]:
    """References in NumPy may read tensors of the device; the library may not."""
    tests = str(Path(__file__).parents[1])

    def reading(method: Any) -> Any:
        def read(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            mine = sys._getframe(1).f_code.co_filename.startswith(tests)
            return method(self.cpu() if mine else self, *args, **kwargs)

        return read

    with (
        mock.patch.object(torch.Tensor, "numpy", reading(torch.Tensor.numpy)),
        mock.patch.object(torch.Tensor, "__array__", reading(torch.Tensor.__array__)),
    ):
        yield


def families(extent: Extent) -> Found:
    """The library's own models: trained, evaluated, saved there and loaded here."""
    data = pv.data.load("digits")
    for name, options in MODELS.items():
        answers = {}
        for device in (NAME, "cpu"):
            own = data.to(device)
            answers[device] = answer(lambda options=options, own=own: _life_of(options, own))
        # Sums of float32 in another order, over some steps.
        yield name, difference(answers[NAME], answers["cpu"], tolerance=2e-3)


def _life_of(options: dict[str, Any], data: Any) -> dict[str, Any]:
    pair = build(ModelOptions(**options), data, 0)
    svi = pv.SVI(*build(ModelOptions(**options), data, 0), torch.optim.Adam, Trace_ELBO(), compile=False)
    with torch.random.fork_rng():
        steps = [float(svi.step(data.train[:64])) for _ in range(3)]
    fit = pv.fit(*pair, data, epochs=2, batch_size=629, compile=False, progress=False)
    ev = fit.evidence(data.test[:8], estimators=[pv.ELBO(4), pv.IS(8)], progress=False)
    with tempfile.TemporaryDirectory() as folder:
        pv.save(fit, folder, data=data, overwrite=True)
        fresh = build(ModelOptions(**options), data.to("cpu"), 1)
        run = pv.load(folder, model=fresh.model, guide=fresh.guide, device="cpu")
        back = run.evidence(data.test[:8].cpu(), estimators=[pv.ELBO(4), pv.IS(8)], progress=False)
    made = pv.simulate(fit.model, 4, data.test[:4])
    return {
        "steps": steps,
        "history": fit.history,
        "evidence": {k: e.per_datum for k, e in ev.items()},
        "loaded on a CPU": {k: e.per_datum for k, e in back.items()},
        "reconstructed": pv.reconstruct(fit.model, fit.guide, data.test[:4]),
        "embedded": pv.embed(fit.model, fit.guide, data.test[:4]),
        "simulated": made.mean,
    }


def resuming(extent: Extent) -> Found:
    """A training that goes on on the other device, from its state."""
    data = pv.data.load("digits")

    def trainer(device: str, name: str) -> Any:
        own = data.to(device)
        pair = build(ModelOptions(**MODELS[name]), own, 0)
        return pv.Trainer(*pair, own.train, batch_size=400, ema=0.9, seed=1)

    def trained(name: str, first: str, then: str) -> Any:
        one, other = trainer(first, name), trainer(then, name)
        one.run_epoch()
        other.load_state_dict(one.state_dict())
        return {k: v for k, v in other.run_epoch().items() if "second" not in k}

    for name in ("perceptrons", "mixtures", "ladder"):
        right = answer(lambda name=name: trained(name, "cpu", "cpu"))
        for first, then in ((NAME, "cpu"), ("cpu", NAME)):
            found = answer(lambda name=name, first=first, then=then: trained(name, first, then))
            yield f"{name}, {first} to {then}", difference(found, right, tolerance=2e-3)


def _plain_pair(mask: bool) -> Any:
    """A pair whose tensors are made of x."""

    def model(x: torch.Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            with poutine.mask(mask=x[:, 0] > -9) if mask else contextlib.nullcontext():
                pyro.sample("x", dist.Normal(z.unsqueeze(-1), 0.5 + 0 * x).to_event(1), obs=x)

    def guide(x: torch.Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.8 * x.mean(-1), x.new_tensor(0.5)))

    return model, guide


def other_default(extent: Extent) -> Found:
    """torch.set_default_device names another device than that of the data."""
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for mask in (True,) if extent.few else (False, True):
        model, guide = _plain_pair(mask)
        for name, ask in (ASKED | {"sandwich": THOROUGH["sandwich"]}).items():
            right = answer(lambda ask=ask, m=model, g=guide: ask(m, g, x))
            for here, default in (("cpu", NAME), (NAME, "cpu")):
                with torch.device(default):
                    found = answer(lambda ask=ask, m=model, g=guide, here=here: ask(m, g, x.to(here)))
                yield f"{name}, mask {mask}, data on {here}, default {default}", difference(found, right)


def steps(extent: Extent) -> Found:
    """Steps of pv.SVI draw what Pyro's draw, and a declared `simulate` draws by its seed."""
    for objective in (Trace_ELBO, TraceMeanField_ELBO, TraceEnum_ELBO):
        losses = []
        for kind in (pyro.infer.SVI, pv.SVI):
            pyro.clear_param_store()
            torch.manual_seed(0)
            with Placed():
                svi = kind(*_trained_pair(), pyro.optim.Adam({"lr": 0.1}), objective())
                x = torch.linspace(-1, 1, 12).reshape(6, 2)
                losses.append([float(svi.step(x)) for _ in range(4)])
        same = np.allclose(*losses, rtol=1e-5)
        yield objective.__name__, None if same else f"Pyro's {losses[0]}, ours {losses[1]}"

    @pv.program(simulate=lambda n: (torch.randn(n, 1, device=NAME), torch.randn(n, device=NAME)))
    def model(x: torch.Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z.unsqueeze(-1), 1.0).to_event(1), obs=x)

    drawn = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        drawn.append(pv.simulate(model, 4, seed=0).x)
    yield "a declared simulate", None if torch.equal(*drawn) else "it draws by the caller's seed"


def _trained_pair() -> Any:
    def model(x: torch.Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x: torch.Tensor) -> None:
        scale = pyro.param("scale", torch.ones(2), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x * pyro.param("slope", torch.ones(2)), scale).to_event(1))

    return model, guide


def _laws(device: str) -> dict[str, tuple[Any, Any]]:
    one = torch.tensor([0.5, 1.5], device=device)
    return {
        "normal, normal": (dist.Normal(one, 1.0), dist.Normal(0.0, one)),
        "gamma, log-normal": (dist.Gamma(one, one), dist.LogNormal(one, one)),
        "exponential, half-normal": (dist.Exponential(one), dist.HalfNormal(one)),
        "uniform, beta": (dist.Uniform(torch.zeros_like(one), 0 * one + 1), dist.Beta(one, one)),
        "normal, half-normal": (dist.Normal(one, 1.0), dist.HalfNormal(one)),
        "Student, Laplace": (dist.StudentT(3 * one + 3), dist.Laplace(one, one)),
        "Poisson, negative binomial": (dist.Poisson(one), dist.NegativeBinomial(2 * one, logits=one)),
        "categorical": (dist.Categorical(logits=one), dist.Categorical(logits=-one)),
        "normals to event": (dist.Normal(one, 1.0).to_event(1), dist.Normal(-one, one).to_event(1)),
        "Cauchy, logistic": (dist.Cauchy(one, one), dist.Logistic(one, one)),
    }


def laws(extent: Extent) -> Found:
    """Divergences of laws, by closed forms and by draws."""
    here, there = _laws("cpu"), _laws(NAME)
    for name, (p, q) in here.items():
        for by in ("kl", "kl by draws", "js"):
            ask = {"kl": pv.divergences.kl, "kl by draws": _by_draws, "js": pv.divergences.js}[by]
            on_cpu = answer(lambda ask=ask, p=p, q=q: ask(p, q))
            on_device = answer(lambda ask=ask, pair=there[name]: ask(*pair))
            yield f"{name} | {by}", difference(on_device, on_cpu)


def _by_draws(p: Any, q: Any) -> Any:
    return pv.divergences.kl(p, q, exact=False)


def scripts(extent: Extent) -> Found:
    """A user's file that names no device, by the commands, as `--device auto` has it where there is a GPU."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mine.py"
        file.write_text(PROGRAM)
        here, there = Path(folder) / "here", Path(folder) / "there"
        quick = ["--epochs", "1", "--quiet", "--compile", "off", "--device"]
        yield "train", _ran(train, "--model", f"{file}:build", "--out", str(there), *quick, "cuda")
        _ran(train, "--model", f"{file}:build", "--out", str(here), *quick, "cpu")
        weights = [answer(lambda out=out: _weights(out)) for out in (there, here)]
        yield "its weights", difference(weights[0], weights[1], tolerance=2e-3)
        for out in (there, here):
            for device in ("cuda", "cpu"):
                asked = [str(out), "--device", device, "--trust", "--quiet"]
                yield f"evaluate {out.name} on {device}", _ran(evaluate, *asked, "--num-samples", "8")
        asked = [str(there), "--device", "cuda", "--trust", "--quiet"]
        yield "sample", _ran(sample, *asked)
        rows = Path(folder) / "rows.npy"
        np.save(rows, pv.data.load("digits").test[:5].numpy())
        asked[1:1] = [str(rows), "--out", str(Path(folder) / "means.npz")]
        yield "reconstruct", _ran(reconstruct, *asked)

        data = pv.data.load("digits")
        own = importlib.machinery.SourceFileLoader("mine", str(file)).load_module().build(data)
        yield "pv.load of modules on a CPU", _loaded(there, own, data)


def _loaded(folder: Path, pair: Any, data: Any) -> str | None:
    """A run on the device, its programs given as they were made for a CPU; of constants that they hold is told."""
    try:
        pv.load(folder, model=pair[0], guide=pair[1], device=torch.device(NAME), data=data)
    except ValueError as error:
        return None if "or all on a CPU" in str(error) else str(error)
    return "constants of a CPU were taken"


def _weights(folder: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(folder / "weights.safetensors")


def _ran(command: Any, *argv: str) -> str | None:
    from pyrovae.inference.options import building
    from pyrovae.runs import loading

    known = (building.device_of, loading.device_of)
    told = io.StringIO()
    with contextlib.ExitStack() as stack:
        for module in list(sys.modules.values()):
            if getattr(module, "device_of", None) in known:
                stack.enter_context(mock.patch.object(module, "device_of", _device_of))
        stack.enter_context(contextlib.redirect_stdout(told))
        stack.enter_context(contextlib.redirect_stderr(told))
        try:
            code = command.main(list(argv))
        except SystemExit as ended:  # of options
            code = ended.code
    return None if code == 0 else told.getvalue()[-600:]


def _device_of(name: Any) -> torch.device:
    return torch.device(NAME, 0) if name == "cuda" else torch.device(name)


PARTS = {
    "pairs": pairs,
    "default": default,
    "generated": generated,
    "families": families,
    "resuming": resuming,
    "laws": laws,
    "other_default": other_default,
    "steps": steps,
    "scripts": scripts,
}
