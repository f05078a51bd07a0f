"""What a file is: metadata to the configuration of the forward pass, one file a family."""
