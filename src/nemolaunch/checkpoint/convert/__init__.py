"""Conversions between formats, their verification and their reports."""
