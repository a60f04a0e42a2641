"""ragserve: answers from an organisation's own documents, with citations, on bare metal."""

from importlib.metadata import version

__version__ = version("ragserve")
