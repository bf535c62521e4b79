"""Bundles on the Hugging Face Hub: only the files of a bundle are downloaded, and only they are uploaded."""

import glob
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import BundleError, SpeechError
from .manifest import MANIFEST, Bundle, Manifest
from .regular_files import is_directory

logger = logging.getLogger(__name__)

_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*\Z")


def bundle_directory(
    name: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    engines: bool = False,
) -> Path:
    """Where a bundle is: the directory itself, or what is downloaded of a repository.

    Args:
        name: a directory, or a Hub id, `owner/name`; a `Path` is always a directory.
        revision: branch, tag or commit.
        token: for private repositories; that of `hf auth login` where it is None.
        cache_dir: where downloads are kept.
        local_files_only: take only what is in the cache.
        engines: download its TensorRT engines too, which may be as large as all the rest.

    Returns:
        A directory; what was downloaded is in the cache, its files are links. `Bundle.open` checks them.

    Raises:
        BundleError: huggingface-hub is missing, or the bundle is not there or not to be had.
    """
    if isinstance(name, Path) or is_directory(name) or not _HUB_ID.match(name):
        if revision is not None:
            logger.warning("%s is taken for a directory, which has no revision %s", name, revision)
        return Path(name)
    hub = _client(f"{name} is no directory; to look for it on the Hub")
    where: dict[str, Any] = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
    at = f" at {revision}" if revision else ""
    failure = f"{name} is no directory, and no bundle could be had from the Hub under this name{at}"
    with _explained(failure):
        snapshot = Path(hub.hf_hub_download(name, MANIFEST, revision=revision, **where)).parent
    manifest = Manifest.read(snapshot)
    if manifest.strays:
        raise BundleError(
            f"{failure}: {', '.join(map(repr, manifest.strays))} in its {MANIFEST} points outside the bundle; ask "
            "whoever made it to export it again"
        )
    commit = snapshot.name  # somebody may push another one between the two downloads
    with _explained(failure):
        return Path(hub.snapshot_download(name, revision=commit, allow_patterns=_patterns(manifest, engines), **where))


def push_to_hub(
    directory: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str = "Upload a bundle of speech-export",
) -> str:
    """Check the bundle in `directory` and upload it in one commit, and nothing else that lies beside it.

    Args:
        directory: written by `speech-export`.
        repo_id: `owner/name`; it is made where it is not there.
        private: whether a new repository is, by the owner's default where it is None; one that is there already and
            public is refused where it is True.
        token: that of `hf auth login` where it is None.
        revision: a branch, made where it is not there; "main" where it is None.
        commit_message: of the upload.

    Returns:
        The address of the commit.

    Raises:
        BundleError: the bundle is damaged, huggingface-hub is missing, or the Hub refuses.
    """
    bundle, hub = Bundle.open(directory), _client("to upload a bundle")
    at = f" at {revision}" if revision else ""
    with _explained(f"{directory} could not be uploaded to {repo_id}{at}"):
        repository = hub.create_repo(repo_id, private=private, token=token, exist_ok=True).repo_id
        # `create_repo` leaves the visibility of a repository that is there already as it is.
        if private and not hub.repo_info(repository, token=token).private:
            raise BundleError(
                f"{directory} was not uploaded: {repository} is there already and public, and private is True; make it "
                "private in its settings, or choose another name"
            )
        if revision is not None:
            hub.create_branch(repository, branch=revision, token=token, exist_ok=True)
        commit = hub.upload_folder(
            repo_id=repository,
            folder_path=bundle.directory,
            allow_patterns=_patterns(bundle.manifest, engines=True),
            revision=revision,
            token=token,
            commit_message=commit_message,
        )
    return str(commit.commit_url)


def _patterns(manifest: Manifest, engines: bool) -> list[str]:
    """What matches the files of a bundle and nothing else."""
    built = [path for engine_set in manifest.engines for path in engine_set.paths] if engines else []
    return [glob.escape(name) for name in (MANIFEST, *manifest.files, *built)]


def _client(purpose: str) -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        if error.name != "huggingface_hub":
            raise BundleError(
                f"{purpose}, huggingface-hub is needed. It is there, and cannot be loaded: {error}; see to that, or "
                "install it again"
            ) from error
        raise BundleError(f"{purpose}, huggingface-hub is needed: pip install 'speech-export[hub]'") from error
    return huggingface_hub


@contextmanager
def _explained(failure: str) -> Iterator[None]:
    """Errors of the Hub's client, and of whatever carries its requests, as one that names the remedy."""
    try:
        yield
    except SpeechError:
        raise
    except Exception as error:  # a connection that fails raises the transport's own errors, which have no builtin base
        raise BundleError(f"{failure}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    from huggingface_hub import errors

    access = "give a token, or log in with `hf auth login`"
    if isinstance(error, errors.GatedRepoError):
        return f"access to it is restricted; ask for it on the repository's page, then {access}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no such repository, or you may not see it; check the name, or {access}"
    if isinstance(error, errors.RevisionNotFoundError):
        return "the repository has no such revision; give one of its branches, tags or commits"
    if isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)):
        return (
            "it is not in the cache, and the Hub was not to be asked or did not answer; check the connection, "
            "local_files_only, HF_HUB_OFFLINE and cache_dir"
        )
    if isinstance(error, errors.EntryNotFoundError):
        return f"the repository has no {MANIFEST}, it is not a bundle; export the model first: speech-export MODEL"
    said = " ".join(str(error).split()) or type(error).__name__
    return f"{said}; check the name, the connection and the token ({access})"
