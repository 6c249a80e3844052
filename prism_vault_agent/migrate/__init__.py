"""From the configuration of other programs to scopes: what translates, and line by line what does not. Pure."""
