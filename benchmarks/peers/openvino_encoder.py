"""OpenVINO on the plain ONNX encoder, with inference precision f32 or bf16 as its variant."""

import time
from pathlib import Path

import openvino

from peers.protocol import Job, Sample, Samples, serve, threads_here
from speech_runtime.bench.options import Case


class OpenVino:
    """See `Peer`. It has an encoder only: no search that would keep its caches over beams."""

    def __init__(self, job: Job) -> None:
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads_here(),
            "INFERENCE_PRECISION_HINT": job.variant,
        }
        model = openvino.Core().read_model(str(Path(job.model) / "encoder.onnx"))
        self._request = openvino.compile_model(model, "CPU", settings).create_infer_request()

    def run(self, case: Case, clips: Samples) -> Sample:  # noqa: ARG002 - there is nothing to search
        """See `Peer.run`."""
        begin = time.perf_counter()
        self._request.infer([clips])
        return Sample(encoder=time.perf_counter() - begin)


if __name__ == "__main__":
    serve(OpenVino)
