"""What a battery of checks found: one row for each check, true when none is wrong, printed as a table.

A check is a function without arguments. It returns a `Comparison` or a sentence with numbers, raises `Wrong` or
`Skipped` with a sentence, or dies of an exception of what it checks, which is wrong too: a battery always ends.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from jaxnet.tables import table


class Wrong(AssertionError):
    """What is checked doesn't keep its contract; the message says how."""


class Skipped(Exception):
    """The check doesn't apply; the message says why."""


@dataclass(frozen=True)
class Check:
    """One row: the verdict is "ok", "WRONG" or "skipped", the detail has the numbers or the reason."""

    name: str
    verdict: str
    detail: str
    comparison: Any = None  # a Comparison, leaf by leaf, where numbers were compared


@dataclass(frozen=True)
class Report:
    """All checks of `subject`; true when none is wrong. Printed with the leaves of each wrong comparison below."""

    subject: str
    checks: tuple[Check, ...]

    def __bool__(self) -> bool:
        return not self.wrong

    @property
    def wrong(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.verdict == "WRONG")

    def __getitem__(self, name: str) -> Check:
        return next(check for check in self.checks if check.name == name)

    def __str__(self) -> str:
        rows = [(check.name, check.verdict, check.detail) for check in self.checks]
        count = {
            verdict: sum(check.verdict == verdict for check in self.checks) for verdict in ("ok", "WRONG", "skipped")
        }
        title = f"{self.subject}: " + ", ".join(
            f"{n} {verdict}" for verdict, n in count.items() if n or verdict == "ok"
        )
        leaves = [f"{check.name}:\n{check.comparison}" for check in self.wrong if check.comparison is not None]
        return "\n\n".join([f"{title}\n{table(('check', '', ''), rows)}", *leaves])


def run_checks(subject: str, checks: Iterable[tuple[str, Callable[[], Any]]]) -> Report:
    """Run each (name, check) and report; no exception of a check gets out.

    >>> print(run_checks("1 / 0", [("divides", lambda: 1 / 0), ("counts", lambda: "one")]))
    1 / 0: 1 ok, 1 WRONG
    check
    divides  WRONG  ZeroDivisionError: division by zero
    counts   ok     one
    """
    return Report(subject, tuple(_run(name, check) for name, check in checks))


def _run(name: str, check: Callable[[], Any]) -> Check:
    try:
        found = check()
    except Skipped as reason:
        return Check(name, "skipped", str(reason))
    except Wrong as reason:
        return Check(name, "WRONG", str(reason))
    except Exception as error:
        sentence = " ".join(str(error).split())
        return Check(name, "WRONG", f"{type(error).__name__}: {sentence[:300]}{'…' if len(sentence) > 300 else ''}")
    if isinstance(found, str):
        return Check(name, "ok", found)
    return Check(name, found.verdict, found.summary, found)
