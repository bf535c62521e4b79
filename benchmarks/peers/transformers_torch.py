"""transformers' own `generate`, on a CPU or a GPU, with and without `torch.compile`.

The variant is `DTYPE[@DEVICE][+compile][+static]`: `float16@cuda+static+compile`, for example. `compile` compiles
encoder and decoder, `static` gives the decoder a cache of fixed length. A model without weights gets random ones.
"""

import functools
import time
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, SpeechEncoderDecoderConfig, SpeechEncoderDecoderModel
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache, StaticLayer

from peers.protocol import Job, Sample, Samples, serve, threads_here
from speech_runtime.bench.options import Case

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_ROOM = 8
"""Tokens and frames of a static cache are a multiple of this, for aligned kernels."""


class Transformers:
    """See `Peer`."""

    def __init__(self, job: Job) -> None:
        torch.set_num_threads(threads_here())
        kind, *flags = job.variant.split("+")
        dtype, _, device = kind.partition("@")
        self._dtype, self._device, self._free = _DTYPES[dtype], device or "cpu", job.audio is not None
        self._model = _model(Path(job.model), self._dtype, self._device)
        self._static = "static" in flags
        self._calls: dict[str, list[tuple[float, float]]] = {}
        for part in ("encoder", "decoder"):
            module = getattr(self._model, part)
            if "compile" in flags:
                # The shapes of a static cache stay the same, and CUDA graphs record what does not change.
                fixed = {"mode": "reduce-overhead", "dynamic": False}
                dynamic = {"dynamic": None if part == "encoder" else True}
                module.compile(**(fixed if self._static else dynamic))
            self._time(part, module)

    def run(self, case: Case, clips: Samples) -> Sample:
        """See `Peer.run`."""
        lengths = {} if self._free else {"min_new_tokens": case.tokens, "max_new_tokens": case.tokens}
        self._calls = {"encoder": [], "decoder": []}
        with torch.inference_mode():
            inputs = torch.from_numpy(clips).to(self._dtype).to(self._device)
            begin = self._now()
            self._model.generate(
                inputs,
                past_key_values=self._cache(case),
                num_beams=case.beams,
                do_sample=False,
                disable_compile=True,  # of the whole model, which is compiled by its parts
                **lengths,
            )
            end = self._now()
        ((encoder_begin, encoder_end),) = self._calls["encoder"]
        first, *others = [called for called, _ in self._calls["decoder"]]
        per_token = (end - others[0]) / len(others) if others else end - first
        return Sample(encoder_end - encoder_begin, per_token, end - begin)

    def _cache(self, case: Case) -> EncoderDecoderCache:
        """Return an empty cache; transformers would count the layers of the encoder in the decoder's configuration."""
        if not self._static:
            return EncoderDecoderCache(DynamicCache(), DynamicCache())
        config = self._model.decoder.config
        layers = getattr(config, "decoder_layers", config.num_hidden_layers)
        room = -(-(case.tokens + 1) // _ROOM) * _ROOM
        return EncoderDecoderCache(Cache(layers=[StaticLayer(room) for _ in range(layers)]), DynamicCache())

    def _now(self) -> float:
        """Return the time at which the work so far is done."""
        if self._device != "cpu":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def _time(self, part: str, module: torch.nn.Module) -> None:
        """Note when `module` is called; on this one object only."""
        call = module.__call__

        @functools.wraps(module.forward)
        def timed(*arguments: Any, **keywords: Any) -> Any:
            begin = time.perf_counter()
            result = call(*arguments, **keywords)
            # `generate` waits for each step itself, when it asks whether the search is over.
            self._calls[part].append((begin, self._now() if part == "encoder" else time.perf_counter()))
            return result

        wrapper = _Timed(module, timed)
        setattr(self._model, part, wrapper)


def _model(directory: Path, dtype: torch.dtype, device: str) -> Any:
    if any(directory.glob("*.safetensors")):
        return SpeechEncoderDecoderModel.from_pretrained(directory, dtype=dtype).eval().to(device)
    with torch.device(device):
        model = SpeechEncoderDecoderModel(SpeechEncoderDecoderConfig.from_pretrained(directory)).eval()
    model.generation_config = GenerationConfig.from_pretrained(directory)
    return model.to(dtype)


class _Timed(torch.nn.Module):
    """A module whose calls are timed; all else is asked of the module itself."""

    def __init__(self, module: torch.nn.Module, timed: Any) -> None:
        super().__init__()
        self.module = module
        self.forward = timed

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


if __name__ == "__main__":
    serve(Transformers)
