"""What every request passes before its handler: the express lane, access, problem."""
