"""Test bundles from the Hub: files come from a cache made by hand, answers of the Hub from stubs."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import errors

from conftest import ONE_THREAD, Pair
from handmade_bundle import add_engine_set, make_bundle
from speech_runtime import Bundle, BundleError, OnnxSpeechSeq2Seq
from speech_runtime.bundle.hub import bundle_directory, check_reachable

COMMIT = "0123456789" * 4
REPOSITORY = "someone/digits"
BYSTANDERS = ("README.md", "pytorch_model.bin", "sub/encoder.onnx")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "made", external_data=True)


@pytest.fixture
def cache(bundle: Path, tmp_path: Path) -> Path:
    """The cache that the Hub's client writes: content under its hash, links under the commit."""
    repository = tmp_path / "cache" / "models--someone--digits"
    snapshot = repository / "snapshots" / COMMIT
    for folder in (repository / "blobs", repository / "refs", snapshot):
        folder.mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    for number, file in enumerate(sorted(bundle.iterdir())):
        shutil.copy(file, repository / "blobs" / f"{number:040}")
        (snapshot / file.name).symlink_to(Path("../..") / "blobs" / f"{number:040}")
    return tmp_path / "cache"


class StubHub:
    """The Hub's client over a repository of files; knows what it was asked."""

    def __init__(self, files: Path, cache: Path) -> None:
        self.files, self.snapshot = files, cache / "snapshots" / COMMIT
        self.asked: list[dict[str, Any]] = []

    def hf_hub_download(self, repo_id: str, filename: str, **settings: Any) -> str:
        self.asked.append({"repo_id": repo_id, "filename": filename, **settings})
        self._get(filename)
        return str(self.snapshot / filename)

    def snapshot_download(self, repo_id: str, *, allow_patterns: list[str], **settings: Any) -> str:
        self.asked.append({"repo_id": repo_id, **settings})
        names = [path.relative_to(self.files).as_posix() for path in self.files.rglob("*") if path.is_file()]
        for name in huggingface_hub.utils.filter_repo_objects(names, allow_patterns=allow_patterns):
            self._get(name)
        return str(self.snapshot)

    def _get(self, name: str) -> None:
        (self.snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.files / name, self.snapshot / name)


@pytest.fixture
def hub(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StubHub:
    for name in BYSTANDERS:
        (bundle / name).parent.mkdir(exist_ok=True)
        (bundle / name).write_text("no part of the bundle")
    stub = StubHub(bundle, tmp_path / "downloaded")
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url, token: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", stub.hf_hub_download)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", stub.snapshot_download)
    return stub


def change_files(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((bundle / "bundle.json").read_text())
    change(content["files"])
    (bundle / "bundle.json").write_text(json.dumps(content))


def test_only_the_files_of_the_bundle_are_downloaded(bundle: Path, hub: StubHub) -> None:
    model = OnnxSpeechSeq2Seq.from_pretrained(REPOSITORY, revision="v2", token="secret", cache_dir="/cache")
    assert model.manifest == Bundle.open(bundle).manifest
    downloaded = {path.relative_to(hub.snapshot).as_posix() for path in hub.snapshot.rglob("*") if path.is_file()}
    assert downloaded == {"bundle.json", *model.manifest.files}
    reach = {"repo_id": REPOSITORY, "token": "secret", "cache_dir": "/cache", "local_files_only": False}
    assert hub.asked == [reach | {"filename": "bundle.json", "revision": "v2"}, reach | {"revision": COMMIT}]


@pytest.mark.parametrize("wanted", [False, True])
def test_engines_are_downloaded_where_they_are_wanted(wanted: bool, bundle: Path, hub: StubHub) -> None:
    engines = add_engine_set(bundle)
    directory = bundle_directory(REPOSITORY, engines=wanted)
    assert [(directory / path).exists() for path in engines.paths] == [wanted] * 3
    assert Bundle.open(directory).manifest.engines == (engines,)


def test_names_that_look_like_patterns_match_only_themselves(bundle: Path, hub: StubHub) -> None:
    (bundle / "vocab[1]*.txt").write_text("listed")
    (bundle / "vocab1.txt").write_text("not listed")
    facts = {"size": 6, "sha256": "7d76d48d64d7ac5411d714a4bb83f37e3e5b8df6"}
    change_files(bundle, lambda files: files.update({"vocab[1]*.txt": facts}))
    assert {path.name for path in bundle_directory(REPOSITORY).glob("vocab*")} == {"vocab[1]*.txt"}


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "sub/encoder.onnx"])
def test_a_bundle_that_points_elsewhere_is_not_downloaded(name: str, bundle: Path, hub: StubHub) -> None:
    change_files(bundle, lambda files: files.update({name: {"size": 1, "sha256": ""}}))
    with pytest.raises(BundleError, match=r"from the Hub: '.*' in its bundle\.json points outside the bundle"):
        OnnxSpeechSeq2Seq.from_pretrained(REPOSITORY)
    assert [path.name for path in hub.snapshot.iterdir()] == ["bundle.json"]


