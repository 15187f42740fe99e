"""What is asked of the library about one program, each check against the reference."""

import math
import time
import warnings
from contextlib import contextmanager

import numpy as np
import pyro
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO

import pyrovae as pv

from .reference import log_evidence, log_posterior_of_g, log_weight
from .scope import Case, N

SAMPLES = 2000
SIGMAS = 5.0
SECONDS = {}


class Wrong(AssertionError):
    """A value that is not the reference's."""


class Programs:
    """A set of rows as two programs, of equal data: with a wrong guide, and with an exact one where it is feasible."""

    def __init__(self, rows, seed=0):
        self.rows = rows
        self.wrong = Case(rows, seed)
        self.exact = Case(rows, seed, exact=True) if exact_guide(rows) else None
        if self.exact is not None and "g" in self.exact.enumerated:
            self.exact.per_datum["g_posterior"] = log_posterior_of_g(self.exact)

    def __repr__(self):
        return repr(self.wrong)


def exact_guide(rows):
    """A Gaussian z alone is a function of Gaussian noise."""
    return not any(r.auxiliary for r in rows) or any(r.name == "z Gaussian" for r in rows)


def given(case):
    return (case.model, case.guide, case.x, *case.marked)


def close(what, got, right, case, tolerance=1.0):
    got, right = (np.asarray(v, dtype=float) for v in (got, right))
    eps = 1e-9 if case.dtype == torch.float64 else 5e-5
    allowed = tolerance * eps * (1 + np.abs(right))
    if got.shape != right.shape or not np.all(np.abs(got - right) <= allowed):
        raise Wrong(f"{what}: got {np.round(got, 6).tolist()}, right {np.round(right, 6).tolist()}")


# The checks: name -> function of Programs --------------------------------------------------------------


def weights_of_draws(programs):
    """ln w equals the reference's at the same draws."""
    case, samples = programs.wrong, 2
    case.calls.clear()
    lw = pv.log_weights(*given(case), num_samples=samples, chunk=pv.Chunk(N, samples))
    draws = [None] * N
    # The last calls of all samples count; a sample is run alone as well, to be compared.
    for index, values in [c for c in case.calls if _samples(case, c[1]) == samples] or case.calls:
        rows = range(N) if index is None else index.tolist()
        for place, n in reversed(list(enumerate(rows))):
            draws[n] = (values, place)
    right = [[log_weight(case, n, _one(case, *draws[n], k)) for n in range(N)] for k in range(samples)]
    close("log_weights", lw, right, case)


def _samples(case, values):
    """How many samples a call of the guide drew at once."""
    return max((v.shape[-case.nesting - 1] for v in values.values() if v.dim() > case.nesting), default=1)


def _one(case, values, place, k):
    out = {}
    for name, value in values.items():
        if name == "g":
            continue
        value = value.reshape((1,) * (case.nesting + 2 - value.dim()) + tuple(value.shape))
        value = value.reshape(-1, *value.shape[-case.nesting - 1 :])
        value = value[:, k if value.shape[1] > 1 else 0]
        dim = value.dim() + case.dim
        out[name] = value.narrow(dim, place if value.shape[dim] > 1 else 0, 1)
    return out


def exact_weights(programs):
    """ln w = ln p(x) whatever is drawn."""
    case = programs.exact
    lw = pv.log_weights(*given(case), num_samples=4)
    close("log_weights, exact guide", lw, np.tile(log_evidence(case), (4, 1)), case)


def exact_estimates(programs):
    """All estimators made of weights, where these are equal."""
    case = programs.exact
    estimators = [pv.ELBO(8), pv.IS(8), pv.Jackknife(8), pv.MLMC(replicates=4, base=2, max_level=3)]
    ev = pv.evidence(*given(case), estimators=estimators)
    for name, estimate in ev.items():
        close(
            f"{name}, exact guide",
            estimate.per_datum,
            log_evidence(case),
            case,
            8 if name == "Jackknife" else 1,
        )


def exact_value(programs):
    """Exact is exact; it refuses more than two numbers to integrate over."""
    case = programs.wrong
    served = case.continuous <= 2
    try:
        ev = pv.evidence(*given(case), estimators=[pv.Exact()])
    except ValueError as error:
        if served:
            raise Wrong(f"Exact refused: {error}") from error
        return
    close("Exact", ev["Exact"].per_datum, log_evidence(case), case, 2)


