"""Running verbs elsewhere: on a Ray cluster through its Jobs API, and in `kubernetes/` as manifests. Knows nothing of models
and tensors.

What needs Ray is imported when a cluster is contacted.
"""

from mtids_dist.submit.address import choose_address, find_token
from mtids_dist.submit.call import EXEC, Call, call_of
from mtids_dist.submit.cluster import Cluster, connect
from mtids_dist.submit.fetch import Fetched, fetch
from mtids_dist.submit.follow import Follower
from mtids_dist.submit.send import Sent, send
from mtids_dist.submit.states import Job, JobState
from mtids_dist.submit.stop import How, Stop, stop
from mtids_dist.submit.submission import Submission, own_package, read_environment
from mtids_dist.submit.upload import Upload, list_upload

__all__ = [
    "EXEC",
    "Call",
    "Cluster",
    "Fetched",
    "Follower",
    "How",
    "Job",
    "JobState",
    "Sent",
    "Stop",
    "Submission",
    "Upload",
    "call_of",
    "choose_address",
    "connect",
    "fetch",
    "find_token",
    "list_upload",
    "own_package",
    "read_environment",
    "send",
    "stop",
]
