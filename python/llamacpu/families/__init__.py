"""Model families: from a file's metadata to the configuration of the forward pass, one module per family."""
