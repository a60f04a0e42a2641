"""A process and its host: the sockets it listens on, the supervisor it answers to."""
