"""What each study varies, and the table of the paper that it fills. To add a study, add a `Design` here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from algan_trainer.study import paper
from algan_trainer.study.paper import Reported

Measure = Literal["auroc", "robustness"]


@dataclass(frozen=True)
class Group:
    """Trainings that differ in seed and category only.

    Attributes:
        id: Part of the folders' names, unique in its study.
        changes: Dotted configuration keys that this group sets.
        category: The only category that it is about; None: every category of the study.
    """

    id: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    category: str | None = None


@dataclass(frozen=True)
class Entry:
    """One place of the table.

    Attributes:
        row: Head of its row.
        column: Head of its column in a grid; "" in a list.
        group: Whose trainings it is the mean of.
        metric: Which of their measures, see `execute.Result`.
        reported: The paper's value there, if it has one.
        others: The paper's values of other methods.
    """

    row: str
    group: str
    column: str = ""
    metric: str = "test_auroc"
    reported: Reported | None = None
    others: Mapping[str, Reported] = field(default_factory=dict)


@dataclass(frozen=True)
class Design:
    """A study.

    Attributes:
        source: Where the paper's numbers stand.
        subject: What data they were measured on.
        categories: `each`: the data's categories are the rows, and they must be there; `all`: the mean over
            all categories of the data, or the data as a whole; `one`: `favourite`, or the data as a whole;
            `none`: the data has no categories.
        row_head: What rows stand for; in a grid also `column_head`.
        ordered: The paper draws conclusions from the order of the entries.
        measure: What is measured after each training.
        curves: The curves over epochs are a result.
    """

    name: str
    title: str
    source: str
    subject: str
    groups: tuple[Group, ...]
    entries: tuple[Entry, ...]
    categories: Literal["each", "all", "one", "none"]
    favourite: str = ""
    row_head: str = ""
    column_head: str = ""
    ordered: bool = False
    measure: Measure = "auroc"
    curves: bool = False
    notes: tuple[str, ...] = ()


def designs(categories: list[str]) -> dict[str, Design]:
    """All studies by name; `categories` become the rows of `mvtec`."""
    made = (
        _mvtec(categories),
        _whole("mtd", "Magnetic Tile Defects", "Table 3", paper.TABLE_3),
        _whole("coil100", "COIL-100", "Table 4", paper.TABLE_4),
        _ablation(),
        _line(
            "sigma",
            "σ of anomalous latents",
            "Table 8",
            "algan.sigma",
            {f"{sigma:g}": (sigma, reported) for sigma, reported in paper.TABLE_8.items()},
        ),
        _alpha_xi(),
        _line(
            "nz",
            "epochs n_z for which latents are held",
            "Table 10",
            "algan.n_z",
            {str(n): (n, reported) for n, reported in paper.TABLE_10.items()},
            notes=("The text these numbers were taken from lacks the paper's values for n_z = 1, 3 and 4.",),
        ),
        _line(
            "ndis",
            "updates n_dis of D for one of G",
            "Table 11",
            "algan.n_dis",
            {str(n): (n, reported) for n, reported in paper.TABLE_11.items()},
        ),
        _robustness(),
        _stability(),
    )
    return {design.name: design for design in made}


NAMES = ("mvtec", "mtd", "coil100", "ablation", "sigma", "alpha-xi", "nz", "ndis", "robustness", "stability")


def _mvtec(categories: list[str]) -> Design:
    ordered = [c for c in paper.TABLE_1 if c in categories] + [
        c for c in sorted(categories) if c not in paper.TABLE_1
    ]
    entries = []
    for category in ordered:
        known = dict(paper.TABLE_1.get(category, {}))
        reported = known.pop("ALGAN-image", None)
        entries.append(Entry(category, category, reported=reported, others=known))
    return Design(
        name="mvtec",
        title="MVTec AD, by category",
        source="Table 1",
        subject="MVTec AD",
        groups=tuple(Group(category, category=category) for category in ordered),
        entries=tuple(entries),
        categories="each",
        row_head="Category",
    )


def _whole(name: str, title: str, source: str, table: dict[str, Reported]) -> Design:
    others = {method: value for method, value in table.items() if method != "ALGAN-image"}
    return Design(
        name=name,
        title=title,
        source=source,
        subject=title,
        groups=(Group("all"),),
        entries=(Entry("AUROC", "all", reported=table["ALGAN-image"], others=others),),
        categories="none",
    )


def _ablation() -> Design:
    names = {
        (False, False): ("neither", "neither"),
        (True, False): ("buffered", "buffered data only"),
        (False, True): ("anomalous", "anomalous latent only"),
        (True, True): ("both", "both"),
    }
    groups, entries = [], []
    for (buffered, anomalous), reported in paper.TABLE_7.items():
        # ξ = 1 leaves the buffer's term out of equation 6, α = 1 the anomalous latents'.
        changes: dict[str, Any] = {} if buffered else {"algan.xi": 1.0}
        changes |= {} if anomalous else {"algan.alpha": 1.0}
        key, row = names[buffered, anomalous]
        groups.append(Group(key, changes))
        entries.append(Entry(row, key, reported=reported))
    return Design(
        name="ablation",
        title="Ablation: which pseudo-anomalous data",
        source="Table 7",
        subject="MVTec AD, mean over its categories",
        groups=tuple(groups),
        entries=tuple(entries),
        categories="all",
        row_head="Pseudo-anomalous data",
        ordered=True,
    )


def _line(
    name: str,
    title: str,
    source: str,
    key: str,
    values: Mapping[str, tuple[Any, Reported | None]],
    notes: tuple[str, ...] = (),
) -> Design:
    """One hyperparameter, left to right."""
    heads = {"sigma": "σ", "nz": "n_z", "ndis": "n_dis"}
    return Design(
        name=name,
        title=title[0].upper() + title[1:],
        source=source,
        subject="MVTec AD, Bottle",
        groups=tuple(Group(f"{name}-{text}", {key: value}) for text, (value, _) in values.items()),
        entries=tuple(
            Entry("AUROC", f"{name}-{text}", text, reported=reported)
            for text, (_, reported) in values.items()
        ),
        categories="one",
        favourite="bottle",
        column_head=heads[name],
        ordered=True,
        notes=notes,
    )


def _alpha_xi() -> Design:
    groups, entries = [], []
    for alpha, row in paper.TABLE_9.items():
        for xi, reported in row.items():
            key = f"alpha-{alpha:g}-xi-{xi:g}"
            groups.append(Group(key, {"algan.alpha": alpha, "algan.xi": xi}))
            entries.append(Entry(f"{alpha:g}", key, f"{xi:g}", reported=reported))
    return Design(
        name="alpha-xi",
        title="Shares α of normal latents and ξ of fresh fakes",
        source="Table 9",
        subject="MVTec AD, Bottle",
        groups=tuple(groups),
        entries=tuple(entries),
        categories="one",
        favourite="bottle",
        row_head="α",
        column_head="ξ",
        ordered=True,
    )


#: Measures of `robustness`: name → head of the row, and whether the paper has it.
ROBUSTNESS: dict[str, tuple[str, bool]] = {
    "fakes_sigma_5": ("fakes of σ = 5", True),
    "fakes_sigma_6": ("fakes of σ = 6", True),
    "fakes_sigma_7": ("fakes of σ = 7", True),
    "fakes_sigma_8": ("fakes of σ = 8", True),
    "cutpaste_large": ("CutPaste, 20 to 30 % of the area", True),
    "cutpaste": ("CutPaste, patches and scars of any size", False),
    "perlin": ("Perlin-noise blots", False),
    "fakes_normal": ("fakes of normal latents", False),
    "fakes_trained_sigma": ("fakes of the σ trained with", False),
    "good": ("good test images (false rejects)", False),
    "anomalous": ("anomalous test images", False),
    "rejects_asked": ("false-reject rate asked for", False),
}


def _robustness() -> Design:
    return Design(
        name="robustness",
        title="Share called anomalous at a false-reject rate of 5 %",
        source="section 5.7",
        subject="MVTec AD, Bottle",
        groups=(Group("trained"),),
        entries=tuple(
            Entry(head, "trained", metric=metric, reported=paper.SECTION_5_7 if reported else None)
            for metric, (head, reported) in ROBUSTNESS.items()
        ),
        categories="one",
        favourite="bottle",
        row_head="Images",
        measure="robustness",
        notes=(
            "The threshold comes from n held-out good images; with fewer than 19 the rate is 1 / (n + 1).",
            "The paper does not state its threshold.",
        ),
    )


def _stability() -> Design:
    heads = {
        "test_auroc": "test AUROC of the checkpoint chosen",
        "late_mean": "validation AUROC, mean over the second half of the epochs",
        "late_std": "validation AUROC, standard deviation over the second half of the epochs",
    }
    return Design(
        name="stability",
        title="Validation AUROC during training",
        source="Figure 7",
        subject="MVTec AD, Transistor (a figure: no numbers)",
        groups=(Group("trained"),),
        entries=tuple(Entry(head, "trained", metric=metric) for metric, head in heads.items()),
        categories="one",
        favourite="transistor",
        row_head="Measure",
        curves=True,
    )
