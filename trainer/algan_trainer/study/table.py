"""A study's table as Markdown, CSV and JSON, in the paper's layout, the paper's numbers beside ours."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from algan_trainer.study import paper
from algan_trainer.study.designs import Entry
from algan_trainer.study.paper import Reported
from algan_trainer.study.plan import Plan
from algan_trainer.study.records import Result
from algan_trainer.study.tabulate import Order, Place, head, mean_over, orders

NONE = "–"


def markdown(plan: Plan, places: Sequence[Place], results: Mapping[str, Result], facts: Sequence[str]) -> str:
    """The whole report: heading, state, table, order check, notes.

    Args:
        plan: The study.
        places: Its table's, see `tabulate`.
        results: By the cells' keys.
        facts: Lines that say how this was run.
    """
    design = plan.design
    done = sum(result.status == "done" for result in results.values())
    failed = sorted(key for key, result in results.items() if result.status == "failed")
    state = f"{done} of {len(plan.cells)} trainings done"
    lines = [f"# {design.title}", ""]
    lines += [f"**PARTIAL: {state}.**", ""] if done < len(plan.cells) else [f"All {state}.", ""]
    columns = sorted({place.entry.column for place in places})
    lines += (_list if columns == [""] else _grid)(plan, places)
    if design.ordered:
        lines += ["", *_order_lines(orders(places))]
    lines += [
        "",
        f"Paper: {design.source}, {design.subject}. Ours: mean ± sample standard deviation (n − 1) over seeds"
        " (split, weights and all else random); over several categories, the mean of both.",
        "",
        *(f"- {fact}" for fact in (*facts, *design.notes)),
    ]
    if failed:
        lines += ["", "Failed (left out of the means; the same command tries them again):", ""]
        lines += [f"- {key}: {results[key].error.splitlines()[0]}" for key in failed]
    return "\n".join(lines) + "\n"


def _list(plan: Plan, places: Sequence[Place]) -> list[str]:
    """One line for each place."""
    design = plan.design
    methods = list(dict.fromkeys(method for place in places for method in place.entry.others))
    heads = [design.row_head or "", "ours", "n", f"paper ({design.source})", "difference", *methods]
    rows = [
        [
            place.entry.row,
            _pair(place.mean, place.std),
            _count(place),
            _reported(place.entry.reported),
            _signed(place.difference),
            *(_reported(place.entry.others.get(method)) for method in methods),
        ]
        for place in places
    ]
    if design.categories == "each":
        rows += _mean_rows(places, methods)
    return _table(heads, rows)


def _mean_rows(places: Sequence[Place], methods: Sequence[str]) -> list[list[str]]:
    """The mean over all categories, and as Table 2 has it, over textures and objects."""
    known = [place for place in places if place.entry.row in paper.TABLE_1]
    textures = [place for place in known if place.entry.row in paper.TEXTURES]
    objects = [place for place in known if place.entry.row not in paper.TEXTURES]
    rows = []
    for name, of in (("mean", list(places)), ("textures", textures), ("objects", objects)):
        if not of:
            continue
        mean, std = mean_over(of)
        whole = name == "mean" and {place.entry.row for place in of} == set(paper.TABLE_1)
        reported = paper.TABLE_1_MEAN["ALGAN-image"] if whole else None
        difference = mean - reported.mean if mean is not None and reported else None
        done, planned = sum(place.done for place in of), sum(place.planned for place in of)
        rows.append(
            [
                f"**{name}**",
                _pair(mean, std),
                str(done) if done == planned else f"{done} of {planned}",
                _reported(reported),
                _signed(difference),
                *(_reported(paper.TABLE_1_MEAN.get(method) if whole else None) for method in methods),
            ]
        )
    return rows


def _grid(plan: Plan, places: Sequence[Place]) -> list[str]:
    """Rows and columns, as in the paper's Tables 8 to 11; four lines for each row."""
    design = plan.design
    columns = list(dict.fromkeys(place.entry.column for place in places))
    heads = [f"{design.row_head} \\ {design.column_head}" if design.row_head else design.column_head, ""]
    rows = []
    for row in dict.fromkeys(place.entry.row for place in places):
        of = {place.entry.column: place for place in places if place.entry.row == row}
        rows += [
            [row, "ours", *(_pair(of[c].mean, of[c].std) for c in columns)],
            ["", "paper", *(_reported(of[c].entry.reported) for c in columns)],
            ["", "difference", *(_signed(of[c].difference) for c in columns)],
            ["", "n", *(_count(of[c]) for c in columns)],
        ]
    return _table(heads + columns, rows)


