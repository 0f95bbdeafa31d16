"""Recorded requests of Keras to a Sequence, and their replay on the bookkeeping of requests."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from kloaders.keras_api.private import Asker
from kloaders.keras_api.tickets import Request, Tickets
from kloaders.plan.epoch import EpochPlan

# Printed by `KERAS_BACKEND=... python tests/support/recording.py`, 2026-11. An epoch has 4 batches if the
# name does not say otherwise.
#   |   the user calls fit, evaluate or predict       #   num_batches is read
#   B   on_epoch_begin                                E   on_epoch_end
#   2   loader[2], which no step used                 2*  trained on      2v  evaluated or predicted
#   t   after either: asked from a thread that is not the main one
#   T4 c0 .0 X   callbacks: train begins (4 steps an epoch), epoch 0 begins, step 0 done, train ends
RECORDED = """
== 3.15.1 jax
two epochs: | # # B # # 1 # E T4 c0 B # # 2* .0 3* .1 1* .2 0* .3 # E c1 B # # 0* .0 3* .1 1* .2
    2* .3 # E X
three fits: | # # B # # 2 # E T4 c0 B # # 2* .0 1* .1 3* .2 0* .3 # E X | # # # E T4 c0 B # # 2*
    .0 1* .1 0* .2 3* .3 # E X | # # # E T4 c0 B # # 3* .0 2* .1 0* .2 1* .3 # E X
not shuffled: | # # B # # 0 # E T4 c0 B # # 0* .0 1* .1 2* .2 3* .3 # E c1 B # # 0* .0 1* .1 2* .2
    3* .3 # E X
3 steps of 4: | # # B # # 1 # E T3 c0 B # # 1* .0 3* .1 2* .2 E c1 B 0* .0 # E c2 B # 2* .0 0* .1
    1* .2 E c3 B 3* .0 # E X
2 steps of 4: | # # B # # 2 # E T2 c0 B # # 1* .0 0* .1 E c1 B 2* .0 3* .1 # E c2 B # 2* .0 3* .1
    E c3 B 1* .0 0* .1 # E X
1 step of 4: | # # B # # 2 # E T1 c0 B # # 3* .0 E c1 B 1* .0 E c2 B 0* .0 E c3 B 2* .0 # E c4 B #
    2* .0 E X
4 steps of 4: | # # B # # 1 # E T4 c0 B # # 3* .0 2* .1 0* .2 1* .3 # E c1 B # 3* .0 0* .1 1* .2
    2* .3 # E X
6 steps of 4: | # # B # # 0 # E T6 c0 B # # 0* .0 3* .1 1* .2 2* .3 # E c1 B # 0* .0 3* .1 1* .2
    2* .3 # E X
initial epoch 2: | # # B # # 0 # E T4 c2 B # # 1* .0 0* .1 3* .2 2* .3 # E c3 B # # 1* .0 3* .1 2*
    .2 0* .3 # E X
stopped, fitted again: | # # B # # 0 # E T4 c0 B # # 1* .0 0* .1 X | # # # E T4 c0 B # # 0* .0 3*
    .1 1* .2 2* .3 # E c1 B # # 0* .0 1* .1 3* .2 2* .3 # E X
failed, fitted again: | # # B # # 2 # E T4 c0 B # # 1* .0 3* .1 | # # # E T4 c0 B # # 2* .0 0* .1
    1* .2 3* .3 # E c1 B # # 1* .0 3* .1 2* .2 0* .3 # E X
validated on itself: | # # B # # 2 # E T4 c0 B # # 0* .0 2* .1 3* .2 1* .3 # E # # # E B # # 0v 1v
    2v 3v # E c1 B # # 1* .0 2* .1 0* .2 3* .3 # E # E B # # 0v 1v 2v 3v # E X
