# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Free energies and the Ising model
#
# With the energy of a latent $E(z) = -\ln p(x, z)$ evidence is a partition function, and the ELBO a variational free
# energy. Each statement of that dictionary is computed here, on programs whose answers are known: a nonlinear model with
# one latent, and the Ising model on a torus, whose partition function has a closed form.

# %%
# %matplotlib inline
import math

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch

import pyrovae as pv
from pyrovae.data import T_CRITICAL, IsingTorus
from pyrovae.models.boltzmann import RBM
from pyrovae.models.ground_truths import nonlinear
from pyrovae.models.vae import VAE

case = nonlinear(1, 30)  # 30 data, one latent, ln p(x) by a dense grid
free = pv.thermodynamics.free_energy(case.model, case.guide, case.x, num_samples=4000)
print(free.table())

# %% [markdown]
# $F_q(T) = \langle E \rangle_q - T S_q$ is the variational, $F_p(T) = \langle E \rangle_p - T S_p = -T \ln \int p(x,
# z)^{1/T} dz$ the Helmholtz free energy, and $F_q - F_p = T\, \mathrm{KL}(q \Vert p_T) \ge 0$ with $p_T \propto p(x,
# z)^{1/T}$. Only at T = 1 are they $-\mathrm{ELBO}$ and $-\ln p(x)$:

# %%
exact = pv.thermodynamics.free_energy(case.model, case.guide, case.x, estimator=pv.Exact(), num_samples=4000)
at_one = exact.temperatures.tolist().index(1.0)
assert (exact.helmholtz[at_one] + case.log_evidence).abs().max() < 1e-6
ev = pv.evidence(case.model, case.guide, case.x, estimators=[pv.ELBO(4000)])
assert abs(exact.mean("variational")[0][at_one] + ev["ELBO"].log_evidence) < 4 * math.hypot(
    exact.mean("variational")[2][at_one], ev["ELBO"].se_mc
)
balance = free.equilibrium_energy - free.temperatures[:, None] * free.equilibrium_entropy
assert (balance - free.helmholtz).abs().max() < 1e-8
# F_p overstated by IS, F_q without bias: the gap is understated.
assert (free.mean("gap")[0] < exact.mean("gap")[0] + 4 * exact.mean("gap")[2]).all()
exact.plot().figure

# %% [markdown]
# ## The guide as a canonical ensemble
#
# Any guide can be written $q = e^{-E_q / T} / Z_q$, and then
# $F_q = \langle E_p - E_q \rangle_q - T \ln Z_q$: the variational free energy differs from a Helmholtz one by the difference
# of the two energies. For a Gaussian guide $E_q = T (z - \mu)^2 / 2\sigma^2$ and $Z_q = \sqrt{2\pi}\,\sigma$; what is
# added to $E_q$ is taken from $T \ln Z_q$.

# %%
q = pyro.poutine.trace(case.guide).get_trace(case.x).nodes["z"]["fn"]
mu, sigma = q.loc[:, 0], q.covariance_matrix[:, 0, 0].sqrt()
torch.manual_seed(0)
z = mu + sigma * torch.randn(4000, len(mu), dtype=mu.dtype)
joint = pyro.poutine.trace(pyro.poutine.condition(case.model, {"z": z.unsqueeze(-1)})).get_trace(case.x)
joint.compute_log_prob()
E_p = -(joint.nodes["z"]["log_prob"] + joint.nodes["x"]["log_prob"])
log_Z_q = 0.5 * math.log(2 * math.pi) + sigma.log()
print("   T   ⟨E_p − E_q⟩_q   T ln Z_q        F_q   F_q above")
for i, T in enumerate(free.temperatures.tolist()):
    E_q = T * (z - mu).square() / (2 * sigma.square())
    F_q = (E_p - E_q).mean(0) - T * log_Z_q
    se = math.hypot(
        float((E_p - E_q).std(0).square().sum().sqrt()) / len(mu) / 4000**0.5, free.mean("variational")[2][i]
    )
    above = float(free.mean("variational")[0][i])
    print(
        f"{T:4g} {float((E_p - E_q).mean()):15.4f} {float(T * log_Z_q.mean()):10.4f} {float(F_q.mean()):10.4f} {above:11.4f}"
    )
    assert abs(float(F_q.mean()) - above) < 4 * se

# %% [markdown]
# ## Legendre: F(T) and S(E)
#
# The Helmholtz free energy is the Legendre transform of the entropy, $F(T) = \min_E\, [E - T S(E)]$: the temperature is the
# slope, $dS/dE = 1/T$. (A remark below the blog has F grow in size with the temperature: where F is negative. What holds is $dF/dT = -S$.)
# On the torus all of it is exact, by Kaufman's partition function.

