"""Signed bundles: every publisher signs them; they are refused if they were changed, or signed with another key."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from kubeyolo.bundle import MANIFEST_NAME, ONNX, WEIGHTS, open_bundle, read_bundle, read_document, read_manifest
from kubeyolo.cli.app import main
from kubeyolo.config.load import load_config
from kubeyolo.errors import InputError
from kubeyolo.publishing import derive_bundle, publish_bundle, sign_bundle
from kubeyolo.signing import SIGNATURE_NAME, SIGNING_KEY, TRUSTED_KEYS, Signer, variables_of_containers
from kubeyolo.storage.integrity import sha256_file
from kubeyolo.storage.place import Place
from tests.prediction.pictures import save
from tests.steps import called
from tests.steps.fixed_detector import fixed_bundle, fixed_manifest, write_data


@dataclass(frozen=True)
class Keys:
    """Files with the private and the public key of a pair."""

    private: Path
    public: Path


def make_keys(folder: Path, name: str) -> Keys:
    key = ed25519.Ed25519PrivateKey.generate()
    keys = Keys(folder / f"{name}.pem", folder / f"{name}-public.pem")
    keys.private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    keys.public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return keys


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return make_keys(tmp_path, "ours")


@pytest.fixture
def other(tmp_path: Path) -> Keys:
    return make_keys(tmp_path, "other")


@pytest.fixture
def signing(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> Keys:
    monkeypatch.setenv(SIGNING_KEY, str(keys.private))
    return keys


@pytest.fixture(params=["file", "minio"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "file":
        return Place.of(tmp_path / "store" / "m")
    return Place.of(f"minio://{request.getfixturevalue('minio_bucket')}/m")


def files_of(folder: Path, content: bytes = b"weights") -> dict[str, Path]:
    (folder / "w").write_bytes(content)
    return {WEIGHTS: folder / "w"}


def folder_of(place: Place) -> Place:
    """Return the folder of the files of a bundle."""
    return place / read_manifest(read_document(place), place.uri).folder


def change_byte(place: Place) -> None:
    content = bytearray(place.read())
    content[len(content) // 2] ^= 1
    place.write(bytes(content))


def test_a_bundle_is_signed_with_the_key_of_the_environment(
    place: Place, signing: Keys, other: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_bundle(place, fixed_manifest(), files_of(tmp_path))
    monkeypatch.setenv(TRUSTED_KEYS, f"{other.public}:{signing.public}")
    assert read_bundle(place).manifest.model == "yolov5n-r7"
    monkeypatch.setenv(TRUSTED_KEYS, other.public.read_text() + signing.public.read_text())
    assert open_bundle(place, tmp_path / "cache").path(WEIGHTS).read_bytes() == b"weights"
    monkeypatch.setenv(TRUSTED_KEYS, str(other.public))
    with pytest.raises(InputError, match=f"{place.uri}: the signature .* trusted key [0-9a-f]{{16}}, or bundle.json"):
        read_bundle(place)


def test_the_signature_goes_with_the_bundle_that_is_replaced(place: Place, signing: Keys, tmp_path: Path) -> None:
    publish_bundle(place, fixed_manifest(), files_of(tmp_path, b"one"))
    publish_bundle(place, fixed_manifest(), files_of(tmp_path, b"two"))
    folder = folder_of(place)
    assert {stored.key for stored in place.store.list()} == {
        MANIFEST_NAME,
        f"{folder.name}/{SIGNATURE_NAME}",
        f"{folder.name}/{WEIGHTS}",
    }


def test_derived_bundles_are_signed_too_and_an_unsigned_bundle_once_it_is_published_or_signed_again(
    place: Place, signing: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SIGNING_KEY)
    made = publish_bundle(place, fixed_manifest(), files_of(tmp_path))
    monkeypatch.setenv(TRUSTED_KEYS, str(signing.public))
    with pytest.raises(InputError, match=f"not signed, .* sign it: kubeyolo sign {place.uri}"):
        read_bundle(place)
    monkeypatch.setenv(SIGNING_KEY, str(signing.private))
    publish_bundle(place, fixed_manifest(), files_of(tmp_path))
    assert read_bundle(place).digest == made.digest
    (folder_of(place) / SIGNATURE_NAME).write(b"\0" * 64)
    assert sign_bundle(place).digest == read_bundle(place).digest == made.digest
    derived = derive_bundle(read_bundle(place), place.parent / "derived", files_of(tmp_path, b"other"))
    assert read_bundle(derived.place).manifest.parent == place.uri


def test_work_whose_bundle_would_be_refused_does_not_begin(
    signing: Keys, other: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = publish_bundle(Place.of(tmp_path / "m"), fixed_manifest(), files_of(tmp_path)).place
    monkeypatch.setenv(TRUSTED_KEYS, f"{signing.public}:{other.public}")
    monkeypatch.delenv(SIGNING_KEY)
    with pytest.raises(InputError, match=f"this work publishes a bundle: set {SIGNING_KEY} to"):
        called.publish(place.uri, str(tmp_path / "store"), "1")
    monkeypatch.setenv(TRUSTED_KEYS, str(signing.public))
    monkeypatch.setenv(SIGNING_KEY, str(other.private))
    with pytest.raises(InputError, match="signed with this key .* would be refused: trusted are"):
        called.publish(place.uri, str(tmp_path / "store"), "1")
    assert not (tmp_path / "store").exists()
    monkeypatch.setenv(SIGNING_KEY, str(signing.private))
    assert called.publish(place.uri, str(tmp_path / "store"), "1").version == "1"


def test_a_damaged_bundle_is_not_signed(place: Place, signing: Keys, tmp_path: Path) -> None:
    publish_bundle(place, fixed_manifest(), files_of(tmp_path))
    folder = folder_of(place)
    place.store.delete(f"{folder.name}/{SIGNATURE_NAME}")
    change_byte(folder / WEIGHTS)
    with pytest.raises(InputError, match=WEIGHTS):
        sign_bundle(place)
    assert not (folder / SIGNATURE_NAME).exists()


DAMAGES = (WEIGHTS, ONNX, MANIFEST_NAME, SIGNATURE_NAME, "missing", "other key", "none")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a signed bundle, its keys, another pair of keys, an image and a stored data set."""
    folder = tmp_path_factory.mktemp("house")
    ours = make_keys(folder, "ours")
    make_keys(folder, "other")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SIGNING_KEY, str(ours.private))
        fixed_bundle(folder, {"onnx": 0})
    save(folder / "photo.png")
    stored = called.validate_dataset(str(write_data(folder / "cells")), str(folder / "store")).dataset
    (folder / "dataset").write_text(stored)
    return folder


