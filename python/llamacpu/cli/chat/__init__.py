"""A conversation at the terminal: what is typed, what the commands do, and the answers."""
