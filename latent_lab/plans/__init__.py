"""Plan types: what kind a written step is of, for tokens that announce it (planning tokens, arXiv 2310.05707)."""
