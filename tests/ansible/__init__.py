"""conf/ansible, run against a host that boots for it."""
