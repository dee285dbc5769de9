"""What hardware is there, and a configuration made from it. Reads files and asks chips; changes nothing."""
