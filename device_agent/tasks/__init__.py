"""Tasks of the network: pipe sessions with their streams, and requests with their results."""
