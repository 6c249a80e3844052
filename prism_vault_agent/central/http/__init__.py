"""What HTTP needs: the outermost door, the routes, problems, and the description of all."""
