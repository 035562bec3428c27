"""What the warm server imports in kill tests: a trial's process, made mortal."""

import crack_sweeps.study.trial
from kill_a_study import arm_trials

assert crack_sweeps.study.trial.main
arm_trials()
