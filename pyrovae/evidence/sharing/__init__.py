"""Evaluations kept on disk, resumed, and shared by several processes."""
