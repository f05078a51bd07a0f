"""Many requests on one model: continuous batching over `Model.step`, fair between clients and within limits.

statistics            counters, gauges and histograms
pages                 pages of keys and values, each counted once
jobs, shares, pace    what waits for a step; how much each client was served; how many prompt tokens fit into a step
plan                  these three -> what goes into the next step
scheduler             the thread that runs the steps
session               sessions and a model that wait for it: code written for a `Model` runs on them unchanged
channel, requests     an answer on its way from the thread that writes it to its reader
progress              before it, how much of the prompt is processed
memory                the memory budget of keys and values
prefix_cache          prefixes in memory, in the order of their tokens; prefix_files, prefix_writer: those on disk
prefixes              what a request finds already computed: by earlier or concurrent requests, or in a file
admission, desk       the queue; a request's way through it
quiet_drafts          speculative decoding as far as the prices of steps leave room for it
engine                `Engine`, the public interface
"""

from llamacpu.errors import Overloaded
from llamacpu.scheduler.engine import Engine
from llamacpu.scheduler.progress import PromptReport
from llamacpu.scheduler.requests import Request
from llamacpu.scheduler.session import ScheduledModel, ScheduledSession
from llamacpu.scheduler.statistics import Histogram, Statistics

__all__ = [
    "Engine",
    "Histogram",
    "Overloaded",
    "PromptReport",
    "Request",
    "ScheduledModel",
    "ScheduledSession",
    "Statistics",
]
