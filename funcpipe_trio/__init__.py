"""Pipelines you can review, on trio: described before they run, merged fairly, tested in virtual time."""

from ._errors import Aborted as Aborted
from ._errors import BufferOverflow as BufferOverflow
from ._errors import CircuitOpen as CircuitOpen
from ._errors import FuncpipeError as FuncpipeError
from ._errors import PlanError as PlanError
from ._errors import StateError as StateError
from ._errors import WorkerDied as WorkerDied
from ._errors import WorkerError as WorkerError
from .pipeline import Pipeline as Pipeline
from .pipeline import concat as concat
from .pipeline import fair_merge as fair_merge
from .pipeline import merge as merge
from .pipeline import zip_pipelines as zip_pipelines
from .policies.circuit_breaker import CircuitBreaker as CircuitBreaker
from .policies.fair_share import FairShare as FairShare
from .policies.on_error import Failure as Failure
from .policies.on_error import OnError as OnError
from .policies.rate_limit import RateLimit as RateLimit
from .policies.retry import Backoff as Backoff
from .policies.retry import Retry as Retry
from .runtime.executors import executor as executor
from .runtime.fair_channel import FairChannel as FairChannel
from .runtime.fair_group import FairGroup as FairGroup
from .runtime.fair_input import FairInput as FairInput
from .runtime.fair_statistics import FairChannelStatistics as FairChannelStatistics
from .runtime.fair_statistics import FairInputStatistics as FairInputStatistics
from .runtime.limiter import RateLimiter as RateLimiter
from .runtime.limiter import RateLimiterStatistics as RateLimiterStatistics
from .runtime.report import InputReport as InputReport
from .runtime.report import LinkReport as LinkReport
from .runtime.report import PolicyReport as PolicyReport
from .runtime.report import RemakeReport as RemakeReport
from .runtime.report import Report as Report
from .runtime.report import RunStatistics as RunStatistics
from .runtime.report import StageReport as StageReport
from .runtime.run import Run as Run
from .runtime.runners import processes as processes
from .runtime.runners import threads as threads
from .runtime.started import StartedStep as StartedStep
from .step import Step as Step
from .step import chunked as chunked
from .step import gather as gather

__version__ = "0.1.0"
