"""Beam's own flags, as a parser: what it does not know is misspelt.

Some are known to an engine's job server alone, which tells them to Beam once a job is handed over; a
command line is to be checked before. Those of Flink's and Spark's runners, and of the environments that
both start, are listed here, as the job servers of 2.62 tell them.
"""

from __future__ import annotations

import argparse

from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.console.parser import Parser

_FLINK = (
    "attached_mode",
    "auto_balance_write_files_sharding_enabled",
    "auto_watermark_interval",
    "checkpoint_timeout_millis",
    "checkpointing_interval",
    "checkpointing_mode",
    "disable_metrics",
    "enable_stable_input_drain",
    "execution_mode_for_batch",
    "execution_retry_delay",
    "externalized_checkpoints_enabled",
    "fail_on_checkpointing_errors",
    "faster_copy",
    "file_input_split_max_size_m_b",
    "finish_bundle_before_checkpointing",
    "flink_conf_dir",
    "force_unaligned_checkpoint_enabled",
    "job_check_interval_in_secs",
    "latency_tracking_interval",
    "max_bundle_size",
    "max_bundle_time_mills",
    "min_pause_between_checkpoints",
    "num_concurrent_checkpoints",
    "number_of_execution_retries",
    "object_reuse",
    "operator_chaining",
    "re_iterable_group_by_key_result",
    "report_checkpoint_duration",
    "retain_externalized_checkpoints_on_cancellation",
    "savepoint_path",
    "shutdown_sources_after_idle_ms",
    "state_backend",
    "state_backend_factory",
    "state_backend_storage_path",
    "unaligned_checkpoint_enabled",
    "use_data_stream_for_batch",
)
_SPARK = (
    "batch_interval_millis",
    "bundle_size",
    "cache_disabled",
    "checkpoint_dir",
    "checkpoint_duration_millis",
    "enable_spark_metric_sinks",
    "max_records_per_batch",
    "min_read_time_millis",
    "read_time_percentage",
    "spark_master",
    "storage_level",
    "streaming_timeout_ms",
    "use_active_spark_session",
)
_ENVIRONMENTS = (
    "bundle_processor_cache_timeout",
    "enable_heap_dumps",
    "environment_expiration_millis",
    "gcs_endpoint",
    "gcs_upload_buffer_size_bytes",
    "grouping_table_max_size_mb",
    "jdk_add_open_modules",
    "load_balance_bundles",
    "retain_docker_containers",
    "semi_persist_dir",
)
ALL = tuple(sorted({*_FLINK, *_SPARK, *_ENVIRONMENTS}))


def beam_parser() -> argparse.ArgumentParser:
    """Return a parser of all flags that Beam or one of its engines knows."""
    # What PipelineOptions.get_all_options does, except that unknown flags are not dropped.
    parser = Parser(prog="scout", add_help=False, conflict_handler="resolve")
    for options in {str(cls): cls for cls in PipelineOptions.__subclasses__()}.values():
        options._add_argparse_args(parser)
    for name in (*ALL, "dry_run"):
        # Their types are the engine's to check; some stand alone.
        parser.add_argument(f"--{name}", nargs="?")
    return parser
