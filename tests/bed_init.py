"""The first process of a host of the test bed: runs sshd, and takes in what is left of others.

When it is killed, everything on its host ends with it, as when a host is powered off.
"""

import os
import subprocess
import sys

if __name__ == "__main__":
    subprocess.Popen(sys.argv[1:])
    while True:
        os.wait()
