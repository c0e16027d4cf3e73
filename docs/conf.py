"""Sphinx configuration: ``make docs`` builds docs/_build/html, offline."""

from importlib.metadata import version as installed

project = "Resolvent"
author = "The Resolvent authors"
release = version = installed("resolvent")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.napoleon"]
myst_enable_extensions = ["dollarmath"]
exclude_patterns = ["_build"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
html_theme = "alabaster"
nitpicky = False
