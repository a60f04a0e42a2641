"""Requests that clients make of the language model itself, in turn with the answers it writes."""

from __future__ import annotations

import time

from ragserve.flow.admission import Admission
from ragserve.flow.context import Context
from ragserve.flow.gate import Gate
from ragserve.generate import LanguageModel
from ragserve.upstream import Sink


class Relaying:
    """``model`` behind the ``gate`` that answers pass, too."""

    def __init__(self, model: LanguageModel, gate: Gate) -> None:
        self._model = model
        self._gate = gate
        self._entrance = Admission([gate])

    @property
    def names(self) -> list[str]:
        """Return what the model may be called."""
        return self._model.names

    async def relay(
        self,
        name: str,
        content: bytes,
        context: Context,
        sink: Sink | None = None,
    ) -> bytes:
        """Return the model's reply as it is; a stream goes to ``sink`` piece by piece."""
        context.may_spend()
        self._entrance.check(context.tenant, time.monotonic(), context.deadline)
        async with self._gate.permit(context.tenant, context.deadline) as permit:
            permit.tells = sink is not None  # how long a reply is says nothing of how busy it is
            start = time.monotonic()

            def begin() -> None:
                permit.observed_s = time.monotonic() - start

            return await self._model.relay(
                name, content, context.deadline, sink, context.spend, begin
            )

    def __repr__(self) -> str:
        return f"<Relaying to {self._model.name}, {self._gate!r}>"