def estimates(programs):
    """Of the wrong guide: what is unbiased is within its error, what is a bound is below."""
    case, right = programs.wrong, log_evidence(programs.wrong)
    lw = pv.log_weights(*given(case), num_samples=SAMPLES).double().numpy()
    ev = pv.evidence(
        *given(case),
        estimators=[pv.ELBO(SAMPLES), pv.IS(SAMPLES), pv.Jackknife(SAMPLES), pv.MLMC(replicates=64, base=64)],
    )
    ratio = np.exp(lw - right)
    error = ratio.std(0, ddof=1) / math.sqrt(SAMPLES) + 1e-4
    if np.any(np.abs(ratio.mean(0) - 1) > SIGMAS * error):
        raise Wrong(f"E[w] / p: got {ratio.mean(0).round(4).tolist()} +- {error.round(4).tolist()}")
    likely = np.log(ratio.mean(0)) + right
    close("IS of the same draws", ev["IS"].per_datum, likely, case)
    close("ELBO of the same draws", ev["ELBO"].per_datum, lw.mean(0), case)
    total = ratio.sum(0)
    jackknife = SAMPLES * np.log(total / SAMPLES) - (SAMPLES - 1) * np.log(
        (total - ratio) / (SAMPLES - 1)
    ).mean(0)
    close("Jackknife of the same draws", ev["Jackknife"].per_datum, jackknife + right, case, SAMPLES)
    elbo_error = lw.std(0, ddof=1) / math.sqrt(SAMPLES) + 1e-4
    if np.any(lw.mean(0) > right + SIGMAS * elbo_error):
        raise Wrong(f"ELBO: got {lw.mean(0).round(4).tolist()}, above {right.round(4).tolist()}")
    mlmc = ev["MLMC"].per_datum.numpy()
    error = np.sqrt(ev["MLMC"].variance.numpy()) + 1e-4
    if np.all(np.isfinite(mlmc)) and np.any(np.abs(mlmc - right) > 7 * error):
        raise Wrong(
            f"MLMC: got {mlmc.round(4).tolist()} +- {error.round(4).tolist()}, right {right.round(4).tolist()}"
        )


def annealed(programs):
    """AIS of both starts, of programs that HMC can move."""
    case, right = programs.wrong, log_evidence(programs.wrong)
    for start in ("guide", "prior"):
        served = (
            case.continuous
            and not any(r.drawn for r in case.rows)
            and not (start == "guide" and any(r.auxiliary for r in case.rows))
        )
        ais = pv.AIS(num_temperatures=8, num_chains=32, leapfrog=3, start=start)
        try:
            estimate = pv.evidence(*given(case), estimators=[ais])[ais.name]
        except ValueError as error:
            if served:
                raise Wrong(f"{ais.name} refused: {error}") from error
            continue
        if not served:
            raise Wrong(f"{ais.name} took a drawn discrete latent or an auxiliary site")
        error = np.sqrt(estimate.variance.numpy()) + 1e-4
        ratio = np.exp(estimate.per_datum.numpy() - right)
        # Where few chains hold all the weight, their spread says little of the error: Markov's bound alone is left.
        even = estimate.ess.numpy() > 16
        if np.any(even & (np.abs(ratio - 1) > 6 * error)) or np.any(ratio > 1000):
            raise Wrong(f"{ais.name} p-hat / p: got {ratio.round(4).tolist()} +- {error.round(4).tolist()}")


def losses(programs):
    """Pyro's ELBOs and a fit's history are ln p(x) under the exact guide."""
    case, right = programs.exact, log_evidence(programs.exact)
    rows, shared = case.context[: len(case.per_datum)], case.context[len(case.per_datum) :]

    @pv.program(**case.declares)
    def model(*args):
        case.model(*args, *shared)

    def guide(*args):
        case.guide(*args, *shared)

    wrong_in_pyro = any(r.wrong_in_pyro for r in case.rows)
    try:
        fit = pv.fit(
            model, guide, (case.x, *rows), epochs=1, objective=objective(case), **batch_size(rows=case.rows)
        )
    except ValueError as error:
        if wrong_in_pyro and "mask()" in str(error):
            return
        raise
    if wrong_in_pyro:
        raise Wrong("fit takes a program whose loss is wrong in Pyro")
    close("fit.history's elbo", fit.history[0]["elbo"], right.mean(), case)
    for elbo in [objective(case), *weighted_objectives(case)]:
        loss = -svi(case, elbo, False).evaluate_loss(case.x, *case.context) / scale(case)
        # The data that a subsampled plate took: all calls draw of their own.
        index = case.calls[-1][0]
        picked = right if index is None else right[index.tolist()] * (N / len(index))
        close(type(elbo).__name__, loss, picked.sum(), case, 2)


def batch_size(rows):
    """A plate that subsamples takes a number of data of its own."""
    return {} if any(r.name == "subsampled plate, x[ind]" for r in rows) else {"batch_size": N}


