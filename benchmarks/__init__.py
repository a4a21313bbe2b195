"""Measurements that print a table; none is a test."""
