"""PostgreSQL, the truth: collections, documents, chunks with vectors, jobs."""