validated on 2 steps: | T3 c0 .0 .1 .2 # # # E B # # 0v 1v E c1 .0 .1 .2 # E B # # 0v 1v E X
evaluated: | # # B # # 0 # E T4 c0 B # # 0* .0 3* .1 2* .2 1* .3 # E X | # # # E B # # 0v 1v 2v 3v
    # E | # # # E B # # 0v 1v E | # # # E T4 c0 B # # 0* .0 3* .1 1* .2 2* .3 # E X
predicted: | # # B # # 3 # E T4 c0 B # # 0* .0 1* .1 3* .2 2* .3 # E X | # # B # # 0v 1v 2v 3v # E
    | # # # E T4 c0 B # # 3* .0 2* .1 1* .2 0* .3 # E X | # # B # # 0v 1v E
predicted before built: | # # B # # 0v 1v 2v 3v # E | # # B # # 3 # E T4 c0 B # # 2* .0 3* .1 0*
    .2 1* .3 # E c1 B # # 1* .0 0* .1 2* .2 3* .3 # E X
evaluated in fit: | # # B # # 0 # E T4 c0 B # # 1* .0 3* .1 # # # E B # # 0v 1v 2v 3v # E 2* .2 0*
    .3 # E c1 B # # 1* .0 0* .1 # # # E B # # 0v 1v 2v 3v # E 2* .2 3* .3 # E X
1 batch: | # # B # # 0 # E T1 c0 B # # 0* .0 # E c1 B # # 0* .0 # E c2 B # # 0* .0 # E c3 B # # 0*
    .0 # E X
2 batches: | # # B # # 1 # E T2 c0 B # # 1* .0 0* .1 # E c1 B # # 1* .0 0* .1 # E c2 B # # 1* .0
    0* .1 # E c3 B # # 1* .0 0* .1 # E X
3 batches: | # # B # # 1 # E T3 c0 B # # 2* .0 1* .1 0* .2 # E c1 B # # 0* .0 1* .1 2* .2 # E c2 B
    # # 0* .0 1* .1 2* .2 # E X
3 steps at once: | # # B # # 0 # E T4 c0 B # # 2* 0* 1* .2 3* .5 # E c1 B # # 0* 3* 2* .2 1* .5 #
    E X
== 3.15.1 tensorflow
two epochs: | # # # 0 1 # E T4 c0 B #t #t 2t* 1t* .0 0t* .1 3t* .2 .3 E c1 B #t #t 0t* 1t* .0 3t*
    .1 2t* .2 .3 E X
three fits: | # # # 0 1 # E T4 c0 B #t #t 3t* 0t* .0 1t* .1 2t* .2 .3 E X | # # # 0 1 # E T4 c0 B
    #t #t 3t* 0t* .0 1t* .1 2t* .2 .3 E X | # # # 0 1 # E T4 c0 B #t #t 2t* .0 1t* 3t* .1 0t* .2
    .3 E X
not shuffled: | # # # 0 1 # E T4 c0 B #t #t 0t* 1t* .0 2t* .1 3t* .2 .3 E c1 B #t #t 0t* 1t* .0
    2t* .1 3t* .2 .3 E X
3 steps of 4: | # # # 0 1 # E T3 c0 B #t #t 2t* 1t* .0 0t* .1 3t* .2 E c1 B .0 E c2 B #t #t 0t*
    1t* .0 3t* .1 2t* .2 E c3 B .0 E X
2 steps of 4: | # # # 0 1 # E T2 c0 B #t #t 2t* 0t* .0 3t* .1 E c1 B 1t* .0 .1 E c2 B #t #t 1t*
    2t* .0 0t* .1 E c3 B 3t* .0 .1 E X
1 step of 4: | # # # 0 1 # E T1 c0 B #t #t 3t* 2t* .0 E c1 B 0t* .0 E c2 B 1t* .0 E c3 B .0 E c4 B
    #t #t 3t* 0t .0 E X
4 steps of 4: | # # # 0 1 # E T4 c0 B #t #t 2t* 0t* .0 3t* .1 1t* .2 .3 E c1 B #t #t 3t* 1t* .0
    0t* .1 2t* .2 .3 E X
