"""The signals that ask a process to stop."""

import signal

# Windows has no SIGHUP.
STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def heeded() -> list[signal.Signals]:
    """The signals that are not ignored; a process under nohup goes on ignoring SIGHUP."""
    return [number for number in STOP_SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
