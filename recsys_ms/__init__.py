"""Which pre-trained model to fine-tune first, learned from the log of past fine-tuning runs."""
