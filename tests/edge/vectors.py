"""Requests, plain and not, and attempts to smuggle: what both servers must treat alike."""

from __future__ import annotations


def post(body: bytes = b'{"query":"a"}', *lines: bytes, path: bytes = b"/v1/query") -> bytes:
    """Return a plain question with additional header lines."""
    head = [
        b"POST " + path + b" HTTP/1.1",
        b"Host: a",
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(body),
        *lines,
    ]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def get(*lines: bytes, path: bytes = b"/ready") -> bytes:
    """Return a GET with additional header lines."""
    return b"\r\n".join((b"GET " + path + b" HTTP/1.1", b"Host: a", *lines)) + b"\r\n\r\n"


SMUGGLED = get(path=b"/smuggled")

PLAIN = {
    "page": get(),
    "question": post(),
    "question that is not in memory": post(b"?"),
    "question for a fresh answer": post(b"{}", b"Cache-Control: no-cache"),
    "question for a stream": post(b"{}", b"Accept: text/event-stream"),
    "question that is empty": post(b""),
    "chat": post(path=b"/v1/chat/completions"),
    "key": post(b"{}", b"Authorization: Bearer rs_a"),
    "unknown key": post(b"{}", b"Authorization: unknown"),
    "request id": get(b"X-Request-ID: abc-1"),
    "bad request id": get(b"X-Request-ID: a b"),
    "keep-alive": get(b"Connection: keep-alive"),
    "host with port": b"GET /ready HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n",
    "request in a value": b"GET /v1/query HTTP/1.1\r\nX-A: " + get(),
    "request in a body": post(SMUGGLED),
    "request in an unread body": post(SMUGGLED, path=b"/unread"),
    "no space after colon": b"GET /ready HTTP/1.1\r\nhOsT:a\r\n\r\n",
    "spaces around value": b"GET /ready HTTP/1.1\r\nHost:   a  \r\n\r\n",
    "every token character": get(b"!#$%&'*+-.^_`|~09azAZ: x"),
    "empty value": get(b"X-Empty:"),
    "query string": get(path=b"/ready?a=%20b"),
    "other route": get(path=b"/v1/documents"),
    "other method": get().replace(b"GET", b"DELETE"),
    "length zero": get(b"Content-Length: 0"),
    "long body": post(b"x" * 40_000),
}
"""One request each that is answered with 200."""

UNUSUAL = {
    "chunked": get(b"Transfer-Encoding: chunked").replace(b"GET", b"POST")
    + b"5\r\nhello\r\n0\r\n\r\n",
    "chunked with trailer": get(b"Transfer-Encoding: chunked", b"Trailer: X").replace(
        b"GET", b"POST"
    )
    + b"1\r\na\r\n0\r\nX: 1\r\n\r\n",
    "request in a chunk": get(b"Transfer-Encoding: chunked").replace(b"GET", b"POST")
    + b"%x\r\n" % len(SMUGGLED)
    + SMUGGLED
    + b"\r\n0\r\n\r\n",
    "close": get(b"Connection: close"),
    "HTTP/1.0": get().replace(b"1.1", b"1.0"),
    "HTTP/1.0 keep-alive": get(b"Connection: keep-alive").replace(b"1.1", b"1.0"),
    "expect": post(b"{}", b"Expect: 100-continue"),
    "upgrade": get(b"Connection: upgrade", b"Upgrade: h2c"),
    "upgrade and more": get(b"Connection: upgrade", b"Upgrade: h2c") + SMUGGLED,
    "gzip": post(b"not gzip", b"Content-Encoding: gzip"),
    "repeated header": get(b"X-A: 1", b"X-A: 2"),
    "absolute target": get(path=b"http://a/ready"),
    "asterisk": get(path=b"*").replace(b"GET", b"OPTIONS"),
    "non-ASCII value": get(b"X-A: \xc3\xa4"),
    "tab in value": get(b"X-A: a\tb"),
    "empty lines first": b"\r\n\r\n" + get(),
    "a body with GET": post().replace(b"POST", b"GET"),
    "pipeline": get() + post() + get(path=b"/last"),
    "pipeline with close": get() + get(b"Connection: close") + SMUGGLED,
    "pipeline with a body not in memory": post(b"?") + post() + post(b"?x"),
    "forty": get() * 40,
}
"""What is legal, and aiohttp's."""

