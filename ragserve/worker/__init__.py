"""A worker: one process, one event loop, one aiohttp application."""
