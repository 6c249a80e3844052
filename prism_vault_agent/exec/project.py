"""Which scopes a run has that names none: those of ``.prism-vault.toml`` here or above, else of ``PRISM_VAULT_SCOPE``.

The file is one line, ``scope = "name"`` or ``scopes = ["one", "two"]``, and comments. It is read by hand: a TOML reader
costs more than the rest of the client.
"""

import posix

from prism_vault_agent.exec import CONFIG, USAGE, Failure
from prism_vault_agent.exec.envfile import read_whole

FILE = ".prism-vault.toml"
LONGEST_FILE = 65_536

_NAME = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")
_GROUP_OR_OTHERS_WRITE = 0o022


def scopes(environment: dict[bytes, bytes]) -> list[str]:
    """Return the scopes for the working directory. Raises ``Failure``: 78 for a bad file, 64 for none."""
    found = _find()
    if found:
        return _read(found)
    told = environment.get(b"PRISM_VAULT_SCOPE", b"").decode("utf-8", "surrogateescape")
    names = [name.strip() for name in told.split(",") if name.strip()]
    if not names:
        raise Failure(USAGE, f"no scope is named; give --scope, or write {FILE} here, or set PRISM_VAULT_SCOPE")
    return names


def _find() -> str:
    """Return the path of the nearest file, from the working directory upwards, or nothing."""
    try:
        directory = posix.getcwd()
    except OSError:
        return ""
    while True:
        path = f"{directory.rstrip('/')}/{FILE}"
        try:
            posix.lstat(path)
        except OSError:
            if directory == "/" or not directory.startswith("/"):
                return ""
            directory = directory.rpartition("/")[0] or "/"
        else:
            return path


def _read(path: str) -> list[str]:
    """Return the scopes of the file at ``path``, if it is one that only its user or root can have written."""
    where = ascii(path)[1:-1]
    try:
        status = posix.stat(path)
        content = read_whole(path, LONGEST_FILE)
    except OSError as error:
        raise Failure(CONFIG, f"cannot read {where}: {error.strerror}; mend it, or give --scope") from None
    if status.st_uid not in (0, posix.geteuid()):
        raise Failure(CONFIG, f"{where} belongs to user {status.st_uid}, neither to you nor to root; give --scope")
    if status.st_mode & _GROUP_OR_OTHERS_WRITE:
        raise Failure(CONFIG, f"{where} can be written by others; chmod go-w it, or give --scope")
    named: list[str] = []
    for number, line in enumerate(content.decode("utf-8", "surrogateescape").splitlines(), 1):
        text = line.strip()
        if text and not text.startswith("#"):
            told = [] if named else _names(text)
            if not told:
                raise Failure(CONFIG, f'{where}:{number}: write one line, scope = "name" or scopes = ["one", "two"]')
            named = told
    if not named:
        raise Failure(CONFIG, f'{where} names no scope; write scope = "name" into it')
    return named


def _names(line: str) -> list[str]:
    """Return the scopes that ``line`` names, or nothing where it is not one of the two forms."""
    key, _, value = line.partition("=")
    value = value.partition("#")[0].strip()
    if key.strip() == "scope":
        items = [value]
    elif key.strip() == "scopes" and value[:1] == "[" and value[-1:] == "]":
        items = value[1:-1].rstrip().removesuffix(",").split(",")
    else:
        return []
    names = []
    for item in items:
        text = item.strip()
        name = text[1:-1]
        if len(text) < 3 or text[0] not in "\"'" or text[-1] != text[0] or not _NAME.issuperset(name):
            return []
        names.append(name)
    return names