6 steps of 4: | # # # 0 1 # E T6 c0 B #t #t 1t* 0t* .0 2t* .1 3t* .2 .3 E c1 B #t #t 3t* 0t* .0
    2t* .1 1t* .2 .3 E X
initial epoch 2: | # # # 0 1 # E T4 c2 B #t #t 2t* 1t* .0 0t* .1 3t* .2 .3 E c3 B #t #t 2t* 3t* .0
    0t* .1 1t* .2 .3 E X
stopped, fitted again: | # # # 0 1 # E T4 c0 B #t #t 1t* 2t* .0 3t .1 X | # # # 0 0t 1 # E T4 c0 B
    #t #t 3t* 1t* .0 0t* .1 2t* .2 .3 E c1 B #t #t 3t* 0t* .0 2t* .1 1t* .2 .3 E X
failed, fitted again: | # # # 0 1 # E T4 c0 B #t #t 3t* 2t* .0 1t .1 | # # # 0 0t 1 # E T4 c0 B #t
    #t 0t* 1t* .0 3t* .1 2t* .2 .3 E c1 B #t #t 1t* 0t* .0 3t* .1 2t* .2 .3 E X
validated on itself: | # # # 0 1 # E T4 c0 B #t #t 1t* 2t* .0 0t* .1 3t* .2 .3 E # # # 0 1 # E B
    #t #t 0tv 1tv 2tv 3tv E c1 B #t #t 2t* 0t* .0 .1 3t* 1t* .2 .3 E # E B #t #t 0tv 1tv 2tv 3tv E
    X
validated on 2 steps: | T3 c0 .0 .1 .2 # # # 0 1 # E B #t #t 0tv 1tv 2t E c1 3t .0 .1 .2 # E B #t
    #t 0tv 1tv 2t E X
evaluated: | # # # 0 1 # E T4 c0 B #t #t 2t* 3t* .0 0t* .1 1t* .2 .3 E X | # # # 0 1 # E B #t #t
    0tv 1tv 2tv 3tv E | # # # 0 1 # E B #t #t 0tv 1tv 2t E | # # # 0 1 # E T4 c0 B #t #t 3t* 0t*
    .0 2t* .1 1t* .2 .3 E X
predicted: | # # # 0 1 # E T4 c0 B #t #t 0t* 3t* .0 2t* .1 1t* .2 .3 E X | # # # 0 1 B #t #t 0tv
    1tv 2tv 3tv E | # # # 0 1 # E T4 c0 B #t #t 3t* .0 0t* 1t* .1 .2 2t* .3 E X | # # # 0 1 B #t
    #t 0tv 1tv 2t E
predicted before built: | # # # 0 1 B #t #t 0tv 1tv 2tv 3tv E | # # # 0 1 # E T4 c0 B #t #t 1t*
    3t* .0 0t* .1 2t* .2 .3 E c1 B #t #t 0t* 3t* .0 2t* .1 1t* .2 .3 E X
evaluated in fit: | # # # 0 1 # E T4 c0 B #t #t 2t* 1t* .0 0t* .1 # # # 0 3t* 1 # E B #t #t 0tv
    1tv 2tv 3tv E .2 .3 E c1 B #t #t 0t* 3t* .0 2t* .1 # # # 0 1t* 1 # E B #t #t 0tv 1tv 2tv 3tv E
    .2 .3 E X
1 batch: | # # # 0 # E T1 c0 B #t #t 0t* .0 E c1 B #t #t 0t* .0 E c2 B #t #t 0t* .0 E c3 B #t #t
    0t* .0 E X
2 batches: | # # # 0 1 # E T2 c0 B #t #t 0t* 1t* .0 .1 E c1 B #t #t 1t* 0t* .0 .1 E c2 B #t #t 1t*
    0t* .0 .1 E c3 B #t #t 1t* 0t* .0 .1 E X
