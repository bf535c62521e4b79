"""TensorRT or TensorRT-RTX, whichever is there: one API under two names."""

import importlib
from dataclasses import dataclass
from typing import Any, get_args

from ...bundle.manifest import Flavor
from ...errors import EngineError
from ...install_hints import how_to_install

_EXTRAS: dict[Flavor, str] = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}
NAMES: dict[Flavor, str] = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}


@dataclass(frozen=True)
class TensorRt:
    """The imported library.

    Attributes:
        flavor: which of the two it is.
        module: its Python package.
    """

    flavor: Flavor
    module: Any

    @property
    def name(self) -> str:
        """As its makers write it."""
        return NAMES[self.flavor]

    @property
    def version(self) -> str:
        """Of the library; engines of another one are not loaded."""
        return str(self.module.__version__)


class Log:
    """TensorRT's log, of which the last error is kept: its exceptions say nothing.

    Attributes:
        sink: what TensorRT takes as its logger.
        last_error: in TensorRT's words.
    """

    def __init__(self, tensorrt: TensorRt) -> None:
        """Start with no error."""
        self.last_error = "it does not say why"
        trt: Any = tensorrt.module
        log = self

        class Sink(trt.ILogger):  # type: ignore[misc]  # the library has no types
            def log(self, severity: Any, message: str) -> None:
                if severity <= trt.ILogger.ERROR:
                    log.last_error = " ".join(message.split())

        self.sink = Sink()


def import_tensorrt(flavor: Flavor | None = None) -> TensorRt:
    """Import the library of `flavor`; without one, TensorRT where it is installed, TensorRT-RTX elsewhere.

    Raises:
        EngineError: it is not installed, or its own libraries are missing.
    """
    asked: tuple[Flavor, ...] = get_args(Flavor) if flavor is None else (flavor,)
    problems = []
    for candidate in asked:
        try:
            return TensorRt(candidate, importlib.import_module(candidate))
        except (ImportError, OSError, RuntimeError) as error:  # whatever a library that is half there raises
            problems.append(str(error))
    what = " or ".join(NAMES[candidate] for candidate in asked)
    how = " or ".join(how_to_install(_EXTRAS[candidate]) for candidate in asked)
    raise EngineError(f"{what} is needed for engines ({'; '.join(problems)}): {how}")
