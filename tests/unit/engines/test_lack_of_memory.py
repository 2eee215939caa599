"""Which of a runtime's reasons mean that it got no memory."""

import pytest

from trtserve_engines.lack_of_memory import is_lack_of_memory


@pytest.mark.parametrize(
    ("reason", "wanted"),
    [
        ("BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 1024", True),
        ("std::bad_alloc", True),
        ("CUDA failure 2: out of memory ; GPU=0", True),
        ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED", True),
        ("Error Code 2: OutOfMemory (Requested size was 1024 bytes.)", True),
        ("indices element out of data bounds, idx=99 must be within the inclusive range [-5,4]", False),
        ("Error Code 1: Cuda Runtime (an illegal memory access was encountered)", False),
        ("", False),
    ],
)
def test_a_lack_of_memory_is_known_by_its_words(reason, wanted):
    assert is_lack_of_memory(reason) is wanted
