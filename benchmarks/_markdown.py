"""The tables of a page: results, placed between the page's markers.

A page has, for each benchmark that it shows, the lines ``<!-- benchmark NAME -->`` and ``<!-- end of NAME -->``, and
``<!-- targets -->`` and ``<!-- end of targets -->`` for the targets of all; the text between them is replaced, and
everything else stays. So the words of a page are written by hand, and its numbers are not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from ._model import Case, CaseResult, Target
from ._report import machine_line, most, parts, shown, verdict

__all__ = ["page_with", "page_with_targets", "places"]


def places(page: str) -> set[str]:
    """Return the benchmarks for which a page has a place."""
    return set(re.findall(r"^<!-- benchmark (\w+) -->$", page, re.MULTILINE))


def page_with(page: str, name: str, block: Sequence[CaseResult], facts: dict[str, Any], command: str) -> str:
    """Return the page with the results of one benchmark in their place; a page without that place is unchanged."""
    return _replaced(page, f"benchmark {name}", name, _block(block, facts, command))


def page_with_targets(page: str, results: Sequence[CaseResult], order: Sequence[str]) -> str:
    """Return the page with the targets of all benchmarks in one table; rows of benchmarks not in the results stay."""
    found = _between("targets", "targets").search(page)
    rows: dict[str, list[str]] = {name: [] for name in order}
    for line in found[2].splitlines() if found else ():
        known = re.match(r"\| `(\w+)` \|", line)
        if known and known[1] in rows:
            rows[known[1]].append(line)
    for name in dict.fromkeys(result.benchmark.name for result in results):
        rows[name] = [_row(each) for result in results if result.benchmark.name == name for each in _bounds(result)]
    lines = _rule("benchmark", "case", "compared", "median (min..max)", "target", "")
    return _replaced(page, "targets", "targets", [*lines, *(line for name in order for line in rows[name])])


def _bounds(result: CaseResult) -> list[tuple[str, ...]]:
    where = f"`{result.benchmark.name}`", result.case.name
    return [(*where, *_compared(result, target)) for target in result.targets if target.bound]


def _replaced(page: str, first: str, end: str, lines: Sequence[str]) -> str:
    text = "\n".join(lines)
    return _between(first, end).sub(lambda found: f"{found[1]}{text}\n{found[3]}", page)


def _between(first: str, end: str) -> re.Pattern[str]:
    return re.compile(rf"(^<!-- {first} -->\n)(.*?)(^<!-- end of {end} -->$)", re.MULTILINE | re.DOTALL)


def _compared(result: CaseResult, target: Target) -> tuple[str, str, str, str]:
    said = verdict(result, target) if target.bound else ""
    return str(target), shown(result.compared(target)), target.bound, said


def _block(results: Sequence[CaseResult], facts: dict[str, Any], command: str) -> list[str]:
    benchmark = results[0].benchmark
    rounds = len(results[0].rounds)
    where = machine_line(facts).replace("\n", "; ")
    lines = [f"`{command}`: {benchmark.metric.value}, {benchmark.unit}; median of {rounds} (min..max). {where}."]
    for group in _alike(results):
        lines += ["", *_table([result.case.name for result in group], _rows(group))]
    compared = [(result.case.name, *_compared(result, target)) for result in results for target in result.targets]
    lines += ["", *_rule("case", "compared", "median (min..max)", "target", ""), *map(_row, compared)]
    return lines + [line for result in results for line in _profiles(result)]


def _profiles(result: CaseResult) -> list[str]:
    """Format the profiles of contenders that miss a target."""
    lines = []
    for name, profile in result.profiles.items():
        lines += ["", f"Where the time of {name} goes, {result.case.name}: {parts(profile)}.", ""]
        lines += [*_rule("share", "function"), *(_row((f"{share:.0%}", f"`{what}`")) for share, what in most(profile))]
    return lines


def _alike(results: Sequence[CaseResult]) -> list[list[CaseResult]]:
    """Group cases that share contenders: one table per group."""
    groups: list[list[CaseResult]] = []
    for result in results:
        if groups and _names(groups[-1][0].case) & _names(result.case):
            groups[-1].append(result)
        else:
            groups.append([result])
    return groups


def _names(case: Case) -> set[str]:
    return {each.name for each in case.contenders}


def _rows(group: Sequence[CaseResult]) -> list[tuple[str, ...]]:
    names = dict.fromkeys(each.name for result in group for each in result.case.contenders)
    return [(name, *(_cell(result, name) for result in group)) for name in names]


def _cell(result: CaseResult, name: str) -> str:
    if name in result.missing:
        return "not there"
    return shown(result.spread(name)) if name in _names(result.case) else ""


def _table(columns: Iterable[str], rows: Iterable[tuple[str, ...]]) -> list[str]:
    return [*_rule("", *columns), *map(_row, rows)]


def _rule(*columns: str) -> list[str]:
    return [_row(columns), "|---" * len(columns) + "|"]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
