"""How the columns of a table become numbers: what a CSV file taught, kept as JSON, applied to the next file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Column:
    """How one feature column is encoded: kind "number" or "category", and what replaces a missing cell."""

    name: str
    kind: str
    categories: tuple[str, ...] = ()  # of a category column, sorted
    fill: float | str | None = None  # the training mean; "missing" for a category; None refuses


@dataclass(frozen=True)
class Encoding:
    """How the columns of a CSV file become x and y; frozen, hashable, and kept as JSON.

    >>> columns = Column("size", "number"), Column("hue", "category", ("blue", "red"))
    >>> encoding = Encoding(columns, "kind", ("iris", "rose"))
    >>> encoding.feature_names
    ('size', 'hue=blue', 'hue=red')
    >>> Encoding.from_json(encoding.to_json()) == encoding
    True
    """

    columns: tuple[Column, ...]  # features, in the order of x
    target: str
    classes: tuple[str, ...] | None = None  # label i means classes[i]; None: regression
    ignored: tuple[str, ...] = ()  # columns of the file that are no features

    @property
    def feature_names(self) -> tuple[str, ...]:
        """One name per column of x: `size` of a number, `hue=red` of a category."""
        return tuple(
            name
            for column in self.columns
            for name in ([f"{column.name}={c}" for c in column.categories] or [column.name])
        )

    def to_json(self) -> dict[str, Any]:
        """A dict of plain lists, strings and numbers, for `json.dumps`."""
        listed = asdict(self)
        classes = None if self.classes is None else list(self.classes)
        columns = [{**column, "categories": list(column["categories"])} for column in listed["columns"]]
        return {**listed, "columns": columns, "classes": classes, "ignored": list(self.ignored)}

    @staticmethod
    def from_json(listed: dict[str, Any]) -> Encoding:
        """The encoding that `to_json` listed; ValueError if it did not come from there."""
        try:
            columns = tuple(
                Column(str(c["name"]), str(c["kind"]), tuple(map(str, c["categories"])), c["fill"])
                for c in listed["columns"]
            )
            classes = None if listed["classes"] is None else tuple(map(str, listed["classes"]))
            encoding = Encoding(columns, str(listed["target"]), classes, tuple(map(str, listed["ignored"])))
        except (KeyError, TypeError) as error:
            raise ValueError(f"encoding: got a listing that to_json did not make ({error!r})") from error
        for c in columns:
            number = c.kind == "number" and not c.categories and isinstance(c.fill, (int, float, type(None)))
            category = c.kind == "category" and c.categories and c.fill in (None, *c.categories)
            if not (number or category):
                raise ValueError(f"encoding: got {c}, expected a number or category column of to_json")
        return encoding
