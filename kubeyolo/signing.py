"""Signatures of bundles: Ed25519 (RFC 8032) over the bytes of ``bundle.json``, with keys in PEM as OpenSSL writes them.

``bundle.json`` has the sha256 of every other file of a bundle, so its signature covers all of them. The environment
names the keys: a signing key lets a process sign what it publishes, trusted keys let it refuse every other bundle.
No key is logged, and no message contains a part of a private key.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from kubeyolo.errors import InputError
from kubeyolo.regular_files import open_regular

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE_NAME = "bundle.json.sig"
"""Name of the signature of a bundle, in the folder of its files: 64 bytes."""

SIGNING_KEY = "KUBEYOLO_SIGNING_KEY"
"""Environment variable with the private key that bundles are signed with: the path of a PEM file, or its text."""

TRUSTED_KEYS = "KUBEYOLO_TRUSTED_KEYS"
"""Environment variable with public keys: bundles must be signed with one. Paths of PEM files, ``:`` between them, or
their text."""

_BEGIN = "-----BEGIN "
_PUBLIC = re.compile(r"-----BEGIN PUBLIC KEY-----[^-]+-----END PUBLIC KEY-----")
_MOST_BYTES = 1 << 16
_ID_DIGITS = 16
_MAKE_KEY = "openssl genpkey -algorithm ed25519 -out signing-key.pem"
_MAKE_PUBLIC = "openssl pkey -in signing-key.pem -pubout -out trusted-key.pem"


@dataclass(frozen=True)
class Signer:
    """A private key that signs bundles."""

    key: Ed25519PrivateKey

    @classmethod
    def from_environment(cls) -> Signer | None:
        """Return the signer of ``KUBEYOLO_SIGNING_KEY``; None if the variable is not set.

        Raises:
            InputError: The file cannot be read, or is not an Ed25519 private key without a password.
        """
        value = os.environ.get(SIGNING_KEY, "").strip()
        if not value:
            return None
        # Imported here, so that commands without keys start faster.
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        text, where = (value, SIGNING_KEY) if _BEGIN in value else _read_file(value, SIGNING_KEY)
        try:
            key = load_pem_private_key(text.encode(), password=None)
        except TypeError:
            raise InputError(
                f"{where}: this private key has a password; signing needs a key without one, which only this user may "
                "read (chmod 600)"
            ) from None
        except (ValueError, UnsupportedAlgorithm):
            raise InputError(f"{where}: this is not a private key in PEM; make one: {_MAKE_KEY}") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise InputError(f"{where}: this private key is not an Ed25519 key; make one: {_MAKE_KEY}")
        return cls(key)

    @cached_property
    def trusted(self) -> TrustedKeys:
        """The public key of this signer."""
        return TrustedKeys((self.key.public_key(),))

    def sign(self, document: bytes) -> bytes:
        """Return the signature of a document: 64 bytes."""
        return self.key.sign(document)


@dataclass(frozen=True)
class TrustedKeys:
    """Public keys; a bundle is accepted if one of them verifies its signature."""

    keys: tuple[Ed25519PublicKey, ...]

    @classmethod
    def from_environment(cls) -> TrustedKeys | None:
        """Return the keys of ``KUBEYOLO_TRUSTED_KEYS``; None if the variable is not set: every bundle is accepted.

        Raises:
            InputError: A file cannot be read, or has no Ed25519 public key.
        """
        value = os.environ.get(TRUSTED_KEYS, "").strip()
        if not value:
            return None
        texts = [(value, TRUSTED_KEYS)]
        if _BEGIN not in value:
            texts = [_read_file(path, TRUSTED_KEYS) for path in value.split(os.pathsep) if path]
        return cls(tuple(key for text, where in texts for key in _public_keys(text, where)))

    @property
    def ids(self) -> tuple[str, ...]:
        """The first digits of the sha256 of each key in DER, as ``openssl pkey -pubin -outform DER`` writes it."""
        from cryptography.hazmat.primitives.hashes import SHA256, Hash
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        found = []
        for key in self.keys:
            digest = Hash(SHA256())
            digest.update(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
            found.append(digest.finalize().hex()[:_ID_DIGITS])
        return tuple(found)

    def verify(self, document: bytes, signature: bytes) -> bool:
        """Tell whether one of the keys has signed a document."""
        from cryptography.exceptions import InvalidSignature

        for key in self.keys:
            try:
                key.verify(signature, document)
            except InvalidSignature:
                continue
            return True
        return False

    def check(self, uri: str, document: bytes, signature: bytes | None) -> None:
        """Refuse a bundle without a signature by one of the keys.

        Args:
            uri: URI of the bundle, for the message.
            document: Its ``bundle.json``.
            signature: Its signature; None if there is none.

        Raises:
            InputError: There is no signature, ``bundle.json`` was changed, or another key has signed it.
        """
        trusted = f"{'keys' if len(self.keys) > 1 else 'key'} {', '.join(self.ids)}"
        if signature is None:
            raise InputError(
                f"{uri}: this bundle is not signed, and only bundles signed with the trusted {trusted} are accepted "
                f"({TRUSTED_KEYS}); if you know where it comes from, sign it: kubeyolo sign {uri}"
            )
        if not self.verify(document, signature):
            raise InputError(
                f"{uri}: the signature of this bundle was not made with the trusted {trusted}, or bundle.json was "
                f"changed after it was signed ({TRUSTED_KEYS}); publish the bundle again, or trust the key of its "
                "publisher too"
            )


def check_can_sign() -> None:
    """Refuse work that publishes a bundle which the same environment would refuse to read.

    Raises:
        InputError: There are trusted keys, but no signing key, or its public key is not trusted.
    """
    trusted = TrustedKeys.from_environment()
    if trusted is None:
        return
    signer = Signer.from_environment()
    if signer is None:
        raise InputError(
            f"only signed bundles are accepted ({TRUSTED_KEYS}), and this work publishes a bundle: set {SIGNING_KEY} "
            "to the private key of a trusted key"
        )
    if not {*signer.trusted.ids} & {*trusted.ids}:
        raise InputError(
            f"{SIGNING_KEY}: bundles signed with this key ({signer.trusted.ids[0]}) would be refused: trusted are "
            f"{', '.join(trusted.ids)} ({TRUSTED_KEYS}); trust its public key too, or sign with another key"
        )


def trust_only(files: Sequence[Path]) -> None:
    """Let this process and its children accept only bundles that are signed with the public keys in these files.

    Raises:
        InputError: A file cannot be read, or has no Ed25519 public key.
    """
    os.environ[TRUSTED_KEYS] = os.pathsep.join(str(path.absolute()) for path in files)
    TrustedKeys.from_environment()


def variables_of_containers() -> dict[str, str]:
    """Return the variables with the keys as text, for containers, which do not share files with this process.

    Raises:
        InputError: A file cannot be read.
    """
    found = {}
    for name in (SIGNING_KEY, TRUSTED_KEYS):
        value = os.environ.get(name, "").strip()
        if value and _BEGIN not in value:
            paths = [value] if name == SIGNING_KEY else [path for path in value.split(os.pathsep) if path]
            value = "".join(_read_file(path, name)[0] for path in paths)
        if value:
            found[name] = value
    return found


def _public_keys(text: str, where: str) -> list[Ed25519PublicKey]:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    found = []
    for block in _PUBLIC.findall(text):
        try:
            key = load_pem_public_key(block.encode())
        except (ValueError, UnsupportedAlgorithm):
            raise InputError(f"{where}: a public key in it is damaged; make it again: {_MAKE_PUBLIC}") from None
        if not isinstance(key, Ed25519PublicKey):
            raise InputError(
                f"{where}: a public key in it is not an Ed25519 key; remove it, or make one: {_MAKE_PUBLIC}"
            )
        found.append(key)
    if not found or len(found) != text.count(_BEGIN):
        what = "has something other than public keys" if found else "has no public key"
        raise InputError(f"{where}: {what} in PEM; expected the output of {_MAKE_PUBLIC}")
    return found


def _read_file(value: str, variable: str) -> tuple[str, str]:
    """Return the text of a PEM file and its path; a value that may be a part of a key is not repeated in a message."""
    path = Path(value).expanduser()
    shown = f"{variable} = {value}" if "\n" not in value and ("." in value or value.startswith("/")) else variable
    try:
        if not path.is_file():
            raise InputError(f"{shown}: there is no such file; expected the path of a PEM file, or its text")
        with open_regular(path) as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise InputError(f"{shown}: this file is too large for keys in PEM; correct the path")
        return content.decode("ascii"), str(path)
    except UnicodeDecodeError:
        raise InputError(f"{shown}: this file is not text, so it is not a key in PEM; correct the path") from None
    except OSError as error:
        raise InputError(f"{shown}: cannot be read ({error.strerror}); correct the path or its permissions") from None
