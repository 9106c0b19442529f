"""What must stay on one side of a split: images of the same part, and copies of the same file."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from algan_stream.errors import InputError
from algan_trainer.data.dataset import Sample


def joined(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """For each of `count` items, the lowest index among those that the pairs connect it with."""
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for a, b in pairs:
        ends = root(a), root(b)
        parent[max(ends)] = min(ends)
    return [root(i) for i in range(count)]


def units_of(root: Path, samples: Sequence[Sample], *, group_aware: bool) -> list[list[Sample]]:
    """Parts a dataset into what must stay together, in the order of their first samples.

    Args:
        root: What the samples' paths are relative to.
        samples: All of a dataset's.
        group_aware: Keep images of the same part together, besides byte-for-byte copies.

    Raises:
        InputError: Copies of one file are called good and defective, or two types of defect.
    """
    copies = _copies(root, samples)
    for copy in copies:
        one = samples[copy[0]]
        for other in (samples[i] for i in copy if samples[i].kind != one.kind):
            raise InputError(
                f"{root}: {one.path} ({one.kind}) and {other.path} ({other.kind}) are the same image, byte "
                "for byte; remove the one that is labelled wrongly"
            )
    pairs = [(copy[0], i) for copy in copies for i in copy[1:]]
    if group_aware:
        first: dict[str, int] = {}
        pairs += [(first.setdefault(s.group, i), i) for i, s in enumerate(samples) if s.group]
    units: dict[int, list[Sample]] = defaultdict(list)
    for sample, unit in zip(samples, joined(len(samples), pairs), strict=True):
        units[unit].append(sample)
    return list(units.values())


def refuse_torn(root: Path, units: Iterable[Sequence[Sample]], dealt: dict[str, str]) -> None:
    """Checks that no unit is on two sides.

    Args:
        root: For the message.
        units: As from `units_of`.
        dealt: Split by path.

    Raises:
        InputError: One is; only a split that came with the data can do that.
    """
    torn = [unit for unit in units if len({dealt[s.path] for s in unit}) > 1]
    if not torn:
        return
    one = torn[0][0]
    other = next(s for s in torn[0] if dealt[s.path] != dealt[one.path])
    same_part = bool(one.group) and one.group == other.group
    what = "show the same part" if same_part else "are the same image, byte for byte, or copies link them"
    mend = "use a random split (--split random), or correct the split" if same_part else "remove one of them"
    more = f" ({len(torn)} such cases)" if len(torn) > 1 else ""
    raise InputError(
        f"{root}: {one.path} ({dealt[one.path]}) and {other.path} ({dealt[other.path]}) {what}, but lie on "
        f"two sides of the split{more}; {mend}"
    )


def _copies(root: Path, samples: Sequence[Sample]) -> list[list[int]]:
    """Indices of samples whose files are byte for byte the same; only files of one length are read."""
    by_size: dict[int, list[int]] = defaultdict(list)
    for i, sample in enumerate(samples):
        by_size[(root / sample.path).stat().st_size].append(i)
    by_hash: dict[bytes, list[int]] = defaultdict(list)
    for size, indices in by_size.items():
        if size and len(indices) > 1:  # empty files are no copies but broken, and decoding says so
            for i in indices:
                by_hash[hashlib.sha256((root / samples[i].path).read_bytes()).digest()].append(i)
    return [indices for indices in by_hash.values() if len(indices) > 1]
