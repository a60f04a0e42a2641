"""Flow control: pure decisions about time and load. Nothing here does I/O."""
