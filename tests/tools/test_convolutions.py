"""Test that no encoder family asks cuDNN for a convolution in half precision that it has no plan for."""

import onnx_ir as ir
import pytest

import convolutions
from composites import ENCODERS
from matrix import model_type


def test_every_encoder_family_is_in_the_table_at_its_real_width() -> None:
    assert {model_type(name) for name in convolutions.REAL} == {model_type(name) for name in ENCODERS}


@pytest.mark.parametrize("name", convolutions.REAL)
def test_convolutions_with_groups_are_float32(name: str) -> None:
    found = convolutions.convolutions(name)
    assert found
    for convolution in found:
        assert convolution.dtype == (ir.DataType.FLOAT if convolution.groups > 1 else ir.DataType.FLOAT16)


def test_the_table_of_the_page_is_up_to_date() -> None:
    assert convolutions.table() in convolutions.PAGE.read_text(encoding="utf-8"), "run `make convolutions`"
