"""What callers send and are told: events, commands and requests, typed and as bytes."""
