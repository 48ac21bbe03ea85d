"""Deliberation: thinking again about the same problem, and what becomes of the answer from one iteration to the next."""
