"""Pipelines you can review, on trio: described before they run, merged fairly, tested in virtual time."""

from ._errors import Aborted as Aborted
from ._errors import BufferOverflow as BufferOverflow
from ._errors import CircuitOpen as CircuitOpen
from ._errors import FuncpipeError as FuncpipeError
from ._errors import PlanError as PlanError
from ._errors import StateError as StateError
from .pipeline import Pipeline as Pipeline
from .pipeline import concat as concat
from .pipeline import fair_merge as fair_merge
from .pipeline import merge as merge
from .pipeline import zip_pipelines as zip_pipelines
from .policies.fair_share import FairShare as FairShare
from .runtime.fair_channel import FairChannel as FairChannel
from .runtime.fair_group import FairGroup as FairGroup
from .runtime.fair_input import FairInput as FairInput
from .runtime.fair_statistics import FairChannelStatistics as FairChannelStatistics
from .runtime.fair_statistics import FairInputStatistics as FairInputStatistics
from .runtime.report import InputReport as InputReport
from .runtime.report import LinkReport as LinkReport
from .runtime.report import Report as Report
from .runtime.report import RunStatistics as RunStatistics
from .runtime.report import StageReport as StageReport
from .runtime.run import Run as Run
