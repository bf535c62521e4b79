"""Opening a bundle: its files are checked, and all come from the same bundle even if it is replaced meanwhile."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..dataclass_json import listed, shown
from ..errors import BundleError, SpeechError
from ..paths import expanded
from .external_data import external_data_problems
from .manifest import MANIFEST, REQUIRED_FILES, Manifest, pinned_bundle
from .safe_files import PinnedDirectory, read_json, unreadable

Loaded = TypeVar("Loaded")

_TRIES = 10


@dataclass(frozen=True)
class Bundle:
    """A checked bundle on disk.

    Attributes:
        directory: Directory of the bundle, for messages.
        manifest: Its manifest.
        root: Path to read its files through while it is pinned; None to read them through `directory`.
    """

    directory: Path
    manifest: Manifest
    root: Path | None = None

    @classmethod
    def open(cls, directory: str | Path, *, check_hashes: bool = True) -> "Bundle":
        """Read and check the bundle in `directory`.

        Args:
            directory: Directory that `speech-export` wrote.
            check_hashes: If true, compare the SHA-256 of every file, which takes about a second for 2 GB. Sizes are
                always compared.

        Raises:
            BundleError: There is no bundle, or it is damaged; all problems are listed.
        """
        directory = Path(expanded(directory))
        with pinned_bundle(directory) as pin:
            return cls(directory, _of_pinned(directory, pin, check_hashes=check_hashes).manifest)

    def path(self, name: str) -> Path:
        """Return the path of the file `name` of this bundle."""
        return (self.root or self.directory) / name

    def has(self, name: str) -> bool:
        """Return whether the bundle has the file `name`."""
        return name in self.manifest.files

    @property
    def size(self) -> int:
        """Size of all files in bytes, the manifest and engines aside."""
        return sum(file.size for file in self.manifest.files.values())


def load_whole(directory: str | Path, load: Callable[[Bundle], Loaded], *, check_hashes: bool = True) -> Loaded:
    """Load the bundle in `directory` with `load` and return the result, never one of parts of two bundles.

    The directory is held open and its files are read through it. If one of them changes before `load` returns, it is
    loaded again.

    Args:
        directory: Directory of the bundle.
        load: Function that reads the files of a checked bundle. It must not keep their paths.
        check_hashes: See `Bundle.open`.

    Raises:
        BundleError: There is no bundle, it is damaged, or it is replaced again and again.
        SpeechError: Raised by `load`; paths in its message are those of `directory`.
    """
    directory = Path(directory)
    for _ in range(_TRIES):
        with pinned_bundle(directory) as pin:
            try:
                loaded = load(_of_pinned(directory, pin, check_hashes=check_hashes))
            except SpeechError as error:
                if pin.unchanged():
                    raise _named(error, pin.path, directory) from error.__cause__
                continue
            except Exception:
                if pin.unchanged():
                    raise
                continue
            if pin.unchanged():
                return loaded
    raise BundleError(
        f"the bundle {directory} was replaced {_TRIES} times while it was loaded; try again when nobody writes to it"
    )


def _of_pinned(directory: Path, pin: PinnedDirectory, *, check_hashes: bool) -> Bundle:
    """Read and check the bundle in a pinned directory, and watch every file of it; see `Bundle.open`."""
    pin.watch(MANIFEST)
    manifest = Manifest.read_through(pin.path, directory)
    if problems := list(_file_problems(pin, manifest, check_hashes)):
        raise BundleError(
            f"the bundle {directory} is damaged: {listed(problems)}. Copy it again, or export it again "
            "with speech-export"
        )
    return Bundle(directory, manifest, pin.path)


def read_configuration(path: Path) -> dict[str, Any]:
    """Read a JSON file of settings in a bundle, such as its generation_config.json.

    Raises:
        BundleError: The file cannot be read, or is not a JSON object.
    """
    try:
        content = read_json(path)
        if not isinstance(content, dict):
            raise ValueError("it is not an object of settings")
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read: {unreadable(error)}; export the model again") from error
    return content


def _file_problems(pin: PinnedDirectory, manifest: Manifest, check_hashes: bool) -> Iterator[str]:
    yield from (f"{name} is not in {MANIFEST}" for name in REQUIRED_FILES if name not in manifest.files)
    unsafe = manifest.unsafe_names
    yield from (f"{shown(name)} points outside the bundle" for name in unsafe)
    names = manifest.files.keys() - unsafe
    sizes = {name: manifest.files[name].size for name in names}
    for name in sorted(names):
        path = pin.watch(name)
        if problem := manifest.files[name].problem(path, "the export", check_hashes=check_hashes):
            yield problem
        elif name.endswith(".onnx"):
            yield from external_data_problems(path, sizes)


def _named(error: SpeechError, through: Path, directory: Path) -> SpeechError:
    """Return the error with the directory's own name instead of the path that its files were read through."""
    return type(error)(str(error).replace(str(through), str(directory)))
