"""Real-time visual anomaly detection for production lines.

Importing this package loads neither torch nor any engine; those load where they are used.
"""

from __future__ import annotations

__version__ = "0.1.0"
