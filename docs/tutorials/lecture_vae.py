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
# # The lecture's VAE, line by line
#
# A lecture on VAEs goes from $p(x, z)$ to a cost function, its gradients, the reparametrisation trick and the closed KL
# of Gaussians. Here each line is a line of Pyro, and each formula is computed and checked; where a formula is printed
# wrong in the lecture, the check says so. The data are 8×8 digits, one bit a pixel, and everything runs in a minute on
# one core. [From the lecture to the code](../lecture/lecture.md) is the same as a table.

# %%
# %matplotlib inline
import math

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from torch import nn

import pyrovae as pv

data = pv.data.load("digits", binarise="static")
D, J = 64, 8  # pixels, latents
data

# %% [markdown]
# ## Model and guide
#
# The joint law is $p_\theta(x, z) = p(z)\, p_\theta(x \mid z)$: a standard normal prior, and a *stochastic decoder*, a
# network that gives the probability of each pixel. The *stochastic encoder* $q_\phi(z \mid x)$ is the guide: a Gaussian
# with diagonal covariance.

# %%
pv.seed(0)
decoder = nn.Sequential(nn.Linear(J, 128), nn.Tanh(), nn.Linear(128, D))
encoder = nn.Sequential(nn.Linear(D, 128), nn.Tanh(), nn.Linear(128, 2 * J))


def model(x):
    pyro.module("decoder", decoder)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(J), 1.0).to_event(1))
        pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x)


def guide(x):
    pyro.module("encoder", encoder)
    with pyro.plate("data", len(x)):
        mean, log_scale = encoder(x).chunk(2, -1)
        pyro.sample("z", dist.Normal(mean, log_scale.exp()).to_event(1))


# %% [markdown]
# ## Training
#
# The cost to **minimise** is $C_{\theta,\phi} = \sum_x F_q(x) = -\sum_x \mathrm{ELBO}(x)$. (The lecture prints
# $\sum_x -F_q(x)$ and calls it a cost: its sign is the other one.)

# %%
fit = pv.fit(model, guide, data, epochs=60, lr=2e-3, seed=0)
fit.plot_training().figure

# %% [markdown]
# ## $p(x)$ by Monte Carlo
#
# $p(x) = \int p(x \mid z)\, p(z)\, dz$ (the lecture prints $p(x, z)$ under this integral, which would count the prior
# twice). Draws from the prior would do, if there were enough: nearly all of them have nothing to do with this $x$.
# Importance sampling draws from $q(z \mid x)$ and weighs by $p(x, z) / q(z \mid x)$.

# %%
x = data.test[:1]


def prior_as_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros(J), 1.0).to_event(1))


draws = {
    "draws from the prior": pv.log_weights(model, prior_as_guide, x, num_samples=40 * 500, seed=1),
    "draws from q(z|x)": pv.log_weights(model, guide, x, num_samples=40 * 500, seed=1),
}
# 40 estimates of ln p(x) by 500 draws each.
estimates = {name: lw.reshape(40, 500).logsumexp(1) - math.log(500) for name, lw in draws.items()}
spread = {name: float(e.std()) for name, e in estimates.items()}
assert spread["draws from q(z|x)"] < 0.5 * spread["draws from the prior"]

figure, ax = plt.subplots(figsize=(4.5, 2.4), layout="constrained")
for name, e in estimates.items():
    ax.plot(sorted(e.tolist()), [(i + 1) / 40 for i in range(40)], drawstyle="steps-post", label=name)
ax.set(xlabel="estimate of ln p(x) [nats]", ylabel="share of estimates below", ylim=(0, 1))
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# ## The bound
#
# $\ln p(x) = \mathrm{ELBO}(x) + \mathrm{KL}(q(z \mid x) \Vert p(z \mid x))$ with
# $\mathrm{ELBO} = -F_q = \mathbb{E}_q[\ln p(x \mid z)] - \mathrm{KL}(q(z \mid x) \Vert p(z))$. A KL is never negative (it
# is not "strictly positive": it is 0 where $q$ is the posterior), so the ELBO is a lower bound. The gap below is what it
# loses *at least*: `IS` is a lower bound too, and the table says so.

# %%
ev = fit.evidence(estimators=[pv.ELBO(200), pv.IS(2000)])
assert ev["ELBO"].log_evidence < ev["IS"].log_evidence
ev

