"""How a sequence ends."""

from typing import Literal

Cut = Literal["length", "time", "stopped"]
"""What cuts a sequence off: its maximal length, `max_time`, or `cancel`."""

Finish = Literal["end"] | Cut
"""How a sequence ended. "end": by an end token, a stop string or a criterion of the caller's.

A token that is forced at the maximal length (`forced_eos_token_id`) does not count: the sequence is cut off there.
"""
