"""The stages: one PTransform a file. Importing any of them registers the contracts' coders."""

from apache_beam import coders

from pipelines import contracts

for _record in contracts.RECORDS:
    coders.registry.register_coder(_record, coders.RowCoder)
