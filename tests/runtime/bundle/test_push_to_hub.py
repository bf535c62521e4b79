"""Test uploads to the Hub: the calls that its client receives. No test uses the network."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

from handmade_bundle import add_engine_set, make_bundle
from speech_runtime import Bundle, BundleError, push_to_hub

REPOSITORY = "someone/digits"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "made", external_data=True)


@pytest.fixture
def pushed(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """The calls that the Hub received, in order; it adds the user's name to a repository without one."""
    calls: dict[str, dict[str, Any]] = {}

    def create_repo(repo_id: str, **settings: Any) -> Any:
        calls["create_repo"] = {"repo_id": repo_id, **settings}
        return SimpleNamespace(repo_id=repo_id if "/" in repo_id else f"me/{repo_id}")

    def upload_folder(**settings: Any) -> Any:
        calls["upload_folder"] = settings
        return SimpleNamespace(commit_url=f"hub/{settings['repo_id']}/commit/1")

    monkeypatch.setattr(huggingface_hub, "create_repo", create_repo)
    monkeypatch.setattr(huggingface_hub, "upload_folder", upload_folder)
    monkeypatch.setattr(huggingface_hub, "repo_info", lambda repo_id, token: SimpleNamespace(private=True))
    monkeypatch.setattr(
        huggingface_hub, "create_branch", lambda repo_id, **s: calls.update(create_branch={"repo_id": repo_id, **s})
    )
    return calls


def test_only_the_files_of_the_bundle_are_pushed(bundle: Path, pushed: dict[str, dict[str, Any]]) -> None:
    (bundle / "sub").mkdir()
    engines = add_engine_set(bundle)
    for name in ("README.md", "training.log", "sub/encoder.onnx", "engines/tensorrt_rtx-0/timing.cache"):
        (bundle / name).write_text("no part of the bundle")
    url = push_to_hub(bundle, "digits", private=True, token="secret", commit_message="A better one")
    assert url == "hub/me/digits/commit/1"
    assert pushed["create_repo"] == {"repo_id": "digits", "private": True, "token": "secret", "exist_ok": True}
    sent = pushed["upload_folder"]
    expected = ("me/digits", bundle, "secret", None, "A better one")
    assert tuple(sent[key] for key in ("repo_id", "folder_path", "token", "revision", "commit_message")) == expected
    names = [path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()]
    uploaded = huggingface_hub.utils.filter_repo_objects(names, allow_patterns=sent["allow_patterns"])
    assert set(uploaded) == {"bundle.json", *Bundle.open(bundle).manifest.files, *engines.paths}
    assert "create_branch" not in pushed


def test_a_branch_is_made_where_there_is_none(bundle: Path, pushed: dict[str, dict[str, Any]]) -> None:
    push_to_hub(bundle, "org/digits", revision="int8")
    assert pushed["create_branch"] == {"repo_id": "org/digits", "branch": "int8", "token": None, "exist_ok": True}
    assert pushed["upload_folder"]["revision"] == "int8"
    assert pushed["upload_folder"]["commit_message"] == "Upload a bundle of speech-export"


def test_a_damaged_bundle_is_not_pushed(bundle: Path, pushed: dict[str, dict[str, Any]]) -> None:
    (bundle / "generation_config.json").write_text("{}")
    with pytest.raises(BundleError, match="is damaged"):
        push_to_hub(bundle, REPOSITORY)
    assert pushed == {}


def test_a_repository_that_is_public_stays_untouched(
    bundle: Path, pushed: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "repo_info", lambda repo_id, token: SimpleNamespace(private=False))
    with pytest.raises(BundleError, match="someone/digits exists and is public, and private is True"):
        push_to_hub(bundle, REPOSITORY, private=True)
    assert "upload_folder" not in pushed


def test_a_refused_push_names_both_ends(
    bundle: Path, pushed: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise errors.HfHubHTTPError("what the Hub\nsaid", response=SimpleNamespace(headers={}, request=None))

    monkeypatch.setattr(huggingface_hub, "create_repo", refuse)
    with pytest.raises(
        BundleError, match="made could not be uploaded to someone/digits at v2: what the Hub said; check"
    ):
        push_to_hub(bundle, REPOSITORY, revision="v2")


def test_no_connection_is_an_error_of_ours(
    bundle: Path, pushed: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class TransportError(Exception):
        """Those of the client's HTTP library inherit from nothing else."""

    def refuse(*_: Any, **__: Any) -> None:
        raise TransportError("Name or service not known")

    monkeypatch.setattr(huggingface_hub, "upload_folder", refuse)
    with pytest.raises(BundleError, match="Name or service not known; check the name, the connection"):
        push_to_hub(bundle, REPOSITORY)


def test_without_the_client_the_extra_is_named(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(BundleError, match=r"pip install 'speech-export\[hub\]'"):
        push_to_hub(bundle, REPOSITORY)
