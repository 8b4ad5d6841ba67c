"""Pipelines you can review, on trio: described before they run, merged fairly, tested in virtual time."""

from ._base.errors import Aborted as Aborted
from ._base.errors import BufferOverflow as BufferOverflow
from ._base.errors import CircuitOpen as CircuitOpen
from ._base.errors import FuncpipeError as FuncpipeError
from ._base.errors import MisuseError as MisuseError
from ._base.errors import PlanError as PlanError
from ._base.errors import StateError as StateError
from ._base.errors import WorkerDied as WorkerDied
from ._base.errors import WorkerError as WorkerError
from ._base.published import publish
from ._plan.review import Finding as Finding
from ._plan.review import review as review
from ._recording.prediction import Prediction as Prediction
from ._recording.recorder import Recorder as Recorder
from ._recording.recording import Recording as Recording
from ._recording.simulation import simulate as simulate
from ._recording.simulation import simulate_async as simulate_async
from ._runtime.calls.rate_limiter import RateLimiter as RateLimiter
from ._runtime.calls.rate_limiter import RateLimiterStatistics as RateLimiterStatistics
from ._runtime.calls.started import StartedCircuit as StartedCircuit
from ._runtime.calls.started import StartedStep as StartedStep
from ._runtime.fair_channel.fair_channel import FairChannel as FairChannel
from ._runtime.fair_channel.fair_group import FairGroup as FairGroup
from ._runtime.fair_channel.fair_input import FairInput as FairInput
from ._runtime.fair_channel.fair_statistics import FairChannelStatistics as FairChannelStatistics
from ._runtime.fair_channel.fair_statistics import FairInputStatistics as FairInputStatistics
from ._runtime.reports.blame import Blame as Blame
from ._runtime.reports.counts import InputReport as InputReport
from ._runtime.reports.counts import Latency as Latency
from ._runtime.reports.counts import LinkReport as LinkReport
from ._runtime.reports.counts import PolicyReport as PolicyReport
from ._runtime.reports.counts import RemakeReport as RemakeReport
from ._runtime.reports.counts import StageReport as StageReport
from ._runtime.reports.report import Report as Report
from ._runtime.reports.report import RunStatistics as RunStatistics
from ._runtime.run.observing import Observation as Observation
from ._runtime.run.observing import Observer as Observer
from ._runtime.run.run import Run as Run
from ._runtime.runners.executors import InExecutor as InExecutor
from ._runtime.runners.executors import executor as executor
from ._runtime.runners.runners import Processes as Processes
from ._runtime.runners.runners import Threads as Threads
from ._runtime.runners.runners import processes as processes
from ._runtime.runners.runners import threads as threads
from ._watch.app import watch_app as watch_app
from ._watch.live import watch as watch
from .merging import concat as concat
from .merging import fair_merge as fair_merge
from .merging import merge as merge
from .merging import zip_pipelines as zip_pipelines
from .pipeline import Pipeline as Pipeline
from .policies.circuit_breaker import CircuitBreaker as CircuitBreaker
from .policies.fair_share import FairShare as FairShare
from .policies.on_error import Divert as Divert
from .policies.on_error import Emit as Emit
from .policies.on_error import Failure as Failure
from .policies.on_error import OnError as OnError
from .policies.on_error import Skip as Skip
from .policies.on_error import Stop as Stop
from .policies.on_full import OnFull as OnFull
from .policies.rate_limit import RateLimit as RateLimit
from .policies.retry import Backoff as Backoff
from .policies.retry import Retry as Retry
from .service import run_service as run_service
from .step import Step as Step
from .step import chunked as chunked
from .step import gather as gather

__version__ = "0.1.0"

publish(vars(), __name__)
