# ruff: noqa: E501, an attack is a line
"""The attack suite: programs that try to pass without solving their task, or to do harm.

Each Python attack is a body that stands before, inside (`def f`), or around a wrong solution of `f(x) == x + 1`.
"""

WRONG = "\ndef f(x): return None\n"

PYTHON = {
    # leaving early
    "sys.exit(0)": "import sys; sys.exit(0)",
    "os._exit(0)": "import os; os._exit(0)",
    "os._exit in the call": "import os\ndef f(x): os._exit(0)",
    "exit in the call": "def f(x): raise SystemExit(0)",
    "exec of true": "import os; os.execv('/bin/true', ['true'])",
    "exit at exit": "import atexit, os; atexit.register(os._exit, 0)" + WRONG,
    "SystemExit in __del__": "class D:\n def __del__(s): raise SystemExit(0)\nd = D()" + WRONG,
    "exit in a thread": "import threading, os, time\nthreading.Thread(target=lambda: os._exit(0)).start(); time.sleep(1)",
    "abort": "import os; os.abort()",
    "kill itself": "import os; os.kill(os.getpid(), 9)",
    "stop itself": "import os; os.kill(os.getpid(), 19)",
    "exit by signal handler": (
        "import signal, os\nsignal.signal(signal.SIGALRM, lambda *a: os._exit(0))\nsignal.setitimer(0, 0.05)\nwhile True: pass"
    ),
    # values that lie
    "always equal": "class E:\n def __eq__(s, o): return True\n def __ne__(s, o): return False\ndef f(x): return E()",
    "int that lies": "class I(int):\n def __eq__(s, o): return True\ndef f(x): return I(0)",
    "str that lies": "class S(str):\n def __eq__(s, o): return True\ndef f(x): return S('')",
    "list that lies": "class L(list):\n def __eq__(s, o): return True\ndef f(x): return L()",
    "float that lies": "class F(float):\n def __eq__(s, o): return True\n def __rsub__(s, o): return 0\ndef f(x): return F(0)",
    "metaclass that lies": "class M(type):\n def __eq__(s, o): return True\nclass C(metaclass=M): pass\ndef f(x): return C",
    "unittest.mock.ANY": "from unittest.mock import ANY\ndef f(x): return ANY",
    "a hash that lies": "class H:\n def __hash__(s): return hash(2)\n def __eq__(s, o): return True\ndef f(x): return H()",
    # tampering with the judge
    "patched builtins": "import builtins\nbuiltins.AssertionError = type('Q', (BaseException,), {})" + WRONG,
    "patched isinstance": "import builtins\nbuiltins.isinstance = lambda *a: True\nbuiltins.abs = lambda x: 0"
    + WRONG,
    "patched math.isclose": "import math\nmath.isclose = lambda *a, **k: True" + WRONG,
    "patched sys.modules": "import sys\nfor name in list(sys.modules): sys.modules[name] = None" + WRONG,
    "patched os._exit": "import os\nos._exit = lambda code: None" + WRONG,
    "patched json": "import json\njson.dumps = lambda *a: '{\"value\": 2}'" + WRONG,
    "replaced check": "def check(f): pass" + WRONG,
    "trace hook": "import sys\nsys.settrace(lambda *a: None)\nsys.setprofile(lambda *a: None)" + WRONG,
    "excepthook": "import sys, os\nsys.excepthook = lambda *a: os._exit(0)\nraise ValueError",
    "import hook": "import sys\nclass H:\n def find_spec(s, *a): raise SystemExit(0)\nsys.meta_path.insert(0, H())"
    + WRONG,
    "sitecustomize": "open('sitecustomize.py', 'w').write('import os; os._exit(0)')" + WRONG,
    "a module of its own": "open('math.py', 'w').write('isclose = lambda *a: True')" + WRONG,
    # searching for what is expected
    "frames": (
        "import sys\ndef f(x):\n g = sys._getframe()\n while g:\n  if 'expected' in g.f_globals: return g.f_globals['expected']\n"
        "  g = g.f_back"
    ),
    "gc": "import gc\ndef f(x):\n for o in gc.get_objects():\n  if isinstance(o, dict) and 'expected' in o: return o['expected']",
    "own memory": (
        "def f(x):\n maps = open('/proc/self/maps').read()\n mem = open('/proc/self/mem', 'rb')\n"
        " return 2 if b'expected_marker' in mem.read(1 << 20) else None"
    ),
    "other descriptors": "import os\ndef f(x):\n for fd in range(3, 64):\n  try: os.write(fd, b' passed \\'\\'')\n  except OSError: pass",
    "forged frames": (
        'import os, struct\nbody = b\'{"value": 2, "status": "passed"}\'\n'
        "for fd in range(1, 64):\n try: os.write(fd, struct.pack('<I', len(body)) + body)\n except OSError: pass"
        + WRONG
    ),
    "forged handle": (
        'import os, struct\nbody = b\'{"value": {"handle": "x"}}\'\ndef f(x):\n for fd in range(3, 9):\n'
        "  try: os.write(fd, struct.pack('<I', len(body)) + body)\n  except OSError: pass"
    ),
    "a frame too long": "import os\ndef f(x):\n for fd in range(3, 9):\n  try: os.write(fd, b'\\xff' * 64)\n  except OSError: pass",
    "deep frame": (
        "import os, struct\nbody = b'{\"list\":[' * 50000 + b']}' * 50000\ndef f(x):\n for fd in range(3, 9):\n"
        "  try: os.write(fd, struct.pack('<I', len(body)) + body)\n  except OSError: pass"
    ),
    "closed descriptors": "import os; os.closerange(0, 1024)" + WRONG,
    "dup over descriptors": "import os\nfor fd in range(3, 32):\n os.dup2(1, fd)" + WRONG,
    # resources
    "busy": "while True: pass",
    "busy in C": "sum(range(10 ** 12))",
    "regex": "import re; re.match('(a+)+b', 'a' * 60)",
    "big power": "10 ** 10 ** 9",
    "asleep": "import time; time.sleep(1000)",
    "ignoring signals": (
        "import signal\nfor n in range(1, 32):\n try: signal.signal(n, signal.SIG_IGN)\n except (OSError, ValueError): pass\n"
        "while True: pass"
    ),
    "bare except": "while True:\n try:\n  while True: pass\n except BaseException: pass",
    "memory": "a = []\nwhile True: a.append(bytearray(1 << 24))",
    "slow memory": "a = []\nwhile True: a.append(object())",
    "mapped memory": "import mmap\na = []\nwhile True: a.append(mmap.mmap(-1, 1 << 26)); a[-1].write(b'x' * (1 << 26))",
    "big string": "'x' * (1 << 40)",
    "big int": "1 << (1 << 36)",
    "fork bomb": "import os\nwhile True: os.fork()",
    "thread bomb": "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(100,)).start()",
    "output": "while True: print('x' * 100000)",
    "errors": "import sys\nwhile True: sys.stderr.write('x' * 100000)",
    "no newline": "import os\nwhile True: os.write(1, b'x')",
    "fill the disk": "n = 0\nwhile True:\n open(str(n), 'wb').write(bytes(1 << 24)); n += 1",
    "many files": "n = 0\nwhile True:\n open(str(n), 'w').close(); n += 1",
    "deep folders": "import os\nwhile True:\n os.mkdir('d'); os.chdir('d')",
    "recursion": "def f(x): return f(x)",
    "C stack": "import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(x): return f(x)",
    "segfault": "import ctypes; ctypes.string_at(0)",
    "endless iterator": "import itertools\ndef f(x): return itertools.count()",
    "endless repr": "class B:\n def __repr__(s):\n  while True: pass\ndef f(x): return B()",
    "exception whose text loops": "class X(Exception):\n def __str__(s):\n  while True: pass\nraise X",
    "exception whose text is long": "class X(Exception):\n def __str__(s): return 'x' * (1 << 28)\nraise X",
    # reaching out
    "write elsewhere": "open('/tmp/elsewhere', 'w')",
    "write to the system": "open('/usr/here', 'w')",
    "rename the system": "import os; os.rename('/usr', '/tmp/box/usr')",
    "delete the system": "import os; os.unlink('/usr/bin/env')",
    "symlink out": "import os; os.symlink('/tmp', 'out'); open('out/elsewhere', 'w')",
    "hardlink out": "import os; os.link('/bin/true', 'true')",
    "accounts": "open('/etc/shadow').read()",
    "home": "import os; os.listdir('/home'); open('/root/.bashrc').read()",
    "the judge's memory": "open('/proc/1/mem', 'rb').read(1)",
    "the judge's environment": "open('/proc/1/environ', 'rb').read(1)",
    "the judge's descriptors": "import os; os.listdir('/proc/1/fd')",
    "kill the judge": "import os; os.kill(1, 9)",
    "stop the judge": "import os; os.kill(os.getppid(), 19)",
    "kill everyone": "import os; os.kill(-1, 9)",
    "daemon": (
        "import os, time\nif os.fork() == 0:\n os.setsid()\n if os.fork() == 0:\n  while True: time.sleep(1)\n os._exit(0)\nraise ValueError"
    ),
    "network": "import socket; socket.create_connection(('1.1.1.1', 53), 1)",
    "datagram": "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "local socket": "import socket; socket.socket(socket.AF_UNIX).bind('\\0name')",
    "name service": "import socket; socket.gethostbyname('example.com')",
    "setuid": "import os; os.setuid(0)",
    "clock": "import time; time.clock_settime(time.CLOCK_REALTIME, 0)",
    "device": "open('/dev/sda', 'rb')",
}

SYSCALLS = {  # name: an expression that is 0 or more only if the kernel did it
    "ptrace": "libc.ptrace(16, 1, 0, 0)",
    "process_vm_readv": "libc.process_vm_readv(1, 0, 0, 0, 0, 0)",
    "mount": "libc.mount(b'none', b'/tmp', b'tmpfs', 0, 0)",
    "unshare user": "libc.unshare(0x10000000)",
    "unshare mount": "libc.unshare(0x20000)",
    "keyctl": "libc.syscall(250, 0, 0)",
    "bpf": "libc.syscall(321, 0, 0, 0)",
    "userfaultfd": "libc.syscall(323, 0)",
    "io_uring": "libc.syscall(425, 1, 0)",
    "perf": "libc.syscall(298, 0, 0, 0, 0, 0)",
    "reboot": "libc.reboot(0)",
    "shared memory": "libc.shmget(0, 4096, 0o1600)",
    "chroot": "libc.chroot(b'/tmp/box')",
}
