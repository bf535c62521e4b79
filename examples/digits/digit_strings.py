"""The texts: strings of one to eight English digits, and those that are held out from training."""

from __future__ import annotations

import zlib

import numpy as np

DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LONGEST_STRING = 8

_HELD_OUT_SHARE = 10
SHORTEST_HELD_OUT = 3

Digits = tuple[int, ...]


def spell(digits: Digits) -> str:
    """``(7, 3, 9)`` -> ``"seven three nine"``."""
    return " ".join(DIGIT_WORDS[digit] for digit in digits)


def is_held_out(digits: Digits) -> bool:
    """Return True if the text is held out for evaluation: a fixed tenth of the strings of three digits or more.

    There are too few shorter strings to keep any of them from the model.
    """
    if len(digits) < SHORTEST_HELD_OUT:
        return False
    return zlib.crc32(spell(digits).encode("ascii")) % _HELD_OUT_SHARE == 0


def draw_digits(random: np.random.Generator, length: int, doubled: float = 0.0) -> Digits:
    """A random string of `length` digits; with probability `doubled` one digit repeats its neighbour."""
    digits = [int(digit) for digit in random.integers(0, 10, length)]
    if length > 1 and random.random() < doubled:
        position = int(random.integers(1, length))
        digits[position] = digits[position - 1]
    return tuple(digits)


def draw_training_digits(random: np.random.Generator, longest: int) -> Digits:
    """A string of 1 to `longest` digits that is not held out; a fifth of them double a digit."""
    length = int(random.integers(1, longest + 1))
    while True:
        digits = draw_digits(random, length, doubled=0.2)
        if not is_held_out(digits):
            return digits


def draw_held_out_digits(random: np.random.Generator, length: int) -> Digits:
    """A string of `length` (at least three) digits which training never sees."""
    while True:
        digits = draw_digits(random, length)
        if is_held_out(digits):
            return digits
