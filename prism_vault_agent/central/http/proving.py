"""The routes by which a host convinces itself: the newest checkpoint, proofs, and the key that signed them.

Every caller may ask for all of it: hashes tell nothing of a row to whom does not have it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from prism_vault_agent.central.http.problem import Problem
from prism_vault_agent.central.http.schema import TEXT, WHOLE, answers, array, hexadecimal, maybe, record, told
from prism_vault_agent.central.log.proofs import NoSuchEvent, NotSequenced

if TYPE_CHECKING:
    from prism_vault_agent.central.log.proofs import Proofs
    from prism_vault_agent.proof.keys import VerifyingKey

NOTE: Final = told(TEXT, "a signed note of C2SP")
HASHES: Final = array(hexadecimal(32))
CHECKPOINT: Final = record({"size": told(WHOLE, "number of leaves"), "note": NOTE, "proof": HASHES})
PROOF: Final = record(
    {
        "n": WHOLE,
        "index": told(WHOLE, "of the leaf in the tree"),
        "leaf": hexadecimal(32),
        "size": told(WHOLE, "number of leaves"),
        "note": maybe(NOTE),
        "proof": HASHES,
    }
)
KEY: Final = record({"key": told(TEXT, "name+hash+base64")})
NEWEST: Final = {"type": "object", "properties": {"size": WHOLE, "note": maybe(NOTE)}}

Number = Annotated[int, Path(ge=0, lt=2**63)]


class CheckpointQuery(BaseModel):
    """The query of ``GET /v1/audit/checkpoint``: of how many leaves the caller has a checkpoint."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    old: Annotated[int, Field(alias="from", ge=0, lt=2**63)] = 0


class ProofQuery(BaseModel):
    """The query of ``GET /v1/audit/proof/{n}``: in the tree of how many leaves."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    size: Annotated[int, Field(ge=1, lt=2**63)] | None = None


class ProofRoutes:
    """The routes, over the proofs of one log."""

    def __init__(self, proofs: Proofs, key: VerifyingKey) -> None:
        """Show ``proofs``, and the ``key`` that signs."""
        self._proofs = proofs
        self._key = key

    def router(self) -> APIRouter:
        """Return the routes."""
        routes = APIRouter(prefix="/v1/audit", tags=["proofs"])
        of_checkpoint = answers({200: CHECKPOINT}, "query", "no_checkpoint", "integrity")
        of_checkpoint |= answers({}, "ahead", common=(), also=NEWEST)
        of_proof = answers({200: PROOF}, "query", "no_such_event", "not_sequenced", "integrity")
        routes.add_api_route("/checkpoint", self.checkpoint, response_class=Response, responses=of_checkpoint)
        routes.add_api_route("/proof/{n}", self.proof, response_class=Response, responses=of_proof)
        routes.add_api_route("/log-key", self.log_key, response_class=Response, responses=answers({200: KEY}))
        return routes

    async def checkpoint(self, query: Annotated[CheckpointQuery, Query()]) -> Response:
        """Return the newest checkpoint, and the proof that the log has only grown since the one about ``from`` leaves."""
        old = query.old
        signed = await self._proofs.newest(least=old)
        if signed is None and old == 0:
            raise Problem(404, "no_checkpoint", "nothing was appended yet; retry", headers={"Retry-After": "1"})
        if signed is None or signed.size < old:
            told = {"size": 0, "note": None} if signed is None else {"size": signed.size, "note": signed.note}
            raise Problem(409, "ahead", "the newest checkpoint is about fewer leaves than that", more=told)
        proof = await self._proofs.growth(old, signed.size)
        return _json({"size": signed.size, "note": signed.note, "proof": [node.hex() for node in proof]})

    async def proof(self, n: Number, query: Annotated[ProofQuery, Query()]) -> Response:
        """Return the proof that row ``n`` is in the tree of the newest checkpoint, and that checkpoint.

        With ``size``, it is in the tree of the first so many leaves, and there is no checkpoint: who asks has it.
        """
        size = query.size
        try:
            if size is None:
                found, signed = await self._proofs.inclusion(n)
                tree: dict[str, Any] = {"size": signed.size, "note": signed.note}
            else:
                found = await self._proofs.inclusion_in(size, n)
                tree = {"size": size, "note": None}
        except NoSuchEvent:
            raise Problem(404, "no_such_event", "there is no event with this number") from None
        except NotSequenced:
            detail = "no checkpoint is about this event yet; retry"
            raise Problem(404, "not_sequenced", detail, headers={"Retry-After": "1"}) from None
        proof = [node.hex() for node in found.proof]
        return _json({"n": n, "index": found.position, "leaf": found.leaf.hex(), **tree, "proof": proof})

    async def log_key(self) -> Response:
        """Return the key that verifies checkpoints and receipts, for set-up; whoever relies on it has it from elsewhere."""
        return _json({"key": str(self._key)})


def _json(content: dict[str, Any]) -> Response:
    return Response(json.dumps(content), 200, None, "application/json")
