"""How the agent logs in: one section for each method, told apart by ``method``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from prism_vault_agent.config.fields import Path, Section, Text


class Auth(Section):
    """What every method has."""

    mount: Text | None = Field(None, description="Path of the auth method at the provider. Default: the method's usual one.")
    on_failure: Literal["keep-trying", "clear", "exit"] = Field(
        "keep-trying",
        description="What the agent does when the provider refuses its login: try again with backoff; try again, and take back "
        "all that it has given out; or exit.",
    )


class AppRole(Auth):
    """AppRole: a role id and a secret id, each in a file."""

    method: Literal["approle"] = Field(description="This method.")
    role_id_file: Path = Field(description="File that holds the role id.")
    secret_id_file: Path = Field(description="File that holds the secret id, or its wrapping token.")
    secret_id_wrapped_by: Text | None = Field(
        None,
        description="Where set, the secret-id file holds a response-wrapping token that must have been created at this "
        "path, for instance `auth/approle/role/web1/secret-id`.",
    )


class Jwt(Auth):
    """JWT: a signed token in a file."""

    method: Literal["jwt"] = Field(description="This method.")
    role: Text = Field(description="Role at the provider.")
    jwt_file: Path = Field(description="File that holds the token.")


class Kubernetes(Auth):
    """Kubernetes: the pod's service account token."""

    method: Literal["kubernetes"] = Field(description="This method.")
    role: Text = Field(description="Role at the provider.")
    jwt_file: Path = Field(
        "/var/run/secrets/kubernetes.io/serviceaccount/token", description="File that holds the service account token."
    )


class Certificate(Auth):
    """TLS certificate: the one named by `cert_file` and `key_file` in `[vault]`."""

    method: Literal["cert"] = Field(description="This method.")
    role: Text | None = Field(None, description="Role at the provider. Default: the one that matches the certificate.")


class Userpass(Auth):
    """User name and password; the password is in a file."""

    method: Literal["userpass"] = Field(description="This method.")
    username: Text = Field(description="User name at the provider.")
    password_file: Path = Field(description="File that holds the password.")


class TokenFile(Auth):
    """A token that something else keeps in a file. The only way to hand the agent a token."""

    method: Literal["token_file"] = Field(description="This method.")
    token_file: Path = Field(description="File that holds the token.")


AnyAuth = Annotated[AppRole | Jwt | Kubernetes | Certificate | Userpass | TokenFile, Field(discriminator="method")]

METHODS: dict[str, type[Auth]] = {
    "approle": AppRole,
    "jwt": Jwt,
    "kubernetes": Kubernetes,
    "cert": Certificate,
    "userpass": Userpass,
    "token_file": TokenFile,
}
