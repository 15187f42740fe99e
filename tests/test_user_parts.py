"""The parts of docs/parts.md, taken out of the page, in every tool."""

import math
import re
import warnings
from pathlib import Path
from types import SimpleNamespace

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO

import pyrovae as pv
from pyrovae.inference import compare, evaluate, sample, train
from pyrovae.inference.options.building import imported
from pyrovae.models.vae import VAE
from pyrovae.programs import inspect_program
from pyrovae.programs.checks.validity import closed_form_kl

pytestmark = pytest.mark.usefixtures("unrendered")

PAGE = Path(__file__).parents[1] / "docs" / "parts.md"
# The comparison, which test_compare runs, would be run by each command that reads the file.
BLOCKS = [
    b for b in re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL) if "pv.compare(" not in b
]
USE = [b for b in BLOCKS if b.startswith("# use.py")]
FLAGS = ["--device", "cpu", "--quiet"]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The page's parts as a user's file."""
    path = tmp_path_factory.mktemp("user") / "parts_of_the_page.py"
    path.write_text("\n\n".join(b for b in BLOCKS if b not in USE))
    return path


@pytest.fixture(scope="module")
def parts(file):
    names = ("StudentT", "Laplace", "Wide", "build")
    return SimpleNamespace(**{n: imported(f"{file}:{n}") for n in names})


@pytest.fixture(scope="module")
def data():
    return pv.data.load("digits")


@pytest.fixture(scope="module")
def fit(parts, data):
    torch.manual_seed(0)
    vae = parts.build(data)
    return pv.fit(vae.model, vae.guide, data, epochs=3, lr=3e-3, compile=False, seed=0)


def test_parts_are_short():
    classes = re.findall(r"^class .*?(?=^\S|\Z)", "\n".join(BLOCKS), flags=re.DOTALL | re.MULTILINE)
    assert len(classes) == 3 and all(len(c.strip().splitlines()) <= 20 for c in classes)


def test_the_page_as_it_stands(file, tmp_path, capsys):
    """Its Python runs, in its order, and the folder brings the same program back."""
    assert len(USE) == 1
    scope = {"folder": tmp_path / "run"}
    exec(compile("\n".join(BLOCKS), str(PAGE), "exec"), scope)
    assert "IS" in capsys.readouterr().out
    fit, run, x = scope["fit"], scope["run"], scope["data"].test[:20]
    same = [pv.log_weights(p.model, p.guide, x, num_samples=3, seed=5) for p in (fit, run)]
    assert torch.equal(*same)


@pytest.mark.parametrize("prior", ["student-t", "normal"])
def test_both_elbos_estimate_one_number(parts, data, prior):
    """Laplace under Student t has no closed KL and is sampled; under a normal torch knows it."""
    torch.manual_seed(1)
    p = parts.StudentT(3) if prior == "student-t" else pv.priors.StandardNormal(3)
    likelihood = pv.likelihoods.Binomial(parts.Wide(3, 16, 64), 16)
    vae = VAE(prior=p, likelihood=likelihood, guide=parts.Laplace(parts.Wide(64, 16), 3))
    fit = pv.fit(
        vae.model, vae.guide, data, objective=TraceMeanField_ELBO(), epochs=2, lr=3e-3, compile=False
    )
    assert fit.history[-1]["elbo"] > fit.history[0]["elbo"] + 10
    x = data.test[:40]
    assert closed_form_kl(inspect_program(fit.model, fit.guide, x)) == ([] if prior == "student-t" else ["z"])
    figures = {}
    for kind in (Trace_ELBO, TraceMeanField_ELBO):
        loss = kind(num_particles=300, vectorize_particles=True, max_plate_nesting=1)
        torch.manual_seed(2)
        with torch.no_grad(), pyro.validation_enabled(False):
            draws = [loss.loss(fit.model, fit.guide, x) for _ in range(20)]
        figures[kind] = torch.tensor(draws, dtype=torch.float64) / len(x)
    a, b = figures.values()
    assert abs(float(a.mean() - b.mean())) <= 4 * math.sqrt(float(a.var() + b.var()) / 20)


def test_compiled_steps_give_the_numbers_of_eager_ones(parts, data):
    """As one graph, or eagerly with the reason; never other numbers."""
    losses = []
    for compiled in (False, True):
        torch.manual_seed(3)
        vae = parts.build(data)
        adam = pyro.optim.Adam({"lr": 1e-2})
        store = pv.ParameterStore()
        model, guide = store.bind(vae.model), store.bind(vae.guide)
        svi = pv.SVI(model, guide, adam, loss=Trace_ELBO(), compile=compiled)
        torch.manual_seed(4)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*runs eagerly")
            losses.append([svi.step(data.train[:32]) for _ in range(5)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4) and losses[0][-1] < losses[0][0]


def test_weights_and_evidence(fit, data):
    x = data.test[:50]
    lw = pv.log_weights(fit.model, fit.guide, x, num_samples=400)
    assert lw.shape == (400, 50) and torch.isfinite(lw).all()
    ev = pv.evidence(fit.model, fit.guide, x, estimators=[pv.ELBO(), pv.IS(400)])
    torch.testing.assert_close(ev["IS"].per_datum, lw.double().logsumexp(0) - math.log(400))
    # The density by hand, at one draw: nothing of the parts is lost on the way.
    vae = fit.model.__self__ if hasattr(fit.model, "__self__") else fit.model.__wrapped__.__self__
    vae.eval()
    with torch.no_grad():
        q = vae.q(x)
        torch.manual_seed(6)
        z = q.sample((20000,))
        w = vae.prior().log_prob(z) + vae.likelihood(z).log_prob(x) - q.log_prob(z)
    by_hand = w.double().mean(0)
    se = (w.double().var(0) / 20000 + ev["ELBO"].variance).sum().sqrt() / 50
    assert abs(float((by_hand - ev["ELBO"].per_datum).mean())) <= 4 * float(se)


def test_scripts(file, tmp_path):
    mine, plain = tmp_path / "mine", tmp_path / "plain"
    quick = ["--epochs", "1", *FLAGS]
    assert train.main(["--model", f"{file}:build", "--out", str(mine), *quick]) == 0
    small = ["--hidden", "16", "--latent-dim", "2"]
    assert train.main(["--out", str(plain), *quick, *small]) == 0
    table = tmp_path / "table.md"
    assert evaluate.main([str(mine), str(plain), "--num-samples", "30", "--out", str(table), *FLAGS]) == 0
    assert f"| {file}:build |" in table.read_text()
    assert sample.main([str(mine), "--num", "9", *FLAGS]) == 0
    assert (mine / "samples.npz").exists() and (mine / "reconstructions.png").exists()
    run = pv.load(mine, device="cpu")  # needs no programs: the folder names them
    assert type(run.model.__wrapped__.__self__.prior).__name__ == "StudentT"


def test_compare_has_a_row_for_it(file, tmp_path):
    out = tmp_path / "compare"
    argv = [
        "--programs",
        f"{file}:build",
        "--priors",
        "standard",
        "--guides",
        "diagonal",
        "--objectives",
        "trace-elbo",
    ]
    small = ["--hidden", "16", "--latent-dim", "2", "--epochs", "1", "--num-samples", "20", "--jobs", "1"]
    assert compare.main(["--out", str(out), *argv, *small, *FLAGS]) == 0
    rows = [
        r for r in (out / "table.md").read_text().splitlines() if r.startswith(("| standard", f"| {file}"))
    ]
    assert len(rows) == 2 and sum("best" in r for r in rows) == 1