def test_damage_on_the_way_is_noticed(bundle: Path, hub: StubHub) -> None:
    (bundle / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match=r"tokenizer\.json has 2 bytes instead of"):
        OnnxSpeechSeq2Seq.from_pretrained(REPOSITORY)


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_a_bundle_in_the_cache_is_run_through_its_links(cache: Path, bundle: Path, revision: str | None) -> None:
    here = {"cache_dir": cache, "local_files_only": True}
    directory = bundle_directory(REPOSITORY, revision=revision, **here)
    assert directory.name == COMMIT
    assert (directory / "encoder.onnx.data").is_symlink()
    assert Bundle.open(directory).manifest == Bundle.open(bundle).manifest
    assert OnnxSpeechSeq2Seq.from_pretrained(REPOSITORY, revision=revision, **here).tokenizer is not None


def test_a_bundle_from_the_hub_says_the_same(digits: Pair, tmp_path: Path) -> None:
    repository = tmp_path / "models--someone--digits"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "v1").write_text(COMMIT)
    shutil.copytree(digits.directory, repository / "snapshots" / COMMIT)
    where = {"revision": "v1", "cache_dir": tmp_path, "local_files_only": True}
    model = OnnxSpeechSeq2Seq.from_pretrained(REPOSITORY, options=ONE_THREAD, **where)
    noise = np.random.default_rng(0).standard_normal((1, 8000)).astype(np.float32)
    np.testing.assert_array_equal(model.generate(noise), digits.exported.generate(noise))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"name": "someone/else"},
            "someone/else is not a directory, and no bundle of this name could be downloaded from the Hub",
        ),
        (
            {"revision": "v9"},
            "no bundle of this name at v9 could be downloaded from the Hub: it is not in the cache",
        ),
        ({}, "check the connection, local_files_only, HF_HUB_OFFLINE and cache_dir"),
    ],
)
def test_what_is_not_in_the_cache_is_named(settings: dict[str, Any], message: str, cache: Path, tmp_path: Path) -> None:
    cache_dir = cache if settings else tmp_path / "empty"
    with pytest.raises(BundleError, match=message):
        bundle_directory(settings.pop("name", REPOSITORY), cache_dir=cache_dir, local_files_only=True, **settings)


def test_a_half_downloaded_bundle_lists_what_is_missing(cache: Path) -> None:
    (cache / "models--someone--digits" / "snapshots" / COMMIT / "decoder_init.onnx").unlink()
    with pytest.raises(BundleError, match=r"decoder_init\.onnx"):
        OnnxSpeechSeq2Seq.from_pretrained(REPOSITORY, cache_dir=cache, local_files_only=True)


