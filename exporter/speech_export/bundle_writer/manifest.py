"""The manifest of a bundle that is being written: its files, producers and quantisation."""

import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from speech_runtime.bundle.formats import FORMAT_VERSION
from speech_runtime.bundle.graph_io import DECODER_WITH_PAST, ENCODER
from speech_runtime.bundle.manifest import MANIFEST, Manifest, Quantization
from speech_runtime.bundle.model_facts import DecoderFacts, EncoderFacts
from speech_runtime.bundle.safe_files import FileFacts

from ..precision.options import PrecisionOptions
from ..sources.composite import Composite

_PRODUCERS = ("speech-export", "torch", "transformers", "onnx", "onnxscript")


def unverified_manifest(
    directory: Path,
    composite: Composite,
    options: PrecisionOptions,
    encoder: EncoderFacts,
    decoder: DecoderFacts,
) -> Manifest:
    """Return the manifest of the files in `directory`, without verification and quantisation.

    Args:
        directory: Directory of the bundle.
        composite: Model that the bundle is exported from.
        options: Precision and target of the bundle.
        encoder: Facts of the encoder.
        decoder: Facts of the decoder.
    """
    return Manifest(
        format_version=FORMAT_VERSION,
        source=composite.source,
        producer={"python": platform.python_version(), **{name: version(name) for name in _PRODUCERS}},
        precision=options.precision,
        target=options.target,
        encoder=encoder,
        decoder=decoder,
        verification=None,
        files=file_facts(directory),
        prompt=composite.prompt,
    )


def file_facts(directory: Path) -> dict[str, FileFacts]:
    """Return size and hash of each file in `directory`, by name, without the manifest."""
    files = (path for path in sorted(directory.iterdir()) if path.is_file() and path.name != MANIFEST)
    return {path.name: FileFacts.of(path) for path in files}


def quantization(options: PrecisionOptions, kept_float32: Sequence[str]) -> Quantization:
    """Return the manifest's record of a conversion.

    Args:
        options: Options of the conversion.
        kept_float32: Names of the parts that stayed float32.
    """
    encoder, decoder = options.of(ENCODER), options.of(DECODER_WITH_PAST)
    any_int4 = "int4" in (encoder, decoder)
    return Quantization(
        encoder=encoder,
        decoder=decoder,
        op_kinds=() if options.halves else options.op_kinds,
        block_size=options.block_size if any_int4 else None,
        accuracy_level=options.accuracy_level if any_int4 else None,
        kept_float32=tuple(kept_float32),
    )
