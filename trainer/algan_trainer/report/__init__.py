"""A bundle's `report/`: tables for programs, and a page for people.

`content` says what a report holds, `measures` computes it, `training` and `evaluation` fill it in, and `page`
shows it. Only `fakes`, which paints with G, needs torch.
"""

from algan_trainer.report.tables import (
    CURVE,
    CURVE_COLUMNS,
    HASH_DIGITS,
    SCORES,
    SPLIT,
    read_split,
    write_split,
    write_table,
)

__all__ = [
    "CURVE",
    "CURVE_COLUMNS",
    "HASH_DIGITS",
    "SCORES",
    "SPLIT",
    "read_split",
    "write_split",
    "write_table",
]
