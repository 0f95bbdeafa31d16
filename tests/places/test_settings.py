"""Endpoints and credentials: where they come from, and that nothing repeats them."""

import json
import pickle
import subprocess
import sys

import pytest

import kloaders as kl
from kloaders.places import settings

KEYS = {"access_key": "AKIDTEST", "secret_key": "verysecret", "session_token": "tokentest"}


@pytest.fixture(autouse=True)
def nothing_given(monkeypatch, tmp_path):
    monkeypatch.setattr(settings, "given", {})
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)


def test_a_bucket_has_settings_of_its_own():
    kl.storage("s3", region="a")
    kl.storage("s3://mine", region="b")
    assert settings.storage_of("s3://mine").region == "b"
    assert settings.storage_of("s3://other").region == "a"
    assert settings.storage_of("gs://other").region is None


def test_credentials_are_in_no_text_and_no_pickle():
    kl.storage("s3", **KEYS)
    found = settings.storage_of("s3://b")
    assert found.secret_key == "verysecret"
    assert not any(value in repr(found) for value in KEYS.values())
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(found)


@pytest.mark.parametrize(
    ("place", "options", "error", "said"),
    [
        (3, {}, TypeError, 'place=3, expected a scheme such as "s3"'),
        ("", {}, TypeError, "expected a scheme"),
        ("s3://bucket/photos", {}, ValueError, "names an object, expected 's3://bucket'"),
        ("s3", {"patience": 0}, ValueError, "patience=0, expected seconds above 0"),
        ("s3", {"patience": "long"}, ValueError, "expected seconds above 0"),
    ],
)
def test_what_is_no_setting(place, options, error, said):
    with pytest.raises(error, match=said.replace("(", r"\(")):
        kl.storage(place, **options)


def test_credentials_of_aws_own_files(tmp_path, monkeypatch):
    """A profile's key and region, where neither the program nor the environment gives others."""
    (tmp_path / "config").write_text("[default]\nregion = eu-west-3\n[profile lab]\nregion = x\n")
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = A\naws_secret_access_key = B\n"
        "[lab]\naws_access_key_id = C\naws_secret_access_key = D\naws_session_token = E\n"
    )
    found = settings.storage_of("s3://b")
    assert (found.region, found.access_key, found.secret_key) == ("eu-west-3", "A", "B")
    monkeypatch.setenv("AWS_PROFILE", "lab")
    found = settings.storage_of("s3://b")
    assert (found.region, found.access_key, found.session_token) == ("x", "C", "E")
    kl.storage("s3", access_key="F", secret_key="G")
    assert settings.storage_of("s3://b").access_key == "F"


def test_a_damaged_file_of_aws_is_none(tmp_path):
    (tmp_path / "credentials").write_text("no section\n")
    assert settings.storage_of("s3://b").access_key is None


def test_a_new_process_is_given_them_once():
    """They come with its environment, and are taken out of it, so that nothing it starts has them."""
    assert settings.exported() == {}
    kl.storage("s3", region="r", **KEYS)
    exported = settings.exported()
    assert json.loads(exported[settings.ENVIRONMENT])["s3"]["secret_key"] == "verysecret"
    code = (
        "import os; from kloaders.places import settings; s = settings.storage_of('s3://b'); "
        "print(s.region, s.secret_key, settings.ENVIRONMENT in os.environ)"
    )
    environment = {**__import__("os").environ, **exported}
    said = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["r", "verysecret", "False"]


def test_who_listens_is_called():
    calls = []
    settings.on_change(lambda: calls.append(1))
    kl.storage("s3", region="a")
    assert calls == [1]
