"""Requests that clients make of the language model itself, in turn with the answers it writes."""

from __future__ import annotations

import time
from collections.abc import Callable

from ragserve.flow.admission import Admission
from ragserve.flow.context import Context
from ragserve.flow.gate import Gate
from ragserve.generate import LanguageModel


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
        pass_on: Callable[[bytes], None] | None = None,
    ) -> bytes:
        """Return the model's reply as it is; a stream goes to ``pass_on`` piece by piece."""
        context.may_spend()
        self._entrance.check(context.tenant, time.monotonic(), context.deadline)
        async with self._gate.permit(context.tenant, context.deadline) as permit:
            if pass_on is None:
                permit.tells = False  # how long it is says nothing of how busy the model is
                return await self._model.relay(name, content, context.deadline)
            start = time.monotonic()
            first_s: float | None = None

            def hear(piece: bytes) -> None:
                nonlocal first_s
                if first_s is None:
                    first_s = time.monotonic() - start
                pass_on(piece)

            reply = await self._model.relay(name, content, context.deadline, hear)
            permit.observed_s = first_s
            return reply

    def __repr__(self) -> str:
        return f"<Relaying to {self._model.name}, {self._gate!r}>"
