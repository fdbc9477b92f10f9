"""How plans, estimates, progress and errors look on a terminal. The only code that prints."""
