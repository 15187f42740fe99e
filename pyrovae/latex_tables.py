"""Tables for LaTeX."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from .text import visible

# Signs that LaTeX writes in its own way.
_SIGNS = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    "k̂": r"$\hat{k}$",
    "p̂": r"$\hat{p}$",
    "±": r"$\pm$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "≈": r"$\approx$",
    "√": r"$\surd$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "∞": r"$\infty$",
    "−": r"$-$",
    "→": r"$\to$",
    "‖": r"$\|$",
    "⟨": r"$\langle$",
    "⟩": r"$\rangle$",
    "Δ": r"$\Delta$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "δ": r"$\delta$",
    "σ": r"$\sigma$",
    "–": "--",
}


def latex_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], caption: Sequence[str], words: Collection[int] = (0,)
) -> str:
    """Table environment of the package booktabs.

    Args:
        head, rows: cells.
        caption: sentences of the caption.
        words: columns of words, which are set flush left.
    """
    kinds = "".join("l" if i in words else "r" for i in range(len(head)))
    lines = [" & ".join(map(_escaped, row)) + r" \\" for row in (head, *rows)]
    return (
        "\n".join(
            [
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{' '.join(map(_escaped, caption))}}}",
                rf"\begin{{tabular}}{{{kinds}}}",
                r"\toprule",
                lines[0],
                r"\midrule",
                *lines[1:],
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
            ]
        )
        + "\n"
    )


def _escaped(text: str) -> str:
    out, text = [], visible(text)
    while text:
        sign = text[:2] if text[:2] in _SIGNS else text[0]
        out.append(_SIGNS.get(sign, sign))
        text = text[len(sign) :]
    return "".join(out)
