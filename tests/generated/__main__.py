"""`python -m tests.generated`: runs the programs, and says what is covered and what is wrong."""

import argparse
import sys
from itertools import combinations

from .checks import CHECKS, COMPILED, run_checks
from .covering import combinable, covering_array, pairs
from .rows import ROWS


def shrink(rows, seed, check):
    """The rows that it takes for a check to fail: none can be left out."""
    for row in rows:
        fewer = tuple(r for r in rows if r is not row)
        if row.law is None and run_checks(fewer, seed, [check]):
            return shrink(fewer, seed, check)
    return rows


def summary(programs):
    able, never = combinable()
    triples = {t for rows in programs for t in combinations(sorted(r.name for r in rows), 3)}
    covered = set().union(*map(pairs, programs)) & able
    print(f"{len(ROWS)} features, {len(programs)} programs")
    print(f"pairs: {len(covered)} of {len(able)} that can be combined; triples by chance: {len(triples)}")
    print(f"not combined ({len(never)}):")
    for pair, why in sorted(never.items(), key=lambda item: sorted(item[0])):
        print(f"  {' x '.join(sorted(pair))}: {why}")


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m tests.generated", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of parameters and data")
    parser.add_argument("--compiled", action="store_true", help="every program also compiled (minutes)")
    parser.add_argument("--singles", action="store_true", help="each feature alone, too")
    options = parser.parse_args(argv)
    programs = covering_array()
    summary(programs)
    if options.singles:
        plain = next(r for r in ROWS if r.law)
        programs = [(r,) if r.law else tuple(q for q in ROWS if q in (r, plain)) for r in ROWS] + programs
    names = [*CHECKS, *(COMPILED if options.compiled else ())]
    held, failed, seen = dict.fromkeys(names, 0), 0, set()
    for rows in programs:
        found = run_checks(rows, options.seed, names)
        failed += bool(found)
        for name in names:
            held[name] += name not in found
        for name, fault in found.items():
            least = " + ".join(r.name for r in shrink(rows, options.seed, name))
            if (least, name) not in seen:
                seen.add((least, name))
                print(f"WRONG {least} | {name}: {fault}", flush=True)
    print(f"programs that hold: {len(programs) - failed} of {len(programs)}")
    for name, count in held.items():
        print(f"  {name}: {count}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
