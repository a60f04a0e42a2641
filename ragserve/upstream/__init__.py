"""HTTP to OpenAI-compatible servers: a client of our own, for what is relayed word by word.

``server`` makes one call; ``upstream`` makes it until it works, and by ``hedge`` two at once. Below
them ``pool`` keeps connections, ``connection`` speaks HTTP/1.1, ``exchange`` takes one reply,
``sse`` reads its events, ``through`` passes them on unread.
"""

from ragserve.upstream.exchange import Hear, Patience, Skimmer
from ragserve.upstream.failure import CallFailed, Refusal
from ragserve.upstream.hedge import Speak
from ragserve.upstream.server import Server
from ragserve.upstream.through import Sink, Through
from ragserve.upstream.upstream import Member, Upstream

__all__ = [
    "CallFailed",
    "Hear",
    "Member",
    "Patience",
    "Refusal",
    "Server",
    "Sink",
    "Skimmer",
    "Speak",
    "Through",
    "Upstream",
]
