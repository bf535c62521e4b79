"""Bundles on the Hub, through its cache and a stub of its client: there is no network in the tests."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest

from conftest import ONE_THREAD, Pair
from speech_runtime import BundleError, OnnxSpeechSeq2Seq, push_to_hub

COMMIT = "2" * 40


@pytest.fixture
def cache(digits: Pair, tmp_path: Path) -> Path:
    """The Hub's cache with a bundle in it, and with a file that is none of the bundle's."""
    repository = tmp_path / "models--someone--digits"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "v1").write_text(COMMIT)
    snapshot = shutil.copytree(digits.directory, repository / "snapshots" / COMMIT)
    (snapshot / "training.log").write_text("not ours")
    return tmp_path


def test_a_hub_id_is_loaded_from_the_cache(digits: Pair, cache: Path) -> None:
    where = {"revision": "v1", "cache_dir": cache, "local_files_only": True}
    model = OnnxSpeechSeq2Seq.from_pretrained("someone/digits", options=ONE_THREAD, **where)
    noise = np.random.default_rng(0).standard_normal((1, 8000)).astype(np.float32)
    np.testing.assert_array_equal(model.generate(noise), digits.exported.generate(noise))
    with pytest.raises(BundleError, match="no bundle could be had from the Hub under this name at v9"):
        OnnxSpeechSeq2Seq.from_pretrained("someone/digits", revision="v9", cache_dir=cache, local_files_only=True)


def test_only_the_files_of_the_bundle_are_asked_for(digits: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda name, file, **where: str(digits.directory / file))

    def snapshot_download(name: str, **keywords: Any) -> str:
        asked.update(keywords, name=name)
        return str(digits.directory)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    OnnxSpeechSeq2Seq.from_pretrained("someone/digits", options=ONE_THREAD, revision="v2", token="hf_secret")
    assert set(asked.pop("allow_patterns")) == {path.name for path in digits.directory.iterdir()}
    expected = {"revision": "v2", "token": "hf_secret", "cache_dir": None, "local_files_only": False}
    assert asked == {"name": "someone/digits", **expected}


def test_a_bundle_is_uploaded_without_what_lies_beside_it(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: dict[str, Any] = {}
    monkeypatch.setattr(
        huggingface_hub, "create_repo", lambda name, **keywords: said.update(repository=name, **keywords)
    )

    def upload_folder(**keywords: Any) -> SimpleNamespace:
        said.update(keywords)
        return SimpleNamespace(commit_url="https://hub/commit")

    monkeypatch.setattr(huggingface_hub, "upload_folder", upload_folder)
    directory = cache / "models--someone--digits" / "snapshots" / COMMIT
    assert push_to_hub(directory, "someone/digits", private=True) == "https://hub/commit"
    assert (said["repository"], said["private"], said["exist_ok"]) == ("someone/digits", True, True)
    assert "bundle.json" in said["allow_patterns"]
    assert "training.log" not in said["allow_patterns"]


def test_a_path_that_is_not_there_is_no_hub_id(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="there is no directory"):
        OnnxSpeechSeq2Seq.from_pretrained(tmp_path / "nowhere")
