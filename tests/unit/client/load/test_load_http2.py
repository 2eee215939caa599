"""HTTP/2 without any I/O: what a server sends, whole and in pieces; windows, limits of streams, ends of every kind."""

import struct

import pytest
from hpack import Decoder, Encoder

from trtserve_client.load.http2 import Ended, Http2Client, Message, ProtocolBroken, framed, header_block

DATA, HEADERS, RST, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 1, 1, 4, 8, 32
OK = [(":status", "200"), ("content-type", "application/grpc")]


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def settings(**values):
    names = {"most": 3, "window": 4, "frame": 5}
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", names[name], value) for name, value in values.items()))


class Server:
    """The other side: answers, with the table of headers that a real one keeps."""

    def __init__(self):
        self.encoder = Encoder()

    def head(self, stream, flags=END_HEADERS, headers=OK):
        return frame(HEADERS, flags, stream, self.encoder.encode(headers))

    def end(self, stream, status="0", message=""):
        return self.head(stream, END_HEADERS | END_STREAM, [("grpc-status", status), ("grpc-message", message)])

    def answer(self, stream, body=b"answer", status="0", message=""):
        return self.head(stream) + frame(DATA, 0, stream, framed(body)) + self.end(stream, status, message)


def frames(client):
    """What the client sent since the last look: (kind, flags, stream, payload)."""
    sent, client.output = b"".join(client.output), []
    sent = sent.removeprefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    found = []
    while sent:
        size = int.from_bytes(sent[:3], "big")
        found.append((sent[3], sent[4], int.from_bytes(sent[5:9], "big"), sent[9 : 9 + size]))
        sent = sent[9 + size :]
    return found


def data_of(client, stream):
    return b"".join(payload for kind, _, number, payload in frames(client) if (kind, number) == (DATA, stream))


@pytest.fixture
def client():
    made = Http2Client(header_block("/s/M", "host:1", [("authorization", "Bearer t")]))
    frames(made)
    return made


def test_a_call_is_its_headers_and_its_message():
    made = Http2Client(header_block("/s/M", "host:1", [("authorization", "t" * 300)]))
    assert made.open(framed(b"hello"), several=False) == 1
    sent = frames(made)
    assert [kind for kind, *_ in sent] == [SETTINGS, WINDOW, HEADERS, DATA]
    headers = dict(Decoder().decode(sent[2][3]))
    assert headers[":path"] == "/s/M"
    assert (headers[":method"], headers[":scheme"], headers[":authority"]) == ("POST", "http", "host:1")
    assert (headers["te"], headers["content-type"]) == ("trailers", "application/grpc")
    assert headers["authorization"] == "t" * 300
    assert sent[3] == (DATA, END_STREAM, 1, b"\0\0\0\0\5hello")
    assert made.open(b"", several=False) == 3


def test_answers_of_many_calls_use_the_table_of_headers(client):
    server = Server()
    for _ in range(50):
        number = client.open(framed(b"x"), several=False)
        assert client.receive(server.answer(number)) == [Ended(number, "OK", "")]
    number = client.open(framed(b"x"), several=False)
    assert client.receive(server.answer(number, status="3", message="wrong%20shape %C3%A9")) == [
        Ended(number, "INVALID_ARGUMENT", "wrong shape é")
    ]
    number = client.open(framed(b"x"), several=False)
    assert client.receive(server.answer(number)) == [Ended(number, "OK", "")]


def test_the_same_bytes_mean_something_else_once_the_table_has_changed(client):
    """A reference to the newest entry, and a message beside the table, as gRPC's servers send it with every answer."""

    def trailers(block):
        number = client.open(framed(b"x"), several=False)
        return client.receive(frame(HEADERS, END_HEADERS | END_STREAM, number, block))[0][1:]

    status = lambda code: b"\x40\x0bgrpc-status" + bytes([len(code)]) + code
    beside = lambda message: b"\xbe\x00\x0cgrpc-message" + bytes([len(message)]) + message
    for code, name in ((b"0", "OK"), (b"3", "INVALID_ARGUMENT"), (b"0", "OK"), (b"5", "NOT_FOUND")):
        assert trailers(status(code)) == (name, "")
        for _ in range(3):
            assert trailers(beside(b"")) == (name, "")
        for number in range(100):
            assert trailers(beside(b"id %d" % number)) == (name, f"id {number}")
    assert trailers(b"\x20" + status(b"0")) == ("OK", "")  # a table of no size takes nothing
    assert trailers(b"\x88" + beside(b"")[1:])[0] == "UNKNOWN"


def test_what_is_known_does_not_outlive_a_smaller_table(client):
    """Both entries are of the same size; the table shrinks to one, so that the second place is empty."""
    server = Server()
    number = client.open(framed(b"x"), several=False)
    assert client.receive(server.answer(number)) == [Ended(number, "OK", "")]
    number = client.open(framed(b"x"), several=False)
    assert client.receive(server.answer(number)) == [Ended(number, "OK", "")]
    number = client.open(framed(b"x"), several=False)
    client.receive(frame(HEADERS, END_HEADERS, number, b"\x20\x88"))
    with pytest.raises(ProtocolBroken):
        client.receive(server.answer(number))


def test_bytes_may_come_in_any_pieces():
    answers = []
    for size in (1, 2, 7, 10, 1000):
        server, made = Server(), Http2Client(header_block("/s/M", "h", []))
        made.open(framed(b"x"), several=True)
        made.open(framed(b"x"), several=False)
        sent = settings(frame=20_000) + server.head(1) + frame(DATA, 0, 1, framed(b"a") + framed(b"b" * 300))
        sent += server.answer(3) + frame(DATA, PADDED, 1, b"\3" + framed(b"c") + b"\0\0\0") + server.end(1)
        answers.append([event for at in range(0, len(sent), size) for event in made.receive(sent[at : at + size])])
    assert all(found == answers[0] for found in answers)
    assert answers[0] == [
        Message(1, b"a"),
        Message(1, b"b" * 300),
        Ended(3, "OK", ""),
        Message(1, b"c"),
        Ended(1, "OK", ""),
    ]


