"""A module of models that imports what is not installed."""

import importlib

build = importlib.import_module("no_such_package").build
