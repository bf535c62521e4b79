"""Test that the driver is asked for the free memory by the right names, with the right arguments."""

import ctypes
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from speech_runtime import EngineError
from speech_runtime.backends.cuda.driver import free_memory

FREE = 80 * 2**30


class Driver:
    """A driver's library that checks the order of the calls; `failing` is the name of one that fails."""

    def __init__(self, failing: str = "") -> None:
        self.failing = failing
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            self.calls.append(name)
            if name == self.failing:
                return 201
            getattr(self, f"_{name}", lambda *_: None)(*arguments)
            return 0

        if name.startswith("_"):
            raise AttributeError(name)
        return call

    def _cuDeviceGet(self, device: Any, number: int) -> None:  # noqa: N802 - as the driver names it
        device._obj.value = 10 + number

    def _cuDevicePrimaryCtxRetain(self, context: Any, device: ctypes.c_int) -> None:  # noqa: N802
        assert device.value == 11
        context._obj.value = 77

    def _cuCtxPushCurrent_v2(self, context: ctypes.c_void_p) -> None:  # noqa: N802
        assert context.value == 77

    def _cuMemGetInfo_v2(self, free: Any, total: Any) -> None:  # noqa: N802
        assert self.calls[-2] == "cuCtxPushCurrent_v2"
        free._obj.value, total._obj.value = FREE, 2 * FREE


def test_the_free_memory_is_that_of_the_gpu_and_its_context_is_given_back() -> None:
    driver = Driver()
    assert free_memory(1, driver) == FREE
    assert driver.calls == [
        "cuInit",
        "cuDeviceGet",
        "cuDevicePrimaryCtxRetain",
        "cuCtxPushCurrent_v2",
        "cuMemGetInfo_v2",
        "cuCtxPopCurrent_v2",
        "cuDevicePrimaryCtxRelease_v2",
    ]


def test_a_call_that_fails_is_named_and_the_context_is_given_back() -> None:
    driver = Driver(failing="cuMemGetInfo_v2")
    with pytest.raises(EngineError, match="cuMemGetInfo_v2 failed with 201; check the NVIDIA driver with nvidia-smi"):
        free_memory(1, driver)
    assert driver.calls[-2:] == ["cuCtxPopCurrent_v2", "cuDevicePrimaryCtxRelease_v2"]


def test_the_names_are_those_of_the_driver() -> None:
    """cuda-python declares the functions under these names, and comes with its declarations."""
    pytest.importorskip("cuda.bindings")
    (folder,) = importlib.util.find_spec("cuda.bindings._internal").submodule_search_locations
    declared = set(re.findall(r"\b_(cu\w+)\(", (Path(folder) / "driver.pxd").read_text()))
    called = Driver()
    free_memory(1, called)
    assert set(called.calls) <= declared