def test_headers_may_have_priority_padding_and_continuations(client):
    server, number = Server(), client.open(b"", several=False)
    block = server.encoder.encode([*OK, ("grpc-status", "5"), ("grpc-message", "x" * 50)])
    first = frame(HEADERS, END_STREAM | PADDED | PRIORITY, number, b"\2" + b"\0" * 5 + block[:9] + b"\0\0")
    assert client.receive(first) == []
    assert client.receive(frame(CONTINUATION, 0, number, block[9:20])) == []
    assert client.receive(frame(CONTINUATION, END_HEADERS, number, block[20:])) == [
        Ended(number, "NOT_FOUND", "x" * 50)
    ]


def test_a_large_message_waits_for_windows_and_goes_in_frames(client):
    message = bytes(range(256)) * 1000
    number = client.open(message, several=False)
    sent = data_of(client, number)
    assert len(sent) == 65_535
    client.receive(frame(WINDOW, 0, 0, struct.pack(">I", 10**6)))
    assert frames(client) == [], "the stream has a window of its own"
    client.receive(settings(window=65_535 + 100_000))
    sent += data_of(client, number)
    assert len(sent) == 165_535
    client.receive(frame(WINDOW, 0, number, struct.pack(">I", 10**6)))
    last = frames(client)
    assert all(len(payload) <= 16_384 for *_, payload in last)
    assert [flags for _, flags, *_ in last] == [0] * (len(last) - 1) + [END_STREAM]
    assert sent + b"".join(payload for *_, payload in last) == message


def test_messages_of_a_stream_keep_their_order_behind_a_window(client):
    number = client.open(b"a" * 65_535, several=True)
    client.send(number, b"b" * 10)
    client.send(number, b"c" * 10)
    assert data_of(client, number) == b"a" * 65_535
    for target in (0, number):
        client.receive(frame(WINDOW, 0, target, struct.pack(">I", 15)))
    assert data_of(client, number) == b"b" * 10 + b"c" * 5


def test_the_servers_limit_of_streams_is_kept(client):
    server = Server()
    client.receive(settings(most=2))
    numbers = [client.open(framed(b"%d" % count), several=True) for count in range(4)]
    client.send(numbers[3], framed(b"more"))
    assert {stream for kind, _, stream, _ in frames(client) if kind == HEADERS} == set(numbers[:2])
    client.receive(server.end(numbers[0]))
    assert {stream for kind, _, stream, _ in frames(client) if kind == HEADERS} == {numbers[2]}
    client.receive(server.end(numbers[1]))
    assert data_of(client, numbers[3]) == framed(b"3") + framed(b"more")


def test_settings_and_pings_are_acknowledged(client):
    client.receive(
        settings() + frame(PING, 0, 0, b"12345678") + frame(SETTINGS, ACK, 0) + frame(PING, ACK, 0, b"12345678")
    )
    assert frames(client) == [(SETTINGS, ACK, 0, b""), (PING, ACK, 0, b"12345678")]


def test_windows_are_given_back_before_they_are_used_up(client, monkeypatch):
    monkeypatch.setattr("trtserve_client.load.http2._REPLENISH", 1000)
    number = client.open(b"", several=True)
    frames(client)
    client.receive(frame(DATA, 0, number, framed(b"x" * 1100)))
    assert frames(client) == [(WINDOW, 0, 0, struct.pack(">I", 1105)), (WINDOW, 0, number, struct.pack(">I", 1105))]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (lambda server: frame(RST, 0, 1, struct.pack(">I", 8)), "CANCELLED"),
        (lambda server: frame(RST, 0, 1, struct.pack(">I", 7)), "UNAVAILABLE"),
        (lambda server: frame(RST, 0, 1, struct.pack(">I", 99)), "INTERNAL"),
        (lambda server: frame(DATA, END_STREAM, 1), "INTERNAL"),
        (lambda server: server.head(1, END_HEADERS | END_STREAM, [(":status", "404")]), "UNKNOWN"),
        (lambda server: server.end(1, "16"), "UNAUTHENTICATED"),
        (lambda server: server.end(1, "77"), "UNKNOWN"),
        (lambda server: frame(GOAWAY, 0, 0, struct.pack(">II", 0, 0)), "UNAVAILABLE"),
    ],
)
def test_every_end_has_a_status(client, sent, status):
    client.open(b"", several=False)
    (event,) = client.receive(sent(Server()))
    assert (event.stream, event.status) == (1, status)
    assert client.receive(sent(Server())) == [], "once only"


def test_a_server_that_goes_away_still_answers_what_it_took(client):
    taken, late = client.open(b"", several=False), client.open(b"", several=False)
    (event,) = client.receive(frame(GOAWAY, 0, 0, struct.pack(">II", taken, 0)))
    assert (event.stream, event.status) == (late, "UNAVAILABLE")
    assert client.closing
    assert client.receive(Server().answer(taken)) == [Ended(taken, "OK", "")]


@pytest.mark.parametrize(
    "sent",
    [
        frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff"),
        frame(HEADERS, END_HEADERS | PADDED, 1, b""),
        b"HTTP/1.1 400 Bad Request\r\n" + b"x" * 50,
    ],
)
def test_what_is_no_http2_ends_the_connection(client, sent):
    client.open(b"", several=False)
    with pytest.raises(ProtocolBroken):
        client.receive(sent)
