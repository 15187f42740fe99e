"""Compiled log-weights in parts: what depends on parameters alone runs once, on data once a chunk."""

import shutil

import pytest
import torch

import pyrovae as pv
from pyrovae.models.vae import VAE
from pyrovae.programs import inspect_program
from pyrovae.programs.compile.compiled_weights import CompiledWeights
from pyrovae.programs.seeds import seeded

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None,
    reason="no C++ compiler: nothing compiles here",
)
D, L, N, C, K = 12, 3, 4, 7, 16


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(0)
    encoder = pv.networks.MLP(D, (10,))
    guide = pv.guides.DiagonalGaussian(encoder, L)
    x = (torch.rand(2 * N, D) > 0.5).float()
    prior = pv.priors.VampPrior(guide, torch.rand(C, D), 0.0, 1.0)
    vae = VAE(prior, pv.likelihoods.Bernoulli(pv.networks.MLP(L, (10,), D)), guide)
    program = inspect_program(vae.model, vae.guide, x)
    with torch.no_grad():
        return program, vae, CompiledWeights(program, torch.arange(N), K)


def products(module):
    """Rows of the matrix products in a stage."""
    names = ("mm", "addmm", "bmm")
    nodes = [n for n in module.graph.nodes if n.op == "call_function"]
    found = [n for n in nodes if getattr(n.target, "__name__", "").split(".")[0] in names]
    return [n.meta["val"].shape[-2] for n in found]


def test_each_part_runs_only_as_often_as_it_must(weights):
    _, _, graph = weights
    assert products(graph._once.module).count(C) == 2  # hidden layer and head of the pseudo-inputs' encoder
    assert products(graph._per_chunk.module) == [N, N]  # the data's encoder
    assert all(rows == K * N for rows in products(graph._rest.module)) and products(graph._rest.module)
    # Nothing is kept that has a value per (datum, sample, latent dim): it would cost more than it saves.
    kept = [n for s in (graph._once, graph._per_chunk) for n in s.outputs]
    values = {n.name: n.meta.get("val") for n in graph.graph.module.graph.nodes}
    sizes = {name: v.numel() for name, v in values.items() if isinstance(v, torch.Tensor)}
    assert max(sizes[name] for name in kept) < K * N * L


def run(program, graph, indices, seed):
    with seeded(seed, "weights"), torch.no_grad():
        got = graph(indices)
    with seeded(seed, "weights"), torch.no_grad():
        return got, program.run(indices, K).log_weights()


def test_parts_follow_data_and_parameters(weights):
    program, vae, graph = weights
    first, second = torch.arange(N), torch.arange(N, 2 * N)
    for indices, seed in ((first, 0), (first, 1), (second, 1), (first, 2)):
        torch.testing.assert_close(*run(program, graph, indices, seed), rtol=1e-5, atol=1e-4)
    before, _ = run(program, graph, first, 3)
    with torch.no_grad():
        for p in vae.parameters():
            p.add_(0.05)
    after, eager = run(program, graph, first, 3)
    torch.testing.assert_close(after, eager, rtol=1e-5, atol=1e-4)
    assert (after - before).abs().max() > 0.01


def test_other_shapes_are_not_served(weights):
    _, _, graph = weights
    with torch.no_grad():
        assert graph(torch.arange(N - 1)) is None
