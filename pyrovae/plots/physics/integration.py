"""The curve whose area is ln p(x)."""

from __future__ import annotations

from matplotlib.axes import Axes
from torch import Tensor

from ...results import TemperedLike
from ..style import BLACK, BLUE, ORANGE, canvas, number


def plot_thermodynamic_integration(
    tempered: TemperedLike,
    ax: Axes | None = None,
    *,
    exact: Tensor | None = None,
    capacity: bool = True,
) -> Axes:
    """<ln p(x|z)>_beta against beta, mean over data: the area is ln p(x), in nats per datum.

    Drawn on beta^(1/4), where the schedule is even (Friel & Pettitt 2008); bands are two Monte-Carlo standard
    errors. The title holds the integral, AIS of the same chains and, where given, the exact value.

    Args:
        tempered: the family p(z) p(x|z)^beta.
        ax: to draw into.
        exact: ln p(x_n), `[N]`.
        capacity: the heat capacity beta^2 Var(ln p(x|z)) too, on an axis at the right.
    """
    energy, error = tempered.mean("energy")
    value = -energy
    betas = tempered.betas.pow(0.25).tolist()
    (ti, ti_se), (ais, ais_se) = (
        tuple(float(v[-1]) for v in tempered.mean(name)) for name in ("integral", "log_normaliser")
    )
    title = f"∫ dβ: {number(ti, 3)} ± {number(ti_se, 3)}   AIS: {number(ais, 3)} ± {number(ais_se, 3)}"
    if exact is not None:
        title += f"   exact: {number(float(exact.double().mean()), 3)}"
    with canvas(ax, 3.4, 2.6) as ax:
        ax.fill_between(
            betas,
            (value - 2 * error).tolist(),
            (value + 2 * error).tolist(),
            color=BLUE,
            alpha=0.25,
            linewidth=0,
        )
        (line,) = ax.plot(betas, value.tolist(), color=BLUE, label="⟨ln p(x|z)⟩$_β$")
        lines = [line]
        # The prior's own energies are orders of magnitude above all others.
        late = value[tempered.betas > 1e-3]
        low, high = float(late.min()), float(late.max())
        ax.set_ylim(low - 0.05 * (high - low), high + 0.1 * (high - low))
        if exact is not None:
            mean = float(exact.double().mean())
            lines.append(ax.axhline(mean, color=BLACK, linestyle="--", linewidth=0.9, label="exact ln p(x)"))
        ticks = (0.0, 0.001, 0.01, 0.05, 0.2, 0.5, 1.0)
        ax.set_xticks([b**0.25 for b in ticks], [f"{b:g}" for b in ticks])
        ax.set_xlabel("β (axis even in β$^{1/4}$)")
        ax.set_ylabel("⟨ln p(x|z)⟩$_β$ [nats per datum]")
        ax.set_title(title, fontsize=7)
        if capacity:
            right = ax.twinx()
            right.spines["right"].set_visible(True)
            right.grid(False)
            heat, spread = tempered.mean("heat_capacity")
            (other,) = right.plot(betas, heat.tolist(), color=ORANGE, label="C (right)")
            low_heat, high_heat = (heat - 2 * spread).tolist(), (heat + 2 * spread).tolist()
            right.fill_between(betas, low_heat, high_heat, color=ORANGE, alpha=0.25, linewidth=0)
            right.set_ylim(bottom=0)
            right.set_ylabel("C = β² Var(ln p(x|z))", color=ORANGE)
            lines.append(other)
        # Below the axes: curves and bands leave no corner free.
        ax.legend(handles=lines, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=len(lines))
    return ax
