"""A worker that crashes at input 0, hangs at 1, and reads 2: the fuzzer must notice.

python -m tests.fuzz.ill_worker SEEDS.pickle FOLDER SEED FIRST STOP
"""

import faulthandler
import os
import signal
import sys
import time

from tests.fuzz.worker import tell

faulthandler.register(signal.SIGUSR1)
first, stop = map(int, sys.argv[4:])
for number in range(first, stop):
    tell(begins=number, reader="ill")
    if number == 0:
        os.kill(os.getpid(), signal.SIGSEGV)
    if number == 1:
        time.sleep(600)
    tell(ends=number, outcome="read", why="", seconds=0.0, peak=0)
