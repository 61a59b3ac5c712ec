"""`jobs.train` whose training processes write down when each step was done.

    python -m benchmarks.watched_train --run_name mine --data.train train.json --data.dev dev.json

The lines are in `storage_path/run_name/watched_steps.jsonl`, on storage that is a local folder.
"""

from benchmarks.watched_worker import watched_worker
from jobs import train
from jobs.cluster import run_job

if __name__ == "__main__":
    train.train_worker = watched_worker
    run_job(train.main)
