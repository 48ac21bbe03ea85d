"""Grading: what a model answered, whether it is right, and how sure one can be of the number that results."""
