"""The account side of the Blocks Network: the key on disk, publishing, invitations.

What it says over HTTP was read from the vendor's public command line and documents; none of it could be
checked against the live service ("unverified" below marks what even those do not state).
"""
