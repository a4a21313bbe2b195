"""Tests mirror the package: a room of tests for each of its rooms."""