3 batches: | # # # 0 1 # E T3 c0 B #t #t 0t* 2t* .0 1t* .1 .2 E c1 B #t #t 1t* 0t* .0 2t* .1 .2 E
    c2 B #t #t 0t* 2t* .0 1t* .1 .2 E X
3 steps at once: | # # # 0 1 # E T4 c0 B #t #t 0t* 3t* 2t* 1t* .2 .5 E c1 B #t #t 2t* 1t* 0t* 3t*
    .2 .5 E X
== 3.15.1 torch
two epochs: | # # B # # 0 # E T4 c0 B # # 2* .0 1* .1 0* .2 3* .3 # E c1 B # # 1* .0 2* .1 3* .2
    0* .3 # E X
three fits: | # # B # # 3 # E T4 c0 B # # 1* .0 0* .1 3* .2 2* .3 # E X | # # # E T4 c0 B # # 1*
    .0 0* .1 3* .2 2* .3 # E X | # # # E T4 c0 B # # 0* .0 2* .1 1* .2 3* .3 # E X
not shuffled: | # # B # # 0 # E T4 c0 B # # 0* .0 1* .1 2* .2 3* .3 # E c1 B # # 0* .0 1* .1 2* .2
    3* .3 # E X
3 steps of 4: | # # B # # 0 # E T3 c0 B # # 3* .0 1* .1 0* .2 E c1 B 2* .0 # E c2 B # 0* .0 3* .1
    2* .2 E c3 B 1* .0 # E X
2 steps of 4: | # # B # # 1 # E T2 c0 B # # 2* .0 3* .1 E c1 B 0* .0 1* .1 # E c2 B # 2* .0 1* .1
    E c3 B 0* .0 3* .1 # E X
1 step of 4: | # # B # # 3 # E T1 c0 B # # 3* .0 E c1 B 0* .0 E c2 B 1* .0 E c3 B 2* .0 # E c4 B #
    3* .0 E X
4 steps of 4: | # # B # # 1 # E T4 c0 B # # 0* .0 2* .1 1* .2 3* .3 # E c1 B # 1* .0 2* .1 0* .2
    3* .3 # E X
6 steps of 4: | # # B # # 0 # E T6 c0 B # # 3* .0 1* .1 2* .2 0* .3 # E c1 B # 3* .0 1* .1 0* .2
    2* .3 # E X
initial epoch 2: | # # B # # 1 # E T4 c2 B # # 3* .0 0* .1 2* .2 1* .3 # E c3 B # # 1* .0 3* .1 0*
    .2 2* .3 # E X
stopped, fitted again: | # # B # # 1 # E T4 c0 B # # 3* .0 0* .1 X | # # # E T4 c0 B # # 0* .0 3*
    .1 1* .2 2* .3 # E c1 B # # 3* .0 1* .1 0* .2 2* .3 # E X
failed, fitted again: | # # B # # 1 # E T4 c0 B # # 2* .0 0* .1 | # # # E T4 c0 B # # 2* .0 1* .1
    0* .2 3* .3 # E c1 B # # 0* .0 2* .1 1* .2 3* .3 # E X
validated on itself: | # # B # # 0 # E T4 c0 B # # 2* .0 1* .1 0* .2 3* .3 # E # # # E B # # 0v 1v
    2v 3v # E c1 B # # 1* .0 3* .1 0* .2 2* .3 # E # E B # # 0v 1v 2v 3v # E X
validated on 2 steps: | T3 c0 .0 .1 .2 # # # E B # # 0v 1v E c1 .0 .1 .2 # E B # # 0v 1v E X
evaluated: | # # B # # 0 # E T4 c0 B # # 1* .0 2* .1 0* .2 3* .3 # E X | # # # E B # # 0v 1v 2v 3v
    # E | # # # E B # # 0v 1v E | # # # E T4 c0 B # # 2* .0 0* .1 1* .2 3* .3 # E X
