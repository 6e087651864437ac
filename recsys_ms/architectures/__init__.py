"""Operator graphs of any ``torch.nn.Module``, their vectors and cards."""
