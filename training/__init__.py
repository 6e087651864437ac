"""What trains: nightly configuration, deployment recipes, the laboratory ``training.zoo``."""
