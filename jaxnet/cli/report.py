"""`jaxnet report DIR`: a study's results as one page, and as a table."""

from jaxnet.cli.compare import check_metric
from jaxnet.cli.options import Report
from jaxnet.report.study import study_in_words, write_study
from jaxnet.sweeps.store import Store
from jaxnet.sweeps.study import Study


def report(options: Report) -> None:
    """Read the study, write its page and, where asked for, its table; says what was found.

    Raises:
        FileNotFoundError: no study there. ValueError: no such metric, a metric whose mode isn't known, a table that
            is no .csv or .parquet file. ImportError: matplotlib is missing. OSError: a file can't be written.
    """
    study, out = Study.open(options.study), options.out or options.study / "report.html"
    if options.name is not None:
        check_metric(study, options.study, options.name)
    write_study(out, study, name=options.name, mode=options.mode, record=Store(options.study).read())
    print(study_in_words(study, name=options.name, mode=options.mode))
    print(f"report: {out} ({out.stat().st_size / 1000:,.0f} kB)")
    if options.csv is not None:
        study.write_table(options.csv)
        print(f"table: {options.csv} ({len(study):,} members)")
