"""A conversation at the terminal: input, commands and answers."""
