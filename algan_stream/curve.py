"""Keys for ZeroMQ between hosts: CURVE encrypts and authenticates, an allow-list says who may connect.

Key files are those of CZMQ and pyzmq: `NAME.key` holds the public key, `NAME.key_secret` both.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import msgspec
import zmq

from algan_stream.errors import ConfigError

#: Endings of the files with the public key alone, and with the secret one.
PUBLIC_SUFFIX, SECRET_SUFFIX = ".key", ".key_secret"
_LINE = re.compile(r"\s*(public|secret)-key\s*=\s*[\"']?(.*?)[\"']?\s*")
#: A key in Z85: 32 bytes as 40 characters.
_Z85 = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
#: Largest file read as keys; 10,000 of them are less.
_MAX_FILE_BYTES = 1 << 20
_BANNER = "# ZeroMQ CURVE {kind} of algan-stream.{more}\n\nmetadata\ncurve\n"


class CurveConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Key `curve` of a socket that others connect to.

    Attributes:
        secret_key: File with this service's own pair, `NAME.key_secret`; readable by nobody but its owner
            and group.
        allow: Public keys of those who may connect: a folder of `*.key` files, or one file with a
            `public-key = "…"` line for each. Read anew at every connection.
    """

    secret_key: str
    allow: str


class ClientKeys(msgspec.Struct, frozen=True, kw_only=True):
    """What a client needs to talk to a service with `curve`.

    Attributes:
        secret_key: File with the client's own pair, `NAME.key_secret`.
        server_key: File with the service's public key, `NAME.key`.
    """

    secret_key: str | os.PathLike[str]
    server_key: str | os.PathLike[str]

    def apply(self, socket: zmq.Socket[bytes]) -> None:
        """Makes a socket use them; before it is connected.

        Raises:
            ConfigError: A file cannot be read or used.
        """
        public, secret = read_pair(Path(self.secret_key), "secret_key")
        socket.setsockopt(zmq.CURVE_PUBLICKEY, public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, secret)
        socket.setsockopt(zmq.CURVE_SERVERKEY, read_public(Path(self.server_key), "server_key"))


def new_pair(path: Path) -> tuple[Path, Path]:
    """Makes a pair of keys and writes `PATH.key` and `PATH.key_secret`, both of mode 0600.

    Returns:
        The files with the public and the secret key.

    Raises:
        ConfigError: One of them exists, or cannot be written.
    """
    files = path.with_name(path.name + PUBLIC_SUFFIX), path.with_name(path.name + SECRET_SUFFIX)
    for file in files:
        if file.exists() or file.is_symlink():
            raise ConfigError(f"{file}: exists, and keys are never overwritten; name another, or remove it")
    public, secret = (key.decode() for key in zmq.curve_keypair())
    line = f'    public-key = "{public}"\n'
    whole = _BANNER.format(kind="secret key", more=" It stays on this host.") + line
    try:
        _write_new(files[1], whole + f'    secret-key = "{secret}"\n')
        try:
            _write_new(files[0], _BANNER.format(kind="public key", more="") + line)
        except OSError:
            files[1].unlink()
            raise
    except OSError as error:
        raise ConfigError(f"{path}: keys cannot be written there: {error.strerror}") from error
    return files


def allow(public_key: Path, folder: Path) -> Path:
    """Copies a public key into an allow-list folder; returns the copy.

    Raises:
        ConfigError: It is no file with a public key alone, or the folder has another one of that name.
    """
    key = read_public(public_key, str(public_key)).decode()
    name = public_key.name.removesuffix(PUBLIC_SUFFIX) + PUBLIC_SUFFIX
    copy = folder / name
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        _write_new(copy, _BANNER.format(kind="public key", more="") + f'    public-key = "{key}"\n')
    except FileExistsError as error:
        raise ConfigError(f"{copy}: exists; remove that first, or rename {public_key}") from error
    except OSError as error:
        raise ConfigError(f"{copy}: cannot be written: {error.strerror}") from error
    return copy


