"""What the warm server imports in kill tests: a trial's process, made mortal."""

from kill_a_study import arm_trials

import crack_sweeps.study.trial

assert crack_sweeps.study.trial.main
arm_trials()
