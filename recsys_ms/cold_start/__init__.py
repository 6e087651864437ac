"""Tasks nobody has seen: a proxy looks at their images and class names, a regressor does the rest.

Import what is needed from its module; the proxy alone needs the extra ``embed``.
"""
