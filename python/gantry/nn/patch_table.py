"""What patch() did to each module, as rows and as text."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator


@dataclasses.dataclass
class Row:
    """One module. `mode` is "store" where it was left as it was; `reason` says why."""

    name: str
    kind: str
    was: str
    mode: str
    bytes_saved: int | None = None  # by a forward pass, against the stock module; None: not measured
    ms: float | None = None  # added to a forward and a backward pass; None: not measured
    reason: str = ""


class PatchTable:
    """The rows of patch() in module order. str() joins equal rows of numbered layers."""

    def __init__(self, rows: list[Row], peak_bytes: int | None = None, budget_bytes: int | None = None):
        self.rows = rows
        self.peak_bytes = peak_bytes
        self.budget_bytes = budget_bytes

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> Row:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(name)

    @property
    def patched(self) -> list[Row]:
        return [row for row in self.rows if row.mode != "store"]

    @property
    def refused(self) -> list[Row]:
        return [row for row in self.rows if row.mode == "store"]

    def modes(self) -> dict[str, str]:
        """{name: mode} as patch(memory=...) takes it."""
        return {row.name: row.mode for row in self.rows}

    def as_dicts(self) -> list[dict]:
        """The rows for json."""
        return [dataclasses.asdict(row) for row in self.rows]

    def __repr__(self) -> str:
        return f"PatchTable({len(self.patched)} of {len(self.rows)} modules patched)"

    def __str__(self) -> str:
        header = ("module", "count", "kind", "was", "mode", "saved", "ms", "reason")
        lines = [header, *(_cells(group) for group in _groups(self.rows))]
        numeric = {1, 5, 6}
        widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
        text = [
            "  ".join(cell.rjust(w) if i in numeric else cell.ljust(w)
                      for i, (cell, w) in enumerate(zip(line, widths, strict=True))).rstrip()
            for line in lines
        ]
        return "\n".join([*text, self._summary()])

    def _summary(self) -> str:
        parts = [f"{len(self.patched)} of {len(self.rows)} modules patched"]
        if any(row.bytes_saved is not None for row in self.rows):
            parts.append(f"{_bytes(sum(row.bytes_saved or 0 for row in self.patched))} saved by a forward pass")
        if self.peak_bytes is not None:
            parts.append(f"a step allocates {_bytes(self.peak_bytes)} at its peak")
        if self.budget_bytes is not None:
            parts.append(f"budget {_bytes(self.budget_bytes)}")
        return "; ".join(parts)


def _groups(rows: list[Row]) -> list[list[Row]]:
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        key = (re.sub(r"\d+", "#", row.name), row.kind, row.was, row.mode, row.reason)
        groups.setdefault(key, []).append(row)
    return list(groups.values())


def _cells(group: list[Row]) -> tuple[str, ...]:
    first = group[0]
    saved = None if first.bytes_saved is None else sum(row.bytes_saved or 0 for row in group)
    ms = None if first.ms is None else sum(row.ms or 0.0 for row in group)
    return (_joined_name([row.name for row in group]), str(len(group)), first.kind, first.was, first.mode,
            "-" if saved is None else _bytes(saved), "-" if ms is None else f"{ms:+.2f}", first.reason)


def _joined_name(names: list[str]) -> str:
    """layer.0.norm, layer.1.norm -> layer.0-1.norm; the numbers between need not all be there."""
    columns = zip(*(re.split(r"(\d+)", name) for name in names), strict=True)
    return "".join(parts[0] if len(set(parts)) == 1 else f"{min(map(int, parts))}-{max(map(int, parts))}"
                   for parts in columns) or "(model)"


def _bytes(count: float) -> str:
    sign, size = ("-" if count < 0 else ""), abs(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{sign}{size:.0f} {unit}" if unit == "B" else f"{sign}{size:.1f} {unit}"
        size /= 1024
    return f"{sign}{size:.2f} GiB"
