"""Who we are to an OPC UA server, and who it must be: certificates, key and password."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from algan_stream.errors import ConfigError

if TYPE_CHECKING:
    from algan_stream.sinks.opcua import Config


def password_of(config: Config) -> str | None:
    """The password from its file or environment variable; None: there is none.

    Raises:
        ConfigError: It is not there.
    """
    if config.password_env is not None:
        password = os.environ.get(config.password_env, "")
        if not password:
            raise ConfigError(f"password_env: the environment variable {config.password_env} is not set")
        return password
    if config.password_file is None:
        return None
    try:
        return Path(config.password_file).read_text("utf-8").splitlines()[0]
    except (OSError, IndexError, UnicodeDecodeError) as error:
        raise ConfigError(f"password_file: no password in {config.password_file}: {error}") from error


def uri_of(config: Config) -> str:
    """The name in our certificate, which we must call ourselves by; all three files are looked at here.

    Raises:
        ConfigError: One of them cannot be used.
    """
    if config.security == "none":
        return ""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key

    def read(key: str) -> bytes:
        try:
            return Path(getattr(config, key)).read_bytes()
        except OSError as error:
            raise ConfigError(f"{key}: cannot be read: {error.strerror}: {error.filename}") from error

    own = None
    for key in ("certificate_file", "server_certificate_file"):
        data = read(key)
        load = x509.load_pem_x509_certificate if b"-----BEGIN" in data else x509.load_der_x509_certificate
        try:
            own = own or load(data)
            load(data)
        except ValueError as error:
            raise ConfigError(f"{key}: is no certificate: {error}") from error
    data = read("key_file")
    load_key = load_pem_private_key if b"-----BEGIN" in data else load_der_private_key
    try:
        load_key(data, None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"key_file: is no private key without a passphrase: {error}") from error
    try:
        assert own is not None
        names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return names.get_values_for_type(x509.UniformResourceIdentifier)[0]
    except (x509.ExtensionNotFound, IndexError) as error:
        raise ConfigError(
            "certificate_file: has no URI among its alternative names, which OPC UA demands; make one as "
            "docs/sinks.md shows"
        ) from error


def as_found(file: str | None) -> Any:
    """A file for the library, which would take its kind from its name."""
    from asyncua.crypto.uacrypto import CertProperties

    assert file is not None
    data = Path(file).read_bytes()
    return CertProperties(data, extension="pem" if b"-----BEGIN" in data else "der")
