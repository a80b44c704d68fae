"""The sections of a recipe as frozen values, one a module."""
