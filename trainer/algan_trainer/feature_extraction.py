"""Features of images, by the engine that will serve them: from the cache where they are known."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import Progress

from algan_stream.engines.graph import Graph, open_graph
from algan_trainer.feature_cache import FeatureCache, cache_key
from algan_trainer.feature_graph import Plan, write_features_onnx

Floats = npt.NDArray[np.float32]
#: Images that are loaded, computed and stored together.
_CHUNK = 8
#: In a log, where no bar can be drawn, one line in so many seconds.
_NOTE_EVERY_S = 30.0


class Extractor:
    """Computes (n, rotations, features) float32; one engine for each number of rotations, made when needed.

    Args:
        plan: Which features.
        cache: Where known ones are.
        threads: Computing threads.
    """

    def __init__(self, plan: Plan, cache: FeatureCache, threads: int) -> None:
        self.plan, self._cache, self._threads = plan, cache, threads
        self._graphs: dict[int, Graph] = {}

    def of_files(
        self,
        paths: Sequence[str],
        hashes: dict[str, str],
        load: Callable[[list[str]], Floats],
        rotations: int,
    ) -> Floats:
        """Features of image files.

        Args:
            paths: The files.
            hashes: SHA-256 of each, by path.
            load: Makes the graph's inputs of some of them.
            rotations: How many angles.
        """
        out = np.empty((len(paths), rotations, self.plan.features), np.float32)
        missing = [i for i, path in enumerate(paths) if not self._known(hashes[path], rotations, out[i])]
        with _Bar(len(missing), rotations) as bar:
            for start in range(0, len(missing), _CHUNK):
                rows = missing[start : start + _CHUNK]
                out[rows] = self.of_inputs(load([paths[i] for i in rows]), rotations)
                for row in rows:
                    self._remember(hashes[paths[row]], rotations, out[row])
                bar.advance(len(rows))
        return out

    def of_inputs(self, inputs: Floats, rotations: int) -> Floats:
        """Features of ready inputs (n, 3, resize_px, resize_px); nothing is cached."""
        if not len(inputs):
            return np.empty((0, rotations, self.plan.features), np.float32)
        return self._graph(rotations).infer(inputs)["features"]

    def close(self) -> None:
        """Frees the engines; they are made anew when needed."""
        for graph in self._graphs.values():
            graph.close()
        self._graphs.clear()

    def _known(self, image_sha256: str, rotations: int, out: Floats) -> bool:
        for layer, columns in self._columns():
            shape = (rotations, columns.stop - columns.start)
            found = self._cache.get(cache_key(self.plan, layer, rotations), image_sha256, shape)
            if found is None:
                return False
            out[:, columns] = found
        return True

    def _remember(self, image_sha256: str, rotations: int, features: Floats) -> None:
        for layer, columns in self._columns():
            self._cache.put(cache_key(self.plan, layer, rotations), image_sha256, features[:, columns])

    def _columns(self) -> list[tuple[str, slice]]:
        """Each layer, and which of the features are its."""
        columns, start = [], 0
        for layer in self.plan.layers:
            end = start + self.plan.backbone.taps[layer].channels * len(self.plan.pool)
            columns.append((layer, slice(start, end)))
            start = end
        return columns

    def _graph(self, rotations: int) -> Graph:
        if rotations not in self._graphs:
            # One image at a time: all threads work on it, and memory stays small.
            section = {"kind": "openvino", "threads": self._threads, "max_batch": 1}
            shape = (rotations, self.plan.features)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "features.onnx"
                write_features_onnx(self.plan, rotations, path)
                self._graphs[rotations] = open_graph(
                    path, self.plan.spec.shape_chw, {"features": shape}, section
                )
        return self._graphs[rotations]


class _Bar:
    """What a person sees meanwhile: a bar in a terminal, lines in a log; nothing where all is known."""

    def __init__(self, total: int, rotations: int) -> None:
        self._console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
        self._bar = Progress(console=self._console, disable=not total or not self._console.is_terminal)
        turned = f", {rotations} rotations each" if rotations > 1 else ""
        self._text, self._total, self._done = f"features of {total} images{turned}", total, 0
        self._task = self._bar.add_task(self._text, total=total)

    def __enter__(self) -> _Bar:
        self._bar.start()
        self._started = self._noted = time.monotonic()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()
        if self._total and self._done == self._total:
            self._console.print(f"{self._text}: {(time.monotonic() - self._started) / 60.0:.1f} min")

    def advance(self, count: int) -> None:
        """So many images more are done."""
        self._done += count
        self._bar.update(self._task, completed=self._done)
        now = time.monotonic()
        if now - self._noted > _NOTE_EVERY_S and not self._console.is_terminal:
            left_min = (now - self._started) / self._done * (self._total - self._done) / 60.0
            self._console.print(f"{self._text}: {self._done} done, {left_min:.1f} min left")
            self._noted = now
