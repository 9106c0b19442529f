"""Finds an int8 graph that is good enough: all layers first, then with the sensitive ones left in fp32."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from algan_deploy.quantize.graph import Activations
from algan_deploy.quantize.measuring import Comparison, Scores, compare, score
from algan_deploy.quantize.samples import Samples

#: AUROC may drop by this much.
MOST_DROP = 0.002
#: Without labels, verdicts on at most this share of good ones may flip.
MOST_GOOD_FLIPS = 0.01
#: Layers are left in fp32 by groups of neighbours where there are more of them than this.
MOST_GROUPS = 12

#: Makes a graph: writes it to a path, with these activations and the named layers in fp32.
Quantiser = Callable[[Path, Activations, tuple[str, ...]], None]


@dataclass(frozen=True)
class Trial:
    """One int8 graph that was made and measured.

    Attributes:
        path: Where it lies.
        activations: Whether their zero points are 0.
        kept: Layers in fp32.
        found: What was measured.
        faults: Why it is not good enough; empty if it is.
    """

    path: Path
    activations: Activations
    kept: tuple[str, ...]
    found: Comparison
    faults: tuple[str, ...]


def search(
    fp32: Path,
    samples: Samples,
    threshold: float | None,
    layers: Sequence[str],
    quantiser: Quantiser,
    scratch: Path,
    note: Callable[[Trial], None],
) -> list[Trial]:
    """Makes and measures graphs until one is good enough, or none is left to try.

    Symmetric activations come first, for TensorRT takes no others; asymmetric ones if none of these will do.

    Args:
        fp32: The bundle's graph.
        samples: What the graphs are measured on.
        threshold: Scores above it are rejected; None: there are no verdicts to flip.
        layers: Names of the layers with weights, from input to output.
        quantiser: Makes a graph.
        scratch: Folder for the graphs.
        note: Is told of each trial.

    Returns:
        All trials; if one is good enough, it is the last.
    """
    before = score(fp32, samples)
    trials: list[Trial] = []
    for activations in ("symmetric", "asymmetric"):
        own: list[Trial] = []
        for kept in _choices(layers, own):
            path = scratch / f"{len(trials)}.onnx"
            quantiser(path, activations, kept)
            found = _compared(path, before, samples, threshold)
            trial = Trial(path, activations, kept, found, faults(found))
            own.append(trial)
            trials.append(trial)
            note(trial)
            if not trial.faults:
                return trials
    return trials


def faults(found: Comparison) -> tuple[str, ...]:
    """Why a graph is not good enough; empty if it is."""
    said = []
    if found.golden_flips:
        said.append(f"turns {found.golden_flips} golden verdicts around")
    if found.auroc_before is not None and found.auroc_after is not None:
        drop = found.auroc_before - found.auroc_after
        if not drop <= MOST_DROP:
            said.append(f"AUROC drops by {drop:.4f} to {found.auroc_after:.4f} (allowed {MOST_DROP:g})")
    elif found.good_flips and found.good_share_flipped > MOST_GOOD_FLIPS:
        said.append(
            f"turns {found.good_flips} verdicts on good ones around, {found.good_share_flipped:.1%} of them "
            f"(allowed {MOST_GOOD_FLIPS:.0%}; with --labelled the AUROC decides instead)"
        )
    return tuple(said)


def closest(trials: Sequence[Trial]) -> Trial:
    """The trial that came closest to being accepted."""

    def distance(trial: Trial) -> tuple[int, float, float]:
        found = trial.found
        drop = (found.auroc_before or 0.0) - (found.auroc_after or 0.0)
        return found.golden_flips or 0, max(drop, 0.0), found.good_error

    return min(trials, key=distance)


def _choices(layers: Sequence[str], tried: Sequence[Trial]) -> Iterator[tuple[str, ...]]:
    """Layers to keep in fp32, the fewest first; `tried` fills up meanwhile, which says what matters.

    None; the first, the last, both; each other one alone; then always one more, those first that helped the
    scores of good ones most when they were kept alone, up to half of all.
    """
    yield ()
    groups = _groups(layers)
    if len(groups) < 2:
        return
    yield groups[0]
    yield groups[-1]
    if len(groups) > 2:
        yield groups[0] + groups[-1]
    yield from groups[1:-1]
    errors = {trial.kept: trial.found.good_error for trial in tried}
    ranked = sorted(groups, key=lambda group: errors[group])
    for count in range(2, len(groups) // 2 + 1):
        chosen = set(ranked[:count])
        kept = tuple(name for group in groups if group in chosen for name in group)
        if kept not in errors:
            yield kept


def _groups(layers: Sequence[str]) -> list[tuple[str, ...]]:
    """Neighbouring layers together, in at most `MOST_GROUPS`; the first and the last stay alone."""
    if len(layers) <= MOST_GROUPS:
        return [(name,) for name in layers]
    inner, count = layers[1:-1], MOST_GROUPS - 2
    edges = [round(i * len(inner) / count) for i in range(count + 1)]
    between = [tuple(inner[a:b]) for a, b in itertools.pairwise(edges)]
    return [(layers[0],), *between, (layers[-1],)]


def _compared(path: Path, before: Scores, samples: Samples, threshold: float | None) -> Comparison:
    return compare(before, score(path, samples), samples.golden.logits, threshold)
