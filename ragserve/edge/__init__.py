"""What every request passes before its handler: access, then problem."""
