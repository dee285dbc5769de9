"""What tests of several folders share: waiting, processes, official callers, fakes."""
