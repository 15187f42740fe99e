"""`pv.compare`: the command's numbers, apart cells, rows with reasons, folders that are taken again."""

import functools
import re
import warnings
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO

import pyrovae as pv
from pyrovae.comparing import Failure, run_side_by_side
from pyrovae.comparing.code import hash_of_code
from pyrovae.comparing.given import copied
from pyrovae.comparing.workers import NotStarted
from pyrovae.inference import compare

from .small import FLAGS

SMALL = {"estimators": (pv.ELBO(), pv.IS(20)), "epochs": 1, "progress": False, "compile": False}
VAE = {"latent_dim": 2, "hidden": (8,)}


@pytest.fixture(scope="module")
def data():
    bits = torch.rand(120, 6, generator=torch.Generator().manual_seed(0)) < torch.linspace(0.1, 0.9, 6)
    return pv.data.load(bits.float())


def pair_of(net, enc, scale=1.0):
    def model(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), scale).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=net(z)).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        with pyro.plate("data", len(x)):
            loc, raw = enc(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))

    return model, guide


def build(data, scale=1.0):
    return pair_of(torch.nn.Linear(2, 6), torch.nn.Linear(6, 4), scale)


def lines(result):
    """The table without seconds."""
    return [line.rsplit("|", 2)[0] for line in result.table("markdown").splitlines() if line.startswith("|")]


@pytest.mark.slow
def test_the_numbers_are_those_of_the_command(tmp_path, unrendered):
    """The same options: the same evidence, datum by datum, and the same rows."""
    out = tmp_path / "cmp"
    argv = [
        "--priors",
        "standard",
        "vamp",
        "--guides",
        "diagonal",
        "--objectives",
        "trace-elbo",
        "mean-field",
    ]
    argv += [
        "--epochs",
        "2",
        "--hidden",
        "8",
        "--latent-dim",
        "2",
        "--components",
        "5",
        "--num-samples",
        "20",
    ]
    assert compare.main(["--out", str(out), *argv, "--jobs", "1", "--seeds", "2", *FLAGS]) == 0
    result = pv.compare(
        data=pv.data.load("digits"),
        priors=["standard", "vamp"],
        guides=["diagonal"],
        objectives=["trace-elbo", "mean-field"],
        components=5,
        seeds=2,
        **{**SMALL, **VAE, "epochs": 2, "compile": "auto"},
        # The command's own; those of pv.fit are others.
        batch_size=64,
        lr=pv.Exponential(2e-3, 2e-4, 2),
        beta=pv.Warmup(10),
    )
    table = (out / "table.md").read_text().splitlines()
    assert lines(result) == [line.rsplit("|", 2)[0] for line in table if line.startswith("|")]
    for seed in (0, 1):
        run = pv.load(out / f"vamp-diagonal-trace-elbo-seed{seed}", device="cpu")
        cell = result["vamp diagonal", seed]
        assert torch.equal(run.stored_evidence["IS"].per_datum, cell.evidence["IS"].per_datum)
        assert {"weights_hash", "program_hash"} <= run.stored_evidence.attributes.keys()
        assert [r["loss"] for r in run.history] == [r["loss"] for r in cell.history]
    assert result["vamp diagonal mean-field"].name == "vamp diagonal trace-elbo"  # which stands for both