# %%
grid = [0.8 + 0.05 * i for i in range(165)]
laws = [IsingTorus(8, T) for T in grid]
E = torch.tensor([law.energy for law in laws], dtype=torch.float64)
S = torch.tensor([law.entropy for law in laws], dtype=torch.float64)
F = torch.tensor([law.free_energy for law in laws], dtype=torch.float64)
transform = torch.stack([(E - T * S).min() for T in grid])
assert torch.allclose(transform, F, atol=1e-9)  # the minimum is at the energy of that temperature
T = torch.tensor(grid, dtype=torch.float64)
slope = (F[2:] - F[:-2]) / (T[2:] - T[:-2])
assert (slope + S[1:-1]).abs().max() < 0.2 and (slope < 0).all()

figure, (left, right) = plt.subplots(1, 2, figsize=(6.5, 2.7), layout="constrained")
left.plot(E / 64, S / 64, color="black")
for T, colour in ((1.8, "C0"), (T_CRITICAL, "C1"), (3.5, "C2")):
    law = IsingTorus(8, T)
    reach = torch.tensor([-25.0, 25.0])
    left.plot((law.energy + reach) / 64, (law.entropy + reach / T) / 64, color=colour, linewidth=0.9)
    left.plot(
        law.energy / 64, law.entropy / 64, "o", color=colour, markersize=4, label=f"slope 1/T, T = {T:.2f}"
    )
    right.plot(T, law.free_energy / 64, "o", color=colour, markersize=4)
left.set(xlabel="energy per spin [J]", ylabel="entropy per spin [nats]", ylim=(-0.05, 0.75))
left.legend(frameon=False, fontsize=7)
right.plot(grid, F / 64, color="black", linewidth=1)
right.set(xlabel="temperature T [J]", ylabel="free energy per spin [J]")
plt.show()

# %% [markdown]
# ## How far is a model from the law of its data?
#
# $\langle \ln p_\theta(x) \rangle_{\mathrm{data}} = -S[p_{\mathrm{data}}] - \mathrm{KL}(p_{\mathrm{data}} \Vert p_\theta)$.
# Here $S$ is exact, so the KL of a trained VAE can be measured: datum by datum, as $\ln p_{\mathrm{data}}(x) - \ln
# \hat p_\theta(x)$. ln p̂ is a lower bound, so the KL is an upper one; by the ELBO it would be overstated by all that the
# guide loses.

# %%
data = pv.data.load("ising", L=4, T=2.5, train=4000, valid=500, test=1000)
with pv.seed(0):
    vae = VAE(
        prior=pv.priors.StandardNormal(6),
        likelihood=pv.likelihoods.Bernoulli(pv.networks.MLP(6, (64,), 16)),
        guide=pv.guides.DiagonalGaussian(pv.networks.MLP(16, (64,)), latent_dim=6),
    )
fit = pv.fit(vae.model, vae.guide, data, epochs=20, lr=3e-3, seed=0)
measured = pv.divergences.forward_kl(data, fit.model, fit.guide, estimator=pv.IS(300))
print(measured)
law = IsingTorus(4, 2.5)
ev = fit.evidence(estimators=[pv.ELBO(50), pv.IS(300)])
by_entropy = -law.entropy - ev["IS"].log_evidence
by_elbo = -law.entropy - ev["ELBO"].log_evidence
print(
    f"the same with S of the law in place of its values at the data: {by_entropy:.3f}; by the ELBO {by_elbo:.3f} nats"
)
assert 0 < measured.value < by_elbo

# %% [markdown]
# ## Mode-seeking and mass-covering
#
# KL is not symmetric. One Gaussian $q$ for a law $p$ of two peaks: the least $\mathrm{KL}(q \Vert p)$, which is what the
# ELBO minimises, settles on one peak, since q must not be where p is not; the least $\mathrm{KL}(p \Vert q)$, maximum
# likelihood, covers both, since q must be wherever p is. The Jensen–Shannon divergence is symmetric, and at most
# ln 2 = 0.693 nats (1 only in bits).

# %%
peaks = dist.MixtureSameFamily(
    dist.Categorical(torch.tensor([0.6, 0.4], dtype=torch.float64)),
    dist.Normal(torch.tensor([-2.0, 2.0], dtype=torch.float64), 0.6),
)
axis = torch.linspace(-9, 9, 2001, dtype=torch.float64)
width = axis[1] - axis[0]
log_p = peaks.log_prob(axis)


