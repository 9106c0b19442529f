"""Asks a running service how it is; for container health checks, which run often.

It needs the standard library alone: `python -m algan_stream.probe` starts several times faster than
`algan-stream health`, and does the same.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence

DEFAULT_URL = "http://127.0.0.1:9108/readyz"
_MOST_BYTES = 65_536


def probe(url: str = DEFAULT_URL, timeout_s: float = 5.0) -> tuple[bool, str]:
    """Returns whether the service answers 200, and one line that says so or why not."""
    if not url.startswith(("http://", "https://")):  # urllib reads files as well
        return False, f"{url}: expected http://ADDRESS:PORT/readyz or /healthz"
    # A proxy that the environment names is for other hosts.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout_s) as answer:
            return answer.status == 200, f"{url}: {answer.status} {answer.reason}"
    except urllib.error.HTTPError as error:
        with error:
            return False, f"{url}: {error.code}: {_reasons(error.read(_MOST_BYTES)) or error.reason}"
    except (OSError, ValueError) as error:  # nobody there, no answer in time; not HTTP, or no URL
        return False, f"{url}: {getattr(error, 'reason', error) or 'no answer'}"


def _reasons(body: bytes) -> str:
    try:
        return "; ".join(" ".join(str(reason).split()) for reason in json.loads(body)["reasons"])
    except (ValueError, KeyError, TypeError):
        return ""


def main(arguments: Sequence[str]) -> int:
    """`python -m algan_stream.probe [URL]`: exit code 0 if all is well, else 1."""
    well, line = probe(arguments[0] if arguments else DEFAULT_URL)
    sys.stdout.write(line + "\n")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
