"""Speech is private: libraries that report their use over the network are told not to, before they are loaded.

ONNX Runtime reports to Microsoft on Linux and macOS since 1.29, and keeps a device id in the user's cache directory. It
reads its variable only when its library is loaded.
"""

import os
import sys
import warnings

SWITCHES = {"ORT_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
"""Environment variables that turn reports off: ONNX Runtime's, and the Hub client's details about this machine."""


def disable_telemetry() -> None:
    """Set the `SWITCHES` that the user has not set, and warn if ONNX Runtime has been loaded without its own."""
    switch = "ORT_DISABLE_TELEMETRY"
    if "onnxruntime" in sys.modules and switch not in os.environ:
        warnings.warn(
            f"onnxruntime was imported before speech_runtime, and may report its use to Microsoft; set {switch}=1 in "
            "the environment, or import speech_runtime first",
            RuntimeWarning,
            stacklevel=3,
        )
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)
