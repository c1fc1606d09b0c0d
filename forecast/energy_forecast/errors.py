"""What can go wrong in the platform. Turning an error into a response or an exit code belongs to `api` and `worker`."""


class ForecastError(Exception):
    """Root of every error that the platform raises on purpose."""


class SettingsError(ForecastError):
    """The process's environment is wrong; the message lists every problem."""


class HistoryError(ForecastError):
    """The packaged demand history is missing or is not half-hourly demand."""


class FlagError(ForecastError):
    """The flags' file breaks flagd's format or uses what this platform does not support."""


class Unavailable(ForecastError):
    """The process cannot serve this now, but may in a moment; answered with 503. The message never carries a secret."""


class DatabaseUnavailable(Unavailable):
    """The database cannot be used now: down, out of connections, too slow, or lacking tables."""
