"""A private descriptor pool holding the wire definitions, and the message classes made from it.

Two packages that define `inference.*` in protobuf's default pool cannot be imported into one process. Ours stays out
of it: the descriptors are compiled at build time (protos/generate.py) and read here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


def _read_descriptors() -> bytes:
    # Not importlib.resources, whose import takes longer than everything else here.
    path = Path(__file__).parent / "_generated" / "descriptors.binpb"
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ImportError(
            "trtserve_protos is not complete: its descriptors were never generated. Run ./build.sh protos"
        ) from error


def _fill_pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(_read_descriptors()).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


POOL = _fill_pool()


def message_class(full_name: str) -> Any:
    """The message class called `full_name`, for example "inference.ModelInferRequest".

    Typed as Any because protobuf makes classes at run time; the dialect modules give them their generated types.
    """
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(full_name))


def classes_on_demand(module: dict[str, Any], package: str) -> Callable[[str], Any]:
    """A `__getattr__` for the module with these globals, which makes a class of `package` when it is first asked for.

    So importing such a module stays cheap, however many messages its protocol has.
    """

    def find(name: str) -> Any:
        try:
            cls = message_class(f"{package}.{name}")
        except KeyError:
            raise AttributeError(f"module {module['__name__']!r} has no attribute {name!r}") from None
        module[name] = cls
        return cls

    return find
