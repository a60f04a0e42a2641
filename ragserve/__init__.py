"""ragserve: answers from an organisation's own documents, with citations, on bare metal."""

__version__: str


def __getattr__(name: str) -> str:
    """Look the version up when somebody asks: it takes more memory than a supervisor's policy."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version

    return version("ragserve")