@pytest.fixture(params=DAMAGES)
def damage(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def bundle(house: Path, damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the bundle with the damage; only our key is trusted."""
    bundle = Path(shutil.copytree(house / "plain", tmp_path / "bundle"))
    folder = bundle / folder_of(Place.of(bundle)).name
    if damage in (WEIGHTS, ONNX, SIGNATURE_NAME):
        change_byte(Place.of(folder / damage))
    elif damage == MANIFEST_NAME:
        changed = (bundle / damage).read_bytes().replace(b'"disc"', b'"disk"')
        (bundle / damage).write_bytes(changed)
    elif damage == "missing":
        (folder / SIGNATURE_NAME).unlink()
    elif damage == "other key":
        monkeypatch.setenv(SIGNING_KEY, str(house / "other.pem"))
        sign_bundle(Place.of(bundle))
    monkeypatch.delenv(SIGNING_KEY, raising=False)
    monkeypatch.setenv(TRUSTED_KEYS, str(house / "ours-public.pem"))
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path / "cache"))
    return bundle


def refusal(damage: str) -> str:
    if damage in (WEIGHTS, ONNX):
        return f"{damage}: the content does not match its checksum"
    return "this bundle is not signed" if damage == "missing" else "the signature of this bundle was not made with"


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def test_a_bundle_that_is_not_as_it_was_signed_is_not_opened(bundle: Path, damage: str) -> None:
    if damage == "none":
        assert open_bundle(Place.of(bundle)).path(ONNX).is_file()
        return
    with pytest.raises(InputError, match=refusal(damage)):
        open_bundle(Place.of(bundle))


def test_predict_refuses_it(bundle: Path, damage: str, house: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = command("predict", str(house / "photo.png"), "--bundle", str(bundle))
    assert code == (0 if damage == "none" else 2)
    assert damage == "none" or refusal(damage) in capfd.readouterr().err


def test_gate_refuses_it(bundle: Path, damage: str, house: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = (house / "dataset").read_text()
    given = ["--bundle", str(bundle), "--data", data, "--store", str(bundle.parent / "store"), "--min-ap", "0.9"]
    code = command("gate", *given)
    assert code == (0 if damage == "none" else 2)
    assert damage == "none" or refusal(damage) in capfd.readouterr().err


def test_promote_refuses_it_and_moves_no_pointer(
    bundle: Path, damage: str, house: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bundle.parent
    monkeypatch.setenv(SIGNING_KEY, str(house / "ours.pem"))
    record = called.write_record(str(folder / "e"), "evaluate_current", 1, {"bundle": ""}, {})
    latest = folder / "store" / "latest.json"
    given = (str(bundle), "", record, str(latest), str(folder / "store"), str(folder / "out"))
    config, dataset = load_config("yolov5n-r7"), Place.of(folder).pinned("d" * 64).reference
    if damage == "none":
        promoted = called.promote(*given, config, dataset)
        assert latest.is_file() and read_bundle(Place.of(promoted.bundle)).manifest.parent == bundle.as_uri()
        return
    with pytest.raises(InputError, match=refusal(damage)):
        called.promote(*given, config, dataset)
    assert not latest.exists()


def test_openssl_makes_the_keys_and_checks_a_signature(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The commands of docs/security.md."""
    monkeypatch.chdir(tmp_path)
    openssl = [
        "genpkey -algorithm ed25519 -out signing-key.pem",
        "pkey -in signing-key.pem -pubout -out trusted-key.pem",
    ]
    for arguments in openssl:
        subprocess.run(["openssl", *arguments.split()], check=True, capture_output=True)
    bundle = fixed_bundle(tmp_path, {"onnx": 0})
    assert command("sign", bundle) == 2
    assert f"{SIGNING_KEY} is not set" in capfd.readouterr().err
    monkeypatch.setenv(SIGNING_KEY, "signing-key.pem")
    monkeypatch.setenv(TRUSTED_KEYS, "")
    assert command("sign", bundle) == 0
    signer = Signer.from_environment()
    assert signer and f"signed with key {signer.trusted.ids[0]}" in capfd.readouterr().out
    assert command("weights", "export", bundle, "w.safetensors", "--verify-key", "signing-key.pem") == 2
    assert "has no public key in PEM" in capfd.readouterr().err
    assert command("weights", "export", bundle, "w.safetensors", "--verify-key", "trusted-key.pem") == 2
    assert "safetensors" in capfd.readouterr().err, "the signature was accepted, and the file is not one of weights"
    folder = folder_of(Place.of(bundle)).name
    verify = "pkeyutl -verify -pubin -inkey trusted-key.pem -rawin -in plain/bundle.json -sigfile"
    subprocess.run(["openssl", *verify.split(), f"plain/{folder}/{SIGNATURE_NAME}"], check=True, capture_output=True)
    der = "pkey -pubin -in trusted-key.pem -outform DER -out key.der"
    subprocess.run(["openssl", *der.split()], check=True, capture_output=True)
    assert sha256_file(Path("key.der")).startswith(signer.trusted.ids[0])


SECRET = "MC4CAQAwBQYDK2VwBCIEIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


@pytest.mark.parametrize(
    ("variable", "content", "reason"),
    [
        (SIGNING_KEY, None, "there is no such file"),
        (SIGNING_KEY, b"-----BEGIN PRIVATE KEY-----\n" + SECRET[:40].encode(), "not a private key in PEM; make one"),
        (SIGNING_KEY, "rsa", "is not an Ed25519 key; make one: openssl genpkey"),
        (SIGNING_KEY, "password", "has a password"),
        (SIGNING_KEY, b"x" * 70_000, "too large"),
        (TRUSTED_KEYS, None, "there is no such file"),
        (TRUSTED_KEYS, b"", "has no public key in PEM"),
        (TRUSTED_KEYS, "private and public", "has something other than public keys"),
        (TRUSTED_KEYS, "rsa", "has no public key in PEM"),
    ],
)
def test_a_key_that_cannot_be_used_is_named_and_never_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: Keys, variable: str, content: bytes | str | None, reason: str
) -> None:
    path = tmp_path / "key.pem"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "rsa":
        key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    elif content == "password":
        made = ed25519.Ed25519PrivateKey.generate()
        path.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"p")))
    elif content:
        path.write_text(keys.private.read_text() + keys.public.read_text())
    monkeypatch.setenv(variable, str(path))
    with pytest.raises(InputError, match=reason) as error:
        publish_bundle(Place.of(tmp_path / "m"), fixed_manifest(), files_of(tmp_path))
        read_bundle(Place.of(tmp_path / "m"))
    assert str(path) in str(error.value)
    assert "BEGIN" not in str(error.value) and error.value.__cause__ is None


def test_a_key_that_is_given_in_place_of_a_path_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SIGNING_KEY, SECRET)
    with pytest.raises(InputError, match="there is no such file") as error:
        Signer.from_environment()
    assert SECRET[:10] not in str(error.value)


def test_containers_get_the_keys_as_text(keys: Keys, other: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    assert variables_of_containers() == {}
    monkeypatch.setenv(SIGNING_KEY, str(keys.private))
    monkeypatch.setenv(TRUSTED_KEYS, f"{keys.public}{os.pathsep}{other.public}")
    assert variables_of_containers() == {
        SIGNING_KEY: keys.private.read_text(),
        TRUSTED_KEYS: keys.public.read_text() + other.public.read_text(),
    }
