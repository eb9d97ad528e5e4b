"""Kills an engine again and again, and lets a judge that knows none of its code say whether anything was lost."""
