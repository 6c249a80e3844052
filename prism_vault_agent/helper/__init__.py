"""The privileged helper: what an agent that is not root has done for it, within what root's configuration names."""
