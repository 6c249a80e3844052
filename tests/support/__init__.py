"""What the tests of every room share: real processes to talk to, and waiting for conditions."""