MALFORMED = {
    "CL.TE": post(b"0\r\n\r\n" + SMUGGLED, b"Transfer-Encoding: chunked"),
    "TE.CL": get(b"Transfer-Encoding: chunked", b"Content-Length: 3").replace(b"GET", b"POST")
    + b"0\r\n\r\n"
    + SMUGGLED,
    "TE obfuscated": post(b"0\r\n\r\n" + SMUGGLED, b"Transfer-Encoding: xchunked"),
    "TE with tab": post(b"0\r\n\r\n" + SMUGGLED, b"Transfer-Encoding:\tchunked"),
    "TE twice": get(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity") + SMUGGLED,
    "TE and space before colon": post(b"0\r\n\r\n" + SMUGGLED, b"Transfer-Encoding : chunked"),
    "TE in HTTP/1.0": get(b"Transfer-Encoding: chunked").replace(b"1.1", b"1.0") + SMUGGLED,
    "two lengths": post(SMUGGLED, b"Content-Length: 0"),
    "two equal lengths": post(b"{}", b"Content-Length: 2"),
    "length list": get(b"Content-Length: 0, 0"),
    "length with plus": get(b"Content-Length: +0"),
    "length negative": get(b"Content-Length: -1"),
    "length hexadecimal": get(b"Content-Length: 0x0"),
    "length with leading zero": post(b"12345").replace(b"h: 5", b"h: 005"),
    "length with inner space": get(b"Content-Length: 1 0") + b"0123456789",
    "length empty": get(b"Content-Length:"),
    "length huge": get(b"Content-Length: 99999999999999999999"),
    "length in other digits": get(b"Content-Length: \xd9\xa1") + b"x",
    "obs-fold": get(b"X-A: 1", b" Transfer-Encoding: chunked") + SMUGGLED,
    "obs-fold first": b"GET /ready HTTP/1.1\r\n Host: a\r\n\r\n",
    "bare LF": get(b"X-A: 1\nContent-Length: 5") + b"hello",
    "LF everywhere": get().replace(b"\r\n", b"\n"),
    "bare CR": get(b"X-A: 1\rContent-Length: 5"),
    "CR CR LF": get(b"X-A: 1\r"),
    "NUL in value": get(b"X-A: \0"),
    "NUL in name": get(b"X-\0A: 1"),
    "NUL in target": get(path=b"/ready\0"),
    "control character in value": get(b"X-A: \x01"),
    "delete character in value": get(b"X-A: \x7f"),
    "space before colon": get(b"Content-Length : 5") + b"hello",
    "no colon": get(b"X-A"),
    "empty name": get(b": x"),
    "name not a token": get(b"X(A): 1"),
    "no host": b"GET /ready HTTP/1.1\r\n\r\n",
    "empty host": b"GET /ready HTTP/1.1\r\nHost:\r\n\r\n",
    "two hosts": get(b"Host: b"),
    "host with user": b"GET /ready HTTP/1.1\r\nHost: u@a\r\n\r\n",
    "host with path": b"GET /ready HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "host list": b"GET /ready HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "fragment": get(path=b"/ready#x"),
    "space in target": get(path=b"/ready x"),
    "two spaces": get().replace(b" /ready", b"  /ready"),
    "tab for space": get().replace(b"GET ", b"GET\t"),
    "lower-case version": get().replace(b"HTTP", b"http"),
    "HTTP/1.2": get().replace(b"1.1", b"1.2"),
    "HTTP/11": get().replace(b"1.1", b"11"),
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no version": b"GET /ready\r\n\r\n",
    "lower-case method": get().replace(b"GET", b"get"),
    "unknown method": get().replace(b"GET", b"G@T"),
    "space before method": b" " + get(),
    "TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "long target": get(path=b"/" + b"a" * 9000),
    "long value": get(b"X-A: " + b"a" * 9000),
    "many headers": get(*(b"X-%d: 1" % n for n in range(200))),
    "good, then malformed": get() + b"BAD\r\n\r\n",
    "short body, then a request": post(SMUGGLED).replace(b"Content-Length: ", b"Content-Length: 1"),
    "empty line is no end": b"GET /ready HTTP/1.1\r\nHost: a\r\n\n\r\n",
}
"""What no lane may accept."""

BEGINS_PLAIN = frozenset(
    (
        "a body with GET",
        "forty",
        "good, then malformed",
        "pipeline",
        "pipeline with a body not in memory",
        "pipeline with close",
        "short body, then a request",
    )
)
"""Of these, only what follows the first request is unusual or malformed."""

ALL = PLAIN | UNUSUAL | MALFORMED
