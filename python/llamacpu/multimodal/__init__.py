"""Image input of models: the vision encoder of an mmproj file, its processor, and a cache of embeddings.

projectors  which mmproj file belongs to a model
vision      `Vision`: a picture -> its part of a prompt, with embeddings that are computed when a step needs them
rows        those embeddings
cache       embeddings by the digest of the picture, bounded in bytes
sequences   where ids with pictures may be cut

Nothing is imported here: generation needs `sequences` alone.
"""
