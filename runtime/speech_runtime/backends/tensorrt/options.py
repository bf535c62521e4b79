"""Which of a bundle's TensorRT engines run, and where."""

from dataclasses import dataclass
from typing import get_args

from ...bundle.manifest import Flavor
from ...errors import EngineError
from ..onnxruntime.gpu_options import no_number_of_graphs


@dataclass(frozen=True)
class EngineOptions:
    """How the engines of a bundle run, those that `speech-export --engines` built.

    Attributes:
        device_id: which GPU.
        flavor: TensorRT or TensorRT-RTX; what is installed where it is None.
        cuda_graphs: see `CudaOptions.cuda_graphs`.

    Raises:
        EngineError: a value that is unknown or out of range.
    """

    device_id: int = 0
    flavor: Flavor | None = None
    cuda_graphs: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if not isinstance(self.device_id, int) or isinstance(self.device_id, bool) or self.device_id < 0:
            raise EngineError(f"engine options: device_id is {self.device_id!r}; give 0 (the first GPU) or more")
        if self.flavor is not None and self.flavor not in get_args(Flavor):
            raise EngineError(
                f"engine options: unknown flavor {self.flavor!r}; known are {', '.join(get_args(Flavor))}"
            )
        if problems := list(no_number_of_graphs(self.cuda_graphs)):
            raise EngineError(f"engine options: {problems[0]}")
