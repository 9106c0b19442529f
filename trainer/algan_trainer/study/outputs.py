"""What a study leaves for people and programs: tables, curves, and the state of each cell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from algan_trainer.config import Config, differences, override
from algan_trainer.study import curves, paper, table
from algan_trainer.study.plan import Plan, Settings, StudyError, make_plan, plain
from algan_trainer.study.records import CELLS, SETTINGS, WORK, Result, read_json, read_result, write_json
from algan_trainer.study.tabulate import tabulate


def line(result: Result) -> str:
    """One line about a cell that has ended."""
    if result.status == "failed":
        return f"{result.key}: FAILED: {result.error.splitlines()[0] if result.error else 'no reason given'}"
    metrics = result.metrics
    text = f"{result.key}: test AUROC {metrics['test_auroc']:.3f}"
    if metrics.get("validation_auroc") is not None:
        text += f", validation {metrics['validation_auroc']:.3f} at epoch {metrics['best_epoch']:.0f}"
    resumed = f", resumed at epoch {result.resumed_from_epoch}" if result.resumed_from_epoch else ""
    return f"{text}, {result.seconds:.0f} s{resumed}"


def finished(plan: Plan, out: Path) -> dict[str, Result]:
    """Results of the plan's cells so far, also failures, by key."""
    found = {cell.key: read_result(out / CELLS / cell.key) for cell in plan.cells}
    return {key: result for key, result in found.items() if result is not None}


def write_tables(settings: Settings, out: Path) -> str:
    """Writes what there is so far: table.md, table.csv, table.json, runs.csv, curves; returns the first."""
    plan = make_plan(settings)
    results = finished(plan, out)
    places = tabulate(plan, results)
    text = table.markdown(plan, places, results, _facts(settings, plan, results))
    _write(out / "table.md", text)
    _write(out / "table.csv", table.rows_csv(plan, places))
    _write(out / "runs.csv", table.runs_csv(plan, results))
    write_json(out / "table.json", table.as_json(plan, places, results) | {"settings": settings})
    if plan.design.curves and (points := curves.points(results.values())):
        _write(out / "curve.csv", curves.curve_csv(points))
        _write(out / "curve.svg", curves.curve_svg(points, plan.design.title))
    return text


def retabulate(out: Path) -> str:
    """The tables of a study's folder, from what is finished in it.

    Raises:
        StudyError: No study was begun there.
    """
    settings = read_json(out / SETTINGS, Settings)
    if settings is None:
        raise StudyError(f"{out}: expected a study's folder with {SETTINGS}, found none")
    return write_tables(settings, out.resolve())


def states(settings: Settings, out: Path) -> Iterator[str]:
    """One line for each cell: what it is and how far it got."""
    plan = make_plan(settings)
    for cell in plan.cells:
        folder = out / CELLS / cell.key
        result = read_result(folder)
        if result is not None:
            state = line(result).partition(": ")[2]
        else:
            state = "begun" if (folder / WORK).is_dir() else "to do"
        yield f"{cell.key}: {state}"


def _facts(settings: Settings, plan: Plan, results: dict[str, Result]) -> list[str]:
    config = msgspec.convert(settings.config, Config)
    of_paper = override(Config(), {**paper.CONFIG, "precision": config.precision})
    changed = differences(plain(of_paper), plain(config))
    where = f"data: {settings.data}"
    if settings.categories:
        where += f" ({', '.join(settings.categories)})"
    net = config.network
    size = f"{net.size_px} x {net.size_px} px, width {net.width}" if net.kind == "image" else net.kind
    facts = [
        where,
        f"seeds: 0 to {settings.seeds - 1}; {size}, {config.epochs} epochs, batch size {config.batch_size}, "
        f"validated every {config.validate_every}, {config.precision}",
        "differs from the paper's configuration: " + ("; ".join(changed) if changed else "nothing"),
    ]
    first = {cell.key: cell.category for cell in plan.cells if cell.seed == 0}
    counts = {
        first[key]: result.counts
        for key, result in results.items()
        if result.status == "done" and key in first
    }
    facts += [
        f"images{' of ' + category if category else ''}: "
        + ", ".join(
            f"{part} {n.get('good', 0)} good + {n.get('anomalous', 0)} anomalous" for part, n in of.items()
        )
        for category, of in sorted(counts.items())
    ]
    done = [result for result in results.values() if result.status == "done"]
    if done:
        minutes = sum(result.seconds for result in done) / len(done) / 60
        versions = ", ".join(sorted({result.version for result in done}))
        facts.append(f"{minutes:.1f} minutes a training on average; algan-stream {versions}")
    return facts


def _write(path: Path, text: str) -> None:
    staged = path.with_name(f".{path.name}-new")
    try:
        staged.write_text(text, "utf-8")
        staged.replace(path)
    except OSError as error:
        raise StudyError(f"{path}: cannot be written: {error.strerror}") from error
