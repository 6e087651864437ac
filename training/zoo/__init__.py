"""The laboratory: pre-trains and fine-tunes small networks and records every run.

Needs the extra ``embed`` (torch, timm, pillow). ``python -m training.zoo plan`` says what the study
in ``study.toml`` holds, ``run`` carries it out, ``export`` writes the embedded history.
"""
