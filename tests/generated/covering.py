"""Which programs: sets of rows in which every pair that can be combined occurs."""

from itertools import combinations

from .rows import ROWS

SIZE = 7  # rows a program


def reason_against(a, b):
    """Why two rows cannot be combined; None where they can."""
    if a.law is not None and b.law is not None:
        return "z has one law"
    return a.excludes.get(b.name) or b.excludes.get(a.name)


def pairs(rows):
    return {frozenset((a.name, b.name)) for a, b in combinations(rows, 2)}


def combinable(rows=ROWS):
    """Pairs of names that a program can have, and the others with the reason."""
    against = {frozenset((a.name, b.name)): reason_against(a, b) for a, b in combinations(rows, 2)}
    return {p for p, why in against.items() if why is None}, {p: w for p, w in against.items() if w}


def covering_array(rows=ROWS, size=SIZE):
    """Sets of `size` rows, greedily: each next row is the one that adds the most pairs not yet seen.

    Every set has one law of z. (As in AETG: Cohen et al. 1997, https://doi.org/10.1109/32.605761)
    """
    left, _ = combinable(rows)
    sets = []
    uses = dict.fromkeys((r.name for r in rows), 0)
    by_name = {r.name: r for r in rows}
    while left:
        # The rows that are named most among the pairs left come first.
        first = max(left, key=lambda p: (sum(1 for q in left if p & q), sorted(p)))
        chosen = [by_name[n] for n in sorted(first)]
        while len(chosen) < size:
            has_law = any(r.law is not None for r in chosen)
            free = [r for r in rows if r not in chosen and all(reason_against(r, c) is None for c in chosen)]
            if not has_law and len(chosen) == size - 1:
                free = [r for r in free if r.law is not None]
            if not free:
                break
            gain = {r.name: sum(frozenset((r.name, c.name)) in left for c in chosen) for r in free}
            chosen.append(max(free, key=lambda r: (gain[r.name], -uses[r.name])))
        sets.append(tuple(r for r in rows if r in chosen))
        left -= pairs(sets[-1])
        for r in chosen:
            uses[r.name] += 1
    return sets
