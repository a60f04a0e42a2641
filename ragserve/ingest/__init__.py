"""The ingest process: reads documents, cuts and embeds them, keeps the host's index in step."""
