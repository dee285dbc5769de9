"""What keeps actuators safe whoever asks: limits, interlocks, leases."""
