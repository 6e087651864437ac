"""The small CLIP that ships with the project: trained on the laboratory's sources, never a target.

``proxy.toml`` is its design, ``python -m training.proxy train`` trains and writes it.
"""
