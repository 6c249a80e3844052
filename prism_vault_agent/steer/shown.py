"""How what an agent answers is shown; what other programs made is escaped."""


def text(value: object) -> str:
    """Return one printable line for ``value``; nothing is a dash."""
    if value is None or value in ("", [], ()):
        return "-"
    shown = ", ".join([str(item) for item in value]) if isinstance(value, list | tuple) else str(value)
    return "".join([letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in shown])


def dump(value: object) -> str:
    """Return JSON that a person can read too; control characters are escaped by JSON itself."""
    import json  # noqa: PLC0415 - 10 ms, for who wants JSON

    return json.dumps(value, indent=2, sort_keys=True)
