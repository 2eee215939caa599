"""What is sent: made up within ranges, read from files, traces; and what is wrong with it, in words."""

import json

import numpy as np
import pytest

from trtserve_client import ModelMetadata, TensorMetadata
from trtserve_client.load.config import LoadConfig
from trtserve_client.load.errors import UsageError
from trtserve_client.load.sources import requests_from_config
from trtserve_client.load.trace import read_trace


def model(*tensors):
    return ModelMetadata("m", ("1",), "", tuple(TensorMetadata(*each) for each in tensors), ())


ROWS = model(("x", "FP32", (-1, 3)))
TOKENS = model(("ids", "INT64", (-1, -1)), ("mask", "BOOL", (-1, -1)))
IMAGE = model(("image", "UINT8", (-1, 4, 4, 3)))


def requests(of, **options):
    return requests_from_config(LoadConfig(**options), of)


def test_random_requests_fit_differ_and_can_be_made_again():
    made = requests(ROWS, rows=5, requests=4, seed=7)
    assert [each["x"].shape for each in made] == [(5, 3)] * 4
    assert all(each["x"].dtype == np.float32 for each in made)
    assert len({each["x"].tobytes() for each in made}) == 4
    assert [each["x"].tobytes() for each in made] == [
        each["x"].tobytes() for each in requests(ROWS, rows=5, requests=4, seed=7)
    ]


def test_ranges_hold_with_both_ends():
    made = requests(TOKENS, shape=("ids=50", "mask=50"), range=("ids=3:5",), requests=3)
    values = np.concatenate([each["ids"].ravel() for each in made])
    assert set(values.tolist()) == {3, 4, 5}
    floats = requests(ROWS, range=("x=-2:2",), rows=100)[0]["x"]
    assert -2 <= floats.min() < -1.5
    assert 1.5 < floats.max() <= 2


def test_integers_without_a_range_are_valid_indices_of_any_table():
    made = requests(TOKENS, shape=("ids=40", "mask=40"))
    assert set(np.concatenate([each["ids"].ravel() for each in made]).tolist()) == {0, 1}


@pytest.mark.parametrize("datatype", ["FP16", "FP64", "INT8", "UINT64", "BOOL", "BYTES"])
def test_every_datatype_can_be_made_up(datatype):
    for data in ("random", "zeros"):
        request = requests(model(("x", datatype, (2, 2))), data=data)[0]
        assert request["x"].shape == (2, 2)


@pytest.mark.parametrize(
    ("of", "options", "words"),
    [
        (TOKENS, {}, ["ids INT64 [-1, -1]", "--shape ids=64"]),
        (ROWS, {"shape": ("x=4",)}, ["--shape x=4", "x=3"]),
        (ROWS, {"shape": ("y=4",)}, ["no input 'y'", "x FP32 [-1, 3]"]),
        (ROWS, {"shape": ("x=0",)}, ["x=64x64"]),
        (ROWS, {"shape": ("x",)}, ["NAME=64x64"]),
        (ROWS, {"range": ("x=1",)}, ["LOW:HIGH"]),
        (ROWS, {"range": ("x=2:1",)}, ["LOW must be"]),
        (ROWS, {"range": ("x=nan:1",)}, ["LOW must be"]),
        (TOKENS, {"shape": ("ids=2", "mask=2"), "range": ("ids=0:1.5",)}, ["whole numbers", "INT64"]),
        (IMAGE, {"range": ("image=0:256",)}, ["within 0 and 255"]),
        (model(("x", "FP32", (3,))), {"rows": 2}, ["--rows 2", "no dimension for rows"]),
        (ROWS, {"rows": 10**15}, [f"--rows {10**15}", "do not fit into memory"]),
        (ROWS, {"data": "nowhere.npy"}, ["nowhere.npy", "No such file"]),
        (ROWS, {"data": "file.bin"}, ["file.bin", ".jsonl is wanted"]),
        (ROWS, {"data": "nowhere.npy", "range": ("x=0:1",)}, ["made-up data"]),
        (ROWS, {"data": "nowhere.jsonl"}, ["nowhere.jsonl cannot be read"]),
    ],
)
def test_what_does_not_fit_is_named(of, options, words):
    with pytest.raises(UsageError) as error:
        requests(of, **options)
    for word in words:
        assert word in str(error.value)


def test_arrays_from_files(tmp_path):
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", x=x)
    lines = [json.dumps({"x": x.tolist()}), "", json.dumps({"x": [[7, 8, 9]]})]
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    for name in ("x.npy", "x.npz", "x.jsonl"):
        made = requests(ROWS, data=str(tmp_path / name))
        assert made[0]["x"].tolist() == x.tolist()
        assert made[0]["x"].dtype == np.float32
    assert made[1]["x"].tolist() == [[7, 8, 9]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "line 1: no JSON"),
        ("[1]", "line 1: an object"),
        ('{"x": [[1, 2, 3]]}\n{"x": [[1, 2]]}', "line 2: input 'x': shape [1, 2] given"),
        ('{"y": 1}', "input 'x' missing"),
        ("", "holds no request"),
    ],
)
def test_mistakes_in_lines_are_named_with_the_line(tmp_path, text, words):
    (tmp_path / "x.jsonl").write_text(text)
    with pytest.raises(UsageError) as error:
        requests(ROWS, data=str(tmp_path / "x.jsonl"))
    assert words in str(error.value)


def test_files_that_are_damaged_or_do_not_fit_are_refused(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"PK\3\4 no archive")
    np.save(tmp_path / "x.npy", np.zeros((1, 4), np.float32))
    for name, words in (("x.npz", "cannot be read"), ("x.npy", "shape [1, 4] given, [-1, 3] wanted")):
        with pytest.raises(UsageError) as error:
            requests(ROWS, data=str(tmp_path / name))
        assert words in str(error.value)


def test_a_folder_of_images(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for number in range(3):
        image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
    made = requests(IMAGE, data=str(tmp_path))
    assert [each["image"].shape for each in made] == [(1, 4, 4, 3)] * 3
    assert [each["image"][0, 0, 0, 0] for each in made] == [0, 1, 2]
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(UsageError, match="not a readable image"):
        requests(IMAGE, data=str(tmp_path))


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(UsageError, match="holds no images"):
        requests(IMAGE, data=str(tmp_path))


def test_a_trace_is_read_in_the_order_of_its_times(tmp_path):
    lines = [{"at_s": 3.5, "inputs": {"x": [[3, 3, 3]]}}, {"at_s": 1.0, "inputs": {"x": [[1, 1, 1]]}}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    trace = read_trace(str(tmp_path / "t.jsonl"), ROWS)
    assert trace.offsets.tolist() == [0, 2.5]
    assert [request["x"][0, 0] for request in trace.requests] == [1, 3]


def test_a_trace_may_hold_times_alone(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"at_s": 0}\n{"at_s": 0.25}')
    assert read_trace(str(tmp_path / "t.jsonl"), ROWS).requests == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no request"),
        ('{"at_s": -1}', "line 1"),
        ('{"at_s": true}', "seconds from the beginning"),
        ('{"inputs": {}}', "at_s"),
        ('{"at_s": 0, "inputs": {"x": [[1, 2, 3]]}}\n{"at_s": 1}', "give all or none"),
        ('{"at_s": 0, "inputs": [1]}', "line 1: inputs: list given"),
    ],
)
def test_mistakes_in_a_trace_are_named(tmp_path, text, words):
    (tmp_path / "t.jsonl").write_text(text)
    with pytest.raises(UsageError) as error:
        read_trace(str(tmp_path / "t.jsonl"), ROWS)
    assert words in str(error.value)
