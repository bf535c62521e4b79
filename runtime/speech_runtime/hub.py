"""Bundles on the Hugging Face Hub: only the files of a bundle are downloaded, and only they are uploaded."""

import json
import re
from pathlib import Path
from typing import Any

from .bundle import MANIFEST, Bundle
from .errors import BundleError

_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*\Z")


def bundle_directory(
    name: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """Where a bundle is: the directory itself, or what is downloaded of a repository.

    Args:
        name: a directory, or a Hub id, `owner/name`.
        revision: branch, tag or commit.
        token: for private repositories; that of `hf auth login` where it is None.
        cache_dir: where downloads are kept.
        local_files_only: take only what is in the cache.

    Raises:
        BundleError: huggingface-hub is missing, or the bundle is not there or not to be had.
    """
    if Path(name).is_dir() or not _HUB_ID.match(str(name)):
        return Path(name)
    hub = _client(f"{name} is no directory; to look for it on the Hub")
    where = {"revision": revision, "token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
    try:
        manifest = Path(hub.hf_hub_download(str(name), MANIFEST, **where))
        files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        return Path(hub.snapshot_download(str(name), allow_patterns=[MANIFEST, *files], **where))
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0]
        at = f" at {revision}" if revision else ""
        raise BundleError(
            f"{name} is no directory, and no bundle could be had from the Hub under this name{at}: {reason}; check the "
            "name, and for private repositories the token"
        ) from error


def push_to_hub(
    directory: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    commit_message: str = "Upload a bundle of speech-export",
) -> str:
    """Check the bundle in `directory` and upload it, and nothing else that lies beside it.

    Args:
        directory: written by `speech-export`.
        repo_id: `owner/name`; it is made where it is not there.
        private: whether a new repository is.
        token: that of `hf auth login` where it is None.
        commit_message: of the upload.

    Returns:
        The address of the commit.

    Raises:
        BundleError: the bundle is damaged, huggingface-hub is missing, or the Hub refuses.
    """
    bundle, hub = Bundle.open(directory), _client("to upload a bundle")
    try:
        hub.create_repo(repo_id, private=private, token=token, exist_ok=True)
        commit = hub.upload_folder(
            repo_id=repo_id,
            folder_path=bundle.directory,
            allow_patterns=[MANIFEST, *bundle.manifest.files],
            token=token,
            commit_message=commit_message,
        )
    except (OSError, ValueError) as error:
        raise BundleError(f"{directory} could not be uploaded to {repo_id}: {error}") from error
    return str(commit.commit_url)


def _client(purpose: str) -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise BundleError(f"{purpose}, huggingface-hub is needed: pip install 'speech-export[hub]'") from error
    return huggingface_hub
