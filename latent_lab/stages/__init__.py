"""What ``stage=`` selects: how problems become sequences while a model learns to think in latent vectors."""