# %% [markdown]
# ## Gradient by θ
#
# $\nabla_\theta C = -\mathbb{E}_q[\nabla_\theta \ln p_\theta(x \mid z)]$: the derivative goes into the expectation, and
# one draw of $z$ gives an unbiased estimate. For the biases of the decoder the gradient of one draw is
# $\mathrm{sigm}(\text{logits}) - x$:

# %%
mean, log_scale = (t.detach() for t in encoder(x).chunk(2, -1))
z = mean + log_scale.exp() * torch.randn(20_000, J)
with torch.no_grad():
    by_draw = torch.sigmoid(decoder(z)) - x
one, many = by_draw[0], by_draw.mean(0)
error = by_draw.std(0)
print(f"one draw: off by {float((one - many).norm()):.2f}, length of the gradient {float(many.norm()):.2f}")
# The mean over batches of 100 draws stays within its error of the mean over all.
assert ((by_draw[:100].mean(0) - many).abs() < 5 * error / 10 + 1e-6).all()

# %% [markdown]
# ## Gradient by φ: the reparametrisation trick
#
# φ stands in the law of the draws. Either that law is differentiated, which gives the score-function estimator
# $\mathbb{E}_q[f(z)\, \nabla_\phi \ln q_\phi(z)]$, or the draw is written $z = g(\epsilon; \phi, x) = \mu + \sigma \epsilon$
# with $\epsilon \sim \mathcal{N}(0, I)$, and $\nabla_\phi$ goes through $g$ (the lecture prints the right-hand side with
# $f(z)$ of a $z$ that must be read as $g(\epsilon)$). Both have the same mean; their variances are another matter.

# %%
z = (mean + log_scale.exp() * torch.randn(20_000, J)).requires_grad_()
f = dist.Bernoulli(logits=decoder(z)).log_prob(x).sum(-1) + dist.Normal(0.0, 1.0).log_prob(z).sum(-1)
(pathwise,) = torch.autograd.grad(f.sum(), z)  # d f / d mu, draw by draw
with torch.no_grad():
    score = f.unsqueeze(-1) * (z - mean) / log_scale.exp().square()
se = (pathwise.var(0) + score.var(0)).div(20_000).sqrt()
ratio = score.var(0) / pathwise.var(0)
print("variance of the score-function gradient / of the pathwise one:", [round(r) for r in ratio.tolist()])
assert ((pathwise.mean(0) - score.mean(0)).abs() < 4.5 * se).all()  # the same gradient
assert ratio.min() > 10

figure, ax = plt.subplots(figsize=(4.5, 2.4), layout="constrained")
bins = torch.linspace(-1, 1, 61) * 3 * float(score[:, 0].std())
for name, g in (("score function", score), ("pathwise", pathwise)):
    ax.hist(g[:, 0].tolist(), bins=bins.tolist(), histtype="stepfilled", alpha=0.6, label=name, log=True)
ax.axvline(float(pathwise[:, 0].mean()), color="black", linewidth=0.8, label="mean")
ax.set(xlabel="gradient by the first mean, one draw each", ylabel="draws")
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# ## The Jacobian
#
# $\ln q(z \mid x) = \ln p(\epsilon) - \ln\left|\det \partial z / \partial \epsilon\right|$. For the Gaussian the
# determinant is $\prod_j \sigma_j$. A flow is a guide whose steps have triangular Jacobians: the determinant is a product
# again. Here it is taken by brute force, from the whole matrix, and the density of the flow agrees.

# %%
torch.manual_seed(0)
flow = pv.guides.FlowGuide(pv.networks.MLP(D, (32,)), latent_dim=J, transforms=2)
q = flow(x)
base = q.base.base_dist  # N(mu(x), sigma(x)^2)


def g(epsilon):
    z = base.loc[0] + base.scale[0] * epsilon
    for step in q.transforms:
        z = step(z)
    return z


epsilon = torch.randn(J)
jacobian = torch.autograd.functional.jacobian(g, epsilon)
by_hand = dist.Normal(0.0, 1.0).log_prob(epsilon).sum() - torch.linalg.slogdet(jacobian).logabsdet
with torch.no_grad():
    of_flow = q.log_prob(g(epsilon).unsqueeze(0))[0]
