"""The account side of the Blocks Network: the API key on disk, publishing, invitations.

The HTTP requests follow the vendor's public command line and documents; none could be checked against the
live service ("unverified" marks what these do not state either).
"""
