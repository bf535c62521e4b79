"""Download and upload of bundles on the Hugging Face Hub: the files of the bundle and no others."""

import glob
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import BundleError, SpeechError
from ..install_hints import how_to_install
from ..paths import expanded
from .loading import Bundle
from .manifest import MANIFEST, Manifest
from .safe_files import is_directory, similar_directory

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
    """Return the directory of a bundle, after downloading it where `name` is a repository.

    Args:
        name: Directory, or Hub id `owner/name`; a `Path` is always a directory.
        revision: Branch, tag or commit.
        token: Token for private repositories; None for that of `hf auth login`.
        cache_dir: Directory that downloads are kept in.
        local_files_only: If true, use the cache only.
        engines: If true, download the TensorRT engines too, which may be as large as everything else.

    Returns:
        The directory. Downloaded files are links into the cache; `Bundle.open` checks them.

    Raises:
        BundleError: huggingface-hub is missing, the bundle does not exist, or it cannot be downloaded. A name whose
            owner is a directory here is treated as a path unless `revision` is given.
    """
    if not isinstance(name, str | Path) or not str(name):
        raise BundleError(f"the bundle is {name!r}; give its directory, or an id on the Hub: owner/name")
    name = Path(expanded(name)) if isinstance(name, Path) else expanded(name)
    if Path(name).is_file():
        raise BundleError(f"{name} is a file; give the directory of the bundle: {Path(name).parent}")
    if isinstance(name, Path) or is_directory(name) or not _HUB_ID.match(name):
        if revision is not None:
            logger.warning("%s is a directory, so revision %s is ignored", name, revision)
        return Path(name)
    if revision is None and is_directory(Path(name).parent):  # a misspelt path: the Hub would answer after 20 s
        raise BundleError(f"there is no directory {name}{similar_directory(Path(name))}; {_HUB_REMEDY}")
    hub = _client(f"{name} is not a directory; to look for it on the Hub")
    where: dict[str, Any] = {"token": token, "cache_dir": expanded(cache_dir), "local_files_only": local_files_only}
    at = f" at {revision}" if revision else ""
    failure = f"{name} is not a directory, and no bundle of this name{at} could be downloaded from the Hub"
    if not local_files_only:
        check_reachable(name, MANIFEST, "a bundle", revision=revision, token=token, cache_dir=cache_dir)
    with _explained(failure):
        snapshot = Path(hub.hf_hub_download(name, MANIFEST, revision=revision, **where)).parent
    manifest = Manifest.read(snapshot)
    if manifest.unsafe_names:
        raise BundleError(
            f"{failure}: {', '.join(map(repr, manifest.unsafe_names))} in its {MANIFEST} points outside the bundle; "
            "ask its author to export it again"
        )
    commit = snapshot.name  # another one may be pushed between the two downloads
    with _explained(failure):
        return Path(hub.snapshot_download(name, revision=commit, allow_patterns=_patterns(manifest, engines), **where))


def check_reachable(
    name: str,
    filename: str,
    what: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
) -> None:
    """Ask the Hub once for a file that is not in the cache: without a network its client would try for half a minute.

    Args:
        name: Hub id.
        filename: Name of a file that the repository should have.
        what: What `name` should be, such as "a bundle", for the error.
        revision: Branch, tag or commit.
        token: Token for private repositories.
        cache_dir: Directory that downloads are kept in.

    Raises:
        BundleError: huggingface-hub is missing, or nothing answers. Answers such as "not found" raise nothing here.
    """
    hub = _client(f"{name} is not a directory; to look for it on the Hub")
    cached = hub.try_to_load_from_cache(name, filename, cache_dir=expanded(cache_dir), revision=revision)
    if hub.constants.HF_HUB_OFFLINE or isinstance(cached, str):
        return
    try:
        hub.get_hf_file_metadata(hub.hf_hub_url(name, filename, revision=revision), token=token)
    except hub.errors.HfHubHTTPError:
        return
    except Exception as error:  # errors of the HTTP library, which share no base class
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BundleError(
            f"{name} is not a directory, and the Hub cannot be reached ({reason}); give the directory of {what}, or "
            "check the connection. local_files_only uses what has been downloaded before, without asking"
        ) from error


_HUB_REMEDY = "if it is an id on the Hub, give a revision too, such as 'main'"


def push_to_hub(
    directory: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str = "Upload a bundle of speech-export",
) -> str:
    """Check the bundle in `directory` and upload its files, and no others, in one commit.

    Args:
        directory: Directory that `speech-export` wrote.
        repo_id: Repository `owner/name`; created where it does not exist.
        private: If true, a new repository is private, and an existing public one is refused. None for the owner's
            default.
        token: Token with write access; None for that of `hf auth login`.
        revision: Branch, created where it does not exist; None for "main".
        commit_message: Message of the commit.

    Returns:
        The URL of the commit.

    Raises:
        BundleError: The bundle is damaged, huggingface-hub is missing, or the Hub refuses the upload.
    """
    bundle, hub = Bundle.open(directory), _client("to upload a bundle")
    at = f" at {revision}" if revision else ""
    with _explained(f"{directory} could not be uploaded to {repo_id}{at}"):
        repository = hub.create_repo(repo_id, private=private, token=token, exist_ok=True).repo_id
        # `create_repo` does not change the visibility of an existing repository.
        if private and not hub.repo_info(repository, token=token).private:
            raise BundleError(
                f"{directory} was not uploaded: {repository} exists and is public, and private is True; make it "
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
    """Return patterns that match the files of a bundle and nothing else."""
    built = [path for engine_set in manifest.engines for path in engine_set.paths] if engines else []
    return [glob.escape(name) for name in (MANIFEST, *manifest.files, *built)]


def _client(purpose: str) -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        if error.name != "huggingface_hub":
            raise BundleError(
                f"{purpose}, huggingface-hub is needed. It is installed, but cannot be imported: {error}; fix that, or "
                "install it again"
            ) from error
        raise BundleError(f"{purpose}, huggingface-hub is needed: {how_to_install('hub')}") from error
    return huggingface_hub


@contextmanager
def _explained(failure: str) -> Iterator[None]:
    """Raise a `BundleError` with the remedy for any error of the Hub's client or its HTTP library."""
    try:
        yield
    except SpeechError:
        raise
    except Exception as error:  # a failed connection raises errors of the HTTP library, which share no base class
        raise BundleError(f"{failure}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    from huggingface_hub import errors

    access = "give a token, or log in with `hf auth login`"
    if isinstance(error, errors.GatedRepoError):
        return f"access to it is restricted; ask for it on the repository's page, then {access}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no such repository, or it is private; check the name, or {access}"
    if isinstance(error, errors.RevisionNotFoundError):
        return "the repository has no such revision; give one of its branches, tags or commits"
    if isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)):
        return (
            "it is not in the cache, and the Hub did not answer or offline mode is on; check the connection, "
            "local_files_only, HF_HUB_OFFLINE and cache_dir"
        )
    if isinstance(error, errors.EntryNotFoundError):
        return f"it has no {MANIFEST}, so it is not a bundle; export the model first: speech-export MODEL -o BUNDLE"
    reason = " ".join(str(error).split()) or type(error).__name__
    return f"{reason}; check the name, the connection and the token ({access})"
