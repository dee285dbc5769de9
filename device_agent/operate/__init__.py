"""What the owner of the device sees and uses: control socket, service manager."""
