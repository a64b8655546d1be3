"""One file per job: a frozen `Config` and `run(cfg, run) -> dict[str, float]`."""
