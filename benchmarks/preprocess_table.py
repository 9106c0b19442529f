"""The rows of `algan-stream bench preprocess --full --json FILE` as the tables of this folder's README.

    python benchmarks/preprocess_table.py FILE

For each group of cases: our time over the floor's, the least and the largest, and how many times ours each
peer takes, at least. Cases where a peer is faster are named below, if there are any.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path


def group_of(case):
    """Cases that share a line: by format, by output size, or by number of boxes; and by filter."""
    what, downscale = case.rsplit(", ", 1)
    words = what.split()
    side = words[words.index("to") + 1]
    if "of" in words:
        return f"{words[1]} boxes", downscale
    if words[0] == "bgr8" and side != "256":
        return f"bgr8 to {side} px", downscale
    return words[0], downscale


def table(rows):
    """Markdown: one line for each group and filter."""
    peers = [name for name in dict.fromkeys(row["peer"] for row in rows) if name != "floor"]
    groups = defaultdict(lambda: defaultdict(list))
    for row in rows:
        groups[group_of(row["case"])][row["peer"]].append(row["ratio"])
    lines = [
        "| cases | filter | ours / floor | " + " | ".join(peers) + " |",
        "|---|---|---|" + "---|" * len(peers),
    ]
    for (name, downscale), ratios in groups.items():
        over = sorted(1 / max(ratio, 1e-9) for ratio in ratios["floor"])
        least = " | ".join(f"{min(ratios[peer]):.1f}×" if ratios[peer] else "" for peer in peers)
        lines.append(f"| {name} | {downscale} | {over[0]:.1f} to {over[-1]:.1f} | {least} |")
    return "\n".join(lines)


def main():
    """Prints the table, and what is lost."""
    rows = json.loads(Path(sys.argv[1]).read_text())
    print(table(rows))
    cases = len({row["case"] for row in rows})
    lost = [row for row in rows if row["peer"] != "floor" and row["ratio"] < 1]
    print(f"\n{cases} cases; a peer is faster in {len(lost)}")
    for row in lost:
        print(f"- {row['case']}: {row['peer']} {row['ratio']}")


if __name__ == "__main__":
    main()