def divergence(name, log_q):
    p, q = log_p.exp(), log_q.exp()
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    terms = {
        "KL(q ‖ p)": q * (log_q - log_p),
        "KL(p ‖ q)": p * (log_p - log_q),
        "JS(p, q)": 0.5 * p * (log_p - log_m) + 0.5 * q * (log_q - log_m),
    }
    return terms[name].sum() * width


def least(name):
    """The best Gaussian from several starts: KL(q ‖ p) has a minimum at each peak, and one between."""
    found = []
    for start in ((-2.0, -0.5), (0.0, 0.7), (2.0, -0.5)):
        parameters = torch.tensor(start, dtype=torch.float64, requires_grad=True)  # mean, ln scale
        search = torch.optim.LBFGS([parameters], max_iter=200, line_search_fn="strong_wolfe")

        def closure():
            search.zero_grad()
            loss = divergence(name, dist.Normal(parameters[0], parameters[1].exp()).log_prob(axis))
            loss.backward()
            return loss

        search.step(closure)
        loc, log_scale = parameters.detach()
        found.append((float(closure().detach()), dist.Normal(loc, log_scale.exp())))
    return min(found, key=lambda pair: pair[0])


fitted, values = {}, {}
for name in ("KL(q ‖ p)", "KL(p ‖ q)", "JS(p, q)"):
    values[name], fitted[name] = least(name)

figure, ax = plt.subplots(figsize=(4.5, 2.7), layout="constrained")
ax.fill_between(axis, log_p.exp(), color="#d5d5d5", label="p")
for name, q in fitted.items():
    label = f"least {name}: {float(q.loc):.2f} ± {float(q.scale):.2f}"
    ax.plot(axis, q.log_prob(axis).exp(), "--" if name.startswith("JS") else "-", label=label)
ax.set(xlabel="z", ylabel="density", xlim=(-6, 6))
ax.legend(frameon=False, fontsize=7)
seeking, covering = fitted["KL(q ‖ p)"], fitted["KL(p ‖ q)"]
print({name: round(value, 3) for name, value in values.items()})
assert abs(seeking.loc + 2) < 0.1 and abs(seeking.scale - 0.6) < 0.1
assert abs(covering.loc + 0.4) < 0.01 and abs(covering.scale - peaks.variance.sqrt()) < 0.01
plt.show()

# %% [markdown]
# The same figures by the library, which draws where there is no closed form, with errors:

# %%
for name, q in fitted.items():
    found = pv.divergences.kl(q, peaks), pv.divergences.kl(peaks, q), pv.divergences.js(peaks, q)
    print(f"least {name}: KL(q ‖ p) {found[0]}, KL(p ‖ q) {found[1]}, JS {found[2]}")
    assert float(found[2]) < math.log(2)
assert float(pv.divergences.js(dist.Normal(0.0, 1.0), dist.Normal(60.0, 1.0))) <= math.log(2) + 1e-6

# %% [markdown]
# ## Positive and negative phase
#
# For an unnormalised model $p(x) = f(x) / Z$ the gradient of $\sum_n \ln p(x_n)$ is
# $\sum_n \nabla \ln f(x_n) - N\, \nabla \ln Z$, with $\nabla \ln Z = \mathbb{E}_{\mathrm{model}}[\nabla \ln f]$: an
# expectation of the **gradient** (a lecture prints $\mathbb{E}[\ln f]$), and N of them. A small Boltzmann machine can be
# enumerated, so that both sides are exact:

# %%
torch.manual_seed(0)
machine = RBM.initialised_to(data.train, num_hidden=6).double()
with torch.no_grad():
    machine.weight.normal_(0.0, 0.3)
parameters = [machine.weight, machine.visible_bias, machine.hidden_bias]
v = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 16)  # all 65,536 configurations
log_f = -machine.free_energy(v)
log_Z = log_f.logsumexp(0)
assert abs(float(log_Z.detach()) - float(machine.exact_log_partition().value)) < 1e-9
left = torch.autograd.grad(log_Z, parameters, retain_graph=True)
p = log_f.softmax(0).detach()
right = torch.autograd.grad((p * log_f).sum(), parameters)  # E_model[grad ln f]: p is held
assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(left, right, strict=True))
print("∇ ln Z by visible bias:", [round(g, 3) for g in left[1][:4].tolist()])
print("E_model[v]:            ", [round(m, 3) for m in (p @ v)[:4].tolist()])

# %% [markdown]
# What trains larger ones, and how ln Z is then bounded from either side: [Boltzmann machines](../boltzmann.md). Work,
# Jarzynski and Crooks, thermodynamic integration: [free energies](../free_energy.md).
