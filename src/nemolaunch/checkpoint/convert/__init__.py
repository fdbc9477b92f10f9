"""Conversions between formats, their proof and their report."""
