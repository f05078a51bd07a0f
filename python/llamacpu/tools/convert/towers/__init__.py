"""How the parts of checkpoints that see become files of their own, which runtimes call mmproj."""
