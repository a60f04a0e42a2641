"""A long run of mixed load on a host to which everything happens: ``python -m bench.soak``.

Two tenants with the same documents' names and different readings ask, stream, chat, write and
leave, while workers are killed and hung, Redis and PostgreSQL restarted, the model's server taken
away and the whole host reloaded. What must come of it: no wrong answer, none of another tenant, no
request lost but those that a killed worker held, counters that never fall, and memory, descriptors
and open work that stay where they were.

- ``world``: the processes, and what can be done to them;
- ``clients``: who asks what, and the ``Tally`` of what they saw;
- ``faults``: which fault comes when;
- ``watch``: the host's metrics and processes over time.
"""
