"""Running code that a model wrote: in a jail, with limits, and with verdicts that it cannot forge.

`Program` says what is to run and `Verdict` what came of it; `Sandbox` judges; `doctor` says which tools are
missing.
"""

from midspan.sandbox.judge import Sandbox
from midspan.sandbox.languages import doctor
from midspan.sandbox.program import Limits, Mode, Program, Status, Verdict

__all__ = ["Limits", "Mode", "Program", "Sandbox", "Status", "Verdict", "doctor"]
