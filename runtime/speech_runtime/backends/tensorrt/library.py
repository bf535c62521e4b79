"""TensorRT or TensorRT-RTX, whichever is installed: one API under two names."""

import importlib
import logging
from dataclasses import dataclass
from typing import Any, get_args

from ...bundle.manifest import Flavor
from ...errors import EngineError
from ...install_hints import how_to_install
from ..engine_messages import in_one_line

logger = logging.getLogger(__name__)

_EXTRAS: dict[Flavor, str] = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}
NAMES: dict[Flavor, str] = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT-RTX"}


@dataclass(frozen=True)
class TensorRt:
    """The imported library.

    Attributes:
        flavor: TensorRT or TensorRT-RTX.
        module: Python package of the library.
    """

    flavor: Flavor
    module: Any

    @property
    def name(self) -> str:
        """Name for messages."""
        return NAMES[self.flavor]

    @property
    def version(self) -> str:
        """Version of the library; it loads only engines of the same version."""
        return str(self.module.__version__)


class Log:
    """TensorRT's log. It keeps the last error, since TensorRT's exceptions have no text.

    Attributes:
        sink: Logger to pass to TensorRT.
        last_error: Last error, in TensorRT's words, in one line.
    """

    def __init__(self, tensorrt: TensorRt) -> None:
        """Begin without an error."""
        self.last_error = "TensorRT gives no reason"
        trt: Any = tensorrt.module
        log = self

        class Sink(trt.ILogger):  # type: ignore[misc]  # the library has no types
            def log(self, severity: Any, message: str) -> None:
                if severity <= trt.ILogger.ERROR:
                    logger.debug("%s", message)
                    log.last_error = in_one_line(message)

        self.sink = Sink()


def import_tensorrt(flavor: Flavor | None = None) -> TensorRt:
    """Import the library of `flavor`; if it is None, TensorRT, or TensorRT-RTX if TensorRT is not installed.

    Raises:
        EngineError: The library is not installed, or libraries that it needs are missing.
    """
    flavors: tuple[Flavor, ...] = get_args(Flavor) if flavor is None else (flavor,)
    problems = []
    for candidate in flavors:
        try:
            return TensorRt(candidate, importlib.import_module(candidate))
        except (
            ImportError,
            OSError,
            RuntimeError,
        ) as error:  # an incomplete library raises any of these
            problems.append(str(error))
    libraries = " or ".join(NAMES[candidate] for candidate in flavors)
    how = " or ".join(how_to_install(_EXTRAS[candidate]) for candidate in flavors)
    raise EngineError(f"{libraries} is needed for engines ({'; '.join(problems)}): {how}")