predicted: | # # B # # 3 # E T4 c0 B # # 0* .0 1* .1 2* .2 3* .3 # E X | # # B # # 0v 1v 2v 3v # E
    | # # # E T4 c0 B # # 2* .0 3* .1 0* .2 1* .3 # E X | # # B # # 0v 1v E
predicted before built: | # # B # # 0v 1v 2v 3v # E | # # B # # 2 # E T4 c0 B # # 3* .0 1* .1 0*
    .2 2* .3 # E c1 B # # 3* .0 1* .1 2* .2 0* .3 # E X
evaluated in fit: | # # B # # 2 # E T4 c0 B # # 2* .0 0* .1 # # # E B # # 0v 1v 2v 3v # E 1* .2 3*
    .3 # E c1 B # # 3* .0 2* .1 # # # E B # # 0v 1v 2v 3v # E 0* .2 1* .3 # E X
1 batch: | # # B # # 0 # E T1 c0 B # # 0* .0 # E c1 B # # 0* .0 # E c2 B # # 0* .0 # E c3 B # # 0*
    .0 # E X
2 batches: | # # B # # 1 # E T2 c0 B # # 0* .0 1* .1 # E c1 B # # 0* .0 1* .1 # E c2 B # # 0* .0
    1* .1 # E c3 B # # 0* .0 1* .1 # E X
3 batches: | # # B # # 0 # E T3 c0 B # # 1* .0 0* .1 2* .2 # E c1 B # # 0* .0 1* .1 2* .2 # E c2 B
    # # 2* .0 0* .1 1* .2 # E X
== 3.8.0 tensorflow
two epochs: | # # 0 1 # E T4 c0 B #t #t 3t* 1t* .0 2t* .1 0t* .2 .3 E c1 B #t #t 1t* 2t* .0 3t* .1
    0t* .2 .3 E X
three fits: | # # 0 1 # E T4 c0 B #t #t 0t* 2t* .0 3t* .1 1t* .2 .3 E X | # # 0 1 # E T4 c0 B #t
    #t 2t* 0t* .0 3t* .1 1t* .2 .3 E X | # # 0 1 # E T4 c0 B #t #t 2t* 1t* .0 .1 3t* 0t* .2 .3 E X
not shuffled: | # # 0 1 # E T4 c0 B #t #t 0t* 1t* .0 2t* .1 3t* .2 .3 E c1 B #t #t 0t* 1t* .0 2t*
    .1 3t* .2 .3 E X
3 steps of 4: | # # 0 1 # E T3 c0 B #t #t 2t* 1t* .0 3t* .1 0t* .2 E c1 B .0 E c2 B #t #t 2t* 1t*
    .0 3t* .1 0t* .2 E c3 B .0 E X
2 steps of 4: | # # 0 1 # E T2 c0 B #t #t 3t* 0t* .0 1t* .1 E c1 B 2t* .0 .1 E c2 B #t #t 1t* 0t*
    .0 2t* .1 E c3 B 3t* .0 .1 E X
1 step of 4: | # # 0 1 # E T1 c0 B #t #t 2t* 0t* .0 E c1 B 3t* .0 E c2 B 1t* .0 E c3 B .0 E c4 B
    #t #t 0t* 2t .0 E X
4 steps of 4: | # # 0 1 # E T4 c0 B #t #t 0t* 3t* .0 1t* .1 2t* .2 .3 E c1 B #t #t 3t* 2t* .0 0t*
    .1 1t* .2 .3 E X
6 steps of 4: | # # 0 1 # E T6 c0 B #t #t 1t* 2t* .0 3t* .1 0t* .2 .3 E c1 B #t #t 2t* 3t* .0 0t*
    .1 1t* .2 .3 E X
initial epoch 2: | # # 0 1 # E T4 c2 B #t #t 3t* 2t* .0 0t* .1 1t* .2 .3 E c3 B #t #t 1t* 0t* .0
    2t* .1 3t* .2 .3 E X