def test_offline_the_cache_is_enough(cache: Path) -> None:
    code = f"from speech_runtime.bundle.hub import bundle_directory; print(bundle_directory({REPOSITORY!r}))"
    environment = {**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip().endswith(COMMIT)


def answer(kind: type[errors.HfHubHTTPError]) -> Exception:
    return kind("what the Hub\nsaid", response=SimpleNamespace(headers={}, request=None))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            answer(errors.RepositoryNotFoundError),
            "no such repository, or it is private; check the name, or give a token",
        ),
        (answer(errors.GatedRepoError), "access to it is restricted; ask for it on the repository's page"),
        (answer(errors.RevisionNotFoundError), "no such revision; give one of its branches, tags or commits"),
        (
            answer(errors.RemoteEntryNotFoundError),
            r"has no bundle\.json, so it is not a bundle; export the",
        ),
        (errors.OfflineModeIsEnabled("offline"), "HF_HUB_OFFLINE"),
        (answer(errors.HfHubHTTPError), "what the Hub said; check the name, the connection and the token"),
        (ConnectionError(), "ConnectionError; check the name, the connection"),
    ],
)
def test_each_answer_of_the_hub_has_its_remedy(error: Exception, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url, token: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(BundleError, match=message) as raised:
        OnnxSpeechSeq2Seq.from_pretrained("someone/digits", revision="v2")
    assert str(raised.value).startswith("someone/digits is not a directory")
    assert "no bundle of this name at v2 could be downloaded from the Hub: " in str(raised.value)


def test_without_a_network_nothing_is_tried_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its client would try six times, in 24 s."""
    asked = []

    def no_network(url: str, token: str | None) -> None:
        asked.append(url)
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", no_network)
    with pytest.raises(BundleError, match=r"be reached \(Name or service not known\); give the directory of a bundle"):
        OnnxSpeechSeq2Seq.from_pretrained("someone/digits", cache_dir=tmp_path)
    assert len(asked) == 1
    assert asked[0].endswith("someone/digits/resolve/main/bundle.json")


def test_what_is_in_the_cache_is_not_asked_for_first(
    cache: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: Any, **__: Any) -> None:
        raise AssertionError("asked")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", no_network)
    check_reachable(REPOSITORY, "bundle.json", "a bundle", cache_dir=cache)


@pytest.mark.parametrize("name", [None, "", 3])
def test_what_is_no_name_is_refused(name: Any) -> None:
    with pytest.raises(BundleError, match=r"^the bundle is .*; give its directory, or an id on the Hub"):
        bundle_directory(name)


def test_a_file_is_no_bundle_and_its_directory_is_named(bundle: Path) -> None:
    with pytest.raises(BundleError, match=rf"bundle\.json is a file; give the directory of the bundle: {bundle}$"):
        bundle_directory(str(bundle / "bundle.json"))


def test_a_home_directory_is_found(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(bundle.parent))
    assert bundle_directory(f"~/{bundle.name}") == bundle


def test_a_directory_is_a_directory(bundle: Path, hub: StubHub, monkeypatch: pytest.MonkeyPatch) -> None:
    (bundle.parent / "someone").mkdir()
    (bundle.parent / REPOSITORY).symlink_to(bundle)
    monkeypatch.chdir(bundle.parent)
    assert bundle_directory(REPOSITORY) == Path(REPOSITORY)
    assert bundle_directory(Path("someone/else")) == Path("someone/else")
    assert hub.asked == []


@pytest.mark.parametrize(
    "name", ["./digits", "../digits", "/nowhere/digits", "a/b/digits", "digits/", "~/digits", "digits"]
)
def test_what_cannot_be_a_repository_is_not_looked_for(name: str, hub: StubHub) -> None:
    with pytest.raises(BundleError, match="there is no directory|is not a bundle"):
        OnnxSpeechSeq2Seq.from_pretrained(name)
    assert hub.asked == []


def test_a_revision_of_a_directory_is_logged(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert bundle_directory(str(bundle), revision="v2") == bundle
    assert "is a directory, so revision v2 is ignored" in caplog.text


def test_an_unknown_setting_is_refused(bundle: Path) -> None:
    with pytest.raises(TypeError, match="revison"):
        OnnxSpeechSeq2Seq.from_pretrained(bundle, revison="v2")  # type: ignore[call-arg]


def test_without_the_client_the_extra_is_named(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(BundleError, match=r"someone/digits is not a directory; .* pip install 'speech-export\[hub\]'"):
        OnnxSpeechSeq2Seq.from_pretrained(REPOSITORY)


def test_a_misspelt_path_is_not_looked_for_on_the_hub(
    hub: StubHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "build" / "digits").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match=r"directory build/digts \(did you mean build/digits\?\); if it is an id"):
        bundle_directory("build/digts")
    with pytest.raises(BundleError, match=r"no directory build/digts \(did you mean build/digits\?\); export a model"):
        Bundle.open(bundle_directory("./build/digts"))
    assert hub.asked == []
    for path in ("./digts", "../digts", "/digts", "build/digits/digts"):
        with pytest.raises(BundleError, match="there is no directory"):
            Bundle.open(bundle_directory(path))
    assert hub.asked == []
    assert bundle_directory("build/digts", revision="main").is_dir()  # an id, since it has a revision
