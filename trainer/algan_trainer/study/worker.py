"""A process for one cell: `python -m algan_trainer.study.worker FOLDER`, its task a line on standard input.

Standard input stays open as long as the study runs: when it closes, the study is gone, and so is the worker.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import msgspec

from algan_trainer.study.execute import Task, execute

#: Exit code of a worker that was stopped on request.
INTERRUPTED = 130


def main() -> int:
    """Runs the task; 0 means that the folder holds a result."""
    from algan_trainer.run import TrainingInterruptedError

    task = msgspec.json.decode(sys.stdin.readline(), type=Task)
    threading.Thread(target=_follow, daemon=True).start()
    try:
        execute(task, Path(sys.argv[1]))
    except (TrainingInterruptedError, KeyboardInterrupt):
        return INTERRUPTED
    return 0


def _follow() -> None:
    """Stops this process, resumable, when the one that started it is gone."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