stopped, fitted again: | # # 0 1 # E T4 c0 B #t #t 2t* 0t* .0 1t .1 X | # # 0 3t 1 # E T4 c0 B #t
    #t 1t* 0t* .0 3t* .1 2t* .2 .3 E c1 B #t #t 2t* 1t* .0 3t* .1 0t* .2 .3 E X
failed, fitted again: | # # 0 1 # E T4 c0 B #t #t 2t* 0t* .0 1t .1 | # # 0 3t 1 # E T4 c0 B #t #t
    1t* 3t* .0 2t* .1 0t* .2 .3 E c1 B #t #t 0t* 3t* .0 1t* .1 2t* .2 .3 E X
validated on itself: | # # 0 1 # E T4 c0 B #t #t 1t* 2t* .0 0t* .1 3t* .2 .3 E # # 0 1 # E B #t #t
    0tv 1tv 2tv 3tv E c1 B #t #t 1t* 0t* .0 3t* .1 2t* .2 .3 E # E B #t #t 0tv 1tv 2tv 3tv E X
validated on 2 steps: | T3 c0 .0 .1 .2 # # 0 1 # E B #t #t 0tv 1tv 2t E c1 3t .0 .1 .2 # E B #t #t
    0tv 1tv 2t E X
evaluated: | # # 0 1 # E T4 c0 B #t #t 2t* 0t* .0 1t* .1 3t* .2 .3 E X | # # 0 1 # E B #t #t 0tv
    1tv 2tv 3tv E | # # 0 1 # E B #t #t 0tv 1tv 2t E | # # 0 1 # E T4 c0 B #t #t 3t* 1t* .0 2t* .1
    0t* .2 .3 E X
predicted: | # # 0 1 # E T4 c0 B #t #t 0t* 1t* .0 3t* .1 2t* .2 .3 E X | # # 0 1 B #t #t 0tv 1tv
    2tv 3tv E | # # 0 1 # E T4 c0 B #t #t 2t* 3t* .0 1t* .1 0t* .2 .3 E X | # # 0 1 B #t #t 0tv
    1tv 2t E
predicted before built: | # # 0 1 B #t #t 0tv 1tv 2tv 3tv E | # # 0 1 # E T4 c0 B #t #t 2t* 0t* .0
    1t* .1 3t* .2 .3 E c1 B #t #t 0t* 2t* .0 3t* .1 1t* .2 .3 E X
evaluated in fit: | # # 0 1 # E T4 c0 B #t #t 3t* 2t* .0 1t* .1 # # 0 0t* 1 # E B #t #t 0tv 1tv
    2tv 3tv E .2 .3 E c1 B #t #t 2t* 0t* .0 3t* .1 # # 0 1t* 1 # E B #t #t 0tv 1tv 2tv 3tv E .2 .3
    E X
1 batch: | # # 0 # E T1 c0 B #t #t 0t* .0 E c1 B #t #t 0t* .0 E c2 B #t #t 0t* .0 E c3 B #t #t 0t*
    .0 E X
2 batches: | # # 0 1 # E T2 c0 B #t #t 0t* 1t* .0 .1 E c1 B #t #t 0t* 1t* .0 .1 E c2 B #t #t 1t*
    .0 0t* .1 E c3 B #t #t 0t* 1t* .0 .1 E X
3 batches: | # # 0 1 # E T3 c0 B #t #t 0t* 2t* .0 1t* .1 .2 E c1 B #t #t 1t* 2t* .0 0t* .1 .2 E c2
    B #t #t 0t* 2t* .0 1t* .1 .2 E X
3 steps at once: | # # 0 1 # E T4 c0 B #t #t 1t* 2t* 3t* 0t* .0 .3 E c1 B #t #t 0t* 1t* 3t* 2t* .0
    .3 E X
== 3.8.0 torch
two epochs: | # B # # 1 # E T4 c0 B # # 1* .0 2* .1 3* .2 0* .3 # E c1 B # # 1* .0 3* .1 2* .2 0*
    .3 # E X
