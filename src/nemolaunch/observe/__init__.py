"""Reads run folders: metrics, status, report. Writes nothing into them but the report."""