def test_a_pair_stays_as_it_is_and_cells_have_copies_of_it(data):
    net, enc = torch.nn.Linear(2, 6), torch.nn.Linear(6, 4)
    before = [p.detach().clone() for m in (net, enc) for p in m.parameters()]
    state = torch.random.get_rng_state()
    result = pv.compare(
        {"mine": pair_of(net, enc)}, data, seeds=2, objectives=["trace-elbo", "iwae"], **SMALL
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    after = [p for m in (net, enc) for p in m.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert any("initial weights are the same" in remark for remark in result.remarks)
    weights = [result[name, s].fit.store.state_dict() for name in result for s in (0, 1)]
    places = [{v.data_ptr() for v in w.values()} for w in weights]
    assert len(weights) == 4 and not places[0] & places[1] and not places[0] & places[2]
    # The first epoch starts from the weights that were given, whatever was trained before.
    alone = pv.compare({"mine": pair_of(net, enc)}, data, seeds=(1,), objectives=["iwae"], **SMALL)
    ev = result["mine iwae", 1].evidence
    assert torch.equal(alone["mine"].evidence["IS"].per_datum, ev["IS"].per_datum)


GLOBAL_NET = torch.nn.Linear(2, 6)


def global_model(x):
    pyro.module("net", GLOBAL_NET)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Bernoulli(logits=GLOBAL_NET(z)).to_event(1), obs=x)


def global_guide(x):
    loc = pyro.param("loc", torch.zeros(2))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))


def test_nets_among_globals_are_copied_too(data):
    before = GLOBAL_NET.weight.detach().clone()
    pv.compare({"mine": (global_model, global_guide)}, data, **SMALL)
    assert torch.equal(GLOBAL_NET.weight, before)
    net = torch.nn.Linear(2, 6)
    first, second = copied((lambda: net, lambda: net))
    assert first() is second() and first() is not net  # what the two share stays shared


def test_programs_of_a_fit_and_automatic_guides_stay_as_they_are(data):
    """Whose weights are in a store of their own, and which are set up at their first call."""
    fit = pv.fit(*build(data), data, epochs=1, compile=False)
    point = pv.fit(global_model, global_guide, data, epochs=1, compile=False)
    before = {k: v.clone() for s in (fit.store, point.store) for k, v in s.state_dict().items()}
    automatic = pyro.infer.autoguide.AutoNormal(global_model)
    programs = {"on": fit, "point": (point.model, point.guide), "auto": (global_model, automatic)}
    result = pv.compare(programs, data, seeds=2, **SMALL)
    assert len(result) == 2 and "AutoGuides" in result.failed["auto trace-elbo"]
    after = {k: v for s in (fit.store, point.store) for k, v in s.state_dict().items()}
    assert all(torch.equal(v, after[k]) for k, v in before.items())
    assert automatic._model is not None  # which Pyro's way to copy it would take away
    moved = result["point", 1].fit.store.state_dict()["loc"]
    assert not torch.equal(moved, after["loc"]) and not torch.equal(moved, torch.zeros(2))


def test_cells_that_would_share_weights_are_refused(data):
    with pytest.raises(ValueError, match=r"new modules for each cell.*'net"):
        pv.compare({"mine": lambda _: (global_model, global_guide)}, data, seeds=2, **SMALL)


def test_seeds_draw_weights_of_their_own(data):
    result = pv.compare({"mine": build}, data, seeds=(3, 5), **SMALL)
    assert result.best.seeds == (3, 5) and not result.remarks
    a, b = (result["mine", s].evidence["IS"].per_datum for s in (3, 5))
    assert not torch.equal(a, b)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        fit = pv.fit(*build(data), data, seed=5, epochs=1, compile=False)
    ev = pv.evidence(fit.model, fit.guide, data.test, estimators=[pv.ELBO(), pv.IS(20)], seed=5)
    assert torch.equal(ev["IS"].per_datum, b)
    with pytest.raises(ValueError, match="expected one seed, got"):
        _ = result["mine"].fit
    with pytest.raises(KeyError, match="expected one of the seeds"):
        result["mine", 4]


def not_built(data):
    raise RuntimeError("nothing to build from")