def read_pair(file: Path, name: str) -> tuple[bytes, bytes]:
    """Reads a public and its secret key.

    Args:
        file: `NAME.key_secret`.
        name: Of the setting, for messages.

    Raises:
        ConfigError: The file cannot be read, is open to others, or holds no pair.
    """
    publics, secrets = _keys(file, name, private=True)
    if not secrets:
        raise ConfigError(
            f"{name}: {file} holds no secret key; expected the file NAME{SECRET_SUFFIX} of "
            "`algan-stream keys new NAME`"
        )
    if len(secrets) > 1 or len(publics) > 1:
        raise ConfigError(f"{name}: {file} holds several keys; expected one pair")
    public = zmq.curve_public(secrets[0])
    if publics and publics[0] != public:
        raise ConfigError(f"{name}: the public and the secret key in {file} are no pair; make a new one")
    return public, secrets[0]


def read_public(file: Path, name: str) -> bytes:
    """Reads one public key.

    Raises:
        ConfigError: The file cannot be read, or holds something else.
    """
    publics = _only_public(file, name)
    if len(publics) != 1:
        raise ConfigError(f"{name}: expected one public key in {file}, got {len(publics)}")
    return publics[0]


def read_allowed(path: Path, name: str) -> tuple[set[bytes], list[ConfigError]]:
    """Reads an allow-list.

    Returns:
        The public keys in Z85, and what is wrong with files that give none.

    Raises:
        ConfigError: The list as a whole cannot be read.
    """
    if not path.is_dir():
        return set(_only_public(path, name)), []
    keys: set[bytes] = set()
    wrong: list[ConfigError] = []
    try:
        _refuse_writable(path, name, path.stat().st_mode)
        files = sorted(path.glob(f"*{PUBLIC_SUFFIX}"))
    except OSError as error:
        raise ConfigError(f"{name}: cannot read {path}: {error.strerror}") from error
    for file in files:
        try:
            keys.update(_only_public(file, name))
        except ConfigError as error:
            wrong.append(error)
    return keys, wrong


def _only_public(file: Path, name: str) -> list[bytes]:
    publics, secrets = _keys(file, name)
    if secrets:
        raise ConfigError(
            f"{name}: {file} holds a secret key, which belongs to its owner alone; expected the file "
            f"NAME{PUBLIC_SUFFIX}"
        )
    if not publics:
        raise ConfigError(f'{name}: {file} holds no public key; expected a line public-key = "…"')
    return publics


def _keys(file: Path, name: str, *, private: bool = False) -> tuple[list[bytes], list[bytes]]:
    """All public and all secret keys in a file; checked, so that libzmq takes them."""
    try:
        with file.open("rb") as opened:
            mode = stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
            _refuse_writable(file, name, mode)
            text = opened.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{name}: cannot read {file}: {error.strerror}") from error
    if private and mode & 0o037:
        raise ConfigError(
            f"{name}: {file} can be used by others (mode {mode:04o}); chmod 600 {file}, and make new keys if "
            "somebody may have read them"
        )
    found: dict[str, list[bytes]] = {"public": [], "secret": []}
    for line in text.decode("utf-8", "replace").splitlines() if len(text) <= _MAX_FILE_BYTES else ():
        if (match := _LINE.fullmatch(line)) is None:
            continue
        kind, key = match.groups()
        if not _Z85.fullmatch(key):  # never shown: it may be a secret
            raise ConfigError(f"{name}: {file}: a {kind} key is not 40 characters of Z85")
        found[kind].append(key.encode())
    return found["public"], found["secret"]


def _refuse_writable(path: Path, name: str, mode: int) -> None:
    """Who may write there may let himself in; mounts that nobody can write to often look open."""
    if mode & 0o002 and not os.statvfs(path).f_flag & os.ST_RDONLY:
        raise ConfigError(
            f"{name}: anybody may write to {path} (mode {stat.S_IMODE(mode):04o}); chmod o-w it"
        )


def _write_new(file: Path, text: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        opened.write(text)
