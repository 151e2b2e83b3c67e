# SPDX-License-Identifier: MIT
"""Files that the program writes: complete under their name or not there at all, and a trace that others follow.

A complete output is a temporary file in the same folder until it is finished. Neither an error nor a signal leaves it
behind, and an existing file stays until its successor is complete.

- Existing file: refused without -f. The new file takes over its mode and owner, unless it is private.
- Symbolic link: counts as existing, wherever it leads. With -f the file that it leads to is replaced, and the link
  stays. Another user's link in a folder where everybody may write, such as /tmp, is refused.
- Character device, FIFO, /dev/stdout, /dev/fd/N: written in place, since there is nothing to replace. A block device
  needs -f.
- A file to read is refused, under any name.
- A private file, which every trace is, has mode 0600. After sudo it belongs to the user who called sudo, if the folder
  does.
"""