def test_what_fails_or_is_refused_is_a_row_with_its_reason(data):
    calls = []

    def breaks(data):
        model, guide = build(data)

        def wrong(x):
            calls.append(1)
            if len(calls) > 45:
                raise RuntimeError("no more of this")
            model(x)

        return wrong, guide

    discrete = (global_model, lambda x: global_guide(x) or pyro.sample("no", dist.Normal(0.0, 1.0)))
    programs = {"good": build, "not built": not_built, "breaks": breaks, "foreign": discrete}
    result = pv.compare(programs, data, **{**SMALL, "epochs": 3})
    assert list(result) == ["good trace-elbo"] and result.best.name == "good trace-elbo"
    assert "nothing to build from (" in result.failed["not built trace-elbo"]
    assert "no more of this (" in result.failed["breaks trace-elbo"]
    assert (
        "failed" in result.table()
        and "refused" in result.table()
        and "<b>Warning:</b>" in result._repr_html_()
    )
    with pytest.raises(KeyError, match="no more of this"):
        result["breaks trace-elbo"]


def test_an_objective_that_is_not_valid_is_refused_and_equal_ones_run_once(data):
    objectives = {
        "a": Trace_ELBO(),
        "b": TraceMeanField_ELBO(),
        "c": Trace_ELBO(),
        "d": pv.objectives.DReG(2),
    }
    result = pv.compare(data=data, priors=["mixture"], objectives=objectives, components=3, **SMALL, **VAE)
    assert list(result) == ["mixture diagonal a", "mixture diagonal d"]
    assert result["mixture diagonal b"].name == result["mixture diagonal c"].name == "mixture diagonal a"
    assert "| either |" in result.table("markdown")
    closed = pv.compare(
        data=data, priors=["standard"], objectives=["trace-elbo", "mean-field"], **SMALL, **VAE
    )
    assert len(closed) == 2
    half = {
        "one": pv.objectives.BetaELBO(Trace_ELBO(), 1.0),
        "half": pv.objectives.BetaELBO(Trace_ELBO(), 0.5),
    }
    assert len(pv.compare({"mine": build}, data, objectives=half, **SMALL)) == 2


def flow_prior(data, guide):
    return pv.priors.VampPrior(guide, data.train[:4], 0.0, 1.0)


def test_parts_by_functions_and_by_names(data):
    guides = {
        "wide": lambda d: pv.guides.DiagonalGaussian(pv.networks.MLP(6, (4,)), latent_dim=3),
        "full": None,
    }
    guides["full"] = lambda d: pv.guides.FullGaussian(pv.networks.MLP(6, (4,)), 3)
    result = pv.compare(
        data=data,
        priors={"mine": flow_prior, "plain": lambda d: pv.priors.StandardNormal(3)},
        guides=guides,
        likelihoods={"bits": lambda d: pv.likelihoods.Bernoulli(pv.networks.MLP(3, (4,), 6))},
        **SMALL,
    )
    names = [f"{p} {g} bits trace-elbo" for p in ("mine", "plain") for g in guides]
    assert list(result) == names and result.table("markdown").startswith(f"{data.spec.name}, test split")
    mixed = pv.compare(data=data, priors={"mine": flow_prior}, guides=["diagonal"], **SMALL, **VAE)
    assert list(mixed) == ["mine diagonal trace-elbo"]
    wrong = {"mine": lambda d: 3}
    with pytest.raises(ValueError, match="prior to be a module whose call returns a distribution, got int"):
        pv.compare(data=data, priors=wrong, **SMALL)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"programs": None}, "expected programs, or priors= and guides=, got none"),
        ({"programs": {}}, "at least one program"),
        ({"programs": [1]}, "programs by name, got list"),
        ({"programs": {"a": 3}}, r"\(model, guide\) pair.*got int"),
        ({"programs": {"": not_built}}, "plain text"),
        ({"programs": {"a b": not_built, "a-b": not_built}, "out": "runs"}, "no two programs of one name"),
        ({"data": None}, "expected data, got none"),
        ({"data": (1, 2)}, "expected data of pv.data.load"),
        ({"priors": ["standrd"]}, "did you mean 'standard'"),
        ({"guides": ["diagonal", "diagonal"]}, "no name twice in guides"),
        ({"priors": {"a": 3}}, "function of the data"),
        ({"priors": ["standard"], "rank": 4}, "--rank"),
        ({"latent_dim": 3}, "priors= or guides= beside latent_dim"),
        ({"objectives": ["cd"]}, "objectives among"),
        ({"objectives": Trace_ELBO()}, "list of names, or a dict"),
        ({"seeds": (0, 0)}, "none twice"),
        ({"seeds": "3"}, "whole numbers"),
        ({"estimators": [pv.IS(5), pv.IS(7)]}, "no name twice"),
        ({"jobs": 0}, "jobs"),
        ({"epoch": 3}, "did you mean epochs="),
        ({"epochs": 0}, "epochs to be a whole number >= 1"),
        ({"seed": 3}, "seed=, which each has of its own"),
        ({"given": {"w": 1.0}}, r"conditioned on, got given=; try .*pyro.condition"),
    ],
)
def test_errors_in_words_before_anything_is_built(data, how, words):
    given = {"programs": {"mine": not_built}, "data": data, "progress": False, **how}
    with pytest.raises((TypeError, ValueError), match=words):
        pv.compare(given.pop("programs"), given.pop("data"), **given)


