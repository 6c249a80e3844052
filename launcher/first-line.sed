# Makes an installed prism-vault start without a shell and isolated: sed -i -f first-line.sed "$(command -v prism-vault)"
# See docs/adr/0030-thin-client.md. What it does not know it leaves as it is, and a second time changes nothing.
1 {
  # As installers write it where they can. They drop the options of the wheel's own first line.
  s|^\(#!/.*/python[0-9.]*\)$|\1 -ISE|
  # As they write it where the interpreter's path has a space or is over 127 bytes: a shell, which changes the environment.
  # env(1) takes quotes as the shell does and hands the environment on as it is.
  /^#!\/bin\/sh$/ {
    N
    N
    h
    s,^#!/bin/sh\n'''exec' \(/[^ "'$\\]*\|\('[^'\\]*'\|"[^"$\\`]*"\)\{1\,\}\) "$0" "$@"\n' '''$,#!/usr/bin/env -S \1 -ISE,
    # The kernel reads 255 bytes of a first line (since Linux 5.1; the agent needs 5.3).
    /^.\{255,\}/ g
  }
}
