"""The simulation's engine file: the header bytes of a real plan, then what the engine is made of, with a checksum.

Offsets 0..3 "ftrt", 4..7 zero, 8..15 size of what follows the header, 16..19 its CRC-32, 24..27 version of the builder.
"""

from __future__ import annotations

import json
import platform
import struct
import zlib
from typing import Any

import onnx

from ._basics import log, log_error
from ._real import VERSION_NUMBERS, Severity

_HEADER = struct.Struct("<4sIQI4x4B4x")
_WHERE = "IRuntime::deserializeCudaEngine"
_ENGINE = "Error Code 1: Serialization"


def write(metadata: dict[str, Any], model: onnx.ModelProto) -> bytes:
    """The plan of this engine."""
    head = json.dumps({**metadata, "platform": _platform()}).encode()
    payload = struct.pack("<I", len(head)) + head + model.SerializeToString()
    return _HEADER.pack(b"ftrt", 0, len(payload), zlib.crc32(payload), *VERSION_NUMBERS[:4]) + payload


def read(plan: bytes, gpu: dict[str, Any], *, host_code_allowed: bool) -> tuple[dict[str, Any], onnx.ModelProto] | None:
    """What `write` was given; None, with the reason in the log, where this TensorRT on `gpu` cannot run it."""
    if len(plan) < _HEADER.size or plan[:4] != b"ftrt":
        log_error(_WHERE, "Magic tag does not match", _ENGINE)
        return None
    _, _, size, checksum, *version = _HEADER.unpack_from(plan)
    payload = plan[_HEADER.size :]
    if len(payload) != size or zlib.crc32(payload) != checksum:
        log_error(_WHERE, "Serialization assertion mSize == expectedSize failed. Corrupt or truncated plan.", _ENGINE)
        return None
    (length,) = struct.unpack_from("<I", payload)
    metadata = json.loads(payload[4 : 4 + length])
    if not _fits(metadata, tuple(version), gpu, host_code_allowed):
        return None
    return metadata, onnx.ModelProto.FromString(payload[4 + length :])


def _fits(metadata: dict[str, Any], version: tuple[int, ...], gpu: dict[str, Any], host_code_allowed: bool) -> bool:
    flags = metadata["flags"]
    if version != VERSION_NUMBERS[:4] and not ("VERSION_COMPATIBLE" in flags and version < VERSION_NUMBERS[:4]):
        expected = ".".join(map(str, VERSION_NUMBERS))
        got = ".".join(map(str, version))
        log_error(
            _WHERE,
            "The engine plan file is not compatible with this version of TensorRT, expecting library version"
            f" {expected} got {got}, please rebuild.",
            _ENGINE,
        )
        return False
    if metadata["platform"] != _platform():
        log_error(_WHERE, "Platform specific tag mismatch detected.", _ENGINE)
        return False
    if "VERSION_COMPATIBLE" in flags and "EXCLUDE_LEAN_RUNTIME" not in flags and not host_code_allowed:
        log_error(
            _WHERE,
            "Cannot deserialize engine with lean runtime since IRuntime::getEngineHostCodeAllowed() is false.",
            _ENGINE,
        )
        return False
    return _fits_gpu(metadata, gpu)


def _fits_gpu(metadata: dict[str, Any], gpu: dict[str, Any]) -> bool:
    built = metadata["gpu"]
    level = metadata["hardware_compatibility"]
    fits = gpu["compute"] >= [8, 0] if level == "AMPERE_PLUS" else gpu["compute"] == built["compute"]
    if not fits:
        log_error(
            _WHERE,
            "The engine plan file is generated on an incompatible device, expecting compute"
            f" {gpu['compute'][0]}.{gpu['compute'][1]} got compute {built['compute'][0]}.{built['compute'][1]},"
            " please rebuild.",
            _ENGINE,
        )
    elif gpu["name"] != built["name"] and level == "NONE":
        log(
            Severity.WARNING,
            "Using an engine plan file across different models of devices is not supported and is likely to affect"
            " performance or even cause errors or deadlock.",
        )
    return fits


def _platform() -> str:
    return f"{platform.system()}-{platform.machine()}".lower()
