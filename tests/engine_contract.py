"""The tests of `test_engines.py` that any engine must pass, for files with their own fixture `engine`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

import test_engines as t

Floats = npt.NDArray[np.float32]


@pytest.fixture
def same(bound: float) -> Callable[[Floats, Floats], bool]:
    """Whether logits of two sizes of batch count as the same; `bound` is the file's own, 0: bit for bit."""
    return lambda a, b: bool(np.abs(a - b).max(initial=0.0) <= bound)


CONTRACT: dict[str, Callable[..., None]] = {
    test.__name__: test
    for test in (
        t.test_slots_are_as_promised,
        t.test_a_logit_depends_on_its_own_image_alone,
        t.test_any_number_of_images,
        t.test_logits_belong_to_the_caller,
        t.test_batches_overlap_without_mixing,
        t.test_submit_and_collect_from_two_threads,
        t.test_a_slot_is_held_by_one_and_comes_back,
        t.test_a_batch_of_an_impossible_size,
        t.test_inputs_of_another_shape_or_type,
        t.test_nan_in_nan_out_and_neighbours_unharmed,
        t.test_close_twice,
    )
}
MAX_BATCH = t._MAX_BATCH
inputs = t._inputs
