"""Other servers, small and fair: the same request, the same stored answer.

Each reads ``answers.jsonl`` (``{"request": …, "response": …}`` a line: the exact bodies), checks a
bearer key, draws from a token bucket, counts, and sends the stored bytes. They look answers up by
the bytes of the request, which spares them the parsing of JSON that a real gateway does.
"""
