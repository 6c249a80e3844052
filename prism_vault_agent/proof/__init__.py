"""What lets a host check central's log without trusting it: the Merkle tree, signed notes, and receipts. Pure."""