three fits: | # B # # 3 # E T4 c0 B # # 1* .0 3* .1 2* .2 0* .3 # E X | # # E T4 c0 B # # 3* .0 1*
    .1 2* .2 0* .3 # E X | # # E T4 c0 B # # 2* .0 0* .1 1* .2 3* .3 # E X
not shuffled: | # B # # 0 # E T4 c0 B # # 0* .0 1* .1 2* .2 3* .3 # E c1 B # # 0* .0 1* .1 2* .2
    3* .3 # E X
3 steps of 4: | # B # # 3 # E T3 c0 B # # 1* .0 2* .1 3* .2 E c1 B 0* .0 # E c2 B # 1* .0 3* .1 0*
    .2 E c3 B 2* .0 # E X
2 steps of 4: | # B # # 2 # E T2 c0 B # # 1* .0 3* .1 E c1 B 2* .0 0* .1 # E c2 B # 1* .0 0* .1 E
    c3 B 2* .0 3* .1 # E X
1 step of 4: | # B # # 0 # E T1 c0 B # # 3* .0 E c1 B 2* .0 E c2 B 0* .0 E c3 B 1* .0 # E c4 B #
    1* .0 E X
4 steps of 4: | # B # # 3 # E T4 c0 B # # 0* .0 3* .1 2* .2 1* .3 # E c1 B # 2* .0 1* .1 3* .2 0*
    .3 # E X
6 steps of 4: | # B # # 0 # E T6 c0 B # # 2* .0 0* .1 3* .2 1* .3 # E c1 B # 2* .0 0* .1 3* .2 1*
    .3 # E X
initial epoch 2: | # B # # 3 # E T4 c2 B # # 1* .0 0* .1 2* .2 3* .3 # E c3 B # # 1* .0 2* .1 3*
    .2 0* .3 # E X
stopped, fitted again: | # B # # 3 # E T4 c0 B # # 0* .0 1* .1 X | # # E T4 c0 B # # 1* .0 3* .1
    2* .2 0* .3 # E c1 B # # 1* .0 3* .1 2* .2 0* .3 # E X
failed, fitted again: | # B # # 0 # E T4 c0 B # # 3* .0 1* .1 | # # E T4 c0 B # # 3* .0 2* .1 1*
    .2 0* .3 # E c1 B # # 0* .0 1* .1 2* .2 3* .3 # E X
validated on itself: | # B # # 0 # E T4 c0 B # # 3* .0 1* .1 0* .2 2* .3 # E # # E B # # 0v 1v 2v
    3v # E c1 B # # 3* .0 0* .1 1* .2 2* .3 # E # E B # # 0v 1v 2v 3v # E X
validated on 2 steps: | T3 c0 .0 .1 .2 # # E B # # 0v 1v E c1 .0 .1 .2 # E B # # 0v 1v E X
evaluated: | # B # # 2 # E T4 c0 B # # 0* .0 2* .1 1* .2 3* .3 # E X | # # E B # # 0v 1v 2v 3v # E
    | # # E B # # 0v 1v E | # # E T4 c0 B # # 3* .0 0* .1 1* .2 2* .3 # E X
predicted: | # B # # 0 # E T4 c0 B # # 3* .0 0* .1 1* .2 2* .3 # E X | # B # # 0v 1v 2v 3v # E | #
    # E T4 c0 B # # 3* .0 0* .1 1* .2 2* .3 # E X | # B # # 0v 1v E
predicted before built: | # B # # 0v 1v 2v 3v # E | # B # # 1 # E T4 c0 B # # 3* .0 1* .1 2* .2 0*
    .3 # E c1 B # # 2* .0 3* .1 1* .2 0* .3 # E X
