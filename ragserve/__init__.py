"""ragserve: answers from an organisation's own documents, with citations, on bare metal."""
