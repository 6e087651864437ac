"""Image tasks that need no download: every image is drawn from a seed, or ships with a library."""
