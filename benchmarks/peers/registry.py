"""The list of peers, and the models that each is compared on."""

from dataclasses import dataclass
from pathlib import Path

from peers.protocol import Planned, missing
from speech_runtime.bench.options import Case

SINGLE = Case(seconds=10, batch=1, beams=5, tokens=40)
BATCH = Case(seconds=10, batch=8, beams=5, tokens=40)
CLIP = Case(seconds=0, batch=1, beams=4, tokens=0)
"""The bundled model on a clip of its own: as long as the clip, and as many tokens as it says."""

TORCH_FLOAT32, TORCH_BFLOAT16 = "transformers float32", "transformers bfloat16"
TORCH_COMPILED, OPENVINO, CTRANSLATE2 = "transformers float32, torch.compile", "OpenVINO bfloat16", "CTranslate2 int8"
PLAIN_FLOAT32, PLAIN_INT8 = "plain ONNX float32", "plain ONNX int8"
OURS_FLOAT32, OURS_INT8 = "speech-export float32", "speech-export int8"


@dataclass(frozen=True)
class Contender:
    """A contender of the comparison.

    Attributes:
        name: in tables and plots.
        module: Name of its file.
        model: Model that it loads.
        cases: Cases that it runs.
        variant: Variant of its file.
        warmups: runs that do not count.
        packages: Import names of the packages that it needs besides those of `dev`.
        recipe: Recipe of `prepare` that makes `model`, if one does.
        why_not: why its model could not be made.
    """

    name: str
    module: str
    model: Path
    cases: tuple[Planned, ...]
    variant: str = ""
    warmups: int = 1
    packages: tuple[str, ...] = ()
    recipe: str | None = None
    why_not: str | None = None

    @property
    def uninstalled(self) -> str | None:
        """Return the missing packages and how to install them; None if all are there."""
        packages = missing(self.packages)
        return f"{', '.join(packages)} not installed: pip install 'speech-export[bench]'" if packages else None

    @property
    def absent(self) -> str | None:
        """Why it cannot be run; None where it can."""
        if uninstalled := self.uninstalled:
            return uninstalled
        return None if self.model.exists() else self.why_not or f"there is no {self.model.name}"


def reference_contenders(build: Path, float32: Path, int8: Path, repeats: int) -> list[Contender]:
    """All on the reference shape; `build` has what `prepare` makes, `float32` and `int8` are bundles."""
    checkpoint, single = build / "checkpoint", (Planned(SINGLE, repeats),)
    both = (*single, Planned(BATCH, 1))
    torch, plain = "peers.transformers_torch", "peers.plain_onnx"
    return [
        Contender(OURS_INT8, "peers.ours", int8, both),
        Contender(TORCH_FLOAT32, torch, checkpoint, single, "float32", recipe="checkpoint"),
        Contender(TORCH_BFLOAT16, torch, checkpoint, both, "bfloat16", recipe="checkpoint"),
        Contender(
            *(OPENVINO, "peers.openvino_encoder", build / "plain-onnx", single, "bf16"),
            packages=("openvino",),
            recipe="plain-onnx",
        ),
        Contender(
            *(CTRANSLATE2, "peers.ctranslate2_decoder", build / "ctranslate2", single, "int8"),
            packages=("ctranslate2",),
            recipe="ctranslate2",
        ),
        Contender(PLAIN_FLOAT32, plain, build / "plain-onnx", single, recipe="plain-onnx"),
        Contender(PLAIN_INT8, plain, build / "plain-onnx-int8", single, recipe="plain-onnx-int8"),
        Contender(OURS_FLOAT32, "peers.ours", float32, single),
        Contender(TORCH_COMPILED, torch, checkpoint, single, "float32+compile", warmups=2, recipe="checkpoint"),
    ]


def digits_contenders(checkpoint: Path, float32: Path, int8: Path, repeats: int) -> list[Contender]:
    """The bundled model: both bundles and transformers."""
    clip, torch = (Planned(CLIP, repeats),), "peers.transformers_torch"
    return [
        Contender(OURS_INT8, "peers.ours", int8, clip),
        Contender(OURS_FLOAT32, "peers.ours", float32, clip),
        Contender(TORCH_FLOAT32, torch, checkpoint, clip, "float32"),
        Contender(TORCH_BFLOAT16, torch, checkpoint, clip, "bfloat16"),
    ]
