"""x"""

from trtserve_client.load.results import Result


def page(result: Result) -> str:
    """X"""
    return "x"
