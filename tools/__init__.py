"""Maintainers' scripts; not part of the package that is installed."""
