"""Flags, commands and the only code that prints."""
