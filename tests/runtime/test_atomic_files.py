"""Test the writing of single files: whole or not at all, and devices and pipes stay what they are."""

import os
import stat
import threading
from pathlib import Path

import pytest

from speech_runtime.atomic.writing import write_output


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    write_output(tmp_path / "file", "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "new")]


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe, heard = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: heard.append(pipe.read_text()))
    reader.start()
    write_output(pipe, "new")
    reader.join()
    assert heard == ["new"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.skipif(not hasattr(os, "mknod") or os.geteuid() != 0, reason="only root may make a device")
def test_a_device_is_written_to(tmp_path: Path) -> None:
    null, full = tmp_path / "null", tmp_path / "full"
    try:
        os.mknod(null, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(full, stat.S_IFCHR | 0o666, os.makedev(1, 7))
        write_output(null, "new")
    except PermissionError:
        pytest.skip("this container may make no devices")
    with pytest.raises(OSError, match="No space left"):
        write_output(full, "new")
    assert all(stat.S_ISCHR(path.stat().st_mode) for path in (null, full))
    assert len(list(tmp_path.iterdir())) == 2
