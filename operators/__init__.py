"""Learned maps between function spaces: one public file an architecture, found by its name, imported when asked for."""
