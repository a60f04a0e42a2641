"""Keeps workers and the ingest process alive. Imports neither aiohttp nor the application."""