def weighted_objectives(case):
    """Those of weights, which want pathwise gradients: equal to ln p(x) where the weights are equal."""
    if any(r.discrete for r in case.rows):
        return []
    found = [pv.objectives.IWAE(3, plate=case.plate), pv.objectives.Renyi(0.5, 3, plate=case.plate)]
    if not any(r.auxiliary for r in case.rows):
        found += [pv.objectives.STL(plate=case.plate), pv.objectives.DReG(3, plate=case.plate)]
    return found


def closed_kl(programs):
    """The ELBO with its KL in closed form, of the exact guide; refused for enumerated sites."""
    case, right = programs.exact, log_evidence(programs.exact)
    served = not case.enumerated and not any(r.auxiliary for r in case.rows)
    try:
        estimate = pv.evidence(*given(case), estimators=[pv.ClosedELBO(400)])["ELBO (closed KL)"]
    except ValueError as error:
        if served:
            raise Wrong(f"ClosedELBO refused: {error}") from error
        return
    error = np.sqrt(estimate.variance.numpy()) + 1e-4
    got = estimate.per_datum.numpy()
    if np.any(np.abs(got - right) > SIGMAS * error):
        raise Wrong(
            f"ClosedELBO: got {got.round(4).tolist()} +- {error.round(4).tolist()}, right {right.tolist()}"
        )


def compiles(rows):
    """Whether the weights are one graph: slices of the data, and no draws by rejection."""
    names = {r.name for r in rows}
    whole = {
        "subsampled plate, x[ind]",
        "plate of a fixed size",
        "subsample_size=len(x)",
        "table read by place",
    }
    rejection = {"z Gamma-Poisson", "z Beta-Binomial", "auxiliary guide site", "discrete latent drawn"}
    return not names & (whole | rejection)


def compiled(programs):
    """The compiled weights are the eager ones', and a compiled step's loss is that of the reference."""
    served = compiles(programs.rows)
    for case in filter(None, (programs.wrong, programs.exact)):
        chunk = pv.Chunk(N, 3)
        with warnings.catch_warnings():
            if not served:
                warnings.simplefilter("ignore")
            eager, graph = (
                pv.log_weights(*given(case), num_samples=9, chunk=chunk, compile=flag)
                for flag in (False, True)
            )
        close("compiled log_weights", graph, eager, case)
    case = programs.exact
    if served and case is not None and not any(r.discrete for r in case.rows):
        steps = svi(case, objective(case), True)
        for _ in range(3):
            loss = -steps.step(case.x, *case.context) / scale(case)
            close("compiled step", loss, log_evidence(case).sum(), case, 2)


def objective(case):
    elbo = TraceEnum_ELBO if case.enumerated else Trace_ELBO
    return elbo(max_plate_nesting=case.nesting)


def svi(case, elbo, compile):
    pyro.clear_param_store()
    return pv.SVI(case.model, case.guide, pyro.optim.SGD({"lr": 1e-6}), elbo, compile=compile)


def scale(case):
    out = 1.0
    for row in case.rows:
        out *= {"poutine.scale": 0.37, "subsample_size=len(x)": 1000 / N}.get(row.name, 1.0)
    return out


@contextmanager
def default_dtype(dtype):
    """TraceEnum_ELBO weighs costs by probabilities of the default dtype, and raises where it is another."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


CHECKS = {
    "log_weights at the same draws": weights_of_draws,
    "log_weights of the exact guide": exact_weights,
    "ELBO, IS, Jackknife, MLMC of the exact guide": exact_estimates,
    "ELBO, IS, Jackknife, MLMC of a wrong guide": estimates,
    "ELBO with a closed KL": closed_kl,
    "Exact": exact_value,
    "AIS": annealed,
    "fit.history and objectives": losses,
}
COMPILED = {"compiled": compiled}
NEED_EXACT = {exact_weights, exact_estimates, losses, closed_kl}


def run_checks(rows, seed=0, names=tuple(CHECKS)):
    """Faults by check's name; any warning of the library's counts as one."""
    programs = Programs(rows, seed)
    found = {}
    for name in names:
        check = (CHECKS | COMPILED)[name]
        if check in NEED_EXACT and programs.exact is None:
            continue
        started = time.process_time()
        with warnings.catch_warnings(), pyro.get_param_store().scope(), default_dtype(programs.wrong.dtype):
            warnings.filterwarnings("error", module="pyrovae")
            warnings.filterwarnings("error", message=".*eagerly.*|.*vectorised.*")
            try:
                check(programs)
            except Wrong as fault:
                found[name] = str(fault)
            except Exception as error:
                found[name] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        SECONDS[name] = SECONDS.get(name, 0.0) + time.process_time() - started
    return found
