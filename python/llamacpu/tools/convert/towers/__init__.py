"""How the vision encoders of checkpoints become files of their own, which runtimes call mmproj."""
