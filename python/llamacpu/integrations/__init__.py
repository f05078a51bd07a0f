"""Adapters for programs written for other libraries."""