def test_masses_beside_densities_are_refused(data):
    with pytest.raises(ValueError, match="figures of one kind"):
        pv.compare(data=data, likelihoods=["bernoulli", "gaussian"], **SMALL, **VAE)


def test_finished_cells_are_taken_and_others_stay_untouched(data, tmp_path, monkeypatch):
    ask = {"seeds": 2, "out": tmp_path / "out", **SMALL}
    from pyrovae.comparing import driver

    real, done = driver.run_cell, []

    def stopped(cell, **how):
        if done:
            raise KeyboardInterrupt
        done.append(cell)
        return real(cell, **how)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(driver, "run_cell", stopped)
        pv.compare({"mine": build}, data, **ask)
    first = tmp_path / "out" / "mine-trace-elbo-seed0" / "weights.safetensors"
    when = first.stat().st_mtime_ns
    result = pv.compare({"mine": build}, data, **ask)
    assert first.stat().st_mtime_ns == when
    assert lines(result) == lines(pv.compare({"mine": build}, data, **{**ask, "out": None}))
    assert isinstance(result["mine", 1].fit, pv.Run)
    run = pv.load(first.parent, build=build, data=data, device="cpu")
    assert run.label[2] == "trace-elbo" and torch.equal(
        run.stored_evidence["IS"].per_datum, result["mine", 0].evidence["IS"].per_datum
    )
    others = {
        "epochs": {"epochs": 2},
        "lr": {"lr": 0.01},
        "estimators": {"estimators": [pv.IS(5)]},
        "objective": {"objectives": {"trace-elbo": Trace_ELBO(num_particles=2)}},
    }
    files = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    for word, other in others.items():
        with pytest.raises(ValueError, match=f"in the way.*other.* {word}"):
            pv.compare({"mine": build}, data, **{**ask, **other})
    with pytest.raises(ValueError, match=r"in the way.*other code"):
        pv.compare({"mine": functools.partial(build, scale=2.0)}, data, **ask)
    with pytest.raises(ValueError, match=r"in the way.*other data"):
        pv.compare({"mine": build}, pv.data.load(1 - data.train), **ask)
    assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()} == files


