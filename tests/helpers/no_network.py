"""A seccomp filter that kills a process when it opens a socket of the internet, for tests of what phones home.

It works for native code as well, needs no privileges, and is inherited by child processes and threads.
"""

import ctypes
import os
import platform
import signal
import socket
import struct
import sys

KILLED = -signal.SIGSYS
"""Exit code, as `subprocess` reports it, of a process that tried to open one."""

_SOCKET = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
"""Architecture and number of the system call `socket`, by machine: linux/audit.h and the tables of system calls."""
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _KILL_PROCESS = 0x7FFF0000, 0x80000000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
"""Offsets within `seccomp_data`."""
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _SECCOMP_MODE_FILTER = 22, 38, 2


def available() -> bool:
    """Return true where the filter exists: Linux on x86-64 and arm64."""
    return sys.platform == "linux" and platform.machine() in _SOCKET


def forbid_network() -> None:
    """Let this process be killed (SIGSYS) when it opens an IPv4 or IPv6 socket; for `preexec_fn`."""
    architecture, call = _SOCKET[platform.machine()]
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_JUMP_IF_EQUAL, 0, 5, architecture),
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_IF_EQUAL, 0, 3, call),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_JUMP_IF_EQUAL, 2, 0, socket.AF_INET),
        (_JUMP_IF_EQUAL, 1, 0, socket.AF_INET6),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _KILL_PROCESS),
    ]
    instructions = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in program))
    described = ctypes.create_string_buffer(struct.pack("HL", len(program), ctypes.addressof(instructions)))
    system = ctypes.CDLL(None, use_errno=True)
    for arguments in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(described), 0, 0),
    ):
        if system.prctl(*arguments) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