evaluated in fit: | # B # # 3 # E T4 c0 B # # 1* .0 2* .1 # # E B # # 0v 1v 2v 3v # E 3* .2 0* .3
    # E c1 B # # 2* .0 1* .1 # # E B # # 0v 1v 2v 3v # E 0* .2 3* .3 # E X
1 batch: | # B # # 0 # E T1 c0 B # # 0* .0 # E c1 B # # 0* .0 # E c2 B # # 0* .0 # E c3 B # # 0*
    .0 # E X
2 batches: | # B # # 0 # E T2 c0 B # # 0* .0 1* .1 # E c1 B # # 0* .0 1* .1 # E c2 B # # 1* .0 0*
    .1 # E c3 B # # 1* .0 0* .1 # E X
3 batches: | # B # # 1 # E T3 c0 B # # 1* .0 0* .1 2* .2 # E c1 B # # 1* .0 0* .1 2* .2 # E c2 B #
    # 2* .0 1* .1 0* .2 # E X
"""


def recordings():
    """-> {("3.15.1 torch", "two epochs"): ["|", "#", ...], ...}"""
    found, version, name = {}, "", ""
    for line in RECORDED.strip().splitlines():
        if line.startswith("== "):
            version = line[3:]
        elif line.startswith(" "):
            found[version, name] += line.split()
        else:
            name, _, events = line.partition(": ")
            found[version, name] = events.split()
    return found


KERAS = recordings()


@dataclass
class Call:
    """The batches that one call of fit, evaluate or predict got."""

    trained: list[Request] = field(default_factory=list)
    inferred: list[list[tuple[int, Request]]] = field(default_factory=list)


def elsewhere(function):
    """The result of a function that another thread calls."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def replay(events, tickets, *, callback=False, at_once=1):
    """Feed recorded events to the tickets; return the batches used by each call of the user."""
    calls, steps, inferring = [], 0, False
    for event in events:
        kind, rest = event[0], event[1:]
        if kind == "|":
            calls.append(Call())
        elif kind == "B":
            tickets.begin()
            inferring = False
        elif kind == "E":
            tickets.end()
        elif kind == "#":
            elsewhere(tickets.starting) if "t" in event else tickets.starting()
        elif kind.isdigit():
            index = int(event.rstrip("t*v"))
            ask = partial(tickets.locate, index)
            request = elsewhere(ask) if "t" in event else ask()
            if event.endswith("*"):
                calls[-1].trained.append(request)
            elif event.endswith("v"):
                if not inferring:
                    calls[-1].inferred.append([])
                inferring = True
                calls[-1].inferred[-1].append((index, request))
        elif callback:
            if kind == "T":
                steps = int(rest)
                tickets.fit_begin(1000)
            elif kind == "c":
                tickets.epoch_begin(int(rest), steps)
            elif kind == ".":
                tickets.consumed(at_once)
            elif kind == "X":
                tickets.fit_end()
    return calls


def passes(requests, batches):
    """The stream of one call, cut where a pass is complete."""
    return [requests[k : k + batches] for k in range(0, len(requests), batches)]


def assert_exact(requests, plan):
    """Check that the batches of a pass belong to one epoch, without repeated batches or samples."""
    assert len({request.order.epoch for request in requests}) == 1
    batches = [request.batch for request in requests]
    assert len(set(batches)) == len(batches)
    served = np.concatenate([plan.indices(r.order, r.batch) for r in requests])
    if len(requests) == plan.batches:
        assert sorted(served.tolist()) == list(range(plan.samples))
    else:
        assert len(set(served.tolist())) == len(served)


def batches_in(name):
    return int(name[0]) if name.endswith(("batch", "batches")) else 4


def unknown(with_call=True):
    """The caller is unknown, so only the grammar of the events counts."""
    return Asker(None)


def make(batches, shuffle):
    """Tickets and the plan that goes with them, with a short last batch."""
    plan = EpochPlan(samples=3 * batches - 1, batch_size=3, seed=7)
    assert plan.batches == batches
    return Tickets(batches, shuffle, asker=unknown), plan