def test_nothing_is_written_unasked(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pv.compare({"mine": build}, data, **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_passed_to_processes_runs_in_this_one(data):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        result = pv.compare({"mine": lambda d: build(d)}, data, seeds=2, jobs=2, **SMALL)
    assert any("all cells run in this process: " in str(w.message) for w in told)
    assert lines(result) == lines(pv.compare({"mine": build}, data, seeds=2, **SMALL))


class Lost:
    """Something that is not found again in another process."""

    def __reduce__(self):
        return (not_there, ())


def not_there():
    raise AttributeError("not found here")


def kind(x):
    return type(x).__name__


@pytest.mark.slow
def test_processes_side_by_side_give_the_same(data):
    """The fits come back as well; and what a process cannot read ends in words, not in rows that failed."""
    together = pv.compare(data=data, priors=["standard", "mixture"], components=3, jobs=2, **SMALL, **VAE)
    alone = pv.compare(data=data, priors=["standard", "mixture"], components=3, **SMALL, **VAE)
    assert lines(together) == lines(alone)
    a, b = (r["mixture diagonal"].fit.store.state_dict() for r in (together, alone))
    assert all(torch.equal(v, b[k]) for k, v in a.items()) and a.keys() == b.keys()
    with pytest.raises(NotStarted, match="not found here"):
        list(run_side_by_side(kind, [Lost(), Lost()], 2))
    assert isinstance(Failure("x"), Failure)


def test_tables_frames_and_pictures(data):
    result = pv.compare(
        {"<b>|&": build, "100%_": functools.partial(build, scale=2.0)}, data, seeds=2, **SMALL
    )
    html = result._repr_html_()
    assert (
        "&lt;b&gt;|&amp;" in html
        and ">≥ -" in html
        and r"<b>\|&" in result.table("markdown")
        and "<b>|&" not in html
        and "warnings on the estimates" in html
    )
    latex = result.table("latex")
    assert r"100\%\_" in latex and r"$\pm$" in latex and "±" not in latex and r"\begin{tabular}" in latex
    assert repr(result) == str(result) == result.table()
    with pytest.raises(ValueError, match="expected style to be one of"):
        result.table("html")
    frame = result.to_dataframe()
    assert len(frame) == 2 * 2 * 2 and set(frame["seed"]) == {0, 1} and frame["log_evidence"].notna().all()
    worse = next(n for n in result if n != result.best.name)
    assert result.differences[worse].mean <= 0 and result.difference(worse, result.best.name).num_seeds == 2
    assert result.plot().axes


def test_code_is_told_apart_by_what_it_computes():
    """Constants, closures, defaults, globals that are used; not where it stands, and not the weights."""

    def made(value):
        def f(x):
            return x + value

        return f

    assert hash_of_code(made(1)) == hash_of_code(made(1)) != hash_of_code(made(2))
    assert hash_of_code(made(torch.ones(2))) != hash_of_code(made(torch.zeros(2)))
    assert hash_of_code(functools.partial(build, scale=1.0)) != hash_of_code(
        functools.partial(build, scale=2.0)
    )
    source = "def inner(x):\n    return x * {}\ndef f(x):\n    return inner(x)\n"
    scopes = [{"__name__": "page"}, {"__name__": "page"}, {"__name__": "page"}]
    for scope, factor in zip(scopes, (2, 2, 3), strict=True):
        exec(source.format(factor), scope)
    a, b, c = (hash_of_code(scope["f"]) for scope in scopes)
    assert a == b != c
    nets = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    assert hash_of_code(nets[0]) != hash_of_code(nets[1])
    assert hash_of_code(nets[0], weights=False) == hash_of_code(nets[1], weights=False)
    assert hash_of_code(torch.nn.Linear(2, 3), weights=False) != hash_of_code(nets[1], weights=False)


PAGE = Path(__file__).parents[1] / "docs" / "parts.md"


@pytest.mark.slow
def test_the_example_of_the_page(capsys, tmp_path, monkeypatch):
    """As it stands, with fewer data and one epoch."""
    monkeypatch.chdir(tmp_path)
    section = PAGE.read_text().partition("## Compare programs in Python")[2]
    (block,) = re.findall(r"```python\n(.*?)```", section.partition("\n## ")[0], flags=re.DOTALL)
    scope = {"__name__": "page"}
    exec(compile(block.replace("epochs=3", "epochs=1, progress=False"), str(PAGE), "exec"), scope)
    result = scope["result"]
    assert len(result) == 4 and result["vamp of 10 full"].seeds == (0, 1, 2)
    assert result.best.name in capsys.readouterr().out
    page = (tmp_path / "comparison.html").read_text()
    assert page.count("<img") == 4 and "Training (seed 0)" in page and "left out" not in page
