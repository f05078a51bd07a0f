"""Many requests on one model: continuous batching over `Model.step`, fairly between clients, within bounds.

statistics            what is counted
pages                 pages of keys and values, each counted once
jobs, shares, pace    what waits for a step; who was given how much; how many tokens of prompts fit into a step
plan                  these three -> what goes into the next step
scheduler             the thread that steps
session               sessions and a model that wait for it: what is written for a `Model` runs on them unchanged
channel, requests     an answer on its way from the thread that writes it to whoever reads it
memory                the budget of keys and values
prefix_cache          prefixes in memory, in the order of their tokens; prefix_files, prefix_writer: those on disk
prefixes              what a request finds computed: by others before it, beside it, or in a file
admission, desk       the queue; a request's way through it
quiet_drafts          speculative decoding while a request is alone
engine                `Engine`, the front
"""

from llamacpu.errors import Overloaded
from llamacpu.scheduler.engine import Engine
from llamacpu.scheduler.requests import Request
from llamacpu.scheduler.session import ScheduledModel, ScheduledSession
from llamacpu.scheduler.statistics import Histogram, Statistics

__all__ = ["Engine", "Histogram", "Overloaded", "Request", "ScheduledModel", "ScheduledSession", "Statistics"]
