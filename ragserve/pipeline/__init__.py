"""A question's way: embed → retrieve → generate, each stage timed and within the deadline."""

from ragserve.pipeline.events import Event, Sources
from ragserve.pipeline.making import Answered
from ragserve.pipeline.pipeline import Pipeline
from ragserve.pipeline.relaying import Relaying

__all__ = ["Answered", "Event", "Pipeline", "Relaying", "Sources"]