def _order_lines(pairs: Sequence[Order]) -> list[str]:
    if not pairs:
        return ["Order: no two places with results have an order in the paper."]
    kept = [pair for pair in pairs if pair.reproduced]
    open_ = [pair for pair in pairs if pair.undecided]
    wrong = [pair for pair in pairs if not pair.reproduced and not pair.undecided]
    lines = [
        f"Order: {len(kept)} of {len(pairs)} pairs stand as in the paper, {len(wrong)} the other way round, "
        f"{len(open_)} undecided.",
        "",
    ]
    if len(pairs) <= _FEW:
        lines += [f"- reproduced: {_sentence(pair)}" for pair in kept]
        lines += [f"- undecided: {_sentence(pair)}" for pair in open_]
    lines += [f"- NOT reproduced: {_sentence(pair)}" for pair in wrong]
    return lines


#: Up to so many pairs, those that stand right are listed as well.
_FEW = 15


def _sentence(pair: Order) -> str:
    noise = (
        "spread unknown"
        if pair.noise is None
        else f"standard error {pair.noise:.3f}" + (": within noise" if pair.undecided else "")
    )
    return f"{pair.better} above {pair.worse}: paper by {pair.paper:.3f}, here by {pair.ours:+.3f} ({noise})"


def rows_csv(plan: Plan, places: Sequence[Place]) -> str:
    """One line for each place."""
    lines = [
        {
            "study": plan.design.name,
            "row": place.entry.row,
            "column": place.entry.column,
            "metric": place.entry.metric,
            "n": place.done,
            "planned": place.planned,
            "mean": place.mean,
            "std": place.std,
            "paper_mean": place.entry.reported.mean if place.entry.reported else None,
            "paper_std": place.entry.reported.std if place.entry.reported else None,
            "difference": place.difference,
            "source": plan.design.source,
        }
        for place in places
    ]
    return to_csv(lines)


def runs_csv(plan: Plan, results: Mapping[str, Result]) -> str:
    """One line for each training, also those that are still to be done."""
    names = sorted({name for result in results.values() for name in result.metrics})
    lines = []
    for cell in plan.cells:
        result = results.get(cell.key)
        line: dict[str, Any] = {
            "key": cell.key,
            "group": cell.group,
            "category": cell.category,
            "seed": cell.seed,
            "status": result.status if result else "missing",
            "seconds": result.seconds if result else None,
            "attempts": result.attempts if result else None,
            "host": result.host if result else None,
        }
        lines.append(line | {name: result.metrics.get(name) if result else None for name in names})
    return to_csv(lines)


def as_json(plan: Plan, places: Sequence[Place], results: Mapping[str, Result]) -> dict[str, Any]:
    """The table and the order check for programs."""
    done = sum(result.status == "done" for result in results.values())
    return {
        "study": plan.design.name,
        "source": plan.design.source,
        "subject": plan.design.subject,
        "trainings": {"done": done, "planned": len(plan.cells)},
        "places": [_as_dict(place) for place in places],
        "order": [
            {
                "better": pair.better,
                "worse": pair.worse,
                "paper": pair.paper,
                "ours": pair.ours,
                "standard_error": pair.noise,
                "reproduced": pair.reproduced,
                "undecided": pair.undecided,
            }
            for pair in (orders(places) if plan.design.ordered else [])
        ],
        "failed": {key: of.error for key, of in sorted(results.items()) if of.status == "failed"},
    }


def _as_dict(place: Place) -> dict[str, Any]:
    entry: Entry = place.entry
    return {
        "name": head(place),
        "row": entry.row,
        "column": entry.column,
        "metric": entry.metric,
        "mean": place.mean,
        "std": place.std,
        "n": place.done,
        "planned": place.planned,
        "paper": None if entry.reported is None else [entry.reported.mean, entry.reported.std],
        "difference": place.difference,
        "values": [
            {"category": category, "seed": seed, "value": value}
            for (category, seed), value in sorted(place.values.items())
        ],
    }


def to_csv(lines: Sequence[Mapping[str, Any]]) -> str:
    """Rows of equal keys as CSV; None becomes an empty field."""
    text = io.StringIO()
    if lines:
        writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    return text.getvalue()


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    marks = ["---"] + ["---:"] * (len(heads) - 1)
    return ["| " + " | ".join(cells) + " |" for cells in (heads, marks, *rows)]


def _pair(mean: float | None, std: float | None) -> str:
    if mean is None:
        return NONE
    return f"{mean:.3f}" + ("" if std is None else f" ± {std:.3f}")


def _reported(value: Reported | None) -> str:
    return NONE if value is None else _pair(value.mean, value.std)


def _signed(value: float | None) -> str:
    return NONE if value is None else f"{value:+.3f}"


def _count(place: Place) -> str:
    return str(place.done) if place.complete else f"{place.done} of {place.planned}"
