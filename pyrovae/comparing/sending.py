"""Check of what another process can be given: what pickle takes, and what is found there again."""

from __future__ import annotations

import io
import multiprocessing
import pickle
import sys
from typing import Any


class NotSent(ValueError):
    """Something that another process cannot be given."""


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        name = getattr(value, "__qualname__", None)
        if getattr(value, "__module__", None) == "__main__" and name and _lost_main():
            raise NotSent(
                f"{name} is defined where another process cannot import it; try a file of its own for it"
            )
        return NotImplemented


def check_sent(*values: Any) -> None:
    """Refuses what a new process would not get.

    Raises:
        NotSent: saying what, and why.
    """
    for value in values:
        try:
            _Pickler(io.BytesIO()).dump(value)
        except NotSent:
            raise
        except Exception as error:  # each kind of object has an error of its own
            raise NotSent(f"{' '.join(str(error).split())}; try functions and classes of a module") from None


def refuse_inner() -> None:
    """Refuses to start where a new process imports the script that started it.

    Raises:
        RuntimeError: in such a process.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise RuntimeError(
            "expected a script whose work is not done on import, got one that each new process runs from its start; "
            'try pv.compare below if __name__ == "__main__":, or jobs=1'
        )


def _lost_main() -> bool:
    """Whether this session's own definitions are in no file that another process would run."""
    main = sys.modules["__main__"]
    return getattr(main, "__file__", None) is None and getattr(main, "__spec__", None) is None
