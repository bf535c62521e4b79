"""transformers' own `generate`, in float32, in bfloat16, and in either after `torch.compile`."""

import functools
import time
from typing import Any

import torch
from transformers import SpeechEncoderDecoderModel
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from peers.protocol import Job, Sample, Samples, serve, threads_here
from speech_runtime.bench.options import Case

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Transformers:
    """See `Peer`. The variant is `DTYPE` or `DTYPE+compile`."""

    def __init__(self, job: Job) -> None:
        torch.set_num_threads(threads_here())
        dtype, _, compiled = job.variant.partition("+")
        self._dtype, self._free = _DTYPES[dtype], job.audio is not None
        self._model = SpeechEncoderDecoderModel.from_pretrained(job.model, dtype=self._dtype).eval()
        self._calls: dict[str, list[tuple[float, float]]] = {}
        for part in ("encoder", "decoder"):
            module = getattr(self._model, part)
            if compiled:
                module.compile(dynamic=None if part == "encoder" else True)
            self._time(part, module)

    def run(self, case: Case, clips: Samples) -> Sample:
        """See `Peer.run`."""
        lengths = {} if self._free else {"min_new_tokens": case.tokens, "max_new_tokens": case.tokens}
        self._calls = {"encoder": [], "decoder": []}
        with torch.inference_mode():
            begin = time.perf_counter()
            self._model.generate(
                torch.from_numpy(clips).to(self._dtype),
                # transformers' own cache is as long as the encoder of the decoder's configuration has layers: one.
                past_key_values=EncoderDecoderCache(DynamicCache(), DynamicCache()),
                num_beams=case.beams,
                do_sample=False,
                **lengths,
            )
            end = time.perf_counter()
        ((encoder_begin, encoder_end),) = self._calls["encoder"]
        first, *others = [called for called, _ in self._calls["decoder"]]
        per_token = (end - others[0]) / len(others) if others else end - first
        return Sample(encoder_end - encoder_begin, per_token, end - begin)

    def _time(self, part: str, module: torch.nn.Module) -> None:
        """Note when `module` is called; on this one object only."""
        call = module.__call__

        @functools.wraps(module.forward)
        def timed(*arguments: Any, **keywords: Any) -> Any:
            begin = time.perf_counter()
            result = call(*arguments, **keywords)
            self._calls[part].append((begin, time.perf_counter()))
            return result

        wrapper = _Timed(module, timed)
        setattr(self._model, part, wrapper)


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
