"""Which environment names a scope may set. Pure.

A name is a letter or underscore, then letters, digits and underscores (IEEE Std 1003.1, section 8.1, plus lower case). Anything
else is executed or split by some reader of environment files, or cannot be passed to a process.
"""

from __future__ import annotations

import re
from typing import Final

LONGEST_NAME: Final = 255
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

# Names that change how programs load, run, find or trust things. A scope sets one only where it allows it by name.
DANGEROUS_PREFIXES: Final = (
    "LD_",
    "DYLD_",
    "PYTHON",
    "PERL",
    "RUBY",
    "BASH_",
    "MALLOC_",
    "GIT_",
    "NPM_CONFIG_",
    "VAULT_",
    "BAO_",
    "PRISM_VAULT_",
    "LISTEN_",
)
DANGEROUS_NAMES: Final = frozenset(
    """
    PATH IFS ENV SHELLOPTS BASHOPTS PS4 PROMPT_COMMAND CDPATH HOME SHELL TMPDIR TEMP TMP EDITOR VISUAL PAGER BROWSER
    NODE_OPTIONS NODE_PATH NODE_EXTRA_CA_CERTS NODE_TLS_REJECT_UNAUTHORIZED NODE_REPL_EXTERNAL_MODULE
    JAVA_TOOL_OPTIONS _JAVA_OPTIONS JDK_JAVA_OPTIONS CLASSPATH JAVA_HOME GCONV_PATH GLIBC_TUNABLES LOCPATH NLSPATH
    HOSTALIASES RESOLV_HOST_CONF RES_OPTIONS LOCALDOMAIN GETCONF_DIR OPENSSL_CONF OPENSSL_MODULES OPENSSL_ENGINES
    SSL_CERT_FILE SSL_CERT_DIR HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY http_proxy https_proxy all_proxy no_proxy
    NOTIFY_SOCKET CREDENTIALS_DIRECTORY RUSTC_WRAPPER CARGO_HOME GOFLAGS GOPATH PHPRC PHP_INI_SCAN_DIR LUA_PATH
    LUA_CPATH LUA_INIT R_PROFILE R_ENVIRON TCLLIBPATH TERMINFO TERMCAP
    """.split()
)


def fault(name: str) -> str | None:
    """Return what is wrong with the shape of ``name``, or None."""
    if not _NAME.fullmatch(name):
        return "is not a letter or underscore followed by letters, digits and underscores"
    if len(name) > LONGEST_NAME:
        return f"is longer than {LONGEST_NAME} characters"
    return None


def dangerous(name: str) -> bool:
    """Tell whether ``name`` changes how programs load or run, so that a scope must allow it by name."""
    return name in DANGEROUS_NAMES or name.startswith(DANGEROUS_PREFIXES)


def shown(name: str) -> str:
    """Return ``name`` fit for a message: escaped and cut, since it may be anything."""
    escaped = name.encode("unicode_escape", "backslashreplace").decode("ascii")
    return escaped if len(escaped) <= 64 else escaped[:61] + "..."
