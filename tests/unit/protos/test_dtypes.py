"""The datatype table against an independent one, and the look-ups in it."""

import subprocess
import sys

import numpy as np
import pytest

from trtserve_protos import dtypes
from trtserve_protos.errors import DataTypeError

# name, numpy name, bytes per element, name in onnx.TensorProto, field of the typed contents, configuration name
FACTS = [
    ("BOOL", "bool", 1, "BOOL", "bool_contents", "TYPE_BOOL"),
    ("UINT8", "uint8", 1, "UINT8", "uint_contents", "TYPE_UINT8"),
    ("UINT16", "uint16", 2, "UINT16", "uint_contents", "TYPE_UINT16"),
    ("UINT32", "uint32", 4, "UINT32", "uint_contents", "TYPE_UINT32"),
    ("UINT64", "uint64", 8, "UINT64", "uint64_contents", "TYPE_UINT64"),
    ("INT8", "int8", 1, "INT8", "int_contents", "TYPE_INT8"),
    ("INT16", "int16", 2, "INT16", "int_contents", "TYPE_INT16"),
    ("INT32", "int32", 4, "INT32", "int_contents", "TYPE_INT32"),
    ("INT64", "int64", 8, "INT64", "int64_contents", "TYPE_INT64"),
    ("FP16", "float16", 2, "FLOAT16", "", "TYPE_FP16"),
    ("FP32", "float32", 4, "FLOAT", "fp32_contents", "TYPE_FP32"),
    ("FP64", "float64", 8, "DOUBLE", "fp64_contents", "TYPE_FP64"),
    ("BF16", "bfloat16", 2, "BFLOAT16", "", "TYPE_BF16"),
    ("BYTES", "object", 0, "STRING", "bytes_contents", "TYPE_STRING"),
]


def test_table_holds_the_datatypes_of_the_protocol_and_no_others():
    assert sorted(datatype.name for datatype in dtypes.TABLE) == sorted(fact[0] for fact in FACTS)


@pytest.mark.parametrize("fact", FACTS, ids=[fact[0] for fact in FACTS])
def test_every_name_of_a_datatype_leads_to_it(fact):
    name, numpy_name, item_size, _, contents_field, config_name = fact
    datatype = dtypes.from_name(name)
    assert datatype.name == name
    assert datatype.numpy.name == numpy_name
    assert datatype.item_size == item_size == (0 if name == "BYTES" else datatype.numpy.itemsize)
    assert datatype.contents_field == contents_field
    assert datatype.config_name == config_name
    assert dtypes.from_numpy(datatype.numpy) is datatype
    assert dtypes.from_config_name(config_name) is datatype
    assert dtypes.from_onnx(datatype.onnx) is datatype


@pytest.mark.parametrize("fact", FACTS, ids=[fact[0] for fact in FACTS])
def test_onnx_numbers_are_those_of_onnx(fact):
    onnx = pytest.importorskip("onnx")
    assert dtypes.from_name(fact[0]).onnx == onnx.TensorProto.DataType.Value(fact[3])


def test_bf16_is_the_type_of_ml_dtypes():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    assert dtypes.from_name("BF16").numpy == np.dtype(ml_dtypes.bfloat16)


@pytest.mark.parametrize("text", [">i4", "<i4", "=i4"])
def test_byte_order_does_not_change_the_datatype(text):
    assert dtypes.from_numpy(np.dtype(text)).name == "INT32"


@pytest.mark.parametrize("dtype", [np.dtype("S3"), np.dtype("U3"), np.dtype(object)])
def test_every_kind_of_string_is_bytes(dtype):
    assert dtypes.from_numpy(dtype) is dtypes.BYTES


@pytest.mark.parametrize("dtype", [np.dtype("c8"), np.dtype("M8[s]"), np.dtype([("a", "i4")]), np.dtype("V3")], ids=str)
def test_numpy_types_without_a_datatype_are_refused_by_name(dtype):
    with pytest.raises(DataTypeError, match="has no datatype on the wire; convert to one of bool, uint8"):
        dtypes.from_numpy(dtype)


@pytest.mark.parametrize(
    ("find", "value", "message"),
    [
        (dtypes.from_name, "FP8", "datatype 'FP8' is unknown; known are BOOL, UINT8, .*BF16, BYTES"),
        (dtypes.from_name, "fp32", "datatype 'fp32' is unknown"),
        (dtypes.from_name, "", "datatype '' is unknown"),
        (dtypes.from_onnx, 17, "ONNX element type 17 has no datatype on the wire"),
        (dtypes.from_config_name, "TYPE_BYTES", "data_type 'TYPE_BYTES' is unknown; known are TYPE_BOOL, "),
        (dtypes.from_config_name, "FP32", "data_type 'FP32' is unknown"),
    ],
)
def test_unknown_names_are_refused_with_what_is_known(find, value, message):
    with pytest.raises(DataTypeError, match=message):
        find(value)


def test_bf16_without_ml_dtypes_says_what_to_install():
    code = (
        "import sys\n"
        "sys.modules['ml_dtypes'] = None\n"
        "from trtserve_protos import dtypes\n"
        "assert dtypes.from_name('FP32').numpy\n"
        "try:\n"
        "    dtypes.from_name('BF16').numpy\n"
        "except ImportError as error:\n"
        "    print(error)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).stdout
    assert printed.strip() == "BF16 tensors need the package ml_dtypes: pip install ml_dtypes"
