"""Vision encoders: from the metadata of a file to the configuration of the native encoder, a file per kind."""
