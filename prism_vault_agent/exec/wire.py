"""The bytes between ``exec`` and the agent: one HTTP/1.1 request, one answer. Pure; told in ``docs/exec.md``.

Both bodies are text that ends with NUL, item by item, the shape of ``/proc/PID/environ``: no value needs quoting, and a
client in any language is a page long.
"""

from prism_vault_agent.exec import Malformed

LONGEST_HEAD = 16_384
LONGEST_ANSWER = 16 * 1024 * 1024
ENVIRONMENT_TYPE = b"application/x-prism-vault-environment"
TEXT_TYPE = b"text/plain"

# What a request may say; the repeated ones may be said several times, the others once.
REPEATED = frozenset((b"scope", b"ref"))
FIELDS = REPEATED | frozenset(
    (
        b"purpose",
        b"run_ref",
        b"job_id",
        b"timeout_ms",
        b"argv_bytes",
        b"env_bytes",
        b"pristine_env_bytes",
        b"stack_limit",
        b"pristine",
        b"dry_run",
        b"supervised",
        b"on_rotate",
        b"after",
    )
)


def encode_request(fields: list[tuple[bytes, bytes]]) -> bytes:
    """Return the whole request, head and body. Raises ``Malformed`` where a field cannot be carried."""
    body = encode_block(fields)
    decode_request(body)
    return request(b"/v1/exec", body)


def request(path: bytes, body: bytes) -> bytes:
    """Return a request to a path of the agent's."""
    return (
        b"POST %b HTTP/1.1\r\nHost: prism-vault\r\nX-Prism-Vault: 1\r\nContent-Type: application/octet-stream\r\n"
        b"Content-Length: %d\r\nConnection: close\r\n\r\n" % (path, len(body))
    ) + body


def decode_request(body: bytes) -> list[tuple[bytes, bytes]]:
    """Return the fields of a request's body, in order. Raises ``Malformed`` for an unknown field or one said twice."""
    fields = _pairs(body)
    said = set()
    for key, _ in fields:
        if key not in FIELDS:
            raise Malformed("a field of the request is unknown")
        if key in said and key not in REPEATED:
            raise Malformed(f"the field {key.decode()} is there twice")
        said.add(key)
    return fields


def encode_block(pairs: list[tuple[bytes, bytes]]) -> bytes:
    """Return ``NAME=value`` items, each ended by NUL. Raises ``Malformed`` for what such a block cannot hold."""
    for name, value in pairs:
        if not name or b"=" in name or b"\0" in name or b"\0" in value:
            raise Malformed("a name is empty or holds '=', or there is a NUL byte")
    return b"".join([b"%b=%b\0" % pair for pair in pairs])


def decode_block(block: bytes) -> list[tuple[bytes, bytes]]:
    """Return the pairs of an environment block, in order. Raises ``Malformed``, also for a name that is there twice."""
    pairs = _pairs(block)
    if len(dict(pairs)) != len(pairs):
        raise Malformed("a name is there twice")
    return pairs


def _pairs(block: bytes) -> list[tuple[bytes, bytes]]:
    """Return name and value of each item of ``block``."""
    if not block:
        return []
    if block[-1] != 0:
        raise Malformed("the last item has no end")
    pairs = []
    for item in block[:-1].split(b"\0"):
        name, equals, value = item.partition(b"=")
        if not name or not equals:
            raise Malformed("an item is not NAME=value")
        pairs.append((name, value))
    return pairs


def parse_head(received: bytes | bytearray) -> tuple[int, dict[bytes, bytes], int, int] | None:
    """Return status, headers (names in lower case), where the body starts and ends; None until the head is there.

    Raises ``Malformed`` as soon as no further byte can make it right.
    """
    end = received.find(b"\r\n\r\n", 0, LONGEST_HEAD)
    if end < 0:
        if len(received) >= LONGEST_HEAD:
            raise Malformed("its head is too long")
        return None
    lines = bytes(received[:end]).split(b"\r\n")
    status = lines[0][9:12]
    if lines[0][:9] != b"HTTP/1.1 " or not status.isdigit() or lines[0][12:13] not in (b"", b" ") or status < b"200":
        raise Malformed("its first line is not that of HTTP/1.1")
    headers: dict[bytes, bytes] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        name = name.lower()
        if not colon or not name or name != name.strip() or name in headers:
            raise Malformed("a header has the wrong shape or is there twice")
        headers[name] = value.strip(b" \t")
    length = headers.get(b"content-length", b"")
    if not length.isdigit() or len(length) > 8 or b"transfer-encoding" in headers:
        raise Malformed("it does not tell its length")
    if int(length) > LONGEST_ANSWER:
        raise Malformed(f"it is longer than {LONGEST_ANSWER} bytes")
    return int(status), headers, end + 4, end + 4 + int(length)


def parse_answer(received: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
    """Return status, headers and body of a complete answer. Raises ``Malformed`` where it is cut short or goes on."""
    head = parse_head(received)
    if head is None:
        raise Malformed("it was cut short")
    status, headers, start, end = head
    if len(received) != end:
        raise Malformed("it was cut short" if len(received) < end else "it goes on after its end")
    return status, headers, received[start:end]
