"""What ``check`` looks at, by room: the host, what the server depends on, who may ask."""
