"""`python -m tests.second_device`: what the library does on a device beside the CPU, held against the CPU."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from . import Extent, load
from .placed import ROOT


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.second_device", description=__doc__)
    parser.add_argument("--only", nargs="*", help="parts, of tests/second_device/parts.py")
    parser.add_argument("--thorough", action="store_true", help="every question of every pair (half an hour)")
    parser.add_argument(
        "--few", action="store_true", help="a part of the pairs and of the generated programs"
    )
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "second_device", help="of the device")
    options = parser.parse_args(argv)
    load(options.folder)
    from .parts import PARTS

    held = wrong = 0
    for part in options.only or PARTS:
        start = time.perf_counter()
        for what, fault in PARTS[part](Extent(options.few, options.thorough)):
            held += fault is None
            if fault is not None:
                wrong += 1
                print(f"WRONG {part}: {what}: {fault}", flush=True)
        print(f"{part}: {time.perf_counter() - start:.0f} s", flush=True)
    print(f"{held} as on a CPU, {wrong} not")
    return bool(wrong) or not held


if __name__ == "__main__":
    sys.exit(main())