print(f"ln q(z|x): {float(by_hand):.5f} by the Jacobian, {float(of_flow):.5f} by the flow")
assert abs(by_hand - of_flow) < 1e-3

gaussian = dist.Normal(mean[0], log_scale[0].exp())
z = mean[0] + log_scale[0].exp() * epsilon
by_hand = dist.Normal(0.0, 1.0).log_prob(epsilon).sum() - log_scale.sum()
assert abs(by_hand - gaussian.log_prob(z).sum()) < 1e-4

# %% [markdown]
# ## The closed KL
#
# $$\mathrm{KL}(q \Vert p) = \frac12 \sum_j (\mu_j^2 + \sigma_j^2 - 1 - \ln \sigma_j^2)$$
#
# from $\int q \ln q = -\frac{J}{2} \ln 2\pi - \frac12 \sum_j (1 + \ln \sigma_j^2)$ and
# $\int q \ln p = -\frac{J}{2} \ln 2\pi - \frac12 \sum_j (\mu_j^2 + \sigma_j^2)$. The lecture prints both integrals with
# parts exchanged, and a plus before the last $\sigma_j^2$ of $-\mathrm{KL}$: with that sign the KL of 20,000 draws is missed.

# %%
variance = (2 * log_scale).exp()
closed = 0.5 * (mean.square() + variance - 1 - variance.log()).sum()
as_printed = -0.5 * (1 + variance.log() - mean.square() + variance).sum()
prior, normal = dist.Normal(0.0, 1.0), dist.Normal(mean, log_scale.exp())
z = normal.sample((20_000,))
terms = (normal.log_prob(z) - prior.log_prob(z)).sum((1, 2))
drawn, se = float(terms.mean()), float(terms.std()) / math.sqrt(20_000)
print(f"closed {float(closed):.3f}, drawn {drawn:.3f} ± {se:.3f}, as printed {float(as_printed):.3f}")
assert abs(drawn - closed) < 4 * se < abs(drawn - as_printed)

# %% [markdown]
# `TraceMeanField_ELBO` uses the closed form wherever torch knows one, and `pv.ClosedELBO()` evaluates with it; the exact
# term has less noise. [Which objective](../hierarchical.md#which-objective) says when it may be used.
#
# ## β annealing against collapse
#
# The lecture's remedy for the local minimum $q(z \mid x) \approx p(z)$ is
# $\mathbb{E}_q[\ln p(x \mid z)] - \beta\, \mathrm{KL}$ with β from 0 to 1. With three hidden layers on either side this
# model falls into that minimum within a few epochs, and stays there. For β < 1 the objective is no bound on
# $\ln p(x)$: what the history logs, and all evidence, is at β = 1.

# %%
pictures, kept = {}, {}
for name, beta in (("β = 1 from the start", 1.0), ("β from 0 to 1 in 40 epochs", pv.Warmup(40))):
    pv.seed(0)
    deep = (128, 128, 128)
    decoder = pv.networks.MLP(J, deep, D)
    encoder = pv.networks.MLP(D, deep, 2 * J)
    kept[name] = pv.fit(model, guide, data, epochs=60, beta=beta, lr=1e-3, seed=0, restore_best=False)
    pictures[name] = [row["kl"] for row in kept[name].history]
last = {name: curve[-1] for name, curve in pictures.items()}
assert last["β = 1 from the start"] < 0.1 and last["β from 0 to 1 in 40 epochs"] > 1

figure, axes = plt.subplots(1, 2, figsize=(6.5, 2.5), layout="constrained")
for name, curve in pictures.items():
    axes[0].plot(range(1, 61), curve, label=name)
    axes[1].plot(range(1, 61), [row["valid_elbo"] for row in kept[name].history], label=name)
axes[0].set(xlabel="epoch", ylabel="KL(q ‖ p) [nats]", yscale="symlog")
axes[1].set(xlabel="epoch", ylabel="validation ELBO [nats]", ylim=(-40, None))
axes[0].legend(frameon=False, fontsize=7)
plt.show()

# %% [markdown]
# ## New data
#
# $z \sim p(z)$, $x \sim p(x \mid z)$, from the first fit; and data beside what its decoder makes of their codes.

# %%
fit.plot_reconstructions().figure

# %%
fit.plot_samples().figure
